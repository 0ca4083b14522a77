"""Stage 6, metrics: what invocations counted, as lines that CloudWatch reads.

A line for every invocation costs more than the invocation, so by default counts wait up to a
minute for a line that speaks for several invocations. Trouble never waits. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import orjson
from msgspec import Struct

from asyncsync.config import Config
from asyncsync.limits import LAG_TROUBLE_MS, METRICS_PERIOD_MS, METRICS_SAMPLES_MAX

METRICS = {
    "Invocations": "Count",
    "Records": "Count",
    "Superseded": "Count",
    "Applied": "Count",
    "Fenced": "Count",
    "Rejected": "Count",
    "Failed": "Count",
    "LagMs": "Milliseconds",
    "RoundTripMs": "Milliseconds",
    "ColdStart": "Count",
    "RawEvent": "Count",
}


class Metrics(Struct, frozen=True):
    """What one or several invocations of one table counted: sums, and each one's own times."""

    counts: Mapping[str, int] = {}
    times_ms: Mapping[str, Sequence[float]] = {}
    line_ms: int | None = None  # when the last line was written, in epoch milliseconds


def metrics_line(
    unsent: Metrics, new: Metrics, table: str, config: Config, now_ms: int
) -> tuple[bytes | None, Metrics]:
    """Return the line to write now, if any, and the metrics that wait for a later one."""
    is_summary = config.metrics == "summary"
    total = _sum(unsent, new) if is_summary else new
    if _is_due(total, new, config, now_ms):
        return emf(total, table, now_ms), Metrics(line_ms=now_ms)
    return None, total if is_summary else unsent


def emf(metrics: Metrics, table: str, now_ms: int) -> bytes:
    """Write CloudWatch's Embedded Metric Format (CloudWatch user guide, EMF specification).

    A count of zero is left out. Several times of one metric are an array.
    """
    values: dict[str, object] = {name: count for name, count in metrics.counts.items() if count}
    for name, times in metrics.times_ms.items():
        if times:
            values[name] = times if len(times) > 1 else times[0]
    definition = {
        "Namespace": "asyncsync",
        "Dimensions": [["Table"]],
        "Metrics": [
            {"Name": name, "Unit": METRICS[name]} if name in metrics.times_ms else {"Name": name}
            for name in values
        ],
    }
    line = {"Timestamp": now_ms, "CloudWatchMetrics": [definition]}
    return orjson.dumps({"_aws": line, "Table": table, **values})


def _sum(unsent: Metrics, new: Metrics) -> Metrics:
    return Metrics(
        {name: unsent.counts.get(name, 0) + count for name, count in new.counts.items()},
        {name: [*unsent.times_ms.get(name, ()), *times] for name, times in new.times_ms.items()},
        unsent.line_ms,
    )


def _is_due(total: Metrics, new: Metrics, config: Config, now_ms: int) -> bool:
    if config.metrics in ("every", "off"):
        return config.metrics == "every"
    counts = new.counts
    if (
        counts["Failed"]
        or counts["Rejected"]
        or max(new.times_ms["LagMs"], default=0) > LAG_TROUBLE_MS
    ):
        return True
    if config.metrics == "trouble":
        return counts["Fenced"] > 0
    return (
        total.line_ms is None
        or not 0 <= now_ms - total.line_ms < METRICS_PERIOD_MS  # or the clock was set back
        or total.counts["Invocations"] >= METRICS_SAMPLES_MAX
    )
