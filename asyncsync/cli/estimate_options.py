"""The options of `asyncsync estimate`: numbers of a table, and the settings that cost money."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from asyncsync.cli.options import add_aws, add_output
from asyncsync.cli.parser import CommandParser, above_zero, from_zero, whole
from asyncsync.limits import FENCE_TTL_S_MIN, NAME_BYTES_MAX
from asyncsync.tools.estimate.measured import KEYS, TIMES_MS
from asyncsync.tools.estimate.memory import Workload

if TYPE_CHECKING:
    from asyncsync.cli.options import Group

# Name, summary and examples, for arguments.py.
ESTIMATE = (
    "estimate",
    "Estimate a copy's memory and what it costs a month",
    "--table Players\n--items 1000000 --item-bytes 1000 --writes-per-s 50\n"
    "--table Players --writes-per-s 50 --window-s 5 --json",
)

ITEMS_MAX = 1_000_000_000_000
ITEM_BYTES_MAX = 409_600  # DynamoDB's own limit
WRITES_PER_S_MAX = 10_000_000
_YEAR_S = 31_536_000
_DEFAULTS = Workload(items=1, item_bytes=1.0, writes_per_s=0.0)


def add_estimate(estimate: CommandParser) -> None:
    """Add every option of estimate."""
    _add_table(estimate.add_argument_group("table"))
    _add_copy(estimate.add_argument_group("copy"))
    _add_function(estimate.add_argument_group("function"))
    add_aws(estimate)
    add_output(estimate)
    estimate.set_defaults(function=None)  # which says the Region to other commands


def _add_table(table: Group) -> None:
    table.add_argument(
        "--table", metavar="NAME", help="Look numbers up that you do not give (name or ARN)"
    )
    table.add_argument("--items", type=whole(1, ITEMS_MAX), metavar="N", help="Items in the table")
    table.add_argument(
        "--item-bytes",
        type=above_zero(ITEM_BYTES_MAX),
        metavar="N",
        help="Mean bytes of an item, as DynamoDB counts them",
    )
    table.add_argument(
        "--writes-per-s",
        type=from_zero(WRITES_PER_S_MAX),
        metavar="N",
        help="Changed items per second, on average over the month",
    )


def _add_copy(copy: Group) -> None:
    copy.add_argument(
        "--engine",
        choices=[*KEYS],
        metavar="NAME",
        help=f"{_any_of(KEYS)} (default: {_DEFAULTS.engine})",
    )
    formats = [*KEYS[_DEFAULTS.engine]]
    copy.add_argument(
        "--value",
        choices=formats,
        metavar="FORMAT",
        help=f"ASYNCSYNC_VALUE: {_any_of(formats)} (default: {_DEFAULTS.value})",
    )
    copy.add_argument(
        "--name-bytes",
        type=whole(1, NAME_BYTES_MAX),
        default=_DEFAULTS.name_bytes,
        metavar="N",
        help="Bytes of a Redis key (default: 20)",
    )
    copy.add_argument(
        "--fence-ttl-s",
        type=whole(FENCE_TTL_S_MIN, _YEAR_S),
        default=_DEFAULTS.fence_ttl_s,
        metavar="S",
        help="ASYNCSYNC_FENCE_TTL_S (default: 90,000)",
    )
    copy.add_argument(
        "--ttl-s",
        type=whole(1, _YEAR_S),
        metavar="S",
        help="ASYNCSYNC_TTL_S: seconds that values stay (default: for ever)",
    )


def _add_function(function: Group) -> None:
    function.add_argument(
        "--window-s",
        type=whole(0, 300),
        default=_DEFAULTS.window_s,
        metavar="S",
        help="Batching window of the mapping in seconds (default: 0)",
    )
    function.add_argument(
        "--batch-size",
        type=whole(1, 10_000),
        default=_DEFAULTS.batch_size,
        metavar="N",
        help="Batch size of the mapping (default: 1,000)",
    )
    function.add_argument(
        "--shards",
        type=whole(1, 100_000),
        metavar="N",
        help="Open shards of the stream (default: by size and writes)",
    )
    sizes = [str(size) for size in TIMES_MS[_DEFAULTS.value]]
    function.add_argument(
        "--memory-mb",
        choices=sizes,
        metavar="N",
        help=f"Function's memory: {_any_of(sizes)} (default: {_DEFAULTS.memory_mb})",
    )


def _any_of(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} or {last}"
