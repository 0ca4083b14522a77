"""Stage 1: every event is decoded, and an odd record spoils no other."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asyncsync.decode import decode, parse_stream_arn, to_bytes
from asyncsync.errors import EventError
from asyncsync.model import Decoded, Stream
from tests.support.events import FIRST, LABEL, Record, arn, event, item, record

ABSENT = object()
LABEL_MS = 1_767_225_600_000
GOOD = [record(1, FIRST), record(2, FIRST + 1), record(3, FIRST + 2)]


def with_odd(change: Mapping[str, Any], at: int) -> list[Record]:
    """Return three good records and, at a given place, one whose dynamodb object is changed."""
    odd = record(9, FIRST + 9)
    odd["dynamodb"].update(change)
    odd["dynamodb"] = {name: v for name, v in odd["dynamodb"].items() if v is not ABSENT}
    return [*GOOD[:at], odd, *GOOD[at:]]


# --- a slow, obvious reader of events -----------------------------------------------------------


def obvious(body: bytes) -> tuple[list[tuple[Any, ...]], list[int], int]:
    """Read an event with json alone: records, the rejects' sequence numbers, unnamed count."""
    records: list[tuple[Any, ...]] = []
    rejects: list[int] = []
    unnamed = 0
    for wire in json.loads(body)["Records"]:
        change = wire.get("dynamodb")
        change = change if isinstance(change, dict) else {}
        text = change.get("SequenceNumber")
        if not isinstance(text, str) or not re.fullmatch("[0-9]{1,40}", text):
            unnamed += 1
            continue
        key = obvious_key(change.get("Keys"))
        if key is None:
            rejects.append(int(text))
            continue
        name = wire.get("eventName")
        known = name in ("INSERT", "MODIFY", "REMOVE")
        image = change.get("NewImage")
        records.append((key, int(text), text, name == "REMOVE", image, known))
    return records, rejects, unnamed


def obvious_key(keys: object) -> tuple[tuple[str, str, str], ...] | None:
    if not isinstance(keys, dict) or len(keys) not in (1, 2):
        return None
    key = []
    for name in sorted(keys):
        if not isinstance(keys[name], dict):
            return None
        if any(not isinstance(text, str | None) for text in keys[name].values()):
            return None
        tags = {tag: text for tag, text in keys[name].items() if text is not None}
        ((tag, text),) = tags.items() if len(tags) == 1 else (("", ""),)
        number = r"-?(0|[1-9][0-9]*)([.][0-9]+)?([eE][+-]?[0-9]+)?"
        if tag not in ("S", "N", "B") or not text:
            return None
        if tag == "N" and not re.fullmatch(number, text):
            return None
        key.append((name, tag, text))
    return tuple(key)


def seen(decoded: Decoded) -> tuple[list[tuple[Any, ...]], list[int], int]:
    """Convert a decoded event to the obvious reader's shape."""
    records = [
        (
            r.key,
            r.sequence_number,
            r.item_identifier,
            r.removed,
            json.loads(bytes(r.image)) if r.image else None,
            not r.fault,
        )
        for r in decoded.records
    ]
    return records, [r.sequence_number for r in decoded.rejects], len(decoded.unnamed)


ODD: st.SearchStrategy[Any] = st.sampled_from([None, 5, 1.5, True, [], {}, "", "x", 10**24])
SEQUENCE_NUMBERS = st.one_of(
    st.integers(0, 10**40 - 1).map(str),
    st.text("0123456789", min_size=1, max_size=42),
    st.sampled_from(["111", "007", "1" * 40, "1" * 41, "", "-1", "1e5", "٣٤", "²", "1 "]),
    ODD,
)
KEY_VALUES = st.one_of(
    st.fixed_dictionaries({"N": st.sampled_from(["0", "-1.5", "1E5", "01", "", "x", "1\n", "٣"])}),
    st.fixed_dictionaries({"S": st.text(max_size=3)}),
    st.fixed_dictionaries({"S": st.just("a"), "N": st.none(), "B": st.none()}),
    st.sampled_from([{"B": "AA=="}, {"SS": "a"}, {"S": "a", "N": "1"}, {"BOOL": True}, {}]),
    ODD,
)
TIMES: st.SearchStrategy[Any] = st.sampled_from([None, 1.5, 2, 1_767_225_600.0, "5", [], {}])
KEYS = st.one_of(st.dictionaries(st.sampled_from(["a", "b", "c"]), KEY_VALUES, max_size=3), ODD)


