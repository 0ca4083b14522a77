"""Tables for the tests of the tools: create, load, read back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import anyio
import pytest

from asyncsync.aws.clients import AwsClients, open_clients
from asyncsync.aws.items import scan
from asyncsync.aws.tables import Table, TableArn, describe_table
from asyncsync.lab.compare import from_json, plain_item
from tests.support.events import LABEL

Item = dict[str, dict[str, Any]]

# Marks a test, or a module, that needs what only moto has: S3, Lambda, one stream per table.
only_moto = pytest.mark.only_moto


async def table_names(url: str) -> set[str]:
    """Return the names of a DynamoDB's tables."""
    async with open_clients(url, {}) as clients:
        pages = clients.items.get_paginator("list_tables").paginate()
        return {name async for page in pages for name in page["TableNames"]}


async def drop_tables(url: str, but: set[str]) -> None:
    """Delete every table but these."""
    async with open_clients(url, {}) as clients:
        for name in await table_names(url) - but:
            await clients.items.delete_table(TableName=name)


async def make_table(clients: AwsClients, name: str, **keys: str) -> Table:
    """Create a table without a stream; keys are names with their types, the hash key first."""
    keys = keys or {"Number": "N"}
    kinds = ("HASH", "RANGE")
    await clients.items.create_table(
        TableName=name,
        KeySchema=[
            {"AttributeName": key, "KeyType": kind}  # type: ignore[typeddict-item]
            for key, kind in zip(keys, kinds, strict=False)
        ],
        AttributeDefinitions=[
            {"AttributeName": key, "AttributeType": kind}  # type: ignore[typeddict-item]
            for key, kind in keys.items()
        ],
        BillingMode="PAY_PER_REQUEST",
    )
    return await describe_table(clients, name)


def table_of(name: str = "T", **keys: str) -> Table:
    """Return a table of the builders' account that no DynamoDB has."""
    arn = TableArn("aws", "us-east-1", "111122223333", name)
    return Table(arn, keys or {"Number": "N"})


def stream_arn_of(table: Table) -> str:
    """Return the ARN that the builders' records of a table must have."""
    return f"{table.arn}/stream/{LABEL}"


async def begin_stream(clients: AwsClients, name: str) -> None:
    """Turn a table's stream on; older items are not in it."""
    await clients.items.update_table(
        TableName=name,
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
    )


async def load(clients: AwsClients, name: str, items: Sequence[Item]) -> None:
    """Put items in their order: moto pages a scan rightly only where keys rise."""
    for first in range(0, len(items), 25):
        request: Any = {
            name: [{"PutRequest": {"Item": item}} for item in items[first : first + 25]]
        }
        await clients.items.batch_write_item(RequestItems=request)


def numbered(count: int, **attributes: Any) -> list[Item]:
    """Return items with rising numbers."""
    return [
        {"Number": {"N": str(at)}, "Name": {"S": f"item {at}"}, **attributes}
        for at in range(1, count + 1)
    ]


async def differences(
    clients: AwsClients, name: str, copy: Mapping[str, bytes]
) -> dict[str, tuple[object, object]]:
    """Compare a copy that has default names with its table; return (table, copy) by Redis key."""
    table = {
        f"{name}:{item['Number']['N']}": plain_item(item) async for item in scan(clients, name)
    }
    values = {key: from_json(value) for key, value in copy.items()}
    return {
        key: (table.get(key), values.get(key))
        for key in table.keys() | values.keys()
        if table.get(key) != values.get(key)
    }


async def until(condition: Any, within_s: float = 30.0) -> None:
    """Wait until a condition is true."""
    with anyio.fail_after(within_s):
        while True:
            if condition():
                return
            await anyio.sleep(0.01)
