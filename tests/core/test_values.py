"""Stage 3, values: what DynamoDB holds is what readers get, to the last digit."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections import UserDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple

import orjson
import pytest
from boto3.dynamodb.types import Binary, TypeDeserializer
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asyncsync.errors import RecordError
from asyncsync.values import (
    expiry_ms,
    parse_image,
    read_attribute,
    to_item,
    to_json,
    transformed,
)
from tests.support.scalars import BASE64, LEGAL_NUMBERS, SMALL_NUMBERS

# --- every legal value --------------------------------------------------------------------------


TEXT = st.text(max_size=4)

NOW_S = 1_767_225_600
YEAR_S = 365 * 86_400


def attributes(numbers: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, Any]]:
    """Attribute values of every type, sets in any order."""
    leaves = st.one_of(
        st.builds(lambda v: {"S": v}, TEXT),
        st.builds(lambda v: {"N": v}, numbers),
        st.builds(lambda v: {"B": v}, BASE64),
        st.builds(lambda v: {"BOOL": v}, st.booleans()),
        st.just({"NULL": True}),
        st.builds(lambda v: {"SS": v}, st.lists(TEXT, min_size=1, unique=True, max_size=4)),
        st.builds(
            lambda v: {"NS": v},
            st.lists(numbers, min_size=1, unique_by=Decimal, max_size=4),
        ),
        st.builds(lambda v: {"BS": v}, st.lists(BASE64, min_size=1, unique=True, max_size=4)),
    )
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.builds(lambda v: {"L": v}, st.lists(inner, max_size=3)),
            st.builds(lambda v: {"M": v}, st.dictionaries(TEXT, inner, max_size=3)),
        ),
        max_leaves=8,
    )


def images(numbers: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(TEXT, attributes(numbers), max_size=4)


class Digits(str):
    """A number's text as a JSON reader meets it."""

    __slots__ = ()


def obvious(attribute: dict[str, Any]) -> Any:
    """Decode an attribute value in the plainest way, numbers as their text."""
    ((tag, value),) = attribute.items()
    simple: dict[str, Callable[[], Any]] = {
        "S": lambda: value,
        "N": lambda: Digits(value),
        "B": lambda: value,
        "BOOL": lambda: value,
        "NULL": lambda: None,
        "L": lambda: [obvious(member) for member in value],
        "M": lambda: {name: obvious(member) for name, member in value.items()},
        "SS": lambda: sorted(value, key=lambda text: text.encode()),
        "NS": lambda: [Digits(text) for text in sorted(value, key=Decimal)],
        "BS": lambda: sorted(value, key=b64decode),
    }
    return simple[tag]()


@settings(deadline=None)
@given(images(LEGAL_NUMBERS))
def test_json_holds_every_value_with_the_digits_that_came(image: dict[str, Any]) -> None:
    read = json.loads(to_json(image), parse_float=Digits, parse_int=Digits)

    assert read == {name: obvious(attribute) for name, attribute in image.items()}


@settings(deadline=None)
@given(LEGAL_NUMBERS)
@example("1" + "0" * 100)  # boto3's TypeDeserializer raises on it
@example("9" * 38 + "0" * 88)
@example("-" + "9" * 38 + "0" * 88)
@example("0." + "0" * 129 + "1")
@example("-0." + "0" * 92 + "9" * 38)
@example("0")
def test_a_number_is_its_own_digits(text: str) -> None:
    assert to_json({"n": {"N": text}}) == b'{"n":%b}' % text.encode()
    assert to_json({"n": {"NS": [text]}}) == b'{"n":[%b]}' % text.encode()
    assert json.loads(to_json({"n": {"N": text}}), parse_int=Decimal, parse_float=Decimal) == {
        "n": Decimal(text)
    }


class FromLambda(TypeDeserializer):  # type: ignore[misc]
    """boto3's own reader, taught that Lambda sends B as base64 text."""

    def _deserialize_b(self, value: Any) -> bytes:
        read = super()._deserialize_b(b64decode(value))
        assert isinstance(read, Binary)
        return bytes(read.value)


@settings(deadline=None)
@given(images(SMALL_NUMBERS))
def test_items_are_what_boto3_makes_of_them_where_it_can(image: dict[str, Any]) -> None:
    theirs = {name: FromLambda().deserialize(value) for name, value in image.items()}

    assert to_item(image) == theirs


