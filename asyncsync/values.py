"""Stage 3, values: a new image (DynamoDB JSON) to the bytes that readers GET; lossless.

A number keeps the stream's own digits: it is checked and copied, never computed with. DynamoDB's
sets have no order, so each is sorted: the same item gives the same bytes.
boto3's TypeDeserializer raises on legal numbers and on B from Lambda, so it is not used.
"""

from __future__ import annotations

import re
from binascii import Error as BinasciiError
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Container, Iterable, Mapping
from decimal import Decimal
from typing import Any, NoReturn, TypeAlias, TypeVar

import msgspec
import orjson
from msgspec import Raw

from asyncsync.decode import NUMBER
from asyncsync.errors import RecordError
from asyncsync.limits import EXPIRY_MS_MAX, EXPIRY_PAST_MS_MAX

Item: TypeAlias = dict[str, object]
Result: TypeAlias = dict[str, object] | bytes  # of a transform; None leaves the item out
Transform: TypeAlias = Callable[[Item], "Result | None"]

T = TypeVar("T")
W = TypeVar("W")

_number = NUMBER.fullmatch
_Fragment = orjson.Fragment
_TAG = "[A-Z]{1,4}"
_INFINITY = float("inf")
TOO_DEEP = "nested deeper than can be written (DynamoDB ends at 32)"
_TOP = msgspec.json.Decoder(dict[str, Raw])


def parse_image(raw: bytes) -> dict[str, dict[str, Any]]:
    """Parse an image's bytes to attribute values, still in DynamoDB JSON.

    Raises RecordError where there is none or it is not a map of attributes.
    """
    if not raw:
        raise RecordError("the record has no NewImage")
    try:
        image = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise RecordError("NewImage is not JSON") from None
    if not isinstance(image, dict):
        raise RecordError("NewImage is not a map of attributes")
    return image


def only(raw: bytes, names: Container[str]) -> bytes:
    """Return an image's bytes with these attributes alone; the others are not looked at.

    Raises RecordError where there is no image or it is not a map of attributes.
    """
    try:
        attributes = _TOP.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        # It says what is wrong, or reads the attributes in another way.
        attributes = {name: Raw(orjson.dumps(each)) for name, each in parse_image(raw).items()}
    parts = [
        orjson.dumps(name) + b":" + bytes(attribute)
        for name, attribute in attributes.items()
        if name in names
    ]
    return b"{%b}" % b",".join(parts)


# --- plain JSON -------------------------------------------------------------------------------


def to_json(image: Mapping[str, Any]) -> bytes:
    """Encode an image as plain JSON; numbers keep their digits.

    Raises RecordError with the attribute's path where a value is not DynamoDB JSON.
    """
    try:
        return orjson.dumps(plain_map(image))
    except (orjson.JSONEncodeError, RecursionError):
        raise RecordError(TOO_DEEP) from None


def plain_map(value: Any) -> dict[str, object]:
    """Return an image's attributes, or a map's, as what orjson writes. Raises RecordError."""
    return _plain_each(_checked(dict, value, "M is not a map").items())


def _plain_list(value: Any) -> list[object]:
    return list(_plain_each(enumerate(_as_list(value))).values())


def _plain_each(attributes: Iterable[tuple[Any, Any]]) -> dict[Any, object]:
    """Convert each attribute value; every value of every image passes here.

    Most values are strings and numbers, so those are converted in place.
    """
    plain: dict[Any, object] = {}
    name: Any = ""
    try:
        for name, attribute in attributes:
            try:
                (tag,) = attribute
                value = attribute[tag]
            except (TypeError, ValueError, LookupError):
                tag, value = _tagged(attribute)
            if tag == "S" and value.__class__ is str:
                plain[name] = value
            elif tag == "N" and value.__class__ is str and _number(value):
                plain[name] = _Fragment(value)
            else:
                plain[name] = _reader(tag)(value)
    except RecordError as exc:
        raise exc.inside(str(name)) from None
    return plain


