"""What the command line's exit codes mean; no other module knows them."""

from __future__ import annotations

from asyncsync.errors import AsyncsyncError, ConfigError
from asyncsync.tools.errors import CommandRefused

DONE = 0
LEFT_WORK = 1  # found a difference, or could not finish
WRONG_ARGUMENTS = 2


def exit_code_of(error: AsyncsyncError) -> int:
    """Return the exit code of a command that ended with an error."""
    return WRONG_ARGUMENTS if isinstance(error, CommandRefused | ConfigError) else LEFT_WORK