def as_json(value: Any) -> Any:
    """Put what boto3 read into JSON's shapes, sets in their order."""
    if isinstance(value, dict):
        return {name: as_json(member) for name, member in value.items()}
    if isinstance(value, set):
        order: Any = str.encode if all(isinstance(v, str) for v in value) else None
        return [as_json(member) for member in sorted(value, key=order)]
    if isinstance(value, list):
        return [as_json(member) for member in value]
    return b64encode(value).decode() if isinstance(value, bytes) else value


@settings(deadline=None)
@given(images(SMALL_NUMBERS))
def test_json_is_what_boto3_and_json_make_of_it_where_they_can(image: dict[str, Any]) -> None:
    theirs = {name: as_json(FromLambda().deserialize(value)) for name, value in image.items()}

    ours = json.loads(to_json(image), parse_int=Decimal, parse_float=Decimal)

    assert ours == theirs


@settings(deadline=None)
@given(st.data(), images(LEGAL_NUMBERS))
def test_sets_in_any_order_give_the_same_bytes(data: st.DataObject, image: dict[str, Any]) -> None:
    other = {
        name: {tag: data.draw(st.permutations(value)) if tag in ("SS", "NS", "BS") else value}
        for name, attribute in image.items()
        for tag, value in attribute.items()
    }

    assert to_json(other) == to_json(image)


@pytest.mark.parametrize(
    ("attribute", "written"),
    [
        ({"S": ""}, b'""'),
        ({"S": '\u2028é"\\\n'}, b'"\xe2\x80\xa8\xc3\xa9\\"\\\\\\n"'),
        ({"N": "-1.50"}, b"-1.50"),
        ({"N": "1E5"}, b"1E5"),
        ({"B": "AA=="}, b'"AA=="'),
        ({"BOOL": False}, b"false"),
        ({"NULL": True}, b"null"),
        ({"L": []}, b"[]"),
        ({"M": {}}, b"{}"),
        ({"M": {"": {"L": [{"N": "1"}]}}}, b'{"":[1]}'),
        ({"NS": ["10", "9", "-1", "0.5"]}, b"[-1,0.5,9,10]"),
        ({"NS": ["1" + "0" * 38, "9" * 38]}, b"[%b,1%b]" % (b"9" * 38, b"0" * 38)),
        ({"SS": ["b", "B", "é", "a"]}, '["B","a","b","é"]'.encode()),
        # By UTF-8 bytes; as UTF-16 the second would come first.
        ({"SS": ["\U0001f600", "\uffff"]}, '["\uffff","\U0001f600"]'.encode()),
        # By decoded bytes 00, 01, ff; as text "/w==" would come before "AA==".
        ({"BS": ["/w==", "AQ==", "AA=="]}, b'["AA==","AQ==","/w=="]'),
        ({"S": "x", "N": None, "L": None}, b'"x"'),
        ({"NULL": True, "S": None}, b"null"),
    ],
)
def test_each_type_is_written_in_one_way(attribute: dict[str, Any], written: bytes) -> None:
    assert to_json({"a": attribute}) == b'{"a":%b}' % written


# --- what is no legal value ---------------------------------------------------------------------

NO_MAP = "an attribute value is not a map of one type tag"
MALFORMED: list[tuple[Any, str]] = [
    (None, NO_MAP),
    ("x", NO_MAP),
    ([], NO_MAP),
    (5, NO_MAP),
    ({}, "an attribute value has 0 types, not one"),
    ({"S": None, "N": None}, "an attribute value has 0 types, not one"),
    ({"S": "a", "N": "1"}, "an attribute value has 2 types, not one"),
    ({"X": "a"}, "attribute type 'X' is unknown"),
    ({"LongSecretTag": "a"}, "attribute type is unknown"),
    ({"s": "a"}, "attribute type is unknown"),
    ({"S": None}, "S is not a string"),
    ({"S": 5}, "S is not a string"),
    ({"N": 5}, "N is not a number"),
    ({"N": None}, "N is not a number"),
    *[
        ({"N": text}, "N is not a number")
        for text in ("", "abc", "NaN", "Infinity", "-", "1.", ".5", "+1", "01", "1_0", "0x1")
    ],
    *[
        ({tag: value}, "N is not a number")
        for text in ("1E1000", "-1e+1000", "1E-9999999999999999999")
        for tag, value in (("N", text), ("NS", [text]))
    ],
    *[({"N": text}, "N is not a number") for text in (" 1", "1\n", "1e", "--1", "1,5", "\u0661")],
    ({"B": 5}, "B is not base64 text"),
    ({"B": None}, "B is not base64 text"),
    ({"BOOL": "true"}, "BOOL is not true or false"),
    ({"BOOL": 1}, "BOOL is not true or false"),
    ({"NULL": False}, "NULL is not true"),
    ({"NULL": 1}, "NULL is not true"),
    ({"M": []}, "M is not a map"),
    ({"M": None}, "M is not a map"),
    ({"L": {}}, "a list or set is not an array"),
    ({"L": "x"}, "a list or set is not an array"),
    ({"SS": "x"}, "a list or set is not an array"),
    ({"SS": ["a", 1]}, "SS holds something that is not a string"),
    ({"SS": [None]}, "SS holds something that is not a string"),
    ({"NS": None}, "a list or set is not an array"),
    ({"NS": ["1", "x"]}, "N is not a number"),
    ({"NS": [1]}, "N is not a number"),
    ({"BS": {}}, "a list or set is not an array"),
    ({"BS": ["AA==", "#"]}, "B is not base64 text"),
    ({"BS": [5]}, "B is not base64 text"),
    ({"BS": ["é"]}, "B is not base64 text"),
]


