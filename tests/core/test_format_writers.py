"""What a transform returns, as a value of each format that takes one."""

from __future__ import annotations

from typing import Any

import pytest

from asyncsync.config import Config
from asyncsync.encode import EncodeRules, value_encoder
from asyncsync.errors import RecordError
from asyncsync.model import Value

IMAGE = b'{"Number":{"N":"7"},"Name":{"S":"Ada"}}'


def written(value_format: Any, result: Any) -> Value | None:
    """Return the value that a mirror of this format writes for what its transform returns."""
    config = Config(redis_url="redis://h", value=value_format)
    encode_value = value_encoder(EncodeRules(config, None, lambda _: result), 0, ("Number",))
    assert encode_value is not None
    return encode_value(IMAGE)[0]


@pytest.mark.parametrize(
    ("value_format", "result", "value"),
    [
        ("json", {"a": 1}, b'{"a":1}'),
        ("json", b"as it is", b"as it is"),
        ("hash", {"b": "x", "a": 1}, (b"b", b"x", b"a", b"1")),
        ("hash", {"a": b"\xff\x00"}, (b"a", b"\xff\x00")),
        ("redis-json", {"a": 1}, b'{"a":1}'),
        ("redis-json", b'{"a":1}', b'{"a":1}'),
        ("redis-json", {"a": 2**64}, b'{"a":"18446744073709551616"}'),
        ("json", None, None),
        ("hash", None, None),
        ("redis-json", None, None),
    ],
)
def test_a_transforms_result_becomes_a_value(
    value_format: str, result: Any, value: Value | None
) -> None:
    assert written(value_format, result) == value


@pytest.mark.parametrize(
    ("value_format", "result"),
    [("hash", {}), ("hash", b"bytes"), ("redis-json", b"no JSON"), ("redis-json", b"\xff")],
)
def test_what_the_format_cannot_hold_is_a_reject(value_format: str, result: Any) -> None:
    with pytest.raises(RecordError):
        written(value_format, result)
