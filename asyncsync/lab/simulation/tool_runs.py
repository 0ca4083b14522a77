"""Backfill, audit and redrive beside the mappings: the tools' own code, each run a process.

A process is killed between two steps or while its bytes are under way, meets the network's
faults as the handler does, and is started again as an operator would. Whatever ends it, what
it has sent may still arrive.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, TypeAlias

import orjson

from asyncsync.errors import AsyncsyncError
from asyncsync.lab.simulation.aws import BUCKET, SimulatedAws
from asyncsync.lab.simulation.faults import Fault, Faults
from asyncsync.lab.simulation.oracle import Oracle, Version, Violation
from asyncsync.lab.simulation.sandbox import SimulatedFunction, SimulatedProcess
from asyncsync.lab.simulation.scenario import BEGINS, Scenario, Tool
from asyncsync.lab.simulation.table import TABLE
from asyncsync.lab.simulation.virtual_time import VirtualLoop
from asyncsync.mapping.on_failure import OnFailure
from asyncsync.tools.audit.command import AuditOptions, audit
from asyncsync.tools.backfill.command import BackfillOptions, backfill
from asyncsync.tools.output import Output
from asyncsync.tools.redrive.command import RedriveOptions, redrive

Run: TypeAlias = Tool | Literal["last audit"]  # which repairs nothing
Said: TypeAlias = dict[str, Any]
Tell: TypeAlias = Callable[[str], None]

STATE = f"s3://{BUCKET}/state"
FAILED = "failed"  # where the on-failure objects lie

# A process is killed, or what was killed is begun again, within so many of the table's answers.
KILLED_READS = 30
AGAIN_READS = 60
AGAIN_MAX = 4  # and no more often: a quiet day would be full of it

# A run makes many requests, one after another, and each one lost costs it a timeout.
EXPOSURE = 0.4

# About as many reads of a few items as each makes, so that each of them may be the one that waits.
READS: Mapping[Run, int] = {"backfill": 3, "audit": 13, "redrive": 2}

# Runs that a calm system may need until nothing is left: one, and one more for what fell due
# while the first was under way.
CALM_RUNS_MAX = 3


class ToolOutput(Output):
    """Passes on the lines that a tool writes."""

    def __init__(self, tell: Tell) -> None:
        super().__init__(sys.stdout, sys.stderr)
        self._tell = tell

    def line(self, text: str) -> None:
        """Pass a line on."""
        self._tell(text)


class ToolProcess(SimulatedProcess):
    """One run of a tool: a process with its own connections and its own clocks."""

    exposure = EXPOSURE

    def __init__(
        self,
        name: str,
        scenario: Scenario,
        faults: Faults,
        loop: VirtualLoop,
        function: SimulatedFunction,
        moved: Callable[[ToolProcess, str], None],
        *,
        since: int,
        held_read: int,
    ) -> None:
        super().__init__(scenario, loop, function)
        self.name = name
        self.since = since  # the oracle's moment at which it began
        self.reads = 0
        self.held_read = held_read  # which of its reads is held until it is stale; 0: none
        self._moved = moved
        self._faults = faults
        self._max_latency_s = scenario.tools.max_latency_s

    def check_send(self) -> None:
        """Give the process its chance to die over what it sends."""
        self.kill_when_sent = self._faults.strikes(Fault.TOOL_KILLED_WRITING)

    def extra_latency_s(self) -> float:
        """Return how much later than usual a request arrives, from wherever the tool runs."""
        is_slow = self._faults.strikes(Fault.TOOL_REQUEST_SLOW)
        return self._faults.chance.uniform(0, self._max_latency_s) if is_slow else 0.0

    def object_moved(self, name: str) -> None:
        """Take note that the tool has put an object to those that are done."""
        self._moved(self, name)


class ToolRuns:
    """Whoever runs the tools: begins them, begins them again, and in the end sees them done."""

    def __init__(
        self,
        scenario: Scenario,
        faults: Faults,
        loop: VirtualLoop,
        function: SimulatedFunction,
        aws: SimulatedAws,
        oracle: Oracle,
        say: Callable[..., None],
    ) -> None:
        self._scenario = scenario
        self._tools = scenario.tools
        self._faults = faults
        self._chance = faults.chance
        self._loop = loop
        self._function = function
        self._aws = aws
        self._oracle = oracle
        self._say = say
        self._discarded: dict[str, Sequence[tuple[int, Version]]] = {}
        self._scan_since = self._backfilled_since = -2  # the oracle's moments; never
        self._begun: Counter[Run] = Counter()
        self._running: dict[asyncio.Task[Said | None], Run] = {}
        self._again: set[Run] = set()  # what was cut short and is to be begun again
        self._patience: Counter[Run] = Counter()  # how often it still will be
        self._commands: Mapping[Run, Callable[[ToolProcess, Output], Awaitable[bool]]] = {
            "backfill": self._backfill,
            "audit": partial(self._audit, repair=True),
            "last audit": partial(self._audit, repair=False),
            "redrive": self._redrive,
        }

    @property
    def is_idle(self) -> bool:
        """Whether no process runs."""
        return not self._running

    def begin(self) -> None:
        """Begin some of the tools, before anything has changed or before a quiet day."""
        for what in self._tools.begin:
            if self._chance.random() < 0.7 and not self._is_under_way(what):
                self._patience[what] = AGAIN_MAX
                self._begin(what)

    def moment(self) -> None:
        """Give each tool its chance to be begun."""
        for what in self._tools.begin:
            if not self._faults.strikes(BEGINS[what]):
                continue
            if what == "backfill" and self._is_under_way(what):
                continue
            self._patience[what] = AGAIN_MAX
            self._begin(what)
            if what == "redrive" and self._faults.strikes(Fault.TWO_REDRIVES):
                self._begin(what)

    def _is_under_way(self, what: Run) -> bool:
        """Whether it runs or will be begun again: two backfills share no state."""
        return what in self._again or what in self._running.values()

    # --- a process -----------------------------------------------------------------------------

    def _begin(self, what: Run) -> asyncio.Task[Said | None]:
        self._again.discard(what)
        self._begun[what] += 1
        name = f"{what} {self._begun[what]}"
        process = ToolProcess(
            name,
            self._scenario,
            self._faults,
            self._loop,
            self._function,
            self._object_moved,
            since=self._oracle.now,
            held_read=self._held_read(what),
        )
        task = process.start(self._live(what, process))
        self._running[task] = what
        # One that waits is left alone until it is old.
        if not process.held_read and self._faults.strikes(Fault.TOOL_KILLED):
            after_s = self._chance.uniform(0, KILLED_READS * self._tools.read_s)
            self._loop.call_later(after_s, process.kill)
        task.add_done_callback(self._ended)
        return task

    def _held_read(self, what: Run) -> int:
        """Draw which read of a tool is held until the quiet day is over; 0: none."""
        is_to_come = self._scenario.quiet_day and not self._aws.is_stale.is_set()
        if is_to_come and self._faults.strikes(Fault.ANSWER_HELD):
            return self._chance.randint(1, READS[what])
        return 0

    async def _live(self, what: Run, process: ToolProcess) -> Said | None:
        """Run a tool to its end and return what it said last; None where it was cut short."""
        self._say("%s begins", process.name)
        said: list[Said] = [{}]

        def tell(line: str) -> None:
            said.append(orjson.loads(line))
            said[-1].pop("seconds", None)  # of this machine
            self._say("  %s: %s", process.name, said[-1])

        try:
            await self._commands[what](process, ToolOutput(tell))
        except asyncio.CancelledError:
            self._say("%s is killed", process.name)
        except AsyncsyncError as exc:
            self._say("%s gives up: %s", process.name, exc)
        except Exception as exc:
            raise _violation(process.name, exc) from exc
        else:
            self._note(what, said[-1])
            self._say("%s has ended", process.name)
            return said[-1]
        self._note(what, said[-1])
        if not self._faults.is_calm and self._patience[what]:
            self._patience[what] -= 1
            self._again.add(what)
            after_s = self._chance.uniform(0, AGAIN_READS * self._tools.read_s)
            self._loop.call_later(after_s, self._begin_again, what)
        return None

    def _begin_again(self, what: Run) -> None:
        if what in self._again and not self._faults.is_calm:
            self._begin(what)

    def _ended(self, task: asyncio.Task[Said | None]) -> None:
        self._running.pop(task)
        if not task.cancelled() and task.exception() is not None:
            self._loop.call_exception_handler(
                {"message": "a tool failed", "exception": task.exception()}
            )

    def _note(self, what: Run, said: Said) -> None:
        count = self._faults.count
        if what == "backfill":
            count(Fault.BACKFILL_FILLED, said.get("filled", 0))
            count(Fault.BACKFILL_REPAIRED, said.get("repaired", 0))
            if said.get("how") == "done" and not said["left"]:
                self._backfilled_since = self._scan_since
        elif what == "audit":
            count(Fault.AUDIT_REPAIRED, said.get("repaired", 0))
            count(Fault.ORPHAN_REMOVED, min(said.get("orphans", 0), said.get("repaired", 0)))

    # --- the commands --------------------------------------------------------------------------

    async def _backfill(self, process: ToolProcess, output: Output) -> bool:
        if any(name.startswith("state/segment") for name in self._aws.objects):
            self._faults.count(Fault.BACKFILL_RESUMED)
        else:
            self._scan_since = process.since
        options = BackfillOptions(
            table=TABLE,
            segments=self._tools.segments,
            page_items=self._tools.page_items,
            state=STATE,
            skip_mapping_check=True,
            as_json=True,
            chance=self._chance,
        )
        return await backfill(self._aws.clients(process), options, process.mirror, output)

    async def _audit(self, process: ToolProcess, output: Output, *, repair: bool) -> bool:
        options = AuditOptions(
            table=TABLE,
            recheck_after_s=self._tools.recheck_after_s,
            orphans=True,
            repair=repair,
            as_json=True,
            chance=self._chance,
        )
        return await audit(self._aws.clients(process), options, process.mirror, output)

    async def _redrive(self, process: ToolProcess, output: Output) -> bool:
        options = RedriveOptions(
            table=TABLE, places=[f"s3://{BUCKET}/{FAILED}/"], as_json=True, chance=self._chance
        )
        return await redrive(self._aws.clients(process), options, process.mirror, output)

    # --- on-failure objects --------------------------------------------------------------------

    def give_up(self, given_up: OnFailure, records: Sequence[tuple[int, Version]]) -> None:
        """Put what a mapping gives up on into the bucket, its payload a text or an object."""
        name = f"{FAILED}/{len(self._discarded):04}.json"
        self._discarded[name] = records
        made: dict[str, Any] = {**given_up}
        if self._chance.random() < 0.5:
            made["payload"] = orjson.loads(given_up["payload"])
        self._aws.objects[name] = orjson.dumps(made)

    def _object_moved(self, process: ToolProcess, name: str) -> None:
        self._say("  %s: %s is done", process.name, name)
        self._faults.count(Fault.OBJECT_REDRIVEN)
        self._oracle.redriven(self._discarded[name], process.since)

    # --- the end -------------------------------------------------------------------------------

    async def finish(self) -> None:
        """Run each tool until nothing is left; there is no fault any more.

        Raises Violation where a tool leaves what it could have done.
        """
        is_mended = self._oracle.is_damaged and self._tools.audit_recovers
        if "backfill" in self._tools.begin:
            for _ in range(CALM_RUNS_MAX):
                if not self._is_backfilled:
                    await self._whole("backfill")
            if not self._is_backfilled:
                raise Violation("G3: a backfill leaves keys, and there is no fault")
        if "redrive" in self._tools.begin:
            await self._whole("redrive")
            self._check_objects()
        if is_mended:
            await self._whole("audit")
            self._faults.count(Fault.AUDIT_RECOVERED)
        self._oracle.backfilled = self._is_backfilled

    @property
    def _is_backfilled(self) -> bool:
        """Whether a backfill is done that began after the last damage."""
        return self._backfilled_since >= self._oracle.last_damage

    async def _whole(self, what: Run) -> Said:
        said = await self._begin(what)
        if said is None:
            raise Violation(f"G3: {what} gave up, and there is no fault")
        return said

    def _check_objects(self) -> None:
        """Check that what a redrive leaves holds a key whose item cannot be encoded."""
        for name in self._aws.objects:
            records = self._discarded.get(name, ())
            if records and not any(self._oracle.is_poison(item) for item, _ in records):
                raise Violation(f"G3: {name} is left, and each of its keys can be redriven")

    async def agree(self) -> None:
        """Let an audit look at a copy in which nothing differs; it must see nothing.

        Raises Violation.
        """
        said = await self._whole("last audit")
        if said["missing"] or said["stale"] or said["orphans"]:
            raise Violation(f"an audit finds what is not there: {said}")
        self._faults.count(Fault.AUDIT_FOUND_NOTHING)


def _violation(name: str, exc: Exception) -> Violation:
    """Turn what a tool raised, and should not have, into the violation that it is."""
    while isinstance(exc, ExceptionGroup):
        exc = exc.exceptions[0]
    return exc if isinstance(exc, Violation) else Violation(f"{name} raised {exc!r}")
