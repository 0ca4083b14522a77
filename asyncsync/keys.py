"""Stage 3, names: an item's key to its Redis key and its fence's name.

Two items never share a name (injective), and no name is ever a fence's. In a value, the
characters % : { } ! are percent-encoded and nothing else, so names stay readable and a
separator in the template can never be taken for part of a value. copy/names.py reads them back.
"""

from __future__ import annotations

import re
from binascii import crc_hqx
from collections.abc import Callable, Mapping
from functools import lru_cache
from itertools import pairwise
from typing import TypeAlias

from msgspec import Struct

from asyncsync.errors import ConfigError, RecordError
from asyncsync.fence import FENCE_SUFFIX, fence_name
from asyncsync.limits import NAME_BYTES_MAX, SLOTS
from asyncsync.model import Key

AttributeValue: TypeAlias = dict[str, str]
KeyFunction: TypeAlias = Callable[[Mapping[str, AttributeValue]], str]

TABLE = "@table"
ALL_KEYS = "@key"

_HASHED_SUFFIX = rb"![0-9a-f]{64}$"
_HASHED_SUFFIX_BYTES = 65

_RESERVED = re.compile(r"[%:{}!]")
ESCAPES = {ord(c): f"%{ord(c):02X}" for c in "%:{}!"}

# What keeps two neighbours apart: a character no value holds. A lone % does not, because the
# value after it may begin like an escape: x + "25%" and "x%" + 25 would both be x%25%25.
_SEPARATOR = r"[:{}]|%[^237]"

# The parts of a template; a brace that is part of neither of the first two is an error.
_TOKEN = r"(?P<literal>(?:[^{}]|\{\{|\}\})+)|\{(?P<name>[^}]*)\}|[{}]"


class Placeholder(Struct, frozen=True):
    """A part of a template that becomes the table's name, the whole key or one key attribute."""

    name: str


Template: TypeAlias = tuple[str | Placeholder, ...]


@lru_cache(maxsize=16)
def parse_template(text: str) -> Template:
    """Split a key template into literals and placeholders.

    Raises ConfigError naming what is wrong with it and what is allowed.
    """
    parts: list[str | Placeholder] = []
    for token in re.finditer(_TOKEN, text):
        if token.lastgroup == "literal":
            parts.append(token[0].replace("{{", "{").replace("}}", "}"))
        elif token.lastgroup == "name":
            parts.append(_placeholder(text, token["name"]))
        elif token[0] == "{":
            raise _template_error(text, "a { is not closed; write {{ for a literal one")
        else:
            raise _template_error(text, "a } has no {; write }} for a literal one")
    _refuse_ambiguous(text, parts)
    return tuple(parts)


def _placeholder(text: str, name: str) -> Placeholder:
    if not name or "{" in name:
        raise _template_error(text, f"{{{name}}} names no attribute")
    if name.startswith("@") and name not in (TABLE, ALL_KEYS):
        raise _template_error(text, f"{{{name}}} is unknown; {{@table}} and {{@key}} are known")
    return Placeholder(name)


def _refuse_ambiguous(text: str, parts: list[str | Placeholder]) -> None:
    keys = [at for at, part in enumerate(parts) if _is_key(part)]
    if not keys:
        raise _template_error(text, "it uses no key attribute: every item would have one name")
    for left, right in pairwise(keys):
        # A table's name holds no separator; a "2" instead of it does not end a lone % either.
        between = "".join(p if isinstance(p, str) else "2" for p in parts[left + 1 : right])
        if not re.search(_SEPARATOR, between):
            raise _template_error(
                text,
                "two key attributes need a literal between them with one of : { } "
                "(or a % that cannot begin an escape), else two items could share a name",
            )


def _is_key(part: str | Placeholder) -> bool:
    return isinstance(part, Placeholder) and part.name != TABLE


def _template_error(text: str, reason: str) -> ConfigError:
    return ConfigError(f"ASYNCSYNC_KEY={text!r}: {reason}")


