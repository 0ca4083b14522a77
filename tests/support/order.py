"""Random histories of a few items, and readers that know every state a key may go through.

Each history is shuffled, duplicated, replayed and split into calls. After every call a second
client reads every key: `first_broken` names the first history in which a key moved back.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import redis

from asyncsync import Config, Mirror
from tests.support.events import SEED, Record, event, failed, record
from tests.support.formats import FORMATS, read

# Without the fence, or with versions compared as text, one of so many histories breaks.
SEEN_BROKEN_WITHIN = 20


@dataclass(frozen=True)
class History:
    """The changes of a few items, and the calls that deliver them."""

    changes: dict[int, list[Record]]  # item -> its records in order
    deliveries: list[list[Record]]


def history(chance: random.Random) -> History:
    """Make changes whose numbers cross a power of ten, so that their order as text is wrong."""
    items = range(1, chance.randint(2, 4))
    number = 10 ** chance.choice([3, 21, 22]) - chance.randint(1, 8)
    changes: dict[int, list[Record]] = {at: [] for at in items}
    everything = []
    for _ in range(chance.randint(4, 16)):
        number += chance.choice([1, 1, 2, 1_000])
        chosen = chance.choice(list(items))
        made = record(
            chosen,
            number,
            image=image(len(changes[chosen])),
            removed=chance.random() < 0.3,
        )
        changes[chosen].append(made)
        everything.append(made)
    return History(changes, deliveries(everything, chance))


def deliveries(records: Sequence[Record], chance: random.Random) -> list[list[Record]]:
    """Deliver every record at least once, in pieces, out of order, some of them again."""
    left = [*records, *chance.choices(records, k=chance.randint(0, len(records)))]
    if chance.random() < 0.7:
        chance.shuffle(left)
    pieces = []
    while left:
        size = chance.randint(1, 6)
        pieces.append(left[:size])
        left = left[size:]
    pieces += chance.choices(
        pieces, k=chance.randint(0, 3)
    )  # delivered again after they were acknowledged
    return pieces


class Watcher:
    """A reader of one item that knows its states in order."""

    def __init__(self, changes: list[Record]) -> None:
        self.states = [
            None if each["eventName"] == "REMOVE" else at for at, each in enumerate(changes)
        ]
        self.reached = -1

    def moved_back(self, seen: int | None) -> bool:
        """Whether this version is older than one seen before."""
        if seen is None and self.reached < 0:
            return False
        later = range(max(self.reached, 0), len(self.states))
        reached = next((at for at in later if self.states[at] == seen), None)
        if reached is None:
            return True
        self.reached = reached
        return False


def first_broken(
    url: str, client: redis.Redis | redis.RedisCluster, count: int, **settings: Any
) -> str | None:
    """Run histories until one breaks order or does not end as the table; return which and how."""
    chance = random.Random(SEED)
    value_format = settings.get("value", "json")
    mirror = Mirror(Config(redis_url=url, metrics="off", **settings))
    try:
        for at in range(count):
            made = history(chance)
            client.flushdb()
            watchers = {number: Watcher(changes) for number, changes in made.changes.items()}
            for batch in made.deliveries:
                assert failed(mirror.lambda_handler(event(batch))) == []
                for number, watcher in watchers.items():
                    if watcher.moved_back(_version(client, number, value_format)):
                        return f"history {at} of seed {SEED}: item {number} moved back"
            for number, watcher in watchers.items():
                table = watcher.states[-1] if watcher.states else None
                if _version(client, number, value_format) != table:
                    return f"history {at} of seed {SEED}: item {number} is not the table's"
    finally:
        mirror.close()
    return None


def _version(
    client: redis.Redis | redis.RedisCluster, number: int, value_format: str
) -> int | None:
    """Read the version that a value shows; a hash with fields of two images shows none."""
    if value_format in FORMATS:
        fields = read(client, value_format, f"Players:{number}")
        if fields is None:
            return None
        version = int(fields["v"])
        return version if fields.keys() == image(version).keys() else -1
    value = client.get(f"Players:{number}")
    assert value is None or isinstance(value, bytes)
    return None if value is None else int(json.loads(value)["v"])


def image(version: int) -> dict[str, dict[str, str]]:
    """Make the image of a version; neighbours have other attributes."""
    return {"v": {"N": str(version)}, f"only{version % 3}": {"S": "x" * version}}
