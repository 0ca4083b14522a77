"""Fields: which attributes go into the copy, in every format; the item's key always does."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from asyncsync import Config, Mirror
from asyncsync.collapse import collapse
from asyncsync.copy.entries import entries_of
from asyncsync.decode import decode
from asyncsync.encode import EncodeRules, encode
from asyncsync.errors import ConfigError, RecordError
from asyncsync.model import Encoded
from asyncsync.values import only
from tests.support.events import FIRST, TABLE, Record, event, record

NOW_MS = 1_767_225_600_000
IMAGE = {
    "Score": {"N": "1.50"},
    "Secret": {"S": "x"},
    "Number": {"N": "7"},
    "Name": {"S": "ada"},
    "Ends": {"N": str(NOW_MS // 1_000 + 60)},
}


def rules(**options: Any) -> EncodeRules:
    return EncodeRules(Config(redis_url="redis://unused", **options))


def encoded(*records: Record, **options: Any) -> Encoded:
    decoded = decode(event(records))
    assert decoded.stream is not None
    latest = collapse(decoded.records).latest
    return encode(latest, decoded.stream, rules(**options), NOW_MS).finished()


def of(image: Any) -> Record:
    return record(7, FIRST, image=image)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("json", b'{"Score":1.50,"Number":7,"Name":"ada"}'),
        ("redis-json", b'{"Score":1.50,"Number":7,"Name":"ada"}'),
        ("hash", (b"Score", b"1.50", b"Number", b"7", b"Name", b"ada")),
        (
            "dynamodb-json",
            b'{"Score":{"N":"1.50"},"Number":{"N":"7"},"Name":{"S":"ada"}}',
        ),
    ],
)
def test_a_value_has_these_attributes_and_the_items_key(value: str, expected: object) -> None:
    fields = "Name, Score,Nothing"
    (entry,) = encoded(of(IMAGE), value=value, fields=fields).entries
    assert entry.value == expected

    key = (("Number", "N", "7"),)
    (item,) = entries_of(
        [(key, orjson.dumps(IMAGE))], TABLE, rules(value=value, fields=fields), NOW_MS
    )
    assert item.entry is not None
    assert item.entry.value == expected
    mirror = Mirror(Config(redis_url="redis://unused", value=value, fields=fields))  # type: ignore[arg-type]
    made = mirror.redis_value(IMAGE, key=["Number"])
    if isinstance(expected, tuple):
        expected = dict(zip(expected[::2], expected[1::2], strict=True))
    assert made == expected


def test_an_expiry_is_read_from_an_attribute_that_is_not_copied() -> None:
    (entry,) = encoded(of(IMAGE), fields="Name", ttl_attribute="Ends").entries

    assert entry.value == b'{"Number":7,"Name":"ada"}'
    assert entry.expires_at_ms == NOW_MS + 60_000


def test_an_attribute_that_is_not_copied_cannot_fail_its_record() -> None:
    image = {**IMAGE, "Odd": {"Q": "no such type"}}

    assert not encoded(of(image), fields="Name").rejects
    assert encoded(of(image), fields="Name,Odd").rejects[0].path == ("Odd",)


def test_a_damaged_records_key_does_not_choose_the_others_attributes() -> None:
    damaged = record(1, FIRST, image=IMAGE, Keys={"Secret": {"S": "x"}})
    records = [damaged, *(record(at, FIRST + at, image=IMAGE) for at in (2, 3))]

    batch = encoded(*records, fields="Name", key="{@key}")

    assert [entry.value for entry in batch.entries] == [
        b'{"Number":7,"Name":"ada"}',
        b'{"Number":7,"Name":"ada"}',
    ]


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (b"", "the record has no NewImage"),
        (b"[1]", "NewImage is not a map of attributes"),
        (b"{", "NewImage is not JSON"),
        (b'{"\xff":{"S":"x"}}', "NewImage is not JSON"),
    ],
)
def test_what_is_no_image_has_no_attributes(image: bytes, reason: str) -> None:
    with pytest.raises(RecordError, match=reason):
        only(image, {"Name"})


def test_names_of_attributes_may_be_any_text() -> None:
    names = {'a"b', "é", "x:y", ""}
    image = orjson.dumps({name: {"S": name} for name in [*names, "other"]})

    assert orjson.loads(only(image, names)) == {name: {"S": name} for name in names}


def test_fields_and_a_transform_are_refused_together() -> None:
    with pytest.raises(ConfigError, match="fields has no use with a transform"):
        Mirror(Config(redis_url="redis://unused", fields="Name"), transform=lambda item: item)


def test_an_items_key_must_be_named_where_only_an_item_is_given() -> None:
    mirror = Mirror(Config(redis_url="redis://unused", fields="Name"))

    with pytest.raises(TypeError, match="name its attributes: call redis_value"):
        mirror.redis_value(IMAGE)
