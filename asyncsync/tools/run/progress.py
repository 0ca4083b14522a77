"""What the handler has done so far, as counts and as lines for people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from asyncsync.mapping.answers import Answer, FunctionError, Returned
from asyncsync.mapping.event_source_mapping import Batch, Decision, EventSourceMapping
from asyncsync.tools.output import plural
from asyncsync.tools.run.poller import wall_ms


@dataclass(slots=True)
class Progress:
    """Counts of records and batches."""

    records: int = 0
    batches: int = 0
    superseded: int = 0
    fenced: int = 0
    failures: int = 0
    last_log: str = ""  # error and reason of the handler's last log line

    def read_log(self, line: bytes) -> None:
        """Read one line that the handler printed: its metrics or its log."""
        fields: dict[str, Any] = orjson.loads(line)
        if "_aws" in fields:
            self.fenced += fields.get("Fenced", 0)
        else:
            self.last_log = f"{fields['error']}, {fields['reason']}"

    def count(self, batch: Batch, decision: Decision) -> None:
        """Count a batch by what the mapping decided about it."""
        if decision.kind in ("retry", "split", "discarded"):
            self.failures += 1
            return
        self.batches += 1
        self.records += len(decision.acknowledged)
        self.superseded += len(batch.records) - len({record.key for record in batch.records})

    def line(self, mapping: EventSourceMapping, is_behind: bool) -> str:
        """Return the counts and the lag as one line.

        `is_behind` says that the stream may have records that were not read yet.
        """
        oldest_ms = mapping.oldest_ms
        if oldest_ms is not None:
            lag = f"lag {(wall_ms() - oldest_ms) / 1_000:,.1f} s"
        else:
            lag = "reading on" if is_behind else "caught up"
        fenced = f", {self.fenced:,} fenced" if self.fenced else ""
        return (
            f"{plural(self.records, 'record')} in {plural(self.batches, 'batch', 'batches')}, "
            f"{self.superseded:,} superseded{fenced}, {lag}"
        )

    def counts(self, mapping: EventSourceMapping, is_behind: bool) -> dict[str, Any]:
        """Return the same for programs."""
        return {
            "records": self.records,
            "batches": self.batches,
            "superseded": self.superseded,
            "fenced": self.fenced,
            "failed_attempts": self.failures,
            "caught_up": mapping.oldest_ms is None and not is_behind,
        }


def failure_line(batch: Batch, answer: Answer, decision: Decision) -> str:
    """Return what a failed batch reported and what the mapping does next, as one line."""
    if isinstance(answer, FunctionError):
        reported = f"raised {answer.error}"
    else:
        assert isinstance(answer, Returned)
        first_failed = batch.records[len(decision.acknowledged)]
        reported = f"reported {first_failed.item_identifier}"
    next_step = {
        "split": f"split, in {decision.wait_ms:,} ms",
        "retry": f"again in {decision.wait_ms:,} ms",
        "rest": f"{len(decision.acknowledged):,} acknowledged",
        "discarded": "discarded",
        "throttled": f"throttled, again in {decision.wait_ms:,} ms",
    }[decision.kind]
    return f"batch of {len(batch.records):,} {reported}: {next_step}"
