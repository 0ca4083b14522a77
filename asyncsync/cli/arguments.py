"""The command line's arguments: every command, every option, and what each may be.

An option's `dest` is the name of the field that takes it in the command's options.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from asyncsync.version import __version__

if TYPE_CHECKING:
    # The type has no public name.
    Commands: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001


@dataclass(frozen=True, slots=True)
class Defaults:
    """Arguments that the place where commands run already knows."""

    table: str | None = None
    places: Sequence[str] = ()  # of on-failure objects


NO_DEFAULTS = Defaults()


def build_parser(defaults: Defaults = NO_DEFAULTS) -> argparse.ArgumentParser:
    """Return the parser of every command; an argument with a default may be left out."""
    parser = argparse.ArgumentParser(
        prog="asyncsync",
        description="Keep an exact copy of a DynamoDB table in Redis or Valkey.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"asyncsync {__version__}")
    commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", required=True, dest="command"
    )
    _add_demo(commands)
    _add_check(commands)
    _add_run(commands)
    _add_get(commands)
    _add_backfill(commands, defaults)
    _add_audit(commands, defaults)
    _add_redrive(commands, defaults)
    _add_retire(commands, defaults)
    _add_simulate(commands)
    return parser


def _command(commands: Commands, name: str, summary: str) -> argparse.ArgumentParser:
    return commands.add_parser(name, help=summary, description=f"{summary}.", allow_abbrev=False)


def _add_demo(commands: Commands) -> None:
    demo = _command(
        commands, "demo", "Run a local demo next to the usual one-SET-per-record handler"
    )
    demo.add_argument(
        "--items",
        type=positive_int,
        default=300,
        metavar="N",
        help="Items in the table (default: 300)",
    )
    demo.add_argument(
        "--changes",
        type=positive_int,
        default=3_000,
        metavar="N",
        help="Changes to make (default: 3,000)",
    )
    demo.add_argument("--seed", type=int, metavar="N", help="Repeat an earlier run's changes")
    demo.add_argument("--keep", action="store_true", help="Keep the servers running until Ctrl-C")
    demo.add_argument(
        "--endpoint-url", metavar="URL", help="DynamoDB endpoint (default: start one)"
    )
    demo.add_argument("--redis-url", metavar="URL", help="Redis URL (default: start a server)")


def _add_check(commands: Commands) -> None:
    check = _command(
        commands, "check", "Check the server, table, function and mapping; say what to fix"
    )
    check.add_argument("--function", metavar="NAME", help="Check this function and its mapping")
    check.add_argument("--table", metavar="NAME", help="Check this table and its stream")
    _add_servers(check)


def _add_run(commands: Commands) -> None:
    run = _command(commands, "run", "Mirror a table's stream from this machine, for development")
    _add_table(run, NO_DEFAULTS)
    run.add_argument(
        "--batch-size",
        type=positive_int,
        default=100,
        metavar="N",
        help="Records per batch (default: 100)",
    )
    run.add_argument(
        "--exit-when-idle",
        dest="exit_when_idle_s",
        type=positive_float,
        metavar="S",
        help="Exit after S seconds without a record (default: never)",
    )
    _add_servers(run)


def _add_get(commands: Commands) -> None:
    get = _command(commands, "get", "Show a key's value, expiry and fence")
    get.add_argument("key", metavar="KEY", help="Redis key")
    _add_json(get, "Print one JSON object")
    _add_redis(get)


def _add_backfill(commands: Commands, defaults: Defaults) -> None:
    backfill = _command(
        commands, "backfill", "Load the items that the table had before its stream"
    )
    _add_table(backfill, defaults)
    backfill.add_argument(
        "--segments",
        type=positive_int,
        metavar="N",
        help="Scan in N segments (default: by the table's size)",
    )
    backfill.add_argument(
        "--only-segments",
        type=int_range,
        metavar="N[-N]",
        help="Scan only these segments, e.g. 0-7 (they count from 0)",
    )
    backfill.add_argument(
        "--page-items",
        type=positive_int,
        metavar="N",
        help="Read at most N items per page (default: 1 MB)",
    )
    backfill.add_argument(
        "--from-export",
        metavar="URL",
        help="Load an export instead: s3://bucket/prefix/AWSDynamoDB/id",
    )
    backfill.add_argument(
        "--skip-mapping-check",
        action="store_true",
        help="Skip the check that an enabled mapping has caught up",
    )
    _add_max_rcu(backfill)
    _add_state(backfill)
    _add_json(backfill, "Print one JSON object")
    _add_servers(backfill)


def _add_audit(commands: Commands, defaults: Defaults) -> None:
    audit = _command(commands, "audit", "Compare a table with its copy, key by key")
    _add_table(audit, defaults)
    audit.add_argument(
        "--sample",
        type=positive_int,
        metavar="N",
        help="Compare about N random keys (default: all)",
    )
    audit.add_argument(
        "--recheck-after",
        dest="recheck_after_s",
        type=positive_float,
        default=10.0,
        metavar="S",
        help="Check a difference again after S seconds (default: 10)",
    )
    audit.add_argument(
        "--orphans",
        action=argparse.BooleanOptionalAction,
        help="Find keys without items (default: yes, unless --sample or no prefix)",
    )
    audit.add_argument("--repair", action="store_true", help="Repair each finding")
    audit.add_argument("--show-values", action="store_true", help="Show what table and copy hold")
    _add_max_rcu(audit)
    _add_state(audit)
    _add_json(audit, "Print one JSON object per line")
    _add_servers(audit)


def _add_redrive(commands: Commands, defaults: Defaults) -> None:
    redrive = _command(commands, "redrive", "Bring the keys of failed batches up to date")
    redrive.add_argument(
        "places",
        nargs="*" if defaults.places else "+",
        default=defaults.places,
        metavar="PLACE",
        help="On-failure objects: s3://bucket/prefix, a folder or a file",
    )
    _add_table(redrive, defaults)
    redrive.add_argument("--dry-run", action="store_true", help="Write and move nothing")
    _add_state(redrive)
    _add_json(redrive, "Print one JSON object per line")
    _add_servers(redrive)


def _add_retire(commands: Commands, defaults: Defaults) -> None:
    retire = _command(
        commands, "retire", "Delete an old template's keys once each item has its new key"
    )
    retire.add_argument("template", metavar="TEMPLATE", help="The old key template")
    _add_table(retire, defaults)
    retire.add_argument(
        "--scan-all-keys",
        action="store_true",
        help="Retire a template without a prefix: every key may match",
    )
    _add_state(retire)
    _add_json(retire, "Print one JSON object")
    _add_servers(retire)


def _add_simulate(commands: Commands) -> None:
    simulate = _command(
        commands, "simulate", "Run the fault simulator: one seeded run after another"
    )
    simulate.add_argument(
        "--seeds",
        type=positive_int,
        default=500,
        metavar="N",
        help="Number of runs (default: 500)",
    )
    simulate.add_argument(
        "--first",
        type=non_negative_int,
        default=0,
        metavar="N",
        help="Seed of the first run (default: 0)",
    )
    simulate.add_argument("--seed", type=non_negative_int, metavar="N", help="Run only this seed")
    simulate.add_argument(
        "--trace", action="store_true", help="Print every step (only with --seed)"
    )
    simulate.add_argument(
        "--violations",
        dest="violations_max",
        type=positive_int,
        default=10,
        metavar="N",
        help="Stop after N violations (default: 10)",
    )
    simulate.add_argument(
        "--jobs", type=positive_int, metavar="N", help="Processes (default: one per core)"
    )
    simulate.add_argument(
        "--scope",
        type=scope_size,
        metavar="N",
        help="Play every history of up to N records (1 to 4)",
    )


def _add_table(command: argparse.ArgumentParser, defaults: Defaults) -> None:
    command.add_argument(
        "--table",
        required=defaults.table is None,
        default=defaults.table,
        metavar="NAME",
        help="Table name",
    )
    command.add_argument(
        "--mirror",
        metavar="MODULE:NAME",
        help="Use this asyncsync.Mirror instead of the settings",
    )


def _add_max_rcu(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--max-rcu",
        type=positive_float,
        metavar="N",
        help="Use at most N read capacity units per second",
    )


def _add_state(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--state",
        metavar="PLACE",
        help="Keep progress in a file or s3://bucket/prefix, to resume",
    )


def _add_json(command: argparse.ArgumentParser, summary: str) -> None:
    command.add_argument("--json", dest="as_json", action="store_true", help=summary)


def _add_servers(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--endpoint-url", metavar="URL", help="DynamoDB endpoint (default: the Region's)"
    )
    _add_redis(command)


def _add_redis(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--redis-url", metavar="URL", help="Redis URL (default: $ASYNCSYNC_REDIS_URL)"
    )


# --- values -----------------------------------------------------------------------------------


def positive_int(text: str) -> int:
    """Parse a whole number of 1 or more."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def non_negative_int(text: str) -> int:
    """Parse a whole number of 0 or more."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError("must be 0 or more")
    return number


def int_range(text: str) -> range:
    """Parse one number, or a first and a last number: "7" or "0-7"."""
    first, _, last = text.partition("-")
    numbers = range(non_negative_int(first), non_negative_int(last or first) + 1)
    if not numbers:
        raise argparse.ArgumentTypeError("must be a number or a range, e.g. 0-7")
    return numbers


def scope_size(text: str) -> int:
    """Parse the most records that a history of the small scope may have."""
    number = int(text)
    if not 1 <= number <= 4:
        raise argparse.ArgumentTypeError("must be 1 to 4: 5 records have a million histories")
    return number


def positive_float(text: str) -> float:
    """Parse a finite number above 0."""
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError("must be more than 0")
    return number
