"""How a command fails: an error whose message is one line that says what to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec

from asyncsync.errors import AsyncsyncError


class CommandFailed(AsyncsyncError):
    """A command could not do its work; the message says why and what to do."""


class CommandRefused(CommandFailed):
    """A command cannot begin: its arguments, or something that is not installed."""


def require(command: str, extra: str, modules: Sequence[str]) -> None:
    """Refuse a command whose extra is not installed.

    Raises CommandRefused.
    """
    if any(find_spec(module) is None for module in modules):
        raise CommandRefused(f"asyncsync {command} needs: pip install 'asyncsync[{extra}]'")


@contextmanager
def first_error() -> Iterator[None]:
    """Let the first error of ours leave a task group as itself, not in a group of errors."""
    try:
        yield
    except BaseExceptionGroup as group:
        ours = group.subgroup(AsyncsyncError)
        while isinstance(ours, BaseExceptionGroup):
            ours = ours.exceptions[0]  # type: ignore[assignment]
        if ours is None:
            raise
        raise ours from None
