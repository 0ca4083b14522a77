"""Fills and repairs beside a stream, interleaved in any order by a state machine.

The table changes at any moment. Records arrive in order for each key, and some again, late. A
fill writes an item that was read some steps before. A repair may wait between its snapshot, its
read and its write. After every step no fence has moved back, and no value is older than the
record its fence names. At rest, after a whole backfill, the copy equals the table. The shipped
scripts run on fakeredis; the stores' own tests hold it equal to the real servers.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

import orjson
import pytest
import redis
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from asyncsync import Config, Mirror
from asyncsync.copy import repair
from asyncsync.copy.entries import entries_of, version_in
from asyncsync.copy.fill import SCRIPT, fill
from asyncsync.copy.repair import Repaired, Repairer, Target
from asyncsync.fence import NO_VERSION
from asyncsync.lab.servers import ServerProcess
from asyncsync.model import NO_VALUE, Key
from tests.support.events import FIRST, TABLE, event, record

NUMBERS = (1, 2)
number = st.sampled_from(NUMBERS)


def key(of: int) -> Key:
    return (("Number", "N", str(of)),)


class OngoingRepair:
    """One repair under way; it waits between its read and its write."""

    def __init__(self, machine: Beside, of: int) -> None:
        self.machine = machine
        self.of = of
        self.reads = asyncio.Event()
        self.is_resumed = asyncio.Event()
        self.image: bytes | None = None
        self.repairer = Repairer(machine.mirror, TABLE, self.read)
        self.task = machine.loop.create_task(self.repairer.repair([Target(key(of))]))

    async def read(self, keys: Sequence[Key]) -> list[bytes | None]:
        """Read the item now, and answer once the repair is resumed."""
        self.image = self.machine.image(self.of)
        self.reads.set()
        await self.is_resumed.wait()
        self.is_resumed.clear()
        self.reads.clear()
        return [self.image]

    async def step(self) -> list[Repaired] | None:
        """Run it until it has read again or is done."""
        waiting = asyncio.ensure_future(self.reads.wait())
        await asyncio.wait({self.task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        return self.task.result() if self.task.done() else None


class Beside(RuleBasedStateMachine):
    """A table of two items, its stream, its copy."""

    url: str
    client: redis.Redis

    def __init__(self) -> None:
        super().__init__()
        self.client.flushall()
        self.loop = asyncio.new_event_loop()
        self.mirror = Mirror(Config(redis_url=self.url), emit=lambda _: None)
        self.fills = self.mirror.new_store(SCRIPT)
        self.table: dict[int, int | None] = dict.fromkeys(NUMBERS, 0)  # item versions
        self.versions = dict.fromkeys(NUMBERS, 0)  # removals counted
        self.changes = 0
        self.upcoming: dict[int, list[Any]] = {of: [] for of in NUMBERS}
        self.delivered: dict[int, list[Any]] = {of: [] for of in NUMBERS}
        self.after: dict[tuple[int, int], int] = {}  # the item's version, by key and record
        self.scanned: list[tuple[int, bytes]] = []  # read and not filled yet
        self.repairs: list[OngoingRepair] = []
        self.highest: dict[int, bytes] = {}

    def image(self, of: int) -> bytes | None:
        version = self.table[of]
        if version is None:
            return None
        return orjson.dumps({"Number": {"N": str(of)}, "Version": {"N": str(version)}})

    def wait(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    # --- the world ----------------------------------------------------------------------------

    @rule(of=number, removed=st.booleans())
    def change(self, of: int, removed: bool) -> None:
        self.changes += 1
        self.versions[of] += 1
        self.table[of] = None if removed else self.versions[of]
        at = FIRST + self.changes
        self.after[of, at] = self.versions[of]
        image = self.image(of)
        self.upcoming[of].append(
            record(of, at, removed=removed, image=None if image is None else orjson.loads(image))
        )

    @rule(of=number)
    def deliver(self, of: int) -> None:
        if self.upcoming[of]:
            each = self.upcoming[of].pop(0)
            self.delivered[of].append(each)
            self.wait(self.mirror.handle(event([each]), None))

    @rule(of=number, at=st.integers(0, 9))
    def deliver_again(self, of: int, at: int) -> None:
        if at < len(self.delivered[of]):
            self.wait(self.mirror.handle(event([self.delivered[of][at]]), None))

    # --- a backfill ---------------------------------------------------------------------------

    @rule(of=number)
    def scan(self, of: int) -> None:
        image = self.image(of)
        if image is not None and len(self.scanned) < 3:
            self.scanned.append((of, image))

    @precondition(lambda self: self.scanned)
    @rule(at=st.integers(0, 2))
    def fill_what_was_read(self, at: int) -> None:
        of, image = self.scanned.pop(min(at, len(self.scanned) - 1))
        self._fill(of, image)

    def _fill(self, of: int, image: bytes) -> None:
        (one,) = entries_of([(key(of), image)], TABLE, self.mirror.rules, 0)
        assert one.entry is not None
        work = fill(self.fills, [one.entry], self.mirror.config, float("inf"))
        (outcome,) = self.wait(work)
        if outcome is NO_VALUE:
            self._begin(of)

    # --- repairs ------------------------------------------------------------------------------

    @rule(of=number)
    def begin_repair(self, of: int) -> None:
        if len(self.repairs) < 3:
            self._begin(of)

    def _begin(self, of: int) -> None:
        each = OngoingRepair(self, of)
        self.repairs.append(each)
        self._step(each)

    @precondition(lambda self: self.repairs)
    @rule(at=st.integers(0, 2))
    def resume_repair(self, at: int) -> None:
        each = self.repairs[min(at, len(self.repairs) - 1)]
        each.is_resumed.set()
        each.reads.clear()
        self._step(each)

    def _step(self, each: OngoingRepair) -> None:
        answers = self.wait(each.step())
        if answers is not None:
            self.repairs.remove(each)
            each.repairer.close()
            assert answers[0].kind in ("repaired", "changed")

    # --- what must hold -----------------------------------------------------------------------

    @invariant()
    def nothing_moves_back(self) -> None:
        for of in NUMBERS:
            both: Any = self.client.mget(f"Players:{of}", f"{{Players:{of}}}!f")
            value, fence = both
            parts = version_in(fence)
            assert parts is not None
            version, rank = parts
            if fence is None:
                assert of not in self.highest, "a fence is gone"
                continue
            assert version + rank >= self.highest.get(of, b""), "the fence moved back"
            self.highest[of] = version + rank
            if value is not None and version != NO_VERSION:
                named = self.after[of, int(version[16:])]
                assert orjson.loads(value)["Version"] >= named, "the value is older than its fence"

    def teardown(self) -> None:
        try:
            self._rest()
            for of in NUMBERS:  # a whole backfill
                image = self.image(of)
                if image is not None:
                    self._fill(of, image)
            self._rest()
            for of in NUMBERS:
                value: Any = self.client.get(f"Players:{of}")
                version = None if value is None else orjson.loads(value)["Version"]
                assert version == self.table[of], "at rest the copy is the table"
        finally:
            self.fills.close()
            self.mirror.close()
            for each in self.repairs:
                each.task.cancel()
                each.repairer.close()
            self.wait(asyncio.sleep(0))
            self.loop.close()

    def _rest(self) -> None:
        for of in NUMBERS:
            while self.upcoming[of]:
                self.deliver(of)
        while self.repairs:
            self.resume_repair(0)
        while self.scanned:
            self.fill_what_was_read(0)
        while self.repairs:
            self.resume_repair(0)
        self.nothing_moves_back()


def play(server: ServerProcess, **given: Any) -> None:
    """Run the machine until its first failure."""
    with redis.Redis(port=server.port) as looker:

        class Machine(Beside):
            url = server.url
            client = looker

        chosen = settings(
            max_examples=60,
            stateful_step_count=30,
            deadline=None,
            report_multiple_bugs=False,
            **given,
        )
        run_state_machine_as_test(Machine, settings=chosen)


def test_beside_a_stream_nothing_moves_back_and_the_copy_becomes_the_table(
    fake_server: ServerProcess,
) -> None:
    play(fake_server)


@pytest.mark.parametrize(
    "taken_out", [b"(fence_now or '') ~= fence_seen or", b"return {0}"], ids=str
)
def test_the_machine_sees_a_repair_that_ignores_a_change(
    fake_server: ServerProcess, monkeypatch: pytest.MonkeyPatch, taken_out: bytes
) -> None:
    """Without the script's condition on the fence, then without its whole condition."""
    assert taken_out in repair.SCRIPT
    monkeypatch.setattr(repair, "SCRIPT", repair.SCRIPT.replace(taken_out, b""))

    with pytest.raises(AssertionError, match=r"the copy is the table|moved back|older than"):
        play(fake_server, phases=[Phase.generate], database=None, derandomize=True)


def test_the_machine_sees_a_fill_that_ignores_a_fence(
    fake_server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    blind = SCRIPT.replace(b"if fence_seen and", b"if false and")
    assert blind != SCRIPT
    monkeypatch.setattr(sys.modules[__name__], "SCRIPT", blind)

    with pytest.raises(AssertionError, match=r"the copy is the table|moved back|older than"):
        play(fake_server, phases=[Phase.generate], database=None, derandomize=True)
