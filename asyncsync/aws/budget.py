"""Paces a table's reads: within a budget of capacity, and later where DynamoDB throttles.

The budget counts what reads really consumed: each read waits until the earlier ones are paid
for. Where an endpoint does not report that, it counts an estimate by the items' size. Clock,
sleep and randomness are arguments.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from random import Random
from typing import Protocol, TypeVar

import anyio

from asyncsync.aws.clients import Throttled
from asyncsync.copy.delays import delays
from asyncsync.store import Clock

# Waits after DynamoDB has throttled a read: its burst capacity returns in seconds, and waiting
# longer than a third of a minute helps nobody.
BACKOFF_FIRST_S = 0.1
BACKOFF_LAST_S = 20.0


class Consumed(Protocol):
    """The answer to a read, with the capacity that it consumed."""

    @property
    def units(self) -> float:
        """Return the read capacity units."""


Read = TypeVar("Read", bound=Consumed)


class ReadBudget:
    """Paces one table's reads from any number of tasks.

    Without a limit in read capacity units per second it only backs off when throttled.
    """

    def __init__(
        self,
        rcu: float | None = None,
        clock: Clock = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
        chance: Random | None = None,
    ) -> None:
        self.units = 0.0  # consumed so far
        self.is_estimated = False  # the units: the endpoint did not report all of them
        self.throttled = 0  # how often DynamoDB throttled
        self._rcu = rcu
        self._clock = clock
        self._sleep = sleep
        self._chance = chance or Random()
        self._free_s = clock()  # when everything consumed so far is paid for
        self._expected = 0.0  # units of the last read, so probably of the next
        self._delays = delays(BACKOFF_FIRST_S, BACKOFF_LAST_S)

    async def read(self, ask: Callable[[], Awaitable[Read]]) -> Read:
        """Read once the budget allows it, again while DynamoDB throttles; count the units."""
        while True:
            reserved = await self._reserve()
            try:
                answer = await ask()
            except Throttled:
                self._pay(reserved, 0.0)
                await self.back_off()
                continue
            self._delays = delays(BACKOFF_FIRST_S, BACKOFF_LAST_S)
            self._expected = answer.units
            self.is_estimated |= getattr(answer, "is_estimate", False)
            self._pay(reserved, answer.units)
            return answer

    @property
    def note(self) -> str:
        """Return what must be said of the limit; empty where nothing must."""
        if self._rcu is None or not self.is_estimated:
            return ""
        return (
            "--max-rcu limited an estimate, 4 KB of items a unit: this endpoint does not report "
            "the capacity that a read consumes"
        )

    async def back_off(self) -> None:
        """Wait because DynamoDB returned less than was asked for: longer each time in a row."""
        self.throttled += 1
        await self._sleep(next(self._delays) * self._chance.uniform(0.5, 1.0))

    async def _reserve(self) -> float:
        """Wait until earlier reads are paid for; reserve and return this one's expected units."""
        if self._rcu is None:
            return 0.0
        now_s = self._clock()
        begins_s = max(now_s, self._free_s)
        self._free_s = begins_s + self._expected / self._rcu
        reserved = self._expected
        if begins_s > now_s:
            await self._sleep(begins_s - now_s)
        return reserved

    def _pay(self, reserved: float, units: float) -> None:
        self.units += units
        if self._rcu is not None:
            self._free_s += (units - reserved) / self._rcu
