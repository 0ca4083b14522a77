"""Stage 6: no failed record is ever answered as done, and no line shows a value."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import Raw

from asyncsync.config import Config
from asyncsync.errors import BatchFailed, EventError
from asyncsync.limits import LAG_TROUBLE_MS, LOG_PATHS_MAX
from asyncsync.metrics import METRICS, Metrics
from asyncsync.model import (
    APPLIED,
    FENCED,
    Collapsed,
    Decoded,
    Encoded,
    Entry,
    Outcome,
    Reject,
    SequenceNumber,
    Stream,
    StreamRecord,
    Written,
)
from asyncsync.report import Invocation, Report, report
from asyncsync.version import __version__
from tests.support.events import FIRST, arn, failed

NOW_MS = 1_767_225_600_000
STREAM = Stream(arn(), "Players", NOW_MS)
INVOCATION = Invocation("request-1", NOW_MS, cold_start=False, raw_event=True)
OOM = Outcome("failed", "OOM", "refused by the server")

Part = Literal["applied", "fenced", "failed", "rejected", "keyless"]


class Batch:
    """The earlier stages' results for a batch: one part per key, by sequence number."""

    def __init__(self, parts: Sequence[tuple[str, Part]] = (), **facts: Any) -> None:
        self.entries: list[Entry] = []
        self.outcomes: list[Outcome] = []
        self.rejects: list[Reject] = []
        self.keyless: list[Reject] = []
        self.records: list[StreamRecord] = []
        self.unnamed: Sequence[str] = facts.pop("unnamed", ())
        self.superseded: int = facts.pop("superseded", 0)
        self.oldest_s: float | None = facts.pop("oldest_s", None)
        self.path: tuple[str, ...] = facts.pop("path", ())
        self.stream: Stream | None = facts.pop("stream", STREAM)
        self.written: dict[str, Any] = facts
        for at, (text, part) in enumerate(parts):
            self.add(at, text, part)

    def add(self, at: int, text: str, part: Part) -> None:
        number = SequenceNumber(int(text))
        reject = Reject(number, text, "N is not a number", self.path)
        if part == "keyless":
            self.keyless.append(reject)
            return
        self.records.append(StreamRecord((("id", "N", str(at)),), number, text, False, Raw(b"{}")))
        name = b"Players:secret%d" % at
        entry = Entry(name, b"{%b}!f" % name, b"1", b"secret", 0, number, text)
        self.entries.append(entry)
        outcomes = {"applied": APPLIED, "fenced": FENCED, "failed": OOM, "rejected": APPLIED}
        self.outcomes.append(outcomes[part])
        if part == "rejected":
            self.rejects.append(reject)

    def report(self, invocation: Invocation = INVOCATION, **options: Any) -> Report:
        records = [*self.records, *self.records[:1] * self.superseded]
        return report(
            Decoded(self.stream, "NEW_IMAGE", records, self.keyless, self.unnamed, self.oldest_s),
            Collapsed(self.records, self.superseded),
            Encoded(self.entries, self.rejects),
            Written(self.outcomes, self.written.pop("round_trip_ms", 1.0), **self.written),
            Config(redis_url="redis://h", **{"metrics": "every", **options}),
            invocation,
            Metrics(),
        )


def lines(result: Report) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.lines]


def metrics_of(result: Report) -> dict[str, Any]:
    (line,) = [line for line in lines(result) if "_aws" in line]
    return line


def log_of(result: Report) -> dict[str, Any]:
    (line,) = [line for line in lines(result) if "_aws" not in line]
    return line