@st.composite
def events(draw: st.DrawFn) -> list[Record]:
    records = []
    for _ in range(draw(st.integers(1, 6))):
        drawn = record(1, 1)
        drawn["eventName"] = draw(st.sampled_from(["INSERT", "MODIFY", "REMOVE", "", None, "x"]))
        drawn["dynamodb"]["SequenceNumber"] = draw(SEQUENCE_NUMBERS)
        drawn["dynamodb"]["Keys"] = draw(KEYS)
        drawn["dynamodb"]["NewImage"] = draw(st.sampled_from([None, {}, item(1), [], "x"]))
        drawn["dynamodb"]["ApproximateCreationDateTime"] = draw(TIMES)
        for name in draw(st.sets(st.sampled_from([*drawn["dynamodb"]]), max_size=2)):
            del drawn["dynamodb"][name]
        if draw(st.integers(0, 9)) == 0:
            drawn["dynamodb"] = draw(ODD)
        records.append(drawn)
    return records


@settings(deadline=None)
@given(events())
def test_every_event_is_read_as_the_obvious_reader_reads_it(records: list[Record]) -> None:
    body = json.dumps({"Records": records}).encode()

    decoded = decode(body)

    assert seen(decoded) == obvious(body)
    assert decoded.delivered == len(records)


@settings(deadline=None)
@given(events())
def test_one_typed_pass_and_field_by_field_give_the_same(records: list[Record]) -> None:
    # A null eventSource is allowed and sends a record through the field-by-field path.
    odd = [{**each, "eventSource": None} for each in records]

    assert decode(json.dumps({"Records": records}).encode()) == decode(
        json.dumps({"Records": odd}).encode()
    )


@settings(deadline=None)
@given(events())
def test_an_event_that_came_parsed_gives_what_its_bytes_give(records: list[Record]) -> None:
    parsed = {"Records": records}

    assert seen(decode(to_bytes(parsed))) == seen(decode(json.dumps(parsed).encode()))


# --- the good case ------------------------------------------------------------------------------


def test_a_record_keeps_its_text_and_its_image_as_the_bytes_that_came() -> None:
    body = event([record(7, "0042", image={"x": "HERE"})]).replace(
        b'"HERE"', b'{ "N" : "1.50" }  '
    )

    decoded = decode(body)

    (only,) = decoded.records
    assert decoded.stream == Stream(arn(), "Players", LABEL_MS)
    assert decoded.view_type == "NEW_IMAGE"
    assert only.key == (("Number", "N", "7"),)
    assert (only.sequence_number, only.item_identifier) == (42, "0042")
    assert bytes(only.image) == b'{"x":{ "N" : "1.50" }  }'
    assert (only.removed, only.fault) == (False, "")


@pytest.mark.parametrize("digits", [1, 3, 20, 21, 39, 40])
def test_a_sequence_number_may_have_one_to_forty_digits(digits: int) -> None:
    (only,) = decode(event([record(1, "9" * digits)])).records

    assert only.sequence_number == 10**digits - 1


def test_a_removal_has_no_image_and_null_is_none() -> None:
    removed, nulled = decode(
        event([record(1, 1, removed=True), record(2, 2, NewImage=None)])
    ).records

    assert (removed.removed, bytes(removed.image)) == (True, b"")
    assert (nulled.removed, bytes(nulled.image)) == (False, b"")


def test_old_images_are_never_read() -> None:
    decoded = decode(event([record(1, 1, OldImage="not even a map")]))

    assert len(decoded.records) == 1


def test_key_attributes_stand_in_order_of_their_names() -> None:
    keys = [{"b": {"S": "2"}, "a": {"S": "1"}}, {"a": {"S": "1"}, "b": {"S": "2"}}]

    one, other = decode(event([record(1, at, Keys=k) for at, k in enumerate(keys)])).records

    assert one.key == other.key == (("a", "S", "1"), ("b", "S", "2"))


def test_other_type_tags_that_are_null_are_none() -> None:
    keys = {"Number": {"S": None, "N": "5", "B": None}}

    (only,) = decode(event([record(1, 1, Keys=keys)])).records

    assert only.key == (("Number", "N", "5"),)


