"""One record whose bytes are not JSON costs itself and no other, whatever these bytes are."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asyncsync.config import Config
from asyncsync.copy.plain import dynamodb_json
from asyncsync.decode import decode, to_bytes
from asyncsync.encode import EncodeRules, encode
from asyncsync.errors import EventError
from asyncsync.fence import RANK_REJECT
from asyncsync.formats import FORMATS
from asyncsync.model import Decoded, Encoded
from tests.support.events import FIRST, Record, arn, event

HERE = b"here"
RECORDS = 100
ARN = arn()


def record(number: int) -> Record:
    """Return a record as DynamoDB writes it, with every field and both images."""
    image = {"Id": f"p{number}", "Name": "x", "Deep": [{"SequenceNumber": "7"}, {"a": ["b"]}]}
    return {
        "eventID": f"{number:032x}",
        "eventName": "MODIFY",
        "eventVersion": "1.1",
        "eventSource": "aws:dynamodb",
        "awsRegion": "us-east-1",
        "dynamodb": {
            "ApproximateCreationDateTime": 1_767_225_600.0,
            "Keys": {"Id": {"S": f"p{number}"}},
            "NewImage": dynamodb_json(image),
            "OldImage": dynamodb_json(image),
            "SequenceNumber": str(FIRST + number),
            "SizeBytes": 100,
            "StreamViewType": "NEW_AND_OLD_IMAGES",
        },
        "eventSourceARN": ARN,
    }


GOOD = [record(number) for number in range(RECORDS)]

# Where the bytes go: a path to a string in a record, and whether its end is a name.
PLACES: dict[str, tuple[tuple[Any, ...], bool]] = {
    "the image": (("dynamodb", "NewImage", "Name", "S"), False),
    "deep in the image": (("dynamodb", "NewImage", "Deep", "L", 1, "M", "a", "L", 0, "S"), False),
    "a name in the image": (("dynamodb", "NewImage", "Name"), True),
    "a type tag": (("dynamodb", "NewImage", "Name", "S"), True),
    "the old image": (("dynamodb", "OldImage", "Name", "S"), False),
    "the key": (("dynamodb", "Keys", "Id", "S"), False),
    "the key's name": (("dynamodb", "Keys", "Id"), True),
    "the event's id": (("eventID",), False),
    "the event's name": (("eventName",), False),
    "the source": (("eventSource",), False),
    "the region": (("awsRegion",), False),
    "the view": (("dynamodb", "StreamViewType"), False),
    "the ARN": (("eventSourceARN",), False),
    "the name of the id": (("eventID",), True),
    "the name of the ARN": (("eventSourceARN",), True),
    "the sequence number": (("dynamodb", "SequenceNumber"), False),
}
# Bytes that are only not UTF-8 do no harm here: the field is not read, or as good as absent.
UNREAD = (
    *("the old image", "the event's id", "the name of the id", "the region"),
    *("the source", "the view", "the ARN", "the name of the ARN"),
)


def damaged(place: str, at: int, junk: bytes) -> bytes:
    """Return an event of a hundred records, one of which holds the bytes in one string."""
    odd = orjson.loads(orjson.dumps(GOOD[at]))
    (*path, last), is_name = PLACES[place]
    parent = odd
    for step in path:
        parent = parent[step]
    if is_name:
        members = list(parent.items())
        parent.clear()
        parent.update((HERE.decode() if name == last else name, value) for name, value in members)
    else:
        parent[last] = HERE.decode()
    return event([*GOOD[:at], odd, *GOOD[at + 1 :]]).replace(b'"here"', b'"%b"' % junk)


def encoded(decoded: Decoded, **options: Any) -> Encoded:
    rules = EncodeRules(Config(redis_url="redis://h", **options))
    assert decoded.stream is not None
    return encode(decoded.records, decoded.stream, rules, 1_767_225_600_000).finished()


def is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except ValueError:
        return False
    return b"\\ud" not in body.lower()  # half of a surrogate pair is none


EXPECTED = encoded(decode(event(GOOD)))


@settings(deadline=None, max_examples=300)
@example(place="the image", at=0, junk=rb"\ud800")
@example(place="the image", at=50, junk=b"\xff")
@example(place="the image", at=99, junk=b"\x00")
@example(place="the image", at=99, junk=b"\\")
@example(place="the image", at=0, junk=b'"')
@example(place="the image", at=99, junk=b'"}}]}')
@example(place="the image", at=1, junk=b"},{[")
@example(place="the image", at=1, junk=rb"\u12")
@example(place="the key", at=0, junk=rb"\ud800")
@example(place="the key", at=0, junk=b'a"b')
@example(place="the key's name", at=0, junk=b"Other")
@example(place="the name of the id", at=1, junk=b"\xff")
@example(place="the name of the id", at=0, junk=b"\x01")
@example(place="the ARN", at=0, junk=b"arn:aws:kinesis:x")
@example(place="the source", at=0, junk=b"aws:sqs")
@example(place="the view", at=0, junk=rb"\udfff")
@example(place="the sequence number", at=3, junk=b"\xff")
@example(place="the sequence number", at=3, junk=rb"\ud800")
@given(
    place=st.sampled_from([*PLACES]), at=st.integers(0, RECORDS - 1), junk=st.binary(max_size=8)
)
def test_any_bytes_in_one_string_of_one_record_cost_that_record_alone(
    place: str, at: int, junk: bytes
) -> None:
    body = damaged(place, at, junk)
    number = FIRST + at

    decoded = decode(body)
    batch = encoded(decoded)

    others = [entry for entry in batch.entries if entry.sequence_number != number]
    wanted = [entry for entry in EXPECTED.entries if entry.sequence_number != number]
    if place == "the sequence number" and junk.isdigit():
        return  # it is another number now
    assert others == wanted
    assert decoded.delivered == RECORDS
    reported = {each.sequence_number for each in (*decoded.rejects, *batch.rejects)}
    assert reported <= {number}
    if place == "the sequence number":
        assert len(decoded.unnamed) == 1
    elif not is_json(body) and place not in UNREAD:
        assert reported == {number}
    assert len(decoded.unnamed) == (place == "the sequence number")


@pytest.mark.parametrize("value", FORMATS)
@pytest.mark.parametrize(
    "junk",
    [
        *(rb"\ud800", rb"\udc00\ud800", rb"\u12", rb"\q", b"\\"),
        *(b"\xff", b"\xed\xa0\x80", b"\xc3", b"\x01", b"\x00", b"\n"),
        *(b'"', b'"x":"', b'"{', b'":{"', b"\xff" * 5_000),
    ],
)
def test_a_damaged_image_removes_its_key_and_reports_its_number(junk: bytes, value: str) -> None:
    decoded = decode(damaged("the image", 7, junk))
    batch = encoded(decoded, value=value)

    (reject,) = batch.rejects
    assert (reject.sequence_number, reject.item_identifier) == (FIRST + 7, str(FIRST + 7))
    assert reject.reason in ("the record is not JSON", "NewImage is not JSON")
    (removed,) = [entry for entry in batch.entries if entry.value is None]
    assert removed.name == b"Players:p7"
    assert removed.version.endswith(RANK_REJECT)
    assert len(batch.entries) == RECORDS


@pytest.mark.parametrize(
    "number", ["1e", "01", "NaN", "-Infinity", "-", "+1", "1.", ".5", "0x1", "tru", "nul", ""]
)
def test_what_is_no_number_costs_its_record_alone(number: str) -> None:
    body = event(GOOD).replace(b'"SizeBytes":100', b'"SizeBytes":%b' % number.encode(), 1)

    decoded = decode(body)

    assert [each.item_identifier for each in decoded.records if each.fault] == [str(FIRST)]
    assert len(decoded.records) == RECORDS


@pytest.mark.parametrize("bad", ["\ud800", float("nan"), "\udfff\ud800", float("inf")])
def test_a_parsed_event_may_hold_what_json_cannot(bad: object) -> None:
    records = orjson.loads(orjson.dumps(GOOD))
    records[3]["dynamodb"]["NewImage"]["Name"]["S"] = bad

    decoded = decode(to_bytes({"Records": records}))

    batch = encoded(decoded)
    assert [reject.sequence_number for reject in batch.rejects] == [FIRST + 3]
    assert len(batch.entries) == RECORDS


def test_a_key_and_a_number_in_the_text_of_a_damaged_record_are_its_own() -> None:
    """Attributes named like a record's fields are not taken for them."""
    odd = record(1)
    odd["dynamodb"]["NewImage"] |= dynamodb_json(
        {
            "Keys": {"Id": {"S": "p2"}},
            "SequenceNumber": "1",
            "eventSourceARN": "arn",
            "Text": '"SequenceNumber":"2","Keys":{"Id":{"S":"p3"}}',
        }
    )
    odd["dynamodb"]["NewImage"]["Name"]["S"] = HERE.decode()
    body = event([GOOD[0], odd]).replace(HERE, b"\x00")

    _, read = decode(body).records

    assert (read.key, read.sequence_number) == ((("Id", "S", "p1"),), FIRST + 1)
    assert read.fault == "the record is not JSON"


