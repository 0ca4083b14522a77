"""Fills and repairs beside a stream, cut at every step, by a machine that plays all of them.

The table changes at any moment; records come in order for each key, some again and late; a fill
is of what a read found some steps ago; a repair waits as long as it likes between its look, its
read and its write. After every step no fence has moved back and no value is older than the
record its fence names; when all has come to rest and a whole backfill has run, the copy equals
the table. It runs the shipped scripts on fakeredis, which the stores' own tests hold equal.
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
from asyncsync.model import STANDS, Key
from tests.support.events import FIRST, TABLE, event, record

NUMBERS = (1, 2)
number = st.sampled_from(NUMBERS)


def key(of: int) -> Key:
    return (("Number", "N", str(of)),)


class Mended:
    """One repair under way: it waits before its read, and again before its write."""

    def __init__(self, machine: Beside, of: int) -> None:
        self.machine = machine
        self.of = of
        self.reads = asyncio.Event()
        self.is_resumed = asyncio.Event()
        self.image: bytes | None = None
        self.repairer = Repairer(machine.mirror, TABLE, self.read)
        self.task = machine.loop.create_task(self.repairer.repair([Target(key(of))]))

    async def read(self, keys: Sequence[Key]) -> list[bytes | None]:
        """Read the item now, answer when it is let go on."""
        self.image = self.machine.image(self.of)
        self.reads.set()
        await self.is_resumed.wait()
        self.is_resumed.clear()
        self.reads.clear()
        return [self.image]

    async def step(self) -> list[Repaired] | None:
        """Let it run until it has read again, or is done."""
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
        self.made = 0
        self.coming: dict[int, list[Any]] = {of: [] for of in NUMBERS}
        self.came: dict[int, list[Any]] = {of: [] for of in NUMBERS}
        self.after: dict[tuple[int, int], int] = {}  # the item's version by key and record
        self.found: list[tuple[int, bytes]] = []  # what scans have read and not filled yet
        self.mending: list[Mended] = []
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
        self.made += 1
        self.versions[of] += 1
        self.table[of] = None if removed else self.versions[of]
        at = FIRST + self.made
        self.after[of, at] = self.versions[of]
        image = self.image(of)
        self.coming[of].append(
            record(of, at, removed=removed, image=None if image is None else orjson.loads(image))
        )

    @rule(of=number)
    def deliver(self, of: int) -> None:
        if self.coming[of]:
            each = self.coming[of].pop(0)
            self.came[of].append(each)
            self.wait(self.mirror.handle(event([each]), None))

    @rule(of=number, at=st.integers(0, 9))
    def deliver_again(self, of: int, at: int) -> None:
        if at < len(self.came[of]):
            self.wait(self.mirror.handle(event([self.came[of][at]]), None))

    # --- a backfill ---------------------------------------------------------------------------

    @rule(of=number)
    def scan(self, of: int) -> None:
        image = self.image(of)
        if image is not None and len(self.found) < 3:
            self.found.append((of, image))

    @precondition(lambda self: self.found)
    @rule(at=st.integers(0, 2))
    def fill_what_was_read(self, at: int) -> None:
        of, image = self.found.pop(min(at, len(self.found) - 1))
        self._fill(of, image)

    def _fill(self, of: int, image: bytes) -> None:
        (made,) = entries_of([(key(of), image)], TABLE, self.mirror.rules, 0)
        assert made.entry is not None
        work = fill(self.fills, [made.entry], self.mirror.config, float("inf"))
        (outcome,) = self.wait(work)
        if outcome is STANDS:
            self._begin(of)

    # --- repairs ------------------------------------------------------------------------------

    @rule(of=number)
    def begin_repair(self, of: int) -> None:
        if len(self.mending) < 3:
            self._begin(of)

    def _begin(self, of: int) -> None:
        each = Mended(self, of)
        self.mending.append(each)
        self._step(each)

    @precondition(lambda self: self.mending)
    @rule(at=st.integers(0, 2))
    def go_on_repairing(self, at: int) -> None:
        each = self.mending[min(at, len(self.mending) - 1)]
        each.is_resumed.set()
        each.reads.clear()
        self._step(each)

    def _step(self, each: Mended) -> None:
        answers = self.wait(each.step())
        if answers is not None:
            self.mending.remove(each)
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
            for of in NUMBERS:  # a whole backfill, of what is there now
                image = self.image(of)
                if image is not None:
                    self._fill(of, image)
            self._rest()
            for of in NUMBERS:
                held: Any = self.client.get(f"Players:{of}")
                version = None if held is None else orjson.loads(held)["Version"]
                assert version == self.table[of], "at rest the copy is the table"
        finally:
            self.fills.close()
            self.mirror.close()
            for each in self.mending:
                each.task.cancel()
                each.repairer.close()
            self.wait(asyncio.sleep(0))
            self.loop.close()

    def _rest(self) -> None:
        for of in NUMBERS:
            while self.coming[of]:
                self.deliver(of)
        while self.mending:
            self.go_on_repairing(0)
        while self.found:
            self.fill_what_was_read(0)
        while self.mending:
            self.go_on_repairing(0)
        self.nothing_moves_back()


def play(server: ServerProcess, **given: Any) -> None:
    """Run the machine; one failure ends it."""
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
def test_the_machine_sees_a_repair_that_does_not_mind_what_changed(
    fake_server: ServerProcess, monkeypatch: pytest.MonkeyPatch, taken_out: bytes
) -> None:
    """Without the script's condition on the fence, then without all of it."""
    assert taken_out in repair.SCRIPT
    monkeypatch.setattr(repair, "SCRIPT", repair.SCRIPT.replace(taken_out, b""))

    with pytest.raises(AssertionError, match=r"the copy is the table|moved back|older than"):
        play(fake_server, phases=[Phase.generate], database=None, derandomize=True)


def test_the_machine_sees_a_fill_that_does_not_mind_a_fence(
    fake_server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    blind = SCRIPT.replace(b"if fence_seen and", b"if false and")
    assert blind != SCRIPT
    monkeypatch.setattr(sys.modules[__name__], "SCRIPT", blind)

    with pytest.raises(AssertionError, match=r"the copy is the table|moved back|older than"):
        play(fake_server, phases=[Phase.generate], database=None, derandomize=True)