@pytest.mark.parametrize("read", [to_json, to_item])
@pytest.mark.parametrize(("attribute", "reason"), MALFORMED)
def test_a_malformed_value_is_rejected_with_its_path(
    attribute: Any, reason: str, read: Callable[[dict[str, Any]], object]
) -> None:
    nested = {"good": {"S": "x"}, "a": {"M": {"b": {"L": [{"S": "x"}, attribute]}}}}

    with pytest.raises(RecordError) as top:
        read({"a": attribute})
    with pytest.raises(RecordError) as deep:
        read(nested)

    assert (top.value.reason, top.value.path) == (reason, ("a",))
    assert (deep.value.reason, deep.value.path) == (reason, ("a", "b", "1"))


def test_a_binary_value_that_is_no_base64_is_rejected_with_its_path() -> None:
    with pytest.raises(RecordError) as rejected:
        to_item({"a": {"L": [{"B": "###"}]}})

    assert (rejected.value.reason, rejected.value.path) == ("B is not base64 text", ("a", "0"))


def test_a_binary_value_that_is_no_base64_makes_no_item() -> None:
    with pytest.raises(RecordError, match="B is not base64 text"):
        to_item({"a": {"B": "###"}})


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "the record has no NewImage"),
        (b"{", "NewImage is not JSON"),
        (b'{"a":{"S":"\xff"}}', "NewImage is not JSON"),
        (b'{"a":{"S":"\\ud800"}}', "NewImage is not JSON"),
        (b"[]", "NewImage is not a map of attributes"),
        (b"5", "NewImage is not a map of attributes"),
        (b'"x"', "NewImage is not a map of attributes"),
    ],
)
def test_an_image_that_is_no_map_is_rejected(raw: bytes, reason: str) -> None:
    with pytest.raises(RecordError) as rejected:
        parse_image(raw)

    assert (rejected.value.reason, rejected.value.path) == (reason, ())


def nested(depth: int, *, lists: bool) -> bytes:
    opening, closing = (b'{"L":[', b"]}") if lists else (b'{"M":{"m":', b"}}")
    return b'{"a":' + opening * depth + b'{"N":"1"}' + closing * depth + b"}"


@pytest.mark.parametrize("lists", [True, False])
def test_nesting_as_deep_as_dynamodb_allows_is_written(lists: bool) -> None:
    image = parse_image(nested(32, lists=lists))

    written = to_json(image)

    opening, closing = (b"[", b"]") if lists else (b'{"m":', b"}")
    assert written == b'{"a":' + opening * 32 + b"1" + closing * 32 + b"}"
    value: Any = to_item(image)["a"]
    for _ in range(32):
        value = value[0] if lists else value["m"]
    assert value == Decimal(1)


@pytest.mark.parametrize("lists", [True, False])
@pytest.mark.parametrize("depth", [254, 300, 450, 900, 2_000, 100_000])
@pytest.mark.parametrize("read", [to_json, to_item])
def test_deeper_nesting_is_rejected_and_no_crash(
    lists: bool, depth: int, read: Callable[[dict[str, Any]], object]
) -> None:
    # In a thread of its own the stack begins empty, so only the image's depth counts.
    with ThreadPoolExecutor(1) as thread:
        reading = thread.submit(lambda: read(parse_image(nested(depth, lists=lists))))
        with pytest.raises(RecordError, match=r"nested deeper|NewImage is not JSON"):
            reading.result()


