"""A table's items as the tools read them: pages of a parallel scan, and single keys, consistent.

What comes out are keys as records have them and images as bytes, so that the handler's own
encode makes the rest.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any, TypeAlias

import msgspec
from msgspec import Raw

from asyncsync.aws.budget import ReadBudget
from asyncsync.aws.clients import AwsClients, AwsFailed, aws_errors
from asyncsync.aws.raw_items import raw_items
from asyncsync.copy.entries import ReadItems
from asyncsync.model import Key

Attributes: TypeAlias = dict[str, dict[str, Any]]  # an item in DynamoDB JSON, B as base64 text

# An item that was read: in the SDK's shape, or the text that DynamoDB sent.
Item: TypeAlias = Mapping[str, Mapping[str, Any]] | Raw

_FIELDS = msgspec.json.Decoder(dict[str, Raw])
_ATTRIBUTE = msgspec.json.Decoder(dict[str, str])


@dataclass(frozen=True, slots=True)
class ItemPage:
    """Items, what is still to be asked for, and what reading them consumed."""

    items: Sequence[Item]
    rest: Any  # where to go on, or the keys that were not read; falsy where all is done
    units: float


async def scan_page(
    clients: AwsClients,
    table: str,
    segment: int,
    segments: int,
    after: Any,
    limit: int | None = None,
) -> ItemPage:
    """Read one page of a segment, from its beginning or after a key in the SDK's shape.

    Not consistently, at half the price: what such a read has missed, the stream brings.
    """
    request: dict[str, Any] = {"TableName": table, "ReturnConsumedCapacity": "TOTAL"}
    if segments > 1:
        request |= {"Segment": segment, "TotalSegments": segments}
    if after:
        request["ExclusiveStartKey"] = after
    if limit:
        request["Limit"] = limit
    with aws_errors(f"scanning table {table}"), raw_items():
        answer = await clients.items.scan(**request)
    units = answer.get("ConsumedCapacity", {}).get("CapacityUnits", 0.0)
    items: Any = answer["Items"]
    return ItemPage(items, answer.get("LastEvaluatedKey"), units)


async def read_keys(
    clients: AwsClients, table: str, keys: Sequence[Any], *, consistent: bool = True
) -> ItemPage:
    """Read up to 100 items by their keys in the SDK's shape."""
    wanted: Any = {table: {"Keys": keys, "ConsistentRead": consistent}}
    with aws_errors(f"reading items of table {table}"), raw_items():
        answer = await clients.items.batch_get_item(
            RequestItems=wanted, ReturnConsumedCapacity="TOTAL"
        )
    unread: Any = answer.get("UnprocessedKeys", {})
    units = sum(each.get("CapacityUnits", 0.0) for each in answer.get("ConsumedCapacity", []))
    items: Any = answer.get("Responses", {}).get(table, [])
    return ItemPage(items, unread.get(table, {}).get("Keys", []), units)


async def scan(clients: AwsClients, table: str) -> AsyncIterator[Attributes]:
    """Read every item consistently, in DynamoDB JSON."""
    request: dict[str, Any] = {"TableName": table, "ConsistentRead": True}
    while True:
        with aws_errors(f"scanning table {table}"):
            answer = await clients.items.scan(**request)
        for item in answer["Items"]:
            yield json_attributes(item)
        last = answer.get("LastEvaluatedKey")
        if not last:
            return
        request["ExclusiveStartKey"] = last


async def get_item(clients: AwsClients, table: str, key: Attributes) -> Attributes | None:
    """Read one item consistently, in DynamoDB JSON; None where there is none."""
    with aws_errors(f"reading an item of table {table}"):
        answer = await clients.items.get_item(TableName=table, Key=key, ConsistentRead=True)
    item = answer.get("Item")
    return None if item is None else json_attributes(item)


def consistent_reads(clients: AwsClients, table: str, budget: ReadBudget) -> ReadItems:
    """Read items by key as a repair asks for them, each key's answer in its place.

    The function raises AwsFailed where one cannot be read.
    """
    return _reads(partial(read_keys, clients, table), budget)


def eventual_reads(clients: AwsClients, table: str, budget: ReadBudget) -> ReadItems:
    """Read items by key at half the price; a write of the last second may be missed."""
    return _reads(partial(read_keys, clients, table, consistent=False), budget)


def _reads(ask: Callable[[Sequence[Any]], Awaitable[ItemPage]], budget: ReadBudget) -> ReadItems:
    async def read(keys: Sequence[Key]) -> list[bytes | None]:
        items: list[Item] = []
        wanted: Sequence[Any] = [sdk_key(key) for key in keys]
        while wanted:
            answer = await budget.read(partial(ask, wanted))
            items += answer.items
            wanted = answer.rest
            if wanted:
                await budget.back_off()
        return in_order(keys, items)

    return read


def in_order(keys: Sequence[Key], items: Sequence[Item]) -> list[bytes | None]:
    """Give each key its item's image; None where there is none.

    Keys are the same where DynamoDB says so: numbers by value. Raises AwsFailed where an
    item was not asked for, because the one that was would be taken for deleted.
    """
    images: dict[object, bytes | None] = dict.fromkeys([_identity(key) for key in keys])
    for item in items:
        identity = _identity(key_of(item, [name for name, _, _ in keys[0]]))
        if identity not in images:
            raise AwsFailed("DynamoDB answered with an item that was not asked for")
        images[identity] = image_of(item)
    return [images[_identity(key)] for key in keys]


def _identity(key: Key) -> object:
    return tuple([Decimal(text) if tag == "N" else text for _, tag, text in key])


def key_of(item: Item, names: Sequence[str]) -> Key:
    """Take the key out of an item; bytes, as the SDK has them, become their base64 text."""
    if isinstance(item, Raw):
        fields = _FIELDS.decode(item)
        item = {name: _ATTRIBUTE.decode(fields[name]) for name in names}
    return tuple([_key_attribute(name, item[name]) for name in names])


def _key_attribute(name: str, attribute: Mapping[str, Any]) -> tuple[str, str, str]:
    ((tag, held),) = attribute.items()
    return name, tag, held if isinstance(held, str) else b64encode(held).decode()


def sdk_key(key: Key) -> dict[str, dict[str, Any]]:
    """Write a key as the SDK takes it."""
    return {name: {tag: b64decode(text) if tag == "B" else text} for name, tag, text in key}


def sdk_attributes(attributes: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, Any]]:
    """Write key attributes in DynamoDB JSON as the SDK takes them."""
    return sdk_key(key_of(attributes, sorted(attributes)))


def image_of(item: Item) -> bytes:
    """Return an item as the image that a stream record would have."""
    return bytes(item) if isinstance(item, Raw) else _encode(item)


# Bytes become base64 text, as in DynamoDB's own JSON: 3 us an item where orjson, which asks a
# function of ours for each of them, takes 6 (measured, 1 KB with three).
_encode = msgspec.json.Encoder().encode


def json_attributes(item: Mapping[str, Any]) -> Attributes:
    """Write binary values as base64 text, as DynamoDB's own JSON has them."""
    return {name: _json_value(value) for name, value in item.items()}


def _json_value(value: Any) -> Any:
    ((tag, held),) = value.items()
    if tag == "B":
        held = b64encode(held).decode()
    elif tag == "BS":
        held = [b64encode(each).decode() for each in held]
    elif tag == "L":
        held = [_json_value(each) for each in held]
    elif tag == "M":
        held = json_attributes(held)
    return {tag: held}
