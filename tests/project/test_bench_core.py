"""The benchmark compares like with like, and says so where it does not."""

from __future__ import annotations

import random
from typing import cast

import orjson
import pytest
from msgspec.structs import replace

from asyncsync import Config
from asyncsync.encode import EncodeRules
from benchmarks import bench_core
from benchmarks.bench_core import TARGET_VIEW, differing, timed_rounds, usual
from benchmarks.events import Image, batch, event_of, image, modified
from benchmarks.report.statistics import summarize

RULES = {
    "json": EncodeRules(Config(redis_url="redis://unused", value="json")),
    "dynamodb-json": EncodeRules(Config(redis_url="redis://unused", value="dynamodb-json")),
}


def images(count: int = 20) -> list[Image]:
    chance = random.Random(1)
    return [image(number, chance) for number in range(count)]


def event(images: list[Image], view_type: str = TARGET_VIEW) -> bytes:
    return event_of(modified(images), random.Random(1), view_type)


def test_images_hold_every_attribute_type_and_are_about_a_kilobyte() -> None:
    text = str(images(1)[0])
    given = event(images(), "NEW_IMAGE")

    for tag in ("S", "N", "B", "BOOL", "NULL", "L", "M", "SS", "NS", "BS"):
        assert f"'{tag}':" in text
    assert 1_000 < len(given) / 20 < 1_700  # image and what surrounds it


def test_one_seed_gives_one_event() -> None:
    assert event(images()) == event(images())
    assert batch(10, "hot", "NEW_IMAGE", 1) == batch(10, "hot", "NEW_IMAGE", 1)
    assert batch(10, "hot", "NEW_IMAGE", 1) != batch(10, "hot", "NEW_IMAGE", 2)


def test_a_batch_says_what_a_copy_should_hold_after_it() -> None:
    given = batch(1_000, "hot", "NEW_IMAGE", 1)
    left: dict[str, Image | None] = {}
    for each in orjson.loads(given.event)["Records"]:
        change = each["dynamodb"]
        left[change["Keys"]["Number"]["N"]] = change.get("NewImage")

    assert given.left == left
    assert len(left) < 200 < given.records  # hot keys
    assert None in left.values()


@pytest.mark.parametrize("view_type", bench_core.VIEWS)
def test_equal_values_are_found_equal(view_type: str) -> None:
    given = event(images(), view_type)

    assert differing(given, images(), RULES) == []
    assert (b'"OldImage"' in given) == (view_type == "NEW_AND_OLD_IMAGES")


def test_a_value_that_differs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    given = event(images())
    right = usual(given)
    monkeypatch.setattr(bench_core, "usual", lambda event: [*right[:-1], '{"Number": -1}'])
    changed = images()
    changed[3]["Name"] = {"S": "another"}

    assert [line.split(":")[0] for line in differing(given, changed, RULES)] == [
        "dynamodb-json, record 3",
        "json, record 19",
    ]


def test_a_record_that_is_not_planned_is_named() -> None:
    given = event(images())
    invalid = dict(RULES)
    invalid["json"] = replace(
        RULES["json"], transform=lambda item: cast("dict[str, object]", 1 / 0)
    )

    assert "json: the plan does not hold every record once" in differing(given, images(), invalid)


def test_every_round_times_every_contestant_once() -> None:
    order: list[str] = []
    contestants = {name: (lambda name=name: order.append(name)) for name in "abc"}

    times_ms = timed_rounds(contestants, 4, random.Random(1))

    assert [sorted(order[at : at + 3]) for at in range(0, 12, 3)] == [list("abc")] * 4
    assert len({tuple(order[at : at + 3]) for at in range(0, 12, 3)}) > 1
    assert {name: len(taken) for name, taken in times_ms.items()} == dict.fromkeys("abc", 4)


def test_a_spread_is_median_and_outer_tenths() -> None:
    found = summarize([float(n) for n in range(11)])

    assert (found.p10, found.median, found.p90) == (1.0, 5.0, 9.0)
