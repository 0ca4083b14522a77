"""What commands say, and to whom: how far they are has one form, told from findings by it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeAlias

# Who is told, line by line.
Say: TypeAlias = Callable[[str], None]

_FORM = re.compile(r" *[0-9]+\.[0-9] s  ")


def progress(took_s: float, text: str) -> str:
    """Write a line that says how far a command is after so long."""
    return f"{took_s:7.1f} s  {text}"


def is_progress(line: str) -> bool:
    """Whether a line that was said is one of those; no other begins like it."""
    return _FORM.match(line) is not None


def rate_and_left(done: int, of_about: int, took_s: float) -> str:
    """Write how fast something is done and how long the rest may take; of_about 0: not known."""
    rate = done / took_s if took_s > 0 else 0.0
    if not rate or of_about <= done:
        return f"{rate:,.0f}/s"
    return f"{rate:,.0f}/s, about {_span((of_about - done) / rate)} left"


def _span(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
