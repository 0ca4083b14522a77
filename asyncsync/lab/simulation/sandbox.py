"""Simulated Lambda: sandboxes that run the real handler and may be killed.

An invocation takes an idle sandbox or starts one. Of a killed sandbox only the bytes remain that
it has sent. A handler that no fault touched must answer in time and must not raise.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

import orjson

from asyncsync.config import Server
from asyncsync.errors import BatchFailed
from asyncsync.lab.simulation.faults import Fault, Faults
from asyncsync.lab.simulation.items import Violation
from asyncsync.lab.simulation.network import Network, SimulatedConnection, streams
from asyncsync.lab.simulation.scenario import Scenario
from asyncsync.lab.simulation.virtual_time import FIRST_WALL_S, VirtualLoop
from asyncsync.mapping.answers import Answer, FunctionError, Returned
from asyncsync.mapping.event_source_mapping import Batch
from asyncsync.mirror import Mirror
from asyncsync.transport_asyncio import Streams

# AWS takes each of these for a failure of the whole batch (mapping/answers.py).
MALFORMED: tuple[object, ...] = (
    {"batchItemFailures": [{"itemIdentifier": ""}]},
    {"batchItemFailures": [{"itemIdentifier": None}]},
    {"batchItemFailures": [{"id": "1"}]},
    {"batchItemFailures": [{"itemIdentifier": "no record of the batch"}]},
    {"batchItemFailures": [{"itemIdentifier": 123}]},
)

# The design's numbers, not the code's: the code under test must not judge itself.
SEND_LEFT_S_MIN = 0.5
ANSWER_LEFT_S_MIN = 0.2

_ROUNDING_S = 0.002  # the remaining time is in whole milliseconds


T = TypeVar("T")


class Killed(Exception):
    """Lambda killed the sandbox."""


class SimulatedProcess:
    """A process with the real mirror, its own clocks, and one task at a time."""

    exposure = 1.0  # the share of its requests that the network's faults may meet
    renews_fences = True  # each fence that it writes gets a full life

    def __init__(self, scenario: Scenario, loop: VirtualLoop, function: SimulatedFunction) -> None:
        self.skew_s = 0.0  # of its wall clock
        self.slept_s = 0.0  # its monotonic clock is ahead by this
        self.allowed: Mapping[bytes, object] | None = None  # names it may touch; None: any item's
        self.kill_when_sent = False
        self.sent = 0  # requests, since it was set to 0
        self.lines: list[bytes] = []  # of the mirror's log
        self.mirror = Mirror(
            scenario.config,
            transform=function.transform if scenario.transforms else None,
            connect=self._connect,
            clock=lambda: loop.time() + self.slept_s,
            wall_clock=lambda: FIRST_WALL_S + loop.time() + self.skew_s,
            emit=self.lines.append,
        )
        self._loop = loop
        self._function = function
        self._task: asyncio.Task[Any] | None = None

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start the work of the process; `kill` ends it."""
        task = self._loop.create_task(work)
        self._task = task
        return task

    def kill(self) -> None:
        """End the work of the process where it waits."""
        if self._task is not None:
            self._task.cancel()

    async def _connect(self, _: Server) -> Streams:
        return streams(await self._function.connect(self))

    def check_send(self) -> None:
        """Do what the process does before it sends a request; here nothing."""

    def extra_latency_s(self) -> float:
        """Return how much later than usual a request arrives; by default not at all."""
        return 0.0


class Sandbox(SimulatedProcess):
    """A process of Lambda; it is also the context of its invocation."""

    def __init__(
        self, number: int, scenario: Scenario, loop: VirtualLoop, function: SimulatedFunction
    ) -> None:
        super().__init__(scenario, loop, function)
        self.number = number
        self.aws_request_id = ""
        self.end_s = 0.0  # of the invocation, on the loop's clock
        self.opened = 0  # connections in this invocation
        self.calm_runs = 0
        self.knows_replica = False  # a replica refused its write in calm, so it must leave it
        self.connection: SimulatedConnection | None = None

    def get_remaining_time_in_millis(self) -> int:
        """Return how long the invocation may still run, as Lambda's context does."""
        return max(0, int((self.end_s - self._loop.time()) * 1_000))

    async def _connect(self, _: Server) -> Streams:
        self.opened += 1
        self.connection = await self._function.connect(self)
        return streams(self.connection)

    def check_send(self) -> None:
        """Check that a request is sent only while there is time for it."""
        remaining_s = self.end_s - self._loop.time()
        if remaining_s < SEND_LEFT_S_MIN - _ROUNDING_S:
            raise Violation(
                f"G7: sent with {remaining_s:.3f} s left, at least {SEND_LEFT_S_MIN} s are needed"
            )