# --- the user's transform -----------------------------------------------------------------------

IMAGE: dict[str, Any] = {
    "n": {"N": "1.50"},
    "b": {"B": "AAE="},
    "ss": {"SS": ["b", "a"]},
    "ns": {"NS": ["2", "10"]},
    "bs": {"BS": ["AQ==", "AA=="]},
    "l": {"L": [{"NULL": True}, {"BOOL": True}]},
    "m": {"M": {"s": {"S": "x"}}},
}


class Point(NamedTuple):
    x: int
    y: int


class Whole(int):
    pass


class Real(float):
    pass


class Word(StrEnum):
    GOALS = "goals"


@dataclass
class Score:
    goals: float
    _secret: str = "x"


class Raises(UserDict[str, object]):
    """A user's mapping whose members cannot be read."""

    def __getitem__(self, name: str) -> object:
        raise ValueError("secret value")


def nested_list(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


def test_a_transform_gets_python_values() -> None:
    item = to_item(IMAGE)

    assert item == {
        "n": Decimal("1.50"),
        "b": b"\x00\x01",
        "ss": {"a", "b"},
        "ns": {Decimal(2), Decimal(10)},
        "bs": {b"\x00", b"\x01"},
        "l": [None, True],
        "m": {"s": "x"},
    }
    assert str(item["n"]) == "1.50"


def test_a_transform_that_changes_nothing_gives_the_same_json() -> None:
    assert transformed(lambda item: item, IMAGE) == to_json(IMAGE)


@pytest.mark.parametrize(
    ("returned", "written"),
    [
        ({"d": Decimal("1.50"), "big": Decimal("1E+40")}, b'{"d":1.50,"big":1E+40}'),
        (
            {"b": b"\x00", "s": {3, 1, 2}, "f": frozenset("ba")},
            b'{"b":"AA==","s":[1,2,3],"f":["a","b"]}',
        ),
        ({"x": {b"\x01", b"\x00"}}, b'{"x":["AA==","AQ=="]}'),
        # What orjson refuses and JSON holds: whole numbers past 64 bits, digits past Python's
        # own 4,300, more than 254 levels.
        ({"x": 2**64}, b'{"x":18446744073709551616}'),
        ({"x": -(2**63) - 1, "y": [2**70]}, b'{"x":-9223372036854775809,"y":[%d]}' % 2**70),
        ({"x": 10**5_000}, b'{"x":1' + b"0" * 5_000 + b"}"),
        ({"x": Whole(2**70)}, b'{"x":%d}' % 2**70),
        ({"x": nested_list(300)}, b'{"x":' + b"[" * 300 + b"]" * 300 + b"}"),
        (
            {
                "x": 2**64,
                "d": Decimal("1.50"),
                "b": b"\x00",
                "t": True,
                "n": None,
                "f": 0.1,
                "s": "é",
            },
            '{"x":18446744073709551616,"d":1.50,"b":"AA==","t":true,"n":null,"f":0.1,"s":"é"}'.encode(),
        ),
        ({"x": {2**64, 1}}, b'{"x":[1,18446744073709551616]}'),
        # What orjson has no name for.
        ({"x": Point(1, 2**64)}, b'{"x":[1,18446744073709551616]}'),
        ({"x": Point(1, 2)}, b'{"x":[1,2]}'),
        ({"x": MappingProxyType({"y": 2**64})}, b'{"x":{"y":18446744073709551616}}'),
        ({"x": bytearray(b"\x00"), "y": memoryview(b"\x01")}, b'{"x":"AA==","y":"AQ=="}'),
        ({"x": Real(0.5)}, b'{"x":0.5}'),
        ({Word.GOALS: 1, "n": None}, b'{"goals":1,"n":null}'),
        # What it writes by itself, with and without its limits.
        ({"x": Score(1), "n": None}, b'{"x":{"goals":1},"n":null}'),
        ({"x": Score(2**64)}, b'{"x":{"goals":18446744073709551616}}'),
        (
            {"x": datetime(2026, 1, 2, tzinfo=UTC), "y": 2**64},
            b'{"x":"2026-01-02T00:00:00+00:00","y":18446744073709551616}',
        ),
        ({"x": "null", "y": None}, b'{"x":"null","y":null}'),
        ({}, b"{}"),
        (b"", b""),
        (b"any bytes \xff", b"any bytes \xff"),
        (None, None),
    ],
)
def test_a_transform_returns_json_bytes_or_a_removal(returned: Any, written: bytes | None) -> None:
    assert transformed(lambda _: returned, IMAGE) == written


@pytest.mark.parametrize(
    "returned", ["text", [], 5, bytearray(b"x")], ids=lambda returned: type(returned).__name__
)
def test_a_transform_that_returns_anything_else_is_a_reject(returned: Any) -> None:
    kind = type(returned).__name__

    with pytest.raises(RecordError) as rejected:
        transformed(lambda _: returned, IMAGE)

    assert rejected.value.reason == f"the transform returned {kind}, not dict, bytes or None"
    assert rejected.value.path == ()


HOLDS_ITSELF: dict[str, Any] = {}
HOLDS_ITSELF["x"] = HOLDS_ITSELF


@pytest.mark.parametrize(
    ("returned", "kind", "path"),
    [
        ({"x": object()}, "object that", ("x",)),
        ({"x": 5j}, "complex that", ("x",)),
        ({"x": Decimal("NaN")}, "Decimal that", ("x",)),
        ({"x": Decimal("-Infinity")}, "Decimal that", ("x",)),
        # orjson writes these as null.
        ({"x": float("nan")}, "float that", ("x",)),
        ({"x": 1, "y": [0, {"z": float("inf")}]}, "float that", ("y", "1", "z")),
        ({"x": Real("-inf")}, "Real that", ("x",)),
        ({"x": Score(float("nan"))}, "float that", ("x", "goals")),
        ({"x": MappingProxyType({"y": float("nan")})}, "float that", ("x", "y")),
        ({"x": {1, "a"}}, "set that", ("x",)),
        ({5: "x"}, "name of type int that", ()),
        ({"x": {None: 1}}, "name of type NoneType that", ("x",)),
        ({"x": "\ud800"}, "str that", ("x",)),
        ({"x": [{"y": ["ok", "a\udfff"]}]}, "str that", ("x", "0", "y", "1")),
        ({"a": {"\ud800": 1}}, "str that", ("a",)),
        ({"x": Raises(a=1)}, "Raises that", ("x",)),
        ({"x": 2**64, "y": object()}, "object that", ("y",)),
    ],
)
def test_what_json_cannot_hold_is_rejected_with_its_path(
    returned: Any, kind: str, path: tuple[str, ...]
) -> None:
    with pytest.raises(RecordError) as rejected:
        transformed(lambda _: returned, IMAGE)

    assert rejected.value.reason == f"the transform returned a {kind} JSON cannot hold"
    assert rejected.value.path == path


@pytest.mark.parametrize("returned", [HOLDS_ITSELF, {"x": nested_list(100_000)}])
def test_what_has_no_end_is_rejected_and_no_crash(returned: Any) -> None:
    with ThreadPoolExecutor(1) as thread:
        writing = thread.submit(transformed, lambda _: returned, IMAGE)
        with pytest.raises(RecordError, match="nested too deep"):
            writing.result()


@settings(deadline=None)
@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(st.characters(exclude_categories=["Cs"])),
        lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    )
)
def test_a_transforms_json_reads_back_as_what_it_returned(returned: object) -> None:
    written = transformed(lambda _: {"x": returned}, IMAGE)

    assert written is not None
    assert json.loads(written) == {"x": returned}


