"""The command line: arguments in, one command run, an exit code out.

0 done, 1 found a difference or left work, 2 wrong arguments. An error is one line on stderr.
What a command needs is imported when it runs, so that --help works with no extra installed.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from contextlib import suppress

from asyncsync.errors import AsyncsyncError, ConfigError
from asyncsync.operate.arguments import count, more_than_0, records, whole
from asyncsync.operate.errors import (
    LEFT_WORK,
    WRONG_ARGUMENTS,
    CommandFailed,
    CommandRefused,
    require,
)
from asyncsync.operate.running import config_of, has_own_mirror, interruptible, mirror_of
from asyncsync.version import __version__


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = arguments.command
    try:
        return command(arguments)
    except CommandFailed as exc:
        return _fail(exc, exc.exit_code)
    except ConfigError as exc:
        return _fail(exc, WRONG_ARGUMENTS)
    except AsyncsyncError as exc:
        return _fail(exc, LEFT_WORK)
    except KeyboardInterrupt:
        return _fail("interrupted", LEFT_WORK)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has gone
        return LEFT_WORK


def _fail(reason: object, exit_code: int) -> int:
    print(f"asyncsync: {' '.join(str(reason).split())}", file=sys.stderr)
    return exit_code


def parser() -> argparse.ArgumentParser:
    """Describe every command that exists."""
    made = argparse.ArgumentParser(
        prog="asyncsync",
        description="Keep a Redis or Valkey copy of a DynamoDB table exact.",
    )
    made.add_argument("--version", action="version", version=f"asyncsync {__version__}")
    commands = made.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_demo(commands)
    _add_tail(commands)
    _add_check(commands)
    _add_get(commands)
    _add_backfill(commands)
    _add_audit(commands)
    _add_redrive(commands)
    _add_simulate(commands)
    return made


def _add_demo(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    about = "see it work, and the usual loop beside it, on servers of its own"
    demo = commands.add_parser("demo", help=about, description=f"{about.capitalize()}.")
    demo.add_argument("--items", type=count, default=300, help="items in the table (300)")
    demo.add_argument("--changes", type=count, default=3_000, help="changes to them (3000)")
    demo.add_argument("--seed", type=int, help="repeat the changes of an earlier run")
    demo.add_argument("--keep", action="store_true", help="leave all up until Ctrl-C, to look")
    _add_servers(demo)
    demo.set_defaults(command=_demo)


def _add_tail(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    about = "mirror a table's stream from here, for development and small tables"
    tail = commands.add_parser("tail", help=about, description=f"{about.capitalize()}.")
    tail.add_argument("--table", required=True, help="the table's name")
    tail.add_argument("--mirror", metavar="MODULE:NAME", help="a Mirror of your own")
    tail.add_argument("--batch-size", type=count, default=100, help="records a batch (100)")
    tail.add_argument(
        "--idle", type=more_than_0, metavar="S", help="end after S s without a record"
    )
    _add_servers(tail)
    tail.set_defaults(command=_tail)


def _add_check(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    about = "say of everything that must be right whether it is, and what to change"
    check = commands.add_parser("check", help=about, description=f"{about.capitalize()}.")
    check.add_argument("--function", metavar="NAME", help="the function, with its mapping")
    check.add_argument("--table", help="the table's name")
    _add_servers(check)
    check.set_defaults(command=_check)


def _add_get(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    about = "show a key's value, expiry and fence"
    get = commands.add_parser("get", help=about, description=f"{about.capitalize()}.")
    get.add_argument("key", metavar="KEY", help="the Redis key")
    get.add_argument("--json", action="store_true", help="one JSON object, for programs")
    _add_redis(get)
    get.set_defaults(command=_get)


def _add_backfill(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    about = "load what a table held before its stream, while both change"
    backfill = commands.add_parser("backfill", help=about, description=f"{about.capitalize()}.")
    backfill.add_argument("--table", required=True, help="the table's name")
    backfill.add_argument("--mirror", metavar="MODULE:NAME", help="a Mirror of your own")
    backfill.add_argument(
        "--segments", type=count, metavar="N", help="parts to scan side by side (by its size)"
    )
    backfill.add_argument(
        "--page-items", type=count, metavar="N", help="items a page at most (1 MB of them)"
    )
    backfill.add_argument(
        "--rcu", type=more_than_0, metavar="N", help="read capacity units a second to use at most"
    )
    backfill.add_argument(
        "--state", metavar="PLACE", help="where it left off: a file, or s3://bucket/prefix"
    )
    backfill.add_argument(
        "--from-export", metavar="URL", help="read an export, s3://bucket/prefix/AWSDynamoDB/id"
    )
    backfill.add_argument(
        "--assume-following",
        action="store_true",
        help="something mirrors every change since: do not look for a mapping",
    )
    backfill.add_argument("--json", action="store_true", help="one JSON object, for programs")
    _add_servers(backfill)
    backfill.set_defaults(command=_backfill)


def _add_audit(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    about = "compare a table with its copy, key by key, while both change"
    audit = commands.add_parser("audit", help=about, description=f"{about.capitalize()}.")
    audit.add_argument("--table", required=True, help="the table's name")
    audit.add_argument("--mirror", metavar="MODULE:NAME", help="a Mirror of your own")
    audit.add_argument("--sample", type=count, metavar="N", help="about N keys, drawn at random")
    audit.add_argument(
        "--settle",
        type=more_than_0,
        default=10.0,
        metavar="S",
        help="a difference must outlive S seconds (10)",
    )
    audit.add_argument(
        "--orphans",
        action=argparse.BooleanOptionalAction,
        help="scan the copy's names (where they have a prefix and the table is read whole)",
    )
    audit.add_argument("--repair", action="store_true", help="repair each finding")
    audit.add_argument(
        "--retire",
        metavar="TEMPLATE",
        help="in place of that, remove an old template's names whose items have new ones",
    )
    audit.add_argument("--show", action="store_true", help="show what item and copy hold")
    audit.add_argument(
        "--rcu", type=more_than_0, metavar="N", help="read capacity units a second to use at most"
    )
    audit.add_argument("--json", action="store_true", help="a JSON object a line, for programs")
    _add_servers(audit)
    audit.set_defaults(command=_audit)


def _add_redrive(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    about = "bring the keys of discarded batches up to date"
    redrive = commands.add_parser("redrive", help=about, description=f"{about.capitalize()}.")
    redrive.add_argument(
        "places",
        nargs="+",
        metavar="PLACE",
        help="on-failure objects: s3://bucket/prefix, a folder or a file",
    )
    redrive.add_argument("--table", required=True, help="the table's name")
    redrive.add_argument("--mirror", metavar="MODULE:NAME", help="a Mirror of your own")
    redrive.add_argument("--dry-run", action="store_true", help="write and move nothing")
    redrive.add_argument("--json", action="store_true", help="a JSON object a line, for programs")
    _add_servers(redrive)
    redrive.set_defaults(command=_redrive)


def _add_simulate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    about = "try to break the order: simulated runs under faults, each from a seed"
    simulate = commands.add_parser("simulate", help=about, description=f"{about.capitalize()}.")
    simulate.add_argument("--seeds", type=count, default=500, help="how many runs (500)")
    simulate.add_argument("--first", type=whole, default=0, help="the first run's seed (0)")
    simulate.add_argument("--seed", type=whole, help="one run alone")
    simulate.add_argument("--trace", action="store_true", help="with --seed: tell its story")
    simulate.add_argument(
        "--violations", type=count, default=10, metavar="N", help="end after so many (10)"
    )
    simulate.add_argument("--jobs", type=count, help="processes (one for each core)")
    simulate.add_argument(
        "--scope",
        type=records,
        metavar="N",
        help="play every history of up to N records of two items, with one fault (1 to 4)",
    )
    simulate.set_defaults(command=_simulate)


def _add_servers(command: argparse.ArgumentParser) -> None:
    command.add_argument("--endpoint-url", metavar="URL", help="a DynamoDB of your own")
    _add_redis(command)


def _add_redis(command: argparse.ArgumentParser) -> None:
    command.add_argument("--redis-url", metavar="URL", help="a Redis of your own")


def _say(line: str) -> None:
    print(line, flush=True)


def _program() -> str:
    """Say how this command line was called, so that a line it prints can be pasted."""
    if os.path.basename(sys.argv[0]) == "__main__.py":
        return f"{os.path.relpath(sys.executable)} -m asyncsync"
    return "asyncsync"


def _demo(arguments: argparse.Namespace) -> int:
    require("demo", "demo", ("aioboto3", "anyio", "moto", "flask"))
    from asyncsync.lab.demo import demo
    from asyncsync.lab.stage import DemoOptions

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
        return 0 if demo(options, os.environ, _say) else LEFT_WORK


def _tail(arguments: argparse.Namespace) -> int:
    require("tail", "tools", ("aioboto3", "anyio"))
    import anyio

    from asyncsync.operate.tail import TailOptions, tail

    options = TailOptions(
        table=arguments.table,
        endpoint_url=arguments.endpoint_url,
        mirror=arguments.mirror,
        batch_size=arguments.batch_size,
        idle_s=arguments.idle,
    )
    config = None if has_own_mirror(arguments) else config_of(arguments)
    with interruptible(), suppress(KeyboardInterrupt):  # Ctrl-C is how it ends
        anyio.run(tail, options, config, os.environ, _say)
    return 0


def _backfill(arguments: argparse.Namespace) -> int:
    require("backfill", "tools", ("aioboto3", "anyio"))
    import anyio

    from asyncsync.operate.backfill import BackfillOptions, backfill

    options = BackfillOptions(
        table=arguments.table,
        endpoint_url=arguments.endpoint_url,
        segments=arguments.segments,
        page_items=arguments.page_items,
        rcu=arguments.rcu,
        state=arguments.state,
        from_export=arguments.from_export,
        assume_following=arguments.assume_following,
        as_json=arguments.json,
    )
    mirror = mirror_of(arguments)
    with interruptible():
        return 0 if anyio.run(backfill, options, mirror, os.environ, _say) else LEFT_WORK


def _audit(arguments: argparse.Namespace) -> int:
    require("audit", "tools", ("aioboto3", "anyio"))
    if arguments.retire is not None:
        return _retire(arguments)
    import anyio

    from asyncsync.operate.audit import AuditOptions, audit

    options = AuditOptions(
        table=arguments.table,
        endpoint_url=arguments.endpoint_url,
        sample=arguments.sample,
        settle_s=arguments.settle,
        orphans=arguments.orphans,
        repair=arguments.repair,
        show=arguments.show,
        rcu=arguments.rcu,
        as_json=arguments.json,
    )
    mirror = mirror_of(arguments)
    with interruptible():
        return 0 if anyio.run(audit, options, mirror, os.environ, _say) else LEFT_WORK


def _retire(arguments: argparse.Namespace) -> int:
    if arguments.repair or arguments.sample or arguments.show:
        raise CommandRefused("--retire removes old names and nothing else: give it by itself")
    import anyio

    from asyncsync.operate.retire import RetireOptions, retire

    options = RetireOptions(
        table=arguments.table,
        template=arguments.retire,
        endpoint_url=arguments.endpoint_url,
        orphans=bool(arguments.orphans),
        as_json=arguments.json,
    )
    mirror = mirror_of(arguments)
    with interruptible():
        return 0 if anyio.run(retire, options, mirror, os.environ, _say) else LEFT_WORK


def _redrive(arguments: argparse.Namespace) -> int:
    require("redrive", "tools", ("aioboto3", "anyio"))
    import anyio

    from asyncsync.operate.redrive import RedriveOptions, redrive

    options = RedriveOptions(
        table=arguments.table,
        places=arguments.places,
        endpoint_url=arguments.endpoint_url,
        dry_run=arguments.dry_run,
        as_json=arguments.json,
    )
    mirror = mirror_of(arguments)
    with interruptible():
        return 0 if anyio.run(redrive, options, mirror, os.environ, _say) else LEFT_WORK


def _check(arguments: argparse.Namespace) -> int:
    if arguments.function is not None or arguments.table is not None:
        require("check", "tools", ("aioboto3",))
    import asyncio
    import secrets

    from asyncsync.operate.check import CheckOptions, check

    options = CheckOptions(
        function=arguments.function,
        table=arguments.table,
        endpoint_url=arguments.endpoint_url,
        redis_url=arguments.redis_url,
        nonces=(secrets.token_hex(8), secrets.token_hex(8)),
    )
    is_right = asyncio.run(check(options, os.environ, lambda verdict: _say(str(verdict))))
    return 0 if is_right else LEFT_WORK


def _get(arguments: argparse.Namespace) -> int:
    from asyncsync.operate.get import get

    config = config_of(arguments)
    is_there = get(arguments.key, config, os.environ, as_json=arguments.json, say=_say)
    return 0 if is_there else LEFT_WORK


def _simulate(arguments: argparse.Namespace) -> int:
    if arguments.trace and arguments.seed is None:
        raise CommandRefused("--trace tells one run's story: give it with --seed")
    own = ("tools", ("aioboto3", "anyio")) if arguments.scope is None else ("demo", ("lupa",))
    require("simulate", *own)
    from asyncsync.operate.simulate import SimulateOptions, is_good, simulate, tell, whole_scope

    with interruptible():
        if arguments.scope is not None:
            return 0 if whole_scope(arguments.scope, arguments.violations, _say) else LEFT_WORK
        if arguments.seed is not None:
            ended = tell(arguments.seed, _say, trace=arguments.trace)
            return LEFT_WORK if ended.violation else 0
        options = SimulateOptions(
            first=arguments.first,
            seeds=arguments.seeds,
            jobs=arguments.jobs or os.cpu_count() or 1,
            violations_max=arguments.violations,
            program=_program(),
        )
        return 0 if is_good(simulate(options, _say)) else LEFT_WORK
