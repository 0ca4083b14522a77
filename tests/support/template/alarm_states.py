"""What state CloudWatch gives an alarm, from the datapoints of its metrics.

From CloudWatch's user guide, "Alarm evaluation": N periods that end now, each OK or breaching;
M of them make an ALARM. It fetches a few periods more than N. Where those hold N datapoints, the
latest N decide and a missing one counts for nothing; else each missing one counts as
TreatMissingData says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

# How many periods more than N it fetches is not documented; its example has 5 for 3.
FURTHER = 2

# A metric's datapoint of each minute that has one, by (namespace, metric).
Minutes = Mapping[int, float]
Series = Mapping[tuple[str, str], Minutes]

_STATISTICS: Mapping[str, Callable[[Sequence[float]], float]] = {
    "Sum": sum,
    "Maximum": max,
    "SampleCount": len,
}
_BREACHES: Mapping[str, Callable[[float, float], bool]] = {
    "GreaterThanThreshold": lambda value, threshold: value > threshold,
    "LessThanThreshold": lambda value, threshold: value < threshold,
}


def state_of(alarm: Any, series: Series, now: int) -> str:
    """Return OK, ALARM or INSUFFICIENT_DATA for a time in minutes; alarm: its properties."""
    wanted = alarm["EvaluationPeriods"]
    needed = alarm.get("DatapointsToAlarm", wanted)
    fetched = [_datapoint(alarm, series, now, back) for back in range(wanted + FURTHER)]
    there = [value for value in fetched if value is not None]
    if len(there) >= wanted:
        decide: list[float | None] = [*there[:wanted]]
    else:
        decide = fetched[:wanted]
    missing = alarm.get("TreatMissingData", "missing")
    if missing == "missing" and not there:
        return "INSUFFICIENT_DATA"
    if missing not in ("missing", "breaching", "notBreaching"):
        raise LookupError(f"TreatMissingData: {missing}")
    breaches = _BREACHES[alarm["ComparisonOperator"]]
    threshold = float(alarm["Threshold"])
    count = sum(
        missing == "breaching" if value is None else breaches(value, threshold) for value in decide
    )
    return "ALARM" if count >= needed else "OK"


def period_s(alarm: Any) -> int:
    """Return an alarm's period, of an expression that of its metrics."""
    if "Metrics" in alarm:
        (period,) = {each["MetricStat"]["Period"] for each in _metrics(alarm)}
        return int(period)
    return int(alarm["Period"])


def watched(alarm: Any) -> list[tuple[str, str, str, Any]]:
    """Return namespace, metric, statistic and dimensions of each metric of an alarm."""
    if "Metrics" not in alarm:
        keys = ("Namespace", "MetricName", "Statistic", "Dimensions")
        return [tuple(alarm[key] for key in keys)]
    return [
        (
            each["MetricStat"]["Metric"]["Namespace"],
            each["MetricStat"]["Metric"]["MetricName"],
            each["MetricStat"]["Stat"],
            each["MetricStat"]["Metric"]["Dimensions"],
        )
        for each in _metrics(alarm)
    ]


def _metrics(alarm: Any) -> list[Any]:
    return [each for each in alarm["Metrics"] if "MetricStat" in each]


def _datapoint(alarm: Any, series: Series, now: int, back: int) -> float | None:
    """Return the value of the period that ended `back` periods before now."""
    minutes = period_s(alarm) // 60
    ((namespace, metric, statistic, _),) = watched(alarm)
    values = series.get((namespace, metric), {})
    last = now - back * minutes
    found = [values[at] for at in range(last - minutes + 1, last + 1) if at in values]
    if not found:
        return None
    value = float(_STATISTICS[statistic](found))
    for each in alarm.get("Metrics", []):
        if "Expression" in each:
            # Of the four operations and one name, which is all that the template has.
            value = float(eval(each["Expression"], {"__builtins__": {}}, {"bytes": value}))
    return value