def test_the_oldest_record_is_by_creation_time_and_may_be_missing() -> None:
    times = [1_767_225_601, 1_767_225_600.5, None]

    decoded = decode(event([record(1, at, created_s=time) for at, time in enumerate(times)]))

    assert decoded.oldest_s == 1_767_225_600.5
    assert decode(event([record(1, 1, created_s=None)])).oldest_s is None


def test_an_event_without_records_has_no_stream() -> None:
    decoded = decode(b'{"Records":[]}')

    assert (decoded.stream, decoded.delivered) == (None, 0)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_of_any_kind_are_taken_as_they_are(kind: Any) -> None:
    assert to_bytes(kind(b'{"Records":[]}')) == b'{"Records":[]}'


# --- odd records --------------------------------------------------------------------------------

NOT_KEYS = "Keys is not a map of one or two key attributes of type S, N or B"
NOT_ONE = "a key attribute is not one non-empty value of type S, N or B"
NOT_NUMBER = "a key attribute of type N is not a number"
REJECTS: dict[str, tuple[Any, str, tuple[str, ...]]] = {
    "absent": (ABSENT, NOT_KEYS, ()),
    "null": (None, NOT_KEYS, ()),
    "list": ([], NOT_KEYS, ()),
    "text": ("x", NOT_KEYS, ()),
    "attribute not a map": ({"Number": "5"}, NOT_KEYS, ()),
    **{
        f"N {text!r}": ({"Number": {"N": text}}, NOT_NUMBER, ("Number",))
        for text in ("1E1000", "1E-1000", "1E9999999999999999999")
    },
    "a number as a number": ({"Number": {"N": 5}}, NOT_KEYS, ()),
    "BOOL": ({"Number": {"BOOL": True}}, NOT_KEYS, ()),
    "M": ({"Number": {"M": {}}}, NOT_KEYS, ()),
    "empty": ({}, NOT_KEYS, ()),
    "three": ({n: {"S": n} for n in "abc"}, NOT_KEYS, ()),
    "no tag": ({"Number": {}}, NOT_ONE, ("Number",)),
    "null text": ({"Number": {"S": None}}, NOT_ONE, ("Number",)),
    "all null": ({"Number": {"S": None, "N": None}}, NOT_ONE, ("Number",)),
    "two tags": ({"Number": {"S": "a", "N": "1"}}, NOT_ONE, ("Number",)),
    "unknown tag": ({"Number": {"X": "a"}}, NOT_ONE, ("Number",)),
    "empty S": ({"Number": {"S": ""}}, NOT_ONE, ("Number",)),
    "empty N": ({"Number": {"N": ""}}, NOT_ONE, ("Number",)),
    **{
        f"N {text!r}": ({"Number": {"N": text}}, NOT_NUMBER, ("Number",))
        for text in ("abc", "1_0", "Infinity", "NaN", "0x1", "1.", ".5", "+1", "01", " 1", "1\n")
    },
    "N in other digits": ({"Number": {"N": "١٢"}}, NOT_NUMBER, ("Number",)),
}


@pytest.mark.parametrize("at", range(4))
@pytest.mark.parametrize("keys", REJECTS)
def test_a_record_without_usable_keys_is_rejected_alone(keys: str, at: int) -> None:
    change, reason, path = REJECTS[keys]

    decoded = decode(event(with_odd({"Keys": change}, at)))

    (reject,) = decoded.rejects
    assert (reject.sequence_number, reject.item_identifier) == (FIRST + 9, str(FIRST + 9))
    assert reject.reason.startswith(reason)
    assert reject.path == path
    assert list(decoded.records) == list(decode(event(GOOD)).records)


NO_NUMBER = "a record has no SequenceNumber of 1 to 40 digits"
UNNAMED: dict[str, tuple[Any, str]] = {
    "absent": (ABSENT, NO_NUMBER),
    "null": (None, NO_NUMBER),
    "empty": ("", NO_NUMBER),
    "integer": (111, NO_NUMBER),
    "long integer": (10**24, NO_NUMBER),
    "list": (["1"], NO_NUMBER),
    "41 digits": ("1" * 41, NO_NUMBER),
    "letters": ("abc", NO_NUMBER),
    "signed": ("-1", NO_NUMBER),
    "fraction": ("1.0", NO_NUMBER),
    "underscore": ("1_0", NO_NUMBER),
    "blank": (" 1", NO_NUMBER),
    "newline": ("1\n", NO_NUMBER),
    "other digits": ("١٢٣", NO_NUMBER),
    "superscript": ("²", NO_NUMBER),
}


