"""Readers beside the mappings: the real Reader, each in a process of its own.

Their clocks differ, their requests meet the network's faults, and they die. The oracle checks
every answer, and every write as it checks any other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from redis import exceptions

from asyncsync.errors import AsyncsyncError, RecordError
from asyncsync.keys import slot
from asyncsync.lab.simulation.aws import SKEW_S_MAX, SimulatedAws
from asyncsync.lab.simulation.faults import Fault, Faults
from asyncsync.lab.simulation.items import Violation
from asyncsync.lab.simulation.oracle import Oracle
from asyncsync.lab.simulation.sandbox import SimulatedFunction, SimulatedProcess
from asyncsync.lab.simulation.scenario import Scenario
from asyncsync.lab.simulation.table import TABLE
from asyncsync.lab.simulation.tool_runs import EXPOSURE
from asyncsync.lab.simulation.virtual_time import VirtualLoop
from asyncsync.model import Call
from asyncsync.reader.reader import Reader
from asyncsync.store import SCRIPT, Store

# A read begins within this many gaps between changes, so that reads fall between all steps.
READ_WITHIN_GAPS = 2.0

# A reader is killed within this many answers of the table after a read began.
KILLED_READS = 4


# The reader's counters that a run counts as consequences.
COUNTED = {
    "hits": Fault.READER_HIT,
    "fills": Fault.READER_FILLED,
    "refused_fills": Fault.READER_REFUSED,
    "absent_hits": Fault.READER_KNEW_ABSENT,
    "waits": Fault.READER_WAITED,
}


class ReaderProcess(SimulatedProcess):
    """A program that reads through the copy."""

    exposure = EXPOSURE
    renews_fences = False
    held_read = 0

    def __init__(
        self,
        name: str,
        scenario: Scenario,
        faults: Faults,
        loop: VirtualLoop,
        function: SimulatedFunction,
        aws: SimulatedAws,
    ) -> None:
        super().__init__(scenario, loop, function)
        self.name = name
        self.reads = 0
        self.is_dead = False
        self.is_checked = False  # nothing may fail any more
        self.skew_s = faults.chance.uniform(-SKEW_S_MAX, SKEW_S_MAX)
        self._faults = faults
        self._max_latency_s = scenario.tools.max_latency_s
        dynamodb: Any = aws.clients(self).items
        redis: Any = RedisClient(self)
        self.reader = Reader(
            self.mirror,
            TABLE,
            redis=redis,
            dynamodb=dynamodb,
            options=scenario.readers.options,
            on_count=self._count,
            clock=self.mirror.clock,
            wall_clock=self.mirror.wall_clock,
            chance=faults.chance,
        )

    def _count(self, counter: str, by: int) -> None:
        if counter in COUNTED:
            self._faults.count(COUNTED[counter], by)

    async def check_alive(self) -> None:
        """Wait for ever in a dead process."""
        if self.is_dead:
            await asyncio.Event().wait()

    def extra_latency_s(self) -> float:
        """Return how much later than usual a request arrives."""
        is_slow = self._faults.strikes(Fault.TOOL_REQUEST_SLOW)
        return self._faults.chance.uniform(0, self._max_latency_s) if is_slow else 0.0

    def object_moved(self, name: str) -> None:
        """Never: a reader has no objects."""
        raise AssertionError(name)


class RedisClient:
    """redis-py's client as far as Reader uses it, over the simulated network."""

    def __init__(self, process: ReaderProcess) -> None:
        self._process = process
        self._idle: list[Store] = []

    def get_encoder(self) -> object:
        """Return no encoder: replies stay bytes."""
        return None

    def get_connection_kwargs(self) -> dict[str, Any]:
        """Return no options: replies stay bytes."""
        return {}

    async def get(self, name: bytes) -> bytes | None:
        """Read one value."""
        value: bytes | None = await self.execute_command(b"GET", name)
        return value

    async def mget(self, names: Sequence[bytes]) -> list[bytes | None]:
        """Read several values."""
        values: list[bytes | None] = await self.execute_command(b"MGET", *names)
        return values

    async def execute_command(self, *command: bytes | str) -> Any:
        """Run one command. Raises what redis-py raises."""
        (reply,) = await self.send([command])
        if isinstance(reply, Exception):
            raise reply
        return reply

    def pipeline(self, transaction: bool) -> _Pipeline:
        """Return a pipeline."""
        assert not transaction, "a reader needs none"
        return _Pipeline(self)

    async def send(self, commands: Sequence[Sequence[bytes | str]]) -> list[Any]:
        """Run commands in one round trip; a reply may be an exception."""
        await self._process.check_alive()
        words = [tuple(w.encode() if isinstance(w, str) else w for w in c) for c in commands]
        calls = [
            Call(command, (at,), fenced=False, slot=slot(_key_of(command)))
            for at, command in enumerate(words)
        ]
        store = self._idle.pop() if self._idle else self._process.mirror.new_store(SCRIPT)
        try:
            outcomes = (await store.apply(calls, len(calls), float("inf"))).outcomes
        except BaseException:
            store.close()
            raise
        self._idle.append(store)
        await self._process.check_alive()
        return [_error(each.error) if each.kind == "failed" else each.reply for each in outcomes]


