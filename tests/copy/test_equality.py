"""Values are compared by meaning."""

from __future__ import annotations

from random import Random
from typing import Any, get_args, get_type_hints

import orjson
import pytest

from asyncsync.aws.items import json_attributes
from asyncsync.config import Config
from asyncsync.copy.equality import READERS, same_value
from asyncsync.formats import FORMATS
from asyncsync.lab.compare import from_dynamodb_json, from_json
from asyncsync.lab.demo.changes import make_changes
from asyncsync.values import to_json


def test_every_format_is_a_setting_is_written_and_is_read() -> None:
    assert set(get_args(get_type_hints(Config)["value"])) == set(FORMATS) == set(READERS)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b'{"a":1,"b":2}', b'{"b":2,"a":1}'),
        (b'{"a":1}', b'{ "a" : 1.0 }'),
        (b'{"a":100}', b'{"a":1e2}'),
        (b'{"a":0}', b'{"a":-0.0}'),
        (b'{"a":"\xc3\xab"}', b'{"a":"\\u00eb"}'),
        (b"not JSON", b"not JSON"),
        (b"\xff", b"\xff"),
        (b"", b""),
    ],
)
def test_spelling_is_no_difference(one: bytes, other: bytes) -> None:
    assert same_value(one, other, "json")
    assert same_value(other, one, "json")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b'{"a":1}', b'{"a":true}'),
        (b'{"a":0}', b'{"a":false}'),
        (b'{"a":1}', b'{"a":"1"}'),
        (b'{"a":0}', b'{"a":null}'),
        (b'{"a":[1,2]}', b'{"a":[2,1]}'),
        (b'{"a":1}', b'{"a":1,"b":null}'),
        (b'{"a":12345678901234567890123456789012345678}', b'{"a":1.2345678901234567890e37}'),
        (b'{"a":0.1}', b'{"a":0.1000000000000000000000000000000000001}'),
        (b'{"a":{}}', b'{"a":[]}'),
        (b'{"a":1}', b'{"a":1'),
        (b'{"a":NaN}', b'{"a": NaN}'),
        (b'{"a":1}', b""),
        (b'{"a":1}', b"\xff"),
        (b'{"a":1}', b'{"a":1e99999999999999999999}'),
        (b"[" * 100_000, b" " + b"[" * 100_000),
    ],
)
def test_another_meaning_differs(one: bytes, other: bytes) -> None:
    assert not same_value(one, other, "json")
    assert not same_value(other, one, "json")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": {"N": "1"}}, {"a": {"N": "1.0"}}),
        ({"a": {"SS": ["b", "a"]}}, {"a": {"SS": ["a", "b"]}}),
        ({"a": {"NS": ["10", "9"]}}, {"a": {"NS": ["9.0", "1e1"]}}),
        ({"a": {"BS": ["AQ==", "Ag=="]}}, {"a": {"BS": ["Ag==", "AQ=="]}}),
        ({"a": {"L": [{"M": {"x": {"N": "1"}, "y": {"NULL": True}}}]}},
         {"a": {"L": [{"M": {"y": {"NULL": True}, "x": {"N": "1e0"}}}]}}),
    ],
)  # fmt: skip
def test_spelling_is_no_difference_in_dynamodb_json(one: Any, other: Any) -> None:
    assert same_value(orjson.dumps(one), orjson.dumps(other), "dynamodb-json")
    assert not same_value(orjson.dumps(one), orjson.dumps(other), "json")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": {"N": "1"}}, {"a": {"S": "1"}}),
        ({"a": {"N": "1"}}, {"a": {"N": 1}}),
        ({"a": {"N": "1"}}, {"a": {"N": "1", "S": "1"}}),
        ({"a": {"SS": ["1"]}}, {"a": {"NS": ["1"]}}),
        ({"a": {"SS": ["1"]}}, {"a": {"SS": "1"}}),
        ({"a": {"L": [{"N": "1"}, {"N": "2"}]}}, {"a": {"L": [{"N": "2"}, {"N": "1"}]}}),
        ({"a": {"N": "1"}}, {"a": 1}),
        ({"a": {"N": "1"}}, ["a"]),
        ({"a": {"N": "1"}}, {"a": {"N": "one"}}),
    ],
)
def test_another_meaning_differs_in_dynamodb_json(one: Any, other: Any) -> None:
    assert not same_value(orjson.dumps(one), orjson.dumps(other), "dynamodb-json")
    assert not same_value(orjson.dumps(other), orjson.dumps(one), "dynamodb-json")


def test_it_agrees_with_the_labs_own_comparison() -> None:
    """The lab's comparison shares no code with this one and judges the other tests."""
    chance = Random(3)
    items = [json_attributes(c.item) for c in make_changes(30, 300, 5) if c.item is not None]
    for _ in range(2_000):
        one, other = chance.choice(items), chance.choice(items)
        plain = to_json(one), to_json(other)
        typed = orjson.dumps(one), orjson.dumps(other)

        assert same_value(*plain, "json") == (from_json(plain[0]) == from_json(plain[1]))
        assert same_value(*typed, "dynamodb-json") == (
            from_dynamodb_json(typed[0]) == from_dynamodb_json(typed[1])
        )
