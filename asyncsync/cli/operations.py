"""The operations function: commands of a table where a cache in private subnets can be reached.

An event has the command line's own arguments, {"args": ["audit", "--sample", "100000"]}. One
invocation works until shortly before its deadline, keeps how far it is in the operations
bucket, and answers what is left: while done is false, next is the event that goes on. Two
invocations of the same arguments at once do work twice and leave none out. Wrong arguments are
an answer with exit code 2; what is worth another try is raised. Neither an argument nor a
finding is logged: an argument may be a secret, and a finding names a key.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from hashlib import sha256
from typing import Any

import anyio
import orjson

from asyncsync.cli.arguments import Defaults, parser
from asyncsync.cli.commands import Work, mirror_of, work_of
from asyncsync.cli.exit_codes import DONE, LEFT_WORK, WRONG_ARGUMENTS
from asyncsync.errors import ConfigError
from asyncsync.mirror import LambdaContext, Mirror
from asyncsync.tools.deadline import OutOfTime
from asyncsync.tools.errors import CommandRefused
from asyncsync.tools.output import Output, ProgressText
from asyncsync.version import __version__

ENTRY_POINT = "asyncsync.cli.operations.lambda_handler"

# What works on a table for long. The others look at something, or never end.
COMMANDS = ("backfill", "audit", "redrive")

# The function's own environment, beside the settings: what arguments may leave out.
TABLE = "OPERATIONS_TABLE"
PLACE = "OPERATIONS_PLACE"  # of on-failure objects
STATE = "OPERATIONS_STATE"  # an s3:// prefix
SEES_MAPPING = "OPERATIONS_SEES_MAPPING"  # "false": Lambda and CloudWatch cannot be reached

# With less than this left nothing new is begun: time for a page with its retries, far more
# than one takes.
MARGIN_S = 60.0

# With less than this left all is dropped, which is safe and done again: enough to write the
# state (10 s at most) and to answer.
ANSWER_S = 20.0

# Lambda allows an answer of 6 MB, Step Functions 256 KiB (their quotas pages): ours, with the
# event in it once more, stays under half of the smaller.
LINES_MAX = 200
LINE_BYTES_MAX = 4_096
LINES_BYTES_MAX = 98_304  # as the answer has them
EVENT_BYTES_MAX = 16_384

# The log is paid for by the byte; whoever waits looks every half a minute.
LOG_INTERVAL_S = 30.0


def lambda_handler(event: object, context: LambdaContext | None = None) -> dict[str, Any]:
    """Do a slice of a command; answer whether it is done, how it went, and what goes on.

    Raises CommandFailed, StoreRefused or ConfigError as the command does: try again.
    """
    output = SliceOutput()
    try:
        arguments = arguments_of(event, os.environ)
        work, mirror = work_of(arguments), mirror_of(arguments)
        log("slice_began", command=arguments.command, version=__version__)
        is_good = anyio.run(_slice, work, mirror, output, context)
        done, exit_code = True, DONE if is_good else LEFT_WORK
    except OutOfTime as exc:
        output.line(str(exc))
        done, exit_code = False, LEFT_WORK
    except (CommandRefused, ConfigError) as exc:
        output.line(str(exc))
        done, exit_code = True, WRONG_ARGUMENTS
    log("slice_ended", done=done, exit_code=exit_code)
    return {"done": done, "exit_code": exit_code, "said": output.lines(), "next": event}


async def _slice(
    work: Work, mirror: Mirror, output: Output, context: LambdaContext | None
) -> bool:
    if context is None:
        return await work(mirror, os.environ, output)

    def left_s() -> float:
        return context.get_remaining_time_in_millis() / 1_000 - MARGIN_S

    with anyio.move_on_after(left_s() + MARGIN_S - ANSWER_S):
        return await work(mirror, os.environ, output, left_s)
    raise OutOfTime("time is up in the middle of something, which is done again")


# --- what is asked for --------------------------------------------------------------------------


def arguments_of(event: object, env: Mapping[str, str]) -> argparse.Namespace:
    """Read an event's arguments as the command line would, with what the environment knows.

    Raises CommandRefused.
    """
    words = _words(event)
    command = words[0] if words else "nothing"
    if command not in COMMANDS:
        raise CommandRefused(f"{command} is not for here: {', '.join(COMMANDS)} are")
    place = env.get(PLACE)
    defaults = Defaults(env.get(TABLE), [place] if place else [])
    said = io.StringIO()
    try:
        with redirect_stdout(said), redirect_stderr(said):
            arguments = parser(defaults).parse_args(words)
    except SystemExit as exc:
        raise CommandRefused(said.getvalue().strip().splitlines()[-1]) from exc
    if arguments.state is None:
        arguments.state = _place_of([arguments.table, *words], command, env)
    elif not arguments.state.startswith("s3://"):
        raise CommandRefused("--state is s3://bucket/prefix here: a file would not last")
    if command == "backfill" and env.get(SEES_MAPPING) == "false":
        _refuse_unseen(arguments)
    return arguments


def _words(event: object) -> list[str]:
    if not isinstance(event, dict) or "args" not in event or event.keys() - {"args", "also"}:
        raise CommandRefused('an event is {"args": [...]}, the arguments of asyncsync')
    words = [event["args"], event.get("also", [])]
    if not all(isinstance(each, list) for each in words):
        raise CommandRefused("args are a list of texts")
    flat = [*words[0], *words[1]]
    if not all(isinstance(word, str) for word in flat):
        raise CommandRefused("args are a list of texts, numbers too")
    if len(json.dumps(flat)) > EVENT_BYTES_MAX:
        raise CommandRefused(f"args have more than {EVENT_BYTES_MAX:,} bytes")
    return flat


def _place_of(words: list[str], command: str, env: Mapping[str, str]) -> str:
    """Return where what these arguments have come to is kept: a place of their own."""
    if not env.get(STATE):
        raise CommandRefused(f"{STATE} is not set: there is nowhere to keep how far it is")
    digest = sha256(json.dumps(words).encode()).hexdigest()
    return f"{env[STATE].rstrip('/')}/{command}-{digest[:16]}"


def _refuse_unseen(arguments: argparse.Namespace) -> None:
    if not arguments.assume_following:
        raise CommandRefused(
            "neither Lambda nor CloudWatch can be asked from here whether a mapping follows the "
            "stream: see to it from elsewhere (docs/operations.md), then give --assume-following"
        )


# --- the answer ---------------------------------------------------------------------------------


class SliceOutput(Output):
    """Keeps what a command writes for the answer, and writes only progress to the log.

    Of many lines the first and the last are kept; of consecutive lines of progress the latest.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(sys.stdout, sys.stdout, interval_s=0, clock=clock)
        self._lines: list[str] = []
        self._omitted = 0
        self._bytes = 0
        self._ends_in_progress = False
        self._logged_s = clock()

    def __call__(self, text: str) -> None:
        """Keep a line of a command that takes a Say."""
        if isinstance(text, ProgressText):
            self._write_progress(text)
        else:
            self.line(text)

    def line(self, text: str) -> None:
        """Keep a line, cut to what an answer may hold."""
        cut = text.encode(errors="backslashreplace")[:LINE_BYTES_MAX]
        line = cut.decode(errors="ignore")
        self._lines.append(line)
        self._bytes += _size(line)
        self._ends_in_progress = False
        while len(self._lines) > LINES_MAX or self._bytes > LINES_BYTES_MAX:
            self._remove(len(self._lines) // 2)
            self._omitted += 1

    def note(self, text: str) -> None:
        """Keep a note as a line."""
        self.line(text)

    def _write_progress(self, text: str) -> None:
        if self._ends_in_progress:
            self._remove(-1)
        self.line(text)
        self._ends_in_progress = True
        now_s = self._clock()
        if now_s - self._logged_s >= LOG_INTERVAL_S:
            self._logged_s = now_s
            log("progress", says=text.strip())

    def _remove(self, at: int) -> None:
        self._bytes -= _size(self._lines.pop(at))

    def lines(self) -> list[str]:
        """Return the lines, and how many of the middle are left out."""
        omitted = [f"({self._omitted:,} lines of the middle are left out)"]
        return [*self._lines, *(omitted if self._omitted else [])]


def log(event: str, **fields: object) -> None:
    """Write one line to the function's log."""
    print(orjson.dumps({"level": "INFO", "event": event, **fields}).decode(), flush=True)


def _size(line: str) -> int:
    return len(json.dumps(line))  # as Lambda writes an answer
