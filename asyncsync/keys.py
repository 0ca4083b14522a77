"""Stage 3, names: an item's key to the Redis key and its fence's name, and back.

Two items never share a name (injective), and no name is ever a fence's. In a value, the
characters % : { } ! are percent-encoded and nothing else, so names stay readable and a
separator in the template can never be taken for part of a value.
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
_ESCAPES = {ord(c): f"%{ord(c):02X}" for c in "%:{}!"}
_UNESCAPES = {f"%{ord(c):02X}": c for c in "%:{}!"}
_ESCAPE = "|".join(_UNESCAPES)
_VALUE = rf"((?:[^%:{{}}!]|{'|'.join(_UNESCAPES)})+)"

# What keeps two neighbours apart: a character no value holds. A lone % is none, because the
# value after it may begin like an escape: x + "25%" and "x%" + 25 would both be x%25%25.
_SEPARATOR = r"[:{}]|%[^237]"


class Placeholder(Struct, frozen=True):
    """A part of a template that stands for @table, @key or one key attribute."""

    name: str


Template: TypeAlias = tuple[str | Placeholder, ...]


@lru_cache(maxsize=16)
def parse_template(text: str) -> Template:
    """Split a key template into literals and placeholders.

    Raises ConfigError naming what is wrong with it and what is allowed.
    """
    parts: list[str | Placeholder] = []
    literal = ""
    at = 0
    while at < len(text):
        pair = text[at : at + 2]
        if pair in ("{{", "}}"):
            literal += pair[0]
            at += 2
        elif text[at] == "{":
            end = text.find("}", at)
            if end < 0:
                raise _template_error(text, "a { is not closed; write {{ for a literal one")
            if literal:
                parts.append(literal)
                literal = ""
            parts.append(_placeholder(text, text[at + 1 : end]))
            at = end + 1
        elif text[at] == "}":
            raise _template_error(text, "a } stands alone; write }} for a literal one")
        else:
            literal += text[at]
            at += 1
    if literal:
        parts.append(literal)
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
        # A table's name has none of the characters; "2" lets it end no lone % either.
        between = "".join(p if isinstance(p, str) else "2" for p in parts[left + 1 : right])
        if not re.search(_SEPARATOR, between):
            raise _template_error(
                text,
                "between two key attributes stands no literal with one of : { } "
                "(or a % that cannot begin an escape), so two items could share a name",
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
    """Join literals that stand side by side: a name is written once per item."""
    joined: list[str | Placeholder] = []
    for part in parts:
        if isinstance(part, str) and joined and isinstance(joined[-1], str):
            joined[-1] += part
        else:
            joined.append(part)
    return tuple(joined)


def render(bound: Template, key: Key) -> bytes:
    """Write an item's name from a bound template; over-long ones are not cut here."""
    texts = {name: text for name, _, text in key}
    return "".join(
        [part if isinstance(part, str) else escape(texts[part.name]) for part in bound]
    ).encode()


def escape(text: str) -> str:
    """Percent-encode the five characters that names keep for themselves."""
    if text.isalnum() or not _RESERVED.search(text):
        return text
    return text.translate(_ESCAPES)


def parse_name(bound: Template, name: bytes) -> dict[str, str] | None:
    """Read the key attributes' texts back out of a name; None where it is not one of ours.

    A hashed name cannot be read back.
    """
    try:
        text = name.decode()
    except UnicodeDecodeError:
        return None
    found = _pattern(bound).fullmatch(text)
    if found is None or settle(name)[0] != name:
        return None
    texts: dict[str, str] = {}
    placeholders = [part for part in bound if isinstance(part, Placeholder)]
    for part, encoded in zip(placeholders, found.groups(), strict=True):
        value = re.sub(_ESCAPE, lambda escaped: _UNESCAPES[escaped[0]], encoded)
        if texts.setdefault(part.name, value) != value:
            return None
    return texts


@lru_cache(maxsize=64)
def _pattern(bound: Template) -> re.Pattern[str]:
    return re.compile(
        "".join(re.escape(part) if isinstance(part, str) else _VALUE for part in bound), re.DOTALL
    )


def from_function(function: KeyFunction, key: Key) -> bytes:
    """Ask the user's function for an item's name.

    Raises RecordError where it raises or returns no text; its message is not repeated,
    because it may hold the item's values.
    """
    try:
        name: object = function({attribute: {tag: text} for attribute, tag, text in key})
    except Exception as exc:
        raise RecordError(f"the key function raised {type(exc).__name__}") from exc
    if not isinstance(name, str) or not name:
        raise RecordError(
            f"the key function returned {type(name).__name__}, not a text of 1 or more"
        )
    try:
        return name.encode()
    except UnicodeEncodeError as exc:
        raise RecordError("the key function returned a text that is not UTF-8") from exc


def settle(name: bytes) -> tuple[bytes, bytes]:
    """Return the name as Redis will have it, and its fence's name in the same slot.

    A name that is over-long, begins or ends like a fence, looks like a hashed one, or leaves no
    room for a hash tag, ends in a SHA-256 of the whole (serverless allows 4 096 bytes, fence
    included).
    """
    if b"}" not in name and b"!" not in name and len(name) <= NAME_BYTES_MAX:
        return name, fence_name(name, None)
    tag = hash_tag(name)
    if (
        len(name) > NAME_BYTES_MAX
        or name.endswith(FENCE_SUFFIX)
        or re.search(_HASHED_SUFFIX, name)
        or (tag is None and b"}" in name)
        or (
            tag is not None and name == b"{%b}" % tag
        )  # its fence would be that of the name without braces
    ):
        name = _hashed(name, tag)
        tag = hash_tag(name)
    return name, fence_name(name, tag)


def hash_tag(name: bytes) -> bytes | None:
    """Return what a cluster hashes in place of the whole name (Redis cluster spec), or None."""
    start = name.find(b"{")
    end = name.find(b"}", start + 1)
    return name[start + 1 : end] if start >= 0 and end > start + 1 else None


def slot(name: bytes) -> int:
    """Return the slot of a cluster that a name belongs to: CRC16 (XMODEM) of its tag or itself."""
    tag = hash_tag(name)
    return crc_hqx(name if tag is None else tag, 0) % SLOTS


def _hashed(name: bytes, tag: bytes | None) -> bytes:
    kept = name[: NAME_BYTES_MAX - _HASHED_SUFFIX_BYTES]
    if tag is None or hash_tag(kept) != tag:
        # Without a whole tag a brace that is left would make a wrong one.
        kept = re.split(rb"[{}]", kept, maxsplit=1)[0]
    from hashlib import sha256  # 4 ms of a cold start that few names pay

    readable = kept.decode(errors="ignore").encode()
    return b"%b!%b" % (readable, sha256(name).hexdigest().encode())
