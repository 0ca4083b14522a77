"""The command line's arguments: every command, every option, and what each may be."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from asyncsync.version import __version__


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a place where commands run knows by itself, so that arguments may leave it out."""

    table: str | None = None
    places: Sequence[str] = ()  # of on-failure objects


NONE = Defaults()


def parser(defaults: Defaults = NONE) -> argparse.ArgumentParser:
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
    _add_backfill(commands, defaults)
    _add_audit(commands, defaults)
    _add_redrive(commands, defaults)
    _add_simulate(commands)
    return made


def _add_demo(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    about = "see it work, and the usual loop beside it, on servers of its own"
    demo = commands.add_parser("demo", help=about, description=f"{about.capitalize()}.")
    demo.add_argument("--items", type=positive_int, default=300, help="items in the table (300)")
    demo.add_argument("--changes", type=positive_int, default=3_000, help="changes to them (3000)")
    demo.add_argument("--seed", type=int, help="repeat the changes of an earlier run")
    demo.add_argument("--keep", action="store_true", help="leave all up until Ctrl-C, to look")
    _add_servers(demo)
    demo.set_defaults(command="demo")


def _add_tail(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    about = "mirror a table's stream from here, for development and small tables"
    tail = commands.add_parser("tail", help=about, description=f"{about.capitalize()}.")
    _add_table(tail, NONE)
    tail.add_argument("--batch-size", type=positive_int, default=100, help="records a batch (100)")
    tail.add_argument(
        "--idle", type=positive_float, metavar="S", help="end after S s without a record"
    )
    _add_servers(tail)
    tail.set_defaults(command="tail")


def _add_check(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    about = "say of everything that must be right whether it is, and what to change"
    check = commands.add_parser("check", help=about, description=f"{about.capitalize()}.")
    check.add_argument("--function", metavar="NAME", help="the function, with its mapping")
    check.add_argument("--table", help="the table's name")
    _add_servers(check)
    check.set_defaults(command="check")


def _add_get(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    about = "show a key's value, expiry and fence"
    get = commands.add_parser("get", help=about, description=f"{about.capitalize()}.")
    get.add_argument("key", metavar="KEY", help="the Redis key")
    get.add_argument("--json", action="store_true", help="one JSON object, for programs")
    _add_redis(get)
    get.set_defaults(command="get")


def _add_backfill(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], defaults: Defaults
) -> None:
    about = "load what a table held before its stream, while both change"
    backfill = commands.add_parser("backfill", help=about, description=f"{about.capitalize()}.")
    _add_table(backfill, defaults)
    backfill.add_argument(
        "--segments",
        type=positive_int,
        metavar="N",
        help="parts to scan (by its size)",
    )
    backfill.add_argument(
        "--only",
        type=int_range,
        metavar="N[-N]",
        help="of the segments, counted from 0, these alone",
    )
    backfill.add_argument(
        "--page-items", type=positive_int, metavar="N", help="items a page at most (1 MB of them)"
    )
    _add_rcu(backfill)
    _add_state(backfill)
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
    backfill.set_defaults(command="backfill")


def _add_audit(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], defaults: Defaults
) -> None:
    about = "compare a table with its copy, key by key, while both change"
    audit = commands.add_parser("audit", help=about, description=f"{about.capitalize()}.")
    _add_table(audit, defaults)
    audit.add_argument(
        "--sample", type=positive_int, metavar="N", help="about N keys, drawn at random"
    )
    audit.add_argument(
        "--settle",
        type=positive_float,
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
    _add_rcu(audit)
    _add_state(audit)
    audit.add_argument("--json", action="store_true", help="a JSON object a line, for programs")
    _add_servers(audit)
    audit.set_defaults(command="audit")


def _add_redrive(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], defaults: Defaults
) -> None:
    about = "bring the keys of discarded batches up to date"
    redrive = commands.add_parser("redrive", help=about, description=f"{about.capitalize()}.")
    redrive.add_argument(
        "places",
        nargs="*" if defaults.places else "+",
        default=defaults.places,
        metavar="PLACE",
        help="on-failure objects: s3://bucket/prefix, a folder or a file",
    )
    _add_table(redrive, defaults)
    _add_state(redrive)
    redrive.add_argument("--dry-run", action="store_true", help="write and move nothing")
    redrive.add_argument("--json", action="store_true", help="a JSON object a line, for programs")
    _add_servers(redrive)
    redrive.set_defaults(command="redrive")


def _add_simulate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    about = "try to break the order: simulated runs under faults, each from a seed"
    simulate = commands.add_parser("simulate", help=about, description=f"{about.capitalize()}.")
    simulate.add_argument("--seeds", type=positive_int, default=500, help="how many runs (500)")
    simulate.add_argument(
        "--first", type=non_negative_int, default=0, help="the first run's seed (0)"
    )
    simulate.add_argument("--seed", type=non_negative_int, help="one run alone")
    simulate.add_argument("--trace", action="store_true", help="with --seed: tell its story")
    simulate.add_argument(
        "--violations", type=positive_int, default=10, metavar="N", help="end after so many (10)"
    )
    simulate.add_argument("--jobs", type=positive_int, help="processes (one for each core)")
    simulate.add_argument(
        "--scope",
        type=scope_size,
        metavar="N",
        help="play every history of up to N records of two items, with one fault (1 to 4)",
    )
    simulate.set_defaults(command="simulate")


def _add_table(command: argparse.ArgumentParser, defaults: Defaults) -> None:
    known = defaults.table
    command.add_argument("--table", required=known is None, default=known, help="the table's name")
    command.add_argument("--mirror", metavar="MODULE:NAME", help="a Mirror of your own")


def _add_rcu(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--rcu",
        type=positive_float,
        metavar="N",
        help="read capacity units a second to use at most",
    )


def _add_state(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--state", metavar="PLACE", help="where it left off: a file, or s3://bucket/prefix"
    )


def _add_servers(command: argparse.ArgumentParser) -> None:
    command.add_argument("--endpoint-url", metavar="URL", help="a DynamoDB of your own")
    _add_redis(command)


def _add_redis(command: argparse.ArgumentParser) -> None:
    command.add_argument("--redis-url", metavar="URL", help="a Redis of your own")


# --- values ------------------------------------------------------------------------------------


def positive_int(text: str) -> int:
    """Read a whole number of 1 or more."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def non_negative_int(text: str) -> int:
    """Read a whole number of 0 or more."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError("must be 0 or more")
    return number


def int_range(text: str) -> range:
    """Read one whole number, or the first and the last of some."""
    first, _, last = text.partition("-")
    numbers = range(non_negative_int(first), non_negative_int(last or first) + 1)
    if not numbers:
        raise argparse.ArgumentTypeError("must be a number, or the first and the last, as 0-7")
    return numbers


def scope_size(text: str) -> int:
    """Read how many records a history of the small scope has."""
    number = int(text)
    if not 1 <= number <= 4:
        raise argparse.ArgumentTypeError("must be 1 to 4: with 5 there are a million")
    return number


def positive_float(text: str) -> float:
    """Read a number greater than 0."""
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError("must be more than 0")
    return number
