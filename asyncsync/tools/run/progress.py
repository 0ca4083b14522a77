"""What a poller has done so far, counted and written for people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from asyncsync.mapping.answers import Answer, FunctionError, Returned
from asyncsync.mapping.event_source_mapping import Batch, Decision, EventSourceMapping
from asyncsync.tools.run.meter import Meter
from asyncsync.tools.run.poller import wall_ms


@dataclass(slots=True)
class Progress:
    """What has been done so far."""

    records: int = 0
    batches: int = 0
    superseded: int = 0
    fenced: int = 0
    failures: int = 0
    last_log: str = ""  # the handler's last error and reason

    def take(self, line: bytes) -> None:
        """Read a line of the handler's own."""
        said: dict[str, Any] = orjson.loads(line)
        if "_aws" in said:
            self.fenced += said["Fenced"]
        else:
            self.last_log = f"{said['error']}, {said['reason']}"

    def count(self, batch: Batch, decision: Decision) -> None:
        """Count a batch that was answered."""
        if decision.kind in ("retry", "split", "discarded"):
            self.failures += 1
            return
        self.batches += 1
        self.records += len(decision.acknowledged)
        self.superseded += len(batch.records) - len({each.key for each in batch.records})


def progress_line(progress: Progress, mapping: EventSourceMapping, meter: Meter | None) -> str:
    """Write how far the copy is."""
    oldest_ms = mapping.oldest_ms
    lag = "caught up" if oldest_ms is None else f"lag {(wall_ms() - oldest_ms) / 1_000:.1f} s"
    trips = "" if meter is None else f", {meter.turns:,} round trips"
    fenced = f", {progress.fenced:,} fenced" if progress.fenced else ""
    return (
        f"{progress.records:,} records in {progress.batches:,} batches{trips}, "
        f"{progress.superseded:,} superseded{fenced}, {lag}"
    )


def failure_line(batch: Batch, answer: Answer, decision: Decision) -> str:
    """Write what a failed batch reported and what the mapping does next."""
    if isinstance(answer, FunctionError):
        reported = f"raised {answer.error}"
    else:
        assert isinstance(answer, Returned)
        at = len(decision.acknowledged)
        reported = f"reported {batch.records[at].item_identifier}"
    then = {
        "split": f"split, in {decision.wait_ms} ms",
        "retry": f"again in {decision.wait_ms} ms",
        "rest": f"{len(decision.acknowledged)} acknowledged",
        "discarded": "discarded",
        "throttled": f"throttled, again in {decision.wait_ms} ms",
    }[decision.kind]
    return f"batch of {len(batch.records)} {reported}: {then}"
