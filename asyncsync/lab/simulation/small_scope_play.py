"""Plays one history of the small scope: the real handler, a real script, at most one fault.

Batches go out one after another, as a mapping with one lane sends them. The fault strikes at
the first delivery of its batch, and a late one shows after the batch that the history names.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random
from typing import Any, Literal, Protocol, TypeAlias

import hiredis

from asyncsync.config import Config, Server
from asyncsync.lab.simulation import small_scope as scope
from asyncsync.lab.simulation.items import Version, Violation, item_image, name_of
from asyncsync.lab.simulation.model_commands import Command
from asyncsync.lab.simulation.network import Fate, Network, SimulatedConnection, streams
from asyncsync.lab.simulation.oracle import Oracle
from asyncsync.lab.simulation.poller import FUNCTION, item_of
from asyncsync.lab.simulation.small_scope import History, PlacedFault, ScopeFault
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
SHARD = "shard"

Mode: TypeAlias = Literal["mirror", "refresh", "invalidate"]

MODES: tuple[Mode, ...] = ("mirror", "refresh", "invalidate")


class Backend(Protocol):
    """A server that runs one command at a time and has the script loaded."""

    def execute(self, command: Command) -> bytes:
        """Run a command and return the reply's bytes."""

    def read(self, name: bytes) -> bytes | None:
        """Return the value that a reader would get."""

    def write(self, name: bytes, value: bytes) -> None:
        """Write a value."""

    def forget_scripts(self) -> None:
        """Empty the script cache."""

    def clear(self) -> None:
        """Remove every key, and load the script if it is missing."""


def play(history: History, backend: Backend, loop: VirtualLoop, mode: Mode = "mirror") -> str:
    """Play one history and return the violation; empty if every promise was kept."""
    backend.clear()
    run = _Play(history, backend, loop, mode)
    try:
        loop.run_until_complete(run.act())
    except Violation as exc:
        return str(exc)
    finally:
        run.network.close()
    return ""


