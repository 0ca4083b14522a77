"""Stage 6: outcomes in, the answer that Lambda reads out, with a metrics and a log line.

Lambda reads an empty list as "all succeeded" and moves its checkpoint past the batch, so
every bug on this page is data loss. It fails closed. Pure: it prints and raises nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal, TypeAlias, TypedDict

import orjson
from msgspec import Struct

from asyncsync.config import Config
from asyncsync.errors import AsyncsyncError, BatchFailed, EventError
from asyncsync.limits import LOG_PATHS_MAX
from asyncsync.metrics import Metrics, metrics_line
from asyncsync.model import Collapsed, Decoded, Encoded, Entry, Outcome, Reject, Written
from asyncsync.version import __version__


class Response(TypedDict):
    """AWS's partial batch response; at most one failure, because only the lowest counts."""

    batchItemFailures: list[dict[Literal["itemIdentifier"], str]]


class Invocation(Struct, frozen=True):
    """What is true of one invocation and not of its records."""

    request_id: str
    now_ms: int
    cold_start: bool
    raw_event: bool


class Report(Struct, frozen=True):
    """The answer, the lines to print, the error to raise after that, and the metrics that wait."""

    response: Response
    error: AsyncsyncError | None
    lines: Sequence[bytes]
    unsent: Metrics


_Failed: TypeAlias = Sequence[tuple[Entry, Outcome]]


def report(
    decoded: Decoded,
    collapsed: Collapsed,
    encoded: Encoded,
    written: Written,
    config: Config,
    invocation: Invocation,
    unsent: Metrics,
) -> Report:
    """Answer for a batch: the lowest failed surviving record, counts, and what went wrong.

    `unsent` are the metrics of earlier invocations for the same table that still wait for a line.
    """
    assert len(written.outcomes) == len(encoded.entries), "every entry has an outcome"
    assert len(decoded.records) == len(collapsed.latest) + collapsed.superseded
    failed = [
        (entry, outcome)
        for entry, outcome in zip(encoded.entries, written.outcomes, strict=True)
        if outcome.kind == "failed"
    ]
    rejects = [*decoded.rejects, *encoded.rejects]
    reported = [(entry.sequence_number, entry.item_identifier) for entry, _ in failed]
    if config.rejects == "report":
        reported += [(reject.sequence_number, reject.item_identifier) for reject in rejects]

    kinds = [outcome.kind for outcome in written.outcomes]
    counts = {
        "Invocations": 1,
        "Records": decoded.delivered,
        "Superseded": collapsed.superseded,
        "Applied": kinds.count("applied"),
        "Fenced": kinds.count("fenced"),
        "Rejected": len(rejects) + len(decoded.unnamed),
        "Failed": len(failed),
        "ColdStart": int(invocation.cold_start),
        "RawEvent": int(invocation.raw_event),
    }
    times_ms = {
        "LagMs": _lag_ms(decoded, invocation),
        "RoundTripMs": [round(written.round_trip_ms, 2)],
    }
    line, unsent = metrics_line(
        unsent, Metrics(counts, times_ms), _table(decoded), config, invocation.now_ms
    )
    lines = [] if line is None else [line]
    if failed or rejects or decoded.unnamed:
        lines.append(_log_line(decoded, rejects, failed, written, config, invocation))
    return Report(_response(reported), _error(decoded, reported, config), lines, unsent)


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


def _lag_ms(decoded: Decoded, invocation: Invocation) -> list[float]:
    if decoded.oldest_s is None:
        return []
    return [max(0, invocation.now_ms - round(decoded.oldest_s * 1_000))]


def _log_line(
    decoded: Decoded,
    rejects: Sequence[Reject],
    failed: _Failed,
    written: Written,
    config: Config,
    invocation: Invocation,
) -> bytes:
    """Write what failed or was rejected: counts, numbers and attribute names, never values."""
    numbers = [entry.sequence_number for entry, _ in failed]
    numbers += [reject.sequence_number for reject in rejects]
    event, error, reason = _headline(decoded, rejects, failed, written)
    line: dict[str, object] = {
        "timestamp": timestamp(invocation.now_ms),
        "level": "ERROR" if failed or decoded.unnamed else "WARN",
        "event": event,
        "error": error,
        "reason": reason,
        "table": _table(decoded),
        "records": decoded.delivered,
        "failed": len(failed),
        "rejected": len(rejects),
        "unnamed": len(decoded.unnamed),
        "lowest_sequence_number": str(min(numbers)) if numbers else None,
        "highest_sequence_number": str(max(numbers)) if numbers else None,
        "request_id": invocation.request_id,
        "version": __version__,
    }
    if rejects:
        line |= _first_few("paths", [".".join(reject.path) for reject in rejects if reject.path])
    if config.log_keys and failed:
        line |= _first_few("keys", [entry.name.decode(errors="replace") for entry, _ in failed])
    return orjson.dumps(line)


def timestamp(now_ms: int) -> str:
    """Write epoch milliseconds as Lambda's log filter reads them (RFC 3339)."""
    return datetime.fromtimestamp(now_ms / 1_000, UTC).isoformat(timespec="milliseconds")


def _table(decoded: Decoded) -> str:
    return decoded.stream.table if decoded.stream else ""


def _first_few(name: str, values: Sequence[str]) -> dict[str, object]:
    """Return the first values under a name, and the count of the others."""
    return {name: values[:LOG_PATHS_MAX], f"{name}_more": max(0, len(values) - LOG_PATHS_MAX)}


def _headline(
    decoded: Decoded, rejects: Sequence[Reject], failed: _Failed, written: Written
) -> tuple[str, str, str]:
    """Return the line's event, error and reason; a failed write comes before a reject."""
    if failed:
        outcome = failed[0][1]
        event = "reconnected" if written.reconnected else "write_failed"
        event = "deadline" if written.out_of_time else event
        if outcome.error == "ERR":  # which says nothing
            return event, outcome.reason, "refused by the server"
        return event, outcome.error, outcome.reason
    if rejects:
        return "rejected", "Reject", rejects[0].reason
    return "rejected", "Unnamed", decoded.unnamed[0]
