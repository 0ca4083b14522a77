"""A slice of a command: until when it begins new work, and how it ends where time is up.

A command asks how long that is after each page, so that a slice has at least one of them
behind it. It then finishes what it holds, keeps how far it is, and raises OutOfTime.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from asyncsync.tools.errors import CommandFailed

# How many seconds new work may still be begun; 0 or less: no more.
TimeLeft: TypeAlias = Callable[[], float]


def unlimited() -> float:
    """Give a command all the time that it needs."""
    return float("inf")


class OutOfTime(CommandFailed):
    """A slice is over and work is left: the same arguments, with the same state, go on."""