class _Pipeline:
    def __init__(self, client: RedisClient) -> None:
        self._client = client
        self._commands: list[Sequence[bytes | str]] = []

    def execute_command(self, *command: bytes | str) -> None:
        self._commands.append(command)

    async def execute(self, *, raise_on_error: bool) -> list[Any]:
        assert not raise_on_error, "a reader looks at each reply"
        return await self._client.send(self._commands)


def _key_of(command: Sequence[bytes]) -> bytes:
    return command[3] if command[0].startswith(b"EVAL") else command[1]


def _error(word: str) -> Exception:
    if word == "NOSCRIPT":
        return exceptions.NoScriptError(word)
    return exceptions.ResponseError(word) if word.isupper() else exceptions.ConnectionError(word)


class Readers:
    """Begins reads of random items, and checks their answers."""

    def __init__(
        self,
        scenario: Scenario,
        faults: Faults,
        loop: VirtualLoop,
        function: SimulatedFunction,
        aws: SimulatedAws,
        oracle: Oracle,
        evict: Callable[[], None],
        say: Callable[..., None],
    ) -> None:
        self._evict = evict
        self._scenario = scenario
        self._faults = faults
        self._loop = loop
        self._oracle = oracle
        self._say = say
        self._function = function
        self._aws = aws
        self._processes: list[ReaderProcess] = []
        self._running: dict[asyncio.Task[None], ReaderProcess] = {}
        self._opening: set[asyncio.Task[None]] = set()
        self._begun = 0

    @property
    def is_idle(self) -> bool:
        """Return whether nobody reads."""
        return not self._running

    async def begin(self) -> None:
        """Open the readers."""
        for _ in range(self._scenario.readers.processes):
            await self._open()

    async def _open(self) -> None:
        self._begun += 1
        name = f"reader {self._begun}"
        process = ReaderProcess(
            name, self._scenario, self._faults, self._loop, self._function, self._aws
        )
        await process.reader.__aenter__()
        self._processes.append(process)

    def read_by_chance(self, numbers: Sequence[int]) -> None:
        """Begin some reads soon; kill a reader if its chance comes up."""
        chance = self._faults.chance
        if not self._processes:
            return
        for _ in range(chance.randint(0, self._scenario.readers.per_change)):
            after_s = chance.uniform(0, READ_WITHIN_GAPS * self._scenario.gap_s)
            process, number = chance.choice(self._processes), chance.choice(numbers)
            self._loop.call_later(after_s, self._start, process, number)

    def _start(self, process: ReaderProcess, number: int) -> None:
        if process.is_dead or self._faults.is_calm:
            return
        if self._scenario.readers.is_cache_small:
            self._evict()
        task = self._loop.create_task(self._read(process, number))
        self._running[task] = process
        task.add_done_callback(self._task_done)
        if self._faults.strikes(Fault.READER_KILLED):
            after_s = self._faults.chance.uniform(0, KILLED_READS * self._scenario.tools.read_s)
            self._loop.call_later(after_s, self._kill, process)

    def _kill(self, process: ReaderProcess) -> None:
        """End a process where it waits; another takes its place."""
        if process.is_dead:
            return
        self._say("%s is killed", process.name)
        process.is_dead = True
        self._processes.remove(process)
        for task, owner in self._running.items():
            if owner is process:
                task.cancel()
        self._opening.add(task := self._loop.create_task(self._open()))
        task.add_done_callback(self._opening.discard)

    async def _read(self, process: ReaderProcess, number: int) -> None:
        since = self._oracle.now, self._oracle.version_of(number)
        try:
            value = await process.reader.get({"Number": number}, as_bytes=True)
        except RecordError:
            self._oracle.unreadable(number)
            return
        except AsyncsyncError as exc:
            self._say("%s cannot read item %d: %s", process.name, number, exc)
            if process.is_checked:
                raise Violation(f"{process.name} fails without a fault: {exc}") from exc
            return
        self._say("%s has read item %d", process.name, number)
        self._oracle.answered(number, value, *since)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._running.pop(task)
        if not task.cancelled() and task.exception() is not None:
            self._loop.call_exception_handler(
                {"message": "a reader failed", "exception": task.exception()}
            )

    async def finish(self, numbers: Sequence[int]) -> None:
        """Read every item once without faults, and wait for the writes that follow."""
        for process in self._processes:
            process.is_checked = True
            for number in numbers:
                await self._read(process, number)
            await process.reader.__aexit__()
