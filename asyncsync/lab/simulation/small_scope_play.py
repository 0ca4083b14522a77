"""One history of the small scope, played: the real handler, a real script, one fault.

Batches go out one after another, as a mapping of one lane sends them; the fault strikes at the
first delivery of its batch. What is late shows when the history says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Literal, Protocol, TypeAlias

import hiredis

from asyncsync.config import Config, Server
from asyncsync.lab.simulation import small_scope as scope
from asyncsync.lab.simulation.model_server import Command
from asyncsync.lab.simulation.network import Fate, Network, SimulatedConnection, streams
from asyncsync.lab.simulation.oracle import Oracle, Violation, item_image, name_of
from asyncsync.lab.simulation.poller import FUNCTION, item_of
from asyncsync.lab.simulation.small_scope import History, PlacedFault
from asyncsync.lab.simulation.table import Poison, SimulatedTable
from asyncsync.lab.simulation.virtual_time import VirtualLoop
from asyncsync.mapping.answers import Answer, FunctionError, InvocationThrottled, Returned
from asyncsync.mapping.event_source_mapping import (
    Batch,
    EventSourceMapping,
    MappingSettings,
    ShardRecord,
)
from asyncsync.mirror import Mirror
from asyncsync.store import SCRIPT
from asyncsync.transport_asyncio import Streams

TIMEOUT_S = 30.0

Mode: TypeAlias = Literal["mirror", "refresh", "invalidate"]

MODES: tuple[Mode, ...] = ("mirror", "refresh", "invalidate")


class Backend(Protocol):
    """A server that runs one command at a time and holds the script."""

    def execute(self, command: Command) -> bytes:
        """Return the reply's bytes."""

    def read(self, name: bytes) -> bytes | None:
        """Return what a reader gets."""

    def write(self, name: bytes, value: bytes) -> None:
        """Put a value there."""

    def forget_scripts(self) -> None:
        """Empty the script cache."""

    def clear(self) -> None:
        """Remove every key, and hold the script again."""


def play(history: History, backend: Backend, loop: VirtualLoop, mode: Mode = "mirror") -> str:
    """Play one history; return what was violated, empty where nothing was."""
    backend.clear()
    made = _Play(history, backend, loop, mode)
    try:
        loop.run_until_complete(made.act())
    except Violation as exc:
        return str(exc)
    finally:
        made.network.close()
    return ""


