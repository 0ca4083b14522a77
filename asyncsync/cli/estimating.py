"""asyncsync estimate on the command line: asks AWS about a table, and the user about the rest."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from datetime import UTC, datetime

from asyncsync.aws.clients import AwsClients, AwsFailed
from asyncsync.aws.streams import shards
from asyncsync.aws.tables import Table, describe_table
from asyncsync.aws.write_rate import WriteRate, read_write_rate
from asyncsync.cli.commands import clients_of, options_of
from asyncsync.cli.estimate_options import ITEM_BYTES_MAX
from asyncsync.tools.errors import CommandRefused
from asyncsync.tools.estimate.bill import bill_of, units_of
from asyncsync.tools.estimate.command import tell
from asyncsync.tools.estimate.memory import Workload
from asyncsync.tools.output import Output

_SIZES = ("items", "item_bytes", "writes_per_s")


async def estimate(arguments: argparse.Namespace, env: Mapping[str, str], output: Output) -> bool:
    """Estimate what the arguments name, and write it. An option wins over what AWS says.

    Raises CommandRefused for a number that is missing, or AwsFailed.
    """
    table: Table | None = None
    sizes = {name: getattr(arguments, name) for name in (*_SIZES, "shards")}
    if arguments.table is not None:
        output.waits_for("AWS")
        async with clients_of(arguments, env) as clients:
            table = await describe_table(clients, arguments.table)
            output.note(f"table {table.arn}")
            sizes |= _table_sizes(table, sizes, output)
            sizes["shards"] = arguments.shards or await _open_shards(clients, table, output)
            if sizes["writes_per_s"] is None:
                sizes["writes_per_s"] = await _writes_per_s(
                    clients, table, sizes["item_bytes"], output
                )
    missing = [f"--{name.replace('_', '-')}" for name in _SIZES if sizes[name] is None]
    if missing:
        raise CommandRefused(f"give {', '.join(missing)}, or --table to look the numbers up")
    bill = bill_of(_workload(arguments, sizes))
    tell(bill, output, table=str(table.arn) if table else None, as_json=arguments.as_json)
    return True


def _workload(arguments: argparse.Namespace, sizes: Mapping[str, float | None]) -> Workload:
    """Return the arguments' workload; what no option names keeps its default."""
    options = {name: value for name, value in vars(arguments).items() if value is not None}
    if "memory_mb" in options:
        options["memory_mb"] = int(options["memory_mb"])
    return options_of(Workload, argparse.Namespace(**options), **sizes)


def _table_sizes(
    table: Table, sizes: Mapping[str, float | None], output: Output
) -> dict[str, float]:
    """Return what DescribeTable says of items that no option gives.

    Raises CommandRefused where it counts no items.
    """
    items, item_bytes = sizes["items"], sizes["item_bytes"]
    if items is not None and item_bytes is not None:
        return {}
    if not table.items or (item_bytes is None and not table.size_bytes):
        raise CommandRefused(
            f"DynamoDB counts {table.items:,} items in {table.size_bytes:,} bytes in table "
            f"{table.name}, but only about every six hours: give --items and --item-bytes"
        )
    output.note(
        f"DynamoDB counts {table.items:,} items in {table.size_bytes:,} bytes, about every six "
        "hours"
    )
    mean = min(table.size_bytes / table.items, ITEM_BYTES_MAX)
    return {"items": items or table.items, "item_bytes": item_bytes or round(mean, 1)}


async def _open_shards(clients: AwsClients, table: Table, output: Output) -> int | None:
    """Return the open shards of a table's stream, those without a child; None: not known."""
    if table.stream_arn is None:
        return None
    try:
        listing = await shards(clients, table.stream_arn)
    except AwsFailed as exc:
        output.note(f"{exc}: the shards are those that size and writes ask for")
        return None
    parents = {shard.parent for shard in listing}
    return sum(shard.shard_id not in parents for shard in listing) or None


async def _writes_per_s(
    clients: AwsClients, table: Table, item_bytes: float, output: Output
) -> float:
    """Return a table's changes a second as CloudWatch knows them.

    Raises AwsFailed where it may not be read, CommandRefused where it knows nothing.
    """
    try:
        rate = await read_write_rate(clients, table, datetime.now(UTC))
    except AwsFailed as exc:
        raise AwsFailed(f"{exc}: give --writes-per-s instead") from exc
    per_s, words = changes_per_s(rate, item_bytes)
    if per_s is None:
        raise CommandRefused(
            f"CloudWatch has no write of table {table.name} in {rate.days:.0f} days: give "
            "--writes-per-s, 0 if there is none"
        )
    output.note(
        f"CloudWatch, {rate.days:.1f} days: {words}; to say otherwise, give --writes-per-s"
    )
    return per_s


def changes_per_s(rate: WriteRate, item_bytes: float) -> tuple[float | None, str]:
    """Return a table's changes a second, and the words that say where that comes from."""
    if rate.records is not None:
        return rate.records, (
            f"{rate.records:,.3g} records a second were read from the stream (two readers count "
            "twice)"
        )
    if rate.units is None and rate.expired is None:
        return None, ""
    units, expired = rate.units or 0.0, rate.expired or 0.0
    each = units_of(item_bytes)
    return units / each + expired, (
        f"{units:,.3g} write units a second, {each} for a write of {item_bytes:,.0f} bytes "
        f"(transactions take twice that), and {expired:,.3g} expired items"
    )
