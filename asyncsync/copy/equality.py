"""Compares two values by meaning, not by bytes. Pure.

The order of a map's names, of a set's members and of a hash's fields has no meaning, nor have a
number's extra zeros. A number never equals a boolean or a string. Values that cannot be read are
equal only if their bytes are. A hash's fields are compared by their bytes: a field does not say
whether it is a number or a string, and equal attributes give equal bytes (hashes.py).
"""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import orjson

from asyncsync.model import Value

_UNREADABLE = (
    ValueError,
    TypeError,
    ArithmeticError,
    RecursionError,
    AttributeError,
    KeyError,
)


def same_value(one: Value, other: Value, value_format: str) -> bool:
    """Return whether two values of one format (as ASYNCSYNC_VALUE names it) mean the same."""
    if one == other:
        return True
    read = READERS[value_format]
    try:
        return bool(read(one) == read(other))
    except _UNREADABLE:
        return False


def is_item(value: Value, value_format: str) -> bool:
    """Return whether a value can be an item in a format, whatever the item holds."""
    try:
        return isinstance(READERS[value_format](value), dict)
    except _UNREADABLE:
        return False


def fields_of(value: tuple[bytes, ...]) -> dict[bytes, bytes]:
    """Return a hash's fields and their values."""
    return dict(zip(value[::2], value[1::2], strict=True))


def text_of(value: Value) -> bytes:
    """Return a value as people read it: a hash as a JSON object of its fields."""
    if isinstance(value, bytes):
        return value
    fields = fields_of(value)
    return orjson.dumps({_text(name): _text(fields[name]) for name in sorted(fields)})


def _text(content: bytes) -> str:
    return content.decode(errors="backslashreplace")


class _Number:
    """A JSON number by its value. It equals only numbers, while Decimal(1) also equals True."""

    __slots__ = ("_value",)

    def __init__(self, digits: str) -> None:
        self._value = Decimal(digits)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Number) and self._value == other._value

    __hash__ = None  # type: ignore[assignment]


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _read_json(value: bytes) -> Any:
    return json.loads(value, parse_int=_Number, parse_float=_Number, parse_constant=_refuse)


def _read_dynamodb_json(value: bytes) -> Any:
    return _map(json.loads(value, parse_constant=_refuse))


def _read_hash(value: Any) -> Any:
    if not isinstance(value, tuple):
        raise TypeError("a hash is a tuple")
    return fields_of(value)


def _read_document(value: bytes) -> Any:
    """Read a document; the server writes a double in its own way, such as 1e2 as 100.0."""
    return json.loads(
        value,
        parse_int=_Number,
        parse_float=lambda digits: _Number(repr(float(digits))),
        parse_constant=_refuse,
    )


# How to read a value of each format (formats.FORMATS) back for a comparison.
READERS: Mapping[str, Callable[[Any], Any]] = {
    "json": _read_json,
    "dynamodb-json": _read_dynamodb_json,
    "hash": _read_hash,
    "redis-json": _read_document,
}


# --- DynamoDB JSON ----------------------------------------------------------------------------


def _map(attributes: Mapping[str, Any]) -> Any:
    return {name: _attribute(attribute) for name, attribute in attributes.items()}


def _attribute(attribute: Mapping[str, Any]) -> Any:
    ((tag, content),) = attribute.items()
    return tag, _MEANINGS.get(tag, lambda same: same)(content)


def _number(digits: Any) -> Decimal:
    if not isinstance(digits, str):
        raise TypeError("N is not a string")
    return Decimal(digits)


def _members(content: Any) -> list[Any]:
    if not isinstance(content, list):
        raise TypeError("a set is not an array")
    return content


_MEANINGS: Mapping[str, Any] = {
    "N": _number,
    "NS": lambda content: {_number(member) for member in _members(content)},
    "SS": lambda content: set(_members(content)),
    "BS": lambda content: {b64decode(member) for member in _members(content)},
    "L": lambda members: [_attribute(member) for member in members],
    "M": _map,
}
