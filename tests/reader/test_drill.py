"""Tests the drill of `make reader-drill`: a small one passes, and it fails if a reader lies."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from asyncsync.reader.protocol import LOAD_SCRIPT
from tests.programs import reader_drill
from tests.programs.reader_drill import (
    EXPIRING,
    OURS,
    PAGE,
    RESULT,
    Scale,
    drill,
    faults_of,
    figures_of,
    main,
    staged,
    with_figures,
)
from tests.support.events import SEED
from tests.support.servers import FOUND, ONE_SERVER, WANTED, lacking, skip

# So many answers of the table are held up that three seconds are enough for the others' race.
SMALL = Scale(
    rounds=2, round_s=1.5, keys=100, maxmemory="2000kb", held_up_share=0.3, ttl_s=60, seed=SEED
)

# A load that does not ask whether its lease is still in the fence.
WITHOUT_NONCE = LOAD_SCRIPT.replace(
    b"if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end", b""
).replace(b"'KEEPTTL'", b"'EX', 90000")


def wrong_of(result: dict[str, Any]) -> dict[str, int]:
    return {each["strategy"]: each["wrong_at_rest"] for each in result["strategies"]}


async def drilled(binary: str, shows: str) -> dict[str, Any]:
    """Run small drills until one finds something wrong in a strategy: that is chance."""
    result: dict[str, Any] = {}
    for seed in (SEED, SEED + 1, SEED + 2):
        result = await drill(replace(SMALL, seed=seed), binary, print, later=False)
        if wrong_of(result)[shows] or (shows != OURS and wrong_of(result)[OURS]):
            break
    return result


@pytest.mark.parametrize("binary", ONE_SERVER)
async def test_nothing_is_wrong_at_rest_but_in_cache_aside(binary: str) -> None:
    result = await drilled(binary, shows=EXPIRING)

    assert wrong_of(result)[OURS] == 0
    assert wrong_of(result)[EXPIRING] > 0
    assert result["flushes"] > 0
    assert result["kills"] > 0
    assert result["batches_delivered_again"] > 0


@pytest.mark.parametrize("binary", ONE_SERVER)
async def test_a_load_that_does_not_compare_its_lease_is_found(
    binary: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert WITHOUT_NONCE != LOAD_SCRIPT
    monkeypatch.setattr("asyncsync.reader.loader.LOAD_SCRIPT", WITHOUT_NONCE)

    result = await drilled(binary, shows=OURS)

    assert f"{OURS} has " in faults_of(result)[0]


@pytest.mark.parametrize(("before", "after"), [(1, 2), (None, 1), (1, None)])
@pytest.mark.parametrize("binary", ONE_SERVER)
async def test_an_answer_that_is_not_the_tables_is_found_also_of_a_known_absent_item(
    binary: str, before: int | None, after: int | None
) -> None:
    async with staged(SMALL, binary, print) as run:
        run.table.versions = dict.fromkeys(run.table.versions, before)
        await run.ask()
        ours = run.strategies[0]
        await ours.rest()
        assert ours.wrong == 0
        run.table.versions = dict.fromkeys(run.table.versions, after)  # the stream is silent

        await run.ask()

        assert ours.wrong > 0


# --- its judgement and its page ------------------------------------------------------------------


def committed() -> dict[str, Any]:
    result: dict[str, Any] = json.loads(RESULT.read_text())
    return result


def altered(**wrong: int) -> dict[str, Any]:
    result = committed()
    for each, count in zip(result["strategies"], wrong.values(), strict=True):
        each["wrong_at_rest"] = count
    return result


@pytest.mark.parametrize(
    ("result", "code"),
    [
        (altered(ours=0, plain=1, expiring=1), 0),
        (altered(ours=1, plain=1, expiring=1), 1),
        (altered(ours=0, plain=0, expiring=1), 1),  # the checker was not seen to find anything
        (altered(ours=0, plain=1, expiring=0), 1),
        ({**altered(ours=0, plain=1, expiring=1), "flushes": 0}, 1),
        ({**altered(ours=0, plain=1, expiring=1), "kills": 0}, 1),
        ({**altered(ours=0, plain=1, expiring=1), "evicted": 0}, 1),
    ],
)
def test_the_exit_code_says_whether_ours_was_right_and_the_checker_awake(
    result: dict[str, Any],
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if not FOUND:
        skip(lacking(*WANTED))

    async def recorded(*_: object) -> dict[str, Any]:
        return result

    monkeypatch.setattr(reader_drill, "drill", recorded)

    assert main(["--json"]) == code
    told = json.loads(capsys.readouterr().out)
    assert bool(told.pop("faults")) == bool(code)
    assert told == result


def test_the_page_has_the_figures_of_the_committed_result() -> None:
    page = PAGE.read_text(encoding="utf-8")

    assert with_figures(page, figures_of(committed())) == page
    assert faults_of(committed()) == []
