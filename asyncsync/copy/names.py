"""Reads the primary key of an item out of its Redis key's name. Pure.

A name is ours only if the handler would give it to an item of this table: the template reads a
complete key of the table's types out of it and makes the same name of that key again. A name
that ends in a hash, or that a key function made, cannot be read; the key attributes in its value
then say which item it may belong to, and that item must have this name. Every other name is
foreign: it has no key here.
"""

from __future__ import annotations

import re
from binascii import Error as BinasciiError
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import lru_cache

import msgspec
from msgspec import Raw

from asyncsync.copy.equality import fields_of
from asyncsync.copy.plain import digits_of
from asyncsync.encode import EncodeRules
from asyncsync.errors import RecordError
from asyncsync.fence import FENCE_SUFFIX
from asyncsync.keys import (
    ESCAPES,
    Placeholder,
    Template,
    bind,
    from_function,
    parse_template,
    redis_names,
    render,
)
from asyncsync.model import Key, Value

# The limits of key attributes (DynamoDB developer guide, "Constraints"). DynamoDB refuses what
# is beyond them, so no item has such a key.
_HASH_BYTES_MAX, _RANGE_BYTES_MAX = 2_048, 1_024
_DIGITS_MAX, _EXPONENT_MIN, _EXPONENT_MAX = 38, -130, 125

# A number as DynamoDB writes it: no exponent and no unneeded zero.
_NUMBER = re.compile(r"-?(?:[1-9][0-9]*|0(?=\.))(?:\.[0-9]*[1-9])?|0")

# Escapes in names and the characters they stand for; a value is escapes and harmless characters.
_UNESCAPES = {escape: chr(code) for code, escape in ESCAPES.items()}
_ESCAPE = "|".join(_UNESCAPES)
_VALUE = rf"((?:[^%:{{}}!]|{_ESCAPE})+)"

_HASHED = re.compile(rb"![0-9a-f]{64}$")

# Characters with a special meaning in a MATCH pattern.
_GLOB = re.compile(rb"([*?\[\]\\^-])")

_FIELDS = msgspec.json.Decoder(dict[str, Raw])
_ATTRIBUTE = msgspec.json.Decoder(dict[str, str])
_STRING = msgspec.json.Decoder(str)


class KeyNames:
    """Translates between the keys of one table's items and their names in Redis.

    `key` holds the type (S, N or B) of each attribute of the primary key, the hash key first.
    Raises ConfigError where the template does not fit the table.
    """

    def __init__(self, table: str, key: Mapping[str, str], rules: EncodeRules) -> None:
        self._types = key  # by attribute, the hash key first
        self._function = rules.key
        self._is_document = rules.config.value == "redis-json"
        self._bound: Template = ()
        if rules.key is None:
            self._bound = bind(parse_template(rules.config.key), table, tuple(sorted(key)))

    @property
    def prefix(self) -> bytes:
        """Return the bytes that begin every name; empty where they are unknown."""
        first = self._bound[0] if self._bound else ""
        return first.encode() if isinstance(first, str) else b""

    @property
    def pattern(self) -> bytes:
        """Return the SCAN pattern that matches every name."""
        return _GLOB.sub(rb"\\\1", self.prefix) + b"*"

    def name_of(self, key: Key) -> bytes:
        """Return an item's name.

        Raises RecordError where the key function fails.
        """
        if self._function is not None:
            return redis_names(from_function(self._function, key))[0]
        return redis_names(render(self._bound, key))[0]

    def read(self, name: bytes) -> Key | None:
        """Read the key out of a name; None where the template cannot."""
        if not self._bound:
            return None
        attributes = parse_name(self._bound, name)
        return None if attributes is None else self._key(attributes, name)

    def may_be_hashed(self, name: bytes) -> bool:
        """Return whether the key attributes can only be read from the value."""
        return not self._bound or bool(_HASHED.search(name))

    def read_by_value(self, name: bytes, value: Value) -> Key | None:
        """Take the key from the value's attributes; None where its item has another name."""
        read = _attribute_in_document if self._is_document else _attribute
        attributes = _attributes_in(value, self._types, read)
        return None if attributes is None else self._key(attributes, name)

    def _key(self, attributes: Mapping[str, str], name: bytes) -> Key | None:
        for at, attribute in enumerate(self._types):
            bytes_max = _RANGE_BYTES_MAX if at else _HASH_BYTES_MAX
            if not _is_legal(self._types[attribute], attributes[attribute], bytes_max):
                return None
        key = tuple([(each, self._types[each], attributes[each]) for each in sorted(self._types)])
        try:
            return key if self.name_of(key) == name else None
        except RecordError:
            return None


