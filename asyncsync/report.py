"""Stage 6: outcomes in, the answer Lambda reads out, with a metrics and a log line; just data.

Lambda reads an empty list as "all succeeded" and moves its checkpoint past the batch, so
every bug on this page is data loss. It fails closed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import orjson
from msgspec import Struct

from asyncsync.config import Config
from asyncsync.errors import AsyncsyncError, BatchFailed, EventError
from asyncsync.limits import LAG_TROUBLE_MS, LOG_PATHS_MAX
from asyncsync.model import Collapsed, Decoded, Encoded, Entry, Outcome, Reject, Written
from asyncsync.version import __version__


class BatchItemFailure(TypedDict):
    """AWS's name for one failed record of a partial batch response."""

    itemIdentifier: str


class Response(TypedDict):
    """AWS's partial batch response; at most one failure, since the lowest is what counts."""

    batchItemFailures: list[BatchItemFailure]


class Invocation(Struct, frozen=True):
    """What is true of one invocation and not of its records."""

    request_id: str
    now_ms: int
    cold_start: bool
    raw_event: bool


class Report(Struct, frozen=True):
    """What to answer, what to print, and whether to fail the invocation after that."""

    response: Response
    error: AsyncsyncError | None
    lines: Sequence[bytes]


class _Tally(Struct, frozen=True):
    """A batch's counts and its failures, gathered once for answer, metrics and log."""

    decoded: Decoded
    collapsed: Collapsed
    rejects: Sequence[Reject]
    failed: Sequence[tuple[Entry, Outcome]]
    written: Written
    applied: int
    fenced: int


def report(
    decoded: Decoded,
    collapsed: Collapsed,
    encoded: Encoded,
    written: Written,
    config: Config,
    invocation: Invocation,
) -> Report:
    """Answer for a batch: the lowest failed surviving record, counts, and what went wrong."""
    assert len(written.outcomes) == len(encoded.entries), "every entry has an outcome"
    assert len(decoded.records) == len(collapsed.latest) + collapsed.superseded
    failed = [
        (entry, outcome)
        for entry, outcome in zip(encoded.entries, written.outcomes, strict=True)
        if outcome.kind == "failed"
    ]
    rejects = [*decoded.rejects, *encoded.rejects]
    kinds = [outcome.kind for outcome in written.outcomes]
    applied, fenced = kinds.count("applied"), kinds.count("fenced")
    tally = _Tally(decoded, collapsed, rejects, failed, written, applied, fenced)
    reported = [(entry.sequence_number, entry.item_identifier) for entry, _ in failed]
    if config.rejects == "report":
        reported += [(reject.sequence_number, reject.item_identifier) for reject in rejects]

    lines = []
    if _is_measured(tally, config, invocation):
        lines.append(_metrics_line(tally, invocation))
    if failed or rejects or decoded.unnamed:
        lines.append(_log_line(tally, config, invocation))
    if decoded.unnamed:
        error: AsyncsyncError | None = EventError(
            f"{len(decoded.unnamed)} records cannot be named in an answer: {decoded.unnamed[0]}; "
            "the rest was applied"
        )
    elif reported and config.on_failure == "raise":
        error = BatchFailed(f"{len(reported)} records failed, the lowest is {min(reported)[1]}")
    else:
        error = None
    return Report(_response(reported), error, lines)


def _response(reported: Sequence[tuple[int, str]]) -> Response:
    if not reported:
        return {"batchItemFailures": []}
    return {"batchItemFailures": [{"itemIdentifier": min(reported)[1]}]}


def _lag_ms(decoded: Decoded, invocation: Invocation) -> int | None:
    if decoded.oldest_s is None:
        return None
    return max(0, invocation.now_ms - round(decoded.oldest_s * 1_000))


def _is_measured(tally: _Tally, config: Config, invocation: Invocation) -> bool:
    if config.metrics != "trouble":
        return config.metrics == "all"
    lag_ms = _lag_ms(tally.decoded, invocation) or 0
    trouble = tally.failed or tally.rejects or tally.decoded.unnamed or tally.fenced
    return bool(trouble) or lag_ms > LAG_TROUBLE_MS


METRICS = {
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


def _metrics_line(tally: _Tally, invocation: Invocation) -> bytes:
    """Write CloudWatch's Embedded Metric Format (CloudWatch user guide, EMF specification)."""
    decoded = tally.decoded
    values = {
        "Records": decoded.delivered,
        "Superseded": tally.collapsed.superseded,
        "Applied": tally.applied,
        "Fenced": tally.fenced,
        "Rejected": len(tally.rejects) + len(decoded.unnamed),
        "Failed": len(tally.failed),
        "LagMs": _lag_ms(decoded, invocation),
        "RoundTripMs": round(tally.written.round_trip_ms, 2),
        "ColdStart": int(invocation.cold_start),
        "RawEvent": int(invocation.raw_event),
    }
    values = {name: value for name, value in values.items() if value is not None}
    definition = {
        "Namespace": "asyncsync",
        "Dimensions": [["Table"]],
        "Metrics": [{"Name": name, "Unit": METRICS[name]} for name in values],
    }
    return orjson.dumps(
        {
            "_aws": {"Timestamp": invocation.now_ms, "CloudWatchMetrics": [definition]},
            "Table": decoded.stream.table if decoded.stream else "",
            **values,
        }
    )


def _log_line(tally: _Tally, config: Config, invocation: Invocation) -> bytes:
    """Write what failed or was rejected: counts, numbers and attribute names, never values."""
    numbers = [entry.sequence_number for entry, _ in tally.failed]
    numbers += [reject.sequence_number for reject in tally.rejects]
    event, error, reason = _what(tally)
    line: dict[str, object] = {
        "level": "ERROR" if tally.failed or tally.decoded.unnamed else "WARN",
        "event": event,
        "error": error,
        "reason": reason,
        "table": tally.decoded.stream.table if tally.decoded.stream else "",
        "records": tally.decoded.delivered,
        "failed": len(tally.failed),
        "rejected": len(tally.rejects),
        "unnamed": len(tally.decoded.unnamed),
        "lowest_sequence_number": str(min(numbers)) if numbers else None,
        "highest_sequence_number": str(max(numbers)) if numbers else None,
        "request_id": invocation.request_id,
        "version": __version__,
    }
    if tally.rejects:
        paths = [".".join(reject.path) for reject in tally.rejects if reject.path]
        line["paths"] = paths[:LOG_PATHS_MAX]
        line["paths_more"] = max(0, len(paths) - LOG_PATHS_MAX)
    if config.log_keys and tally.failed:
        names = [entry.name.decode(errors="replace") for entry, _ in tally.failed]
        line["keys"] = names[:LOG_PATHS_MAX]
        line["keys_more"] = max(0, len(names) - LOG_PATHS_MAX)
    return orjson.dumps(line)


def _what(tally: _Tally) -> tuple[str, str, str]:
    """Name the line's event, error and reason; a failed write comes before a reject."""
    if tally.failed:
        outcome = tally.failed[0][1]
        event = "reconnected" if tally.written.reconnected else "write_failed"
        return "deadline" if tally.written.out_of_time else event, outcome.error, outcome.reason
    if tally.rejects:
        return "rejected", "Reject", tally.rejects[0].reason
    return "rejected", "Unnamed", tally.decoded.unnamed[0]
