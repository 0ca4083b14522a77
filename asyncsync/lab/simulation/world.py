"""One simulated run: a table that changes, mappings, Lambda, tools, a server, and an oracle.

In the first phase there are changes and faults, and the oracle checks every step. In the second
phase the faults stop, and the system must come to rest with the copy equal to the table. The
handler and the tools are real; clock, chance and connections are simulated. One seed always
gives the same run, step for step.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import orjson

from asyncsync.lab.simulation.aws import SimulatedAws
from asyncsync.lab.simulation.faults import DESTRUCTIVE, Fault, Faults
from asyncsync.lab.simulation.items import Violation, item_image, name_of
from asyncsync.lab.simulation.model_server import ModelServer
from asyncsync.lab.simulation.model_values import KINDS, STRING, StoredValue
from asyncsync.lab.simulation.oracle import Oracle
from asyncsync.lab.simulation.poller import MappingPoller, batch_text, item_of
from asyncsync.lab.simulation.readers import Readers
from asyncsync.lab.simulation.sandbox import SimulatedFunction
from asyncsync.lab.simulation.scenario import draw
from asyncsync.lab.simulation.server_faults import ServerFaults
from asyncsync.lab.simulation.table import Poison, SimulatedStream, SimulatedTable
from asyncsync.lab.simulation.tool_runs import ToolRuns
from asyncsync.lab.simulation.virtual_time import Deadlock, VirtualLoop
from asyncsync.mapping.answers import Answer, InvocationThrottled
from asyncsync.mapping.event_source_mapping import Batch, Decision, MappingSettings
from asyncsync.model import Value

IDLE_SHARE = 0.05  # of the changes go to idle items
OLD_FORMAT_SHARE = 0.3  # of the values from before the stream are strings, as the copy's were then
MOMENTS = 12  # during the changes, at which the system's own faults may strike
QUIET_DAY_S = 93_600.0  # 26 h: longer than a fence's life and than a stream keeps a record
TRIMMED_AFTER_MS = 86_400_000

# Without faults everything comes to rest; what takes longer than this never will.
CALM_S_MAX = 3 * 86_400.0

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class RunResult:
    """The result of one run."""

    seed: int
    scenario: str
    violation: str  # empty if every promise was kept
    changes: int
    invocations: int
    checks: int  # of an item by the oracle
    fired: Mapping[Fault, int]


def run(
    seed: int, tell: Tell | None = None, make_server: Callable[[], ModelServer] = ModelServer
) -> RunResult:
    """Run one seed to its end; call `tell` with each line of its story."""
    violation = ""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, VirtualLoop)
        world = World(seed, loop, tell, make_server())
        try:
            runner.run(world.live())
        except (Violation, Deadlock, AssertionError) as exc:
            # A bug in the simulator itself also gets its seed reported.
            violation = str(exc) if isinstance(exc, Violation) else f"the simulator: {exc!r}"
            world.say("VIOLATION  %s", violation)
        finally:
            world.server_faults.network.close()
    return RunResult(
        seed,
        str(world.scenario),
        violation,
        sum(len(changes) for changes in world.table.history.values()),
        world.function.invocations,
        world.oracle.checks,
        world.faults.fired,
    )


class World:
    """All parts of one run, and the callbacks between them."""

    def __init__(
        self, seed: int, loop: VirtualLoop, tell: Tell | None, server: ModelServer
    ) -> None:
        # Each of these lines draws from the one chance, or uses what an earlier line made. Their
        # order is part of every seed: moving one gives each seed another run.
        self.loop = loop
        self.chance = chance = Random(seed)
        self.faults = faults = Faults(chance)
        self.scenario = scenario = draw(chance, faults)
        numbers = list(range(1, scenario.items + scenario.idle + 1))
        self.table = table = SimulatedTable(numbers, loop.wall_ms() - 60_000, chance)
        self._tell = tell
        self._server = server
        if scenario.before:
            self._preload(0.7 if scenario.config.mode != "mirror" else 0.1)
        before = table.history if scenario.before else ()
        self.oracle = oracle = Oracle(
            table,
            scenario.config,
            self._read,
            before,
            loop.wall_ms,
            expiry_ms=lambda name: server.keys[name].expires_at_ms,
            has_readers=scenario.readers.processes > 0,
        )
        self.server_faults = ServerFaults(faults, loop, self.say, server, oracle)
        network = self.server_faults.network
        self.function = SimulatedFunction(scenario, faults, loop, network, self.say)
        self.aws = SimulatedAws(table, scenario, faults, loop, self.say)
        self.tool_runs = ToolRuns(
            scenario, faults, loop, self.function, self.aws, oracle, self.say
        )
        self.readers = Readers(
            scenario,
            faults,
            loop,
            self.function,
            self.aws,
            oracle,
            self.server_faults.evict_any,
            self.say,
        )
        self.pollers: list[MappingPoller] = []
        self._failed: asyncio.Future[None] = loop.create_future()
        loop.set_exception_handler(self._callback_failed)

    def _read(self, name: bytes) -> Value | None:
        """Read a key as any client would."""
        return self._server.get(name, self.loop.wall_ms())

    def say(self, text: str, *values: Any) -> None:
        """Add a line to the story, if anybody wants it."""
        if self._tell is not None:
            self._tell(f"{self.loop.time():12.4f} s  {text % values}")

    # --- the story -----------------------------------------------------------------------------

    async def live(self) -> None:
        """Change the table under faults, then let everything come to rest, and compare.

        Raises Violation.
        """
        story = self.loop.create_task(self._story())
        done, _ = await asyncio.wait({story, self._failed}, return_when=asyncio.FIRST_COMPLETED)
        for future in done:
            future.result()

    async def _story(self) -> None:
        self.start_poller(self.table.stream)
        self.tool_runs.begin()
        await self.readers.begin()
        moments = sorted(self.chance.choices(range(self.scenario.changes), k=MOMENTS))
        quiet_at = self.scenario.changes // 2 if self.scenario.quiet_day else -1
        for at in range(self.scenario.changes):
            if at == quiet_at:
                await self._quiet_day()
            for _ in range(moments.count(at)):
                self._strike()
            self._change()
            self.readers.read_by_chance([*self.table.history])
            await asyncio.sleep(self.chance.expovariate(1 / self.scenario.gap_s))
        self.say("CALM  no faults from here on")
        self.faults.is_calm = True
        self.server_faults.heal()
        self.function.is_fixed = True
        self.function.freeze()
        self.aws.is_stale.set()
        await self._come_to_rest()
        if self.oracle.is_damaged and not self.scenario.tools.audit_recovers:
            await self._replay()
        self._collect_discarded()
        await self.tool_runs.finish()
        self._check_rest()
        await self.readers.finish([*self.table.history])
        self._check_rest()
        if "audit" in self.scenario.tools.begin and not self.oracle.differences(strict=True):
            await self.tool_runs.check_audit()

    def _check_rest(self) -> None:
        differences = self.oracle.differences()
        if differences:
            raise Violation(f"G3: at rest, {'; '.join(differences)}")

    async def _replay(self) -> None:
        """Deliver every stream again, as an operator does after data was destroyed."""
        self.say("data was destroyed: every stream is delivered again")
        settings = replace(
            self.scenario.mapping, batch_size=100, record_age_max_s=-1, retry_attempts_max=5
        )
        for stream in self.table.streams:
            self.start_poller(stream, settings)
        await self._come_to_rest()

    async def _come_to_rest(self) -> None:
        gives_up_s = self.loop.time() + CALM_S_MAX
        while not (
            self.server_faults.network.under_way == 0
            and self.tool_runs.is_idle
            and self.readers.is_idle
            and all(poller.is_idle for poller in self.pollers)
        ):
            self._collect_discarded()
            if self.loop.time() > gives_up_s:
                raise Violation(f"G3: not at rest after {CALM_S_MAX:.0f} s: {self._why()}")
            for poller in self.pollers:
                poller.poll_soon()
            await asyncio.sleep(1.0 if self.loop.time() < gives_up_s - CALM_S_MAX + 60 else 60.0)

    def _why(self) -> str:
        waits = [poller.why for poller in self.pollers if not poller.is_idle]
        waits = waits or ["bytes are under way"]
        return f"{'; '.join(waits)}; the handler's last line: {self.function.last_line or 'none'}"

    # --- changes -------------------------------------------------------------------------------

    def _change(self) -> None:
        number = self.chance.randint(1, self.scenario.items)
        if self.scenario.idle and self.chance.random() < IDLE_SHARE:
            number = self.scenario.items + self.chance.randint(1, self.scenario.idle)
        last = self.table.current(number)
        was_there = last.item is not None if last is not None else self.scenario.before
        item: dict[str, Any] | None = None
        poison: Poison = ""
        is_idle = number > self.scenario.items
        if not was_there or self.chance.random() > (0.6 if is_idle else 0.25):
            count = 1 if last is None else last.count + 1
            poison, extra = self._extra()
            item = item_image(number, count, extra)
        self.table.change(number, item, poison, self.loop.wall_ms())
        change = self.table.current(number)
        assert change is not None
        self.say("change %d of item %d%s", change.count, number, change.text)
        for poller in self.pollers:
            poller.poll_soon()

    def _extra(self) -> tuple[Poison, dict[str, Any]]:
        if self.faults.strikes(Fault.NEVER_ENCODED):
            # As dynamodb-json an image is not parsed; there its record comes without one.
            is_read = self.scenario.config.value != "dynamodb-json"
            return "never", {"Odd": {"Q": "no such type"}} if is_read else {}
        if self.faults.strikes(Fault.NOT_YET_ENCODED):
            return "until fixed", {"Trap": {"S": "trapped"}}
        return "", self.chance.choice(
            (
                {},
                {"Name": {"S": 'Zoë "東京" %:{}!'}},
                {"Points": {"N": "12345678901234567890.123456789"}, "On": {"BOOL": True}},
                {"Tags": {"SS": ["b", "a"]}, "Deep": {"M": {"L": {"L": [{"NULL": True}]}}}},
            )
        )

    def _preload(self, share: float) -> None:
        """Put values into Redis that readers, or an earlier copy, wrote before the stream."""
        for item in self.table.history:
            if self.chance.random() >= share:
                continue
            value_format = self.scenario.config.value
            kind = KINDS.get(value_format, STRING)
            value: Value = b'{"Number":%d,"Count":0}' % item
            if value_format == "dynamodb-json":
                value = orjson.dumps(item_image(item, 0, {}))
            elif value_format in KINDS and self.chance.random() < OLD_FORMAT_SHARE:
                kind = STRING
            elif value_format == "hash":
                value = (b"Count", b"0", b"Number", b"%d" % item)
            self._server.keys[name_of(item)] = StoredValue(value, kind=kind)

    async def _quiet_day(self) -> None:
        """Let a day pass without a change: fences expire and the stream is trimmed."""
        self.tool_runs.begin()
        await self._wait_for_a_while()
        if self.oracle.is_damaged or not all(poller.is_idle for poller in self.pollers):
            self.aws.is_stale.set()
            return  # a day would make the damage permanent
        self.say("a quiet day")
        await asyncio.sleep(QUIET_DAY_S)
        self.aws.is_stale.set()
        self.faults.count(Fault.FENCES_EXPIRE, self.oracle.expire())
        for fault in DESTRUCTIVE:  # a replay cannot bring back trimmed records
            self.faults.odds.pop(fault, None)

    async def _wait_for_a_while(self) -> None:
        for _ in range(60):
            is_idle = all(poller.is_idle for poller in self.pollers)
            if is_idle and not self.server_faults.network.under_way:
                return
            await asyncio.sleep(2.0)

    # --- mappings ------------------------------------------------------------------------------

    def start_poller(
        self, stream: SimulatedStream, settings: MappingSettings | None = None
    ) -> None:
        """Create a mapping that begins at the oldest record."""
        name = f"mapping {len(self.pollers) + 1}"
        settings = settings or self.scenario.mapping
        poller = MappingPoller(name, stream, settings, self.loop, self._invoke, self._answered)
        self.pollers.append(poller)
        self.say("%s begins on the stream of %d", name, stream.label_ms)
        poller.begin(self.loop.wall_ms() - TRIMMED_AFTER_MS)

    async def _invoke(self, poller: MappingPoller, batch: Batch) -> Answer:
        poller.since[batch.lane, batch.shard_id] = self.oracle.now
        self.say("%s invokes with %s", poller.name, batch_text(batch))
        if self.faults.strikes(Fault.THROTTLED):
            return InvocationThrottled()
        allowed = {name_of(item_of(record)): None for record in batch.records}
        return await self.function.invoke(batch, allowed)

    def _answered(self, poller: MappingPoller, batch: Batch, decision: Decision) -> None:
        self.say(
            "%s: %s, %d acknowledged, next in %d ms",
            poller.name,
            decision.kind,
            len(decision.acknowledged),
            decision.wait_ms,
        )
        since = poller.since[batch.lane, batch.shard_id]
        records = [(item_of(record), poller.version(record)) for record in decision.acknowledged]
        self.oracle.acknowledged(poller.name, records, since)
        if decision.kind == "split":
            self.faults.count(Fault.BATCH_SPLIT)
        if decision.kind == "done" and self.faults.strikes(Fault.REDELIVERED):
            self.loop.call_later(self.chance.uniform(0, 20), self._deliver_again, poller, batch)

    def _deliver_again(self, poller: MappingPoller, batch: Batch) -> None:
        if not poller.is_deleted:
            self.say("%s delivers again: %s", poller.name, batch_text(batch))
            poller.mapping.deliver_again(batch)
            poller.poll()

    def _collect_discarded(self) -> None:
        for poller in self.pollers:
            self._collect_from(poller)

    def _collect_from(self, poller: MappingPoller) -> None:
        """Empty the mapping's on-failure destination into the bucket."""
        for discarded in poller.mapping.discarded:
            condition = discarded["requestContext"]["condition"]
            exhausted = condition == "RetryAttemptsExhausted"
            self.faults.count(Fault.RETRIES_EXHAUSTED if exhausted else Fault.RECORD_TOO_OLD)
            records = orjson.loads(discarded["payload"])["Records"]
            versions = [
                (
                    int(record["dynamodb"]["Keys"]["Number"]["N"]),
                    (poller.stream.label_ms, int(record["dynamodb"]["SequenceNumber"])),
                )
                for record in records
            ]
            self.oracle.discarded(versions)
            self.tool_runs.add_object(discarded, versions)
            self.say("%s discards %d records, %s", poller.name, len(records), condition)
        poller.mapping.discarded.clear()

    # --- faults of the system ------------------------------------------------------------------

    def _strike(self) -> None:
        """Let each fault of the system strike if its chance comes up."""
        strikes = self.faults.strikes
        self.server_faults.strike()
        self._collect_discarded()
        self.tool_runs.begin_by_chance()
        if strikes(Fault.SHARD_SPLITS) and self.table.split():
            self.say("STREAM  a shard splits")
        if strikes(Fault.STREAM_RECREATED):
            self.table.recreate_stream(self.loop.wall_ms())
            self.start_poller(self.table.stream)
        if strikes(Fault.SECOND_MAPPING):
            self.start_poller(self.table.stream)
        if strikes(Fault.MAPPING_RECREATED):
            poller = self.chance.choice([each for each in self.pollers if not each.is_deleted])
            self.say("%s is deleted", poller.name)
            poller.delete()
            self.start_poller(poller.stream)
        if not self.function.is_fixed and self.chance.random() < 0.5:
            self._deploy()

    def _deploy(self) -> None:
        if Fault.NOT_YET_ENCODED in self.faults.odds:
            self.faults.count(Fault.FIX_DEPLOYED)
        self.say("FUNCTION  a deployment fixes what could not be encoded")
        self.function.deploy()

    def _callback_failed(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """End the run with the exception of a callback or a task."""
        error = context.get("exception") or Violation(f"asyncio: {context['message']}")
        if not self._failed.done():
            self._failed.set_exception(error)