def _reader(tag: str) -> Callable[[Any], object]:
    reader = _PLAIN.get(tag)
    if reader is None:
        # An unknown tag may be an item's content, and a reason reaches a log.
        shown = f"{tag!r} " if re.fullmatch(_TAG, str(tag)) else ""
        raise RecordError(f"attribute type {shown}is unknown")
    return reader


def _tagged(attribute: Any) -> tuple[str, Any]:
    """Return an attribute value's one tag and value; some SDKs write the other tags as null."""
    tags = [*_checked(dict, attribute, "an attribute value is not a map of one type tag").items()]
    if len(tags) != 1:
        tags = [item for item in tags if item[1] is not None]
    if len(tags) != 1:
        raise RecordError(f"an attribute value has {len(tags)} types, not one")
    return tags[0]


def _checked(kind: type[T], value: Any, reason: str) -> T:
    if value.__class__ is not kind:
        raise RecordError(reason)
    return value


def _digits(value: Any) -> str:
    if value.__class__ is not str or not _number(value):
        raise RecordError("N is not a number")
    return value


def _bytes(value: Any) -> bytes:
    try:
        return a2b_base64(value, strict_mode=True)
    except (BinasciiError, TypeError, ValueError):
        raise RecordError("B is not base64 text") from None


def _base64(value: Any) -> str:
    _bytes(value)
    return value  # type: ignore[no-any-return]


def _null(value: Any) -> None:
    if value is not True:
        raise RecordError("NULL is not true")


def _as_list(value: Any) -> list[Any]:
    return _checked(list, value, "a list or set is not an array")


def _string_set(value: Any) -> list[str]:
    members = _as_list(value)
    if not {*map(type, members)} <= {str}:
        raise RecordError("SS holds something that is not a string")
    return sorted(members)  # code points sort as UTF-8 bytes do


def _number_set(value: Any) -> orjson.Fragment:
    return _Fragment("[" + ",".join(sorted(map(_digits, _as_list(value)), key=Decimal)) + "]")


_PLAIN: dict[str, Callable[[Any], object]] = {
    "S": lambda value: _checked(str, value, "S is not a string"),
    "N": lambda value: _Fragment(_digits(value)),
    "B": _base64,
    "BOOL": lambda value: _checked(bool, value, "BOOL is not true or false"),
    "NULL": _null,
    "M": plain_map,
    "L": _plain_list,
    "SS": _string_set,
    "NS": _number_set,
    "BS": lambda value: sorted(_as_list(value), key=_bytes),
}


# --- the user's transform ---------------------------------------------------------------------


def to_item(image: Mapping[str, Any]) -> Item:
    """Decode an image to Python values: N to Decimal, B to bytes, sets to sets.

    Raises RecordError with the attribute's path where a value is not DynamoDB JSON.
    """
    to_json(image)  # the one check of what is legal
    return {name: _python(attribute) for name, attribute in image.items()}


def _python(attribute: Any) -> object:
    tag, value = _tagged(attribute)
    if tag in ("S", "BOOL"):
        return value
    return _PYTHON[tag](value)


_PYTHON: dict[str, Callable[[Any], object]] = {
    "N": Decimal,
    "B": _bytes,
    "NULL": _null,
    "M": lambda value: {name: _python(member) for name, member in value.items()},
    "L": lambda value: [_python(member) for member in value],
    "SS": set,
    "NS": lambda value: {Decimal(member) for member in value},
    "BS": lambda value: {_bytes(member) for member in value},
}


def plain_json(result: Result) -> bytes:
    """Write what a transform returned as plain JSON; bytes stay as they are.

    Raises RecordError where JSON cannot hold it.
    """
    return result if isinstance(result, bytes) else json_text(result)


def transformed(
    transform: Transform,
    image: Mapping[str, Any],
    write: Callable[[Result], W] = plain_json,  # type: ignore[assignment] # its W is bytes
) -> W | None:
    """Call the user's transform with an image's item; return the value, or None to remove.

    Raises RecordError where it raises or returns what the value cannot hold; its message is not
    repeated, because it may hold the item's values.
    """
    item = to_item(image)
    try:
        value = transform(item)
    except Exception as exc:
        raise RecordError(f"the transform raised {type(exc).__name__}") from exc
    if value is None:
        return None
    if not isinstance(value, dict | bytes):
        raise RecordError(
            f"the transform returned {type(value).__name__}, not dict, bytes or None"
        )
    return write(value)


