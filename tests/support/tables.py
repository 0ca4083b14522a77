"""Tables for the tests of the tools: made, loaded, read back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import anyio
import pytest

from asyncsync.aws.clients import AwsClients, open_clients
from asyncsync.aws.items import scan
from asyncsync.lab.compare import from_json, plain_item

Item = dict[str, dict[str, Any]]

# For a test, or a module, of what moto alone has: S3, Lambda, one stream for each table.
only_moto = pytest.mark.only_moto


async def table_names(url: str) -> set[str]:
    """Name the tables of a DynamoDB."""
    async with open_clients(url, {}) as clients:
        pages = clients.items.get_paginator("list_tables").paginate()
        return {name async for page in pages for name in page["TableNames"]}


async def drop_tables(url: str, but: set[str]) -> None:
    """Remove every table but those."""
    async with open_clients(url, {}) as clients:
        for name in await table_names(url) - but:
            await clients.items.delete_table(TableName=name)


async def make_table(clients: AwsClients, name: str, **keys: str) -> None:
    """A table without a stream; keys are names with their types, the hash key first."""
    keys = keys or {"Number": "N"}
    kinds = ("HASH", "RANGE")
    await clients.items.create_table(
        TableName=name,
        KeySchema=[
            {"AttributeName": each, "KeyType": kind}  # type: ignore[typeddict-item]
            for each, kind in zip(keys, kinds, strict=False)
        ],
        AttributeDefinitions=[
            {"AttributeName": each, "AttributeType": kind}  # type: ignore[typeddict-item]
            for each, kind in keys.items()
        ],
        BillingMode="PAY_PER_REQUEST",
    )


async def begin_stream(clients: AwsClients, name: str) -> None:
    """Give a table a stream from now on: what it holds already is not in it."""
    await clients.items.update_table(
        TableName=name,
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
    )


async def load(clients: AwsClients, name: str, items: Sequence[Item]) -> None:
    """Put items, in their order: moto pages a scan rightly only where keys rise."""
    for first in range(0, len(items), 25):
        request: Any = {
            name: [{"PutRequest": {"Item": each}} for each in items[first : first + 25]]
        }
        await clients.items.batch_write_item(RequestItems=request)


def numbered(count: int, **attributes: Any) -> list[Item]:
    """Items by rising number."""
    return [
        {"Number": {"N": str(at)}, "Name": {"S": f"item {at}"}, **attributes}
        for at in range(1, count + 1)
    ]


async def differences(
    clients: AwsClients, name: str, copy: Mapping[str, bytes]
) -> dict[str, tuple[object, object]]:
    """Where a copy with the default names differs from its table: (table, copy) by Redis key."""
    table = {
        f"{name}:{each['Number']['N']}": plain_item(each) async for each in scan(clients, name)
    }
    held = {key: from_json(value) for key, value in copy.items()}
    return {
        key: (table.get(key), held.get(key))
        for key in table.keys() | held.keys()
        if table.get(key) != held.get(key)
    }


async def until(condition: Any, within_s: float = 30.0) -> None:
    """Look until something is so."""
    with anyio.fail_after(within_s):
        while True:
            if condition():
                return
            await anyio.sleep(0.01)
