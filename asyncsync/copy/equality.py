"""Whether two values say the same: by what they mean, not by their bytes. Pure.

The order of a map's names and of a set's members says nothing, nor do the zeros of a number;
a number is never a boolean or a text. What cannot be read is the same only to the byte.
"""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any


def same_value(one: bytes, other: bytes, form: str) -> bool:
    """Whether two values of a format have the same meaning."""
    if one == other:
        return True
    read = READERS[form]
    try:
        return bool(read(one) == read(other))
    except (ValueError, TypeError, ArithmeticError, RecursionError, AttributeError, KeyError):
        return False


class _Number:
    """A JSON number by its value; equal to other numbers alone, where Decimal(1) is also True."""

    __slots__ = ("_value",)

    def __init__(self, digits: str) -> None:
        self._value = Decimal(digits)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Number) and self._value == other._value

    __hash__ = None  # type: ignore[assignment]


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _plain(value: bytes) -> Any:
    return json.loads(value, parse_int=_Number, parse_float=_Number, parse_constant=_refuse)


def _typed(value: bytes) -> Any:
    return _map(json.loads(value, parse_constant=_refuse))


# How a value of each format (formats.FORMATS) is read to be compared.
READERS: Mapping[str, Callable[[bytes], Any]] = {"json": _plain, "dynamodb-json": _typed}


def _map(attributes: Mapping[str, Any]) -> Any:
    return {name: _attribute(attribute) for name, attribute in attributes.items()}


def _attribute(attribute: Mapping[str, Any]) -> Any:
    ((tag, held),) = attribute.items()
    return tag, _MEANINGS.get(tag, lambda same: same)(held)


def _number(text: Any) -> Decimal:
    if not isinstance(text, str):
        raise TypeError("a number is a text there")
    return Decimal(text)


def _members(held: Any) -> list[Any]:
    if not isinstance(held, list):
        raise TypeError("a set is an array there")
    return held


_MEANINGS: Mapping[str, Any] = {
    "N": _number,
    "NS": lambda held: {_number(each) for each in _members(held)},
    "SS": lambda held: set(_members(held)),
    "BS": lambda held: {b64decode(each) for each in _members(held)},
    "L": lambda members: [_attribute(each) for each in members],
    "M": _map,
}
