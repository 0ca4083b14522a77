"""Stage 3, the short way: images of a shape that was seen before, to plain JSON by their text.

Items of one table mostly share a shape: attribute names, their order, their type tags. From
one image are made a regular expression that only images of its shape match whole, and the
JSON they become with a gap for each value, so that no value becomes a Python object: 10 us in
place of 17 for 1 KB (measured). What matches gets, byte for byte, what values.to_json writes;
anything else gets None, and values.py, which alone explains errors, reads it.
"""

from __future__ import annotations

import re
from binascii import a2b_base64
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import orjson
from msgspec import Struct

from asyncsync.decode import NUMBER
from asyncsync.limits import SHAPE_VALUES_MAX, SHAPES_MAX, SHAPES_SAMPLE_EVERY
from asyncsync.values import parse_image, to_json

# Every repetition is possessive: the time is linear, whatever the image holds.
# A string may hold only escapes that orjson writes too; \u and \/ would come out otherwise.
_STRING = rb'"[^"\\\x00-\x1f]*+(?:\\["\\bfnrt][^"\\\x00-\x1f]*+)*+"'
_BASE64 = rb'"(?:[A-Za-z0-9+/]{4})*+(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?+"'

Order = Callable[[bytes], bytes]


class Shape(Struct, frozen=True):
    """What images of one shape match, and the JSON they become."""

    pattern: bytes
    template: bytes  # %b for each group of the pattern
    orders: tuple[tuple[int, Order], ...]  # the groups that are sets, and how each is put in order


def shape_of(image: Mapping[str, Any]) -> Shape | None:
    """Return the shape of a parsed image that to_json accepts; None where it is too large."""
    shape = _Draft()
    shape.map(image)
    if shape.values > SHAPE_VALUES_MAX:
        return None
    return Shape(bytes(shape.pattern), bytes(shape.template), tuple(shape.orders))


class _Draft:
    """A shape in the making, one value after the other."""

    def __init__(self) -> None:
        self.pattern = bytearray()
        self.template = bytearray()
        self.orders: list[tuple[int, Order]] = []
        self.groups = 0
        self.values = 0

    def map(self, attributes: Mapping[str, Any]) -> None:
        self._literal(b"{")
        for at, (name, attribute) in enumerate(attributes.items()):
            self._literal(b"%b%b:" % (b"," if at else b"", orjson.dumps(name)))
            self._value(attribute)
        self._literal(b"}")

    def _list(self, attributes: list[Any]) -> None:
        self._literal(b"[")
        for at, attribute in enumerate(attributes):
            self._literal(b"," if at else b"")
            self._value(attribute)
        self._literal(b"]")

    def _value(self, attribute: Mapping[str, Any]) -> None:
        # Other tags that are null make it no common shape: as good as too large.
        self.values += 1 if len(attribute) == 1 else SHAPE_VALUES_MAX + 1
        if self.values > SHAPE_VALUES_MAX:
            return
        ((tag, value),) = attribute.items()
        self.pattern += b'\\{"%b":' % tag.encode()
        if tag == "M":
            self.map(value)
        elif tag == "L":
            self._list(value)
        else:
            self._leaf(tag)
        self.pattern += b"\\}"

    def _leaf(self, tag: str) -> None:
        self.pattern += _LEAVES[tag]
        if tag == "NULL":
            self.template += b"null"
            return
        self.template += b"%b"
        if tag in _ORDERS:
            self.orders.append((self.groups, _ORDERS[tag]))
        self.groups += 1

    def _literal(self, text: bytes) -> None:
        self.pattern += re.escape(text)
        self.template += text.replace(b"%", b"%%")


class Shapes:
    """The few shapes met most lately; what is known decides how soon a value is made, not which.

    One object belongs to the rules of one mirror, so it lives as long as the process.
    """

    def __init__(self) -> None:
        self._known: list[tuple[Callable[[bytes], re.Match[bytes] | None], Shape]] = []
        self._missed = 0
        self._sampled: Shape | None = None

    def encode(self, raw: bytes) -> bytes:
        """Encode an image as plain JSON, by its shape where that is known.

        Raises RecordError as parse_image and to_json do.
        """
        value = self.json_of(raw)
        if value is None:
            image = parse_image(raw)
            value = to_json(image)
            self.miss(image)
        return value

    def json_of(self, raw: bytes) -> bytes | None:
        """Return an image's plain JSON where it has a known shape, None where it has not."""
        for at, (fullmatch, shape) in enumerate(self._known):
            found = fullmatch(raw)
            if found is None:
                continue
            if at:
                self._known.insert(0, self._known.pop(at))
            return _filled(shape, found) if raw.isascii() or _is_utf8(raw) else None
        return None

    def miss(self, image: Mapping[str, Any]) -> None:
        """Take note of an image without a known shape, which to_json has accepted.

        Only every so many are looked at, and a shape is learned when two such samples in a row
        have it: to compile one costs as much as it saves in some 300 images (2.3 ms).
        """
        self._missed += 1
        if self._missed % SHAPES_SAMPLE_EVERY:
            return
        shape = shape_of(image)
        if shape is not None and shape == self._sampled:
            self._known.insert(0, (re.compile(shape.pattern).fullmatch, shape))
            del self._known[SHAPES_MAX:]
        self._sampled = shape


def _filled(shape: Shape, found: re.Match[bytes]) -> bytes:
    if not shape.orders:
        return shape.template % found.groups()
    groups = list(found.groups())
    for at, order in shape.orders:
        groups[at] = order(groups[at])
    return shape.template % tuple(groups)


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _set_of(member: bytes) -> bytes:
    # An empty one is not DynamoDB's: no match.
    return rb"(\[%b(?:,%b)*+\])" % (member, member)


_LEAVES = {
    "S": b"(%b)" % _STRING,
    "N": b'"(%b)"' % NUMBER.pattern.encode(),
    "B": b"(%b)" % _BASE64,
    "BOOL": b"(true|false)",
    "NULL": b"true",
    "SS": _set_of(_STRING),
    "NS": _set_of(b'"%b"' % NUMBER.pattern.encode()),
    "BS": _set_of(_BASE64),
}


def _strings(members: bytes) -> bytes:
    if b"\\" in members:  # a string may hold a quote, and escapes sort otherwise
        return orjson.dumps(sorted(orjson.loads(members)))
    return b'["' + b'","'.join(sorted(members[2:-2].split(b'","'))) + b'"]'


def _numbers(members: bytes) -> bytes:
    numbers = members[2:-2].split(b'","')
    if all(map(bytes.isdigit, numbers)):
        # Without leading zeros the longer is the greater: in order without a Decimal for each.
        numbers.sort()
        numbers.sort(key=len)
    else:
        numbers.sort(key=lambda number: Decimal(number.decode()))
    return b"[" + b",".join(numbers) + b"]"


def _binaries(members: bytes) -> bytes:
    return b'["' + b'","'.join(sorted(members[2:-2].split(b'","'), key=a2b_base64)) + b'"]'


_ORDERS: dict[str, Order] = {"SS": _strings, "NS": _numbers, "BS": _binaries}
