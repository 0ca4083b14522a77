"""Stage 3, a cache: delete this file and nothing changes but time (formats.py then calls to_json).

Items of one table mostly share a shape: attribute names, their order, their type tags. From
one image come a regular expression that only images of its shape match, and the JSON they
become with a gap for each value, so that no value becomes a Python object: 10 us instead of 17
for 1 KB (measured). A match gives, byte for byte, what values.to_json writes; any other image
gives None and goes to values.py, which alone explains errors.
"""

from __future__ import annotations

import re
from binascii import a2b_base64
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from itertools import islice
from typing import Any, TypeAlias

import orjson
from msgspec import Struct

from asyncsync.decode import NUMBER, possessive
from asyncsync.limits import SHAPE_VALUES_MAX, SHAPES_MAX, SHAPES_SAMPLE_EVERY
from asyncsync.values import parse_image, to_json

# Possessive, so an image of another shape fails at once.
# A string may hold only escapes that orjson writes too; \u and \/ would come out otherwise.
_STRING = possessive(r'"[^"\\\x00-\x1f]*+(?:\\["\\bfnrt][^"\\\x00-\x1f]*+)*+"').encode()
_DIGIT = "[A-Za-z0-9+/]"
_BASE64 = possessive(f'"(?:{_DIGIT}{{4}})*+(?:{_DIGIT}{{2}}==|{_DIGIT}{{3}}=)?+"').encode()

Order: TypeAlias = Callable[[bytes], bytes]
# A pattern, its part of the template, and the type tag where it begins a value.
_Piece: TypeAlias = tuple[bytes, bytes, str]


class Shape(Struct, frozen=True):
    """What images of one shape match, and the JSON they become."""

    pattern: bytes
    template: bytes  # %b for each group of the pattern
    orders: tuple[tuple[int, Order], ...]  # the groups that are sets, and how each is sorted
    numbers: tuple[int, ...]  # the groups that are numbers, or sets of them


def shape_of(image: Mapping[str, Any]) -> Shape | None:
    """Return the shape of a parsed image that to_json accepts; None where it is too large."""
    # A value is at most six pieces, so an image that is too large is not walked to its end.
    try:
        pieces = [*islice(_map_pieces(image), 8 * SHAPE_VALUES_MAX)]
    except ValueError:  # a value with other tags that are null
        return None
    tags = [tag for _, _, tag in pieces if tag]
    if len(tags) > SHAPE_VALUES_MAX:
        return None
    groups = [tag for tag in tags if tag not in ("M", "L", "NULL")]
    return Shape(
        b"".join([pattern for pattern, _, _ in pieces]),
        b"".join([template for _, template, _ in pieces]),
        tuple([(at, ORDERS[tag]) for at, tag in enumerate(groups) if tag in ORDERS]),
        tuple([at for at, tag in enumerate(groups) if tag in ("N", "NS")]),
    )


def _map_pieces(attributes: Mapping[str, Any]) -> Iterator[_Piece]:
    yield _literal(b"{")
    for at, (name, attribute) in enumerate(attributes.items()):
        yield _literal(b"%b%b:" % (b"," if at else b"", orjson.dumps(name)))
        yield from _value_pieces(attribute)
    yield _literal(b"}")


def _list_pieces(attributes: list[Any]) -> Iterator[_Piece]:
    yield _literal(b"[")
    for at, attribute in enumerate(attributes):
        yield _literal(b"," if at else b"")
        yield from _value_pieces(attribute)
    yield _literal(b"]")


def _value_pieces(attribute: Mapping[str, Any]) -> Iterator[_Piece]:
    ((tag, value),) = attribute.items()
    yield b'\\{"%b":' % tag.encode(), b"", tag
    if tag == "M":
        yield from _map_pieces(value)
    elif tag == "L":
        yield from _list_pieces(value)
    else:
        yield LEAVES[tag], b"null" if tag == "NULL" else b"%b", ""
    yield b"\\}", b"", ""


def _literal(text: bytes) -> _Piece:
    return re.escape(text), text.replace(b"%", b"%%"), ""


def fill_json(shape: Shape, match: re.Match[bytes]) -> bytes:
    """Return the JSON of an image that a shape matches."""
    if not shape.orders:
        return shape.template % match.groups()
    groups = list(match.groups())
    for at, order in shape.orders:
        groups[at] = order(groups[at])
    return shape.template % tuple(groups)


class Shapes:
    """The shapes met most lately; they change how fast an image is encoded, never the result.

    One object belongs to the rules of one mirror, so it lives as long as the process. Its
    arguments make a shape of an image, a value of a shape's match, and a value of an image.
    """

    def __init__(
        self,
        shape_of: Callable[[Mapping[str, Any]], Any] = shape_of,
        fill: Callable[[Any, re.Match[bytes]], Any] = fill_json,
        write: Callable[[Mapping[str, Any]], Any] = to_json,
    ) -> None:
        self._shape_of, self._fill, self._write = shape_of, fill, write
        self._known: list[tuple[Callable[[bytes], re.Match[bytes] | None], Any]] = []
        self._missed = 0
        self._sampled: Any = None
        self.others: Shapes | None = None  # the same for a format that is no plain JSON

    def encode(self, raw: bytes) -> Any:
        """Encode an image (as plain JSON by default), by its shape where that is known.

        Raises RecordError as parse_image and to_json do.
        """
        value = self.json_of(raw)
        if value is None:
            image = parse_image(raw)
            value = self._write(image)
            self.miss(image)
        return value

    def json_of(self, raw: bytes) -> Any:
        """Return an image's value where its shape is known, else None."""
        for at, (fullmatch, shape) in enumerate(self._known):
            match = fullmatch(raw)
            if match is None:
                continue
            if at:
                self._known.insert(0, self._known.pop(at))
            return self._fill(shape, match) if is_utf8(raw) else None
        return None

    def miss(self, image: Mapping[str, Any]) -> None:
        """Count an image without a known shape, which to_json has accepted.

        Every SHAPES_SAMPLE_EVERYth is a sample, and a shape is learned when two samples in a
        row have it: compiling one costs as much as it saves in some 300 images (2.3 ms).
        """
        self._missed += 1
        if self._missed % SHAPES_SAMPLE_EVERY:
            return
        shape = self._shape_of(image)
        if shape is not None and shape == self._sampled:
            self._known.insert(0, (re.compile(shape.pattern).fullmatch, shape))
            del self._known[SHAPES_MAX:]
        self._sampled = shape


def is_utf8(raw: bytes) -> bool:
    """Return whether bytes are UTF-8."""
    if raw.isascii():
        return True
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _set_of(member: bytes) -> bytes:
    # DynamoDB has no empty set.
    return rb"(\[%b(?:,%b)*\])" % (member, member)


LEAVES = {
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


ORDERS: dict[str, Order] = {"SS": _strings, "NS": _numbers, "BS": _binaries}
