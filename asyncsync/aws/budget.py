"""When a table may be read: within a budget of capacity, and later where DynamoDB says so.

The budget is kept by what reads really consumed: each waits until what earlier ones took has
been paid for. Clock, sleep and chance are arguments.
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

# The first wait after DynamoDB has throttled a read, doubled each time up to the last: its
# burst capacity comes back in seconds, and a minute's silence helps nobody more.
BACKOFF_FIRST_S = 0.1
BACKOFF_LAST_S = 20.0


class Consumed(Protocol):
    """What a read answers: what it consumed, in read capacity units."""

    @property
    def units(self) -> float:
        """Return the read capacity units."""


Read = TypeVar("Read", bound=Consumed)


class ReadBudget:
    """One table's reads, however many tasks make them; without a budget only patience is left."""

    def __init__(
        self,
        rcu: float | None = None,
        clock: Clock = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
        chance: Random | None = None,
    ) -> None:
        self.units = 0.0  # consumed so far
        self.throttled = 0  # reads that DynamoDB put off
        self._rcu = rcu
        self._clock = clock
        self._sleep = sleep
        self._chance = chance or Random()
        self._free_s = clock()  # when all that was taken will have been paid for
        self._expected = 0.0  # what the last read took, and so the next one may
        self._delays = delays(BACKOFF_FIRST_S, BACKOFF_LAST_S)

    async def read(self, ask: Callable[[], Awaitable[Read]]) -> Read:
        """Read when it is time, again where DynamoDB puts it off, and count what it took."""
        while True:
            reserved = await self._turn()
            try:
                answer = await ask()
            except Throttled:
                self._settle(reserved, 0.0)
                await self.back_off()
                continue
            self._delays = delays(BACKOFF_FIRST_S, BACKOFF_LAST_S)
            self._expected = answer.units
            self._settle(reserved, answer.units)
            return answer

    async def back_off(self) -> None:
        """Wait because DynamoDB gave less than was asked for: longer each time in a row."""
        self.throttled += 1
        await self._sleep(next(self._delays) * self._chance.uniform(0.5, 1.0))

    async def _turn(self) -> float:
        """Wait for what was taken before; reserve what this read may take, and return it."""
        if self._rcu is None:
            return 0.0
        now_s = self._clock()
        begins_s = max(now_s, self._free_s)
        self._free_s = begins_s + self._expected / self._rcu
        reserved = self._expected
        if begins_s > now_s:
            await self._sleep(begins_s - now_s)
        return reserved

    def _settle(self, reserved: float, units: float) -> None:
        self.units += units
        if self._rcu is not None:
            self._free_s += (units - reserved) / self._rcu
