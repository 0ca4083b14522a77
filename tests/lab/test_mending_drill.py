"""Tests the drill of `make drill`: a small one passes, and it fails if a command lies."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from asyncsync.aws.clients import open_clients
from asyncsync.aws.items import image_of, read_keys, scan_page
from asyncsync.aws.tables import describe_table
from asyncsync.lab.demo.changes import make_changes
from asyncsync.lab.servers import dynamodb_process, redis_process
from tests.programs.mending_drill import MARK, PROGRAM, Drill, NotSo, Scale, drill, name_of, staged
from tests.support.aws.moto_server import quick_dynamodb
from tests.support.events import SEED
from tests.support.servers import ONE_SERVER
from tests.support.tables import load, make_table, numbered

SMALL = Scale(items=300, planted=30, settle_s=2.0, seed=SEED)

# A command line that claims to repair keys and does not.
CLAIMS_REPAIRED = """
import sys
from asyncsync.cli import main as cli
from asyncsync.copy import repair

async def pretend(self, targets):
    return [repair.Repaired(target, "repaired") for target in targets]

repair.Repairer.repair = pretend
sys.exit(cli.main())
"""


@pytest.mark.parametrize("binary", ONE_SERVER)
async def test_a_copy_is_filled_proven_mended_and_redriven_while_its_table_changes(
    binary: str,
) -> None:
    lines: list[str] = []
    scale = Scale(items=5_000, planted=100, settle_s=2.0, seed=SEED)

    with quick_dynamodb() as endpoint, redis_process(binary) as server:
        await drill(scale, endpoint, server.url, lines.append)

    print("\n".join(lines))  # shows how long each part took if it fails on a busy machine
    assert any("100 differences planted, found to the key and repaired" in line for line in lines)
    assert any(line.startswith("redrive: 3 batches of ") for line in lines)
    assert lines[-1].startswith("at rest: all ")


@asynccontextmanager
async def filled(binary: str, program: Sequence[str] = PROGRAM) -> AsyncIterator[Drill]:
    """Run a small drill up to its backfill; from then on it uses `program`."""
    with quick_dynamodb() as endpoint, redis_process(binary) as server:
        async with staged(SMALL, endpoint, server.url, PROGRAM, print) as run:
            await run.backfill()
            run.program = program
            yield run


@pytest.mark.parametrize("binary", ONE_SERVER)
async def test_it_ends_where_what_is_said_to_be_repaired_is_not(binary: str) -> None:
    async with filled(binary, (sys.executable, "-c", CLAIMS_REPAIRED)) as run:
        with pytest.raises(NotSo, match="repaired, and yet not the same: "):
            await run.mend()
        with pytest.raises(NotSo, match="redriven, and yet not the same: "):
            await run.redrive()


def _one_more(run: Drill, planted: dict[str, str]) -> str:
    """Delete a key that the writer leaves alone and that is not among the planted ones."""
    number = min(run.table.left_alone - run.table.absent - {MARK} - numbers(planted))
    run.copy.delete(name_of(number))
    return f"planted and not found 0: ; found and not planted 1: {name_of(number)} missing"


def _another_kind(run: Drill, planted: dict[str, str]) -> str:
    name = next(name for name, kind in planted.items() if kind == "stale")
    run.copy.delete(name)
    return f"planted and not found 1: {name} stale; found and not planted 1: {name} missing"


def numbers(planted: dict[str, str]) -> set[int]:
    return {int(name.rpartition(":")[2]) for name in planted}


@pytest.mark.parametrize("binary", ONE_SERVER)
async def test_it_ends_where_what_is_found_is_not_what_was_planted(
    binary: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plant = Drill.plant
    harms = iter((_one_more, _another_kind))
    expected: list[str] = []

    async def plant_otherwise(run: Drill) -> dict[str, str]:
        planted = await plant(run)
        expected.append(next(harms)(run, planted))
        return planted

    monkeypatch.setattr(Drill, "plant", plant_otherwise)
    async with filled(binary) as run:
        for _ in range(2):
            with pytest.raises(NotSo, match="the audit did not find just that: ") as raised:
                await run.mend()
            assert str(raised.value).endswith(expected[-1])


@pytest.mark.parametrize("binary", ONE_SERVER)
async def test_it_ends_where_a_foreign_key_was_touched_or_a_key_differs_at_rest(
    binary: str,
) -> None:
    async with filled(binary) as run:
        name = next(iter(run.foreign))
        dump: Any = run.copy.dump(name)
        run.copy.set(name, "touched")
        with pytest.raises(NotSo, match="a foreign key was touched"):
            await run.at_rest()
        run.copy.restore(name, 0, dump, replace=True)
        run.copy.delete(name_of(min(run.table.versions.keys() - run.table.absent - {MARK})))
        with pytest.raises(NotSo, match="1 keys differ at rest"):
            await run.at_rest()


async def test_the_quick_moto_answers_as_moto_does() -> None:
    items = numbered(40)
    for at, change in enumerate(make_changes(20, 20, SEED)):
        items[at] |= change.item or {}
        items[at]["Number"] = {"N": str(at + 1)}
    answers: list[Any] = []  # of one server, then of the other
    with dynamodb_process() as one, quick_dynamodb() as other:
        for url in (one, other):
            async with open_clients(url, {}) as clients:
                table = await make_table(clients, "T")
                await load(clients, "T", items)
                after: Any = None
                for _ in range(4):
                    page = await scan_page(clients, table, 0, 1, after, 10)
                    after = page.rest
                    answers += [(list(map(image_of, page.items)), after)]
                await clients.items.delete_item(TableName="T", Key={"Number": {"N": "7"}})
                answers += [((await describe_table(clients, "T")).items, None)]
                keys: Any = [{"Number": item["Number"]} for item in items]
                answer = await read_keys(clients, table, keys)
                answers += [(list(map(image_of, answer.items)), answer.rest)]

    half = len(answers) // 2
    assert answers[:half] == answers[half:]
    assert [len(items) for items, _ in answers[:4]] == [10] * 4
    assert answers[4] == (39, None)
