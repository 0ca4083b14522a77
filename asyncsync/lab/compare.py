"""Table against copy, by value: both are decoded to the same Python values, then compared.

Written again here in the plainest way, on purpose: the code under test does not judge itself.
"""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any


def number(text: str) -> tuple[str, Decimal]:
    """Decode a number so that no other JSON value equals it: in Python True == 1."""
    return ("number", Decimal(text))


def plain(attribute: Mapping[str, Any]) -> Any:
    """Decode one attribute value in DynamoDB JSON as plain JSON has it: sets as sorted lists."""
    ((tag, value),) = attribute.items()
    if tag == "N":
        return number(value)
    if tag == "NS":
        return sorted(number(each) for each in value)
    if tag == "SS":
        return sorted(value, key=str.encode)
    if tag == "BS":
        return sorted(value, key=b64decode)
    if tag == "L":
        return [plain(each) for each in value]
    if tag == "M":
        return plain_item(value)
    return None if tag == "NULL" else value  # S, B as base64 text, BOOL


def plain_item(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Decode an item in DynamoDB JSON."""
    return {name: plain(attribute) for name, attribute in attributes.items()}


def from_json(value: bytes) -> Any:
    """Decode a plain JSON value without losing a digit."""
    return json.loads(value, parse_int=number, parse_float=number)


def from_dynamodb_json(value: bytes) -> Any:
    """Decode a value that is an image as the stream had it."""
    return plain_item(json.loads(value))


@dataclass(frozen=True, slots=True)
class Findings:
    """Where a copy differs from its table, by Redis key."""

    equal: int
    stale: list[str] = field(default_factory=list)  # another value than the table's
    missing: list[str] = field(default_factory=list)  # in the table, not in the copy
    came_back: list[str] = field(default_factory=list)  # in the copy, not in the table

    @property
    def all(self) -> list[str]:
        """Name every key that differs, with how."""
        kinds = (("stale", self.stale), ("missing", self.missing), ("came back", self.came_back))
        return [f"{name} ({kind})" for kind, names in kinds for name in names]


def compare(table: Mapping[str, Any], copy: Mapping[str, Any]) -> Findings:
    """Compare decoded items by Redis key; None is an absent one."""
    found = Findings(sum(copy[name] == item for name, item in table.items()))
    for name, item in table.items():
        if copy[name] == item:
            continue
        kind = found.came_back if item is None else found.stale
        (found.missing if copy[name] is None else kind).append(name)
    return found
