"""Tests the simulator: seeds pass and repeat to the byte, and the oracle sees violations."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from asyncsync import Config
from asyncsync.cli.main import main
from asyncsync.config import Server
from asyncsync.lab.simulation import small_scope as scope
from asyncsync.lab.simulation import world
from asyncsync.lab.simulation.faults import Fault, Faults
from asyncsync.lab.simulation.items import Violation, fence_of, item_image, name_of
from asyncsync.lab.simulation.network import Fate, Network, SimulatedConnection, streams
from asyncsync.lab.simulation.oracle import Oracle
from asyncsync.lab.simulation.sandbox import SimulatedFunction
from asyncsync.lab.simulation.scenario import Scenario, draw
from asyncsync.lab.simulation.seeds import (
    FIRED_MIN,
    MEDIANS_MIN,
    Summary,
    quantile,
    run_seeds,
    run_some,
)
from asyncsync.lab.simulation.small_scope_play import MODES, FakeRedis, play
from asyncsync.lab.simulation.table import SimulatedTable
from asyncsync.lab.simulation.virtual_time import Deadlock, VirtualLoop
from asyncsync.lab.simulation.world import RunResult, run
from asyncsync.model import Call
from asyncsync.store import UNSENT, Client, Job
from asyncsync.transport_asyncio import Streams, asyncio_transport
from tests.programs.bugs import BUGS
from tests.support.lua_server import LuaServer
from tests.support.project.patches import ROOT, Patch, PatchLost, patched

CI_SEEDS = 750
SEED = "113"  # with every tool in it, readers, and kills

LABEL_MS = 1_767_225_600_000


# --- seeds ------------------------------------------------------------------------------------


def test_the_seeds_of_every_run_hold_every_promise_and_are_worth_it() -> None:
    """Run CI's share of the seeds; `make soak` continues where the last soak stopped."""
    summary = run_seeds(0, CI_SEEDS, os.cpu_count() or 1, 10, lambda _: None)

    assert [f"{result.seed}: {result.violation}" for result in summary.violations] == []
    assert summary.shortcomings == []
    assert summary.seeds == CI_SEEDS


def test_a_seed_repeats_to_the_byte_whatever_python_hashes() -> None:
    def story(hash_seed: str) -> bytes:
        command = [sys.executable, "-m", "asyncsync", "simulate", "--seed", SEED, "--trace"]
        env = {**os.environ, "PYTHONHASHSEED": hash_seed}
        return subprocess.run(command, env=env, capture_output=True, check=True).stdout

    first = story("1")

    assert first == story("2")
    assert first.count(b"\n") > 100
    for told in (b"backfill 1 begins", b"audit 1 begins", b"redrive 1 begins", b"is killed"):
        assert told in first
    assert b"reader 1 has read item" in first


def test_a_server_that_runs_the_scripts_own_text_tells_the_same_stories() -> None:
    """Compare the model, which implements the scripts' promises, with real Lua."""
    for seed in range(30):
        modelled: list[str] = []
        real: list[str] = []
        run(seed, modelled.append)
        run(seed, real.append, LuaServer)

        assert modelled == real


def test_seeds_run_on_several_processes_as_on_one() -> None:
    alone, together = run_some(40, 25), run_seeds(40, 25, 2, 10, lambda _: None)

    assert alone.fired == together.fired
    assert alone.sizes == together.sizes
    assert alone.checks == together.checks


def test_seeds_that_say_little_fail_by_name() -> None:
    summary = Summary()
    for seed in range(500):
        summary.take(RunResult(seed, "", "", 59, 20, 1, dict.fromkeys(list(Fault)[:3], 1)))

    assert summary.shortcomings[0] == "the median history has 59 changes, at least 60 are wanted"
    assert len(summary.shortcomings) == 1 + len(Fault) - 3  # 500 times is enough for three
    assert f"at least {FIRED_MIN} are wanted" in summary.shortcomings[1]
    assert set(summary.sizes) == set(MEDIANS_MIN)


