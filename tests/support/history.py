"""A run: a table in memory, its stream through the lab's mapping and the real mirror.

A record's place in the stream is what its fence says, so each key can be judged by itself:
the fence may not be older than what was acknowledged, and the value is what the record of the
fence made of the item.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import redis

from asyncsync import Config, Mirror
from asyncsync.aws.items import json_attributes
from asyncsync.config import Server
from asyncsync.connection import TimeLeft, Transport
from asyncsync.fence import read_fence
from asyncsync.lab.compare import Findings, compare, from_json, plain_item
from asyncsync.lab.demo.changes import ItemChange, make_changes
from asyncsync.mapping.answers import Answer
from asyncsync.mapping.event_source_mapping import (
    Batch,
    Decision,
    EventSourceMapping,
    MappingSettings,
    ShardRecord,
    shard_record,
)
from asyncsync.mirror import LambdaContext
from asyncsync.report import Response
from asyncsync.tools.run.poller import Consumer, function_of, wall_ms
from asyncsync.transport_asyncio import Connect, Streams
from tests.support.events import FIRST, TABLE, arn, record

SHARD = "shardId-00000001573689847184-864758bb"
FUNCTION = "arn:aws:lambda:us-east-1:111122223333:function:mirror"

# A retry soon after a failure: a test waits for it.
SETTINGS = MappingSettings(
    batch_size=100,
    bisect=True,
    report_failures=True,
    backoff_first_ms=10,
    backoff_max_ms=50,
)
ENDS_WITHIN_S = 60.0


class History:
    """The changes of a few items in the order of the stream, and what each made of its item."""

    def __init__(self, items: int, count: int, seed: int) -> None:
        self.changes = make_changes(items, count, seed)
        self.numbers = sorted({change.number for change in self.changes})
        self.items = [_item(change) for change in self.changes]
        self.places: dict[int, list[int]] = defaultdict(list)
        for place, change in enumerate(self.changes):
            self.places[change.number].append(place)

    def records(self) -> list[ShardRecord]:
        """The stream's records, made anew for each mapping."""
        return [
            shard_record(
                record(
                    change.number,
                    FIRST + place,
                    removed=change.item is None,
                    image=change.item and json_attributes(change.item),
                )
            )
            for place, change in enumerate(self.changes)
        ]

    def compare(self, client: redis.Redis) -> Findings:
        """Compare the table as it is after all changes with Redis."""
        table = {name_of(each): self.items[places[-1]] for each, places in self.places.items()}
        held = _bytes_of(client, list(table))
        copy = [None if value is None else from_json(value) for value in held]
        return compare(table, dict(zip(table, copy, strict=True)))

    def wrong(self, client: redis.Redis, acknowledged: dict[int, int]) -> list[str]:
        """Name each key that is older than what was acknowledged, or is no state of its item."""
        names = [name_of(number) for number in self.numbers]
        held = _bytes_of(client, [*names, *(f"{{{name}}}!f" for name in names)])
        found = []
        values, fences = held[: len(names)], held[len(names) :]
        for number, value, content in zip(self.numbers, values, fences, strict=True):
            fence = None if content is None else read_fence(content)
            place = -1 if fence is None else int(fence.sequence_number) - FIRST
            state = None if place < 0 else self.items[place]
            if place < acknowledged.get(number, -1):
                found.append(f"{name_of(number)} at {place}, acknowledged {acknowledged[number]}")
            elif (None if value is None else from_json(value)) != state:
                found.append(f"{name_of(number)} is not what record {place} made of it")
        return found


def name_of(number: int) -> str:
    return f"{TABLE}:{number}"


def version_of(value: bytes) -> int:
    """The version that a value carries."""
    return int(json.loads(value)["Version"])


def _item(change: ItemChange) -> Any:
    return None if change.item is None else plain_item(json_attributes(change.item))


def _bytes_of(client: redis.Redis, names: list[str]) -> list[bytes | None]:
    """Read many keys at one moment."""
    held: Any = client.mget(names)
    return list(held)


class Deployed(Mirror):
    """A mirror that is called as Lambda calls it, over a blocking socket, in a thread."""

    async def handle(
        self, event: bytes | Mapping[str, Any], context: LambdaContext | None = None
    ) -> Response:
        return await anyio.to_thread.run_sync(self.lambda_handler, event, context)

    def heard(self, sent: Callable[[], None]) -> None:
        """Say when a request has been handed to a socket."""
        client = self._socket_store
        assert client is not None
        open_transport, loop = client._open_transport, asyncio.get_running_loop()

        async def opened(server: Server, left: TimeLeft) -> Transport:
            transport = await open_transport(server, left)
            write = transport.write

            async def written(data: bytes) -> None:
                await write(data)
                loop.call_soon_threadsafe(sent)

            transport.write = written  # type: ignore[method-assign] # as tools/run/meter.py does
            return transport

        client._open_transport = opened


