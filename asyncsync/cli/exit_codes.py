"""What the command line's exit codes mean; no other module knows them."""

from __future__ import annotations

from asyncsync.errors import AsyncsyncError, ConfigError
from asyncsync.tools.deadline import DeadlineReached
from asyncsync.tools.errors import CommandRefused

DONE = 0
LEFT_WORK = 1
WRONG_ARGUMENTS = 2
COULD_NOT_RUN = 3
INTERRUPTED = 130

EXIT_CODES = """\
exit codes:
  0    done
  1    found a difference, or left work
  2    wrong arguments or settings
  3    could not run: no server, no table, no rights, no Region
  130  interrupted"""


def exit_code_of(error: AsyncsyncError) -> int:
    """Return the exit code of a command that ended with an error."""
    if isinstance(error, CommandRefused | ConfigError):
        return WRONG_ARGUMENTS
    return LEFT_WORK if isinstance(error, DeadlineReached) else COULD_NOT_RUN
