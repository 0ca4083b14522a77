"""States what an event source mapping must be for the copy to be exact. Pure.

`asyncsync check` prints each statement. Backfill refuses where a change may not be delivered: a
fill is right only if every later change comes by the stream. A mapping is given as
GetEventSourceMapping describes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

# AWS may trim a stream after 24 hours (Lambda developer guide, "Using AWS Lambda with DynamoDB").
RECORD_AGE_S_LIMIT = 86_400

Severity: TypeAlias = Literal["ok", "note", "fix"]


@dataclass(frozen=True, slots=True)
class Statement:
    """What one setting of a mapping means: `ok`, `note` (for information) or `fix` (wrong).

    With a remedy, the mapping does not deliver every change: nothing may be filled until then.
    """

    state: Severity
    subject: str
    message: str
    wrong: str = ""  # completes "the mapping ..."
    remedy: str = ""


def why_not_delivering(mapping: Mapping[str, Any], stream_arn: str | None) -> str:
    """Return why a mapping does not deliver every change, and what to do; empty if it does."""
    statements = statements_of(mapping, stream_arn)
    reasons = [
        f"mapping {mapping.get('UUID')} {each.wrong}. {each.remedy[0].upper()}{each.remedy[1:]}"
        for each in statements
        if each.remedy
    ]
    return reasons[0] if reasons else ""


def statements_of(
    mapping: Mapping[str, Any], stream_arn: str | None, on_failure: str = "report"
) -> list[Statement]:
    """Judge every setting of a mapping; `on_failure` is the function's setting of that name.

    Without a stream's ARN, the mapping may read any stream.
    """
    return [
        _state(mapping),
        *([] if stream_arn is None else [_stream(mapping, stream_arn)]),
        _answers(mapping, on_failure),
        _bisect(mapping),
        _attempts(mapping),
        _age(mapping),
        _destination(mapping),
        _filters(mapping),
        _window(mapping),
        _start(mapping),
        _last_result(mapping),
    ]


def function_name(name: str) -> str:
    """Return the bare name in a function's name or ARN, which may be partial or have an alias."""
    return name.split("function:")[-1].split(":")[0]


_REMEDIES = {
    "Deleting": "create another",
    **dict.fromkeys(("Creating", "Enabling", "Updating"), "wait until it is enabled"),
}


def _state(mapping: Mapping[str, Any]) -> Statement:
    state = mapping.get("State")
    if state == "Enabled":
        return Statement("ok", "mapping", f"enabled, {mapping.get('BatchSize')} records per batch")
    remedy = _REMEDIES.get(str(state), "enable it")
    why = mapping.get("StateTransitionReason")
    return _undelivered("mapping", f"is {state}{f' ({why})' if why else ''}", remedy)


def _stream(mapping: Mapping[str, Any], stream_arn: str) -> Statement:
    source = mapping.get("EventSourceArn")
    if source == stream_arn:
        return Statement("ok", "source", "reads the table's stream")
    wrong = f"reads {source}, not {stream_arn}"
    return _undelivered("source", wrong, "create one that reads this stream")


def _filters(mapping: Mapping[str, Any]) -> Statement:
    criteria = mapping.get("FilterCriteria") or {}
    if mapping.get("FilterCriteriaError"):
        criteria = {"Filters": ["encrypted"]}
    patterns = [
        str(each.get("Pattern")) if isinstance(each, Mapping) else str(each)
        for each in criteria.get("Filters") or ()
    ]
    if not patterns:
        return Statement("ok", "filter", "none")
    wrong = f"holds changes back by its filter {', '.join(patterns)}"
    return _undelivered("filter", wrong, "remove FilterCriteria")


def _window(mapping: Mapping[str, Any]) -> Statement:
    window_s = mapping.get("TumblingWindowInSeconds") or 0
    if not window_s:
        return Statement("ok", "window", "none")
    wrong = f"has a tumbling window of {window_s} s, whose events are refused"
    return _undelivered("window", wrong, "set TumblingWindowInSeconds to 0")


def _start(mapping: Mapping[str, Any]) -> Statement:
    start = mapping.get("StartingPosition", "")
    if start == "TRIM_HORIZON":
        return Statement("ok", "start", start)
    wrong = f"began at {start or 'an unknown position'}, so it may have missed earlier changes"
    return _undelivered("start", wrong, "create one that begins at TRIM_HORIZON")


def _last_result(mapping: Mapping[str, Any]) -> Statement:
    """Judge how the last batch went; Lambda begins what it says of a failure with PROBLEM."""
    result = mapping.get("LastProcessingResult") or "unknown"
    if not result.upper().startswith("PROBLEM"):
        return Statement("ok", "last batch", result)
    wrong = f"could not process its last batch ({result})"
    return _undelivered("last batch", wrong, "look into the function's log")


def _answers(mapping: Mapping[str, Any], on_failure: str) -> Statement:
    if "ReportBatchItemFailures" in (mapping.get("FunctionResponseTypes") or ()):
        return Statement("ok", "answers", "are used")
    if on_failure == "raise":
        return Statement("ok", "answers", "a failure fails the invocation")
    return Statement(
        "fix", "answers", "are ignored, so failed writes are lost: set ReportBatchItemFailures"
    )


def _bisect(mapping: Mapping[str, Any]) -> Statement:
    if mapping.get("BisectBatchOnFunctionError") is True:
        return Statement("ok", "bisect", "on")
    message = "off: a bad record blocks its whole batch; set BisectBatchOnFunctionError"
    return Statement("fix", "bisect", message)


def _attempts(mapping: Mapping[str, Any]) -> Statement:
    attempts = mapping.get("MaximumRetryAttempts", -1)
    if attempts >= 0:
        return Statement("ok", "attempts", f"at most {attempts}")
    message = "unlimited: a bad record blocks its shard for a day; set 200"
    return Statement("fix", "attempts", message)


def _age(mapping: Mapping[str, Any]) -> Statement:
    age_s = mapping.get("MaximumRecordAgeInSeconds", -1)
    if 0 <= age_s < RECORD_AGE_S_LIMIT:
        return Statement("ok", "record age", f"at most {age_s:,} s")
    value = "unlimited" if age_s < 0 else f"{age_s:,} s"
    why = f"not under {RECORD_AGE_S_LIMIT:,} s, so records may be lost unseen"
    return Statement("fix", "record age", f"{value}, {why}: set 82800")


def _destination(mapping: Mapping[str, Any]) -> Statement:
    on_failure = (mapping.get("DestinationConfig") or {}).get("OnFailure") or {}
    destination = on_failure.get("Destination") or ""
    if destination.split(":")[2:3] == ["s3"]:
        return Statement("ok", "on failure", f"batches go to {destination}")
    where = f"batches go to {destination or 'nowhere'}, which keeps no records: set an S3 bucket"
    return Statement("fix", "on failure", where)


def _undelivered(subject: str, wrong: str, remedy: str) -> Statement:
    return Statement("fix", subject, f"{wrong}: {remedy}", wrong, remedy)
