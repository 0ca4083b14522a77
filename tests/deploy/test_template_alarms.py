"""The template's alarms on simulated metrics: none sleeps through what it is for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from asyncsync.config import Config
from asyncsync.metrics import METRICS, Metrics, metrics_line
from tests.support.template.alarm_states import Series, period_s, state_of, watched
from tests.support.template.alarms import BREACHING, DAMAGE, PROMISES
from tests.support.template.cases import CASES
from tests.support.template.cloudformation import Resolver

HOUR, DAY = 60, 24 * 60
SATURDAY_3_AM = 10 * DAY + 3 * HOUR
MONDAY_9_AM = 12 * DAY + 9 * HOUR
NOW = MONDAY_9_AM

POLLS = ("AWS/Lambda", "PolledEventCount")
AGE = ("AWS/Lambda", "IteratorAge")
AUDITS = ("asyncsync", "AuditDifferences")
REJECTS = ("asyncsync", "Rejected")

STACKS = (
    "new table, serverless, new network",
    "new table, node, new network",
    "stream, node and replica, your network, topic, map, rules, more",
    "stream, durable node, your network, key, map, audit, rules",
    "stream, yours with password, your network, topic, map, audit, reserve",
    "stream, yours with nothing, no network",
)


def alarms_of(resources: Any) -> dict[str, Any]:
    return {
        name: body["Properties"]
        for name, body in resources.items()
        if body["Type"] == "AWS::CloudWatch::Alarm"
    }


@pytest.fixture(scope="module", params=STACKS)
def alarms(request: pytest.FixtureRequest, translated: Any) -> dict[str, Any]:
    return alarms_of(Resolver(translated, CASES[request.param], known=True).resources())


def states(alarms: dict[str, Any], series: Series, now: int = NOW) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for name, alarm in alarms.items():
        found.setdefault(state_of(alarm, series, now), set()).add(name)
    return found


def quiet(until: int = NOW) -> Series:
    """A table that nobody writes to: the mapping polls and finds nothing, and so do the audits."""
    audits = dict.fromkeys(range(4 * HOUR, until + 1, DAY), 0.0)
    return {POLLS: dict.fromkeys(range(until + 1), 0.0), AUDITS: audits}


def metric_of(alarm: Any) -> tuple[str, str]:
    ((namespace, metric, _, _),) = watched(alarm)
    return namespace, metric


# --- the evaluation itself --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "missing", "state"),
    [  # newest last; "-" missing, "x" breaching, "o" not: the guide's own table, for 3 of 3
        ("o-x-x", "notBreaching", "OK"),
        ("-----", "missing", "INSUFFICIENT_DATA"),
        ("-----", "breaching", "ALARM"),
        ("-----", "notBreaching", "OK"),
        ("oxxxx", "notBreaching", "ALARM"),
        ("-xx-x", "notBreaching", "ALARM"),  # three datapoints decide, and a gap does not
        ("--xxo", "breaching", "OK"),
    ],
)
def test_an_alarm_is_evaluated_as_the_guide_says(values: str, missing: str, state: str) -> None:
    alarm = {
        "Namespace": "n",
        "MetricName": "m",
        "Dimensions": [],
        "Statistic": "Sum",
        "Period": 60,
        "EvaluationPeriods": 3,
        "TreatMissingData": missing,
        "ComparisonOperator": "GreaterThanThreshold",
        "Threshold": 0,
    }
    minutes = {at: float(each == "x") for at, each in enumerate(values) if each != "-"}

    assert state_of(alarm, {("n", "m"): minutes}, len(values) - 1) == state


def test_cloudwatch_takes_the_windows(alarms: dict[str, Any]) -> None:
    for name, alarm in alarms.items():
        span = period_s(alarm) * alarm["EvaluationPeriods"]
        assert span <= (7 * 86_400 if period_s(alarm) >= 3_600 else 86_400), name


# --- what must not be green -------------------------------------------------------------------


def test_with_no_data_at_all_somebody_is_told(alarms: dict[str, Any]) -> None:
    found = states(alarms, {})

    assert found["ALARM"] == BREACHING & set(alarms)
    assert "INSUFFICIENT_DATA" not in found


@pytest.mark.parametrize("how", ["disabled", "deleted", "a right lost", "the table's key lost"])
def test_a_mapping_that_stops_is_told_within_half_an_hour(
    alarms: dict[str, Any], how: str
) -> None:
    stopped = quiet(NOW - 30)  # in each of them there are no polls any more, and no calls

    assert states(alarms, stopped, NOW - 30)["OK"] == set(alarms)
    assert states(alarms, stopped)["ALARM"] == {"NotPollingAlarm"}


def test_a_table_that_nobody_writes_to_is_no_alarm(alarms: dict[str, Any]) -> None:
    assert states(alarms, quiet()) == {"OK": set(alarms)}


def test_one_bad_minute_at_night_stays_until_a_person_has_looked(alarms: dict[str, Any]) -> None:
    for name in DAMAGE & set(alarms):
        metric = metric_of(alarms[name])
        series = {**quiet(), metric: {**quiet().get(metric, {}), SATURDAY_3_AM: 1.0}}
        for now in (SATURDAY_3_AM, SATURDAY_3_AM + 10, SATURDAY_3_AM + 8 * HOUR, MONDAY_9_AM):
            assert name in states(alarms, series, now)["ALARM"], now
        assert "OKActions" not in alarms[name]


@pytest.mark.parametrize("mode", ["summary", "every", "trouble"])
@pytest.mark.parametrize("calls_a_minute", [0.2, 1, 60])
def test_a_reject_at_night_rings_whenever_metrics_are_written(
    alarms: dict[str, Any], mode: Any, calls_a_minute: float
) -> None:
    config = Config(redis_url="redis://h", metrics=mode)
    for rejected_at in (None, SATURDAY_3_AM):
        series = {**quiet(), REJECTS: rejects_said(config, calls_a_minute, rejected_at)}
        for now in (SATURDAY_3_AM + 1, MONDAY_9_AM):
            rings = "RejectsAlarm" in states(alarms, series, now).get("ALARM", ())
            assert rings == (rejected_at is not None), (now, rejected_at)


def rejects_said(
    config: Config, calls_a_minute: float, rejected_at: int | None
) -> dict[int, float]:
    """Return the metric Rejected as the handler's own lines write it, from a day before."""
    minutes: dict[int, float] = {}
    unsent = Metrics()
    calm = dict.fromkeys([name for name, unit in METRICS.items() if unit == "Count"], 0)
    for call in range(int(2 * DAY * calls_a_minute)):
        minute = SATURDAY_3_AM - DAY + int(call / calls_a_minute)
        is_reject = rejected_at == minute
        rejected_at = None if is_reject else rejected_at
        counts = {**calm, "Invocations": 1, "Records": 3, "Rejected": int(is_reject)}
        new = Metrics(counts, {"LagMs": [300], "RoundTripMs": [1]})
        now_ms = int((SATURDAY_3_AM - DAY + call / calls_a_minute) * 60_000)
        line, unsent = metrics_line(unsent, new, "Players", config, now_ms)
        if line is not None:
            said = json.loads(line)
            if "Rejected" in said:
                minutes[minute] = minutes.get(minute, 0.0) + said["Rejected"]
    return minutes