# Both ways a mirror can be called, for a suite that runs each test over both transports.
MIRRORS: dict[str, type[Mirror]] = {"socket": Deployed, "streams": Mirror}


class Run:
    """One mapping and one mirror at work; it counts, and wakes who waits for something.

    Without `connect` the mirror is called as Lambda calls it, else on this event loop.
    """

    def __init__(
        self,
        history: History,
        config: Config,
        connect: Connect | None = None,
        settings: MappingSettings = SETTINGS,
    ) -> None:
        self.history = history
        self.acknowledged: dict[int, int] = {}  # item -> the highest place said to be written
        self.records = self.failures = self.redelivered = 0
        self.mapping = EventSourceMapping(settings, function=FUNCTION, stream_arn=arn())
        self.printed: list[bytes] = []
        self._sent = anyio.Event()
        if connect is None:
            self.mirror: Mirror = Deployed(config, emit=self.printed.append)
        else:
            self.mirror = Mirror(config, connect=self._heard(connect), emit=self.printed.append)
        self.answered: list[Batch] = []  # whole batches that were acknowledged
        self.on_batch: Callable[[Batch], None] = lambda _: None
        self._invoke = function_of(self.mirror, timeout_s=30.0)
        self._consumer = Consumer(self.mapping, self._function, self._watch)
        self._delivered: set[str] = set()
        self._life = 0  # of a server that forgets all when it dies
        self._begun_in: dict[str, int] = {}
        self._changed = anyio.Event()

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Hand the stream over and work on it until the block ends."""
        if isinstance(self.mirror, Deployed):
            self.mirror.heard(lambda: self._sent.set())
        self.mapping.open(SHARD)
        self.mapping.add(SHARD, self.history.records(), wall_ms())
        try:
            with anyio.fail_after(ENDS_WITHIN_S):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._consumer.run)
                    yield
                    tasks.cancel_scope.cancel()
        finally:
            self.mirror.close()
            await anyio.lowlevel.checkpoint()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition, which is looked at after every answer."""
        while not condition():
            self._changed = anyio.Event()
            await self._changed.wait()

    async def until_sent(self) -> None:
        """Wait until a request has been handed to the socket, its answer not yet read."""
        self._sent = anyio.Event()
        await self._sent.wait()

    async def recovery_ms(self) -> float:
        """Wait for the next batch of which all is written; say how long that took."""
        began_s, before = time.monotonic(), len(self.answered)
        await self.until(lambda: len(self.answered) > before)
        return (time.monotonic() - began_s) * 1_000

    async def until_left(self, share: float) -> None:
        """Wait until such a share of the stream has been acknowledged."""
        await self.until(lambda: self.records >= share * len(self.history.changes))

    async def drained(self) -> None:
        """Wait until every record has left."""
        await self.until(lambda: self.mapping.is_idle)

    def forgotten(self) -> None:
        """Note that the server has lost all: nothing sent before counts any more."""
        self._life += 1
        self.acknowledged.clear()

    def _heard(self, connect: Connect) -> Connect:
        """Open connections that say when they are written to."""

        async def opened(server: Server) -> Streams:
            reader, writer = await connect(server)
            write = writer.write

            def heard(data: bytes | bytearray | memoryview) -> None:
                write(data)
                self._sent.set()

            writer.write = heard  # type: ignore[method-assign] # as tools/run/meter.py does
            return reader, writer

        return opened

    async def _function(self, batch: Batch) -> Answer:
        identifiers = {each.item_identifier for each in batch.records}
        self.redelivered += bool(identifiers & self._delivered)
        self._delivered |= identifiers
        self._begun_in[batch.request_id] = self._life
        return await self._invoke(batch)

    def _watch(self, batch: Batch, answer: Answer, decision: Decision) -> None:
        self.failures += decision.kind != "done"
        self.records += len(decision.acknowledged)
        if self._begun_in[batch.request_id] == self._life:
            # A record may leave unwritten where a later one of its item, in the batch and not
            # acknowledged, supersedes it.
            rest = {each.key for each in batch.records[len(decision.acknowledged) :]}
            for each in decision.acknowledged:
                if each.key not in rest:
                    self._acknowledge(int(each.item_identifier) - FIRST)
        if decision.kind == "done":
            self.answered.append(batch)
        self.on_batch(batch)
        self._changed.set()

    def _acknowledge(self, place: int) -> None:
        number = self.history.changes[place].number
        self.acknowledged[number] = max(place, self.acknowledged.get(number, -1))