def json_text(value: Any) -> bytes:
    """Write a dict of a transform's, or a member of it, as JSON.

    Raises RecordError with the path of what JSON cannot hold.
    """
    try:
        written = orjson.dumps(value, default=_holdable)
        if b"null" not in written:  # orjson writes a float that is no number as null
            return written
    except orjson.JSONEncodeError:
        pass  # of its limits some are not JSON's
    try:
        return orjson.dumps(_holdable(value))
    except RecursionError:
        raise RecordError("the transform returned a dict that is nested too deep") from None


def _holdable(value: Any) -> Any:
    """Return what orjson writes for a value: a fragment where it is past one of its limits.

    Those are whole numbers of 64 bits, 254 levels and its own types. Raises RecordError with
    the path of what JSON cannot hold.
    """
    kind = type(value).__name__
    if isinstance(value, bytes | bytearray | memoryview):
        return b2a_base64(value, newline=False).decode()
    if isinstance(value, Decimal | int) and not isinstance(value, bool):
        number = Decimal(value)  # str(int) ends at 4,300 digits
        return _Fragment(str(number)) if number.is_finite() else _unholdable(kind)
    if isinstance(value, float):
        return float(value) if abs(value) < _INFINITY else _unholdable(kind)
    try:  # a class of the user's may raise anything
        value = _plain_container(value)
        if not isinstance(value, dict | list):
            return _Fragment(orjson.dumps(value))
    except Exception:
        _unholdable(kind)
    return _fragment(value)


def _plain_container(value: Any) -> Any:
    if hasattr(value, "__dataclass_fields__"):
        names = [name for name in value.__dataclass_fields__ if not name.startswith("_")]
        return {name: getattr(value, name) for name in names}
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    return list(value) if isinstance(value, tuple) else value


def _fragment(value: dict[Any, Any] | list[Any]) -> orjson.Fragment:
    """Write each member of a dict or a list on its own."""
    texts = []
    is_dict = isinstance(value, dict)
    for name, member in value.items() if isinstance(value, dict) else enumerate(value):
        if is_dict and not isinstance(name, str):
            _unholdable(f"name of type {type(name).__name__}")
        head = orjson.dumps(_holdable(name)) + b":" if is_dict else b""
        try:
            texts.append(head + orjson.dumps(_holdable(member)))
        except RecordError as exc:
            raise exc.inside(str(name)) from None
    return _Fragment((b"{%b}" if is_dict else b"[%b]") % b",".join(texts))


def _unholdable(kind: str) -> NoReturn:
    raise RecordError(f"the transform returned a {kind} that JSON cannot hold")


# --- expiry -----------------------------------------------------------------------------------


def expiry_ms(attribute: Any, now_ms: int) -> int:
    """Return when an item with this TTL attribute expires, in epoch milliseconds; 0 for never.

    DynamoDB's whole rule: a positive number of epoch seconds, at most five years past. Anything
    else, and a time past 2**53 ms, means no expiry, never a bad record.
    """
    try:
        digits = _digits(attribute["N"])
    except (KeyError, TypeError, RecordError):
        return 0
    seconds = Decimal(digits)
    if not 0 < seconds <= EXPIRY_MS_MAX // 1_000:
        return 0
    ends_ms = int(seconds) * 1_000
    return ends_ms if ends_ms >= now_ms - EXPIRY_PAST_MS_MAX else 0


def read_attribute(raw: bytes, name: str) -> Any:
    """Return one attribute value of an unparsed image, None where it is absent."""
    try:
        attribute = _TOP.decode(raw).get(name)
        return None if attribute is None else orjson.loads(bytes(attribute))
    except (msgspec.DecodeError, UnicodeDecodeError, orjson.JSONDecodeError):
        return None
