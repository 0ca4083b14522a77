"""The read budget: its rate, and its patience while DynamoDB throttles."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

import anyio
import pytest

from asyncsync.aws.budget import BACKOFF_FIRST_S, BACKOFF_LAST_S, ReadBudget
from asyncsync.aws.clients import Throttled


def _noting(slept: list[float]) -> Any:
    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    return sleep


@dataclass(frozen=True)
class Answer:
    units: float


class Time:
    """A clock that moves to the next sleeper's end."""

    def __init__(self) -> None:
        self.now_s = 1_000.0
        self._sleepers: list[tuple[float, anyio.Event]] = []

    def clock(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        woken = anyio.Event()
        self._sleepers.append((self.now_s + seconds, woken))
        await woken.wait()

    async def run(self) -> None:
        """Wake the next sleeper once all tasks wait, until none sleeps."""
        while True:
            await anyio.wait_all_tasks_blocked()
            if not self._sleepers:
                return
            self._sleepers.sort(key=lambda each: each[0])
            self.now_s, woken = self._sleepers.pop(0)
            woken.set()


@pytest.mark.parametrize("tasks", [1, 4, 16])
@pytest.mark.parametrize("read_s", [0.0, 0.3])
async def test_any_number_of_tasks_stays_within_a_tenth_of_the_budget(
    tasks: int, read_s: float
) -> None:
    """Pages of 20 to 128 units at 1,000 units a second, like reads of a small table."""
    time, chance = Time(), Random(1)
    budget = ReadBudget(1_000.0, time.clock, time.sleep)
    began_s = time.now_s

    async def read() -> Answer:
        await time.sleep(read_s)
        return Answer(chance.uniform(20, 128))

    async def segment() -> None:
        for _ in range(800 // tasks):
            await budget.read(read)

    async with anyio.create_task_group() as group:
        for _ in range(tasks):
            group.start_soon(segment)
        await time.run()

    rate = budget.units / (time.now_s - began_s)
    assert rate < 1_100
    if not read_s or tasks > 4:  # enough tasks that only the budget limits them
        assert rate > 900


async def test_without_a_budget_nothing_waits() -> None:
    slept: list[float] = []
    budget = ReadBudget(sleep=_noting(slept))

    async def read() -> Answer:
        return Answer(1e9)

    for _ in range(10):
        await budget.read(read)

    assert (slept, budget.units) == ([], 1e10)


async def test_a_throttled_read_is_tried_again_after_ever_longer_waits() -> None:
    slept: list[float] = []
    budget = ReadBudget(sleep=_noting(slept), chance=Random(1))
    refusals = iter([True] * 12 + [False, True, False])

    async def read() -> Answer:
        if next(refusals):
            raise Throttled("later")
        return Answer(1.0)

    await budget.read(read)
    await budget.read(read)

    longest = [min(BACKOFF_LAST_S, BACKOFF_FIRST_S * 2**at) for at in range(12)]
    assert all(
        most / 2 <= each <= most
        for each, most in zip(slept, [*longest, BACKOFF_FIRST_S], strict=True)
    )
    assert (budget.throttled, budget.units) == (13, 2.0)
