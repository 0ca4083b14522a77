"""A name of the copy back to the primary key of its item; None where it is not one of ours.

Ours is what the handler itself would call an item of this table: the template reads a complete
key of the table's types out of it, and makes the same name of that key again. A name that ends
in a hash, or that a function made, cannot be read; the value's own key attributes say whose it
may be, and their name must be this one. Everything else is foreign. Pure.
"""

from __future__ import annotations

import re
from binascii import Error as BinasciiError
from binascii import a2b_base64, b2a_base64
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import lru_cache

import msgspec
from msgspec import Raw

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
from asyncsync.model import Key

# What DynamoDB takes for a key (DynamoDB developer guide, "Constraints"): more would be refused,
# so no item has it.
_HASH_BYTES_MAX, _RANGE_BYTES_MAX = 2_048, 1_024
_DIGITS_MAX, _EXPONENT_MIN, _EXPONENT_MAX = 38, -130, 125

# A number as DynamoDB writes it: no exponent, no zero that says nothing.
_NUMBER = re.compile(r"-?(?:[1-9][0-9]*|0(?=\.))(?:\.[0-9]*[1-9])?|0")

_UNESCAPES = {escape: chr(code) for code, escape in ESCAPES.items()}
_ESCAPE = "|".join(_UNESCAPES)
_VALUE = rf"((?:[^%:{{}}!]|{_ESCAPE})+)"

_HASHED = re.compile(rb"![0-9a-f]{64}$")

# What of a pattern MATCH reads as more than itself.
_GLOB = re.compile(rb"([*?\[\]\\^-])")

_FIELDS = msgspec.json.Decoder(dict[str, Raw])
_TYPED = msgspec.json.Decoder(dict[str, str])
_TEXT = msgspec.json.Decoder(str)


class KeyNames:
    """How the items of one table are called: names to keys, and keys to names.

    Raises ConfigError where the template does not fit the table.
    """

    def __init__(
        self, table: str, keys: Sequence[str], types: Mapping[str, str], rules: EncodeRules
    ) -> None:
        self._keys = keys
        self._types = types
        self._function = rules.key
        self._bound: Template = ()
        if rules.key is None:
            self._bound = bind(parse_template(rules.config.key), table, tuple(sorted(keys)))

    @property
    def prefix(self) -> bytes:
        """Return what every name begins with; empty where nothing is known of it."""
        first = self._bound[0] if self._bound else ""
        return first.encode() if isinstance(first, str) else b""

    @property
    def pattern(self) -> bytes:
        """Return the pattern by which SCAN finds every name."""
        return _GLOB.sub(rb"\\\1", self.prefix) + b"*"

    def name_of(self, key: Key) -> bytes:
        """Return an item's name.

        Raises RecordError where the user's function gives none.
        """
        if self._function is not None:
            return redis_names(from_function(self._function, key))[0]
        return redis_names(render(self._bound, key))[0]

    def read(self, name: bytes) -> Key | None:
        """Read the key out of a name; None where the template does not say one."""
        if not self._bound:
            return None
        texts = parse_name(self._bound, name)
        return None if texts is None else self._key(texts, name)

    def may_be_hashed(self, name: bytes) -> bool:
        """Whether only the value can say whose a name is."""
        return not self._bound or bool(_HASHED.search(name))

    def read_by_value(self, name: bytes, value: bytes) -> Key | None:
        """Take the key from the value's own attributes; None where its name would be another."""
        texts = _texts_of(value, self._types)
        return None if texts is None else self._key(texts, name)

    def _key(self, texts: Mapping[str, str], name: bytes) -> Key | None:
        for at, attribute in enumerate(self._keys):
            bytes_max = _RANGE_BYTES_MAX if at else _HASH_BYTES_MAX
            if not _is_legal(self._types[attribute], texts[attribute], bytes_max):
                return None
        key = tuple([(each, self._types[each], texts[each]) for each in sorted(self._keys)])
        try:
            return key if self.name_of(key) == name else None
        except RecordError:
            return None


def is_fence(name: bytes) -> bool:
    """Whether a name is a fence's: no item's ever ends like one."""
    return name.endswith(FENCE_SUFFIX)


def _is_legal(kind: str, text: str, bytes_max: int) -> bool:
    """Whether DynamoDB takes a text for a key attribute and would write it so itself."""
    if kind == "N":
        return _is_number(text)
    try:
        held = text.encode() if kind == "S" else a2b_base64(text, strict_mode=True)
    except (UnicodeEncodeError, BinasciiError, ValueError):
        return False
    if kind == "B" and b2a_base64(held, newline=False).decode() != text:
        return False
    return 0 < len(held) <= bytes_max


def _is_number(text: str) -> bool:
    if len(text) > 2 * (_EXPONENT_MAX + _DIGITS_MAX) or not _NUMBER.fullmatch(text):
        return False
    number = Decimal(text)
    digits = len(text.lstrip("-0.").replace(".", "").rstrip("0"))
    return digits <= _DIGITS_MAX and _EXPONENT_MIN <= number.adjusted() <= _EXPONENT_MAX


def _texts_of(value: bytes, types: Mapping[str, str]) -> dict[str, str] | None:
    """Read the key attributes' texts out of a value of either format."""
    try:
        fields = _FIELDS.decode(value)
        return {name: _text(bytes(fields[name]), kind) for name, kind in types.items()}
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, RecursionError):
        return None


def _text(raw: bytes, kind: str) -> str:
    if raw.startswith(b"{"):  # as the stream has it, in place of plain JSON
        return _TYPED.decode(raw)[kind]
    return raw.decode() if kind == "N" else _TEXT.decode(raw)


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
