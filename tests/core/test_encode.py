"""Stage 3: what Redis should hold for each key, and what becomes of a record it cannot hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncsync.collapse import collapse
from asyncsync.config import Config
from asyncsync.decode import decode
from asyncsync.encode import EncodeRules, encode
from asyncsync.errors import ConfigError
from asyncsync.fence import version
from asyncsync.formats import FORMATS
from asyncsync.keys import redis_names
from asyncsync.model import Encoded, Entry, SequenceNumber, Stream
from asyncsync.values import to_json
from tests.support.events import FIRST, Record, arn, event, item, record

LABEL_MS = 1_767_225_600_000
NOW_MS = 1_767_225_600_000
STREAM = Stream(arn(), "Players", LABEL_MS)


def rules(*, function: Any = None, transform: Any = None, **options: Any) -> EncodeRules:
    return EncodeRules(Config(redis_url="redis://h", **options), function, transform)


def encoded(*records: Record, by: EncodeRules | None = None) -> Encoded:
    """Encode what survives of an event."""
    decoded = decode(event(records))
    assert decoded.stream is not None
    latest = collapse(decoded.records).latest
    return encode(latest, decoded.stream, by or rules(), NOW_MS).finished()


def only(encoding: Encoded) -> Entry:
    (entry,) = encoding.entries
    return entry


def test_the_longest_fence_is_57_bytes() -> None:
    batch = encode(
        decode(event([record(1, "9" * 40)])).records, STREAM, rules(), NOW_MS
    ).finished()

    assert len(only(batch).version) == 1 + 13 + 2 + 40 + 1 == 57


def test_leading_zeros_make_no_other_version() -> None:
    batch = only(encoded(record(1, "000111")))

    assert batch.version == version(LABEL_MS, SequenceNumber(111)) + b"1"
    assert (batch.sequence_number, batch.item_identifier) == (111, "000111")


# --- what an entry is ---------------------------------------------------------------------------


def test_a_change_becomes_its_value_at_rank_1() -> None:
    assert only(encoded(record(7, FIRST))) == Entry(
        b"Players:7",
        b"{Players:7}!f",
        version(LABEL_MS, SequenceNumber(FIRST)) + b"1",
        b'{"Number":7,"Name":"player 7"}',
        0,
        SequenceNumber(FIRST),
        str(FIRST),
    )


def test_a_removal_has_no_value_and_its_own_version() -> None:
    batch = only(encoded(record(7, FIRST, removed=True)))

    assert batch.value is None
    assert batch.version == version(LABEL_MS, SequenceNumber(FIRST)) + b"1"


def test_a_removal_that_carries_an_image_is_still_a_removal() -> None:
    batch = only(encoded(record(7, FIRST, removed=True, NewImage=item(7))))

    assert batch.value is None


@pytest.mark.parametrize("mode", ["mirror", "refresh"])
def test_mirror_and_refresh_write_the_value(mode: str) -> None:
    assert only(encoded(record(7, FIRST), by=rules(mode=mode))).value is not None


def test_invalidate_removes_on_every_change_and_reads_no_image() -> None:
    batch = encoded(record(7, FIRST, NewImage={"broken": 5}), by=rules(mode="invalidate"))

    assert only(batch).value is None
    assert only(batch).version.endswith(b"1")
    assert batch.rejects == []


def test_dynamodb_json_is_the_images_bytes_as_they_came() -> None:
    body = event([record(7, FIRST, image={"x": "HERE"})]).replace(b'"HERE"', b'{ "N" :"1.50"} ')
    decoded = decode(body)

    batch = encode(decoded.records, STREAM, rules(value="dynamodb-json"), NOW_MS).finished()

    assert only(batch).value == b'{"x":{ "N" :"1.50"} }'


@pytest.mark.parametrize("value", FORMATS)
@pytest.mark.parametrize("absent", [{"NewImage": None}, {"removed": True}])
def test_a_change_without_an_image_removes_its_key_at_rank_0(
    value: str, absent: Mapping[str, Any]
) -> None:
    odd = {**record(7, FIRST, **absent), "eventName": "MODIFY"}

    batch = encoded(odd, by=rules(value=value))

    (reject,) = batch.rejects
    assert reject.reason == "the record has no NewImage"
    assert (only(batch).value, only(batch).version[-1:]) == (None, b"0")


def test_a_value_that_cannot_be_made_removes_its_key_at_rank_0_and_no_other() -> None:
    broken = item(2, Score={"M": {"best": {"N": "high"}}})

    batch = encoded(record(1, FIRST), record(2, FIRST + 1, image=broken), record(3, FIRST + 2))

    (reject,) = batch.rejects
    assert (reject.sequence_number, reject.item_identifier) == (FIRST + 1, str(FIRST + 1))
    assert (reject.reason, reject.path) == ("N is not a number", ("Score", "best"))
    assert [entry.value is None for entry in batch.entries] == [False, True, False]
    assert [entry.version[-1:] for entry in batch.entries] == [b"1", b"0", b"1"]


def test_an_unknown_event_name_removes_its_key_at_rank_0() -> None:
    batch = encoded({**record(1, FIRST), "eventName": "UPDATE"})

    assert batch.rejects[0].reason == "eventName is not INSERT, MODIFY or REMOVE"
    assert (only(batch).value, only(batch).version[-1:]) == (None, b"0")


def test_a_superseded_image_is_never_looked_at() -> None:
    batch = encoded(record(1, FIRST, NewImage=5), record(1, FIRST + 1))

    assert batch.rejects == []
    assert only(batch).sequence_number == FIRST + 1


def test_a_large_item_is_one_value() -> None:
    image = item(1, Text={"S": "\u0001" * 400_000})

    assert only(encoded(record(1, FIRST, image=image))).value == to_json(image)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 99), st.sampled_from("+-!")), unique=True)
)
def test_every_survivor_is_one_entry_as_the_obvious_loop_has_it(
    changes: list[tuple[int, int, str]],
) -> None:
    # "+" a value, "-" a removal, "!" a value that cannot be batch.
    broken = {"Number": {"X": "1"}}
    records = [
        record(number, at, removed=kind == "-", image=broken if kind == "!" else None)
        for number, at, kind in changes
    ]
    obvious: dict[int, tuple[int, str]] = {}
    for number, at, kind in changes:
        if at >= obvious.get(number, (0, ""))[0]:
            obvious[number] = (at, kind)

    decoded = decode(event(records))
    batch = encode(collapse(decoded.records).latest, STREAM, rules(), NOW_MS).finished()

    assert {
        int(entry.name.removeprefix(b"Players:")): (
            int(entry.item_identifier),
            "!" if entry.version.endswith(b"0") else "-" if entry.value is None else "+",
        )
        for entry in batch.entries
    } == obvious
    assert len(batch.entries) == len(obvious)
    assert sorted(reject.sequence_number for reject in batch.rejects) == sorted(
        at for at, kind in obvious.values() if kind == "!"
    )


# --- expiry -------------------------------------------------------------------------------------

SOON = NOW_MS // 1_000 + 100
FIVE_YEARS_AGO = -(-NOW_MS // 1_000) - 5 * 365 * 86_400


@pytest.mark.parametrize("value", FORMATS)
@pytest.mark.parametrize(
    ("options", "own", "expires_at_ms"),
    [
        ({}, SOON, 0),
        ({"ttl_s": 60}, None, NOW_MS + 60_000),
        ({"ttl_attribute": "Ends"}, SOON, SOON * 1_000),
        ({"ttl_attribute": "Ends"}, None, 0),
        ({"ttl_attribute": "Name"}, None, 0),
        ({"ttl_attribute": "Ends"}, 10**30, 0),
        ({"ttl_attribute": "Other"}, SOON, 0),
        ({"ttl_attribute": "Ends", "ttl_s": 60}, SOON, NOW_MS + 60_000),
        ({"ttl_attribute": "Ends", "ttl_s": 600}, SOON, SOON * 1_000),
        ({"ttl_attribute": "Ends", "ttl_s": 600}, None, NOW_MS + 600_000),
        ({"ttl_attribute": "Ends"}, NOW_MS // 1_000 + 1, NOW_MS + 1_000),
        # DynamoDB never expires these, so the value stays.
        ({"ttl_attribute": "Ends"}, 0, 0),
        ({"ttl_attribute": "Ends"}, -1, 0),
        ({"ttl_attribute": "Ends"}, 1, 0),
        ({"ttl_attribute": "Ends"}, FIVE_YEARS_AGO - 1, 0),
        ({"ttl_attribute": "Ends", "ttl_s": 60}, 0, NOW_MS + 60_000),
        ({"ttl_attribute": "Ends", "ttl_s": 60}, FIVE_YEARS_AGO - 1, NOW_MS + 60_000),
    ],
)
def test_a_value_expires_at_the_sooner_of_both_times(
    options: Mapping[str, Any], own: object, expires_at_ms: int, value: str
) -> None:
    ends = {} if own is None else {"Ends": {"N": str(own)}}

    batch = encoded(record(1, FIRST, image=item(1, **ends)), by=rules(value=value, **options))

    assert batch.rejects == []
    assert only(batch).value is not None
    assert only(batch).expires_at_ms == expires_at_ms


@pytest.mark.parametrize("value", FORMATS)
@pytest.mark.parametrize("own", [NOW_MS // 1_000, NOW_MS // 1_000 - 1, FIVE_YEARS_AGO])
def test_an_item_that_has_expired_is_a_removal_with_the_records_version(
    own: int, value: str
) -> None:
    image = item(1, Ends={"N": str(own)})

    batch = encoded(record(1, FIRST, image=image), by=rules(value=value, ttl_attribute="Ends"))

    assert only(batch).value is None
    assert only(batch).expires_at_ms == 0
    assert only(batch).version.endswith(b"1")
    assert batch.rejects == []


# --- the user's functions -----------------------------------------------------------------------


def test_a_transform_makes_the_value_and_none_removes_at_rank_1() -> None:
    def transform(values: dict[str, object]) -> dict[str, object] | None:
        return {"n": values["Number"]} if values["Number"] == 1 else None

    batch = encoded(record(1, FIRST), record(2, FIRST + 1), by=rules(transform=transform))

    assert [entry.value for entry in batch.entries] == [b'{"n":1}', None]
    assert [entry.version[-1:] for entry in batch.entries] == [b"1", b"1"]
    assert batch.rejects == []


def test_a_transform_that_raises_rejects_its_own_record_only() -> None:
    def transform(values: dict[str, object]) -> bytes:
        return {1: b"one"}[int(str(values["Number"]))]

    batch = encoded(record(1, FIRST), record(2, FIRST + 1), by=rules(transform=transform))

    assert [reject.reason for reject in batch.rejects] == ["the transform raised KeyError"]
    assert [entry.value for entry in batch.entries] == [b"one", None]
    assert [entry.version[-1:] for entry in batch.entries] == [b"1", b"0"]


def test_a_key_function_names_the_items() -> None:
    batch = encoded(record(1, FIRST), by=rules(function=lambda keys: f"p/{keys['Number']['N']}!f"))

    assert (only(batch).name, only(batch).fence) == redis_names(b"p/1!f")


@pytest.mark.parametrize("wrong", [None, 5, b"x", "", "\ud800"])
def test_a_key_function_that_gives_no_name_rejects_its_own_record_only(wrong: object) -> None:
    def function(keys: Any) -> Any:
        return wrong if keys["Number"]["N"] == "1" else "two"

    batch = encoded(record(1, FIRST), record(2, FIRST + 1), by=rules(function=function))

    assert [reject.sequence_number for reject in batch.rejects] == [FIRST]
    assert only(batch).name == b"two"


def test_a_key_function_that_raises_rejects_its_own_record_only() -> None:
    def function(keys: Any) -> str:
        return {"2": "two"}[keys["Number"]["N"]]

    batch = encoded(record(1, FIRST), record(2, FIRST + 1), by=rules(function=function))

    assert [reject.reason for reject in batch.rejects] == ["the key function raised KeyError"]
    assert only(batch).name == b"two"


def test_two_items_on_one_name_are_refused_naming_both_records() -> None:
    same = rules(function=lambda keys: "one" if keys["Number"]["N"] != "2" else "two")

    with pytest.raises(ConfigError) as refused:
        encoded(record(1, 111), record(2, 222), record(3, 333), by=same)

    assert "records 111 and 333" in str(refused.value)
    assert "222" not in str(refused.value)


def test_two_records_of_one_item_are_never_two_items_on_one_name() -> None:
    batch = encoded(record(1, 111), record(1, 222), by=rules(function=lambda _: "one"))

    assert only(batch).item_identifier == "222"


def test_a_template_that_is_not_the_tables_is_refused() -> None:
    with pytest.raises(ConfigError, match="the key of table 'Players' is"):
        encoded(record(1, FIRST), by=rules(key="{Id}"))


@pytest.mark.parametrize("at", range(3))
@pytest.mark.parametrize("template", ["{@table}:{@key}", "{@table}:{Number}"])
def test_a_record_with_other_key_attributes_than_the_others_is_rejected_alone(
    at: int, template: str
) -> None:
    records = [record(1, FIRST + 1), record(3, FIRST + 3)]
    records.insert(at, record(2, FIRST + 2, Keys={"Id": {"S": "x"}}))

    batch = encoded(*records, by=rules(key=template))

    assert [(reject.sequence_number, reject.reason) for reject in batch.rejects] == [
        (FIRST + 2, "its key attributes are not those of the batch's other records")
    ]
    assert [entry.name for entry in batch.entries] == [b"Players:1", b"Players:3"]


def test_a_table_of_two_key_attributes_is_named_by_both() -> None:
    keys = {"Team": {"S": "a:b"}, "Number": {"N": "7"}}

    batch = encoded(record(7, FIRST, Keys=keys), by=rules(key="{Team}:{Number}"))

    assert only(batch).name == b"a%3Ab:7"
    value = only(batch).value
    assert isinstance(value, bytes)
    assert json.loads(value)["Number"] == 7


def test_nothing_in_gives_nothing_out() -> None:
    batch = encode([], STREAM, rules(), NOW_MS).finished()

    assert (batch.entries, batch.rejects) == ([], [])


def test_a_batch_gets_the_same_values_before_and_after_its_shape_is_known() -> None:
    body = event([record(number, FIRST + number) for number in range(150)])
    decoded = decode(body)
    known = rules()

    first, again = [encode(decoded.records, STREAM, known, NOW_MS).finished() for _ in range(2)]

    assert known.shapes.json_of(bytes(decoded.records[0].image)) is not None
    assert first == again == encode(decoded.records, STREAM, rules(), NOW_MS).finished()
    assert [entry.value for entry in first.entries] == [
        to_json(item(number)) for number in range(150)
    ]


@pytest.mark.parametrize("template", ["{@key}", "{@table}:{@key}", "{@key}:x"])
@pytest.mark.parametrize(
    "odd", [{"Other": {"N": "2"}}, {"Number": {"N": "2"}, "Sort": {"S": "x"}}]
)
def test_a_record_with_other_key_attributes_is_rejected_alone(template: str, odd: Any) -> None:
    batch = encoded(record(1, FIRST), record(2, FIRST + 1, Keys=odd), by=rules(key=template))

    (reject,) = batch.rejects
    assert reject.reason == "its key attributes are not those of the batch's other records"
    assert only(batch).sequence_number == FIRST


def test_a_value_is_made_when_its_entry_is_taken_and_only_once() -> None:
    asked: list[object] = []

    def transform(item: dict[str, object]) -> dict[str, object]:
        asked.append(item["Number"])
        return item

    decoded = decode(event([record(number, FIRST + number) for number in range(3)]))
    assert decoded.stream is not None
    encoding = encode(decoded.records, decoded.stream, rules(transform=transform), NOW_MS)
    coming = iter(encoding)

    assert (len(encoding), asked) == (3, [])
    first = next(coming)
    assert asked == [0]
    batch = encoding.finished()  # what a store did not take is batch for the report
    assert asked == [0, 1, 2]
    assert batch.entries[0] is first
    assert encoding.finished() is batch
    assert len(batch.entries) == 3
