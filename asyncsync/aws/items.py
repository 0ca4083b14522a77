"""Reads a table's items: pages of a parallel scan, items by key, whole tables.

Keys are returned as stream records have them and images as bytes, so the handler's own encode
can do the rest.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from math import ceil
from typing import Any, TypeAlias

import msgspec
from msgspec import Raw

from asyncsync.aws.budget import ReadBudget
from asyncsync.aws.clients import AwsClients, AwsFailed, aws_errors, member
from asyncsync.aws.raw_items import raw_items
from asyncsync.aws.tables import Table
from asyncsync.copy.entries import ReadItems
from asyncsync.model import Key

Attributes: TypeAlias = dict[str, dict[str, Any]]  # an item in DynamoDB JSON, B as base64 text

# An item in the SDK's shape, or as the JSON that DynamoDB sent.
Item: TypeAlias = Mapping[str, Mapping[str, Any]] | Raw

UNIT_BYTES = 4_096

_FIELDS = msgspec.json.Decoder(dict[str, Raw])
_ATTRIBUTE = msgspec.json.Decoder(dict[str, str])


@dataclass(frozen=True, slots=True)
class ItemPage:
    """The items of one read, and the read capacity units that it consumed."""

    items: Sequence[Item]
    rest: Any  # the key to continue after, or the keys not read; falsy when complete
    units: float
    is_estimate: bool = False  # of the units: the endpoint reported none


async def scan_page(
    clients: AwsClients,
    table: Table,
    segment: int,
    segments: int,
    after: Any,
    limit: int | None = None,
) -> ItemPage:
    """Read one page of a segment, from its start or after a key in the SDK's shape.

    The read is eventually consistent, at half the price: the stream brings what it misses.
    """
    request: dict[str, Any] = {"TableName": table.address, "ReturnConsumedCapacity": "TOTAL"}
    work = f"scanning table {table.name}"
    if segments > 1:
        request |= {"Segment": segment, "TotalSegments": segments}
    if after:
        request["ExclusiveStartKey"] = after
    if limit:
        request["Limit"] = limit
    with aws_errors(work), raw_items():
        answer = await clients.items.scan(**request)
    items: Any = member(answer, "Items", work)
    last = answer.get("LastEvaluatedKey")
    units = (answer.get("ConsumedCapacity") or {}).get("CapacityUnits", 0.0)
    if units or not items:
        return ItemPage(items, last, units)
    return ItemPage(items, last, estimated_units([sum(_sizes(items))]) / 2, is_estimate=True)


async def read_keys(
    clients: AwsClients, table: Table, keys: Sequence[Any], *, consistent: bool = True
) -> ItemPage:
    """Read up to 100 items by their keys in the SDK's shape.

    Raises AwsFailed, also where the answer is of another table or lacks a member: a key that the
    answer is silent about would count as deleted.
    """
    request: Any = {table.address: {"Keys": keys, "ConsistentRead": consistent}}
    work = f"reading items of table {table.name}"
    with aws_errors(work), raw_items():
        answer = await clients.items.batch_get_item(
            RequestItems=request, ReturnConsumedCapacity="TOTAL"
        )
    unread: Any = member(answer, "UnprocessedKeys", work)
    units = sum(each.get("CapacityUnits", 0.0) for each in answer.get("ConsumedCapacity") or [])
    rest = member(_of_table(unread, table, work), "Keys", work) if unread else []
    responses: Any = member(answer, "Responses", work)
    if not responses and len(rest) == len(keys):
        return ItemPage([], rest, units)  # nothing was read
    items: Sequence[Item] = _of_table(responses, table, work)
    if units:
        return ItemPage(items, rest, units)
    absent = [0] * (len(keys) - len(rest) - len(items))  # a key without an item costs a read, too
    estimate = estimated_units([*_sizes(items), *absent]) / (1 if consistent else 2)
    return ItemPage(items, rest, estimate, is_estimate=True)


def estimated_units(sizes: Sequence[int]) -> float:
    """Return about how many units consistent reads of so many bytes consume.

    A unit reads up to 4 KB consistently, or twice that eventually consistently (DynamoDB
    developer guide, "Read and write operations").
    """
    return float(sum(max(1, ceil(size / UNIT_BYTES)) for size in sizes))


def _sizes(items: Sequence[Item]) -> list[int]:
    """Return the items' sizes as JSON, which is somewhat more than DynamoDB counts."""
    return [len(image_of(item)) for item in items]