# --- the answer ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "options", "answer"),
    [
        ([], {}, []),
        ([("1", "applied"), ("2", "fenced")], {}, []),
        ([("1", "applied"), ("2", "failed")], {}, ["2"]),
        ([("9", "failed"), ("10", "failed")], {}, ["9"]),  # as text 10 is the lower
        ([("10", "failed"), ("9", "failed")], {}, ["9"]),
        ([("0009", "failed"), ("10", "failed")], {}, ["0009"]),  # as the text that came
        ([("5", "rejected"), ("6", "failed")], {}, ["5"]),
        ([("6", "rejected"), ("5", "failed")], {}, ["5"]),
        ([("5", "keyless"), ("6", "rejected")], {}, ["5"]),
        ([("6", "keyless"), ("5", "applied")], {}, ["6"]),
        ([("5", "rejected"), ("6", "keyless")], {"rejects": "skip"}, []),
        ([("5", "rejected"), ("6", "failed")], {"rejects": "skip"}, ["6"]),
        ([("5", "failed"), ("6", "keyless")], {"rejects": "skip"}, ["5"]),
    ],
)
def test_the_lowest_failed_survivor_is_reported(
    parts: Sequence[tuple[str, Part]], options: dict[str, Any], answer: list[str]
) -> None:
    result = Batch(parts).report(**options)

    assert result.response == {"batchItemFailures": [{"itemIdentifier": text} for text in answer]}
    assert result.error is None


def test_a_removal_at_rank_0_that_failed_is_reported_even_where_rejects_are_skipped() -> None:
    batch = Batch([("5", "rejected")])
    batch.outcomes = [OOM]

    assert failed(batch.report(rejects="skip").response) == ["5"]


def test_earlier_records_of_a_failed_key_are_never_reported() -> None:
    # The highest of each failed key (5 and 4 survived 1 to 3), and the lowest of those.
    result = Batch([("5", "failed"), ("4", "failed")], superseded=3).report()

    assert failed(result.response) == ["4"]


PARTS: st.SearchStrategy[Part] = st.sampled_from(
    ["applied", "fenced", "failed", "rejected", "keyless"]
)
NUMBERS = st.one_of(st.integers(0, 120), st.integers(10**21 - 5, 10**21 + 5))


@settings(deadline=None)
@given(
    st.lists(st.tuples(NUMBERS, PARTS), unique_by=lambda part: part[0], max_size=8),
    st.sampled_from(["report", "skip"]),
    st.sampled_from(["report", "raise"]),
    st.booleans(),
)
@example([(9, "failed"), (10, "failed")], "report", "report", False)
def test_only_a_delivered_record_is_named_and_no_failure_is_answered_as_done(
    parts: list[tuple[int, Part]], rejects: str, on_failure: str, unnamed: bool
) -> None:
    batch = Batch([(str(n), part) for n, part in parts], unnamed=["why"] if unnamed else [])

    result = batch.report(rejects=rejects, on_failure=on_failure)

    wanted = {"failed"} | ({"rejected", "keyless"} if rejects == "report" else set())
    bad = sorted(number for number, part in parts if part in wanted)
    answer = failed(result.response)
    assert answer == [str(number) for number in bad[:1]]
    assert set(answer) <= {str(number) for number, _ in parts}
    if unnamed:
        assert isinstance(result.error, EventError)
    elif bad and on_failure == "raise":
        assert isinstance(result.error, BatchFailed)
    else:
        assert result.error is None
    for line in lines(result):
        assert "secret" not in json.dumps(line)


def test_raise_names_the_lowest_and_the_count() -> None:
    result = Batch([("10", "failed"), ("9", "failed")]).report(on_failure="raise")

    assert str(result.error) == "2 records failed, the lowest is 9"
    assert failed(result.response) == ["9"]


def test_raise_is_silent_where_nothing_failed() -> None:
    assert Batch([("1", "applied")]).report(on_failure="raise").error is None
    assert Batch([("1", "rejected")]).report(on_failure="raise", rejects="skip").error is None


@pytest.mark.parametrize("options", [{}, {"rejects": "skip"}, {"on_failure": "raise"}])
def test_a_record_that_cannot_be_named_fails_the_invocation_after_the_rest(
    options: dict[str, Any],
) -> None:
    result = Batch([("1", "applied")], unnamed=["a SequenceNumber is bad"] * 2).report(**options)

    assert isinstance(result.error, EventError)
    assert str(result.error) == (
        "2 records cannot be named in an answer: a SequenceNumber is bad; the rest was applied"
    )


def test_an_outcome_that_is_missing_is_a_bug_and_no_success() -> None:
    batch = Batch([("1", "failed")])
    batch.outcomes = []

    with pytest.raises(AssertionError, match="every entry has an outcome"):
        batch.report()