@pytest.mark.parametrize("at", range(4))
@pytest.mark.parametrize("number", UNNAMED)
def test_a_record_without_a_usable_sequence_number_is_unnamed_alone(number: str, at: int) -> None:
    change, reason = UNNAMED[number]

    decoded = decode(to_bytes({"Records": with_odd({"SequenceNumber": change}, at)}))

    assert decoded.unnamed == [reason]
    assert seen(decoded) == (seen(decode(event(GOOD)))[0], [], 1)
    assert decoded.delivered == 4


@pytest.mark.parametrize("dynamodb", [None, 5, "x", [], {}])
def test_a_record_without_a_dynamodb_object_is_unnamed_alone(dynamodb: object) -> None:
    decoded = decode(event([GOOD[0], {**GOOD[1], "dynamodb": dynamodb}, GOOD[2]]))

    assert decoded.unnamed == [NO_NUMBER]
    assert [r.sequence_number for r in decoded.records] == [FIRST, FIRST + 2]


@pytest.mark.parametrize("at", range(4))
@pytest.mark.parametrize("odd", [None, 5, "x", [], {}])
def test_a_record_that_is_no_record_is_unnamed_alone(odd: Any, at: int) -> None:
    decoded = decode(event([*GOOD[:at], odd, *GOOD[at:]]))

    assert len(decoded.unnamed) == 1
    assert list(decoded.records) == list(decode(event(GOOD)).records)


@pytest.mark.parametrize("name", ["", "UPDATE", "insert", None, 5])
def test_an_unknown_event_name_is_a_fault_of_a_record_that_keeps_its_key(name: Any) -> None:
    odd, good = decode(event([{**GOOD[0], "eventName": name}, GOOD[1]])).records

    assert odd.fault == "eventName is not INSERT, MODIFY or REMOVE"
    assert odd.key == (("Number", "N", "1"),)
    assert good.fault == ""


@pytest.mark.parametrize("created", ["yesterday", [], {}, None])
def test_a_creation_time_of_a_wrong_type_is_as_good_as_absent(created: Any) -> None:
    change = {"ApproximateCreationDateTime": created}

    decoded = decode(event(with_odd(change, 0)))

    assert len(decoded.records) == 4
    assert decoded.oldest_s == 1_767_225_600.0


@pytest.mark.parametrize("created", ["true", "1e999", "-1e999", "1e306", "-1e306"])
def test_a_creation_time_that_is_no_time_is_as_good_as_absent(created: str) -> None:
    change = {"ApproximateCreationDateTime": "HERE"}
    body = event(with_odd(change, 0)).replace(b'"HERE"', created.encode())

    decoded = decode(body)

    assert len(decoded.records) == 4
    assert decoded.oldest_s == 1_767_225_600.0


@pytest.mark.parametrize("field", ["Keys", "NewImage", "ApproximateCreationDateTime", "Other"])
def test_deep_nesting_in_one_record_spoils_no_other(field: str) -> None:
    body = event(with_odd({field: "HERE"}, 1)).replace(b'"HERE"', b"[" * 300 + b"]" * 300)

    decoded = decode(body)

    assert [r for r in decoded.records if r.sequence_number != FIRST + 9] == list(
        decode(event(GOOD)).records
    )
    assert decoded.delivered == 4


def test_nesting_past_what_can_be_read_costs_its_record_alone() -> None:
    # DynamoDB's own ends at 32.
    body = event(with_odd({"NewImage": "HERE"}, 1))

    decoded = decode(body.replace(b'"HERE"', b"[" * 100_000 + b"]" * 100_000))

    assert len(decoded.records) == 4


def test_key_text_that_is_not_utf_8_is_rejected_alone() -> None:
    body = event(with_odd({"Keys": {"Number": {"S": "HERE"}}}, 1)).replace(b"HERE", b"\xff")

    decoded = decode(body)

    assert [reject.reason for reject in decoded.rejects] == [NOT_KEYS]
    assert len(decoded.records) == 3


# --- what is no event of one stream -------------------------------------------------------------

