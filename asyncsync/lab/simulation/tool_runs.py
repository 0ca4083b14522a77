"""Backfill, audit and redrive beside the mappings: the tools' own code, each run a process.

A process is killed between two steps or while its bytes are under way, meets the network's
faults as the handler does, and is started again as an operator would. Whatever ends it, what
it has sent may still arrive.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import orjson

from asyncsync.config import Server
from asyncsync.errors import AsyncsyncError
from asyncsync.lab.simulation.aws import BUCKET, Aws, Caller
from asyncsync.lab.simulation.faults import Weather
from asyncsync.lab.simulation.network import streams
from asyncsync.lab.simulation.oracle import Oracle, Version, Violation
from asyncsync.lab.simulation.sandbox import Function
from asyncsync.lab.simulation.scenario import AUDIT, BACKFILL, REDRIVE, Scenario
from asyncsync.lab.simulation.table import TABLE
from asyncsync.lab.simulation.virtual_time import FIRST_WALL_S, VirtualLoop
from asyncsync.mapping.on_failure import OnFailure
from asyncsync.mirror import Mirror
from asyncsync.tools.audit.command import AuditOptions, audit_with
from asyncsync.tools.backfill.command import BackfillOptions, backfill_with
from asyncsync.tools.redrive.command import RedriveOptions, redrive_with
from asyncsync.transport_asyncio import Streams

STATE = f"s3://{BUCKET}/state"
FAILED = "failed"  # where the on-failure objects lie

# A process is killed, or what was killed is begun again, within so many of the table's answers.
KILLED_READS = 30
AGAIN_READS = 60
AGAIN_MAX = 4  # and no more often: a quiet day would be full of it

# A run makes many requests, one after another, and each one lost costs it a timeout.
EXPOSURE = 0.4

# About as many reads of a few items as each makes, so that each of them may be the one that waits.
READS = {BACKFILL: 3, AUDIT: 13, REDRIVE: 2}

# Runs that a calm system may need until nothing is left: one, and one more for what fell due
# while the first was under way.
CALM_RUNS_MAX = 3

LOOK = "an audit looks"  # and repairs nothing

Said: TypeAlias = dict[str, Any]
Tell: TypeAlias = Callable[[str], None]


class Process:
    """One run of a tool: a process with its own connections and its own clocks."""

    def __init__(
        self,
        name: str,
        scenario: Scenario,
        weather: Weather,
        loop: VirtualLoop,
        function: Function,
    ) -> None:
        self.name = name
        self.allowed: Mapping[bytes, object] | None = None  # any item's names
        self.kill_when_sent = False
        self.kill: Callable[[], object] = lambda: None
        self.exposure = EXPOSURE
        self.sent = 0
        self.skew_s = self.slept_s = 0.0
        self.reads = 0
        self.waits_at = 0  # which of its reads waits until it is old; none
        self.since = 0  # the oracle's moment at which it began
        self._weather = weather
        self._slow_s = scenario.tools.slow_s
        self._function = function
        self.mirror = Mirror(
            scenario.config,
            transform=function.transform if scenario.transforms else None,
            connect=self._connect,
            clock=lambda: loop.time() + self.slept_s,
            wall_clock=lambda: FIRST_WALL_S + loop.time() + self.skew_s,
        )

    async def _connect(self, _: Server) -> Streams:
        return streams(await self._function.connect(self))

    def check_send(self) -> None:
        """Give the process its chance to die over what it sends."""
        self.kill_when_sent = self._weather.strikes("a tool is killed while it writes")

    def slow_s(self) -> float:
        """Return how much later than usual a request arrives, from wherever the tool runs."""
        is_slow = self._weather.strikes("a tool's request is slow")
        return self._weather.chance.uniform(0, self._slow_s) if is_slow else 0.0


class Actors:
    """Whoever runs the tools: begins them, begins them again, and in the end sees them done."""

    def __init__(
        self,
        scenario: Scenario,
        weather: Weather,
        loop: VirtualLoop,
        function: Function,
        aws: Aws,
        oracle: Oracle,
        say: Callable[..., None],
    ) -> None:
        self._scenario = scenario
        self._tools = scenario.tools
        self._weather = weather
        self._chance = weather.chance
        self._loop = loop
        self._function = function
        self._aws = aws
        self._oracle = oracle
        self._say = say
        self._discarded: dict[str, Sequence[tuple[int, Version]]] = {}
        self._scan_since = self._brought_since = -2  # the oracle's moments; never
        self._begun: Counter[str] = Counter()
        self._running: dict[asyncio.Task[Said | None], str] = {}
        self._again: set[str] = set()  # what was cut short and is to be begun again
        self._patience: Counter[str] = Counter()  # how often it still will be
        self._commands: Mapping[str, Callable[[Process, Tell], Awaitable[bool]]] = {
            BACKFILL: self._backfill,
            AUDIT: partial(self._audit, repair=True),
            LOOK: partial(self._audit, repair=False),
            REDRIVE: self._redrive,
        }
        aws.moved = self._moved

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
            if not self._weather.strikes(what) or (what == BACKFILL and self._is_under_way(what)):
                continue
            self._patience[what] = AGAIN_MAX
            self._begin(what)
            if what == REDRIVE and self._weather.strikes("two redrives run at once"):
                self._begin(what)

    def _is_under_way(self, what: str) -> bool:
        """Whether it runs or will be begun again: two backfills share no state."""
        return what in self._again or what in self._running.values()

    # --- a process -----------------------------------------------------------------------------

    def _begin(self, what: str) -> asyncio.Task[Said | None]:
        self._again.discard(what)
        self._begun[what] += 1
        name = f"{what.split()[1]} {self._begun[what]}"
        process = Process(name, self._scenario, self._weather, self._loop, self._function)
        process.since = self._oracle.now
        is_to_come = self._scenario.quiet_day and not self._aws.is_old.is_set()
        if is_to_come and self._weather.strikes("an answer of the table waits until it is old"):
            process.waits_at = self._chance.randint(1, READS[what])
        task = self._loop.create_task(self._live(what, process))
        self._running[task] = what
        process.kill = task.cancel
        # One that waits is left alone until it is old.
        if not process.waits_at and self._weather.strikes("a tool is killed"):
            after_s = self._chance.uniform(0, KILLED_READS * self._tools.read_s)
            self._loop.call_later(after_s, task.cancel)
        task.add_done_callback(self._ended)
        return task

    async def _live(self, what: str, process: Process) -> Said | None:
        """Run a tool to its end and return what it said last; None where it was cut short."""
        self._say("%s begins", process.name)
        said: list[Said] = [{}]

        def tell(line: str) -> None:
            said.append(orjson.loads(line))
            said[-1].pop("seconds", None)  # of this machine
            self._say("  %s: %s", process.name, said[-1])

        try:
            await self._commands[what](process, tell)
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
        if not self._weather.is_calm and self._patience[what]:
            self._patience[what] -= 1
            self._again.add(what)
            after_s = self._chance.uniform(0, AGAIN_READS * self._tools.read_s)
            self._loop.call_later(after_s, self._begin_again, what)
        return None

    def _begin_again(self, what: str) -> None:
        if what in self._again and not self._weather.is_calm:
            self._begin(what)

    def _ended(self, task: asyncio.Task[Said | None]) -> None:
        self._running.pop(task)
        if not task.cancelled() and task.exception() is not None:
            self._loop.call_exception_handler(
                {"message": "a tool failed", "exception": task.exception()}
            )

    def _note(self, what: str, said: Said) -> None:
        count = self._weather.count
        if what == BACKFILL:
            count("a backfill fills a key", said.get("filled", 0))
            count("a backfill repairs a fence without a value", said.get("repaired", 0))
            if said.get("how") == "done" and not said["left"]:
                self._brought_since = self._scan_since
        elif what == AUDIT:
            count("an audit repairs a key", said.get("repaired", 0))
            count(
                "an audit removes an orphan", min(said.get("orphans", 0), said.get("repaired", 0))
            )

    # --- the commands --------------------------------------------------------------------------

    async def _backfill(self, process: Process, tell: Tell) -> bool:
        if any(name.startswith("state/segment") for name in self._aws.objects):
            self._weather.count("a backfill goes on from its cursor")
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
        return await backfill_with(self._aws.clients(process), options, process.mirror, tell)

    async def _audit(self, process: Process, tell: Tell, *, repair: bool) -> bool:
        options = AuditOptions(
            table=TABLE,
            recheck_after_s=self._tools.settle_s,
            orphans=True,
            repair=repair,
            as_json=True,
            chance=self._chance,
        )
        return await audit_with(self._aws.clients(process), options, process.mirror, tell)

    async def _redrive(self, process: Process, tell: Tell) -> bool:
        options = RedriveOptions(
            table=TABLE, places=[f"s3://{BUCKET}/{FAILED}/"], as_json=True, chance=self._chance
        )
        return await redrive_with(self._aws.clients(process), options, process.mirror, tell)

    # --- on-failure objects --------------------------------------------------------------------

    def give_up(self, given_up: OnFailure, records: Sequence[tuple[int, Version]]) -> None:
        """Put what a mapping gives up on into the bucket, its payload a text or an object."""
        name = f"{FAILED}/{len(self._discarded):04}.json"
        self._discarded[name] = records
        made: dict[str, Any] = {**given_up}
        if self._chance.random() < 0.5:
            made["payload"] = orjson.loads(given_up["payload"])
        self._aws.objects[name] = orjson.dumps(made)

    def _moved(self, caller: Caller, name: str) -> None:
        assert isinstance(caller, Process)
        self._say("  %s: %s is done", caller.name, name)
        self._weather.count("an object is redriven")
        self._oracle.redriven(self._discarded[name], caller.since)

    # --- the end -------------------------------------------------------------------------------

    async def finish(self) -> None:
        """Run each tool until nothing is left; there is no fault any more.

        Raises Violation where a tool leaves what it could have done.
        """
        is_mended = self._oracle.is_damaged and self._tools.audit_mends
        if BACKFILL in self._tools.begin:
            for _ in range(CALM_RUNS_MAX):
                if not self._is_brought:
                    await self._whole(BACKFILL)
            if not self._is_brought:
                raise Violation("G3: a backfill leaves keys, and there is no fault")
        if REDRIVE in self._tools.begin:
            await self._whole(REDRIVE)
            self._check_objects()
        if is_mended:
            await self._whole(AUDIT)
            self._weather.count("an audit mends what was destroyed")
        self._oracle.brought = self._is_brought

    @property
    def _is_brought(self) -> bool:
        """Whether a backfill is done that began after the last damage."""
        return self._brought_since >= self._oracle.last_damage

    async def _whole(self, what: str) -> Said:
        said = await self._begin(what)
        if said is None:
            raise Violation(f"G3: {what.split()[1]} gave up, and there is no fault")
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
        said = await self._whole(LOOK)
        if said["missing"] or said["stale"] or said["orphans"]:
            raise Violation(f"an audit finds what is not there: {said}")
        self._weather.count("an audit sees that nothing differs")


def _violation(name: str, exc: Exception) -> Violation:
    """Turn what a tool raised, and should not have, into the violation that it is."""
    while isinstance(exc, ExceptionGroup):
        exc = exc.exceptions[0]
    return exc if isinstance(exc, Violation) else Violation(f"{name} raised {exc!r}")