def test_a_record_that_was_lost_on_the_way_is_a_bug_and_no_success() -> None:
    batch = Batch([("1", "applied")])

    with pytest.raises(AssertionError):
        report(
            Decoded(STREAM, "", batch.records, (), (), None),
            Collapsed([], 0),
            Encoded([], []),
            Written([], 0.0),
            Config(redis_url="redis://h"),
            INVOCATION,
            Metrics(),
        )


# --- the metrics line ---------------------------------------------------------------------------


def test_every_metric_in_the_definition_is_a_number_beside_it() -> None:
    parts: list[tuple[str, Part]] = [
        ("1", "applied"),
        ("2", "fenced"),
        ("3", "failed"),
        ("4", "rejected"),
        ("5", "keyless"),
    ]
    batch = Batch(
        parts,
        unnamed=["why"],
        superseded=7,
        oldest_s=NOW_MS / 1_000 - 1.5,
        round_trip_ms=0.98765,
    )

    line = metrics_of(batch.report(Invocation("r", NOW_MS, cold_start=True, raw_event=False)))

    (definition,) = line["_aws"]["CloudWatchMetrics"]
    assert line["_aws"]["Timestamp"] == NOW_MS
    assert definition["Namespace"] == "asyncsync"
    assert definition["Dimensions"] == [["Table"]]
    units = {each["Name"]: each.get("Unit", "Count") for each in definition["Metrics"]}
    assert units == {name: unit for name, unit in METRICS.items() if name != "RawEvent"}
    assert {name: line[name] for name in [*units, "Table"]} == {
        "Invocations": 1,
        "Records": 13,
        "Superseded": 7,
        "Applied": 2,
        "Fenced": 1,
        "Rejected": 3,
        "Failed": 1,
        "LagMs": 1_500,
        "RoundTripMs": 0.99,
        "ColdStart": 1,
        "Table": "Players",
    }
    assert set(line) == {"_aws", "Table", *units}, "a count of zero is left out"


@settings(deadline=None)
@given(st.one_of(st.none(), st.floats(0, 4e9)), st.floats(0, 1e6))
def test_the_metrics_line_keeps_the_shape_cloudwatch_reads(
    oldest_s: float | None, round_trip_ms: float
) -> None:
    line = metrics_of(Batch(oldest_s=oldest_s, round_trip_ms=round_trip_ms).report())

    names = [metric["Name"] for metric in line["_aws"]["CloudWatchMetrics"][0]["Metrics"]]
    assert set(line) - {"_aws", "Table"} == set(names)
    assert len(names) == len(set(names)) <= 100  # CloudWatch's limit of a definition
    for name in names:
        assert isinstance(line[name], int | float)
        assert line[name] >= 0
    assert ("LagMs" in names) == (oldest_s is not None)


def test_a_clock_behind_the_stream_is_no_negative_lag() -> None:
    assert metrics_of(Batch(oldest_s=NOW_MS / 1_000 + 5).report())["LagMs"] == 0


@pytest.mark.parametrize("metrics", ["every", "trouble", "off"])
@pytest.mark.parametrize(
    ("part", "oldest_ms", "trouble"),
    [
        ("applied", 0, False),
        ("applied", LAG_TROUBLE_MS, False),
        ("applied", LAG_TROUBLE_MS + 1, True),
        ("applied", None, False),
        ("fenced", 0, True),
        ("failed", 0, True),
        ("rejected", 0, True),
        ("keyless", 0, True),
        ("unnamed", 0, True),
    ],
)
def test_metrics_are_written_always_in_trouble_or_never(
    part: Any, oldest_ms: int | None, trouble: bool, metrics: str
) -> None:
    oldest_s = None if oldest_ms is None else (NOW_MS - oldest_ms) / 1_000
    unnamed = part == "unnamed"
    batch = Batch(
        [("1", "applied" if unnamed else part)],
        oldest_s=oldest_s,
        unnamed=["why"] if unnamed else [],
    )

    written = any("_aws" in line for line in lines(batch.report(metrics=metrics)))

    assert written == (metrics == "every" or (metrics == "trouble" and trouble))


# --- the log line -------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["applied", "fenced"])
def test_an_invocation_without_trouble_logs_nothing(part: Part) -> None:
    assert [line for line in lines(Batch([("1", part)]).report()) if "_aws" not in line] == []


