"""The command line: runs one command and returns its exit code (exit_codes.py).

An error is one line on stderr. Each command imports what it needs when it runs, so that --help
works without any extra installed.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace

from asyncsync.cli.arguments import build_parser
from asyncsync.cli.exit_codes import (
    DONE,
    INTERRUPTED,
    LEFT_WORK,
    WRONG_ARGUMENTS,
    exit_code_of,
)
from asyncsync.errors import AsyncsyncError
from asyncsync.tools.errors import CommandRefused, UserCodeFailed, require
from asyncsync.tools.output import INTERVAL_S, Output


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    words = sys.argv[1:] if argv is None else argv
    parser = build_parser()
    if not words:
        parser.print_help(sys.stderr)
        return WRONG_ARGUMENTS
    arguments = parser.parse_args(words)
    output = _output(arguments)
    try:
        with output.ticking():
            return DONE if COMMANDS[arguments.command](arguments, output) else LEFT_WORK
    except AsyncsyncError as exc:
        output.warn(_error_line(exc))
        return exit_code_of(exc)
    except UserCodeFailed as exc:
        output.warn(str(exc))
        return LEFT_WORK
    except KeyboardInterrupt:
        output.warn(_error_line(f"interrupted{_how_to_resume(arguments)}"))
        return INTERRUPTED
    except BrokenPipeError:  # the reader of stdout has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return LEFT_WORK


def _output(arguments: argparse.Namespace) -> Output:
    is_dumb = os.environ.get("TERM") == "dumb"
    return Output(
        sys.stdout,
        sys.stderr,
        interval_s=INTERVAL_S if is_dumb else None,
        is_quiet=getattr(arguments, "quiet", False),
        has_colour=not (is_dumb or os.environ.get("NO_COLOR")),
    )


def _error_line(reason: object) -> str:
    return f"asyncsync: {' '.join(str(reason).split())}"


def _how_to_resume(arguments: argparse.Namespace) -> str:
    if "state" not in arguments:
        return ""
    if arguments.state:
        return f": resume with the same arguments and --state {arguments.state}"
    return ": without --state no progress is kept, so the next run begins again"


def _program() -> str:
    """Return how this command line was called, for lines that a user pastes."""
    if os.path.basename(sys.argv[0]) == "__main__.py":
        return f"{os.path.relpath(sys.executable)} -m asyncsync"
    return "asyncsync"


def _demo(arguments: argparse.Namespace, output: Output) -> bool:
    require("demo", "demo", ("aioboto3", "anyio", "moto", "flask"))
    from asyncsync.cli.commands import interruptible, options_of, without_aws_settings
    from asyncsync.lab.demo.command import demo
    from asyncsync.lab.demo.stage import DemoOptions

    options = options_of(DemoOptions, arguments, program=_program())
    if arguments.endpoint_url is not None:
        with interruptible():
            return demo(options, os.environ, output)
    options = replace(options, region=None, profile=None)
    with interruptible(), without_aws_settings():
        return demo(options, os.environ, output)


def _on_table(arguments: argparse.Namespace, output: Output) -> bool:
    require(arguments.command, "tools", ("aioboto3", "anyio"))
    import anyio

    from asyncsync.cli.commands import interruptible, on_table

    with interruptible():
        return anyio.run(on_table, arguments, os.environ, output)


def _check(arguments: argparse.Namespace, output: Output) -> bool:
    if arguments.function is not None or arguments.table is not None:
        require("check", "tools", ("aioboto3",))
    import asyncio

    from asyncsync.cli.checking import check_setup
    from asyncsync.cli.commands import interruptible

    with interruptible():
        return asyncio.run(check_setup(arguments, os.environ, output))


def _get(arguments: argparse.Namespace, output: Output) -> bool:
    if arguments.function is not None:
        require("get", "tools", ("aioboto3",))
    import asyncio

    from asyncsync.cli.commands import get_key, interruptible

    with interruptible():
        return asyncio.run(get_key(arguments, os.environ, output))


def _estimate(arguments: argparse.Namespace, output: Output) -> bool:
    if arguments.table is not None:
        require("estimate", "tools", ("aioboto3",))
    import asyncio

    from asyncsync.cli.commands import interruptible
    from asyncsync.cli.estimating import estimate

    with interruptible():
        return asyncio.run(estimate(arguments, os.environ, output))


def _index(arguments: argparse.Namespace, output: Output) -> bool:
    require("index", "tools", ("aioboto3", "anyio"))
    import asyncio

    from asyncsync.cli.commands import interruptible
    from asyncsync.cli.indexing import make_index

    with interruptible():
        return asyncio.run(make_index(arguments, os.environ, output))


def _simulate(arguments: argparse.Namespace, output: Output) -> bool:
    if arguments.trace and arguments.seed is None:
        raise CommandRefused("--trace prints the steps of one run: give --seed, too")
    if arguments.scope is None:
        require("simulate", "tools", ("aioboto3", "anyio"))
    else:
        require("simulate", "demo", ("lupa",))
    from asyncsync.cli.commands import interruptible, options_of
    from asyncsync.lab.simulation.command import (
        SimulateOptions,
        is_good,
        simulate,
        tell,
        whole_scope,
    )

    jobs = arguments.jobs or os.cpu_count() or 1
    options = options_of(SimulateOptions, arguments, jobs=jobs, program=_program())
    with interruptible():
        if arguments.scope is not None:
            return whole_scope(arguments.scope, options, output)
        if arguments.seed is not None:
            return not tell(
                arguments.seed, output, trace=arguments.trace, as_json=arguments.as_json
            ).violation
        return is_good(simulate(options, output))


def _completion(arguments: argparse.Namespace, output: Output) -> bool:
    from asyncsync.cli.completion import script

    output.line(script(build_parser(), arguments.shell))
    return True


COMMANDS: Mapping[str, Callable[[argparse.Namespace, Output], bool]] = {
    "demo": _demo,
    "check": _check,
    "get": _get,
    **dict.fromkeys(("run", "backfill", "audit", "redrive", "retire"), _on_table),
    "index": _index,
    "estimate": _estimate,
    "simulate": _simulate,
    "completion": _completion,
}
