"""Compares a table with its copy by value: decodes both to the same Python values.

It is a second implementation on purpose, as plain as it can be: the code under test must not
judge itself.
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
    """Decode one attribute value from DynamoDB JSON; sets become sorted lists."""
    ((tag, value),) = attribute.items()
    if tag == "N":
        return number(value)
    if tag == "NS":
        return sorted(number(digits) for digits in value)
    if tag == "SS":
        return sorted(value, key=str.encode)
    if tag == "BS":
        return sorted(value, key=b64decode)
    if tag == "L":
        return [plain(element) for element in value]
    if tag == "M":
        return plain_item(value)
    return None if tag == "NULL" else value  # S, B as base64 text, BOOL


def plain_item(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Decode an item from DynamoDB JSON."""
    return {name: plain(attribute) for name, attribute in attributes.items()}


def from_json(value: bytes) -> Any:
    """Decode a plain JSON value without losing a digit."""
    return json.loads(value, parse_int=number, parse_float=number)


def from_dynamodb_json(value: bytes) -> Any:
    """Decode a value that is an image in DynamoDB JSON."""
    return plain_item(json.loads(value))


@dataclass(frozen=True, slots=True)
class Findings:
    """The differences between a copy and its table, by Redis key."""

    equal: int
    stale: list[str] = field(default_factory=list)  # has another value than the table
    missing: list[str] = field(default_factory=list)  # in the table, not in the copy
    came_back: list[str] = field(default_factory=list)  # in the copy, not in the table

    @property
    def all(self) -> list[str]:
        """Return every key that differs, with its kind of difference."""
        kinds = (("stale", self.stale), ("missing", self.missing), ("came back", self.came_back))
        return [f"{name} ({kind})" for kind, names in kinds for name in names]


def compare(table: Mapping[str, Any], copy: Mapping[str, Any]) -> Findings:
    """Compare decoded items by Redis key; None stands for an absent one."""
    findings = Findings(sum(copy[name] == item for name, item in table.items()))
    for name, item in table.items():
        if copy[name] == item:
            continue
        if copy[name] is None:
            findings.missing.append(name)
        elif item is None:
            findings.came_back.append(name)
        else:
            findings.stale.append(name)
    return findings
