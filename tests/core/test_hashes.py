"""Values as hashes: what each attribute becomes, and what a transform may return."""

from __future__ import annotations

import datetime
import uuid
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsync.config import Config
from asyncsync.errors import RecordError
from asyncsync.hashes import encode_hash, write_hash
from asyncsync.limits import CALL_ARGUMENTS_MAX, CALL_BYTES_MAX, CALL_KEYS_MAX, HASH_FIELDS_MAX
from asyncsync.plan import plan
from tests.support.entries import entry

DIGITS = "12345678901234567890123456789012345678"
NESTED = b'{"a":{"c":18446744073709551616,"d":null},"b":1}'
UNHOLDABLE = "the transform returned a {} that JSON cannot hold"
CONFIG = Config(redis_url="redis://unused", value="hash")


def fields(value: tuple[bytes, ...]) -> dict[bytes, bytes]:
    return dict(zip(value[::2], value[1::2], strict=True))


@pytest.mark.parametrize(
    ("attribute", "text"),
    [
        ({"S": 'Zoë "東京" \n\x00'}, 'Zoë "東京" \n\x00'),
        ({"S": ""}, ""),
        ({"S": "null"}, "null"),
        ({"N": "1"}, "1"),
        ({"N": "-0.10"}, "-0.10"),
        ({"N": "1E100"}, "1E100"),
        ({"N": DIGITS}, DIGITS),
        ({"BOOL": True}, "true"),
        ({"BOOL": False}, "false"),
        ({"NULL": True}, "null"),
        ({"B": "AAEC"}, "AAEC"),
        ({"B": ""}, ""),
        ({"L": []}, "[]"),
        ({"L": [{"N": "1E5"}, {"S": "1"}, {"NULL": True}]}, '[1E5,"1",null]'),
        ({"M": {"b": {"N": "1"}, "a": {"M": {"z": {"S": ""}, "y": {"BOOL": True}}}}},
         '{"a":{"y":true,"z":""},"b":1}'),
        ({"SS": ["b", "a", "é"]}, '["a","b","é"]'),
        ({"NS": ["10", "9.5", "-1"]}, "[-1,9.5,10]"),
        ({"BS": ["AQ==", "AA=="]}, '["AA==","AQ=="]'),
    ],
)  # fmt: skip
def test_an_attribute_is_a_field(attribute: dict[str, Any], text: str) -> None:
    value = encode_hash(orjson.dumps({"Na me:%": attribute}))

    assert value == (b"Na me:%", text.encode())


def test_a_map_from_the_table_gives_the_bytes_that_it_gave_from_the_stream() -> None:
    one = b'{"M":{"M":{"a":{"N":"1"},"b":{"L":[{"M":{"x":{"N":"1"},"y":{"N":"2"}}}]}}}}'
    other = b'{"M":{"M":{"b":{"L":[{"M":{"y":{"N":"2"},"x":{"N":"1"}}}]},"a":{"N":"1"}}}}'

    assert encode_hash(one) == encode_hash(other)


@pytest.mark.parametrize(
    ("image", "reason", "path"),
    [
        (b"", "the record has no NewImage", ()),
        (b"[]", "NewImage is not a map of attributes", ()),
        (b"{}", "the item has no attribute: a hash has a field at least", ()),
        (b'{"a":{"N":"x"}}', "N is not a number", ("a",)),
        (b'{"a":{"Q":"x"}}', "attribute type 'Q' is unknown", ("a",)),
        (b'{"a":{"L":[{"S":1}]}}', "S is not a string", ("a", "0")),
        (b'{"a":{"B":"!"}}', "B is not base64 text", ("a",)),
        (
            b'{"a":' + b'{"L":[' * 300 + b'{"N":"1"}' + b"]}" * 300 + b"}",
            "nested deeper than can be written (DynamoDB ends at 32)",
            (),
        ),
    ],
)
def test_what_is_no_image_is_a_reject(image: bytes, reason: str, path: tuple[str, ...]) -> None:
    with pytest.raises(RecordError) as caught:
        encode_hash(image)

    assert (caught.value.reason, caught.value.path) == (reason, path)


@pytest.mark.parametrize(
    ("count", "is_legal"), [(HASH_FIELDS_MAX, True), (HASH_FIELDS_MAX + 1, False)]
)
def test_an_item_of_more_attributes_than_a_call_carries_is_a_reject(
    count: int, *, is_legal: bool
) -> None:
    image = orjson.dumps({f"a{at}": {"N": "1"} for at in range(count)})
    result: dict[str, object] = {f"a{at}": at for at in range(count)}
    if is_legal:
        assert len(encode_hash(image)) == len(write_hash(result)) == 2 * count
        return
    reason = "a hash of 1,991 fields: one script call can write 1,990"
    with pytest.raises(RecordError, match=reason):
        encode_hash(image)
    with pytest.raises(RecordError, match=reason):
        write_hash(result)


