"""The budget of reads from the table, a pure token bucket."""

from __future__ import annotations


class TokenBucket:
    """Allows `per_s` tokens a second, and saves at most one second's worth."""

    __slots__ = ("_per_s", "_tokens", "_updated_s")

    def __init__(self, per_s: float, now_s: float) -> None:
        self._per_s = per_s
        self._tokens = per_s
        self._updated_s = now_s

    def reserve(self, count: int, now_s: float, wait_s: float) -> float | None:
        """Take tokens; return the seconds until they are there, None if longer than wait_s.

        None takes nothing. A clock that goes back brings nothing.
        """
        elapsed_s = max(0.0, now_s - self._updated_s)
        self._tokens = min(self._per_s, self._tokens + elapsed_s * self._per_s)
        self._updated_s = max(now_s, self._updated_s)
        needed_s = max(0.0, count - self._tokens) / self._per_s
        if needed_s > wait_s:
            return None
        self._tokens -= count
        return needed_s