class _Play:
    """A mapping, a sandbox, and the one fault."""

    def __init__(self, history: History, backend: Backend, loop: VirtualLoop, mode: Mode) -> None:
        self._history = history
        self._fault = history.fault or PlacedFault("", -1)
        self._backend = backend
        self._loop = loop
        self._config = Config(redis_url="redis://simulated", mode=mode, metrics="off")
        self.network = Network(loop, self._execute, self._choose)
        self._table = SimulatedTable([*scope.ITEMS], loop.wall_ms(), Random(0))
        preloaded = scope.ITEMS if mode != "mirror" else ()
        for item in preloaded:
            backend.write(name_of(item), b'{"Number":%d,"Count":0}' % item)
        self._oracle = Oracle(self._table, self._config, backend.read, preloaded, loop.wall_ms)
        self._batch = 0
        self._is_due = False  # the fault, at the next invocation
        self._kind = ""  # of the fault that is striking
        self._mended = False
        self._kill: Callable[[], object] = lambda: None
        self._late: tuple[bytes, SimulatedConnection] | None = None
        self._first: dict[int, Batch] = {}  # each batch as it came first
        self._connection: SimulatedConnection | None = None
        self.aws_request_id = ""  # the play is Lambda's context, too
        self._mirror = self._sandbox()

    def _sandbox(self) -> Mirror:
        return Mirror(
            self._config,
            transform=self._transform if self._config.mode != "invalidate" else None,
            connect=self._connect,
            clock=self._loop.time,
            wall_clock=lambda: self._loop.wall_ms() / 1_000,
            emit=lambda _: None,
        )

    def _transform(self, item: dict[str, object]) -> dict[str, object]:
        if "Trap" in item and not self._mended:
            raise ValueError("a bug of the user's")
        return item

    # --- the story -----------------------------------------------------------------------------

    async def act(self) -> None:
        """Deliver batch after batch, let what is late arrive, and compare.

        Raises Violation.
        """
        for at, (item, removed) in enumerate(self._history.records):
            self._change(at, item, removed=removed)
        mapping = self._mapping()
        records = self._table.stream.shards[0].records
        done = 0
        began: list[int] = []
        for at, size in enumerate(self._history.batches):
            began.append(done)
            self._batch = at
            self._is_due = at == self._fault.at
            mapping.add("shard", records[done : done + size], self._loop.wall_ms())
            done += size
            await self._drain(mapping)
            if self._fault.kind in scope.AFTER_A_LATER_BATCH and self._fault.until == at:
                await self._show(mapping, records[began[self._fault.at] : done])
        differences = self._oracle.differences()
        if differences:
            raise Violation(f"G3: at rest, {'; '.join(differences)}")

    async def _show(self, mapping: EventSourceMapping, again: Sequence[ShardRecord]) -> None:
        """Let what is late arrive, or come again."""
        if self._fault.kind == scope.ZOMBIE and self._late is not None:
            data, connection = self._late
            requests = hiredis.Reader()
            requests.feed(data)
            while (command := requests.gets()) is not False:
                self._execute(command, connection)
        if self._fault.kind == scope.AGAIN:
            mapping.deliver_again(self._first[self._fault.at])
            await self._drain(mapping)
        if self._fault.kind == scope.MADE_AGAIN:
            mapping = self._mapping()
            mapping.add("shard", again, self._loop.wall_ms())
            await self._drain(mapping)

    def _change(self, at: int, item: int, *, removed: bool) -> None:
        last = self._table.current(item)
        count = 1 if last is None else last.count + 1
        poison: Poison = ""
        extra: dict[str, object] = {}
        if at == self._fault.at and self._config.mode != "invalidate" and not removed:
            if self._fault.kind == scope.NOT_AT_FIRST:
                poison, extra = "until mended", {"Trap": {"S": "a bug's"}}
            elif self._fault.kind == scope.NEVER:
                poison, extra = "never", {"Odd": {"Q": "no such type"}}
        image = None if removed else item_image(item, count, extra)
        self._table.change(item, image, poison, self._loop.wall_ms())

    def _mapping(self) -> EventSourceMapping:
        settings = MappingSettings(bisect=True, report_failures=True, retry_attempts_max=3)
        made = EventSourceMapping(settings, function=FUNCTION, stream_arn=self._table.stream.arn)
        made.open("shard")
        return made

    async def _drain(self, mapping: EventSourceMapping) -> None:
        """Invoke what is due until everything has left."""
        label_ms = self._table.stream.label_ms
        while not mapping.is_idle:
            for batch in mapping.due(self._loop.wall_ms()):
                self._first.setdefault(self._batch, batch)
                since = self._oracle.now
                answer = await self._invoke(batch)
                decision = mapping.answered(batch, answer, self._loop.wall_ms())
                acknowledged = [
                    (item_of(each), (label_ms, int(each.item_identifier)))
                    for each in decision.acknowledged
                ]
                self._oracle.acknowledged("the mapping", acknowledged, since)
                if decision.kind == "discarded":
                    self._oracle.given_up(
                        (item_of(each), (label_ms, int(each.item_identifier)))
                        for each in batch.records
                    )
            wakes_ms = mapping.wakes_ms(self._loop.wall_ms())
            if wakes_ms is not None:
                await asyncio.sleep((wakes_ms - self._loop.wall_ms()) / 1_000 + 0.001)

    # --- an invocation -------------------------------------------------------------------------

    async def _invoke(self, batch: Batch) -> Answer:
        kind = self._kind = self._fault.kind if self._is_due else ""
        self._is_due = False
        if kind == "throttled":
            return InvocationThrottled()
        if kind == "killed before the write":
            return self._killed()
        self._prepare(kind)
        self._allowed = {name_of(item_of(record)): None for record in batch.records}
        self._end_s = self._loop.time() + TIMEOUT_S
        self.aws_request_id = batch.request_id
        task = self._loop.create_task(self._mirror.handle(batch.event, self))
        self._kill = task.cancel
        try:
            answer = Returned(await task)
        except asyncio.CancelledError:
            return self._killed()
        self._mended = True  # a deployment follows the first time it could not be encoded
        if kind == "killed after the write":
            return self._killed()
        if kind == "the answer is malformed":
            return Returned({"batchItemFailures": [{"itemIdentifier": ""}]})
        return answer

    def _prepare(self, kind: str) -> None:
        """Let happen what happens between two invocations."""
        if kind == "the connection is refused":
            self._mirror.close()
        elif kind == "the connection is dead at its next use" and self._connection is not None:
            self._connection.drop()
        elif kind == "the script cache is emptied":
            self._backend.forget_scripts()

    def _killed(self) -> Answer:
        self._mirror, self._connection = self._sandbox(), None
        return FunctionError("Runtime.ExitError")

    def get_remaining_time_in_millis(self) -> int:
        """Return how long the invocation may still run, as Lambda's context does."""
        return int((self._end_s - self._loop.time()) * 1_000)

    # --- the network and the server ------------------------------------------------------------

    async def _connect(self, _: Server) -> Streams:
        if self._kind == "the connection is refused":
            self._kind = ""
            raise ConnectionRefusedError
        self._connection = self.network.open(self)
        return streams(self._connection)

    def _choose(self, data: bytes, connection: SimulatedConnection) -> Fate:
        connection.allowed = self._allowed
        kind, self._kind = self._kind, ""
        if kind == "the server is loading":
            self._kind = kind  # for _execute
        if kind == scope.ZOMBIE:
            self._late = data, connection
            return Fate(arrives=False)
        if kind == "killed during the write":
            self._loop.call_soon(self._kill)
        return scope.FATES[kind](len(data)) if kind in scope.FATES else Fate()

    def _execute(self, command: Command, connection: SimulatedConnection) -> bytes:
        if self._kind == "the server is loading":
            self._kind = ""
            return b"-LOADING Redis is loading the dataset in memory\r\n"
        reply = self._backend.execute(command)
        if not reply.startswith(b"-"):
            key_count = int(command[2])
            self._oracle.ran(command[3 : 3 + key_count], connection.allowed)
        return reply


