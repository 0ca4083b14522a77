"""The demo's changes to its table, all from one seed: hot items, removals, odd values.

Every item carries a Version that counts its changes, removals included, so that a reader can
tell an older copy from a newer one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, TypeAlias

SdkItem: TypeAlias = dict[str, dict[str, Any]]  # as the SDK takes it: B are bytes

# One item's share of the changes falls with its rank as 1 / rank ** this: a few are hot.
_HEAT = 0.7
_REMOVED_SHARE = 0.15

# Each legal in DynamoDB, and each breaks some handler: a number past 38 digits of precision
# as text, digits a float loses, bytes that are no UTF-8, sets without an order, emptiness.
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
    """One write to the table: an item's next version; item None removes it."""

    number: int
    version: int
    item: SdkItem | None


def make_changes(items: int, count: int, seed: int) -> list[ItemChange]:
    """Make the changes of a run: each item is inserted once, then the hot ones change most."""
    chance = Random(seed)
    numbers = chance.sample(range(1, items + 1), items)
    weights = [1 / rank**_HEAT for rank in range(1, items + 1)]
    order = numbers + chance.choices(numbers, weights, k=max(0, count - items))
    versions = dict.fromkeys(numbers, 0)
    present: set[int] = set()
    made = []
    for number in order[:count]:
        versions[number] += 1
        removed = number in present and chance.random() < _REMOVED_SHARE
        if removed:
            present.remove(number)
        else:
            present.add(number)
        item = None if removed else _item(number, versions[number], chance)
        made.append(ItemChange(number, versions[number], item))
    return made


def _item(number: int, version: int, chance: Random) -> SdkItem:
    return {
        "Number": {"N": str(number)},
        "Version": {"N": str(version)},
        "Name": {"S": f"player {number}"},
        "Points": {"N": str(chance.randrange(10**6))},
        "Odd": chance.choice(_ODD)(chance),
    }
