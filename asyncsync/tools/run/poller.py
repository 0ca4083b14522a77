"""Reads a stream's shards and invokes the handler with the batches that are due.

It decides nothing: the mapping (mapping/event_source_mapping.py) decides what is a batch, what is
retried and what is acknowledged. Every wait ends at an event or at a time that the mapping named.
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

# A shard lives about four hours, and its children wait for it, so this is often enough.
SHARDS_INTERVAL_S = 10.0

# With more records than this waiting, reading pauses, so that memory stays bounded.
WAITING_MAX = 10_000

# DynamoDB may answer with no records and still have some. After so many empty answers in a row
# an open shard counts as read to its end.
EMPTY_PAGES_MIN = 2

# After a full page there are more records (DynamoDB Streams API, GetRecords).
PAGE_RECORDS_MAX = 1_000


def wall_ms() -> int:
    """Return the wall-clock time in epoch milliseconds, which record ages are measured in."""
    return time.time_ns() // 1_000_000


class Context:
    """The part of Lambda's context object that the handler uses."""

    def __init__(self, request_id: str, timeout_s: float) -> None:
        self.aws_request_id = request_id
        self._end_s = time.monotonic() + timeout_s

    def get_remaining_time_in_millis(self) -> int:
        """Return how many milliseconds the invocation may still run."""
        return max(0, int((self._end_s - time.monotonic()) * 1_000))


def function_of(mirror: Mirror, timeout_s: float) -> Function:
    """Return a function that runs the real handler, one batch at a time, like one sandbox.

    It raises ConfigError, EventError and StoreRefused, which no retry can help; any other error
    is an answer, as it is to Lambda.
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
    """One mapping and its function; batches of different lanes run in parallel."""

    def __init__(self, mapping: EventSourceMapping, function: Function, watch: Watch) -> None:
        self.mapping = mapping
        self._function = function
        self._watch = watch
        self._changed = anyio.Event()
        self._room = anyio.Event()

    def wake(self) -> None:
        """Make `run` look again at what is due."""
        self._changed.set()

    async def until_room(self) -> None:
        """Wait while the mapping holds more than WAITING_MAX records."""
        while self.mapping.waiting > WAITING_MAX:
            self._room = anyio.Event()
            await self._room.wait()

    async def run(self) -> None:
        """Invoke the function with every batch when it is due, until cancelled."""
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
    """Reads every shard of a stream from its oldest record, for one or more consumers."""

    def __init__(
        self, clients: AwsClients, stream_arn: str, consumers: Sequence[Consumer]
    ) -> None:
        self.last_record_s = time.monotonic()  # when the last record came
        self._clients = clients
        self._stream_arn = stream_arn
        self._consumers = consumers
        self._ends: dict[str, anyio.Event] = {}
        self._empty_pages: dict[str, int] = {}  # the last ones in a row, by open shard
        self._is_listed = False

    @property
    def is_at_end(self) -> bool:
        """Whether every shard was read to its end; more records may come at any time."""
        empty_pages = self._empty_pages.values()
        return self._is_listed and all(count >= EMPTY_PAGES_MIN for count in empty_pages)

    async def run(self) -> None:
        """Read every shard and run every consumer, until cancelled."""
        async with anyio.create_task_group() as tasks:
            for consumer in self._consumers:
                tasks.start_soon(consumer.run)
            while True:
                await self._find_shards(tasks)
                await anyio.sleep(SHARDS_INTERVAL_S)

    async def _find_shards(self, tasks: TaskGroup) -> None:
        listed = await shards(self._clients, self._stream_arn)
        new = [shard for shard in listed if shard.shard_id not in self._ends]
        for shard in new:
            self._ends[shard.shard_id] = anyio.Event()
            self._empty_pages[shard.shard_id] = 0
        self._is_listed = True
        for shard in new:
            tasks.start_soon(self._read, shard)

    async def _read(self, shard: Shard) -> None:
        """Read one shard to its end, once its parent has been read."""
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
                page = await read_page(self._clients, self._stream_arn, iterator)
            except IteratorGone:
                iterator = await self._open(shard, last)
                continue
            last = self._hand_over(shard, page) or last
            iterator = page.iterator
            if len(page.records) < PAGE_RECORDS_MAX:
                await anyio.sleep(POLL_INTERVAL_S)

        del self._empty_pages[shard.shard_id]
        for consumer in self._consumers:
            consumer.mapping.close(shard.shard_id)
            consumer.wake()
        self._ends[shard.shard_id].set()

    async def _open(self, shard: Shard, after: str | None) -> str:
        try:
            return await shard_iterator(self._clients, self._stream_arn, shard.shard_id, after)
        except IteratorGone:  # trimmed: begin at the oldest record
            return await shard_iterator(self._clients, self._stream_arn, shard.shard_id)

    def _hand_over(self, shard: Shard, page: RecordPage) -> str | None:
        records: list[ShardRecord] = [shard_record(record) for record in page.records]
        if not records:
            self._empty_pages[shard.shard_id] += 1
            return None
        self._empty_pages[shard.shard_id] = 0
        self.last_record_s = time.monotonic()
        for consumer in self._consumers:
            consumer.mapping.add(shard.shard_id, records, wall_ms())
            consumer.wake()
        return records[-1].item_identifier
