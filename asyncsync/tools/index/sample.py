"""Compares an index's declaration with a sample of the copy's values. Pure.

Search leaves an item out of the whole index where one field cannot be indexed: that is a
problem. What Search takes otherwise than its reader may think is a note. The rules are those of
a real server; a test holds them against it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from math import isinf
from typing import Any

import orjson

from asyncsync.copy.equality import fields_of
from asyncsync.model import Value
from asyncsync.tools.index.declaration import IndexField

_NUMBER = re.compile(rb"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_EXACT_MAX = 2**53

# What one value is to its field, behind a count of items.
_LEFT_OUT = "Search leaves them out of the whole index"
NOT_A_NUMBER = f"hold no number: {_LEFT_OUT}"
NOT_TEXT = f"hold no text: {_LEFT_OUT}"
NOT_A_TAG = f"hold neither text nor a boolean: {_LEFT_OUT}"
EMPTY_LIST = f"hold an empty list, which cannot be sorted: {_LEFT_OUT}"
LIST_IN_HASH = (
    "hold a list, set or map: a hash has its JSON, which no tag matches; set "
    "ASYNCSYNC_VALUE=redis-json, or let a transform join the tags with commas"
)
MISSING = "lack it: Search finds none of them by it"
PAST_EXACT = "hold a number past 2^53: Search compares doubles, so neighbours are equal to it"
COMMA = "hold a comma: Search reads several tags"
JSON_TEXT = "hold a list, set or map: Search indexes the words of its JSON"
DIGITS = "hold a number: text finds its digits, and no range"

_PROBLEMS = (NOT_A_NUMBER, NOT_TEXT, NOT_A_TAG, LIST_IN_HASH, EMPTY_LIST)


@dataclass(slots=True)
class Sample:
    """What a declaration meets in the values of some items."""

    fields: Sequence[IndexField]
    values: int = 0
    left_out: int = 0  # items without a value in the copy
    faults: int = 0  # items that cannot be encoded
    _met: Counter[tuple[IndexField, str]] = field(default_factory=Counter)

    def add(self, value: Value) -> None:
        """Take one value, of either format."""
        self.values += 1
        for each in self.fields:
            if isinstance(value, tuple):
                text = fields_of(value).get(each.attribute.encode())
                met = MISSING if text is None else _in_hash(each, text)
            else:
                document: Any = orjson.loads(value)
                member = document.get(each.attribute) if isinstance(document, dict) else None
                met = MISSING if member is None else _in_document(each, member)
            if met:
                self._met[each, met] += 1

    @property
    def problems(self) -> list[str]:
        """Return what keeps items out of the index, a line for each field and reason."""
        return [self._line(each, met) for each, met in self._met if met in _PROBLEMS]

    @property
    def notes(self) -> list[str]:
        """Return what is worth knowing, a line for each field and reason."""
        return [self._line(each, met) for each, met in self._met if met not in _PROBLEMS]

    def _line(self, index_field: IndexField, met: str) -> str:
        count = self._met[index_field, met]
        share = f"{count:,} of {self.values:,} items ({count / self.values:.1%})"
        return f"{index_field.attribute}:{index_field.kind}: {share} {met}"


def _in_hash(index_field: IndexField, text: bytes) -> str:
    is_number = _is_double(text)
    if index_field.kind == "numeric":
        if not is_number:
            return NOT_A_NUMBER
        is_past = abs(float(text)) >= _EXACT_MAX and abs(Decimal(text.decode())) > _EXACT_MAX
        return PAST_EXACT if is_past else ""
    if _is_list_or_map(text):
        return LIST_IN_HASH if index_field.kind == "tag" else JSON_TEXT
    if index_field.kind == "tag":
        return COMMA if b"," in text else ""
    return DIGITS if is_number else ""


def _is_double(text: bytes) -> bool:
    """Return whether text is a number that a double can hold, if not exactly."""
    number = _NUMBER.fullmatch(text)
    if number is None or isinf(float(text)):
        return False
    return float(text) != 0 or not number[1].strip(b"0.")


def _is_list_or_map(text: bytes) -> bool:
    if not text.startswith((b"[", b"{")):
        return False
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


def _in_document(index_field: IndexField, member: Any) -> str:
    members = member if isinstance(member, list) else [member]
    members = [one for one in members if one is not None]
    if member == [] and index_field.is_sortable:
        return EMPTY_LIST
    if index_field.kind == "numeric":
        if not all(_is_number(one) for one in members):
            return NOT_A_NUMBER
        return PAST_EXACT if any(abs(one) > _EXACT_MAX for one in members) else ""
    is_text = all(isinstance(one, str) for one in members)
    if index_field.kind == "tag":
        return "" if is_text or isinstance(member, bool) else NOT_A_TAG
    return "" if is_text else NOT_TEXT


def _is_number(member: object) -> bool:
    return isinstance(member, int | float) and not isinstance(member, bool)
