"""Stage 3, values of the format `hash`: a field for each attribute, as field, value, field, value.

S is its text, N its exact digits, BOOL true or false, B its base64 text. NULL, L, M and sets are
JSON as the format `json` writes it, with the names of each map in order: fields are compared
byte for byte, so equal attributes must give equal bytes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeAlias

import orjson
from msgspec import Struct

from asyncsync.errors import RecordError
from asyncsync.limits import HASH_FIELDS_MAX, SHAPE_VALUES_MAX
from asyncsync.shapes import LEAVES, ORDERS, Order, Shapes
from asyncsync.values import TOO_DEEP, Result, json_text, parse_image, plain_map


def hash_shapes() -> Shapes:
    """Return an encoder of images that remembers their shapes."""
    return Shapes(_shape_of, _fill, _hash_of)


def encode_hash(image: bytes) -> tuple[bytes, ...]:
    """Encode an image.

    Raises RecordError with the attribute's path where a value is not DynamoDB JSON.
    """
    return _hash_of(parse_image(image))


def _hash_of(image: Mapping[str, Any]) -> tuple[bytes, ...]:
    fields: list[bytes] = []
    try:
        for name, value in plain_map(image).items():
            text = value.encode() if isinstance(value, str) else _dumps(value)
            fields += (name.encode(), text)
    except (orjson.JSONEncodeError, RecursionError):
        raise RecordError(TOO_DEEP) from None
    return _limited(fields)


def _dumps(value: object) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


# --- shapes -----------------------------------------------------------------------------------

# A part of an image: its pattern, the JSON it becomes, the groups for that JSON's gaps.
_Part: TypeAlias = tuple[bytes, bytes, tuple[int, ...]]


class HashShape(Struct, frozen=True):
    """What images of one shape match, and the fields they become; see shapes.py."""

    pattern: bytes
    fields: tuple[tuple[bytes, bytes, tuple[int, ...]], ...]  # name, template, groups
    orders: tuple[tuple[int, Order], ...]


def _shape_of(image: Mapping[str, Any]) -> HashShape | None:
    if not image:
        return None
    tags: list[str] = []  # of the pattern's groups
    try:
        parts = {name: _part(attribute, tags) for name, attribute in image.items()}
    except ValueError:  # too large, or a value with other tags that are null
        return None
    return HashShape(
        b"\\{%b\\}" % _members(parts),
        tuple([(name.encode(), *part[1:]) for name, part in parts.items()]),
        tuple([(at, ORDERS[tag]) for at, tag in enumerate(tags) if tag in ORDERS]),
    )


def _part(attribute: Mapping[str, Any], tags: list[str]) -> _Part:
    ((tag, value),) = attribute.items()
    if len(tags) > SHAPE_VALUES_MAX:
        raise ValueError
    if tag == "M":
        members = {name: _part(member, tags) for name, member in value.items()}
        in_order = sorted(members.items())
        texts = [_escaped(name) + b":" + template for name, (_, template, _) in in_order]
        pattern, template = b"\\{%b\\}" % _members(members), b"{%b}" % b",".join(texts)
        groups = [at for _, part in in_order for at in part[2]]
    elif tag == "L":
        parts = [_part(member, tags) for member in value]
        pattern = b"\\[%b\\]" % b",".join([part[0] for part in parts])
        template = b"[%b]" % b",".join([part[1] for part in parts])
        groups = [at for part in parts for at in part[2]]
    elif tag == "NULL":
        pattern, template, groups = LEAVES[tag], b"null", []
    else:
        pattern, template, groups = LEAVES[tag], b"%b", [len(tags)]
        tags.append(tag)
    return b'\\{"%b":%b\\}' % (tag.encode(), pattern), template, tuple(groups)


def _members(parts: Mapping[str, _Part]) -> bytes:
    """Return the pattern of a map's members, in the order in which they came."""
    return b",".join(
        [re.escape(orjson.dumps(name)) + b":" + part[0] for name, part in parts.items()]
    )


def _escaped(name: str) -> bytes:
    return orjson.dumps(name).replace(b"%", b"%%")


def _fill(shape: HashShape, match: re.Match[bytes]) -> tuple[bytes, ...]:
    groups = list(match.groups())
    for at, order in shape.orders:
        groups[at] = order(groups[at])
    fields: list[bytes] = []
    for name, template, places in shape.fields:
        if template == b"%b":
            text = groups[places[0]]
            if text.startswith(b'"'):  # S or B
                text = orjson.loads(text).encode() if b"\\" in text else text[1:-1]
        else:
            text = template % tuple([groups[at] for at in places])
        fields += (name, text)
    return tuple(fields)


# --- a transform's result ---------------------------------------------------------------------


def write_hash(result: Result) -> tuple[bytes, ...]:
    """Encode what a transform returned: text and bytes as they are, everything else as JSON.

    Raises RecordError with the name of what no field can hold.
    """
    if isinstance(result, bytes):
        raise RecordError("the transform returned bytes: a hash needs a dict of its fields")
    if not result:
        raise RecordError("the transform returned an empty dict: a hash has a field at least")
    fields: list[bytes] = []
    for name, value in result.items():
        if not isinstance(name, str):
            raise RecordError(f"the transform returned a name of type {type(name).__name__}")
        try:
            fields += (name.encode(), _field(value))
        except UnicodeEncodeError:
            raise RecordError("the transform returned text that is not UTF-8", name) from None
        except RecordError as exc:
            raise exc.inside(name) from None
    return _limited(fields)


def _field(value: Any) -> bytes:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, str):
        return str(value).encode()
    try:
        text = json_text(_in_order(value))
    except RecursionError:
        raise RecordError("the transform returned a value that is nested too deep") from None
    # A time, a UUID or an enumeration's text.
    return orjson.loads(text).encode() if text.startswith(b'"') else text


def _in_order(value: Any) -> Any:
    """Sort the names of dicts: those of a map come in any order from the table."""
    if isinstance(value, dict) and all(isinstance(name, str) for name in value):
        return {name: _in_order(value[name]) for name in sorted(value)}
    return [_in_order(member) for member in value] if isinstance(value, list | tuple) else value


def _limited(fields: list[bytes]) -> tuple[bytes, ...]:
    if not fields:
        raise RecordError("the item has no attribute: a hash has a field at least")
    if len(fields) > 2 * HASH_FIELDS_MAX:
        raise RecordError(
            f"a hash of {len(fields) // 2:,} fields: one script call can write {HASH_FIELDS_MAX:,}"
        )
    return tuple(fields)