# --- a transform's result ---------------------------------------------------------------------

VECTOR = bytes(range(256))


@pytest.mark.parametrize(
    ("member", "field"),
    [
        ("text", b"text"),
        ("", b""),
        (VECTOR, VECTOR),
        (bytearray(VECTOR), VECTOR),
        (memoryview(VECTOR), VECTOR),
        (Decimal("1.10"), b"1.10"),
        (Decimal(DIGITS), DIGITS.encode()),
        (10**30, b"1" + b"0" * 30),
        (-7, b"-7"),
        (0.1, b"0.1"),
        (1e300, b"1e+300"),
        (True, b"true"),
        (None, b"null"),
        ([1, "a", None], b'[1,"a",null]'),
        ({"b": 1, "a": {"d": None, "c": 2**64}}, NESTED),
        ({"b", "a"}, b'["a","b"]'),
        ([VECTOR[:3]], b'["AAEC"]'),
        (datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC), b"2026-01-02T00:00:00+00:00"),
        (uuid.UUID(int=1), b"00000000-0000-0000-0000-000000000001"),
    ],
)  # fmt: skip
def test_a_member_of_a_transforms_dict_is_a_field(member: object, field: bytes) -> None:
    assert write_hash({"x": member}) == (b"x", field)


@pytest.mark.parametrize(
    ("result", "reason", "path"),
    [
        (b"bytes", "the transform returned bytes: a hash needs a dict of its fields", ()),
        ({}, "the transform returned an empty dict: a hash has a field at least", ()),
        ({1: "a"}, "the transform returned a name of type int", ()),
        ({"x": float("nan")}, UNHOLDABLE.format("float"), ("x",)),
        ({"x": Decimal("Infinity")}, UNHOLDABLE.format("Decimal"), ("x",)),
        ({"x": object()}, UNHOLDABLE.format("object"), ("x",)),
        ({"x": {"y": [object()]}}, UNHOLDABLE.format("object"), ("x", "y", "0")),
        ({"x": "\ud800"}, "the transform returned text that is not UTF-8", ("x",)),
        ({"\ud800": 1}, "the transform returned text that is not UTF-8", ("\ud800",)),
    ],
)  # fmt: skip
def test_what_no_field_can_hold_is_a_reject(
    result: Any, reason: str, path: tuple[str, ...]
) -> None:
    with pytest.raises(RecordError) as caught:
        write_hash(result)

    assert (caught.value.reason, caught.value.path) == (reason, path)


def test_a_value_that_is_nested_without_end_is_a_reject() -> None:
    endless: list[object] = []
    endless.append(endless)

    with pytest.raises(RecordError, match="nested too deep"):
        write_hash({"x": endless})


# --- the plan ---------------------------------------------------------------------------------


@given(st.lists(st.one_of(st.none(), st.integers(1, HASH_FIELDS_MAX)), max_size=40))
def test_a_call_keeps_its_limits_and_says_where_each_hash_begins(sizes: list[int | None]) -> None:
    entries = [
        entry(
            b"k%d" % at,
            5,
            None if size is None else tuple(b"%d.%d" % (at, field) for field in range(2 * size)),
        )
        for at, size in enumerate(sizes)
    ]

    calls = list(plan(entries, CONFIG))

    assert [at for call in calls for at in call.entries] == list(range(len(entries)))
    for call in calls:
        assert len(call.arguments) + 2 <= CALL_ARGUMENTS_MAX
        assert len(call.entries) <= CALL_KEYS_MAX
        argv = (b"", *call.arguments[1 + int(call.arguments[0]) :])  # Lua counts from 1
        for place, at in enumerate(call.entries):
            version, expiry, value = argv[3 + 3 * place : 6 + 3 * place]
            expected = entries[at].value
            assert version == entries[at].version
            if expected is None:
                assert (expiry, value) == (b"-", b"")
            else:
                begin = int(value)
                assert argv[begin + 1 : begin + 1 + int(argv[begin])] == expected
                assert expiry == b""


def test_calls_are_split_by_arguments_and_by_bytes() -> None:
    wide = [entry(b"k%d" % at, 5, (b"f", b"v") * 773) for at in range(4)]  # 1,547 arguments
    heavy = [entry(b"k%d" % at, 5, (b"f", b"v" * (CALL_BYTES_MAX // 2))) for at in range(4)]

    assert [len(call.entries) for call in plan(wide, CONFIG)] == [2, 2]
    assert [len(call.entries) for call in plan(heavy, CONFIG)] == [1, 1, 1, 1]
