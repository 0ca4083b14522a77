"""The command line's arguments: every command, every option, and what each may be.

An option's `dest` is the name of the field that takes it in the command's options.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any, TypeAlias

from asyncsync.cli.estimate_options import ESTIMATE, add_estimate
from asyncsync.cli.exit_codes import EXIT_CODES
from asyncsync.cli.index_options import DESCRIPTION, INDEX, USAGE, add_index
from asyncsync.cli.options import (
    NO_DEFAULTS,
    Defaults,
    add_aws,
    add_copy,
    add_help,
    add_max_rcu,
    add_output,
    add_state,
)
from asyncsync.cli.parser import CommandParser, above_zero, segments, whole
from asyncsync.version import __version__

if TYPE_CHECKING:
    # This type has no public name.
    Commands: TypeAlias = argparse._SubParsersAction[CommandParser]  # noqa: SLF001


_DAY_S = 86_400
_SEED_MAX = 1_000_000_000_000
_SEGMENTS_MAX = 1_000


def build_parser(defaults: Defaults = NO_DEFAULTS) -> CommandParser:
    """Return the parser of every command; an argument with a default may be left out."""
    parser = CommandParser(
        prog="asyncsync",
        usage="asyncsync COMMAND [options]",
        description="Keep an exact copy of a DynamoDB table in Redis or Valkey.",
        epilog=f"asyncsync COMMAND --help shows a command's options and examples.\n\n{EXIT_CODES}",
    )
    options = parser.add_argument_group("options")
    options.add_argument(
        "--version",
        action="version",
        version=f"asyncsync {__version__}",
        help="Show the version",
    )
    add_help(options)
    commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", required=True, dest="command", prog="asyncsync"
    )
    _add_demo(commands)
    _add_check(commands, defaults)
    _add_run(commands)
    _add_get(commands, defaults)
    _add_backfill(commands, defaults)
    _add_audit(commands, defaults)
    _add_redrive(commands, defaults)
    _add_retire(commands, defaults)
    add_index(_command(commands, *INDEX, usage=USAGE, description=DESCRIPTION))
    add_estimate(_command(commands, *ESTIMATE))
    _add_simulate(commands)
    _add_completion(commands)
    return parser


def _command(
    commands: Commands,
    name: str,
    summary: str,
    examples: str,
    *,
    usage: str = "[options]",
    description: str = "",
    any_of: Sequence[str] = (),
) -> CommandParser:
    lines = "\n".join(f"  asyncsync {name} {line}".rstrip() for line in examples.splitlines())
    return commands.add_parser(
        name,
        help=summary,
        usage=f"asyncsync {name} {usage}",
        description=fill(f"{summary}. {description}", 78),
        epilog=f"examples:\n{lines}\n\n{EXIT_CODES}",
        any_of=any_of,
    )


def _add_demo(commands: Commands) -> None:
    demo = _command(
        commands,
        "demo",
        "Show here how this mirror and the usual handlers differ",
        "\n--reader\n--changes 10000\n--keep --seed 42",
        description="It starts its own DynamoDB and Redis, changes items, and breaks connections. "
        "It needs no account.",
    )
    demo.add_argument(
        "--reader",
        action="store_true",
        help="Compare asyncsync.Reader with cache-aside instead of handlers",
    )
    size = demo.add_argument_group("size")
    size.add_argument(
        "--items",
        type=whole(1, 10_000),
        default=300,
        metavar="N",
        help="Items in the table (default: 300)",
    )
    size.add_argument(
        "--changes",
        type=whole(1, 1_000_000),
        default=3_000,
        metavar="N",
        help="Changes to make (default: 3,000)",
    )
    size.add_argument(
        "--seed",
        type=whole(0, _SEED_MAX),
        metavar="N",
        help="Repeat an earlier run's changes (default: random)",
    )
    servers = demo.add_argument_group("servers")
    servers.add_argument("--keep", action="store_true", help="Keep the servers until Ctrl-C")
    servers.add_argument("--redis-url", metavar="URL", help="Redis URL (default: start a server)")
    add_aws(demo, endpoint="DynamoDB endpoint (default: start one; then AWS settings are unused)")
    add_output(demo)


def _add_check(commands: Commands, defaults: Defaults) -> None:
    check = _command(
        commands,
        "check",
        "Verify your setup and say what to fix",
        "--function mirror\n--function mirror --redis-url redis://localhost:6379\n"
        "--table Players\n--redis-url rediss://cache.example.com",
        description="It writes scratch keys to Redis and removes them.",
    )
    add_copy(check, defaults)
    add_aws(check)
    add_output(check)


def _add_run(commands: Commands) -> None:
    run = _command(
        commands,
        "run",
        "Mirror a table's stream from this machine, for development",
        "--table Players --redis-url redis://localhost:6379\n"
        "--table Players --mirror app:mirror\n--table Players --exit-when-idle 5",
        description="It begins at the stream's oldest record and ends with Ctrl-C.",
        any_of=("--table", "--function"),
    )
    how = run.add_argument_group("how to run")
    how.add_argument(
        "--batch-size",
        type=whole(1, 10_000),
        default=100,
        metavar="N",
        help="Records per batch (default: 100)",
    )
    how.add_argument(
        "--exit-when-idle",
        dest="exit_when_idle_s",
        type=above_zero(_DAY_S),
        metavar="S",
        help="Exit after S seconds without a record (default: never)",
    )
    add_copy(run)
    add_aws(run)
    add_output(run)


def _add_get(commands: Commands, defaults: Defaults) -> None:
    get = _command(
        commands,
        "get",
        "Show a key's value, expiry and fence",
        "Players:10\nPlayers:10 --json\nPlayers:10 --function mirror",
        usage="KEY [options]",
        description="The fence says which stream record the copy holds.",
    )
    what = get.add_argument_group("key")
    what.add_argument("key", metavar="KEY", help="Redis key")
    get.set_defaults(show_values=not defaults.hides_values)
    if defaults.hides_values:
        what.add_argument("--show-values", action="store_true", help="Show the value")
    add_copy(get, has_table=False)
    add_aws(get, endpoint="AWS endpoint, for --function (default: the Region's)")
    add_output(get)


def _add_backfill(commands: Commands, defaults: Defaults) -> None:
    backfill = _command(
        commands,
        "backfill",
        "Load the items that the table had before its stream",
        "--function mirror\n--function mirror --max-rcu 500 --state backfill.state\n"
        "--table Players --from-export s3://bucket/AWSDynamoDB/0123",
        description="It scans the table in parallel and writes only keys that the stream has "
        "not touched.",
        any_of=("--table", "--function"),
    )
    source = backfill.add_argument_group("what to read")
    source.add_argument(
        "--from-export",
        metavar="URL",
        help="Load an export instead: s3://bucket/prefix/AWSDynamoDB/id",
    )
    source.add_argument(
        "--segments",
        type=whole(1, _SEGMENTS_MAX),
        metavar="N",
        help="Scan in N segments (default: by the table's size)",
    )
    source.add_argument(
        "--only-segments",
        type=segments(_SEGMENTS_MAX),
        metavar="N[-N]",
        help="Scan only these segments, counted from 0, e.g. 0-7",
    )
    source.add_argument(
        "--page-items",
        type=whole(1, 100_000),
        metavar="N",
        help="Read at most N items per page (default: 1 MB)",
    )
    how = backfill.add_argument_group("how to run")
    how.add_argument(
        "--skip-mapping-check",
        action="store_true",
        help="Begin without checking that the event source mapping has caught up",
    )
    add_max_rcu(how)
    add_state(how)
    add_copy(backfill, defaults)
    add_aws(backfill)
    add_output(backfill)


def _add_audit(commands: Commands, defaults: Defaults) -> None:
    audit = _command(
        commands,
        "audit",
        "Compare a table with its copy, key by key",
        "--function mirror\n--function mirror --sample 100000 --max-rcu 200\n"
        "--table Players --repair --state audit.state",
        description="It checks each difference twice, so changes in flight are not reported.",
        any_of=("--table", "--function"),
    )
    scope = audit.add_argument_group("what to compare")
    scope.add_argument(
        "--sample",
        type=whole(1, 1_000_000_000),
        metavar="N",
        help="Compare about N random keys (default: all)",
    )
    scope.add_argument(
        "--orphans",
        action=argparse.BooleanOptionalAction,
        help="Find keys without items (default: not with --sample or without a prefix)",
    )
    scope.add_argument(
        "--recheck-after",
        dest="recheck_after_s",
        type=above_zero(3_600),
        default=10.0,
        metavar="S",
        help="Check a difference again after S seconds (default: 10)",
    )
    how = audit.add_argument_group("how to run")
    how.add_argument("--repair", action="store_true", help="Repair each difference")
    how.add_argument("--show-values", action="store_true", help="Show what table and copy hold")
    add_max_rcu(how)
    add_state(how)
    add_copy(audit, defaults)
    add_aws(audit)
    add_output(audit, "Print JSON objects, one per line")


def _add_redrive(commands: Commands, defaults: Defaults) -> None:
    redrive = _command(
        commands,
        "redrive",
        "Bring the keys of failed batches up to date",
        "s3://bucket/aws/lambda --function mirror --dry-run\n"
        "s3://bucket/aws/lambda --function mirror\nfailed-batches/ --table Players",
        usage="PLACE... [options]",
        description="It writes each key's current item, unless a newer change has arrived, and "
        "moves each finished object to redriven/.",
        any_of=("--table", "--function"),
    )
    what = redrive.add_argument_group("what to redrive")
    what.add_argument(
        "places",
        nargs="*" if defaults.places else "+",
        default=defaults.places,
        metavar="PLACE",
        help="Batches that Lambda gave up on: s3://bucket/prefix, a folder or a file",
    )
    how = redrive.add_argument_group("how to run")
    how.add_argument(
        "--dry-run", action="store_true", help="Show what would be done; write and move nothing"
    )
    add_state(how)
    add_copy(redrive, defaults)
    add_aws(redrive)
    add_output(redrive, "Print JSON objects, one per line")


def _add_retire(commands: Commands, defaults: Defaults) -> None:
    retire = _command(
        commands,
        "retire",
        "Delete keys of an old key template, once items have new keys",
        "'old:{@key}' --function mirror\n'Players:{Number}' --table Players",
        usage="TEMPLATE [options]",
        description="A key stays if its item has no new key, or if the old template did not make "
        "it.",
        any_of=("--table", "--function"),
    )
    what = retire.add_argument_group("what to delete")
    what.add_argument("template", metavar="TEMPLATE", help="The old template (ASYNCSYNC_KEY)")
    what.add_argument(
        "--scan-all-keys",
        action="store_true",
        help="Retire a template without a prefix: every key may match",
    )
    add_state(retire.add_argument_group("how to run"))
    add_copy(retire, defaults)
    add_aws(retire)
    add_output(retire)


def _add_simulate(commands: Commands) -> None:
    simulate = _command(
        commands,
        "simulate",
        "Run the fault simulator: one seeded run after another",
        "--seeds 10000\n--seed 4711 --trace\n--scope 3",
        description="Each run checks the product's promises under random faults.",
    )
    what = simulate.add_argument_group("what to run")
    number: Any = {"type": whole(0, _SEED_MAX), "metavar": "N"}
    what.add_argument(
        "--seeds",
        type=whole(1, 1_000_000_000),
        default=500,
        metavar="N",
        help="Number of runs (default: 500)",
    )
    what.add_argument("--first", default=0, help="Seed of the first run (default: 0)", **number)
    what.add_argument("--seed", help="Run only this seed", **number)
    what.add_argument(
        "--scope",
        type=whole(1, 4),
        metavar="N",
        help="Play every possible history of up to N records (1 to 4)",
    )
    how = simulate.add_argument_group("how to run")
    how.add_argument("--trace", action="store_true", help="Print every step (only with --seed)")
    how.add_argument(
        "--violations",
        dest="violations_max",
        type=whole(1, 10_000),
        default=10,
        metavar="N",
        help="Stop after N violations (default: 10)",
    )
    how.add_argument(
        "--jobs", type=whole(1, 256), metavar="N", help="Processes (default: one per core)"
    )
    add_output(simulate)


def _add_completion(commands: Commands) -> None:
    completion = _command(
        commands,
        "completion",
        "Print a script for your shell's completion",
        "bash >> ~/.bash_completion\nzsh >> ~/.zshrc",
        usage="SHELL",
    )
    options = completion.add_argument_group("options")
    options.add_argument("shell", choices=("bash", "zsh"), metavar="SHELL", help="bash or zsh")
    add_help(options)