def test_a_failed_write_says_what_failed_and_of_which_records() -> None:
    parts: list[tuple[str, Part]] = [
        ("10", "failed"),
        ("9", "failed"),
        ("8", "applied"),
        ("11", "rejected"),
    ]

    assert log_of(Batch(parts).report()) == {
        "timestamp": "2026-01-01T00:00:00.000+00:00",
        "level": "ERROR",
        "event": "write_failed",
        "error": "OOM",
        "reason": "refused by the server",
        "table": "Players",
        "records": 4,
        "failed": 2,
        "rejected": 1,
        "unnamed": 0,
        "lowest_sequence_number": "9",
        "highest_sequence_number": "11",
        "request_id": "request-1",
        "version": __version__,
        "paths": [],
        "paths_more": 0,
    }


def test_a_mere_err_is_logged_as_what_the_server_said_after_it() -> None:
    batch = Batch([("1", "failed")])
    batch.outcomes = [Outcome("failed", "ERR", "max number of clients reached")]

    line = log_of(batch.report())

    assert line["error"] == "max number of clients reached"
    assert line["reason"] == "refused by the server"


@pytest.mark.parametrize(
    ("facts", "event"),
    [
        ({}, "write_failed"),
        ({"reconnected": True}, "reconnected"),
        ({"out_of_time": True}, "deadline"),
        ({"reconnected": True, "out_of_time": True}, "deadline"),
    ],
)
def test_the_event_of_a_failure_says_how_far_the_write_came(
    facts: dict[str, Any], event: str
) -> None:
    assert log_of(Batch([("1", "failed")], **facts).report())["event"] == event


@pytest.mark.parametrize("rejects", ["report", "skip"])
def test_a_reject_is_logged_and_counted_whether_skipped_or_not(rejects: str) -> None:
    result = Batch([("1", "rejected")], path=("Score", "best")).report(rejects=rejects)

    line = log_of(result)
    assert (line["level"], line["event"], line["error"]) == ("WARN", "rejected", "Reject")
    assert line["reason"] == "N is not a number"
    assert line["paths"] == ["Score.best"]
    assert metrics_of(result)["Rejected"] == 1


def test_a_record_that_cannot_be_named_is_logged_without_numbers() -> None:
    line = log_of(Batch(unnamed=["a record has no SequenceNumber of 1 to 40 digits"]).report())

    assert (line["level"], line["event"], line["error"]) == ("ERROR", "rejected", "Unnamed")
    assert line["reason"] == "a record has no SequenceNumber of 1 to 40 digits"
    assert line["lowest_sequence_number"] is line["highest_sequence_number"] is None
    assert "paths" not in line


@pytest.mark.parametrize("count", [1, LOG_PATHS_MAX, LOG_PATHS_MAX + 1, 500])
def test_at_most_ten_paths_and_keys_are_named_and_the_rest_counted(count: int) -> None:
    both: list[tuple[str, Part]] = [(str(FIRST + at), "rejected") for at in range(count)]
    batch = Batch(both, path=("Score",))
    batch.outcomes = [OOM] * count

    line = log_of(batch.report(log_keys=True))

    assert line["paths"] == ["Score"] * min(count, 10)
    assert line["paths_more"] == max(0, count - 10)
    assert line["keys"] == [f"Players:secret{at}" for at in range(min(count, 10))]
    assert line["keys_more"] == max(0, count - 10)


def test_keys_are_named_only_where_the_setting_allows_it() -> None:
    batch = Batch([("1", "failed")])

    assert "keys" not in log_of(batch.report())
    assert log_of(batch.report(log_keys=True))["keys"] == ["Players:secret0"]
    assert "keys" not in log_of(Batch([("1", "rejected")]).report(log_keys=True))


def test_a_batch_without_a_stream_still_has_lines() -> None:
    result = Batch(unnamed=["why"], stream=None).report()

    assert metrics_of(result)["Table"] == log_of(result)["table"] == ""


def test_each_line_is_one_line() -> None:
    for line in Batch([("1", "rejected")], path=("a\nb",)).report().lines:
        assert b"\n" not in line
