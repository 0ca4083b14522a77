"""Fill: write an item that was read from the table only where there is no value and no fence.

A filled value has no version, so any record of the stream wins, whether it arrives before or
after. A fill cannot see a deletion whose fence has expired: it must run within the fence's
lifetime less one hour after the item was read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from asyncsync.config import Config
from asyncsync.model import Entry, Outcome
from asyncsync.plan import plan
from asyncsync.store import Store

SCRIPT = Path(__file__).with_name("fill.lua").read_bytes()

# An hour for clocks that differ and for the mapping's lag.
RESERVE_S = 3_600


def fill_within_s(config: Config) -> float:
    """Return for how many seconds after it was read an item may be filled."""
    return config.fence_ttl_s - RESERVE_S


async def fill(
    store: Store, entries: Sequence[Entry], config: Config, end_s: float
) -> Sequence[Outcome]:
    """Fill absent keys before end_s on the store's clock; return an outcome for each entry.

    APPLIED: filled. FENCED: the key has a value. NO_VALUE: it has a fence and no value, or is of
    another type than a value, so it needs a repair. The store must run this module's SCRIPT.
    Raises StoreRefused.
    """
    assert all(entry.value is not None for entry in entries), "a fill removes nothing"
    written = await store.apply(plan(entries, config), len(entries), end_s)
    return written.outcomes