@lru_cache(maxsize=64)
def bind(template: Template, table: str, names: tuple[str, ...]) -> Template:
    """Fit a template to a table: only literals and that table's key attributes are left.

    Raises ConfigError where the template and the table's key attributes differ.
    """
    bound: list[str | Placeholder] = []
    for part in template:
        if part == Placeholder(TABLE):
            bound.append(table)
        elif part == Placeholder(ALL_KEYS):
            bound += [piece for name in names for piece in (":", Placeholder(name))][1:]
        else:
            bound.append(part)
    used = {part.name for part in bound if isinstance(part, Placeholder)}
    if used != set(names):
        raise ConfigError(
            f"ASYNCSYNC_KEY uses the key attributes {sorted(used)}, "
            f"but the key of table {table!r} is {sorted(names)}: it must use exactly these"
        )
    return _joined(bound)


def _joined(parts: list[str | Placeholder]) -> Template:
    """Join neighbouring literals: every item's name is put together from the parts."""
    joined: list[str | Placeholder] = []
    for part in parts:
        if isinstance(part, str) and joined and isinstance(joined[-1], str):
            joined[-1] += part
        else:
            joined.append(part)
    return tuple(joined)


def render(bound: Template, key: Key) -> bytes:
    """Write an item's name from a bound template; an over-long name is not cut here."""
    values = {name: value for name, _, value in key}
    return "".join(
        [part if isinstance(part, str) else escape(values[part.name]) for part in bound]
    ).encode()


def escape(value: str) -> str:
    """Percent-encode the five characters that names reserve."""
    if value.isalnum() or not _RESERVED.search(value):
        return value
    return value.translate(ESCAPES)


def from_function(function: KeyFunction, key: Key) -> bytes:
    """Ask the user's function for an item's name.

    Raises RecordError where it raises or returns no string; its message is not repeated,
    because it may hold the item's values.
    """
    try:
        name: object = function({attribute: {tag: value} for attribute, tag, value in key})
    except Exception as exc:
        raise RecordError(f"the key function raised {type(exc).__name__}") from exc
    if not isinstance(name, str) or not name:
        raise RecordError(
            f"the key function returned {type(name).__name__}; it must return a non-empty string"
        )
    try:
        return name.encode()
    except UnicodeEncodeError as exc:
        raise RecordError("the key function returned a string that is not UTF-8") from exc


# Integers, because bytes find one in 0.03 us and a piece of bytes in 0.3 (measured).
_CLOSING_BRACE, _EXCLAMATION_MARK = b"}!"


def redis_names(name: bytes) -> tuple[bytes, bytes]:
    """Return the Redis key of an item's name, and its fence's name in the same slot.

    A name that is over-long, begins or ends like a fence, looks like a hashed one, or leaves no
    room for a hash tag, ends in a SHA-256 of the whole (serverless allows 4,096 bytes, fence
    included).
    """
    if (
        _CLOSING_BRACE not in name
        and _EXCLAMATION_MARK not in name
        and len(name) <= NAME_BYTES_MAX
    ):
        return name, fence_name(name, None)
    tag = hash_tag(name)
    if (
        len(name) > NAME_BYTES_MAX
        or name.endswith(FENCE_SUFFIX)
        or re.search(_HASHED_SUFFIX, name)
        or (tag is None and _CLOSING_BRACE in name)
        # Its fence would be the fence of the name without braces.
        or (tag is not None and name == b"{%b}" % tag)
    ):
        name = _hashed(name, tag)
        tag = hash_tag(name)
    return name, fence_name(name, tag)


def hash_tag(name: bytes) -> bytes | None:
    """Return what a cluster hashes instead of the whole name (Redis cluster spec), or None."""
    start = name.find(b"{")
    end = name.find(b"}", start + 1)
    return name[start + 1 : end] if start >= 0 and end > start + 1 else None


def slot(name: bytes) -> int:
    """Return a name's slot in a cluster: CRC16 (XMODEM) of its hash tag or of the whole name."""
    tag = hash_tag(name)
    return crc_hqx(name if tag is None else tag, 0) % SLOTS


def _hashed(name: bytes, tag: bytes | None) -> bytes:
    head = name[: NAME_BYTES_MAX - _HASHED_SUFFIX_BYTES]
    if tag is None or hash_tag(head) != tag:
        # A brace that is left here would make a wrong hash tag.
        head = re.split(rb"[{}]", head, maxsplit=1)[0]
    from hashlib import sha256  # 4 ms of a cold start that few names pay

    readable = head.decode(errors="ignore").encode()
    return b"%b!%b" % (readable, sha256(name).hexdigest().encode())