def is_fence(name: bytes) -> bool:
    """Return whether a name is a fence's; no item's name ends like one."""
    return name.endswith(FENCE_SUFFIX)


def _is_legal(kind: str, attribute: str, bytes_max: int) -> bool:
    """Return whether DynamoDB allows this key attribute and would write it the same way."""
    if kind == "N":
        return _is_number(attribute)
    try:
        content = attribute.encode() if kind == "S" else a2b_base64(attribute, strict_mode=True)
    except (UnicodeEncodeError, BinasciiError, ValueError):
        return False
    if kind == "B" and b2a_base64(content, newline=False).decode() != attribute:
        return False
    return 0 < len(content) <= bytes_max


def _is_number(digits: str) -> bool:
    if len(digits) > 2 * (_EXPONENT_MAX + _DIGITS_MAX) or not _NUMBER.fullmatch(digits):
        return False
    number = Decimal(digits)
    significant = digits.lstrip("-0.").replace(".", "").rstrip("0")
    return len(significant) <= _DIGITS_MAX and _EXPONENT_MIN <= number.adjusted() <= _EXPONENT_MAX


def _attributes_in(
    value: Value, types: Mapping[str, str], read: Callable[[bytes, str], str]
) -> dict[str, str] | None:
    """Read the key attributes, as strings, out of a value of any format."""
    try:
        if isinstance(value, tuple):
            hash_fields = fields_of(value)
            return {name: hash_fields[name.encode()].decode() for name in types}
        fields = _FIELDS.decode(value)
        return {name: read(bytes(fields[name]), kind) for name, kind in types.items()}
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, RecursionError, ArithmeticError):
        return None


def _attribute(raw: bytes, kind: str) -> str:
    if raw.startswith(b"{"):  # DynamoDB JSON; a key attribute is never a map
        return _ATTRIBUTE.decode(raw)[kind]
    return raw.decode() if kind == "N" else _STRING.decode(raw)


def _attribute_in_document(raw: bytes, kind: str) -> str:
    """Read an attribute as a JSON module has it: a long number is a string, 10.5 may be 1.05e1."""
    if kind == "N" and not raw.startswith(b'"'):
        return digits_of(Decimal(raw.decode()))
    return _STRING.decode(raw)


def parse_name(bound: Template, name: bytes) -> dict[str, str] | None:
    """Read the values of the key attributes from a name; None where it is no item's.

    A hashed name cannot be read back.
    """
    try:
        match = _pattern(bound).fullmatch(name.decode())
    except UnicodeDecodeError:
        return None
    if match is None or redis_names(name)[0] != name:
        return None
    values: dict[str, str] = {}
    placeholders = [part for part in bound if isinstance(part, Placeholder)]
    for part, escaped in zip(placeholders, match.groups(), strict=True):
        value = re.sub(_ESCAPE, lambda escape: _UNESCAPES[escape[0]], escaped)
        if values.setdefault(part.name, value) != value:
            return None
    return values


@lru_cache(maxsize=64)
def _pattern(bound: Template) -> re.Pattern[str]:
    return re.compile(
        "".join(re.escape(part) if isinstance(part, str) else _VALUE for part in bound), re.DOTALL
    )
