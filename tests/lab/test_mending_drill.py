"""The drill of `make drill`, small; and it ends where a command does not do what it says."""

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
from asyncsync.lab.servers import binaries, dynamodb_process, redis_process
from tests.programs.mending_drill import MARK, PROGRAM, Drill, NotSo, Scale, drill, name_of, staged
from tests.support.events import SEED
from tests.support.moto_server import quick_dynamodb
from tests.support.tables import load, make_table, numbered

SMALL = Scale(items=300, planted=30, settle_s=2.0, seed=SEED)

# The command line, where a repair is said to have been made and was not.
SAYS_REPAIRED = """
import sys
from asyncsync.cli import main as cli
from asyncsync.copy import repair

async def pretend(self, targets):
    return [repair.Repaired(each, "repaired") for each in targets]

repair.Repairer.repair = pretend
sys.exit(cli.main())
"""


async def test_a_copy_is_filled_proven_mended_and_redriven_while_its_table_changes() -> None:
    said: list[str] = []
    scale = Scale(items=5_000, planted=100, settle_s=2.0, seed=SEED)

    with quick_dynamodb() as endpoint, redis_process(binaries()[0]) as server:
        await drill(scale, endpoint, server.url, said.append)

    print("\n".join(said))  # how long each part took, where it fails on a busy machine
    assert any("100 differences planted, found to the key and repaired" in line for line in said)
    assert any(line.startswith("redrive: 3 batches of ") for line in said)
    assert said[-1].startswith("at rest: all ")


@asynccontextmanager
async def filled(program: Sequence[str] = PROGRAM) -> AsyncIterator[Drill]:
    """A small drill after its backfill, on servers of its own; from then on another program."""
    with quick_dynamodb() as endpoint, redis_process(binaries()[0]) as server:
        async with staged(SMALL, endpoint, server.url, PROGRAM, print) as made:
            await made.backfill()
            made.program = program
            yield made


async def test_it_ends_where_what_is_said_to_be_repaired_is_not() -> None:
    async with filled((sys.executable, "-c", SAYS_REPAIRED)) as made:
        with pytest.raises(NotSo, match="repaired, and yet not the same: "):
            await made.mend()
        with pytest.raises(NotSo, match="redriven, and yet not the same: "):
            await made.redrive()


def _one_more(made: Drill, planted: dict[str, str]) -> str:
    """Harm a key that the writer leaves alone and nobody was told of."""
    number = min(made.table.left_alone - made.table.absent - {MARK} - numbers(planted))
    made.copy.delete(name_of(number))
    return f"planted and not found 0: ; found and not planted 1: {name_of(number)} missing"


def _another_kind(made: Drill, planted: dict[str, str]) -> str:
    name = next(name for name, kind in planted.items() if kind == "stale")
    made.copy.delete(name)
    return f"planted and not found 1: {name} stale; found and not planted 1: {name} missing"


def numbers(planted: dict[str, str]) -> set[int]:
    return {int(name.rpartition(":")[2]) for name in planted}


async def test_it_ends_where_what_is_found_is_not_what_was_planted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plant = Drill.plant
    harms = iter((_one_more, _another_kind))
    expected: list[str] = []

    async def plant_otherwise(made: Drill) -> dict[str, str]:
        planted = await plant(made)
        expected.append(next(harms)(made, planted))
        return planted

    monkeypatch.setattr(Drill, "plant", plant_otherwise)
    async with filled() as made:
        for _ in range(2):
            with pytest.raises(NotSo, match="the audit did not find just that: ") as raised:
                await made.mend()
            assert str(raised.value).endswith(expected[-1])


async def test_it_ends_where_a_foreign_key_was_touched_or_a_key_differs_at_rest() -> None:
    async with filled() as made:
        name = next(iter(made.foreign))
        held: Any = made.copy.dump(name)
        made.copy.set(name, "touched")
        with pytest.raises(NotSo, match="a foreign key was touched"):
            await made.at_rest()
        made.copy.restore(name, 0, held, replace=True)
        made.copy.delete(name_of(min(made.table.versions.keys() - made.table.absent - {MARK})))
        with pytest.raises(NotSo, match="1 keys differ at rest"):
            await made.at_rest()


async def test_the_quick_moto_answers_as_moto_does() -> None:
    items = numbered(40)
    for at, change in enumerate(make_changes(20, 20, SEED)):
        items[at] |= change.item or {}
        items[at]["Number"] = {"N": str(at + 1)}
    said: list[Any] = []  # what each of them answered
    with dynamodb_process() as one, quick_dynamodb() as other:
        for url in (one, other):
            async with open_clients(url, {}) as clients:
                await make_table(clients, "T")
                await load(clients, "T", items)
                after: Any = None
                for _ in range(4):
                    page = await scan_page(clients, "T", 0, 1, after, 10)
                    after = page.rest
                    said += [(list(map(image_of, page.items)), after)]
                await clients.items.delete_item(TableName="T", Key={"Number": {"N": "7"}})
                said += [((await describe_table(clients, "T")).items, None)]
                keys: Any = [{"Number": each["Number"]} for each in items]
                answer = await read_keys(clients, "T", keys)
                said += [(list(map(image_of, answer.items)), answer.rest)]

    half = len(said) // 2
    assert said[:half] == said[half:]
    assert [len(found) for found, _ in said[:4]] == [10] * 4
    assert said[4] == (39, None)
