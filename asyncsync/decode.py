"""Stage 1: the event's bytes in, stream records and rejects out.

Sequence numbers become int here and nowhere else. An image stays a slice of the event's bytes,
because most images are superseded and never needed. One odd record never spoils its neighbours,
whatever its bytes: one typed pass reads the whole event, and only where that fails is each record
read alone, and one that is not JSON by what its text still says.
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
from asyncsync.senders import WINDOWED, refused

D = TypeVar("D")
T = TypeVar("T")

EVENT_NAMES = ("INSERT", "MODIFY", "REMOVE")
KEY_TYPES = ("S", "N", "B")


# Python 3.11.2, which Debian 12 has, gets possessive repetitions wrong: there this matches.
HAS_POSSESSIVE = re.fullmatch("(?:e[+-]?+[0-9]++)?+", "e") is None


def possessive(pattern: str) -> str:
    """Return a pattern whose repetitions never go back, or a plain one where Python cannot."""
    return pattern if HAS_POSSESSIVE else re.sub(r"([+*?}])\+", r"\1", pattern)


# DynamoDB writes a JSON number in plain decimal notation. Others may write an exponent, which
# DynamoDB's range (1E-130 to 9.99E+125) ends at three digits.
NUMBER = re.compile(
    possessive(r"-?+(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][+-]?+[0-9]{1,3}+)?+"),
)

_SOURCE = "aws:dynamodb"
_NOT_JSON = "the record is not JSON"
_FAULTS = {_NOT_JSON: _NOT_JSON}
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


class _Window(Struct, kw_only=True):
    window: Raw = Raw()
    state: Raw = Raw()
    isFinalInvokeForWindow: Raw = Raw()


class _Event(_Window):
    Records: list[_Record]


class _RawEvent(_Window):
    Records: list[Raw]


_number = cast("Callable[[str], SequenceNumber]", int)  # 0.1 us less than a call of both

_NULL = Raw(b"null")
_ABSENT = Raw()
_EMPTY = Raw(b"{}")
_NO_WINDOW = (_ABSENT, _ABSENT, _ABSENT)

_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

# What is between two records, however broken their texts are: the next object begins with a
# record's field, or at least with no type tag, with which objects in an image's arrays begin.
_SEPARATOR = re.compile(rb',\s*(?=\{\s*"(?:event\w+|awsRegion|dynamodb|userIdentity)"\s*:)')
_ANY_SEPARATOR = re.compile(rb',\s*(?=\{\s*"(?!(?:[SNBML]|BOOL|NULL|[SNB]S)"\s*:))')
_HEAD = re.compile(rb'\s*\{\s*"Records"\s*:\s*\[')
_TAIL = re.compile(rb"\]\s*\}\s*\Z")

# A field in a record's text: a string without escapes, or a map of maps of strings.
_QUOTED = rb'"(?:[^"\\]|\\.)*"'
_FIELD_TEXT = re.compile(
    rb'"(?:(SequenceNumber|StreamViewType|eventSource|eventSourceARN)"\s*:\s*("[ !#-\[\]-~]*")'
    rb'|(Keys)"\s*:\s*(\{(?:\s*%b\s*:\s*\{(?:[^{}"]|%b)*\}\s*,?)+\}))' % (_QUOTED, _QUOTED),
    re.DOTALL,
)

_EVENT = msgspec.json.Decoder(_Event)
_RAW_EVENT = msgspec.json.Decoder(_RawEvent)
_RECORD = msgspec.json.Decoder(_Record)
_OBJECT = msgspec.json.Decoder(dict[str, Raw])
_KEYS = msgspec.json.Decoder(dict[str, dict[str, str | None]])
_STRING = msgspec.json.Decoder(str)
_FLOAT = msgspec.json.Decoder(float)
_SIMPLE: Mapping[str, msgspec.json.Decoder[Any]] = {
    **dict.fromkeys(("eventName", "eventSource", "eventSourceARN"), _STRING),
    **dict.fromkeys(("SequenceNumber", "StreamViewType"), _STRING),
    "ApproximateCreationDateTime": _FLOAT,
}


def to_bytes(event: bytes | Mapping[str, Any]) -> bytes:
    """Return the event as JSON bytes, whether it came as bytes or parsed.

    Raises EventError where it is neither bytes nor JSON data.
    """
    if isinstance(event, bytes | bytearray | memoryview):
        return bytes(event)
    try:
        return orjson.dumps(event, default=_plain)
    except TypeError:
        pass
    try:
        # orjson's integers have 64 bits; a sequence number that is one must spoil only itself.
        return json.dumps(event, default=_plain).encode()
    except (TypeError, ValueError) as exc:
        raise EventError(f"the event is not JSON data: {exc}") from exc


def _plain(value: object) -> dict[str, object]:
    """Return a mapping that is no dict as one: an event of Powertools' data classes."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{type(value).__name__} is not JSON")
    return {name: value[name] for name in value}  # theirs may shadow keys()


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
        ""
        if name in EVENT_NAMES
        else _FAULTS.get(name, "eventName is not INSERT, MODIFY or REMOVE"),
    )


