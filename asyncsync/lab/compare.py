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

from asyncsync.model import Value


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


def copied_value(value: Value, value_format: str) -> Any:
    """Decode a value of the copy, for copied_item of the same format to equal it."""
    if isinstance(value, tuple):
        pairs = zip(value[::2], value[1::2], strict=True)
        return {name.decode(): field.decode() for name, field in pairs}
    return from_dynamodb_json(value) if value_format == "dynamodb-json" else from_json(value)


def copied_item(attributes: Mapping[str, Any], value_format: str) -> Any:
    """Decode an item from DynamoDB JSON as a format shows it to readers."""
    if value_format == "hash":
        return {name: _field(attribute) for name, attribute in attributes.items()}
    if value_format == "redis-json":
        return {name: _member(attribute) for name, attribute in attributes.items()}
    return plain_item(attributes)


def _field(attribute: Mapping[str, Any]) -> str:
    """Write an attribute value as the field of a hash: text, or JSON with names in order."""
    ((tag, value),) = attribute.items()
    if tag in ("S", "N", "B"):
        return str(value)
    return _json(tag, value)


def _json(tag: str, value: Any) -> str:
    if tag == "N":
        return str(value)
    if tag == "NS":
        return f"[{','.join(sorted(value, key=Decimal))}]"
    if tag == "L":
        return f"[{','.join(_json(*each) for member in value for each in member.items())}]"
    if tag == "M":
        members = ((json.dumps(name), *value[name].items()) for name in sorted(value))
        return "{" + ",".join(f"{name}:{_json(*each)}" for name, each in members) + "}"
    content = plain({tag: value})
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


def _member(attribute: Mapping[str, Any]) -> Any:
    """Decode an attribute value as a JSON module holds it: some numbers are strings."""
    ((tag, value),) = attribute.items()
    if tag == "N":
        return number(value) if _is_held(value) else value
    if tag == "NS":
        return [_member({"N": digits}) for digits in sorted(value, key=Decimal)]
    if tag == "L":
        return [_member(member) for member in value]
    if tag == "M":
        return copied_item(value, "redis-json")
    return plain(attribute)


def _is_held(digits: str) -> bool:
    """Return whether a module surely holds a number: as 64 bits, or with few digits."""
    if digits.lstrip("-").isdigit():
        return -(2**63) <= int(digits) < 2**63
    _, significant, exponent = Decimal(digits).as_tuple()
    return len(significant) <= 15 and abs(int(exponent)) <= 22


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
