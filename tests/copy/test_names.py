"""Names are read back to keys; every name that is not surely ours is foreign."""

from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asyncsync import Config, ConfigError
from asyncsync.copy.names import KeyNames, is_fence
from asyncsync.encode import EncodeRules
from asyncsync.limits import NAME_BYTES_MAX


def names(template: str = "{@table}:{@key}", key: Any = None, **types: str) -> KeyNames:
    """Return the names of a table's items; the first type is the hash key's."""
    types = types or {"Number": "N"}
    rules = EncodeRules(Config(redis_url="redis://unused", key=template), key)
    return KeyNames("Players", types, rules)


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
numbers = st.decimals(min_value=-(10**20), max_value=10**20, allow_nan=False, places=3).map(
    lambda number: f"{number:f}".rstrip("0").rstrip(".")
)
binaries = st.binary(min_size=1, max_size=40).map(
    lambda content: base64.b64encode(content).decode()
)


@given(texts, binaries)
@example("a:b{c}%!", "/+8=")
def test_every_name_of_an_item_is_read_back(text: str, binary: str) -> None:
    for template in ("{@table}:{@key}", "x:{B}:{A}", "{{user:{A}}}:order:{B}", "{A}:{@table}:{B}"):
        ours = names(template, B="B", A="S")
        key = (("A", "S", text), ("B", "B", binary))

        assert ours.read(ours.name_of(key)) == key


@given(numbers)
@example("0")
@example("1" + "0" * 125)
@example("-0." + "0" * 129 + "1")
@example("9" * 38)
def test_every_number_that_dynamodb_writes_is_read_back(digits: str) -> None:
    if digits in ("-0", ""):
        return
    ours = names()

    assert ours.read(ours.name_of((("Number", "N", digits),))) == (("Number", "N", digits),)


@pytest.mark.parametrize(
    "name",
    [
        "Players",
        "Players:",
        "Players:ada",
        "Players:07",
        "Players:7.0",
        "Players:7.",
        "Players:.7",
        "Players:+7",
        "Players:-0",
        "Players:7e1",
        "Players:7:1",
        "Players:NaN",
        "Players:\u0667",  # a digit, but not one of DynamoDB's
        "Players:" + "9" * 39,
        "Players:1" + "0" * 126,
        "Players:0." + "0" * 130 + "1",
        "Players:" + "9" * 100_000,
        "players:7",
        "xPlayers:7",
        "Players:7 ",
        "Players:7\n",
        "{Players:7}!f",
        "Players:%37",
    ],
)
def test_a_number_that_dynamodb_would_not_write_is_foreign(name: str) -> None:
    assert names().read(name.encode()) is None
    assert names().read(b"Players:7") == (("Number", "N", "7"),)


@pytest.mark.parametrize(
    ("types", "name"),
    [
        ({"A": "B"}, "Players:YQ"),  # no padding
        ({"A": "B"}, "Players:YR=="),  # its last bits are unused, and not zero
        ({"A": "B"}, "Players:ada"),
        ({"A": "B"}, "Players:Zoë="),
        ({"A": "S"}, "Players:a%2Fb"),  # an escape that we never write
        ({"A": "S"}, "Players:" + "a" * 2_049),
        ({"A": "S", "B": "S"}, "Players:a"),
        ({"A": "S", "B": "S"}, "Players:a:" + "b" * 1_025),
        ({"A": "S", "B": "S"}, "Players:a:b:c"),
    ],
)
def test_an_incomplete_key_or_one_of_other_types_is_foreign(
    types: dict[str, str], name: str
) -> None:
    assert names(**types).read(name.encode()) is None


def test_a_key_as_long_as_dynamodb_allows_is_ours_and_a_longer_one_is_not() -> None:
    ours = names(A="S", B="S")

    assert ours.read(b"Players:" + b"a" * 2_048 + b":" + b"b" * 1_024) is not None
    assert ours.read(b"Players:" + b"a" * 2_048 + b":" + b"b" * 1_025) is None
    assert ours.read(b"Players:" + b"a" * 2_049 + b":b") is None


def test_bytes_that_are_not_utf_8_are_foreign() -> None:
    assert names(A="S").read(b"Players:\xff") is None
    assert names(A="S").read(b"Players:\xed\xa0\x80") is None


# --- by value ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        {"A": "x" * 2_000 + "%" * 1_000, "B": "y", "C": 1},
        {"A": {"S": "x" * 2_000 + "%" * 1_000}, "B": {"S": "y"}},
    ],
)
def test_a_hashed_name_is_matched_by_the_key_in_its_value(value: Any) -> None:
    ours = names(A="S", B="S")
    key = (("A", "S", "x" * 1_000 + "%" * 1_000), ("B", "S", "y"))
    value = orjson.loads(orjson.dumps(value).replace(b"x" * 2_000, b"x" * 1_000))
    name = ours.name_of(key)

    assert len(name) <= NAME_BYTES_MAX
    assert ours.read(name) is None
    assert ours.read_by_value(name, orjson.dumps(value)) == key
    assert ours.read_by_value(name[:-1] + b"0", orjson.dumps(value)) is None
    for other in (b"", b"[]", b'{"A":"x"}', b'{"A":1,"B":"y"}', b'{"A":{"N":"1"},"B":"y"}'):
        assert ours.read_by_value(name, other) is None


def test_a_key_functions_name_is_matched_by_the_key_in_its_value() -> None:
    ours = names(key=lambda keys: f"player-{keys['Number']['N']}")

    assert ours.read(b"player-7") is None
    assert ours.read_by_value(b"player-7", b'{"Number":7}') == (("Number", "N", "7"),)
    assert ours.read_by_value(b"player-7", b'{"Number":{"N":"7"}}') == (("Number", "N", "7"),)
    for value in (b'{"Number":8}', b'{"Number":7.0}', b'{"Number":"7"}', b'{"Name":"ada"}'):
        assert ours.read_by_value(b"player-7", value) is None


def test_a_name_is_foreign_where_the_key_function_raises() -> None:
    ours = names(key=lambda keys: str(1 // (int(keys["Number"]["N"]) - 7)))

    assert ours.read_by_value(b"player-7", b'{"Number":7}') is None


# --- the pattern ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "prefix", "pattern"),
    [
        ("{@table}:{@key}", b"Players:", b"Players:*"),
        ("a*b?[c]\\^-d:{Number}", b"a*b?[c]\\^-d:", b"a\\*b\\?\\[c\\]\\\\\\^\\-d:*"),
        ("{Number}", b"", b"*"),
        ("{{players}}:{Number}", b"{players}:", b"{players}:*"),
    ],
)
def test_the_pattern_is_the_prefix_of_every_name(
    template: str, prefix: bytes, pattern: bytes
) -> None:
    assert (names(template).prefix, names(template).pattern) == (prefix, pattern)


def test_a_key_functions_names_have_no_prefix() -> None:
    assert (names(key=str).prefix, names(key=str).pattern) == (b"", b"*")


def test_a_fences_name_is_told_from_an_items() -> None:
    assert is_fence(b"{Players:7}!f")
    assert is_fence(b"{user:1}:order:9!f")
    assert not is_fence(b"Players:7")


def test_a_template_that_does_not_fit_the_table_is_refused() -> None:
    with pytest.raises(ConfigError, match="must use exactly these"):
        names("{Name}")