def _oldest_s(sources: Sequence[_Record]) -> float | None:
    created = [source.dynamodb.ApproximateCreationDateTime for source in sources]
    return min([at for at in created if at is not None and 0 <= at < CREATED_S_MAX], default=None)


def _read_records(event: bytes) -> list[_Record]:
    try:
        whole: _Event | _RawEvent = _EVENT.decode(event)
    except _UNREADABLE:
        whole = _read_loosely(event)
    if (whole.window, whole.state, whole.isFinalInvokeForWindow) != _NO_WINDOW:
        raise EventError(WINDOWED)
    return whole.Records if isinstance(whole, _Event) else [*map(_loose_record, whole.Records)]


def _read_loosely(event: bytes) -> _RawEvent:
    """Part an event into its records' texts, which need not be JSON."""
    if event.lstrip().startswith(b"["):
        raise refused("[")
    try:
        return _RAW_EVENT.decode(event)
    except msgspec.ValidationError:
        fields = _or_else({}, _OBJECT, Raw(event))
        raise refused(fields, _or_else("", _STRING, fields.get("eventSource", _ABSENT))) from None
    except _UNREADABLE as exc:
        head, tail = _HEAD.match(event), _TAIL.search(event)
        if not head or not tail:
            raise EventError(f"the event is not JSON: {exc}") from exc
    texts: list[Raw] = []
    for text in _SEPARATOR.split(event[head.end() : tail.start()]):
        is_one = text.count(b'"SequenceNumber"') < 2
        texts += map(Raw, [text] if is_one else _ANY_SEPARATOR.split(text))
    return _RawEvent(Records=texts)


def _loose_record(raw: Raw) -> _Record:
    """Decode one record field by field; a field of a wrong type counts as absent."""
    fields: Mapping[str, Raw] = {}
    change: Mapping[str, Raw] = {}
    try:
        fields = _OBJECT.decode(raw)
        change = _OBJECT.decode(fields.get("dynamodb", _EMPTY))
    except msgspec.ValidationError:
        pass
    except _UNREADABLE:
        fields = change = _fields_of_text(bytes(raw))
    if "EventSource" in fields:  # SNS's
        fields = {"eventSource": fields["EventSource"]}
    keys = _loose_keys(change.get("Keys", _ABSENT))
    image = change.get("NewImage", _ABSENT)
    return _Record(
        _Change(Keys=keys, NewImage=image, **_loose_fields(_Change, change)),
        **_loose_fields(_Record, fields),
    )


def _loose_fields(kind: type[Struct], fields: Mapping[str, Raw]) -> dict[str, Any]:
    """Return those of a type's simple fields that can be read."""
    known = [name for name in fields if name in _SIMPLE and name in kind.__struct_fields__]
    values = {name: _or_else(None, _SIMPLE[name], fields[name]) for name in known}
    return {name: value for name, value in values.items() if value is not None}


def _fields_of_text(text: bytes) -> dict[str, Raw]:
    """Return what the text of a record that is not JSON still says, each name that it says once.

    An attribute of an image with such a name has another kind of value.
    """
    texts: dict[str, set[bytes]] = {}
    for name, string, keys, attributes in _FIELD_TEXT.findall(text):
        texts.setdefault((name or keys).decode(), set()).add(string or attributes)
    fields = {name: Raw(values.pop()) for name, values in texts.items() if len(values) == 1}
    return fields | {"eventName": Raw(b'"%b"' % _NOT_JSON.encode())}


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
    services = dict.fromkeys([source.eventSource for source in sources if source.eventSource])
    if services and _SOURCE not in services:
        raise refused((), next(iter(services)))
    arns = [*dict.fromkeys([each.eventSourceARN for each in sources if each.eventSourceARN])]
    if len(arns) > 1:  # a broken one costs its own record
        arns = [arn for arn in arns if _ARN.fullmatch(arn)] or arns
        for source in sources:
            if source.eventSourceARN not in ("", *arns):
                source.dynamodb.Keys = None
    if not arns:
        raise EventError(
            "not a DynamoDB stream event: no record has an eventSourceARN; "
            f"a real one looks like {_ARN_EXAMPLE}"
        )
    if len(arns) > 1:
        raise EventError(
            f"one event holds records of two streams, {arns[0]!r} and {arns[1]!r}: "
            "a mapping sends one stream's"
        )
    views = [source.dynamodb.StreamViewType for source in sources]
    return parse_stream_arn(arns[0]), next(filter(None, views), "")


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
