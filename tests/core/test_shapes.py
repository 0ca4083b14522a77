"""A known shape gives the bytes that to_json gives, or nothing."""

from __future__ import annotations

import json
import re
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asyncsync.errors import RecordError
from asyncsync.limits import SHAPE_VALUES_MAX, SHAPES_MAX, SHAPES_SAMPLE_EVERY
from asyncsync.shapes import Shapes, shape_of
from asyncsync.values import parse_image, to_json
from tests.support.scalars import IMAGES, Image, alike, plainly_escaped


def taught(*images: Image) -> Shapes:
    """Return shapes that have learned each image's shape."""
    shapes = Shapes()
    for image in images:
        for _ in range(2 * SHAPES_SAMPLE_EVERY):
            shapes.miss(image)
    return shapes


def long_way(raw: bytes) -> bytes | None:
    try:
        return to_json(parse_image(raw))
    except RecordError:
        return None


@settings(deadline=None)
@given(st.data(), IMAGES)
def test_an_image_of_a_known_shape_gets_what_the_long_way_writes(
    data: st.DataObject, image: Image
) -> None:
    shapes = taught(image)

    for each in (image, data.draw(alike(image)), data.draw(alike(image))):
        raw = orjson.dumps(each)
        value = shapes.json_of(raw)
        assert value == long_way(raw) if plainly_escaped(raw) else value in (None, long_way(raw))


@settings(deadline=None)
@given(IMAGES, IMAGES)
@example({"a": {"S": "1"}}, {"a": {"N": "1"}})
@example({"a": {"L": [{"S": "1"}]}}, {"a": {"SS": ["1"]}})
def test_an_image_of_any_shape_gets_the_same_or_nothing(image: Image, other: Image) -> None:
    raw = orjson.dumps(other)

    assert taught(image).json_of(raw) in (None, long_way(raw))


@settings(deadline=None)
@given(IMAGES, st.data())
def test_damaged_text_gets_the_same_or_nothing(image: Image, data: st.DataObject) -> None:
    raw = orjson.dumps(image)
    at = data.draw(st.integers(0, len(raw)))
    size = data.draw(st.integers(0, 2))
    damaged = raw[:at] + data.draw(st.binary(max_size=2)) + raw[at + size :]

    assert taught(image).json_of(damaged) in (None, long_way(damaged))


@settings(deadline=None)
@given(IMAGES)
def test_another_spelling_of_the_same_json_gets_the_same_or_nothing(image: Image) -> None:
    shapes = taught(image)

    for raw in (json.dumps(image).encode(), json.dumps(image, indent=1).encode()):
        assert shapes.json_of(raw) in (None, long_way(raw))


@pytest.mark.parametrize(
    ("attribute", "wrong"),
    [
        ({"N": "1"}, rb'{"N":"01"}'),
        ({"N": "1"}, rb'{"N":"1E1000"}'),
        ({"N": "1"}, rb'{"N":1}'),
        ({"N": "1"}, rb'{"N":""}'),
        ({"N": "1"}, b'{"N":"\xd9\xa1"}'),
        ({"S": "a"}, rb'{"X":"a"}'),
        ({"S": "a"}, rb'{"S":5}'),
        ({"S": "a"}, rb'{"S":null}'),
        ({"S": "a"}, b'{"S":"\xff"}'),
        ({"S": "a"}, b'{"S":"\xed\xa0\x80"}'),
        ({"S": "a"}, rb'{"S":"\ud800"}'),
        ({"S": "a"}, rb'{"S":"\x"}'),
        ({"S": "a"}, b'{"S":"\n"}'),
        ({"B": "AA=="}, rb'{"B":"A"}'),
        ({"B": "AA=="}, rb'{"B":"AA="}'),
        ({"B": "AA=="}, rb'{"B":"AA==AA=="}'),
        ({"B": "AA=="}, rb'{"B":"A-=="}'),
        ({"BOOL": True}, rb'{"BOOL":"true"}'),
        ({"NULL": True}, rb'{"NULL":false}'),
        ({"SS": ["a"]}, rb'{"SS":["a",5]}'),
        ({"SS": ["a"]}, rb'{"SS":["a",]}'),
        ({"NS": ["1"]}, rb'{"NS":["1","x"]}'),
        ({"BS": ["AA=="]}, rb'{"BS":["AA==","A"]}'),
        ({"L": []}, rb'{"L":{}}'),
        ({"M": {}}, rb'{"M":[]}'),
    ],
)
def test_what_the_long_way_rejects_never_matches(attribute: Any, wrong: bytes) -> None:
    raw = b'{"a":%b}' % wrong

    assert long_way(raw) is None
    assert taught({"a": attribute}).json_of(raw) is None


def test_an_empty_set_goes_the_long_way() -> None:
    assert taught({"a": {"SS": ["x"]}}).json_of(b'{"a":{"SS":[]}}') is None


# --- what is learned, and when ------------------------------------------------------------------


def numbered(number: int) -> Image:
    return {f"a{number}": {"S": "x"}}


def is_known(shapes: Shapes, image: Image) -> bool:
    return shapes.json_of(orjson.dumps(image)) is not None


def test_a_shape_is_learned_with_its_second_sample_and_not_before() -> None:
    shapes = Shapes()
    for _ in range(2 * SHAPES_SAMPLE_EVERY - 1):
        shapes.miss(numbered(1))
    assert not is_known(shapes, numbered(1))

    shapes.miss(numbered(1))

    assert is_known(shapes, numbered(1))


def test_images_of_ever_other_shapes_are_never_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[bytes] = []
    monkeypatch.setattr(re, "compile", compiled.append)
    shapes = Shapes()

    for number in range(10 * SHAPES_SAMPLE_EVERY):
        shapes.miss(numbered(number))

    assert compiled == []


def test_the_shape_that_was_not_met_for_longest_is_forgotten() -> None:
    shapes = taught(*map(numbered, range(SHAPES_MAX)))
    assert is_known(shapes, numbered(0))  # met again, so 1 is now the oldest

    for _ in range(2 * SHAPES_SAMPLE_EVERY):
        shapes.miss(numbered(SHAPES_MAX))

    known = [number for number in range(SHAPES_MAX + 1) if is_known(shapes, numbered(number))]
    assert known == [0, *range(2, SHAPES_MAX + 1)]


@pytest.mark.parametrize("extra", [0, 1])
def test_a_shape_has_at_most_so_many_values_nested_ones_counted(extra: int) -> None:
    image = {"l": {"L": [{"M": {"m": {"NULL": True}}}] * 31}, "s": {"S": "x"}}
    more = {str(at): {"S": "x"} for at in range(SHAPE_VALUES_MAX - 64 + extra)}

    assert (shape_of({**image, **more}) is None) == bool(extra)
    assert is_known(taught({**image, **more}), {**image, **more}) != bool(extra)


def test_an_image_with_other_tags_as_null_is_no_shape() -> None:
    assert shape_of({"a": {"S": "x", "N": None}}) is None
