"""The event builder: what it builds is what Lambda delivers."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import redis
from boto3.dynamodb.types import TypeSerializer
from hypothesis import given
from hypothesis import strategies as st

from asyncsync import Config, Mirror
from asyncsync.copy.plain import dynamodb_json
from asyncsync.decode import decode, to_bytes
from asyncsync.errors import RecordError
from asyncsync.lab.servers import ServerProcess
from asyncsync.testing import TTL_DELETION, insert, memory_copy, modify, remove, stream_event
from asyncsync.values import to_item

EVENTS = Path(__file__).parents[1] / "core" / "events"
REAL = EVENTS / "sam_generate_event.json"


def test_the_handler_writes_what_was_inserted_modified_and_removed(
    fake_server: ServerProcess,
) -> None:
    mirror = Mirror(Config(redis_url=fake_server.url, metrics="off"))
    with redis.Redis(host=fake_server.host, port=fake_server.port) as client:
        client.flushall()
        mirror.lambda_handler(
            stream_event(
                insert({"Number": 10}, {"Name": "Pelé"}),
                insert({"Number": 9}, {"Name": "Gerd"}),
                insert({"Number": 7}, {"Name": "Zoë"}),
                modify({"Number": 7}, {"Name": "Zoë", "Goals": 12}, old={"Name": "Zoë"}),
            )
        )
        mirror.lambda_handler(stream_event(remove({"Number": 9}, old={"Name": "Gerd"})))
        mirror.close()

        assert client.get("Players:10") == '{"Number":10,"Name":"Pelé"}'.encode()
        assert client.get("Players:9") is None
        assert client.get("Players:7") == '{"Number":7,"Name":"Zoë","Goals":12}'.encode()


def test_a_record_has_the_fields_of_a_real_one() -> None:
    (real,) = json.loads(REAL.read_text())["Records"][:1]
    (built,) = stream_event(insert({"Id": 101}, {"Message": "New item!"}))["Records"]

    assert built.keys() == real.keys()
    assert built["dynamodb"].keys() == real["dynamodb"].keys()
    assert built["dynamodb"]["NewImage"] == real["dynamodb"]["NewImage"]
    assert built["eventName"] == real["eventName"]


@pytest.mark.parametrize(
    ("view", "images"),
    [
        ("KEYS_ONLY", [set(), set(), set()]),
        ("NEW_IMAGE", [{"NewImage"}, {"NewImage"}, set()]),
        ("OLD_IMAGE", [set(), {"OldImage"}, {"OldImage"}]),
        ("NEW_AND_OLD_IMAGES", [{"NewImage"}, {"NewImage", "OldImage"}, {"OldImage"}]),
    ],
)
def test_a_view_decides_which_images_a_record_has(view: Any, images: list[set[str]]) -> None:
    changes = insert({"Id": 1}, {"a": 1}), modify({"Id": 1}, {"a": 2}), remove({"Id": 1})
    records = stream_event(*changes, view=view)["Records"]

    assert [record["dynamodb"].keys() & {"NewImage", "OldImage"} for record in records] == images
    assert [record["eventName"] for record in records] == ["INSERT", "MODIFY", "REMOVE"]


def test_each_record_is_newer_than_all_before_it() -> None:
    events = [stream_event(remove({"Id": 1}), remove({"Id": 2})) for _ in range(3)]
    numbers = [int(r["dynamodb"]["SequenceNumber"]) for e in events for r in e["Records"]]

    assert numbers == sorted(set(numbers))
    (record,) = stream_event(remove({"Id": 1}), first_sequence_number=42)["Records"]
    assert record["dynamodb"]["SequenceNumber"] == "42"


def test_a_deletion_by_expiry_is_who_deletes_it() -> None:
    (real, by_user) = json.loads((EVENTS / "ttl_delete.json").read_text())["Records"]
    expired, removed = stream_event(
        remove({"Number": 8}, old={"Ends": 1767311940}, user_identity=TTL_DELETION),
        remove({"Number": 9}),
    )["Records"]

    assert expired.keys() == real.keys()
    assert removed.keys() == by_user.keys()
    assert expired["userIdentity"] == real["userIdentity"]
    assert expired["dynamodb"]["OldImage"] == real["dynamodb"]["OldImage"]


def test_the_same_calls_give_the_same_event_whatever_the_time() -> None:
    first, second = (
        stream_event(
            insert({"Id": 1}, {"a": {"x", "y", "z"}, "b": {3, 1, 2}}), first_sequence_number=5
        )
        for _ in range(2)
    )

    assert first == second
    assert first["Records"][0]["dynamodb"]["ApproximateCreationDateTime"] == 1_767_225_600.0
    (late,) = stream_event(remove({"Id": 1}), created_s=1_800_000_000.9)["Records"]
    assert late["dynamodb"]["ApproximateCreationDateTime"] == 1_800_000_000.0


def test_an_event_as_bytes_is_the_same_event() -> None:
    changes = insert({"Id": 1}, {"a": b"\0"}), remove({"Id": 2})
    parsed = stream_event(*changes, first_sequence_number=7)

    assert json.loads(stream_event(*changes, first_sequence_number=7, as_bytes=True)) == parsed
    assert decode(to_bytes(parsed)).records[0].sequence_number == 7


@pytest.mark.parametrize(
    ("table", "arn", "region"),
    [
        (
            "Teams",
            "arn:aws:dynamodb:us-east-1:111122223333:table/Teams/stream/2026-01-01T00:00:00.000",
            "us-east-1",
        ),
        (
            "arn:aws-cn:dynamodb:cn-north-1:444455556666:table/T-1.x_y",
            "arn:aws-cn:dynamodb:cn-north-1:444455556666:table/T-1.x_y/stream/2026-01-01T00:00:00.000",
            "cn-north-1",
        ),
    ],
)
def test_a_table_is_a_name_or_an_arn(table: str, arn: str, region: str) -> None:
    (record,) = stream_event(remove({"Id": 1}), table=table)["Records"]

    assert (record["eventSourceARN"], record["awsRegion"]) == (arn, region)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"table": ""}, "table='' is neither"),
        ({"table": "a b"}, "table='a b' is neither"),
        ({"table": "arn:aws:s3:::bucket"}, "is neither a table's name nor a table's ARN"),
        ({"table": "arn:aws:dynamodb:us-east-1:1:table/T/stream/2026-01-01"}, "is neither"),
        ({"label": "yesterday"}, "label='yesterday' is not a stream's label"),
        ({"label": "1969-12-31T23:59:59.999"}, "is not a stream's label"),
        ({"first_sequence_number": -1}, "sequence_number='-1' is not a number"),
        ({"first_sequence_number": 10**40}, "of 1 to 40 digits"),
    ],
)
def test_a_wrong_argument_is_named(arguments: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        stream_event(remove({"Id": 1}), **arguments)


@pytest.mark.parametrize("number", ["", "1.5", "٣", "9" * 41, -3])
def test_a_sequence_number_that_is_none_is_refused(number: Any) -> None:
    with pytest.raises(ValueError, match="is not a number of 1 to 40 digits"):
        stream_event(remove({"Id": 1}, sequence_number=number))


@pytest.mark.parametrize(
    "keys", [{}, {"a": 1, "b": 2, "c": 3}, {"a": ""}, {"a": None}, {"a": b""}]
)
def test_keys_that_no_table_has_are_refused(keys: Any) -> None:
    with pytest.raises(RecordError, match="key attribute"):
        stream_event(remove(keys))


def test_an_attribute_that_contradicts_the_keys_is_refused() -> None:
    assert insert({"Id": 1}, {"Id": 1, "a": 2}).new == {"Id": 1, "a": 2}
    words = "'Id' is in the keys with another value"
    with pytest.raises(ValueError, match=words):
        insert({"Id": 1}, {"Id": 2})
    with pytest.raises(ValueError, match=words):
        modify({"Id": 1}, {}, old={"Id": "1"})
    with pytest.raises(ValueError, match=words):
        remove({"Id": 1}, old={"Id": 2})


def test_duplicates_disorder_and_a_stream_created_again_can_be_built() -> None:
    """Each is built as a user would, and the handler keeps the newest all the same."""
    with memory_copy(Mirror(Config(redis_url="redis://unused", key="{Id}"))) as copy:
        handle = copy.mirror.lambda_handler
        old = insert({"Id": 1}, {"v": "old"}, sequence_number=100)
        new = modify({"Id": 1}, {"v": "new"}, sequence_number="200")

        handle(stream_event(new, old, old))
        assert copy.redis.get("1") == b'{"Id":1,"v":"new"}'
        handle(stream_event(old))
        assert copy.redis.get("1") == b'{"Id":1,"v":"new"}'
        again = stream_event(
            insert({"Id": 1}, {"v": "again"}, sequence_number=1), label="2027-01-01T00:00:00.000"
        )
        handle(again)
        handle(again)
        handle(stream_event(new))
        assert copy.redis.get("1") == b'{"Id":1,"v":"again"}'


VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.text(max_size=4),
        st.binary(max_size=4),
        st.integers(-(10**37), 10**37),
        st.decimals(-(10**9), 10**9, places=3),
        st.frozensets(st.text(max_size=3), min_size=1, max_size=3),
        st.frozensets(st.integers(-99, 99), min_size=1, max_size=3),
        st.frozensets(st.binary(max_size=3), min_size=1, max_size=3),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(VALUES)
def test_every_value_has_the_type_that_boto3_gives_it_and_comes_back(value: object) -> None:
    attribute = dynamodb_json({"x": value})["x"]

    assert attribute.keys() == TypeSerializer().serialize(value).keys()
    assert to_item({"x": attribute}) == {"x": value}


@pytest.mark.parametrize(
    ("number", "digits"),
    [
        (Decimal("1E+3"), "1000"),
        (Decimal("1.50"), "1.5"),
        (Decimal("-0.0"), "0"),
        (0.1, "0.1"),
        (1e21, "1000000000000000000000"),
        (Decimal("9." + "9" * 37 + "E+125"), "9" * 38 + "0" * 88),
        (Decimal("1E-130"), "0." + "0" * 129 + "1"),
        (10**125, "1" + "0" * 125),
    ],
)
def test_a_number_is_written_as_dynamodb_writes_it(number: object, digits: str) -> None:
    assert dynamodb_json({"x": number}) == {"x": {"N": digits}}


@pytest.mark.parametrize(
    "value",
    [
        set(),
        {1, "a"},
        float("nan"),
        Decimal("Infinity"),
        Decimal("sNaN"),
        10**126,
        1e-131,
        int("1" * 39),
        Decimal("0." + "1" * 39),
        [{"deep": {10**126}}],
    ],
)
def test_a_value_that_dynamodb_cannot_hold_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"DynamoDB has no number|a set needs members"):
        dynamodb_json({"x": value})


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (object(), "x: DynamoDB has no type for object"),
        ({True}, "x: DynamoDB has no type for bool"),
        ([1, 1j], "x.1: DynamoDB has no type for complex"),
        ({"deep": [{"er": range(2)}]}, "x.deep.0.er: DynamoDB has no type for range"),
    ],
)
def test_a_type_that_dynamodb_does_not_have_is_refused_with_its_path(
    value: object, words: str
) -> None:
    with pytest.raises(TypeError, match=words):
        dynamodb_json({"x": value})
