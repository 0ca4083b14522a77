"""Two looks: a difference between table and copy counts only if it outlives the pipeline.

The first look reads a key's value and fence, then its item, consistently. The second does so
again once the pipeline has had its time. Where value and fence are still what they were and do
not say what the item says, no record has come for a change that was there at the first look: a
finding. Where they have changed, the stream is at work on the key, and it is looked at again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Literal, TypeAlias

import anyio

from asyncsync.config import Config
from asyncsync.copy.entries import KEYS_MAX, ItemEntry, ReadItems, entries_of
from asyncsync.copy.equality import same_value
from asyncsync.copy.reader import ABSENT, CopyReader, Snapshot
from asyncsync.mirror import Mirror
from asyncsync.model import Entry, Key

Kind: TypeAlias = Literal["missing", "stale", "orphan"]

# A key whose value or fence changes as often as this is in the stream's hands: not judged.
LOOKS_MAX = 6

# Clocks of this machine, the server and whoever wrote the item may differ so much: around its
# expiry an item may be in the copy or not.
CLOCKS_MS = 60_000


@dataclass(frozen=True, slots=True)
class Difference:
    """One key that differs: how, and what stood in the copy when that was seen."""

    kind: Kind
    key: Key
    name: bytes
    witness: tuple[bytes | None, bytes | None]  # the value's digest, the fence
    reason: str = ""  # why the item cannot be encoded
    expected: bytes | None = field(default=None, repr=False)
    held: bytes | None = field(default=None, repr=False)


def difference_of(
    *, exists: bool, entry: Entry, seen: Snapshot, config: Config, now_ms: int
) -> Kind | None:
    """Say how a copy differs from what the item makes of its key; None where it does not.

    The entry was made for the earliest time that any clock may show.
    """
    if not exists:
        return None if seen.value is None else "orphan"
    if config.mode == "invalidate":
        return None  # whoever reads fills it, in a form that is theirs
    if entry.value is None:  # left out, expired, or it cannot be encoded
        return None if seen.value is None else "stale"
    if seen.value is None:
        may_have_expired = 0 < entry.expires_at_ms <= now_ms + CLOCKS_MS
        is_due = config.mode == "mirror" and config.ttl_s is None and not may_have_expired
        return "missing" if is_due else None
    return None if same_value(entry.value, seen.value, config.value) else "stale"


class Comparer:
    """Compares items with the copy, on a connection of its own."""

    def __init__(self, mirror: Mirror, table: str, copy: CopyReader) -> None:
        self._mirror = mirror
        self._table = table
        self._copy = copy

    async def compare(self, found: Sequence[tuple[Key, bytes | None]]) -> list[Difference]:
        """Compare items that were read with what the copy holds now.

        Raises what reading the copy raises, and ConfigError as encode does.
        """
        items = self._entries(found)
        return self._differences(found, items, await self._snapshots(items))

    async def look(self, keys: Sequence[Key], read: ReadItems) -> list[Difference]:
        """Read the copy, then the items, and compare: this order makes it a witness.

        Raises what compare raises, and what reading the items raises.
        """
        snapshots = await self._snapshots(self._entries([(key, None) for key in keys]))
        images: list[bytes | None] = []
        for first in range(0, len(keys), KEYS_MAX):
            images += await read(keys[first : first + KEYS_MAX])
        found = list(zip(keys, images, strict=True))
        return self._differences(found, self._entries(found), snapshots)

    async def _snapshots(self, items: Sequence[ItemEntry]) -> list[Snapshot]:
        """Read the copy in the items' order; an item without a name has nothing there."""
        seen = iter(await self._copy.read_pairs([i.entry for i in items if i.entry is not None]))
        return [next(seen) if item.entry else ABSENT for item in items]

    def _entries(self, found: Sequence[tuple[Key, bytes | None]]) -> list[ItemEntry]:
        """Make entries for the earliest time that any clock may show."""
        earliest_ms = self._now_ms() - CLOCKS_MS
        return entries_of(found, self._table, self._mirror.rules, earliest_ms)

    def _now_ms(self) -> int:
        return int(self._mirror.wall_clock() * 1_000)

    def _differences(
        self,
        found: Sequence[tuple[Key, bytes | None]],
        items: Sequence[ItemEntry],
        snapshots: Sequence[Snapshot],
    ) -> list[Difference]:
        differences: list[Difference] = []
        for (_, image), item, snapshot in zip(found, items, snapshots, strict=True):
            kind = self._kind(item, snapshot, exists=image is not None)
            if kind is not None:
                differences.append(_difference(kind, item, snapshot))
        return differences

    def _kind(self, item: ItemEntry, snapshot: Snapshot, *, exists: bool) -> Kind | None:
        config, kind = self._mirror.config, None
        if item.entry is not None:
            kind = difference_of(
                exists=exists,
                entry=item.entry,
                seen=snapshot,
                config=config,
                now_ms=self._now_ms(),
            )
        if item.fault and kind is None and config.mode == "mirror":
            return "missing"  # its readers miss, and it is in the table
        return kind


def _difference(kind: Kind, item: ItemEntry, seen: Snapshot) -> Difference:
    entry = item.entry
    if entry is None:
        return Difference(kind, item.key, b"", (None, None), item.fault)
    digest = None if seen.value is None else sha256(seen.value).digest()
    witness = (digest, seen.fence)
    return Difference(kind, item.key, entry.name, witness, item.fault, entry.value, seen.value)


def without_contents(difference: Difference) -> Difference:
    """Forget what was read: many wait for their second look at once."""
    return replace(difference, expected=None, held=None)


@dataclass(frozen=True, slots=True)
class Confirmed:
    """What became of suspects."""

    seen: int  # at the first look
    findings: Sequence[Difference]
    dropped: int  # at the second, or a later one
    unsettled: int  # they changed at every look


async def settle(
    keys: Sequence[Key],
    kinds: Collection[Kind],
    look: Callable[[Sequence[Key]], Awaitable[list[Difference]]],
    wait: Callable[[], Awaitable[None]],
) -> Confirmed:
    """Look at keys, wait, look again, as often as it takes to tell findings from the pipeline."""
    before = {each.key: each for each in await look(keys) if each.kind in kinds}
    first = len(before)
    findings: list[Difference] = []
    dropped = 0
    for _ in range(LOOKS_MAX - 1):
        if not before:
            break
        before = {key: without_contents(each) for key, each in before.items()}
        await wait()
        now = {each.key: each for each in await look([*before]) if each.kind in kinds}
        dropped += len(before) - len(now)
        findings += [each for key, each in now.items() if each.witness == before[key].witness]
        before = {k: each for k, each in now.items() if each.witness != before[k].witness}
    return Confirmed(first, findings, dropped, len(before))


def wait_s(settle_s: float) -> Callable[[], Awaitable[None]]:
    """Give the pipeline its time."""

    async def wait() -> None:
        await anyio.sleep(settle_s)

    return wait
