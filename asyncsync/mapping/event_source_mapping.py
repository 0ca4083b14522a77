"""The event source mapping as one pure state machine: records and answers in, batches out.

No await, clock, environment or chance: time is an argument, request ids come from a counter.
A record leaves the mapping once, acknowledged or in the on-failure destination, in order within
its lane. A checkpoint never passes a record that has not left. The rules are those that AWS
documents or was recorded to follow; any other is a setting, or a comment says "assumed".
"""

from __future__ import annotations

import zlib
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count, islice
from typing import Any, Literal

import orjson

from asyncsync.errors import ConfigError
from asyncsync.mapping.answers import (
    Answer,
    FunctionError,
    InvocationThrottled,
    Returned,
    first_failed,
)
from asyncsync.mapping.on_failure import Condition, OnFailure, on_failure

# Lambda's synchronous payload (Lambda quotas, "Invocation payload"): a batch stays below it.
EVENT_BYTES_MAX = 6 * 1_048_576

_RANGES = {
    "batch_size": (1, 10_000),
    "window_s": (0, 300),
    "parallelization_factor": (1, 10),
    "retry_attempts_max": (-1, 10_000),
    "record_age_max_s": (-1, 604_800),
    "backoff_first_ms": (0, 60_000),
    "backoff_max_ms": (0, 900_000),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MappingSettings:
    """A mapping's settings with AWS's defaults; -1 means no limit.

    AWS documents no backoff between attempts: an exponential one is assumed. Raises ConfigError.
    """

    batch_size: int = 100
    window_s: int = 0
    parallelization_factor: int = 1
    retry_attempts_max: int = -1
    record_age_max_s: int = -1
    bisect: bool = False
    report_failures: bool = False
    backoff_first_ms: int = 100
    backoff_max_ms: int = 60_000

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            if not low <= getattr(self, name) <= high:
                raise ConfigError(
                    f"{name}={getattr(self, name)} is not allowed for an event source mapping; "
                    f"allowed is {low} to {high}"
                )


@dataclass(frozen=True, slots=True)
class ShardRecord:
    """One record of a shard, ready to be part of an event."""

    body: bytes  # JSON in Lambda's shape
    key: bytes  # of its item; an item has one lane
    item_identifier: str
    created_ms: int


def shard_record(record: Mapping[str, Any]) -> ShardRecord:
    """Return the shard record of a record in Lambda's shape."""
    change = record["dynamodb"]
    return ShardRecord(
        orjson.dumps(record),
        orjson.dumps(change["Keys"], option=orjson.OPT_SORT_KEYS),
        change["SequenceNumber"],
        round(change.get("ApproximateCreationDateTime", 0) * 1_000),
    )


@dataclass(frozen=True, slots=True)
class Batch:
    """The records of one invocation; attempts of a batch share a request id, as in AWS."""

    request_id: str
    shard_id: str
    lane: int
    records: tuple[ShardRecord, ...]
    attempts: int = 0  # that failed; a throttled one is none
    function_error: str | None = None  # of the last attempt

    @property
    def event(self) -> bytes:
        """Return the event that the function gets."""
        return b'{"Records":[%b]}' % b",".join(record.body for record in self.records)


@dataclass(frozen=True, slots=True)
class Decision:
    """What the mapping decided after an answer."""

    kind: Literal["done", "rest", "split", "retry", "throttled", "discarded"]
    acknowledged: tuple[ShardRecord, ...]
    wait_ms: int  # before the lane's next batch


@dataclass(slots=True)
class _Lane:
    queue: deque[tuple[int, ShardRecord]] = field(
        default_factory=deque
    )  # with its time of arrival
    batches: deque[Batch] = field(default_factory=deque)  # the first is next, or in flight
    in_flight: bool = False
    waits_until_ms: int = 0
    failures: int = 0  # one after another, for the backoff


@dataclass(slots=True)
class _Shard:
    parent: str | None
    lanes: list[_Lane]
    closed: bool = False
    # By identity, because moto may give two records of a shard the same sequence number. An
    # identity is unique as long as the record is here.
    pending: OrderedDict[int, ShardRecord] = field(default_factory=OrderedDict)
    done: set[int] = field(default_factory=set)  # of these, after one that has not left
    checkpoint: str | None = None

    @property
    def is_drained(self) -> bool:
        return self.closed and not self.pending


class EventSourceMapping:
    """A mapping of one stream to one function: add records, take due batches, answer them."""

    def __init__(self, settings: MappingSettings, *, function: str, stream_arn: str) -> None:
        self.settings = settings
        self.function = function
        self.stream_arn = stream_arn
        self.discarded: list[OnFailure] = []  # the on-failure destination; the caller empties it
        self._shards: dict[str, _Shard] = {}
        self._request_numbers = count(1)

    # --- from the stream -----------------------------------------------------------------------

    def open(self, shard_id: str, parent: str | None = None) -> None:
        """Add a shard; if its parent is known, it waits until the parent has drained."""
        lanes = [_Lane() for _ in range(self.settings.parallelization_factor)]
        self._shards.setdefault(shard_id, _Shard(parent, lanes))

    def add(self, shard_id: str, records: Sequence[ShardRecord], now_ms: int) -> None:
        """Add records of an open shard, in the shard's order."""
        shard = self._shards[shard_id]
        assert not shard.closed, "a closed shard has no more records"
        for record in records:
            assert id(record) not in shard.pending, "a record is added once"
            shard.pending[id(record)] = record
            # crc32, because Python's hash of bytes differs between processes.
            lane = shard.lanes[zlib.crc32(record.key) % len(shard.lanes)]
            lane.queue.append((now_ms, record))

    def close(self, shard_id: str) -> None:
        """Note that a shard has been read to its end."""
        self._shards[shard_id].closed = True

    # --- to the function and back --------------------------------------------------------------

    def due(self, now_ms: int) -> list[Batch]:
        """Return every batch to invoke with now, one per lane; each must be answered."""
        batches = []
        for shard_id, at, lane in self._waiting_lanes():
            batch = self._next(shard_id, at, now_ms) if now_ms >= lane.waits_until_ms else None
            if batch is not None:
                lane.in_flight = True
                batches.append(batch)
        return batches

    def wakes_ms(self, now_ms: int) -> int | None:
        """Return when a batch may fall due without new records; None if none can."""
        times = [
            lane.waits_until_ms if lane.batches else self._window_ends_ms(lane)
            for _, _, lane in self._waiting_lanes()
        ]
        return max(now_ms, min(times)) if times else None

    def answered(self, batch: Batch, answer: Answer, now_ms: int) -> Decision:
        """Take the answer to a batch and decide about its records."""
        lane = self._shards[batch.shard_id].lanes[batch.lane]
        assert lane.in_flight, "only a batch that is in flight is answered"
        assert lane.batches[0] is batch
        lane.in_flight = False
        if isinstance(answer, InvocationThrottled):
            return Decision("throttled", (), self._back_off(lane, now_ms))

        first_failed = self._first_failed(batch, answer)
        acknowledged = batch.records[:first_failed]
        self._leave(batch.shard_id, acknowledged)
        if first_failed == len(batch.records):
            lane.batches.popleft()
            lane.failures = 0
            return Decision("done", acknowledged, 0)
        if first_failed > 0:
            # A partial acknowledgement makes a new batch, with a new id and no attempts.
            lane.batches[0] = self._batch(batch.shard_id, batch.lane, batch.records[first_failed:])
            lane.failures = 0
            return Decision("rest", acknowledged, 0)
        return self._failed(lane, batch, answer, now_ms)

    def deliver_again(self, batch: Batch) -> None:
        """Deliver records again that have left: a mapping delivers at least once."""
        lane = self._shards[batch.shard_id].lanes[batch.lane]
        again = self._batch(batch.shard_id, batch.lane, batch.records)
        lane.batches.insert(int(lane.in_flight), again)

    # --- state ---------------------------------------------------------------------------------

    def checkpoint(self, shard_id: str) -> str | None:
        """Return the sequence number up to which every record of a shard has left."""
        return self._shards[shard_id].checkpoint

    @property
    def waiting(self) -> int:
        """Return the number of records that have not left."""
        return sum(len(shard.pending) - len(shard.done) for shard in self._shards.values())

    @property
    def is_idle(self) -> bool:
        """Return whether nothing is queued, waiting for another attempt, or in flight."""
        return not any(
            lane.queue or lane.batches for shard in self._shards.values() for lane in shard.lanes
        )

    @property
    def oldest_ms(self) -> int | None:
        """Return when the oldest record that has not left was created."""
        firsts = [
            next(iter(s.pending.values())).created_ms for s in self._shards.values() if s.pending
        ]
        return min(firsts, default=None)

    # --- rules ---------------------------------------------------------------------------------

    def _waiting_lanes(self) -> Iterator[tuple[str, int, _Lane]]:
        """Yield each lane with records and no batch in flight: shard id, index, lane."""
        for shard_id, shard in self._shards.items():
            if self._waits_for_parent(shard):
                continue
            for at, lane in enumerate(shard.lanes):
                if (lane.batches or lane.queue) and not lane.in_flight:
                    yield shard_id, at, lane

    def _waits_for_parent(self, shard: _Shard) -> bool:
        parent = self._shards.get(shard.parent or "")
        return parent is not None and not parent.is_drained

    def _next(self, shard_id: str, at: int, now_ms: int) -> Batch | None:
        """Return the lane's next batch without records that are too old; None if there is none."""
        lane = self._shards[shard_id].lanes[at]
        while lane.batches or self._form(shard_id, at, now_ms):
            batch = lane.batches[0]
            first_young = next(
                (i for i, record in enumerate(batch.records) if not self._too_old(record, now_ms)),
                len(batch.records),
            )
            if first_young:
                self._discard(batch, batch.records[:first_young], "RecordAgeExceeded", now_ms)
                batch = replace(batch, records=batch.records[first_young:])
            if batch.records:
                lane.batches[0] = batch
                return batch
            lane.batches.popleft()
        return None

    def _too_old(self, record: ShardRecord, now_ms: int) -> bool:
        age_max_s = self.settings.record_age_max_s
        return age_max_s >= 0 and now_ms - record.created_ms >= age_max_s * 1_000

    def _form(self, shard_id: str, at: int, now_ms: int) -> bool:
        """Form a batch from the queue if it is full, its window is over, or the shard ends."""
        lane = self._shards[shard_id].lanes[at]
        size = len(b'{"Records":[]}')
        records: list[ShardRecord] = []
        for _, record in islice(lane.queue, self.settings.batch_size):
            size += len(record.body) + 1
            if records and size > EVENT_BYTES_MAX:
                break
            records.append(record)
        is_full = len(records) == self.settings.batch_size or size > EVENT_BYTES_MAX
        is_at_end = self._shards[shard_id].closed
        if not records or not (is_full or is_at_end or now_ms >= self._window_ends_ms(lane)):
            return False
        for _ in records:
            lane.queue.popleft()
        lane.batches.append(self._batch(shard_id, at, tuple(records)))
        return True

    def _window_ends_ms(self, lane: _Lane) -> int:
        return max(lane.queue[0][0] + self.settings.window_s * 1_000, lane.waits_until_ms)

    def _batch(self, shard_id: str, lane: int, records: tuple[ShardRecord, ...]) -> Batch:
        request_id = f"00000000-0000-4000-8000-{next(self._request_numbers):012x}"
        return Batch(request_id, shard_id, lane, records)

    def _first_failed(self, batch: Batch, answer: Returned | FunctionError) -> int:
        if isinstance(answer, FunctionError):
            return 0
        if not self.settings.report_failures:
            return len(batch.records)
        return first_failed([record.item_identifier for record in batch.records], answer.answer)

    def _failed(
        self, lane: _Lane, batch: Batch, answer: Returned | FunctionError, now_ms: int
    ) -> Decision:
        """Decide about a batch of which no record is acknowledged."""
        if self.settings.bisect and len(batch.records) > 1:
            # A split counts as no attempt. That a malformed answer splits too is assumed.
            middle = len(batch.records) // 2
            lane.batches[0] = self._batch(batch.shard_id, batch.lane, batch.records[middle:])
            first = self._batch(batch.shard_id, batch.lane, batch.records[:middle])
            lane.batches.appendleft(first)
            return Decision("split", (), self._back_off(lane, now_ms))
        error = answer.error if isinstance(answer, FunctionError) else None
        batch = replace(batch, attempts=batch.attempts + 1, function_error=error)
        if 0 <= self.settings.retry_attempts_max < batch.attempts:
            lane.batches.popleft()
            lane.failures = 0
            self._discard(batch, batch.records, "RetryAttemptsExhausted", now_ms)
            return Decision("discarded", (), 0)
        lane.batches[0] = batch
        return Decision("retry", (), self._back_off(lane, now_ms))

    def _back_off(self, lane: _Lane, now_ms: int) -> int:
        doubled = self.settings.backoff_first_ms << min(lane.failures, 30)
        wait_ms = min(doubled, self.settings.backoff_max_ms)
        lane.failures += 1
        lane.waits_until_ms = now_ms + wait_ms
        return wait_ms

    def _discard(
        self,
        batch: Batch,
        records: tuple[ShardRecord, ...],
        condition: Condition,
        now_ms: int,
    ) -> None:
        self.discarded.append(
            on_failure(
                replace(batch, records=records),
                condition,
                function=self.function,
                stream_arn=self.stream_arn,
                now_ms=now_ms,
            )
        )
        self._leave(batch.shard_id, records)

    def _leave(self, shard_id: str, records: Sequence[ShardRecord]) -> None:
        """Remove records and move the checkpoint as far as possible."""
        shard = self._shards[shard_id]
        # A record that is delivered again has left before, and does not leave twice.
        shard.done.update(id(record) for record in records if id(record) in shard.pending)
        while shard.pending and next(iter(shard.pending)) in shard.done:
            identity, record = shard.pending.popitem(last=False)
            shard.done.remove(identity)
            shard.checkpoint = record.item_identifier
