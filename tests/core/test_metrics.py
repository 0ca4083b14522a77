"""Stage 6, metrics: no count is lost or said twice, and nothing about trouble waits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncsync.config import Config
from asyncsync.limits import LAG_TROUBLE_MS, METRICS_PERIOD_MS, METRICS_SAMPLES_MAX
from asyncsync.metrics import METRICS, Metrics, emf, metrics_line

NOW_MS = 1_767_225_600_000
COUNTS = [name for name, unit in METRICS.items() if unit == "Count"]
SUMMARY = Config(redis_url="redis://h")


def counted(lag_ms: int | None = 0, **counts: int) -> Metrics:
    """Return what one invocation counts."""
    lags = [] if lag_ms is None else [lag_ms]
    return Metrics(
        {**dict.fromkeys(COUNTS, 0), "Invocations": 1, "Records": 3, "Applied": 2, **counts},
        {"LagMs": lags, "RoundTripMs": [0.5]},
    )


def play(
    invocations: Sequence[tuple[int, Metrics]], config: Config = SUMMARY
) -> tuple[list[dict[str, Any] | None], Metrics]:
    """Return the line that each invocation wrote, and what waits after the last."""
    unsent, lines = Metrics(), list[dict[str, Any] | None]()
    for at_ms, metrics in invocations:
        line, unsent = metrics_line(unsent, metrics, "Players", config, NOW_MS + at_ms)
        lines.append(None if line is None else json.loads(line))
    return lines, unsent


INVOCATIONS = st.lists(
    st.tuples(
        st.integers(0, METRICS_PERIOD_MS + 10_000),
        st.builds(
            counted,
            st.one_of(st.none(), st.integers(0, LAG_TROUBLE_MS), st.just(LAG_TROUBLE_MS + 1)),
            Records=st.integers(0, 9),
            Fenced=st.integers(0, 2),
            Failed=st.sampled_from([0, 0, 0, 1]),
            Rejected=st.sampled_from([0, 0, 0, 1]),
            ColdStart=st.integers(0, 1),
        ),
    ),
    max_size=250,
)


@settings(deadline=None)
@given(INVOCATIONS, st.sampled_from(["summary", "every"]))
def test_the_lines_and_what_waits_add_up_to_what_was_counted(
    waits: list[tuple[int, Metrics]], mode: Any
) -> None:
    at_ms, invocations = 0, []
    for wait_ms, metrics in waits:
        at_ms += wait_ms
        invocations.append((at_ms, metrics))

    lines, unsent = play(invocations, Config(redis_url="redis://h", metrics=mode))

    said = [line for line in lines if line is not None]
    for name in COUNTS:
        total = sum(line.get(name, 0) for line in said) + unsent.counts.get(name, 0)
        assert total == sum(metrics.counts[name] for _, metrics in invocations)
    for name in ("LagMs", "RoundTripMs"):
        samples = [line.get(name, []) for line in said] + [[*unsent.times_ms.get(name, ())]]
        flat = [time for each in samples for time in (each if isinstance(each, list) else [each])]
        assert flat == [time for _, metrics in invocations for time in metrics.times_ms[name]]
        assert all(len(each) <= METRICS_SAMPLES_MAX for each in samples if isinstance(each, list))


@settings(deadline=None)
@given(INVOCATIONS)
def test_what_a_dying_sandbox_loses_is_less_than_a_minute_and_never_trouble(
    waits: list[tuple[int, Metrics]],
) -> None:
    at_ms, unsent = 0, Metrics()
    for wait_ms, metrics in waits:
        at_ms += wait_ms
        _, unsent = metrics_line(unsent, metrics, "Players", SUMMARY, NOW_MS + at_ms)

        assert not unsent.counts.get("Failed")
        assert not unsent.counts.get("Rejected")
        assert all(lag <= LAG_TROUBLE_MS for lag in unsent.times_ms.get("LagMs", ()))
        if unsent.counts:
            assert unsent.line_ms is not None
            assert NOW_MS + at_ms - unsent.line_ms < METRICS_PERIOD_MS


@pytest.mark.parametrize(
    "trouble",
    [
        counted(Failed=1),
        counted(Rejected=1),
        counted(LAG_TROUBLE_MS + 1),
    ],
)
def test_trouble_is_said_at_once_with_all_that_waited(trouble: Metrics) -> None:
    lines, unsent = play([(0, counted()), (10, counted()), (20, trouble)])

    assert lines[1] is None
    assert lines[2] is not None
    assert lines[2]["Invocations"] == 2
    assert unsent == Metrics(line_ms=NOW_MS + 20)


@pytest.mark.parametrize("calm", [counted(LAG_TROUBLE_MS), counted(None), counted(Fenced=2)])
def test_what_is_well_waits(calm: Metrics) -> None:
    assert play([(0, counted()), (1, calm)])[0][1] is None


@pytest.mark.parametrize("minutes", [1, 2, 60])
def test_an_invocation_a_minute_or_less_often_writes_its_own_line(minutes: int) -> None:
    lines, unsent = play([(at * minutes * METRICS_PERIOD_MS, counted()) for at in range(5)])

    assert [line and line["Invocations"] for line in lines] == [1] * 5
    assert unsent.counts == {}


@pytest.mark.parametrize(("wait_ms", "is_written"), [(59_999, False), (60_000, True), (-1, True)])
def test_a_line_waits_a_minute_at_most_and_not_for_a_clock_that_was_set_back(
    wait_ms: int, is_written: bool
) -> None:
    lines, _ = play([(0, counted()), (wait_ms, counted())])

    assert (lines[1] is not None) == is_written


def test_a_line_speaks_for_a_hundred_invocations_at_most() -> None:
    lines, _ = play([(at, counted(at)) for at in range(202)])

    said = [line for line in lines if line is not None]
    assert [line["Invocations"] for line in said] == [1, 100, 100]
    assert said[1]["LagMs"] == list(range(1, 101))
    assert said[1]["RoundTripMs"] == [0.5] * 100
    assert said[1]["Records"] == 300


@pytest.mark.parametrize("mode", ["every", "trouble", "off"])
def test_the_other_modes_keep_nothing(mode: Any) -> None:
    lines, unsent = play(
        [(0, counted()), (1, counted(Fenced=1)), (2, counted())],
        Config(redis_url="redis://h", metrics=mode),
    )

    written = {"every": [True, True, True], "trouble": [False, True, False], "off": [False] * 3}
    assert [line is not None for line in lines] == written[mode]
    assert unsent.counts == {}
    assert lines[1] is None or lines[1]["Invocations"] == 1


def test_a_line_is_as_short_as_the_format_allows() -> None:
    assert json.loads(emf(counted(7), "Players", NOW_MS)) == {
        "_aws": {
            "Timestamp": NOW_MS,
            "CloudWatchMetrics": [
                {
                    "Namespace": "asyncsync",
                    "Dimensions": [["Table"]],
                    "Metrics": [
                        {"Name": "Invocations"},
                        {"Name": "Records"},
                        {"Name": "Applied"},
                        {"Name": "LagMs", "Unit": "Milliseconds"},
                        {"Name": "RoundTripMs", "Unit": "Milliseconds"},
                    ],
                }
            ],
        },
        "Table": "Players",
        "Invocations": 1,
        "Records": 3,
        "Applied": 2,
        "LagMs": 7,
        "RoundTripMs": 0.5,
    }
