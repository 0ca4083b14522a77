"""The command line: runs one command and returns its exit code (exit_codes.py).

An error is one line on stderr. Each command imports what it needs when it runs, so that --help
works without any extra installed.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress

from asyncsync.cli.arguments import build_parser
from asyncsync.cli.commands import (
    TABLE_COMMANDS,
    config_of,
    has_own_mirror,
    interruptible,
    mirror_of,
    options_of,
    table_command,
)
from asyncsync.cli.exit_codes import DONE, LEFT_WORK, exit_code_of
from asyncsync.errors import AsyncsyncError
from asyncsync.tools.errors import CommandRefused, require
from asyncsync.tools.output import Output


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = build_parser().parse_args(argv)
    output = Output(sys.stdout, sys.stderr)
    try:
        return DONE if COMMANDS[arguments.command](arguments, output) else LEFT_WORK
    except AsyncsyncError as exc:
        output.note(_error_line(exc))
        return exit_code_of(exc)
    except KeyboardInterrupt:
        output.note(_error_line("interrupted"))
        return LEFT_WORK
    except BrokenPipeError:  # the reader of stdout has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return LEFT_WORK


def _error_line(reason: object) -> str:
    return f"asyncsync: {' '.join(str(reason).split())}"


def _program() -> str:
    """Return how this command line was called, for lines that a user pastes."""
    if os.path.basename(sys.argv[0]) == "__main__.py":
        return f"{os.path.relpath(sys.executable)} -m asyncsync"
    return "asyncsync"


def _demo(arguments: argparse.Namespace, output: Output) -> bool:
    require("demo", "demo", ("aioboto3", "anyio", "moto", "flask"))
    from asyncsync.lab.demo.command import demo
    from asyncsync.lab.demo.stage import DemoOptions

    options = options_of(DemoOptions, arguments, program=_program())
    with interruptible():
        return demo(options, os.environ, output)


def _run(arguments: argparse.Namespace, output: Output) -> bool:
    require("run", "tools", ("aioboto3", "anyio"))
    import anyio

    from asyncsync.tools.run.command import RunOptions, run

    options = options_of(RunOptions, arguments)
    config = None if has_own_mirror(arguments) else config_of(arguments)
    with interruptible(), suppress(KeyboardInterrupt):  # Ctrl-C is how it ends
        anyio.run(run, options, config, os.environ, output)
    return True


def _on_table(arguments: argparse.Namespace, output: Output) -> bool:
    require(arguments.command, "tools", ("aioboto3", "anyio"))
    import anyio

    command, mirror = table_command(arguments), mirror_of(arguments)
    with interruptible():
        return anyio.run(command, mirror, os.environ, output)


def _check(arguments: argparse.Namespace, output: Output) -> bool:
    if arguments.function is not None or arguments.table is not None:
        require("check", "tools", ("aioboto3",))
    import asyncio
    import secrets

    from asyncsync.tools.check.command import CheckOptions, check

    nonces = (secrets.token_hex(8), secrets.token_hex(8))
    options = options_of(CheckOptions, arguments, nonces=nonces)
    return asyncio.run(check(options, os.environ, output))


def _get(arguments: argparse.Namespace, output: Output) -> bool:
    from asyncsync.tools.get import get

    config = config_of(arguments)
    return get(arguments.key, config, os.environ, output, as_json=arguments.as_json)


def _simulate(arguments: argparse.Namespace, output: Output) -> bool:
    if arguments.trace and arguments.seed is None:
        raise CommandRefused("--trace prints the steps of one run: give --seed, too")
    if arguments.scope is None:
        require("simulate", "tools", ("aioboto3", "anyio"))
    else:
        require("simulate", "demo", ("lupa",))
    from asyncsync.lab.simulation.command import (
        SimulateOptions,
        is_good,
        simulate,
        tell,
        whole_scope,
    )

    with interruptible():
        if arguments.scope is not None:
            return whole_scope(arguments.scope, arguments.violations_max, output)
        if arguments.seed is not None:
            return not tell(arguments.seed, output, trace=arguments.trace).violation
        jobs = arguments.jobs or os.cpu_count() or 1
        options = options_of(SimulateOptions, arguments, jobs=jobs, program=_program())
        return is_good(simulate(options, output))


COMMANDS: Mapping[str, Callable[[argparse.Namespace, Output], bool]] = {
    "demo": _demo,
    "check": _check,
    "run": _run,
    "get": _get,
    **dict.fromkeys(TABLE_COMMANDS, _on_table),
    "simulate": _simulate,
}
