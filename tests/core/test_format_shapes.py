"""A known shape gives the hash or the document that the long way gives, or nothing."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asyncsync.documents import document_of, document_shapes
from asyncsync.errors import RecordError
from asyncsync.formats import FORMATS
from asyncsync.hashes import encode_hash, hash_shapes
from asyncsync.limits import SHAPE_VALUES_MAX, SHAPES_SAMPLE_EVERY
from asyncsync.shapes import Shapes
from asyncsync.values import parse_image, to_json
from tests.support.scalars import IMAGES, Image, alike, plainly_escaped

MAKERS = {"hash": hash_shapes, "redis-json": document_shapes}
MAP = {"a": {"M": {"b": {"S": "x"}, "a": {"NS": ["2", "10"]}}}}


def taught(value_format: str, *images: Image) -> Shapes:
    """Return shapes of a format that have learned each image's."""
    shapes = MAKERS[value_format]()
    for image in images:
        for _ in range(2 * SHAPES_SAMPLE_EVERY):
            shapes.miss(image)
    return shapes


def long_way(value_format: str, raw: bytes) -> Any:
    try:
        if value_format == "hash":
            return encode_hash(raw)
        return document_of(to_json(parse_image(raw)))
    except RecordError:
        return None


@pytest.mark.parametrize("value_format", MAKERS)
@settings(deadline=None)
@given(data=st.data(), image=IMAGES)
@example(data=None, image=MAP)
@example(data=None, image={"a": {"N": "5.2E+33"}, "b": {"NS": ["1", "12345678901234567890"]}})
def test_an_image_of_a_known_shape_gets_what_the_long_way_writes(
    data: Any, image: Image, value_format: str
) -> None:
    shapes = taught(value_format, image)
    others = [] if data is None else [data.draw(alike(image)) for _ in range(2)]

    for each in (image, *others):
        raw = orjson.dumps(each)
        expected = long_way(value_format, raw)
        value = shapes.json_of(raw)
        assert value == expected if plainly_escaped(raw) else value in (None, expected)


@pytest.mark.parametrize("value_format", MAKERS)
@settings(deadline=None)
@given(image=IMAGES, other=IMAGES, data=st.data())
def test_another_shape_or_damaged_text_gets_the_same_or_nothing(
    image: Image, other: Image, data: st.DataObject, value_format: str
) -> None:
    shapes = taught(value_format, image)
    raw = orjson.dumps(image)
    at = data.draw(st.integers(0, len(raw)))
    damaged = (
        raw[:at] + data.draw(st.binary(max_size=2)) + raw[at + data.draw(st.integers(0, 2)) :]
    )

    for text in (orjson.dumps(other), damaged, json.dumps(image).encode()):
        assert shapes.json_of(text) in (None, long_way(value_format, text))


def test_a_maps_names_are_in_order_however_they_came() -> None:
    turned = {"a": {"M": dict(reversed(MAP["a"]["M"].items()))}}

    for image in (MAP, turned):
        shapes = taught("hash", image)
        assert shapes.json_of(orjson.dumps(image)) == (b"a", b'{"a":[2,10],"b":"x"}')


def test_an_image_that_is_too_large_has_no_shape() -> None:
    image = {f"a{at}": {"S": "x"} for at in range(SHAPE_VALUES_MAX + 2)}

    assert taught("hash", image).json_of(orjson.dumps(image)) is None
    nulls = {"a": {"S": "x", "N": None}}
    assert taught("hash", nulls).json_of(orjson.dumps(nulls)) is None


@pytest.mark.parametrize("value_format", MAKERS)
def test_a_format_keeps_its_shapes_from_batch_to_batch(value_format: str) -> None:
    shapes = Shapes()
    raw = orjson.dumps(MAP)

    for _ in range(2 * SHAPES_SAMPLE_EVERY):
        FORMATS[value_format](shapes)(raw)

    assert shapes.others is not None
    assert shapes.others.json_of(raw) == long_way(value_format, raw)
