"""Options of several commands: the copy, AWS, the output, progress."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from asyncsync.cli.parser import CommandParser, above_zero

if TYPE_CHECKING:
    # This type has no public name.
    Group: TypeAlias = argparse._ArgumentGroup  # noqa: SLF001


@dataclass(frozen=True, slots=True)
class Defaults:
    """Arguments that the place where commands run already knows."""

    table: str | None = None
    places: Sequence[str] = ()  # of on-failure objects
    hides_values: bool = False  # get shows a value only with --show-values


NO_DEFAULTS = Defaults()


def add_copy(
    command: CommandParser, defaults: Defaults = NO_DEFAULTS, *, has_table: bool = True
) -> None:
    """Add what says which table and which copy a command acts on."""
    copy = command.add_argument_group("table and copy")
    if has_table:
        copy.add_argument(
            "--table",
            default=defaults.table,
            metavar="NAME",
            help="Table name or ARN (default: that of --function)",
        )
    copy.add_argument(
        "--function",
        metavar="NAME",
        help="Use this deployed function's settings (name or ARN)",
    )
    copy.add_argument(
        "--mirror",
        metavar="MODULE:NAME",
        help="Use the asyncsync.Mirror of your module instead of settings",
    )
    copy.add_argument(
        "--redis-url", metavar="URL", help="Redis URL (default: $ASYNCSYNC_REDIS_URL)"
    )


def add_aws(command: CommandParser, endpoint: str = "") -> None:
    """Add what says how AWS is reached."""
    aws = command.add_argument_group("AWS")
    aws.add_argument(
        "--region", metavar="NAME", help="Region (default: $AWS_REGION, else the profile's)"
    )
    aws.add_argument("--profile", metavar="NAME", help="Profile (default: $AWS_PROFILE)")
    aws.add_argument(
        "--endpoint-url",
        metavar="URL",
        help=endpoint or "AWS endpoint (default: the Region's)",
    )


def add_output(command: CommandParser, json_help: str = "Print one JSON object") -> None:
    """Add what says how a command answers."""
    output = command.add_argument_group("output")
    output.add_argument("--json", dest="as_json", action="store_true", help=json_help)
    output.add_argument("--quiet", action="store_true", help="Show no notes and no progress")
    add_help(output)


def add_help(group: Group) -> None:
    """Add --help to a group, so that it stands at its end."""
    group.add_argument("-h", "--help", action="help", help="Show this help")


def add_max_rcu(group: Group) -> None:
    """Add the limit of a command's reads."""
    group.add_argument(
        "--max-rcu",
        type=above_zero(10_000_000),
        metavar="N",
        help="Use at most N read capacity units per second (default: no limit)",
    )


def add_state(group: Group) -> None:
    """Add the place of saved progress."""
    group.add_argument(
        "--state",
        metavar="PLACE",
        help="Keep progress in this file or s3://bucket/prefix, to resume later",
    )
