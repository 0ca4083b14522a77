"""The command line: arguments in, one command run, an exit code out.

0 done, 1 found a difference or left work, 2 wrong arguments. An error is one line on stderr.
What a command needs is imported when it runs, so that --help works with no extra installed.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress

from asyncsync.cli.arguments import parser
from asyncsync.cli.commands import config_of, has_own_mirror, interruptible, mirror_of, work_of
from asyncsync.cli.exit_codes import DONE, LEFT_WORK, exit_code_of
from asyncsync.errors import AsyncsyncError
from asyncsync.tools.errors import CommandRefused, require
from asyncsync.tools.output import Output


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = parser().parse_args(argv)
    output = Output(sys.stdout, sys.stderr)
    try:
        return COMMANDS[arguments.command](arguments, output)
    except AsyncsyncError as exc:
        return _fail(exc, exit_code_of(exc))
    except KeyboardInterrupt:
        return _fail("interrupted", LEFT_WORK)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has gone
        return LEFT_WORK


def _fail(reason: object, exit_code: int) -> int:
    print(f"asyncsync: {' '.join(str(reason).split())}", file=sys.stderr)
    return exit_code


def _program() -> str:
    """Say how this command line was called, so that a line it prints can be pasted."""
    if os.path.basename(sys.argv[0]) == "__main__.py":
        return f"{os.path.relpath(sys.executable)} -m asyncsync"
    return "asyncsync"


def _demo(arguments: argparse.Namespace, output: Output) -> int:
    require("demo", "demo", ("aioboto3", "anyio", "moto", "flask"))
    from asyncsync.lab.demo.command import demo
    from asyncsync.lab.demo.stage import DemoOptions

    options = DemoOptions(
        items=arguments.items,
        changes=arguments.changes,
        seed=arguments.seed,
        keep=arguments.keep,
        redis_url=arguments.redis_url,
        endpoint_url=arguments.endpoint_url,
        program=_program(),
    )
    with interruptible():
        return DONE if demo(options, os.environ, output) else LEFT_WORK


def _tail(arguments: argparse.Namespace, output: Output) -> int:
    require("tail", "tools", ("aioboto3", "anyio"))
    import anyio

    from asyncsync.tools.run.command import TailOptions, tail

    options = TailOptions(
        table=arguments.table,
        endpoint_url=arguments.endpoint_url,
        mirror=arguments.mirror,
        batch_size=arguments.batch_size,
        idle_s=arguments.idle,
    )
    config = None if has_own_mirror(arguments) else config_of(arguments)
    with interruptible(), suppress(KeyboardInterrupt):  # Ctrl-C is how it ends
        anyio.run(tail, options, config, os.environ, output)
    return DONE


def _on_a_table(arguments: argparse.Namespace, output: Output) -> int:
    require(arguments.command, "tools", ("aioboto3", "anyio"))
    import anyio

    work = work_of(arguments)
    mirror = mirror_of(arguments)
    with interruptible():
        return DONE if anyio.run(work, mirror, os.environ, output) else LEFT_WORK


def _check(arguments: argparse.Namespace, output: Output) -> int:
    if arguments.function is not None or arguments.table is not None:
        require("check", "tools", ("aioboto3",))
    import asyncio
    import secrets

    from asyncsync.tools.check.command import CheckOptions, check

    options = CheckOptions(
        function=arguments.function,
        table=arguments.table,
        endpoint_url=arguments.endpoint_url,
        redis_url=arguments.redis_url,
        nonces=(secrets.token_hex(8), secrets.token_hex(8)),
    )
    is_right = asyncio.run(check(options, os.environ, output))
    return DONE if is_right else LEFT_WORK


def _get(arguments: argparse.Namespace, output: Output) -> int:
    from asyncsync.tools.get import get

    config = config_of(arguments)
    is_there = get(arguments.key, config, os.environ, output, as_json=arguments.json)
    return DONE if is_there else LEFT_WORK


def _simulate(arguments: argparse.Namespace, output: Output) -> int:
    if arguments.trace and arguments.seed is None:
        raise CommandRefused("--trace tells one run's story: give it with --seed")
    own = ("tools", ("aioboto3", "anyio")) if arguments.scope is None else ("demo", ("lupa",))
    require("simulate", *own)
    from asyncsync.lab.simulation.command import (
        SimulateOptions,
        is_good,
        simulate,
        tell,
        whole_scope,
    )

    with interruptible():
        if arguments.scope is not None:
            return (
                DONE if whole_scope(arguments.scope, arguments.violations, output) else LEFT_WORK
            )
        if arguments.seed is not None:
            ended = tell(arguments.seed, output, trace=arguments.trace)
            return LEFT_WORK if ended.violation else DONE
        options = SimulateOptions(
            first=arguments.first,
            seeds=arguments.seeds,
            jobs=arguments.jobs or os.cpu_count() or 1,
            violations_max=arguments.violations,
            program=_program(),
        )
        return DONE if is_good(simulate(options, output)) else LEFT_WORK


COMMANDS: Mapping[str, Callable[[argparse.Namespace, Output], int]] = {
    "demo": _demo,
    "tail": _tail,
    "check": _check,
    "get": _get,
    "backfill": _on_a_table,
    "audit": _on_a_table,
    "redrive": _on_a_table,
    "simulate": _simulate,
}
