"""Runs one mapping in a simulation: polls a stream's shards and invokes with each due batch.

The mapping decides (mapping/event_source_mapping.py). The poller only passes it records,
answers and the time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import lru_cache

import orjson

from asyncsync.lab.simulation.items import Version
from asyncsync.lab.simulation.table import SimulatedStream
from asyncsync.lab.simulation.virtual_time import FIRST_WALL_S, VirtualLoop
from asyncsync.mapping.answers import Answer
from asyncsync.mapping.event_source_mapping import (
    Batch,
    Decision,
    EventSourceMapping,
    MappingSettings,
    ShardRecord,
)

# Lambda polls each shard four times a second (Lambda developer guide, "with DynamoDB").
POLL_INTERVAL_S = 0.25

FUNCTION = "arn:aws:lambda:us-east-1:111122223333:function:simulated"

Invoke = Callable[["MappingPoller", Batch], Awaitable[Answer]]
Answered = Callable[["MappingPoller", Batch, Decision], None]


def item_of(record: ShardRecord) -> int:
    """Return the number of a record's item."""
    return _item_of(record.key)


@lru_cache
def _item_of(key: bytes) -> int:
    return int(orjson.loads(key)["Number"]["N"])


class MappingPoller:
    """One mapping on one stream, from the oldest record that is not trimmed."""

    def __init__(
        self,
        name: str,
        stream: SimulatedStream,
        settings: MappingSettings,
        loop: VirtualLoop,
        invoke: Invoke,
        answered: Answered,
    ) -> None:
        self.name = name
        self.stream = stream
        self.mapping = EventSourceMapping(settings, function=FUNCTION, stream_arn=stream.arn)
        self.is_deleted = False
        self.in_flight = 0
        self.since: dict[tuple[int, str], int] = {}  # lane and shard -> when its invocation began
        self._loop = loop
        self._invoke = invoke
        self._answered = answered
        self._read: dict[str, int] = {}  # shard -> number of its records
        self._closed: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake: asyncio.TimerHandle | None = None

    def version(self, record: ShardRecord) -> Version:
        """Return a record's place in its item's history."""
        return self.stream.label_ms, int(record.item_identifier)

    def begin(self, oldest_ms: int) -> None:
        """Begin at the stream's oldest record; older than `oldest_ms` is trimmed."""
        for shard in self.stream.shards:
            trimmed = sum(record.created_ms < oldest_ms for record in shard.records)
            self._read[shard.shard_id] = trimmed
        self.poll()

    def poll_soon(self) -> None:
        """Poll at the next quarter of a second."""
        self._wake_at((self._loop.time() // POLL_INTERVAL_S + 1) * POLL_INTERVAL_S)

    def poll(self) -> None:
        """Add new records, invoke with each due batch, and schedule the next call."""
        self._wake = None
        if self.is_deleted:
            return
        now_ms = self._loop.wall_ms()
        for shard in self.stream.shards:
            if shard.shard_id in self._closed:
                continue
            self.mapping.open(shard.shard_id, shard.parent)
            first = self._read.get(shard.shard_id, 0)
            self.mapping.add(shard.shard_id, shard.records[first:], now_ms)
            self._read[shard.shard_id] = len(shard.records)
            if shard.closed:
                self.mapping.close(shard.shard_id)
                self._closed.add(shard.shard_id)
        self._invoke_due()

    def _invoke_due(self) -> None:
        now_ms = self._loop.wall_ms()
        for batch in self.mapping.due(now_ms):
            self.in_flight += 1
            task = self._loop.create_task(self._run(batch))
            self._tasks.add(task)
            task.add_done_callback(self._task_done)
        wakes_ms = self.mapping.wakes_ms(now_ms)
        if wakes_ms is not None:
            self._wake_at(max(wakes_ms / 1_000 - FIRST_WALL_S, self._loop.time() + 0.001))

    async def _run(self, batch: Batch) -> None:
        answer = await self._invoke(self, batch)
        self.in_flight -= 1
        if self.is_deleted:
            return  # a deleted mapping reads no answer
        decision = self.mapping.answered(batch, answer, self._loop.wall_ms())
        self._answered(self, batch, decision)
        self._invoke_due()

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._loop.call_exception_handler(
                {"message": "an invocation failed", "exception": task.exception()}
            )

    def _wake_at(self, moment_s: float) -> None:
        if self._wake is not None:
            if self._wake.when() <= moment_s:
                return
            self._wake.cancel()
        self._wake = self._loop.call_at(moment_s, self.poll)

    @property
    def is_idle(self) -> bool:
        """Return whether every record that it will ever get has left."""
        if self.is_deleted:
            return self.in_flight == 0
        is_read = all(
            self._read.get(shard.shard_id, 0) == len(shard.records) for shard in self.stream.shards
        )
        return is_read and self.mapping.is_idle and self.in_flight == 0

    @property
    def why(self) -> str:
        """Return why it is not idle."""
        now_ms = self._loop.wall_ms()
        wakes_ms = self.mapping.wakes_ms(now_ms)
        wait = "" if wakes_ms is None else f", next in {wakes_ms - now_ms} ms"
        return (
            f"{self.name} holds {self.mapping.waiting} records, {self.in_flight} in flight{wait}"
        )

    def delete(self) -> None:
        """Delete the mapping; an invocation in flight runs on, and its answer is ignored."""
        self.is_deleted = True
        if self._wake is not None:
            self._wake.cancel()


def batch_text(batch: Batch) -> str:
    """Return a batch as a story names it: each record's item and the end of its number."""
    return " ".join(f"{item_of(record)}@{record.item_identifier[-4:]}" for record in batch.records)
