"""The event builder of tests/support: what it builds is what Lambda delivers."""

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
from asyncsync.lab.servers import ServerProcess
from asyncsync.values import to_item
from tests.support.events import dynamodb_json, insert, modify, remove, stream_event

REAL = Path(__file__).parents[1] / "core" / "events" / "sam_generate_event.json"


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
    ],
)
def test_a_number_is_written_as_dynamodb_writes_it(number: object, digits: str) -> None:
    assert dynamodb_json({"x": number}) == {"x": {"N": digits}}


@pytest.mark.parametrize("value", [set(), {1, "a"}, float("nan"), Decimal("Infinity")])
def test_a_value_that_dynamodb_cannot_hold_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"DynamoDB has no number|a set needs members"):
        dynamodb_json({"x": value})


@pytest.mark.parametrize("value", [object(), {True}, [1j]])
def test_a_type_that_dynamodb_does_not_have_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="DynamoDB has no type for"):
        dynamodb_json({"x": value})
