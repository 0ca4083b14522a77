"""The waits between tries, for whatever is tried again."""

from __future__ import annotations

from collections.abc import Iterator


def delays(first_s: float, last_s: float) -> Iterator[float]:
    """Yield waits in seconds without end, each twice the one before, none longer than last_s."""
    delay_s = first_s
    while True:
        yield delay_s
        delay_s = min(last_s, 2 * delay_s)
