"""The circuit to Redis, a pure state machine: who may ask, from what became of earlier requests.

closed --failures in a row--> open --pause--> half-open --success--> closed
                                ^---------------failure----'
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from asyncsync.reader.limits import CIRCUIT_FAILURES, CIRCUIT_PAUSE_S

CircuitState: TypeAlias = Literal["closed", "open", "half-open"]


class Circuit:
    """Decides whether to ask Redis; every time is in seconds on one clock that never goes back."""

    __slots__ = ("_failures", "_retry_s", "state")

    def __init__(self) -> None:
        self.state: CircuitState = "closed"
        self._failures = 0  # in a row
        self._retry_s = 0.0  # when an open circuit allows the next probe

    def allows(self, now_s: float) -> bool:
        """Return whether to ask now; in an open circuit one probe may, after each pause."""
        if self.state == "closed":
            return True
        if now_s < self._retry_s:
            return False
        self.state = "half-open"
        self._retry_s = now_s + CIRCUIT_PAUSE_S  # for the next, if nobody hears of this probe
        return True

    def succeed(self) -> None:
        """Record an answer: the circuit closes."""
        self._failures = 0
        self.state = "closed"

    def fail(self, now_s: float) -> None:
        """Record that there was no answer."""
        self._failures += 1
        if self._failures >= CIRCUIT_FAILURES:
            self.state = "open"
            self._retry_s = now_s + CIRCUIT_PAUSE_S