def test_a_transform_that_raises_rejects_the_record_without_its_message() -> None:
    def transform(item: dict[str, object]) -> None:
        raise LookupError("secret value")

    with pytest.raises(RecordError) as rejected:
        transformed(transform, IMAGE)

    assert rejected.value.reason == "the transform raised LookupError"


def test_a_transform_is_not_asked_about_a_malformed_image() -> None:
    asked: list[object] = []

    with pytest.raises(RecordError, match="N is not a number"):
        transformed(lambda item: asked.append(item), {"a": {"N": "x"}})

    assert asked == []


# --- expiry -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attribute", "milliseconds"),
    [
        (None, 0),
        ({}, 0),
        ("5", 0),
        (5, 0),
        ([], 0),
        ({"S": "1767225600"}, 0),
        ({"N": 1_767_225_600}, 0),
        ({"N": "soon"}, 0),
        ({"N": None, "S": "x"}, 0),
        ({"N": "1767225600"}, 1_767_225_600_000),
        ({"N": "1767225600", "S": None}, 1_767_225_600_000),
        ({"N": "1767225600.9"}, 1_767_225_600_000),
        ({"N": "1.7672256E9"}, 1_767_225_600_000),
        ({"N": "1735689600.5"}, 1_735_689_600_000),
        ({"N": "1.7e9"}, 1_700_000_000_000),
        ({"N": "+1767225600"}, 0),
        ({"N": " 1767225600"}, 0),
        ({"N": ""}, 0),
        ({"N": "NaN"}, 0),
        ({"N": "Infinity"}, 0),
        # Not positive, or more than five years past, is no time: DynamoDB leaves such an item.
        ({"N": "0"}, 0),
        ({"N": "-0"}, 0),
        ({"N": "0.0"}, 0),
        ({"N": "0.9"}, 0),
        ({"N": "-1"}, 0),
        ({"N": "-1767225600"}, 0),
        ({"N": "-1E999"}, 0),
        ({"N": "1E-999"}, 0),
        ({"N": "1"}, 0),
        ({"N": str(NOW_S - 6 * YEAR_S)}, 0),
        ({"N": str(NOW_S - 5 * YEAR_S - 1)}, 0),
        ({"N": str(NOW_S - 5 * YEAR_S)}, (NOW_S - 5 * YEAR_S) * 1_000),  # expired, not left
        ({"N": str(NOW_S - 5 * YEAR_S + 1)}, (NOW_S - 5 * YEAR_S + 1) * 1_000),
        ({"N": str(NOW_S)}, NOW_S * 1_000),
        # A number in milliseconds is a time in the year 57970.
        ({"N": str(NOW_S * 1_000)}, NOW_S * 1_000_000),
        ({"N": str(NOW_S * 1_000_000)}, 0),
        # Numbers of other types.
        ({"NS": ["1767225600"]}, 0),
        ({"SS": ["1767225600"]}, 0),
        ({"M": {"N": {"N": "1767225600"}}}, 0),
        ({"L": [{"N": "1767225600"}]}, 0),
        ({"B": "MTc2NzIyNTYwMA=="}, 0),
        ({"BOOL": True}, 0),
        ({"NULL": True}, 0),
        ({"N": ["1767225600"]}, 0),
        ({"N": {"N": "1767225600"}}, 0),
        ({"N": True}, 0),
        # 2**53 ms is 9007199254740.992 s.
        ({"N": "9007199254740"}, 9_007_199_254_740_000),
        ({"N": "9007199254741"}, 0),
        ({"N": "1" + "0" * 125}, 0),
        ({"N": "1E999"}, 0),
        # No number of DynamoDB's: an exponent has three digits at most.
        ({"N": "1E1000"}, 0),
        ({"N": "1E999999999"}, 0),
        ({"N": "-1E999999999"}, 0),
        ({"N": "1E-999999999"}, 0),
        ({"N": "1E9999999999999999999"}, 0),
        ({"N": "9" * 5_000}, 0),
    ],
)
def test_an_expiry_is_a_number_of_epoch_seconds_or_none(attribute: Any, milliseconds: int) -> None:
    assert expiry_ms(attribute, NOW_S * 1_000) == milliseconds


@settings(deadline=None)
@given(st.integers(NOW_S, 2**53 // 1_000))
def test_whole_seconds_are_kept_exactly(seconds: int) -> None:
    assert expiry_ms({"N": str(seconds)}, NOW_S * 1_000) == seconds * 1_000


@settings(deadline=None)
@given(images(LEGAL_NUMBERS), TEXT)
def test_one_attribute_is_found_without_parsing_the_others(
    image: dict[str, Any], name: str
) -> None:
    raw = orjson.dumps(image)

    assert read_attribute(raw, name) == image.get(name)
    for present in image:
        assert read_attribute(raw, present) == image[present]


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"5", b'{"t":', b'{"t":{]}', b'{"t":1e999}'])
def test_an_attribute_of_what_is_no_image_is_absent(raw: bytes) -> None:
    assert read_attribute(raw, "t") is None


def test_an_attribute_beside_a_name_that_is_not_utf_8_is_absent() -> None:
    assert read_attribute(b'{"\xff":{"N":"1"},"t":{"N":"1"}}', "t") is None
