"""Reads a value of the copy back to a Python item; numbers become Decimal. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, TypeAlias

from asyncsync.errors import RecordError
from asyncsync.values import parse_image, to_item

PlainItem: TypeAlias = dict[str, Any]

_loads = json.JSONDecoder(parse_float=Decimal, parse_int=Decimal).decode


def _read_json(value: bytes) -> Any:
    return _loads(value.decode())


def _read_dynamodb_json(value: bytes) -> Any:
    return to_item(parse_image(value))


# How a value of each format (formats.FORMATS) becomes an item.
ITEM_READERS: Mapping[str, Callable[[bytes], Any]] = {
    "json": _read_json,
    "dynamodb-json": _read_dynamodb_json,
}


def read_item(value: bytes, value_format: str) -> PlainItem:
    """Read a value of a format, as ASYNCSYNC_VALUE names it.

    Raises RecordError where it is no item: a transform may store any bytes.
    """
    try:
        item = ITEM_READERS[value_format](value)
    except (ValueError, RecursionError):  # of JSON, or of its UTF-8
        item = None
    if not isinstance(item, dict):
        raise RecordError("the value is not a JSON object: read it with as_bytes=True")
    return item
