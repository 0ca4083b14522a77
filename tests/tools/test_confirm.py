"""What is a difference, and which differences are findings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from asyncsync import Config
from asyncsync.copy.reader import Snapshot
from asyncsync.model import Entry, Key, SequenceNumber
from asyncsync.tools.audit.confirm import (
    CHECKS_MAX,
    CLOCKS_MS,
    Confirmed,
    Difference,
    Kind,
    confirm,
    difference_of,
)

NOW_MS = 1_767_225_600_000
VALUE, OTHER = b'{"a":1}', b'{"a":2}'


def entry(value: bytes | None, expires_at_ms: int = 0) -> Entry:
    return Entry(b"a", b"{a}!f", b"", value, expires_at_ms, SequenceNumber(0), "0")


def kind(
    value: bytes | None,
    held: bytes | str | None,
    *,
    exists: bool = True,
    fence: bytes | None = None,
    expires_at_ms: int = 0,
    **settings: Any,
) -> Kind | None:
    if isinstance(held, str):  # the type of a key that holds no value
        snapshot = Snapshot(None, fence, other_type=held)
    else:
        snapshot = Snapshot(held, fence)
    return difference_of(
        exists=exists,
        entry=entry(value, expires_at_ms),
        snapshot=snapshot,
        config=Config(redis_url="redis://unused", **settings),
        now_ms=NOW_MS,
    )


@pytest.mark.parametrize(
    ("value", "held", "exists", "mirror", "refresh", "invalidate"),
    [
        (VALUE, VALUE, True, None, None, None),
        (VALUE, b'{"a": 1.0}', True, None, None, None),
        (VALUE, OTHER, True, "stale", "stale", None),
        (VALUE, None, True, "missing", None, None),
        (None, None, True, None, None, None),  # left out, or expired
        (None, OTHER, True, "stale", "stale", None),
        (None, None, False, None, None, None),
        (None, OTHER, False, "orphan", "orphan", "orphan"),
        (VALUE, "list", True, "mistyped", "mistyped", "mistyped"),
        (None, "list", True, "mistyped", "mistyped", "mistyped"),
        (None, "list", False, None, None, None),  # perhaps another application's
    ],
)
def test_a_difference_is_what_the_mode_makes_of_it(
    value: bytes | None,
    held: bytes | str | None,
    exists: bool,
    mirror: Kind | None,
    refresh: Kind | None,
    invalidate: Kind | None,
) -> None:
    found = [
        kind(value, held, exists=exists, mode=mode) for mode in ("mirror", "refresh", "invalidate")
    ]

    assert found == [mirror, refresh, invalidate]


def test_a_deleted_items_fence_makes_a_key_of_another_type_an_orphan() -> None:
    assert kind(None, "list", exists=False, fence=b"1") == "orphan"


def test_a_value_that_may_have_expired_is_not_missing() -> None:
    assert kind(VALUE, None, ttl_s=60) is None
    assert kind(VALUE, OTHER, ttl_s=60) == "stale"
    assert kind(VALUE, None, ttl_attribute="Until", expires_at_ms=NOW_MS + CLOCKS_MS) is None
    assert (
        kind(VALUE, None, ttl_attribute="Until", expires_at_ms=NOW_MS + CLOCKS_MS + 1) == "missing"
    )
    assert kind(VALUE, VALUE, ttl_attribute="Until", expires_at_ms=NOW_MS - 1) is None


# --- two looks --------------------------------------------------------------------------------


def key(number: int) -> Key:
    return (("Number", "N", str(number)),)


def difference(number: int, fence: bytes, kind: Kind = "stale") -> Difference:
    return Difference(kind, key(number), b"%d" % number, (b"digest", fence))


class Script:
    """The result of each check, and a record of the calls."""

    def __init__(self, *looks: Sequence[Difference]) -> None:
        self._looks = iter(looks)
        self.asked: list[Any] = []

    async def look(self, keys: Sequence[Key]) -> list[Difference]:
        self.asked.append([*keys])
        return [each for each in next(self._looks, ()) if each.key in keys]

    async def wait(self) -> None:
        self.asked.append("waits")

    async def settle(self, *numbers: int, kinds: Sequence[Kind] = ("stale",)) -> Confirmed:
        return await confirm([key(each) for each in numbers], kinds, self.look, self.wait)


async def test_what_differs_and_has_not_changed_is_a_finding() -> None:
    script = Script([difference(1, b"f")], [difference(1, b"f", "missing")])

    settled = await script.settle(1, kinds=("stale", "missing"))

    assert settled == Confirmed(1, [difference(1, b"f", "missing")], 0, 0)
    assert script.asked == [[key(1)], "waits", [key(1)]]


async def test_what_is_the_same_at_the_first_look_was_only_read_too_soon() -> None:
    script = Script([difference(2, b"f")])

    assert await script.settle(1, 2) == Confirmed(1, [], 1, 0)
    assert script.asked == [[key(1), key(2)], "waits", [key(2)]]
    assert await Script([]).settle(1) == Confirmed(0, [], 0, 0)


async def test_what_has_changed_is_looked_at_again_and_the_rest_is_not() -> None:
    script = Script(
        [difference(1, b"f1"), difference(2, b"f"), difference(3, b"f1")],
        [difference(1, b"f2"), difference(2, b"f"), difference(3, b"f2")],
        [difference(3, b"f2")],
    )

    settled = await script.settle(1, 2, 3)

    assert settled == Confirmed(3, [difference(2, b"f"), difference(3, b"f2")], 1, 0)
    assert script.asked[3:] == ["waits", [key(1), key(3)]]


async def test_what_changes_at_every_look_is_not_judged() -> None:
    script = Script(*([difference(1, b"%d" % at)] for at in range(100)))

    assert await script.settle(1) == Confirmed(1, [], 0, 1)
    assert script.asked.count([key(1)]) == CHECKS_MAX


async def test_what_is_not_asked_for_is_no_difference() -> None:
    script = Script([difference(1, b"f", "orphan")])

    assert await script.settle(1) == Confirmed(0, [], 0, 0)


async def test_a_fence_that_came_back_with_another_value_is_a_change() -> None:
    changed = Difference("stale", key(1), b"1", (b"another digest", b"f"))
    script = Script([difference(1, b"f")], [changed], [changed])

    assert await script.settle(1) == Confirmed(1, [changed], 0, 0)
