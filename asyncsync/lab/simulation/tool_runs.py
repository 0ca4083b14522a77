"""Runs backfill, audit and redrive beside the mappings: the tools' own code, one process a run.

A process may be killed between two steps or while its bytes are under way. It meets the network's
faults as the handler does, and is started again as an operator would start it. However it ends,
bytes that it has sent may still arrive.
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
from asyncsync.lab.simulation.items import Version, Violation
from asyncsync.lab.simulation.oracle import Oracle
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
Document: TypeAlias = dict[str, Any]  # a line that a tool prints as JSON
Tell: TypeAlias = Callable[[str], None]

STATE = f"s3://{BUCKET}/state"
FAILED = "failed"  # the folder of the on-failure objects

# A process is killed, or begins again, within this many answers of the table.
KILLED_READS = 30
AGAIN_READS = 60
AGAIN_MAX = 4  # more would fill a quiet day

# A run makes many requests one after another, and each lost one costs it a timeout.
EXPOSURE = 0.4

# The number of reads that each makes of a few items, so that any of them can be the held one.
READS: Mapping[Run, int] = {"backfill": 3, "audit": 13, "redrive": 2}

# Without faults a tool may need more than one run: work may fall due during the first.
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
    """One run of a tool, in its own process."""

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
        self.since = since  # the oracle's step at which it began
        self.reads = 0
        self.held_read = held_read  # which of its reads is held until it is stale; 0: none
        self._moved = moved
        self._faults = faults
        self._max_latency_s = scenario.tools.max_latency_s

    def check_send(self) -> None:
        """Decide whether the process is killed while it sends."""
        self.kill_when_sent = self._faults.strikes(Fault.TOOL_KILLED_WRITING)

    def extra_latency_s(self) -> float:
        """Return how much later than usual a request arrives: a tool may run far away."""
        is_slow = self._faults.strikes(Fault.TOOL_REQUEST_SLOW)
        return self._faults.chance.uniform(0, self._max_latency_s) if is_slow else 0.0

    def object_moved(self, name: str) -> None:
        """Note that the tool has moved an object to the done ones."""
        self._moved(self, name)


class ToolRuns:
    """Begins the tools, begins them again after a failure, and at the end checks their work."""

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
        self._scan_since = self._backfilled_since = -2  # steps of the oracle; -2: never
        self._begun: Counter[Run] = Counter()
        self._running: dict[asyncio.Task[Document | None], Run] = {}
        self._again: set[Run] = set()  # runs that ended early and will begin again
        self._patience: Counter[Run] = Counter()  # how often each still may begin again
        self._commands: Mapping[Run, Callable[[ToolProcess, Output], Awaitable[bool]]] = {
            "backfill": self._backfill,
            "audit": partial(self._audit, repair=True),
            "last audit": partial(self._audit, repair=False),
            "redrive": self._redrive,
        }

    @property
    def is_idle(self) -> bool:
        """Return whether no process runs."""
        return not self._running

    def begin(self) -> None:
        """Begin some of the tools, before the first change or before a quiet day."""
        for command in self._tools.begin:
            if self._chance.random() < 0.7 and not self._is_under_way(command):
                self._patience[command] = AGAIN_MAX
                self._begin(command)

    def begin_by_chance(self) -> None:
        """Begin each tool if its chance comes up."""
        for command in self._tools.begin:
            if not self._faults.strikes(BEGINS[command]):
                continue
            if command == "backfill" and self._is_under_way(command):
                continue
            self._patience[command] = AGAIN_MAX
            self._begin(command)
            if command == "redrive" and self._faults.strikes(Fault.TWO_REDRIVES):
                self._begin(command)

    def _is_under_way(self, command: Run) -> bool:
        """Return whether it runs or will begin again: two backfills must not share state."""
        return command in self._again or command in self._running.values()

    # --- a process -----------------------------------------------------------------------------

    def _begin(self, command: Run) -> asyncio.Task[Document | None]:
        self._again.discard(command)
        self._begun[command] += 1
        name = f"{command} {self._begun[command]}"
        process = ToolProcess(
            name,
            self._scenario,
            self._faults,
            self._loop,
            self._function,
            self._object_moved,
            since=self._oracle.now,
            held_read=self._held_read(command),
        )
        task = process.start(self._live(command, process))
        self._running[task] = command
        # A run with a held read is not killed before that read is stale.
        if not process.held_read and self._faults.strikes(Fault.TOOL_KILLED):
            after_s = self._chance.uniform(0, KILLED_READS * self._tools.read_s)
            self._loop.call_later(after_s, process.kill)
        task.add_done_callback(self._task_done)
        return task

    def _held_read(self, command: Run) -> int:
        """Draw which read of a run is held until the quiet day is over; 0: none."""
        is_ahead = self._scenario.quiet_day and not self._aws.is_stale.is_set()
        if is_ahead and self._faults.strikes(Fault.ANSWER_HELD):
            return self._chance.randint(1, READS[command])
        return 0

    async def _live(self, command: Run, process: ToolProcess) -> Document | None:
        """Run a tool and return the last document that it printed; None if it ended early."""
        self._say("%s begins", process.name)
        documents: list[Document] = [{}]

        def tell(line: str) -> None:
            document = orjson.loads(line)
            document.pop("seconds", None)  # real ones
            documents.append(document)
            self._say("  %s: %s", process.name, document)

        try:
            await self._commands[command](process, ToolOutput(tell))
        except asyncio.CancelledError:
            self._say("%s is killed", process.name)
        except AsyncsyncError as exc:
            self._say("%s gives up: %s", process.name, exc)
        except Exception as exc:
            raise _violation(process.name, exc) from exc
        else:
            self._note(command, documents[-1])
            self._say("%s has ended", process.name)
            return documents[-1]
        self._note(command, documents[-1])
        if not self._faults.is_calm and self._patience[command]:
            self._patience[command] -= 1
            self._again.add(command)
            after_s = self._chance.uniform(0, AGAIN_READS * self._tools.read_s)
            self._loop.call_later(after_s, self._begin_again, command)
        return None

    def _begin_again(self, command: Run) -> None:
        if command in self._again and not self._faults.is_calm:
            self._begin(command)

    def _task_done(self, task: asyncio.Task[Document | None]) -> None:
        self._running.pop(task)
        if not task.cancelled() and task.exception() is not None:
            self._loop.call_exception_handler(
                {"message": "a tool failed", "exception": task.exception()}
            )

    def _note(self, command: Run, document: Document) -> None:
        count = self._faults.count
        if command == "backfill":
            count(Fault.BACKFILL_FILLED, document.get("filled", 0))
            count(Fault.BACKFILL_REPAIRED, document.get("repaired", 0))
            if document.get("how") == "done" and not document["left"]:
                self._backfilled_since = self._scan_since
        elif command == "audit":
            count(Fault.AUDIT_REPAIRED, document.get("repaired", 0))
            count(
                Fault.ORPHAN_REMOVED, min(document.get("orphans", 0), document.get("repaired", 0))
            )

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

    def add_object(self, discarded: OnFailure, records: Sequence[tuple[int, Version]]) -> None:
        """Put an on-failure object into the bucket, with its payload as a string or as JSON."""
        name = f"{FAILED}/{len(self._discarded):04}.json"
        self._discarded[name] = records
        content: dict[str, Any] = {**discarded}
        if self._chance.random() < 0.5:
            content["payload"] = orjson.loads(discarded["payload"])
        self._aws.objects[name] = orjson.dumps(content)

    def _object_moved(self, process: ToolProcess, name: str) -> None:
        self._say("  %s: %s is done", process.name, name)
        self._faults.count(Fault.OBJECT_REDRIVEN)
        self._oracle.redriven(self._discarded[name], process.since)

    # --- the end -------------------------------------------------------------------------------

    async def finish(self) -> None:
        """Run each tool, without faults, until its work is done.

        Raises Violation where a tool leaves work that it could have done.
        """
        is_recovered = self._oracle.is_damaged and self._tools.audit_recovers
        if "backfill" in self._tools.begin:
            for _ in range(CALM_RUNS_MAX):
                if not self._is_backfilled:
                    await self._complete("backfill")
            if not self._is_backfilled:
                raise Violation("G3: a backfill leaves keys without a fault")
        if "redrive" in self._tools.begin:
            await self._complete("redrive")
            self._check_objects()
        if is_recovered:
            await self._complete("audit")
            self._faults.count(Fault.AUDIT_RECOVERED)
        self._oracle.is_backfilled = self._is_backfilled

    @property
    def _is_backfilled(self) -> bool:
        """Return whether a backfill is done that began after the last damage."""
        return self._backfilled_since >= self._oracle.last_damage

    async def _complete(self, command: Run) -> Document:
        document = await self._begin(command)
        if document is None:
            raise Violation(f"G3: {command} gave up without a fault")
        return document

    def _check_objects(self) -> None:
        """Check that each object a redrive leaves has an item that cannot be encoded."""
        for name in self._aws.objects:
            records = self._discarded.get(name, ())
            if records and not any(self._oracle.is_poison(item) for item, _ in records):
                raise Violation(f"G3: {name} is left, although each of its keys can be redriven")

    async def check_audit(self) -> None:
        """Run an audit of a copy in which nothing differs.

        Raises Violation if the audit reports a difference.
        """
        document = await self._complete("last audit")
        if document["missing"] or document["stale"] or document["orphans"]:
            raise Violation(f"an audit reports differences where there are none: {document}")
        self._faults.count(Fault.AUDIT_FOUND_NOTHING)


def _violation(name: str, exc: Exception) -> Violation:
    """Return the violation that an unexpected exception of a tool is."""
    while isinstance(exc, ExceptionGroup):
        exc = exc.exceptions[0]
    return exc if isinstance(exc, Violation) else Violation(f"{name} raised {exc!r}")
