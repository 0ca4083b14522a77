"""The demo's changes to its table, all from one seed: hot items, removals, odd values.

The attribute Version of an item counts its changes, removals included, so that a reader can
tell an older copy from a newer one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, TypeAlias

SdkItem: TypeAlias = dict[str, dict[str, Any]]  # as the SDK takes it: B is bytes

# An item's share of the changes is proportional to 1 / rank ** this: a few items are hot.
_HEAT = 0.7
_REMOVED_SHARE = 0.15

# Each value is legal in DynamoDB and breaks some handler: a number with 101 digits, digits that
# a float loses, bytes that are not UTF-8, sets without an order, an empty string.
_ODD: tuple[Callable[[Random], dict[str, Any]], ...] = (
    lambda _: {"N": "1" + "0" * 100},  # 1E100 as DynamoDB writes it
    lambda _: {"N": "-0." + "0" * 129 + "1"},  # the smallest, 1E-130
    lambda chance: {"N": str(chance.randrange(10**37, 10**38))},
    lambda chance: {"B": chance.randbytes(20)},
    lambda _: {"B": b"\x00\xff\xfe"},
    lambda _: {"S": ""},
    lambda _: {"S": 'Zoë 東京 \u2028 \u0000 \U0001f3b2 "quoted" a:b{c}%'},
    lambda chance: {"SS": chance.sample(["b", "a", "ü", "é:", "z"], 3)},
    lambda chance: {"NS": chance.sample(["10", "9", "-1.5", "123456789012345678901"], 3)},
    lambda chance: {"BS": [b"\xff", chance.randbytes(4)]},
    lambda _: {"NULL": True},
    lambda chance: {"BOOL": chance.random() < 0.5},
    lambda _: {"L": [{"N": "1"}, {"S": "two"}, {"L": []}, {"M": {}}, {"B": b"\x03"}]},
    lambda _: {"M": {" ": {"S": "a space"}, "deep": {"M": {"er": {"L": [{"NULL": True}]}}}}},
)


@dataclass(frozen=True, slots=True)
class ItemChange:
    """One write to the table: an item's next version; an item of None removes it."""

    number: int
    version: int
    item: SdkItem | None


def make_changes(items: int, count: int, seed: int) -> list[ItemChange]:
    """Return the changes of a run: insert each item once, then change hot items most."""
    chance = Random(seed)
    numbers = chance.sample(range(1, items + 1), items)
    weights = [1 / rank**_HEAT for rank in range(1, items + 1)]
    order = numbers + chance.choices(numbers, weights, k=max(0, count - items))
    versions = dict.fromkeys(numbers, 0)
    present: set[int] = set()
    changes = []
    for number in order[:count]:
        versions[number] += 1
        is_removed = number in present and chance.random() < _REMOVED_SHARE
        if is_removed:
            present.remove(number)
        else:
            present.add(number)
        item = None if is_removed else _item(number, versions[number], chance)
        changes.append(ItemChange(number, versions[number], item))
    return changes


def _item(number: int, version: int, chance: Random) -> SdkItem:
    return {
        "Number": {"N": str(number)},
        "Version": {"N": str(version)},
        "Name": {"S": f"player {number}"},
        "Points": {"N": str(chance.randrange(10**6))},
        "Odd": chance.choice(_ODD)(chance),
    }
