"""How much memory a copy takes: values, names and fences, from what real servers were seen to use.

Pure arithmetic over measured.py. Between two measured sizes it interpolates. Beyond them, a value
keeps the ratio to its item, and memory the ratio to its value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from asyncsync.tools.estimate.measured import EXPIRY_BYTES, FENCE_BYTES, KEYS, NAME_BYTES, KeySize


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A table and the copy's settings, as far as money depends on them.

    `item_bytes` are as DynamoDB counts them. `ttl_s` is ASYNCSYNC_TTL_S. `shards` is the number
    of open shards of the stream; None: what the table's size and rate ask for.
    """

    items: int
    item_bytes: float
    writes_per_s: float
    name_bytes: int = NAME_BYTES
    engine: str = "valkey-8.0"
    value: str = "json"
    fence_ttl_s: int = 90_000
    ttl_s: int | None = None
    window_s: int = 0
    batch_size: int = 1_000
    shards: int | None = None
    memory_mb: int = 512

    @property
    def fences(self) -> int:
        """Return the fences at once: one per key that changed within a fence's life.

        At most one an item, and as many as if every write changed another item.
        """
        return min(self.items, math.ceil(self.writes_per_s * self.fence_ttl_s))

    @property
    def values(self) -> int:
        """Return the values at once; with an expiry, those of items that changed within it."""
        if self.ttl_s is None:
            return self.items
        return min(self.items, math.ceil(self.writes_per_s * self.ttl_s))


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of a copy in one engine. `names` are names and what the server keeps for a key."""

    engine: str
    values: int
    names: int
    fences: int

    @property
    def total(self) -> int:
        """Return all bytes."""
        return self.values + self.names + self.fences


def memory_of(work: Workload, engine: str = "") -> Memory:
    """Return what a copy takes in an engine, by default the workload's."""
    engine = engine or work.engine
    size = key_size(KEYS[engine][work.value], work.item_bytes)
    longer = work.name_bytes - NAME_BYTES
    name = size.memory - size.value + longer + (EXPIRY_BYTES[engine] if work.ttl_s else 0)
    return Memory(
        engine,
        round(work.values * size.value),
        round(work.values * name),
        round(work.fences * (FENCE_BYTES[engine] + longer)),
    )


def value_bytes(work: Workload) -> float:
    """Return the mean bytes of a value."""
    return key_size(KEYS[work.engine][work.value], work.item_bytes).value


def key_size(measured: Sequence[KeySize], item_bytes: float) -> KeySize:
    """Return the bytes of a value and of a key's memory for an item of this size."""
    first, last = measured[0], measured[-1]
    if item_bytes <= first.item:
        value = first.value * item_bytes / first.item
        return KeySize(item_bytes, value, value + first.memory - first.value)
    if item_bytes >= last.item:
        larger = item_bytes / last.item
        return KeySize(item_bytes, last.value * larger, last.memory * larger)
    above = next(at for at, size in enumerate(measured) if size.item >= item_bytes)
    low, high = measured[above - 1], measured[above]
    share = (item_bytes - low.item) / (high.item - low.item)
    return KeySize(
        item_bytes,
        low.value + share * (high.value - low.value),
        low.memory + share * (high.memory - low.memory),
    )