def test_two_keys_in_a_damaged_text_are_none() -> None:
    text = b'"Keys":{"Id":{"S":"p2"}},'
    body = damaged("the image", 0, b"\x00").replace(b'"NewImage":', text + b'"NewImage":', 1)

    decoded = decode(body)

    assert [reject.sequence_number for reject in decoded.rejects] == [FIRST]
    assert len(decoded.records) == RECORDS - 1


@pytest.mark.parametrize(
    "cut", [b"", b"}", b"]", b"]}x", b"]}]}", b",", b']},"window":{}}'], ids=repr
)
def test_a_damaged_event_without_its_end_is_refused(cut: bytes) -> None:
    """What was cut off is unknown, so nothing of it may be acknowledged."""
    body = damaged("the image", 50, b"\x00").removesuffix(b"]}") + cut

    if cut == b"]}]}":  # the end is there; what stands before it belongs to the last record
        assert [each.fault for each in decode(body).records][-1] == "the record is not JSON"
        return
    with pytest.raises(EventError, match="the event is not JSON"):
        decode(body)


@pytest.mark.parametrize("head", [b"", b"x", b'{"Recor\x00ds":[', b'{"Other":['])
def test_a_damaged_event_without_its_beginning_is_refused(head: bytes) -> None:
    body = head + damaged("the image", 50, b"\x00").removeprefix(b'{"Records":[')

    with pytest.raises(EventError, match=r"the event is not JSON|has no list of Records"):
        decode(body)


def test_only_damaged_events_are_read_twice() -> None:
    """The good path is one typed pass."""
    body = event(GOOD)

    assert decode(body) == decode(damaged("the region", 0, b"us-east-1"))
    assert encoded(decode(body)) == EXPECTED
