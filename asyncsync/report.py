"""Stage 6: outcomes in, the answer that Lambda reads out, with a metrics and a log line.

Lambda reads an empty list as "all succeeded" and moves its checkpoint past the batch, so
every bug on this page is data loss. It fails closed. Pure: it prints and raises nothing.
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
    """AWS's partial batch response; at most one failure, because only the lowest counts."""

    batchItemFailures: list[BatchItemFailure]


class Invocation(Struct, frozen=True):
    """What is true of one invocation and not of its records."""

    request_id: str
    now_ms: int
    cold_start: bool
    raw_event: bool


class Report(Struct, frozen=True):
    """The answer, the lines to print, and the error to raise after that."""

    response: Response
    error: AsyncsyncError | None
    lines: Sequence[bytes]


class _Tally(Struct, frozen=True):
    """A batch's counts and failures: what answer, metrics and log have in common."""

    table: str
    decoded: Decoded
    superseded: int
    rejects: Sequence[Reject]
    failed: Sequence[tuple[Entry, Outcome]]
    applied: int
    fenced: int
    written: Written
    lag_ms: int | None


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
    rejects = [*decoded.rejects, *encoded.rejects]
    failed = [
        (entry, outcome)
        for entry, outcome in zip(encoded.entries, written.outcomes, strict=True)
        if outcome.kind == "failed"
    ]
    reported = [(entry.sequence_number, entry.item_identifier) for entry, _ in failed]
    if config.rejects == "report":
        reported += [(reject.sequence_number, reject.item_identifier) for reject in rejects]

    kinds = [outcome.kind for outcome in written.outcomes]
    tally = _Tally(
        table=decoded.stream.table if decoded.stream else "",
        decoded=decoded,
        superseded=collapsed.superseded,
        rejects=rejects,
        failed=failed,
        applied=kinds.count("applied"),
        fenced=kinds.count("fenced"),
        written=written,
        lag_ms=_lag_ms(decoded, invocation),
    )
    lines = []
    if _is_measured(tally, config):
        lines.append(_metrics_line(tally, invocation))
    if failed or rejects or decoded.unnamed:
        lines.append(_log_line(tally, config, invocation))
    return Report(_response(reported), _error(decoded, reported, config), lines)


def _response(reported: Sequence[tuple[int, str]]) -> Response:
    if not reported:
        return {"batchItemFailures": []}
    return {"batchItemFailures": [{"itemIdentifier": min(reported)[1]}]}


def _error(
    decoded: Decoded, reported: Sequence[tuple[int, str]], config: Config
) -> AsyncsyncError | None:
    if decoded.unnamed:
        return EventError(
            f"{len(decoded.unnamed)} records cannot be named in an answer: {decoded.unnamed[0]}; "
            "the rest was applied"
        )
    if reported and config.on_failure == "raise":
        return BatchFailed(f"{len(reported)} records failed, the lowest is {min(reported)[1]}")
    return None


def _lag_ms(decoded: Decoded, invocation: Invocation) -> int | None:
    if decoded.oldest_s is None:
        return None
    return max(0, invocation.now_ms - round(decoded.oldest_s * 1_000))


def _is_measured(tally: _Tally, config: Config) -> bool:
    if config.metrics != "trouble":
        return config.metrics == "all"
    trouble = tally.failed or tally.rejects or tally.decoded.unnamed or tally.fenced
    return bool(trouble) or (tally.lag_ms or 0) > LAG_TROUBLE_MS


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
    values = {
        "Records": tally.decoded.delivered,
        "Superseded": tally.superseded,
        "Applied": tally.applied,
        "Fenced": tally.fenced,
        "Rejected": len(tally.rejects) + len(tally.decoded.unnamed),
        "Failed": len(tally.failed),
        "LagMs": tally.lag_ms,
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
    emf = {"Timestamp": invocation.now_ms, "CloudWatchMetrics": [definition]}
    return orjson.dumps({"_aws": emf, "Table": tally.table, **values})


def _log_line(tally: _Tally, config: Config, invocation: Invocation) -> bytes:
    """Write what failed or was rejected: counts, numbers and attribute names, never values."""
    numbers = [entry.sequence_number for entry, _ in tally.failed]
    numbers += [reject.sequence_number for reject in tally.rejects]
    event, error, reason = _headline(tally)
    line: dict[str, object] = {
        "level": "ERROR" if tally.failed or tally.decoded.unnamed else "WARN",
        "event": event,
        "error": error,
        "reason": reason,
        "table": tally.table,
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
        line |= _some("paths", [".".join(reject.path) for reject in tally.rejects if reject.path])
    if config.log_keys and tally.failed:
        line |= _some("keys", [entry.name.decode(errors="replace") for entry, _ in tally.failed])
    return orjson.dumps(line)


def _some(name: str, values: Sequence[str]) -> dict[str, object]:
    """Return the first values under a name, and the count of the others."""
    return {name: values[:LOG_PATHS_MAX], f"{name}_more": max(0, len(values) - LOG_PATHS_MAX)}


def _headline(tally: _Tally) -> tuple[str, str, str]:
    """Return the line's event, error and reason; a failed write comes before a reject."""
    if tally.failed:
        outcome = tally.failed[0][1]
        event = "reconnected" if tally.written.reconnected else "write_failed"
        return "deadline" if tally.written.out_of_time else event, outcome.error, outcome.reason
    if tally.rejects:
        return "rejected", "Reject", tally.rejects[0].reason
    return "rejected", "Unnamed", tally.decoded.unnamed[0]
