"""An event loop on virtual time: nothing really waits, so a simulated day costs nothing.

Time moves only when no callback is ready, and then to the next timer. Computing takes no virtual
time. So one program with one seed always runs the same steps in the same order.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Mapping
from typing import Any

FIRST_WALL_S = 1_767_225_600.0  # 2026-01-01: every simulation begins then


class Deadlock(Exception):
    """Deadlock: every task waits and no timer is pending."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """Runs real coroutines, timeouts included, in virtual seconds from 0."""

    def __init__(self) -> None:
        self.now_s = 0.0
        super().__init__(_NoSockets(self))

    def time(self) -> float:
        """Return virtual seconds; asyncio's timers use them."""
        return self.now_s

    def wall_ms(self) -> int:
        """Return the true time in epoch milliseconds; a process's clock may differ."""
        return int((FIRST_WALL_S + self.now_s) * 1_000)


class _NoSockets(selectors.BaseSelector):
    """A selector without sockets: waiting for one moves the time."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._keys: dict[Any, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        key = self._keys[fileobj] = selectors.SelectorKey(fileobj, 0, events, data)
        return key  # the loop's own pipe, which gets no bytes

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Deadlock
        self._loop.now_s += timeout
        return []

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys[fileobj]
