"""How long a command may start new work, and what it raises when time is up.

A command asks after each page, so that every slice completes at least one. It then finishes the
work under way, saves its progress and raises DeadlineReached.
"""

from __future__ import annotations

from asyncsync.connection import TimeLeft as TimeLeft
from asyncsync.tools.errors import CommandFailed


def unlimited() -> float:
    """Return infinity: a TimeLeft without an end."""
    return float("inf")


class DeadlineReached(CommandFailed):
    """Time is up and work is left: the same arguments with the same state resume it."""
