"""The edge around the lab's mapping: reads a stream's shards, invokes what is due.

It decides nothing: what is a batch, what is retried and what has left is the mapping's. Time
comes in as an argument; every wait ends by an event or by a time the mapping named.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

import anyio
from anyio.abc import TaskGroup

from asyncsync.aws.clients import AwsClients, IteratorGone
from asyncsync.aws.streams import RecordPage, Shard, read_page, shard_iterator, shards
from asyncsync.errors import ConfigError, EventError, StoreRefused
from asyncsync.mapping.answers import Answer, FunctionError, Returned
from asyncsync.mapping.event_source_mapping import (
    Batch,
    Decision,
    EventSourceMapping,
    ShardRecord,
    shard_record,
)
from asyncsync.mirror import Mirror

Function: TypeAlias = Callable[[Batch], Awaitable[Answer]]
Watch: TypeAlias = Callable[[Batch, Answer, Decision], None]

# Lambda polls each shard four times a second (Lambda developer guide, "with DynamoDB").
POLL_INTERVAL_S = 0.25

# A shard lives about four hours, and its children wait for it: often enough.
SHARDS_INTERVAL_S = 10.0

# Above this many records that have not left, reading pauses: memory stays bounded.
WAITING_MAX = 10_000

# A page this long has more behind it (DynamoDB Streams API, GetRecords).
PAGE_RECORDS_MAX = 1_000


def wall_ms() -> int:
    """Return the time in epoch milliseconds, as record ages are measured."""
    return time.time_ns() // 1_000_000


class Context:
    """Lambda's context object with a deadline, as the handler knows it."""

    def __init__(self, request_id: str, timeout_s: float) -> None:
        self.aws_request_id = request_id
        self._end_s = time.monotonic() + timeout_s

    def get_remaining_time_in_millis(self) -> int:
        """Return how long the invocation may still run."""
        return max(0, int((self._end_s - time.monotonic()) * 1_000))


def function_of(mirror: Mirror, timeout_s: float) -> Function:
    """Invoke the real handler, one batch at a time, as one sandbox of Lambda does.

    What no retry can mend ends the command instead of being tried for a day.
    """
    sandbox = anyio.Lock()

    async def invoke(batch: Batch) -> Answer:
        async with sandbox:
            try:
                answer = await mirror.handle(batch.event, Context(batch.request_id, timeout_s))
            except (ConfigError, EventError, StoreRefused):
                raise
            except Exception as exc:
                return FunctionError(type(exc).__name__)
        return Returned(answer)

    return invoke


class Consumer:
    """One mapping and its function; batches of different lanes run side by side."""

    def __init__(self, mapping: EventSourceMapping, function: Function, watch: Watch) -> None:
        self.mapping = mapping
        self._function = function
        self._watch = watch
        self._changed = anyio.Event()
        self._room = anyio.Event()

    def wake(self) -> None:
        """Look again at what is due."""
        self._changed.set()

    async def until_room(self) -> None:
        """Wait while more records wait than are to be held in memory."""
        while self.mapping.waiting > WAITING_MAX:
            self._room = anyio.Event()
            await self._room.wait()

    async def run(self) -> None:
        """Invoke whatever falls due, until cancelled."""
        async with anyio.create_task_group() as tasks:
            while True:
                now_ms = wall_ms()
                self._changed = anyio.Event()
                for batch in self.mapping.due(now_ms):
                    tasks.start_soon(self._invoke, batch)
                wakes_ms = self.mapping.wakes_ms(now_ms)
                wait_s = None if wakes_ms is None else (wakes_ms - now_ms) / 1_000
                with anyio.move_on_after(wait_s):
                    await self._changed.wait()

    async def _invoke(self, batch: Batch) -> None:
        answer = await self._function(batch)
        decision = self.mapping.answered(batch, answer, wall_ms())
        self._watch(batch, answer, decision)
        self._room.set()
        self.wake()


class Poller:
    """Reads every shard of one stream from its oldest record, for one or more consumers."""

    def __init__(self, dynamo: AwsClients, stream_arn: str, consumers: Sequence[Consumer]) -> None:
        self.quiet_since_s = time.monotonic()  # when the last record came
        self._dynamo = dynamo
        self._stream_arn = stream_arn
        self._consumers = consumers
        self._ends: dict[str, anyio.Event] = {}

    async def run(self) -> None:
        """Read and invoke, until cancelled."""
        async with anyio.create_task_group() as tasks:
            for consumer in self._consumers:
                tasks.start_soon(consumer.run)
            while True:
                await self._find_shards(tasks)
                await anyio.sleep(SHARDS_INTERVAL_S)

    async def _find_shards(self, tasks: TaskGroup) -> None:
        found = await shards(self._dynamo, self._stream_arn)
        new = [shard for shard in found if shard.shard_id not in self._ends]
        for shard in new:
            self._ends[shard.shard_id] = anyio.Event()
        for shard in new:
            tasks.start_soon(self._read, shard)

    async def _read(self, shard: Shard) -> None:
        """Read one shard to its end, after its parent."""
        parent_end = self._ends.get(shard.parent or "")
        if parent_end is not None:
            await parent_end.wait()
        for consumer in self._consumers:
            consumer.mapping.open(shard.shard_id, shard.parent)

        last: str | None = None
        iterator: str | None = await self._open(shard, None)
        while iterator is not None:
            for consumer in self._consumers:
                await consumer.until_room()
            try:
                page = await read_page(self._dynamo, self._stream_arn, iterator)
            except IteratorGone:
                iterator = await self._open(shard, last)
                continue
            last = self._hand_over(shard, page) or last
            iterator = page.iterator
            if len(page.records) < PAGE_RECORDS_MAX:
                await anyio.sleep(POLL_INTERVAL_S)

        for consumer in self._consumers:
            consumer.mapping.close(shard.shard_id)
            consumer.wake()
        self._ends[shard.shard_id].set()

    async def _open(self, shard: Shard, after: str | None) -> str:
        try:
            return await shard_iterator(self._dynamo, self._stream_arn, shard.shard_id, after)
        except IteratorGone:  # trimmed: go on at what is left
            return await shard_iterator(self._dynamo, self._stream_arn, shard.shard_id)

    def _hand_over(self, shard: Shard, page: RecordPage) -> str | None:
        records: list[ShardRecord] = [shard_record(record) for record in page.records]
        if not records:
            return None
        self.quiet_since_s = time.monotonic()
        for consumer in self._consumers:
            consumer.mapping.add(shard.shard_id, records, wall_ms())
            consumer.wake()
        return records[-1].item_identifier
