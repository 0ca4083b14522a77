"""A simulated table with a stream: changes in, shards of records out.

It keeps every change of each item for the oracle. Shards split while they are written to. A
stream can be re-created: the new one has a later label and lower sequence numbers. Pure: chance
and time are arguments.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import Any, Literal, TypeAlias

from asyncsync.mapping.event_source_mapping import ShardRecord, shard_record

TABLE = "Players"

# Whether a record can be encoded: always, never, or only by the deployment that fixes a bug.
Poison: TypeAlias = Literal["", "never", "until fixed"]

_BUCKETS = 16  # an item's bucket decides its shard; a shard of one bucket cannot split
_LABEL_STEP_MS = 1_000


@dataclass(frozen=True, slots=True)
class Change:
    """One change to one item: its place in the stream, and the item after it."""

    number: int
    count: int  # of the item's changes, from 1; 0 is the item before the stream
    label_ms: int
    sequence_number: int
    item: dict[str, Any] | None  # DynamoDB JSON; None is a removal
    poison: Poison
    created_ms: int  # as in its record: rounded down to the second
    written_ms: int = 0

    @property
    def text(self) -> str:
        """Return what a story adds about it."""
        if self.item is None:
            return ": removed"
        return f", cannot be encoded: {self.poison}" if self.poison else ""

    @property
    def version(self) -> tuple[int, int]:
        """Return its place among the changes of its item."""
        return self.label_ms, self.sequence_number


@dataclass(slots=True)
class SimulatedShard:
    """A shard: the records of some buckets, in order."""

    shard_id: str
    parent: str | None
    buckets: tuple[int, ...]
    records: list[ShardRecord] = field(default_factory=list)
    closed: bool = False


@dataclass(slots=True)
class SimulatedStream:
    """One stream of the table; a closed one can still be read."""

    label_ms: int
    shards: list[SimulatedShard] = field(default_factory=list)

    @property
    def arn(self) -> str:
        """Return its ARN; the label in it is a time."""
        moment = datetime.fromtimestamp(self.label_ms / 1_000, UTC)
        label = moment.isoformat(timespec="milliseconds").removesuffix("+00:00")
        return f"arn:aws:dynamodb:us-east-1:111122223333:table/{TABLE}/stream/{label}"


class SimulatedTable:
    """Every item's history, and the streams of its records."""

    def __init__(self, numbers: list[int], first_label_ms: int, chance: Random) -> None:
        self.history: dict[int, list[Change]] = {number: [] for number in numbers}
        self.streams: list[SimulatedStream] = []
        self._chance = chance
        self._sequence_number = 0
        self._shard_ids = 0
        self.recreate_stream(first_label_ms)

    @property
    def stream(self) -> SimulatedStream:
        """Return the stream that gets new records."""
        return self.streams[-1]

    def recreate_stream(self, label_ms: int) -> None:
        """Close the stream and open another, with lower sequence numbers."""
        if self.streams:
            label_ms = max(label_ms, self.stream.label_ms + _LABEL_STEP_MS)
            for shard in self.stream.shards:
                shard.closed = True
        # Just below a power of ten: soon the numbers get another digit, and string order is wrong.
        digits = max(21, 26 - 2 * len(self.streams))
        self._sequence_number = 10**digits - self._chance.randint(1, 400)
        self.streams.append(SimulatedStream(label_ms))
        self._open(None, tuple(range(_BUCKETS)))

    def split(self) -> bool:
        """Split an open shard; return whether there was one to split."""
        wide = [s for s in self.stream.shards if not s.closed and len(s.buckets) > 1]
        if not wide:
            return False
        shard = self._chance.choice(wide)
        shard.closed = True
        middle = len(shard.buckets) // 2
        self._open(shard.shard_id, shard.buckets[:middle])
        self._open(shard.shard_id, shard.buckets[middle:])
        return True

    def current(self, number: int) -> Change | None:
        """Return an item's last change; None if it had none."""
        return self.history[number][-1] if self.history[number] else None

    def change(
        self, number: int, item: dict[str, Any] | None, poison: Poison, now_ms: int
    ) -> None:
        """Write or remove an item, and add the record to its shard."""
        self._sequence_number += self._chance.choice((1, 1, 2, 7, 100))
        created_s = now_ms // 1_000  # DynamoDB rounds down to the second
        change = Change(
            number,
            len(self.history[number]) + 1,
            self.stream.label_ms,
            self._sequence_number,
            item,
            poison,
            created_s * 1_000,
            now_ms,
        )
        self.history[number].append(change)
        record = shard_record(_record(change, self.stream.arn, created_s))
        bucket = zlib.crc32(b"%d" % number) % _BUCKETS
        shard = next(s for s in self.stream.shards if not s.closed and bucket in s.buckets)
        shard.records.append(record)

    def _open(self, parent: str | None, buckets: tuple[int, ...]) -> None:
        self._shard_ids += 1
        shard_id = f"shardId-{self._shard_ids:020d}-{self._shard_ids:08x}"
        self.stream.shards.append(SimulatedShard(shard_id, parent, buckets))


def _record(change: Change, stream_arn: str, created_s: int) -> dict[str, Any]:
    """Return the record of a change in Lambda's shape."""
    body: dict[str, Any] = {
        "ApproximateCreationDateTime": float(created_s),
        "Keys": {"Number": {"N": str(change.number)}},
        "SequenceNumber": str(change.sequence_number),
        "SizeBytes": 100,
        "StreamViewType": "NEW_IMAGE",
    }
    # A record that no deployment can encode has an unknown type in it, or no image.
    if change.item is not None and (change.poison != "never" or "Odd" in change.item):
        body["NewImage"] = change.item
    name = "REMOVE" if change.item is None else "INSERT" if change.count == 1 else "MODIFY"
    return {
        "eventID": f"{change.sequence_number % 16**32:032x}",
        "eventName": name,
        "eventVersion": "1.1",
        "eventSource": "aws:dynamodb",
        "awsRegion": "us-east-1",
        "dynamodb": body,
        "eventSourceARN": stream_arn,
    }
