"""Fill: what the table holds, written only where the copy has neither a value nor a fence.

A filled value has no version, so a record of the stream, whenever it comes, wins. What a fill
cannot know is a deletion whose fence has ended: nothing may be filled later than the fence's
life less one hour after it was read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from asyncsync.config import Config
from asyncsync.model import Entry, Outcome
from asyncsync.plan import plan
from asyncsync.store import Store

SCRIPT = Path(__file__).with_name("fill.lua").read_bytes()

# An hour for clocks that differ and for what a mapping lags behind.
RESERVE_S = 3_600


def fill_within_s(config: Config) -> float:
    """Return how long after it was read an item may be filled."""
    return config.fence_ttl_s - RESERVE_S


async def fill(
    store: Store, entries: Sequence[Entry], config: Config, end_s: float
) -> Sequence[Outcome]:
    """Fill what is absent, before end_s on the store's clock, and say what became of each.

    APPLIED is filled, FENCED has a value already, STANDS has a fence and no value: repair it.
    The store was made for this module's SCRIPT. Raises StoreRefused.
    """
    assert all(entry.value is not None for entry in entries), "a fill removes nothing"
    written = await store.apply(plan(entries, config), len(entries), end_s)
    return written.outcomes