class _Play:
    """A mapping, a sandbox, and the one fault."""

    def __init__(self, history: History, backend: Backend, loop: VirtualLoop, mode: Mode) -> None:
        self._history = history
        self._fault = history.fault
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
        self._is_due = False  # the fault strikes at the next invocation
        self._kind: ScopeFault | None = None  # of the fault that is about to strike
        self._is_fixed = False  # the deployment can encode all but the worst
        self._invocation: asyncio.Task[object] | None = None
        self._late: tuple[bytes, SimulatedConnection] | None = None
        self._first: dict[int, Batch] = {}  # each batch as it was first delivered
        self._connection: SimulatedConnection | None = None
        self.aws_request_id = ""  # the play is Lambda's context, too
        self._mirror = self._start_sandbox()

    def _start_sandbox(self) -> Mirror:
        return Mirror(
            self._config,
            transform=self._transform if self._config.mode != "invalidate" else None,
            connect=self._connect,
            clock=self._loop.time,
            wall_clock=lambda: self._loop.wall_ms() / 1_000,
            emit=lambda _: None,
        )

    def _transform(self, item: dict[str, object]) -> dict[str, object]:
        if "Trap" in item and not self._is_fixed:
            raise ValueError("a bug in the user's code")
        return item

    # --- the story -----------------------------------------------------------------------------

    async def act(self) -> None:
        """Deliver batch after batch, let late faults show, and compare.

        Raises Violation.
        """
        for at, (item, is_removed) in enumerate(self._history.records):
            self._change(at, item, is_removed=is_removed)
        mapping = self._create_mapping()
        records = self._table.stream.shards[0].records
        end = 0
        starts: list[int] = []
        for at, size in enumerate(self._history.batches):
            start, end = end, end + size
            starts.append(start)
            self._batch = at
            self._is_due = self._fault is not None and at == self._fault.at
            mapping.add(SHARD, records[start:end], self._loop.wall_ms())
            await self._drain(mapping)
            fault = self._fault
            if fault and fault.kind in scope.AFTER_A_LATER_BATCH and fault.until == at:
                await self._show(mapping, fault, records[starts[fault.at] : end])
        differences = self._oracle.differences()
        if differences:
            raise Violation(f"G3: at rest, {'; '.join(differences)}")

    async def _show(
        self, mapping: EventSourceMapping, fault: PlacedFault, records: Sequence[ShardRecord]
    ) -> None:
        """Let the late fault show: bytes arrive, or records are delivered again."""
        if fault.kind == ScopeFault.ZOMBIE and self._late is not None:
            data, connection = self._late
            requests = hiredis.Reader()
            requests.feed(data)
            while (command := requests.gets()) is not False:
                self._execute(command, connection)
        if fault.kind == ScopeFault.REDELIVERED:
            mapping.deliver_again(self._first[fault.at])
            await self._drain(mapping)
        if fault.kind == ScopeFault.MAPPING_RECREATED:
            mapping = self._create_mapping()
            mapping.add(SHARD, records, self._loop.wall_ms())
            await self._drain(mapping)

    def _change(self, at: int, item: int, *, is_removed: bool) -> None:
        last = self._table.current(item)
        count = 1 if last is None else last.count + 1
        poison: Poison = ""
        extra: dict[str, object] = {}
        is_hit = self._fault is not None and at == self._fault.at
        if is_hit and self._config.mode != "invalidate" and not is_removed:
            poison, extra = self._poison()
        image = None if is_removed else item_image(item, count, extra)
        self._table.change(item, image, poison, self._loop.wall_ms())

    def _poison(self) -> tuple[Poison, dict[str, object]]:
        assert self._fault is not None
        if self._fault.kind == ScopeFault.NOT_AT_FIRST:
            return "until fixed", {"Trap": {"S": "trapped"}}
        if self._fault.kind == ScopeFault.NEVER_ENCODED:
            return "never", {"Odd": {"Q": "no such type"}}
        return "", {}

    def _create_mapping(self) -> EventSourceMapping:
        settings = MappingSettings(bisect=True, report_failures=True, retry_attempts_max=3)
        stream_arn = self._table.stream.arn
        mapping = EventSourceMapping(settings, function=FUNCTION, stream_arn=stream_arn)
        mapping.open(SHARD)
        return mapping

    async def _drain(self, mapping: EventSourceMapping) -> None:
        """Invoke with each due batch until the mapping is idle."""
        while not mapping.is_idle:
            for batch in mapping.due(self._loop.wall_ms()):
                self._first.setdefault(self._batch, batch)
                since = self._oracle.now
                answer = await self._invoke(batch)
                decision = mapping.answered(batch, answer, self._loop.wall_ms())
                acknowledged = self._versions(decision.acknowledged)
                self._oracle.acknowledged("the mapping", acknowledged, since)
                if decision.kind == "discarded":
                    self._oracle.discarded(self._versions(batch.records))
            wakes_ms = mapping.wakes_ms(self._loop.wall_ms())
            if wakes_ms is not None:
                await asyncio.sleep((wakes_ms - self._loop.wall_ms()) / 1_000 + 0.001)

    def _versions(self, records: Sequence[ShardRecord]) -> list[tuple[int, Version]]:
        label_ms = self._table.stream.label_ms
        return [(item_of(record), (label_ms, int(record.item_identifier))) for record in records]

    # --- an invocation -------------------------------------------------------------------------

    async def _invoke(self, batch: Batch) -> Answer:
        kind = self._fault.kind if self._fault is not None and self._is_due else None
        self._kind = kind
        self._is_due = False
        if kind == ScopeFault.THROTTLED:
            return InvocationThrottled()
        if kind == ScopeFault.KILLED_BEFORE_WRITE:
            return self._replace_sandbox()
        self._strike_before(kind)
        self._allowed = {name_of(item_of(record)): None for record in batch.records}
        self._end_s = self._loop.time() + TIMEOUT_S
        self.aws_request_id = batch.request_id
        self._invocation = self._loop.create_task(self._mirror.handle(batch.event, self))
        try:
            answer = Returned(await self._invocation)
        except asyncio.CancelledError:
            return self._replace_sandbox()
        self._is_fixed = True  # a deployment follows the first record that it could not encode
        if kind == ScopeFault.KILLED_AFTER_WRITE:
            return self._replace_sandbox()
        if kind == ScopeFault.ANSWER_MALFORMED:
            return Returned({"batchItemFailures": [{"itemIdentifier": ""}]})
        return answer

    def _strike_before(self, kind: ScopeFault | None) -> None:
        """Apply the faults that happen between two invocations."""
        if kind == ScopeFault.CONNECTION_REFUSED:
            self._mirror.close()
        elif kind == ScopeFault.CONNECTION_DEAD and self._connection is not None:
            self._connection.drop()
        elif kind == ScopeFault.SCRIPTS_LOST:
            self._backend.forget_scripts()

    def _replace_sandbox(self) -> Answer:
        """Start a sandbox after the one that was killed, and answer for that one."""
        self._mirror, self._connection = self._start_sandbox(), None
        return FunctionError("Runtime.ExitError")

    def _kill(self) -> None:
        assert self._invocation is not None
        self._invocation.cancel()

    def get_remaining_time_in_millis(self) -> int:
        """Return how long the invocation may still run, as Lambda's context does."""
        return int((self._end_s - self._loop.time()) * 1_000)

    # --- the network and the server ------------------------------------------------------------

    async def _connect(self, _: Server) -> Streams:
        if self._kind == ScopeFault.CONNECTION_REFUSED:
            self._kind = None
            raise ConnectionRefusedError
        self._connection = self.network.open(self)
        return streams(self._connection)

    def _choose(self, data: bytes, connection: SimulatedConnection) -> Fate:
        connection.allowed = self._allowed
        kind, self._kind = self._kind, None
        if kind is None:
            return Fate()
        if kind == ScopeFault.LOADING:
            self._kind = kind  # for _execute
        if kind == ScopeFault.ZOMBIE:
            self._late = data, connection
            return Fate(arrives=False)
        if kind == ScopeFault.KILLED_DURING_WRITE:
            self._loop.call_soon(self._kill)
        return scope.FATES[kind](len(data)) if kind in scope.FATES else Fate()

    def _execute(self, command: Command, connection: SimulatedConnection) -> bytes:
        if self._kind == ScopeFault.LOADING:
            self._kind = None
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
        # The oracle reads after every command. It skips the client, which is most of a read.
        self._keys: Any = server.dbs[0]
        self._has_script = True

    def execute(self, command: Command) -> bytes:
        """Run a command and return the reply's bytes."""
        from redis.exceptions import NoScriptError

        try:
            reply = self._client.execute_command(*command)
        except NoScriptError:
            return b"-NOSCRIPT No matching script. Please use EVAL.\r\n"
        parts = [
            b":%d\r\n" % part if isinstance(part, int) else b"$%d\r\n%b\r\n" % (len(part), part)
            for part in reply
        ]
        return b"*%d\r\n%b" % (len(parts), b"".join(parts))

    def read(self, name: bytes) -> bytes | None:
        """Return the value that a reader would get."""
        item = self._keys.get(name)
        return None if item is None else bytes(item.value)

    def write(self, name: bytes, value: bytes) -> None:
        """Write a value."""
        self._client.set(name, value)

    def forget_scripts(self) -> None:
        """Empty the script cache."""
        self._client.script_flush()
        self._has_script = False

    def clear(self) -> None:
        """Remove every key, and load the script if it is missing."""
        self._client.flushall()
        if not self._has_script:
            self._client.script_load(SCRIPT)
            self._has_script = True