class SimulatedFunction:
    """One Lambda function: its sandboxes, its deployment, its invocations."""

    def __init__(
        self,
        scenario: Scenario,
        faults: Faults,
        loop: VirtualLoop,
        network: Network,
        tell: Callable[..., None],
    ) -> None:
        self.is_fixed = False  # the deployment can encode all but the worst
        self.invocations = 0
        self.last_line = ""  # of any sandbox's log
        self.running = 0
        self._scenario = scenario
        self._faults = faults
        self._loop = loop
        self._network = network
        self._tell = tell
        self._idle: list[Sandbox] = []
        self._sandboxes = 0

    def transform(self, item: dict[str, object]) -> dict[str, object]:
        """Play a user's transform with a bug, which a deployment fixes."""
        if "Trap" in item and not self.is_fixed:
            raise ValueError("a bug in the user's code")
        return item

    def deploy(self) -> None:
        """Deploy the fix: the next invocations run in new sandboxes."""
        self.is_fixed = True
        self._idle.clear()

    def freeze(self) -> None:
        """Freeze every idle sandbox until its connection is dead; to a replica it stays alive."""
        for sandbox in self._idle:
            if sandbox.connection is not None and not sandbox.connection.is_demoted:
                sandbox.connection.drop()

    async def connect(self, owner: object) -> SimulatedConnection:
        """Open a connection for a process, unless a fault prevents it."""
        if self._faults.strikes(Fault.CONNECTING_HANGS):
            await asyncio.sleep(3_600)
        is_slow = self._faults.strikes(Fault.CONNECTING_SLOW)
        await asyncio.sleep(self._faults.chance.uniform(0.001, 1.5) if is_slow else 0.000_5)
        if not self._network.is_up or self._faults.strikes(Fault.CONNECTION_REFUSED):
            raise ConnectionRefusedError
        return self._network.open(owner)

    async def invoke(self, batch: Batch, allowed: Mapping[bytes, object]) -> Answer:
        """Run the handler in a sandbox until it answers or is killed."""
        self.invocations += 1
        if self.running:
            self._faults.count(Fault.TWO_SANDBOXES)
        sandbox = self._take()
        sandbox.aws_request_id = batch.request_id  # a retry has the same, as in AWS
        sandbox.allowed, sandbox.sent, sandbox.opened = allowed, 0, 0
        self._count_calm_run(sandbox)
        sandbox.lines.clear()
        limit_s = self._scenario.timeout_s
        if self._faults.strikes(Fault.LITTLE_TIME):
            limit_s = self._faults.chance.uniform(0.0, 1.2)
        sandbox.end_s = self._loop.time() + limit_s
        self._tell("  sandbox %d, %.1f s left", sandbox.number, limit_s)
        if self._faults.strikes(Fault.KILLED_BEFORE_WRITE):
            return FunctionError("Runtime.ExitError")
        sandbox.kill_when_sent = self._faults.strikes(Fault.KILLED_DURING_WRITE)
        self.running += 1
        try:
            answer = await self._run(sandbox, batch.event)
        except Killed:
            return FunctionError("Runtime.ExitError")
        finally:
            self.running -= 1
        return self._check_answer(sandbox, limit_s, answer)

    def _count_calm_run(self, sandbox: Sandbox) -> None:
        """Count an invocation without faults, except up to the first one that a replica refuses.

        A replica answers a batch of which it writes nothing.
        """
        if not self._faults.is_calm:
            return
        connection = sandbox.connection
        is_on_replica = connection is not None and connection.is_open and connection.is_demoted
        sandbox.calm_runs += not is_on_replica or sandbox.knows_replica

    async def _run(self, sandbox: Sandbox, event: bytes) -> Answer:
        try:
            return Returned(await sandbox.start(sandbox.mirror.handle(event, sandbox)))
        except asyncio.CancelledError:
            if sandbox.kill_when_sent:
                raise Killed from None
            raise
        except BatchFailed as exc:
            return FunctionError(type(exc).__name__)
        except Violation:
            raise
        except Exception as exc:
            raise Violation(f"the handler raised {exc!r}") from exc

    def _check_answer(self, sandbox: Sandbox, limit_s: float, answer: Answer) -> Answer:
        remaining_s = sandbox.end_s - self._loop.time()
        for line in sandbox.lines:
            self.last_line = line.decode()
        if remaining_s < min(ANSWER_LEFT_S_MIN, limit_s) - _ROUNDING_S:
            raise Violation(f"G7: answered with {remaining_s:.3f} s of {limit_s:.3f} s left")
        if sandbox.calm_runs:
            self._check_calm(sandbox)
        if self._faults.is_calm and b"READONLY" in b"".join(sandbox.lines):
            sandbox.knows_replica = True
        if self._faults.strikes(Fault.KILLED_AFTER_WRITE):
            return FunctionError("Runtime.ExitError")
        self._idle.append(sandbox)
        if isinstance(answer, Returned) and self._faults.strikes(Fault.ANSWER_MALFORMED):
            return Returned(self._faults.chance.choice(MALFORMED))
        return answer

    def _check_calm(self, sandbox: Sandbox) -> None:
        """Check an invocation without faults; the first may find a dead connection."""
        if sandbox.calm_runs > 1 and sandbox.sent + sandbox.opened > 1:
            raise Violation(
                f"G4: {sandbox.sent} round trips and {sandbox.opened} new connections for one "
                "batch, without a fault"
            )
        for line in sandbox.lines:
            if orjson.loads(line)["failed"]:
                raise Violation(f"G7: a write failed without a fault: {line.decode()}")

    def _take(self) -> Sandbox:
        if not self._idle:
            self._sandboxes += 1
            return Sandbox(self._sandboxes, self._scenario, self._loop, self)
        sandbox = self._idle.pop()
        connection = sandbox.connection
        if self._faults.strikes(Fault.CLOCK_JUMPS):
            sandbox.skew_s = self._faults.chance.uniform(-7_200, 7_200)
            sandbox.slept_s += self._faults.chance.uniform(0, 7_200)
        if connection is not None and connection.is_open:
            if self._faults.strikes(Fault.CONNECTION_DEAD):
                connection.drop()
            elif self._faults.strikes(Fault.CONNECTION_SILENT):
                connection.silent = True
        return sandbox