def _of_table(by_table: Mapping[str, Any], table: Table, work: str) -> Any:
    """Return the one member of an answer by table, which may be called by its name or its ARN."""
    for called in (table.address, table.name, str(table.arn)):
        if called in by_table:
            return by_table[called]
    raise AwsFailed(f"DynamoDB failed at {work}: its answer does not speak of this table")


async def scan(clients: AwsClients, table: str) -> AsyncIterator[Attributes]:
    """Yield every item of a table, read consistently, in DynamoDB JSON."""
    request: dict[str, Any] = {"TableName": table, "ConsistentRead": True}
    while True:
        with aws_errors(f"scanning table {table}"):
            answer = await clients.items.scan(**request)
        for item in member(answer, "Items", f"scanning table {table}"):
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


def consistent_reads(clients: AwsClients, table: Table, budget: ReadBudget) -> ReadItems:
    """Return a function that reads items consistently, as a repair must.

    The function raises AwsFailed.
    """
    return _reads(partial(read_keys, clients, table), budget)


def eventual_reads(clients: AwsClients, table: Table, budget: ReadBudget) -> ReadItems:
    """Return the same at half the price; it may miss a write of the last second."""
    return _reads(partial(read_keys, clients, table, consistent=False), budget)


def _reads(ask: Callable[[Sequence[Any]], Awaitable[ItemPage]], budget: ReadBudget) -> ReadItems:
    async def read(keys: Sequence[Key]) -> list[bytes | None]:
        items: list[Item] = []
        unread: Sequence[Any] = [sdk_key(key) for key in keys]
        while unread:
            page = await budget.read(partial(ask, unread))
            items += page.items
            unread = page.rest
            if unread:
                await budget.back_off()
        return in_order(keys, items)

    return read


def in_order(keys: Sequence[Key], items: Sequence[Item]) -> list[bytes | None]:
    """Return the image of each key's item, in the keys' order; None where there is none.

    Keys are equal as DynamoDB compares them: numbers by value. Raises AwsFailed for an item
    that was not asked for: the item it was returned for would otherwise count as deleted.
    """
    images: dict[object, bytes | None] = dict.fromkeys([_identity(key) for key in keys])
    for item in items:
        identity = _identity(key_of(item, [name for name, _, _ in keys[0]]))
        if identity not in images:
            raise AwsFailed("DynamoDB answered with an item that was not asked for")
        images[identity] = image_of(item)
    return [images[_identity(key)] for key in keys]


def _identity(key: Key) -> object:
    return tuple([Decimal(value) if tag == "N" else value for _, tag, value in key])


def key_of(item: Item, names: Sequence[str]) -> Key:
    """Return an item's key; the SDK's bytes become base64 strings.

    Raises AwsFailed where the item lacks a key attribute.
    """
    try:
        if isinstance(item, Raw):
            fields = _FIELDS.decode(item)
            item = {name: _ATTRIBUTE.decode(fields[name]) for name in names}
        return tuple([_key_attribute(name, item[name]) for name in names])
    except KeyError as exc:
        raise AwsFailed(f"an item has no key attribute {exc.args[0]}") from exc


def _key_attribute(name: str, attribute: Mapping[str, Any]) -> tuple[str, str, str]:
    ((tag, value),) = attribute.items()
    return name, tag, value if isinstance(value, str) else b64encode(value).decode()


def sdk_key(key: Key) -> dict[str, dict[str, Any]]:
    """Convert a key to the SDK's shape."""
    return {name: {tag: b64decode(value) if tag == "B" else value} for name, tag, value in key}


def sdk_attributes(attributes: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, Any]]:
    """Convert key attributes from DynamoDB JSON to the SDK's shape."""
    return sdk_key(key_of(attributes, sorted(attributes)))


def image_of(item: Item) -> bytes:
    """Return the image that the item's stream record would have."""
    return bytes(item) if isinstance(item, Raw) else _encode(item)


# msgspec writes bytes as base64 strings, as DynamoDB's JSON has them, in 3 us an item. orjson
# calls a Python function for each of them and takes 6 (measured: 1 KB with three of them).
_encode = msgspec.json.Encoder().encode


def json_attributes(item: Mapping[str, Any]) -> Attributes:
    """Convert an item from the SDK's shape to DynamoDB JSON: bytes become base64 strings."""
    return {name: _json_attribute(attribute) for name, attribute in item.items()}


def _json_attribute(attribute: Any) -> Any:
    ((tag, value),) = attribute.items()
    if tag == "B":
        value = b64encode(value).decode()
    elif tag == "BS":
        value = [b64encode(member).decode() for member in value]
    elif tag == "L":
        value = [_json_attribute(member) for member in value]
    elif tag == "M":
        value = json_attributes(value)
    return {tag: value}
