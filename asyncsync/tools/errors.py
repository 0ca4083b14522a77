"""How a command fails: with an error whose message is one line that says what to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec

from asyncsync.errors import AsyncsyncError


class CommandFailed(AsyncsyncError):
    """The command could not do its work; running it again may help."""


class CommandRefused(CommandFailed):
    """The command cannot begin: an argument is wrong, or an extra is not installed."""


class UserCodeFailed(BaseException):
    """The user's module, key function or transform raised; the message is their traceback.

    Not an Exception: the mirror makes rejects of those.
    """


def require(command: str, extra: str, modules: Sequence[str]) -> None:
    """Check that the modules of an extra are installed.

    Raises CommandRefused where one is not.
    """
    if any(find_spec(module) is None for module in modules):
        raise CommandRefused(f"asyncsync {command} needs: pip install 'asyncsync[{extra}]'")


@contextmanager
def first_error() -> Iterator[None]:
    """Raise the first of our errors in a task group by itself, not in an exception group."""
    try:
        yield
    except BaseExceptionGroup as group:
        error = group.subgroup((AsyncsyncError, UserCodeFailed))
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]  # type: ignore[assignment]
        if error is None:
            raise
        raise error from None