def test_what_is_only_a_state_ends_and_says_so(alarms: dict[str, Any]) -> None:
    for name in set(alarms) - DAMAGE:
        alarm = alarms[name]
        assert alarm.get("OKActions") == alarm.get("AlarmActions")
        if name in BREACHING:
            continue
        bad = dict.fromkeys(range(NOW - 2 * HOUR, NOW - HOUR), 1e15)
        series = {**quiet(), metric_of(alarm): bad}
        assert name in states(alarms, series, NOW - HOUR - 1)["ALARM"]
        assert states(alarms, series) == {"OK": set(alarms)}


def test_every_alarm_can_ring(alarms: dict[str, Any]) -> None:
    for name, alarm in alarms.items():
        bad = {} if name in BREACHING else dict.fromkeys(range(NOW + 1), 1e15)
        assert state_of(alarm, {metric_of(alarm): bad}, NOW) == "ALARM", name


def test_an_audit_that_does_not_come_to_an_end_is_not_a_good_one(alarms: dict[str, Any]) -> None:
    if "NoAuditAlarm" not in alarms:
        return
    late = {**quiet(), AUDITS: {NOW - DAY - 12 * HOUR: 0.0}}
    absent = {**quiet(), AUDITS: {NOW - 2 * DAY - HOUR: 0.0}}

    assert states(alarms, late) == {"OK": set(alarms)}
    assert states(alarms, absent)["ALARM"] == {"NoAuditAlarm"}


# --- single ones ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("every", "minutes", "rings"),
    [(1, 10, True), (3, 10, True), (10, 1, False)],
)
def test_late_needs_three_minutes_of_ten_and_not_in_a_row(
    alarms: dict[str, Any], every: int, minutes: int, rings: bool
) -> None:
    ages = {at: 300_001.0 for at in range(NOW - minutes + 1, NOW + 1) if not (NOW - at) % every}

    late = state_of(alarms["LateAlarm"], {**quiet(), AGE: ages}, NOW)

    assert (late == "ALARM") == rings


@pytest.mark.parametrize(
    ("gigabytes", "maximum", "rings"), [(3.9, "5", False), (4.1, "5", True), (4.1, "50", False)]
)
def test_a_serverless_cache_is_full_at_80_percent_of_its_bound(
    translated: Any, gigabytes: float, maximum: str, rings: bool
) -> None:
    alarm = Resolver(translated, {"CacheMaximumGB": maximum}, known=True).resources()[
        "CacheFullAlarm"
    ]["Properties"]
    used = dict.fromkeys(range(NOW - 10, NOW + 1), gigabytes * 1e9)

    state = state_of(alarm, {("AWS/ElastiCache", "BytesUsedForCache"): used}, NOW)

    assert (state == "ALARM") == rings


def test_damage_is_told_from_states() -> None:
    assert set(PROMISES) > DAMAGE