def test_quartiles_are_those_of_the_sorted_sizes() -> None:
    chance = Random(1)
    sizes = [chance.randint(0, 30) for _ in range(101)]
    summary = Summary()
    for size in sizes:
        summary.take(RunResult(0, "", "", size, 0, 0, {}))

    ordered = sorted(sizes)
    assert summary.quartiles("changes") == (ordered[25], ordered[50], ordered[75])
    assert quantile(Summary().sizes["changes"], 0.5) == 0


def test_a_violation_is_told_with_the_line_that_replays_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(seed: int, *_: Any) -> RunResult:
        return RunResult(
            seed, "", "G1: it moved back" if seed == 3 else "", 80, 30, 1, {Fault.OOM: 1}
        )

    monkeypatch.setattr("asyncsync.lab.simulation.seeds.run", broken)

    assert main(["simulate", "--seeds", "5", "--jobs", "1"]) == 1
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert "VIOLATION  seed 3: G1: it moved back" in lines
    assert any(line.endswith("simulate --seed 3 --trace") for line in lines)
    assert captured.err.startswith("asyncsync ")
    assert captured.err.endswith("simulate, seeds 0 to 4, 1 process\n")


@pytest.mark.parametrize("mode", ["mirror", "refresh", "invalidate"])
def test_a_bug_in_the_code_under_test_is_seen(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make collapse keep the first record of a key; `make bugs` has more bugs."""
    from asyncsync import mirror
    from asyncsync.model import Collapsed, Key, StreamRecord

    def first_wins(records: list[StreamRecord]) -> Collapsed:
        firsts: dict[Key, StreamRecord] = {}
        for record in records:
            firsts.setdefault(record.key, record)
        return Collapsed(list(firsts.values()), len(records) - len(firsts))

    monkeypatch.setattr(mirror, "collapse", first_wins)

    seeds = (seed for seed in range(400) if f"mode {mode}" in run(seed).scenario)
    assert any(run(seed).violation for seed in seeds)


def test_every_bug_still_finds_its_text_and_they_are_spread() -> None:
    """Check only that no bug's text is stale; `make bugs` tries the bugs."""
    for bug in BUGS:
        for patch in bug.patches:
            source = (ROOT / "asyncsync" / patch.file).read_text(encoding="utf-8")
            assert patched(source, patch) != source

    assert len(BUGS) >= 20
    assert min(Counter(bug.area for bug in BUGS).values()) >= 4
    assert sum(bug.combination for bug in BUGS) >= 5


def test_a_bug_whose_text_has_gone_fails_loudly() -> None:
    with pytest.raises(PatchLost, match="does not hold once"):
        patched("source", Patch("store.py", "no such text", ""))


@pytest.mark.parametrize("name", ["no such fault", "throttled", Fault.BATCH_SPLIT])
def test_a_name_that_is_no_fault_to_draw_fails_at_once(name: Any) -> None:
    """A string is refused even if a fault has it: only members of Fault are checked by mypy."""
    with pytest.raises(AssertionError, match=re.escape(str(name))):
        Faults(Random(1)).strikes(name)


# --- the small scope --------------------------------------------------------------------------


@pytest.mark.parametrize("records_max", [1, 2, 3, 4])
def test_there_are_as_many_histories_as_the_formula_says(records_max: int) -> None:
    histories = list(scope.histories(records_max))

    assert len(histories) == scope.expected(records_max)
    assert len(set(histories)) == len(histories)


@pytest.mark.parametrize("mode", MODES)
def test_every_history_of_two_records_holds_every_promise(mode: Any) -> None:
    """`make scope` plays those of four."""
    loop, backend = VirtualLoop(), FakeRedis()

    violations = [play(history, backend, loop, mode) for history in scope.histories(2)]

    assert set(violations) == {""}
    loop.close()


# --- the oracle -------------------------------------------------------------------------------


class Stage:
    """An oracle and an item with three changes: two values, then a removal."""

    def __init__(self, mode: Any = "mirror", before: Iterable[int] = ()) -> None:
        self.keys: dict[bytes, bytes] = {}
        self.now_ms = LABEL_MS
        self.table = SimulatedTable([1, 2], LABEL_MS, Random(1))
        self.table.change(1, item_image(1, 1, {}), "", LABEL_MS)
        self.table.change(1, item_image(1, 2, {}), "", LABEL_MS)
        self.table.change(1, None, "", LABEL_MS)
        config = Config(redis_url="redis://x", mode=mode)
        self.oracle = Oracle(self.table, config, self.keys.get, before, lambda: self.now_ms)

    def fill(self, shows: int) -> None:
        """Write a value without a fence to Redis, and let the oracle check it."""
        self.keys[name_of(1)] = b'{"Number":1,"Count":%d}' % shows
        self.oracle.ran([name_of(1)], None)

    def write(self, fence_at: int, shows: int | None, *, rank: int = 1, to: int = 1) -> None:
        """Write a value and its fence to Redis as one command, and let the oracle check them."""
        change = self.table.history[1][fence_at - 1]
        number = str(change.sequence_number)
        fence = f"1{change.label_ms:013d}{len(number):02d}{number}{rank}"
        self.keys[fence_of(to)] = fence.encode()
        self.keys.pop(name_of(to), None)
        if shows is not None:
            self.keys[name_of(to)] = b'{"Number":1,"Count":%d}' % shows
        self.oracle.ran([name_of(to), fence_of(to)], {name_of(1): None})

    def acknowledge(self, *counts: int) -> None:
        """Acknowledge changes of item 1."""
        changes = [self.table.history[1][count - 1] for count in counts]
        self.oracle.acknowledged("m", [(1, change.version) for change in changes], self.oracle.now)


def test_a_history_in_order_breaks_no_promise() -> None:
    stage = Stage()
    stage.write(1, shows=1)
    stage.acknowledge(1)
    stage.write(2, shows=2)
    stage.write(3, shows=None)
    stage.acknowledge(2, 3)

    assert stage.oracle.differences() == []


@pytest.mark.parametrize(
    ("steps", "promise"),
    [
        ([(2, 2), (1, 1)], "G1: the fence"),
        ([(2, 1)], "G1: item 1 shows change 1"),
        ([(3, 2)], "deleted stays deleted"),
        ([(1, None)], "missing"),
        ([(1, 7)], "none that the item ever had"),
    ],
)
def test_what_moves_back_or_goes_missing_is_seen(
    steps: list[tuple[int, int | None]], promise: str
) -> None:
    stage = Stage()
    if promise == "missing":  # a removal that was refused its fence would explain it
        stage.table.history[1].pop()

    *before, last = steps
    for step in before:
        stage.write(*step)

    with pytest.raises(Violation, match=promise):
        stage.write(*last)


def test_a_rejected_change_that_is_shown_is_seen() -> None:
    with pytest.raises(Violation, match="G6"):
        Stage().write(1, shows=1, rank=0)


def test_a_key_of_another_item_is_seen() -> None:
    with pytest.raises(Violation, match="is no key of an item of the batch"):
        Stage().write(1, shows=1, to=2)


def test_a_fence_that_no_fault_took_is_missed() -> None:
    stage = Stage()
    stage.write(1, shows=1)
    stage.keys.pop(fence_of(1))

    with pytest.raises(Violation, match="is gone, and no fault took it"):
        stage.oracle.ran([name_of(1)], None)


def test_a_fence_that_a_fault_took_is_not_missed_and_may_begin_anew() -> None:
    stage = Stage()
    stage.write(2, shows=2)
    stage.keys.clear()

    assert stage.oracle.damaged([name_of(1), fence_of(1)]) == 1
    assert stage.oracle.is_damaged
    stage.write(1, shows=1)


@pytest.mark.parametrize(("lived_s", "is_seen"), [(89_999, True), (90_000, False)])
def test_a_fence_that_expires_too_soon_is_seen(lived_s: int, is_seen: bool) -> None:
    stage = Stage()
    stage.write(1, shows=1)
    stage.now_ms += lived_s * 1_000
    stage.keys.pop(fence_of(1))

    if is_seen:
        with pytest.raises(Violation, match="expired after 89999 s"):
            stage.oracle.expire()
    else:
        assert stage.oracle.expire() == 1


def test_a_fill_may_be_ahead_of_the_stream_and_the_changes_between_pass_once_more() -> None:
    stage = Stage(before=[1])
    stage.fill(2)
    stage.write(1, shows=1)
    stage.write(2, shows=2)


def test_a_fill_older_than_one_before_it_is_seen() -> None:
    stage = Stage(before=[1])
    stage.fill(2)

    with pytest.raises(Violation, match="a repair is undone: item 1 shows change 0"):
        stage.fill(0)


def test_a_repair_that_is_undone_is_seen() -> None:
    stage = Stage()
    stage.write(1, shows=2, rank=2)

    with pytest.raises(Violation, match="a repair is undone: item 1 shows change 1"):
        stage.write(1, shows=1, rank=2)


def test_what_is_filled_after_a_removals_fence_has_expired_is_seen() -> None:
    stage = Stage()
    stage.write(3, shows=None)
    stage.now_ms += 90_000_000
    stage.keys.clear()
    assert stage.oracle.expire() == 1

    with pytest.raises(Violation, match="deleted stays deleted: item 1 shows change 2"):
        stage.fill(2)


def test_what_a_backfill_has_brought_is_missed() -> None:
    stage = Stage(before=[1, 2])
    stage.write(3, shows=None)
    assert stage.oracle.differences() == []

    stage.oracle.is_backfilled = True
    assert stage.oracle.differences() == ["item 2 is missing"]


@pytest.mark.parametrize(("rank", "is_seen"), [(0, True), (1, False), (2, False)])
def test_an_object_that_is_redriven_before_its_keys_are_is_seen(rank: int, is_seen: bool) -> None:
    stage = Stage()
    removal = (1, stage.table.history[1][2].version)
    stage.oracle.discarded([removal])
    stage.write(3, shows=None, rank=rank)

    if is_seen:
        with pytest.raises(Violation, match=r"G2: .* of item 1 is redriven"):
            stage.oracle.redriven([removal], stage.oracle.now)
        return
    stage.oracle.redriven([removal], stage.oracle.now)
    stage.write(3, shows=None, rank=2)
    stage.keys[name_of(1)] = b'{"Number":1,"Count":2}'
    assert stage.oracle.differences()  # no longer excused by the destination


def test_a_redriven_key_whose_fence_a_fault_took_is_forgiven() -> None:
    stage = Stage()
    stage.write(3, shows=None)
    since = stage.oracle.now
    stage.keys.clear()
    stage.oracle.damaged([fence_of(1)])

    stage.oracle.redriven([(1, stage.table.history[1][2].version)], since)


def test_an_acknowledged_record_that_is_not_written_is_seen() -> None:
    stage = Stage()
    stage.write(2, shows=2)
    stage.acknowledge(1, 2)  # the removal is still to come

    with pytest.raises(Violation, match="G2"):
        stage.acknowledge(3)


def test_a_rejected_record_is_no_written_one() -> None:
    stage = Stage()
    stage.write(3, shows=None, rank=0)

    with pytest.raises(Violation, match="G2"):
        stage.acknowledge(3)


def test_a_record_acknowledged_before_a_fault_destroyed_it_is_forgiven() -> None:
    stage = Stage()
    stage.write(3, shows=None)
    since = stage.oracle.now
    stage.keys.clear()
    stage.oracle.damaged([fence_of(1)])

    stage.oracle.acknowledged("m", [(1, stage.table.history[1][2].version)], since)


def test_at_rest_every_difference_is_named_but_what_only_the_destination_holds() -> None:
    stage = Stage()
    stage.write(2, shows=2)
    assert stage.oracle.differences() == ["item 1 should be absent, but shows change 2"]

    stage.oracle.discarded([(1, stage.table.history[1][2].version)])
    assert stage.oracle.differences() == []

    stage.write(3, shows=None)
    stage.acknowledge(3)
    stage.keys[name_of(1)] = b'{"Number":1,"Count":1}'
    assert stage.oracle.differences() == ["item 1 should be absent, but shows change 1"]


# --- virtual time -----------------------------------------------------------------------------


def test_what_waits_for_nothing_is_said_at_once() -> None:
    loop = VirtualLoop()

    with pytest.raises(Deadlock):
        loop.run_until_complete(loop.create_future())
    loop.close()


@pytest.mark.parametrize(
    "arguments",
    [["--trace"], ["--seed", "-1"], ["--scope", "5"], ["--seeds", "0"], ["--jobs", "0"]],
)
def test_wrong_arguments_are_refused_by_exit_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code: object = main(["simulate", *arguments])
    except SystemExit as exc:  # argparse's own way out
        code = exc.code

    assert code == 2
    assert capsys.readouterr().err


def test_a_run_that_does_not_come_to_rest_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a deployment that fixes nothing, and a mapping that retries without limit."""

    def transform(_: SimulatedFunction, item: dict[str, object]) -> dict[str, object]:
        if "Trap" in item:
            raise ValueError
        return item

    def drawn(chance: Random, faults: Faults) -> Scenario:
        scenario = draw(chance, faults)
        unlimited = replace(scenario.mapping, retry_attempts_max=-1, record_age_max_s=-1)
        no_tools = replace(scenario.tools, begin=())
        return replace(scenario, mapping=unlimited, tools=no_tools)

    monkeypatch.setattr(SimulatedFunction, "transform", transform)
    monkeypatch.setattr(world, "draw", drawn)
    monkeypatch.setattr(world, "CALM_S_MAX", 7_200.0)

    violations = (run(seed).violation for seed in range(200))
    violation = next(text for text in violations if "the transform raised ValueError" in text)

    assert violation.startswith("G3: not at rest")
    assert re.search(r"mapping \d holds \d+ records, \d in flight, next in \d+ ms", violation)


def test_a_connection_kept_to_a_node_that_became_a_replica_is_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("asyncsync.store._DEMOTED", ())

    violations = (run(seed).violation for seed in range(200))
    violation = next(text for text in violations if text)

    assert violation.startswith("G7: a write failed without a fault")
    assert '"error":"READONLY"' in violation


# --- what seeds found -------------------------------------------------------------------------


def test_what_a_broken_connection_kept_from_being_packed_is_pending_still() -> None:
    """Repeat seed 193678: a cluster's long batch broke on a dead connection, its end was lost."""
    loop = VirtualLoop()

    def choose(_: bytes, connection: SimulatedConnection) -> Fate:
        connection.writer.transport.abort()  # behind the first part of several
        return Fate()

    network = Network(loop, lambda *_: b"", choose)

    async def connect(_: Server) -> Streams:
        return streams(network.open(None))

    calls = [Call((b"GET", b"%0*d" % (1_000, at)), (at,), fenced=False) for at in range(500)]
    job = Job(float("inf"), list(calls), [UNSENT] * len(calls))
    client = Client(
        Config(redis_url="redis://x").server,
        2_000,
        asyncio_transport(connect),
        loop.time,
        lambda: "",
    )

    error = loop.run_until_complete(client.write(job))

    assert error is not None
    assert job.pending == calls
    loop.close()
