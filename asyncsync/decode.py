"""Stage 1: the event's bytes in, stream records and rejects out.

Sequence numbers become int here and nowhere else. An image stays a slice of the event's bytes,
because most images are superseded and never needed. One odd record never spoils its neighbours:
one typed pass reads the whole event, and only where that fails is each record read alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, TypeVar, cast

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

D = TypeVar("D")
T = TypeVar("T")

EVENT_NAMES = ("INSERT", "MODIFY", "REMOVE")
KEY_TYPES = ("S", "N", "B")

# DynamoDB writes a JSON number in plain decimal notation. Others may write an exponent, which
# DynamoDB's range (1E-130 to 9.99E+125) ends at three digits.
# Not possessive: Python 3.11.2's possessive groups match "1e".
NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?")

_NO_SEQUENCE_NUMBER = f"a record has no SequenceNumber of 1 to {SEQUENCE_NUMBER_DIGITS_MAX} digits"
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

_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_EVENT = msgspec.json.Decoder(_Event)
_RAW_EVENT = msgspec.json.Decoder(_RawEvent)
_RECORD = msgspec.json.Decoder(_Record)
_OBJECT = msgspec.json.Decoder(dict[str, Raw])
_KEYS = msgspec.json.Decoder(dict[str, dict[str, str | None]])
_STRING = msgspec.json.Decoder(str)
_FLOAT = msgspec.json.Decoder(float)


def to_bytes(event: bytes | Mapping[str, Any]) -> bytes:
    """Return the event as JSON bytes, whether it came as bytes or parsed.

    Raises EventError where it is neither bytes nor JSON data.
    """
    if isinstance(event, bytes | bytearray | memoryview):
        return bytes(event)
    try:
        return orjson.dumps(event)
    except TypeError:
        pass
    try:
        # orjson's integers have 64 bits; a sequence number that is one must spoil only itself.
        return json.dumps(event).encode()
    except (TypeError, ValueError) as exc:
        raise EventError(f"the event is not JSON data: {exc}") from exc


def decode(event: bytes) -> Decoded:
    """Decode an event into records; bad ones become rejects or unnamed.

    Raises EventError where it is not an event of one DynamoDB stream.
    """
    records: list[StreamRecord] = []
    rejects: list[Reject] = []
    unnamed: list[str] = []

    sources = _read_records(event)
    stream, view_type = _stream_of(sources)
    for source in sources:
        text = source.dynamodb.SequenceNumber
        if not (text.isdigit() and text.isascii() and len(text) <= SEQUENCE_NUMBER_DIGITS_MAX):
            unnamed.append(_NO_SEQUENCE_NUMBER)
            continue
        try:
            records.append(_stream_record(source, text))
        except RecordError as exc:
            rejects.append(Reject(_number(text), text, exc.reason, exc.path))
    return Decoded(stream, view_type, records, rejects, unnamed, _oldest_s(sources))


def _stream_record(source: _Record, sequence_number: str) -> StreamRecord:
    change, name = source.dynamodb, source.eventName
    image = change.NewImage
    return StreamRecord(
        _key(change.Keys),
        _number(sequence_number),
        sequence_number,
        name == "REMOVE",
        _ABSENT if image == _NULL else image,
        "" if name in EVENT_NAMES else "eventName is not INSERT, MODIFY or REMOVE",
    )


def _oldest_s(sources: Sequence[_Record]) -> float | None:
    created = [source.dynamodb.ApproximateCreationDateTime for source in sources]
    return min([at for at in created if at is not None and 0 <= at < CREATED_S_MAX], default=None)


def _read_records(event: bytes) -> list[_Record]:
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
    return [_loose_record(raw) for raw in raws]


def _loose_record(raw: Raw) -> _Record:
    """Decode one record field by field; a field of a wrong type counts as absent."""
    fields = _or_else({}, _OBJECT, raw)
    change = _or_else({}, _OBJECT, fields.get("dynamodb", _ABSENT))
    return _Record(
        dynamodb=_Change(
            Keys=_loose_keys(change.get("Keys", _ABSENT)),
            SequenceNumber=_or_else("", _STRING, change.get("SequenceNumber", _ABSENT)),
            NewImage=change.get("NewImage", _ABSENT),
            ApproximateCreationDateTime=_or_else(
                None, _FLOAT, change.get("ApproximateCreationDateTime", _ABSENT)
            ),
            StreamViewType=_or_else("", _STRING, change.get("StreamViewType", _ABSENT)),
        ),
        eventName=_or_else("", _STRING, fields.get("eventName", _ABSENT)),
        eventSource=_or_else("", _STRING, fields.get("eventSource", _ABSENT)),
        eventSourceARN=_or_else("", _STRING, fields.get("eventSourceARN", _ABSENT)),
    )


def _loose_keys(raw: Raw) -> dict[str, _KeyAttribute]:
    attributes = _or_else({}, _KEYS, raw)
    return {name: _loose_attribute(tags) for name, tags in attributes.items()}


def _loose_attribute(tags: Mapping[str, str | None]) -> _KeyAttribute:
    """Take the tags that are not null; an attribute with one that no key has becomes empty."""
    given = {tag: text for tag, text in tags.items() if text is not None}
    return _KeyAttribute(**given) if given.keys() <= {*KEY_TYPES} else _KeyAttribute()


def _or_else(default: D, decoder: msgspec.json.Decoder[T], raw: Raw) -> T | D:
    try:
        return decoder.decode(raw)
    except _UNREADABLE:
        return default


def _key(attributes: Mapping[str, _KeyAttribute] | None) -> Key:
    if not attributes or len(attributes) > 2:
        raise RecordError("Keys is not a map of one or two key attributes of type S, N or B")
    if len(attributes) == 1:
        ((name, attribute),) = attributes.items()
        return (_key_attribute(name, attribute),)
    return tuple([_key_attribute(name, attributes[name]) for name in sorted(attributes)])


def _key_attribute(name: str, attribute: _KeyAttribute) -> KeyAttribute:
    as_text, as_number, as_binary = attribute.S, attribute.N, attribute.B
    if as_number is None and as_binary is None:
        tag, text = "S", as_text
    elif as_text is None and as_binary is None:
        tag, text = "N", as_number
    else:
        tag, text = "B", as_binary if as_text is None and as_number is None else None
    if not text:
        raise RecordError("a key attribute is not one non-empty value of type S, N or B", name)
    # Most numbers are whole, which takes 0.1 us to see and 0.4 to match.
    is_whole = text.isdigit() and text.isascii() and text[0] != "0"
    if tag == "N" and not is_whole and not NUMBER.fullmatch(text):
        raise RecordError("a key attribute of type N is not a number", name)
    return name, tag, text


def _stream_of(sources: Sequence[_Record]) -> tuple[Stream | None, str]:
    """Return the event's one stream and its view type; a record without an ARN is part of it."""
    if not sources:
        return None, ""
    named = [source for source in sources if source.eventSourceARN]
    first = (named or sources)[0]
    if first.eventSource not in ("aws:dynamodb", ""):
        raise EventError(f"not a DynamoDB stream event: its eventSource is {first.eventSource!r}")
    if not named:
        raise EventError(
            "not a DynamoDB stream event: no record has an eventSourceARN; "
            f"a real one looks like {_ARN_EXAMPLE}"
        )
    for source in named:
        if source.eventSourceARN != first.eventSourceARN:
            raise EventError(
                f"one event holds records of two streams, {first.eventSourceARN!r} and "
                f"{source.eventSourceARN!r}: a mapping sends one stream's"
            )
    return parse_stream_arn(first.eventSourceARN), first.dynamodb.StreamViewType


@lru_cache(maxsize=16)
def parse_stream_arn(arn: str) -> Stream:
    """Read the table's name and the stream's label from a stream's ARN.

    Raises EventError naming the ARN and showing a real one.
    """
    match = _ARN.fullmatch(arn)
    label_ms = -1 if match is None else _epoch_ms(match[2])
    if match is None or not 0 <= label_ms < 10**LABEL_DIGITS:
        raise EventError(
            f"eventSourceARN {arn!r} is not the ARN of a DynamoDB stream, which ends in an ISO "
            f"time since 1970; a real one looks like {_ARN_EXAMPLE}"
        )
    return Stream(arn, match[1], label_ms)


def _epoch_ms(label: str) -> int:
    """Return a label's time in epoch milliseconds; -1 where it is no ISO time."""
    try:
        time = datetime.fromisoformat(label)
    except ValueError:
        return -1
    return (time.replace(tzinfo=time.tzinfo or UTC) - _EPOCH) // timedelta(milliseconds=1)