class FakeRedis:
    """fakeredis as a backend: it runs the shipped script in a real Lua."""

    def __init__(self) -> None:
        from fakeredis import FakeServer, FakeStrictRedis

        server = FakeServer(server_type="redis")
        self._client: Any = FakeStrictRedis(server=server)
        self._client.script_load(SCRIPT)
        # The oracle reads after every command: past the client, which is most of a read.
        self._keys: Any = server.dbs[0]
        self._holds_script = True

    def execute(self, command: Command) -> bytes:
        """Return the reply's bytes."""
        from redis.exceptions import NoScriptError

        try:
            reply = self._client.execute_command(*command)
        except NoScriptError:
            return b"-NOSCRIPT No matching script. Please use EVAL.\r\n"
        parts = [
            b":%d\r\n" % each if isinstance(each, int) else b"$%d\r\n%b\r\n" % (len(each), each)
            for each in reply
        ]
        return b"*%d\r\n%b" % (len(parts), b"".join(parts))

    def read(self, name: bytes) -> bytes | None:
        """Return what a reader gets."""
        held = self._keys.get(name)
        return None if held is None else bytes(held.value)

    def write(self, name: bytes, value: bytes) -> None:
        """Put a value there."""
        self._client.set(name, value)

    def forget_scripts(self) -> None:
        """Empty the script cache."""
        self._client.script_flush()
        self._holds_script = False

    def clear(self) -> None:
        """Remove every key, and hold the script again."""
        self._client.flushall()
        if not self._holds_script:
            self._client.script_load(SCRIPT)
            self._holds_script = True
