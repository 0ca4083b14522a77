"""Values as JSON documents: every number comes back as it was, or is a string of its digits."""

from __future__ import annotations

import json
import random
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asyncsync.documents import document_of, write_document
from asyncsync.errors import RecordError
from asyncsync.limits import DOCUMENT_LEVELS_MAX
from tests.support.events import SEED
from tests.support.formats import FormatServer

# A number as DynamoDB holds it: 38 digits, 1E-130 to 9.99E+125.
NUMBERS = st.builds(
    lambda sign, digits, exponent: Decimal((sign, tuple(map(int, str(digits))), exponent)),
    st.integers(0, 1),
    st.one_of(st.integers(0, 10**38 - 1), st.integers(0, 2**64 + 2), st.integers(0, 10**6)),
    st.one_of(st.integers(-130, 87), st.integers(-30, 30), st.just(0)),
)


def execute(server: FormatServer, *command: str | bytes) -> Any:
    return server.client.execute_command(*command)  # type: ignore[no-untyped-call]


def text_of(number: Decimal, *, plain: bool) -> str:
    return format(number, "f") if plain else str(number)


@pytest.mark.parametrize(
    ("number", "is_kept"),
    [
        ("0", True),
        ("-0", True),
        ("0.0", True),
        ("1.5", True),
        ("0.1", True),
        ("-123456.789012345", True),
        ("9007199254740993", True),
        ("9223372036854775807", True),
        ("-9223372036854775808", True),
        ("9223372036854775808", False),
        ("-9223372036854775809", False),
        ("18446744073709551615", False),
        ("100000000000000000000", False),
        ("1E5", True),
        ("1E22", True),
        ("1E23", False),
        ("5.2E+33", False),  # the module's parser gives 5.200000000000001e33
        ("9.43833541E-84", False),
        ("1E-22", True),
        ("1E-130", False),
        ("0.0000000000000000000001", True),
        ("0.00000000000000000000001", False),
        ("9007199254740991.5", False),
        ("900719925474099.1", True),
        ("900719925474099.11", False),
        ("0.30000000000000004", False),
        ("12345678901234567890123456789012345678", False),
        ("123456789012345678901234567890.123", False),
        ("1" + "0" * 5_000, False),
        ("1E99999999", False),
    ],
)
def test_a_number_is_kept_or_a_string_of_its_digits(number: str, *, is_kept: bool) -> None:
    shown = number if is_kept else f'"{number}"'

    assert document_of(b'{"n":%b,"l":[%b,1]}' % (number.encode(), number.encode())) == (
        f'{{"n":{shown},"l":[{shown},1]}}'.encode()
    )
    assert write_document(f' {{ "n" : {number} }}'.encode()) == f' {{ "n" : {shown} }}'.encode()


@given(st.recursive(st.text() | st.none() | st.booleans(), st.lists, max_leaves=20))
def test_strings_stay_as_they_are(value: Any) -> None:
    text = orjson.dumps({"x": value, "y": ":5.2E+33", "z": '[1e400,"\\', "n": "long"})

    assert document_of(text) == text
    long = text.replace(b'"long"', b"1" * 30)
    assert document_of(long) == text.replace(b'"long"', b'"%b"' % (b"1" * 30))


@settings(max_examples=500, deadline=None)
@given(number=NUMBERS, plain=st.booleans())
@example(number=Decimal("5.2E+33"), plain=True)
def test_a_number_that_is_kept_is_exact_as_a_double_or_an_integer(
    number: Decimal, *, plain: bool
) -> None:
    text = text_of(number, plain=plain)

    kept = orjson.loads(document_of(f'{{"n":{text}}}'.encode()))["n"]

    if isinstance(kept, str):
        assert kept == text
    else:
        assert Decimal(str(kept)) == number


def test_every_number_passes_through_a_server_and_back(any_format: FormatServer) -> None:
    """Thousands of numbers that DynamoDB can hold, by the JSON module's own parser."""
    if any_format.value != "redis-json":
        return
    chance = random.Random(SEED)
    texts = []
    for _ in range(3_000):
        digits = chance.choice((15, 16, 17, 19, 20, 38))
        number = Decimal(chance.randrange(10 ** chance.randint(1, digits)))
        exponents = (0, 0, -1, -7, -22, -23, 22, 5, chance.randint(-130, 87))
        number = number.scaleb(chance.choice(exponents))
        texts.append(text_of(number * chance.choice((1, -1)), plain=chance.random() < 0.5))
    document = document_of(b'{"n":[%b]}' % ",".join(texts).encode())
    execute(any_format, "JSON.SET", "n", "$", document)

    reply = execute(any_format, "JSON.GET", "n", ".")

    kept = json.loads(reply, parse_int=Decimal, parse_float=Decimal)["n"]
    assert [Decimal(each) for each in kept] == [Decimal(text) for text in texts]
    assert {type(each) for each in kept} == {str, Decimal}
    assert all(each == text for each, text in zip(kept, texts, strict=True) if type(each) is str)


@pytest.mark.parametrize("level", [DOCUMENT_LEVELS_MAX, DOCUMENT_LEVELS_MAX + 1])
def test_a_document_is_nested_as_deep_as_the_module_allows(
    any_format: FormatServer, level: int
) -> None:
    text = b'{"x":' + b"[" * (level - 1) + b'"]]"' + b"]" * (level - 1) + b"}"
    if level > DOCUMENT_LEVELS_MAX:
        with pytest.raises(RecordError, match="nested 128 levels deep"):
            document_of(text)
    elif any_format.value == "redis-json":
        assert execute(any_format, "JSON.SET", "n", "$", document_of(text)) == b"OK"
    flat = b'{"x":[%b]}' % b",".join([b"[]"] * 500)
    assert document_of(flat) == flat


@pytest.mark.parametrize(
    "result", [b"", b"x", b'{"x":NaN}', b'{"x":01}', b'"\xff"', b"{} {}", b'["\n"]']
)
def test_a_transforms_bytes_must_be_json(result: bytes) -> None:
    with pytest.raises(RecordError, match="bytes that are not JSON"):
        write_document(result)
