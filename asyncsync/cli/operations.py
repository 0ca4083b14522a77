"""The operations function: runs commands where the cache is, in private subnets.

An event holds the command line's arguments: {"args": ["audit", "--sample", "100000"]}. One
invocation works until shortly before its deadline, saves its progress in the operations bucket
and answers. While `done` is false, `next` is the event that continues. Two invocations with the
same arguments at once may do work twice but skip none. Wrong arguments are an answer with exit
code 2; an error that a retry may fix is raised. The log holds neither arguments, which may be
secrets, nor findings, which name keys. The answer of `get` holds a value only with --show-values.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from hashlib import sha256
from typing import Any

import anyio
import orjson

from asyncsync.cli.arguments import build_parser
from asyncsync.cli.audit_metrics import audit_metrics
from asyncsync.cli.commands import TABLE_COMMANDS, get_key, on_table
from asyncsync.cli.exit_codes import DONE, LEFT_WORK, WRONG_ARGUMENTS
from asyncsync.cli.options import Defaults
from asyncsync.errors import ConfigError
from asyncsync.mirror import LambdaContext
from asyncsync.report import timestamp
from asyncsync.tools.deadline import DeadlineReached, TimeLeft
from asyncsync.tools.errors import CommandRefused
from asyncsync.tools.output import Output, json_line, plural
from asyncsync.version import __version__

ENTRY_POINT = "asyncsync.cli.operations.lambda_handler"

# The function's own environment, beside the settings: defaults of arguments.
TABLE = "OPERATIONS_TABLE"
PLACE = "OPERATIONS_PLACE"  # of on-failure objects
STATE = "OPERATIONS_STATE"  # an s3:// prefix
SEES_MAPPING = "OPERATIONS_SEES_MAPPING"  # "false": of AWS only DynamoDB and S3 can be reached
FUNCTION = "OPERATIONS_FUNCTION"  # the one that writes the copy: check reads its mapping

COMMANDS = (*TABLE_COMMANDS, "check", "get")

# With less time left than this, no new work begins: a page with its retries, with much to spare.
MARGIN_S = 60.0

# With less time left than this, work is abandoned, which is safe: enough to write the state (at
# most 10 s) and to answer.
ANSWER_S = 20.0

# An object that is cut is no JSON: check's is larger than a line.
DOCUMENT_BYTES_MAX = 65_536

# Lambda allows an answer of 6 MB, Step Functions 256 KiB (their quotas pages). Ours, which also
# repeats the event, stays under half of the smaller.
LINES_MAX = 200
LINE_BYTES_MAX = 4_096
LINES_BYTES_MAX = 98_304  # as JSON
EVENT_BYTES_MAX = 16_384

# A log is paid for by its size, and nobody looks more often.
LOG_INTERVAL_S = 30.0


def lambda_handler(event: object, context: LambdaContext | None = None) -> dict[str, Any]:
    """Run one slice of a command; return whether it is done, its exit code, lines and next event.

    Raises AwsFailed, CommandFailed, StoreRefused or ConfigError where a retry may help.
    """
    output = SliceOutput()
    try:
        arguments = arguments_of(event, os.environ)
        output.is_quiet = arguments.quiet or arguments.as_json  # then every line is JSON
        log("slice_began", command=arguments.command, version=__version__)
        is_good = anyio.run(_slice, arguments, output, context)
        done, exit_code = True, DONE if is_good else LEFT_WORK
        _log_audit(arguments, output)
    except DeadlineReached as exc:
        output.line(str(exc))
        done, exit_code = False, LEFT_WORK
    except (CommandRefused, ConfigError) as exc:
        output.line(str(exc))
        done, exit_code = True, WRONG_ARGUMENTS
    log("slice_ended", done=done, exit_code=exit_code)
    return {"done": done, "exit_code": exit_code, "said": output.lines(), "next": event}


async def _slice(
    arguments: argparse.Namespace, output: Output, context: LambdaContext | None
) -> bool:
    if context is None:
        return await _command(arguments, output)

    def remaining_s() -> float:
        return context.get_remaining_time_in_millis() / 1_000

    with anyio.move_on_after(remaining_s() - ANSWER_S):
        return await _command(arguments, output, lambda: remaining_s() - MARGIN_S)
    raise DeadlineReached("time is up: the work under way is done again")


def _log_audit(arguments: argparse.Namespace, output: SliceOutput) -> None:
    """Log the metrics of an audit that ended, if its result is JSON."""
    if arguments.command == "audit" and output.summary is not None:
        line = audit_metrics(arguments.table, output.summary, time.time_ns() // 1_000_000)
        if line is not None:
            print(orjson.dumps(line).decode(), flush=True)


def _command(
    arguments: argparse.Namespace, output: Output, *time_left: TimeLeft
) -> Awaitable[bool]:
    """Begin a command; check and get are short and end by the deadline alone."""
    if arguments.command == "check":
        from asyncsync.cli.checking import Inside, check_setup

        inside = Inside(os.environ.get(FUNCTION), os.environ.get(SEES_MAPPING) != "false")
        return check_setup(arguments, os.environ, output, inside)
    if arguments.command == "get":
        return get_key(arguments, os.environ, output)
    return on_table(arguments, os.environ, output, *time_left)


# --- the event --------------------------------------------------------------------------------


def arguments_of(event: object, env: Mapping[str, str]) -> argparse.Namespace:
    """Parse an event's arguments as the command line does; env holds defaults.

    Raises CommandRefused.
    """
    words = _words(event)
    if not words or words[0] not in COMMANDS:
        commands = ", ".join(COMMANDS)
        raise CommandRefused(
            f"{words[0] if words else 'nothing'} cannot run here: give {commands}"
        )
    place = env.get(PLACE)
    defaults = Defaults(env.get(TABLE), [place] if place else [], hides_values=True)
    printed = io.StringIO()
    try:
        with redirect_stdout(printed), redirect_stderr(printed):
            arguments = build_parser(defaults).parse_args(words)
    except SystemExit as exc:
        raise CommandRefused(printed.getvalue().strip().splitlines()[-1]) from exc
    if arguments.function is not None or arguments.profile is not None:
        raise CommandRefused(
            "--function and --profile: this function's own are used; leave it out"
        )
    if arguments.command not in TABLE_COMMANDS:
        return arguments
    if arguments.state is None:
        arguments.state = _state_place(arguments, words, env)
    elif not arguments.state.startswith("s3://"):
        raise CommandRefused("--state must be s3://bucket/prefix here: a file would be lost")
    if arguments.command == "backfill" and env.get(SEES_MAPPING) == "false":
        _refuse_unseen(arguments)
    return arguments


def _words(event: object) -> list[str]:
    if not isinstance(event, dict) or "args" not in event or event.keys() - {"args", "also"}:
        raise CommandRefused('an event must be {"args": [...]}: the arguments of asyncsync')
    lists = [event["args"], event.get("also", [])]
    if not all(isinstance(words, list) for words in lists):
        raise CommandRefused("args must be a list of strings")
    words = [*lists[0], *lists[1]]
    if not all(isinstance(word, str) for word in words):
        raise CommandRefused("args must be a list of strings: quote its numbers, too")
    if len(json.dumps(words)) > EVENT_BYTES_MAX:
        raise CommandRefused(f"args must have at most {EVENT_BYTES_MAX:,} bytes")
    return words


def _state_place(arguments: argparse.Namespace, words: list[str], env: Mapping[str, str]) -> str:
    """Return where progress is kept: a place that is unique to the table and the arguments."""
    if not env.get(STATE):
        raise CommandRefused(f"{STATE} is not set: there is nowhere to keep progress")
    digest = sha256(json.dumps([arguments.table, *words]).encode()).hexdigest()
    return f"{env[STATE].rstrip('/')}/{arguments.command}-{digest[:16]}"


def _refuse_unseen(arguments: argparse.Namespace) -> None:
    if not arguments.skip_mapping_check:
        raise CommandRefused(
            "cannot check here whether a mapping has caught up: Lambda and CloudWatch are out of "
            "reach. Check it elsewhere (docs/operations.md), then give --skip-mapping-check"
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
        self.summary: Mapping[str, Any] | None = None

    def document(self, document: Mapping[str, Any]) -> None:
        """Keep a JSON object, and as a line, whole if an answer can hold it."""
        self.summary = document
        self._keep(json_line(document), DOCUMENT_BYTES_MAX)

    def line(self, text: str) -> None:
        """Keep a line, cut to what an answer may hold."""
        self._keep(text, LINE_BYTES_MAX)

    def _keep(self, text: str, bytes_max: int) -> None:
        cut = text.encode(errors="backslashreplace")[:bytes_max]
        line = cut.decode(errors="ignore")
        self._lines.append(line)
        self._bytes += _size(line)
        self._ends_in_progress = False
        while len(self._lines) > LINES_MAX or self._bytes > LINES_BYTES_MAX:
            self._remove(len(self._lines) // 2)
            self._omitted += 1

    def warn(self, text: str) -> None:
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
        omitted = [f"({plural(self._omitted, 'line')} of the middle left out)"]
        return [*self._lines, *(omitted if self._omitted else [])]


def log(event: str, **fields: object) -> None:
    """Write one line to the function's log."""
    line = {
        "timestamp": timestamp(time.time_ns() // 1_000_000),
        "level": "INFO",
        "event": event,
        **fields,
    }
    print(orjson.dumps(line).decode(), flush=True)


def _size(line: str) -> int:
    return len(json.dumps(line))  # as Lambda writes an answer
