"""Stage 1: the event's bytes in, stream records and rejects out.

Sequence numbers become int here and nowhere else. An image stays the slice of bytes it came
as: most are superseded and never looked at. One odd record never spoils its neighbours: the
whole event is read by one typed pass, and only where that fails is each record read alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, cast

import msgspec
import orjson
from msgspec import Raw, Struct

from asyncsync.errors import EventError, RecordError
from asyncsync.limits import CREATED_S_MAX, LABEL_DIGITS, SEQUENCE_NUMBER_DIGITS_MAX
from asyncsync.model import (
    Decoded,
    Key,
    KeyAttribute,
    Reject,
    SequenceNumber,
    Stream,
    StreamRecord,
)

EVENT_NAMES = ("INSERT", "MODIFY", "REMOVE")
KEY_TYPES = ("S", "N", "B")

# What DynamoDB writes is a JSON number in plain decimal notation. An exponent may stand in
# what others write; DynamoDB's own range (1E-130 to 9.99E+125) ends it at three digits.
# Possessive, because shapes.py makes it a part of longer patterns: no digit is tried twice.
NUMBER = re.compile(r"-?+(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][+-]?+[0-9]{1,3}+)?+")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ARN = re.compile(r"arn:[^:]+:dynamodb:[^:]*:[^:]*:table/([A-Za-z0-9_.-]+)/stream/(.+)")
_ARN_EXAMPLE = (
    "arn:aws:dynamodb:us-east-1:111122223333:table/Players/stream/2026-01-01T00:00:00.000"
)


# Some SDKs write every type tag and leave all but one null.
class _KeyAttribute(Struct, gc=False, forbid_unknown_fields=True):
    S: str | None = None
    N: str | None = None
    B: str | None = None


class _Change(Struct, gc=False):
    Keys: dict[str, _KeyAttribute] | None = None
    SequenceNumber: str = ""
    NewImage: Raw = Raw()
    ApproximateCreationDateTime: float | None = None
    StreamViewType: str = ""


class _Record(Struct, gc=False):
    dynamodb: _Change
    eventName: str = ""
    eventSource: str = ""
    eventSourceARN: str = ""


class _Event(Struct):
    Records: list[_Record]


class _RawEvent(Struct):
    Records: list[Raw]


_number = cast("Callable[[str], SequenceNumber]", int)  # 0.1 us less than a call of both

_NULL = Raw(b"null")
_ABSENT = Raw()
_NO_MAP = {"": _KeyAttribute()}  # Keys that are something else

_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_EVENT = msgspec.json.Decoder(_Event)
_RAW_EVENT = msgspec.json.Decoder(_RawEvent)
_RECORD = msgspec.json.Decoder(_Record)
_OBJECT = msgspec.json.Decoder(dict[str, Raw])
_KEYS = msgspec.json.Decoder(dict[str, dict[str, str | None]] | None)


def to_bytes(event: bytes | Mapping[str, Any]) -> bytes:
    """Return the event as JSON bytes; one that came parsed is dumped.

    Raises EventError where it is neither bytes nor JSON data.
    """
    if isinstance(event, bytes | bytearray | memoryview):
        return bytes(event)
    try:
        return orjson.dumps(event)
    except TypeError:
        pass
    try:
        # orjson ends at 64 bits; a sequence number sent as a number must spoil only itself.
        return json.dumps(event).encode()
    except (TypeError, ValueError) as exc:
        raise EventError(f"the event is not JSON data: {exc}") from exc


def decode(event: bytes) -> Decoded:
    """Read an event into records; bad ones become rejects or unnamed.

    Raises EventError where it is not an event of one DynamoDB stream.
    """
    records: list[StreamRecord] = []
    rejects: list[Reject] = []
    unnamed: list[str] = []
    oldest_s: float | None = None

    wires = _wire_records(event)
    stream, view_type = _stream_of(wires)
    for wire in wires:
        change = wire.dynamodb
        created_s = change.ApproximateCreationDateTime
        if created_s is not None and 0 <= created_s < CREATED_S_MAX:
            oldest_s = created_s if oldest_s is None or created_s < oldest_s else oldest_s
        text = change.SequenceNumber
        if not (text.isdigit() and text.isascii() and len(text) <= SEQUENCE_NUMBER_DIGITS_MAX):
            unnamed.append(_sequence_number_fault(text))
            continue
        number = _number(text)
        try:
            key = _key(change.Keys)
        except RecordError as exc:
            rejects.append(Reject(number, text, exc.reason, exc.path))
            continue
        name = wire.eventName
        fault = "" if name in EVENT_NAMES else "eventName is not INSERT, MODIFY or REMOVE"
        image = change.NewImage
        if image == _NULL:
            image = _ABSENT
        records.append(StreamRecord(key, number, text, name == "REMOVE", image, fault))

    return Decoded(stream, view_type, records, rejects, unnamed, oldest_s)


def _wire_records(event: bytes) -> list[_Record]:
    try:
        return _EVENT.decode(event).Records
    except _UNREADABLE:
        pass
    try:
        raws = _RAW_EVENT.decode(event).Records
    except msgspec.ValidationError as exc:
        raise EventError(f"not a DynamoDB stream event, it has no list of Records: {exc}") from exc
    except _UNREADABLE as exc:
        raise EventError(f"the event is not JSON: {exc}") from exc
    return [_loose(raw) for raw in raws]


def _loose(raw: Raw) -> _Record:
    """Read one record field by field; a field of a wrong type is as good as absent."""
    try:
        return _RECORD.decode(raw)
    except _UNREADABLE:
        pass
    outer = _object(raw)
    change = _object(outer.get("dynamodb", Raw()))
    created = _value(change, "ApproximateCreationDateTime")
    is_time = isinstance(created, int | float) and not isinstance(created, bool)
    return _Record(
        dynamodb=_Change(
            Keys=_loose_keys(change.get("Keys", _NULL)),
            SequenceNumber=_text(change, "SequenceNumber"),
            NewImage=change.get("NewImage", Raw()),
            ApproximateCreationDateTime=created if is_time else None,
            StreamViewType=_text(change, "StreamViewType"),
        ),
        eventName=_text(outer, "eventName"),
        eventSource=_text(outer, "eventSource"),
        eventSourceARN=_text(outer, "eventSourceARN"),
    )


def _loose_keys(raw: Raw) -> dict[str, _KeyAttribute] | None:
    """Read keys whose attributes may have type tags that no key has; such a one is empty."""
    try:
        attributes = _KEYS.decode(raw)
    except _UNREADABLE:
        return _NO_MAP
    if attributes is None:
        return None
    return {
        name: _KeyAttribute(**texts) if texts.keys() <= {*KEY_TYPES} else _KeyAttribute()
        for name, tags in attributes.items()
        for texts in [{tag: text for tag, text in tags.items() if text is not None}]
    }


def _object(raw: Raw) -> dict[str, Raw]:
    try:
        return _OBJECT.decode(raw)
    except _UNREADABLE:
        return {}


def _value(fields: Mapping[str, Raw], name: str) -> Any:
    try:
        return msgspec.json.decode(fields[name]) if name in fields else None
    except _UNREADABLE:
        return None


def _text(fields: Mapping[str, Raw], name: str) -> str:
    value = _value(fields, name)
    return value if isinstance(value, str) else ""


def _sequence_number_fault(text: str) -> str:
    if not text:
        return "a record has no SequenceNumber text"
    if text.isdigit() and text.isascii():
        return f"a SequenceNumber has {len(text)} digits, allowed is {SEQUENCE_NUMBER_DIGITS_MAX}"
    return "a SequenceNumber is not made of digits"


def _key(attributes: Mapping[str, _KeyAttribute] | None) -> Key:
    if attributes is None:
        raise RecordError("the record has no Keys")
    if attributes is _NO_MAP:
        raise RecordError("Keys is not a map of key attributes of type S, N or B")
    if len(attributes) == 1:
        for name, attribute in attributes.items():  # pragma: no branch
            return (_key_attribute(name, attribute),)
    if len(attributes) != 2:
        raise RecordError(f"Keys has {len(attributes)} attributes, a primary key has one or two")
    return tuple([_key_attribute(name, attributes[name]) for name in sorted(attributes)])


def _key_attribute(name: str, attribute: _KeyAttribute) -> KeyAttribute:
    as_text, as_number, as_binary = attribute.S, attribute.N, attribute.B
    if as_number is None and as_binary is None:
        tag, text = "S", as_text
    elif as_text is None and as_binary is None:
        tag, text = "N", as_number
    else:
        tag, text = "B", as_binary if as_text is None and as_number is None else None
    if text is None:
        raise RecordError("a key attribute is not one value of type S, N or B", name)
    if not text:
        raise RecordError("a key attribute is empty", name)
    # Most are whole numbers, which is seen sooner than matched (0.1 and 0.4 us).
    is_whole = text.isdigit() and text.isascii() and text[0] != "0"
    if tag == "N" and not is_whole and not NUMBER.fullmatch(text):
        raise RecordError("a key attribute of type N is not a number", name)
    return name, tag, text


def _stream_of(wires: Sequence[_Record]) -> tuple[Stream | None, str]:
    """Return the one stream and its view type; a record that names none belongs to it too."""
    if not wires:
        return None, ""
    named = [wire for wire in wires if wire.eventSourceARN]
    first = (named or wires)[0]
    if first.eventSource not in ("aws:dynamodb", ""):
        raise EventError(f"not a DynamoDB stream event: its eventSource is {first.eventSource!r}")
    if not named:
        raise EventError(
            "not a DynamoDB stream event: no record has an eventSourceARN; "
            f"a real one looks like {_ARN_EXAMPLE}"
        )
    for wire in named:
        if wire.eventSourceARN != first.eventSourceARN:
            raise EventError(
                f"one event holds records of two streams, {first.eventSourceARN!r} and "
                f"{wire.eventSourceARN!r}: a mapping sends those of one"
            )
    return parse_stream_arn(first.eventSourceARN), first.dynamodb.StreamViewType


@lru_cache(maxsize=16)
def parse_stream_arn(arn: str) -> Stream:
    """Read the table's name and the stream's label out of its ARN.

    Raises EventError naming the ARN and showing a real one.
    """
    found = _ARN.fullmatch(arn)
    if found is None:
        raise EventError(
            f"eventSourceARN {arn!r} is not the ARN of a DynamoDB stream; "
            f"a real one looks like {_ARN_EXAMPLE}"
        )
    try:
        label = datetime.fromisoformat(found[2])
    except ValueError:
        label = _EPOCH - timedelta(milliseconds=1)
    if label.tzinfo is None:
        label = label.replace(tzinfo=UTC)
    label_ms = (label - _EPOCH) // timedelta(milliseconds=1)
    if not 0 <= label_ms < 10**LABEL_DIGITS:
        raise EventError(
            f"the stream label {found[2]!r} in {arn!r} is not an ISO time since 1970; "
            f"a real ARN looks like {_ARN_EXAMPLE}"
        )
    return Stream(arn, found[1], label_ms)
