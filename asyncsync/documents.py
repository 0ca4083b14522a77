"""Stage 3, values of the format `redis-json`: the plain JSON, with numbers that the server keeps.

The JSON module holds a number as a 64-bit integer or a double, and its parser does not always
find the nearest double: it multiplies or divides the digits by a power of ten. That is exact
where the digits fit into 53 bits and the power is at most 22. A number that could come back as
another one is written as a string of its digits.
"""

from __future__ import annotations

import re
from decimal import Decimal

import msgspec
from msgspec import Raw

from asyncsync.errors import RecordError
from asyncsync.limits import DOCUMENT_LEVELS_MAX
from asyncsync.shapes import Shape, Shapes, fill_json, shape_of
from asyncsync.values import Result, plain_json, to_json

# Most documents hold no such number: one of 16 characters, or with an exponent.
_LONG_NUMBER = re.compile(rb"[:,\[]-?(?:[0-9.]{16}|[0-9.]+[eE])")
_is_long = re.compile(rb"[0-9.]{16}|[eE]").search  # in a number, or a set of them

_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+-]*')
_BRACKET = re.compile(rb'"(?:[^"\\]|\\.)*"|([\[{])|([\]}])')

_EXACT_POWER_MAX = 22  # the largest power of ten that a double holds exactly


def document_shapes() -> Shapes:
    """Return an encoder of images that remembers their shapes."""
    return Shapes(shape_of, _fill, lambda image: document_of(to_json(image)))


def _fill(shape: Shape, match: re.Match[bytes]) -> bytes:
    text = fill_json(shape, match)
    # A shape has too few values to be nested too deep.
    return document_of(text) if any(_is_long(match[at + 1]) for at in shape.numbers) else text


def document_of(text: bytes) -> bytes:
    """Return plain JSON, compact, as the server can hold it. Raises RecordError."""
    if text.count(b"{") + text.count(b"[") > DOCUMENT_LEVELS_MAX:
        _refuse_deep(text)
    return _TOKEN.sub(_exact, text) if _LONG_NUMBER.search(text) else text


def write_document(result: Result) -> bytes:
    """Encode what a transform returned, a dict or JSON's own bytes. Raises RecordError."""
    text = plain_json(result)
    if isinstance(result, bytes):
        try:
            text.decode()
            msgspec.json.decode(text, type=Raw)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise RecordError("the transform returned bytes that are not JSON") from None
        text = _TOKEN.sub(_exact, text)
    return document_of(text)


def _exact(token: re.Match[bytes]) -> bytes:
    text = token[0]
    return text if text.startswith(b'"') or _is_kept(text) else b'"%b"' % text


def _is_kept(number: bytes) -> bool:
    """Return whether the server gives a number back as the same number."""
    mantissa, _, exponent = number.lower().partition(b"e")
    whole, point, fraction = mantissa.removeprefix(b"-").partition(b".")
    digits = (whole + fraction).lstrip(b"0") or b"0"
    if not (point or exponent):
        return len(digits) < 20 and -(2**63) <= int(number) < 2**63
    if len(digits) > 16 or len(exponent) > 4 or int(digits) >= 2**53:
        return False
    if abs(int(exponent or 0) - len(fraction)) > _EXACT_POWER_MAX:
        return False
    return Decimal(repr(float(number))) == Decimal(number.decode())


def _refuse_deep(text: bytes) -> None:
    level = deepest = 0
    for bracket in _BRACKET.finditer(text):
        level += bool(bracket[1]) - bool(bracket[2])
        deepest = max(deepest, level)
    if deepest > DOCUMENT_LEVELS_MAX:
        raise RecordError(
            f"nested {deepest:,} levels deep: a JSON document has {DOCUMENT_LEVELS_MAX} at most"
        )