NO_RECORDS = "not a DynamoDB stream event: it has no list of Records"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the event is not JSON"),
        (b"text", "the event is not JSON"),
        (b"\xff", "the event is not JSON"),
        (b'{"Records":[]', "the event is not JSON"),
        (b'{"Records":[]} x', "the event is not JSON"),
        (b"{}", NO_RECORDS),
        (b"null", NO_RECORDS),
        (b'"text"', NO_RECORDS),
        (b'{"Records":null}', NO_RECORDS),
        (b'{"Records":{}}', NO_RECORDS),
        (b'{"Records":[1]}', "no record has an eventSourceARN"),
        (event([{**record(1, 1), "eventSourceARN": ""}]), "no record has an eventSourceARN"),
    ],
)
def test_an_event_of_another_kind_is_refused(body: bytes, message: str) -> None:
    with pytest.raises(EventError, match=re.escape(message)):
        decode(body)


def test_a_sequence_number_that_is_not_utf_8_cannot_be_named_and_spoils_only_itself() -> None:
    body = event([record(1, "HERE"), record(2, FIRST)]).replace(b'"HERE"', b'"\xff"')

    decoded = decode(body)

    assert decoded.unnamed == [NO_NUMBER]
    assert [each.item_identifier for each in decoded.records] == [str(FIRST)]


@pytest.mark.parametrize("parsed", [{"a": {1}}, {"Records": [object()]}, {(1,): 2}])
def test_a_parsed_event_that_is_no_json_is_refused(parsed: Any) -> None:
    with pytest.raises(EventError, match="the event is not JSON data"):
        to_bytes(parsed)


def test_two_streams_in_one_event_are_refused_by_name() -> None:
    other = arn(table="Teams")

    with pytest.raises(EventError) as refused:
        decode(event([record(1, 1), record(2, 2, stream_arn=other)]))

    assert "two streams" in str(refused.value)
    assert arn() in str(refused.value)
    assert other in str(refused.value)


# --- stream ARNs --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        "stream-ARN",
        "arn:aws:dynamodb:us-east-1:111122223333:table/Players",
        "arn:aws:dynamodb:us-east-1:111122223333:table/Players/stream/",
        "arn:aws:kinesis:us-east-1:111122223333:stream/Players",
        f"arn:aws:dynamodb:us-east-1:111122223333:table/A:b/stream/{LABEL}",
    ],
)
def test_what_is_no_stream_arn_is_refused_by_showing_a_real_one(wrong: str) -> None:
    with pytest.raises(EventError) as refused:
        decode(event([{**record(1, 1), "eventSourceARN": wrong}]))

    message = str(refused.value)
    assert repr(wrong) in message
    real = message.rpartition(" ")[2]
    assert parse_stream_arn(real).table == "Players"
    assert "\n" not in message


@pytest.mark.parametrize(
    "label",
    [
        "latest",
        "2026-13-01T00:00:00.000",
        "1767225600000000",
        "1969-12-31T23:59:59.999",
        "2286-11-20T17:46:40.000",
        "0001-01-01T00:00:00.000+14:00",
    ],
)
def test_a_stream_label_that_is_no_time_since_1970_is_refused(label: str) -> None:
    with pytest.raises(EventError, match=re.escape(repr(arn(label)))):
        parse_stream_arn(arn(label))


@pytest.mark.parametrize(
    ("label", "label_ms"),
    [
        (LABEL, LABEL_MS),
        ("1970-01-01T00:00:00.000", 0),
        ("2286-11-20T17:46:39.999", 10**13 - 1),
        ("2026-01-01T01:00:00.000+01:00", LABEL_MS),
        ("2026-01-01T00:00:00.000Z", LABEL_MS),
    ],
)
def test_a_stream_label_is_read_as_epoch_milliseconds(label: str, label_ms: int) -> None:
    assert parse_stream_arn(arn(label)).label_ms == label_ms


@pytest.mark.parametrize("partition", ["aws", "aws-cn", "aws-us-gov"])
def test_streams_of_every_partition_and_table_name_are_read(partition: str) -> None:
    text = f"arn:{partition}:dynamodb:cn-north-1:111122223333:table/a.B_c-9/stream/{LABEL}"

    assert parse_stream_arn(text) == Stream(text, "a.B_c-9", LABEL_MS)


@settings(deadline=None)
@given(st.datetimes(datetime(1970, 1, 1), datetime(2286, 11, 20)))  # noqa: DTZ001
@example(datetime(1970, 1, 1))  # noqa: DTZ001
def test_labels_are_read_to_the_millisecond(time: datetime) -> None:
    milliseconds = (time.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(
        milliseconds=1
    )

    assert parse_stream_arn(arn(time.isoformat(timespec="milliseconds"))).label_ms == milliseconds
