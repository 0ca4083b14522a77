"""A difference is a finding only if it is still there after the stream has had time to catch up.

The first check reads a key's value and fence, then its item, consistently. The second check does
the same once the wait is over. If value and fence are unchanged and still do not match the item,
no record has come for a change that the first check saw: a finding. If they have changed, the
stream is at work on the key, and it is checked again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Literal, TypeAlias

import anyio

from asyncsync.config import Config
from asyncsync.copy.entries import KEYS_MAX, ItemEntry, ReadItems, entries_of
from asyncsync.copy.equality import is_item, same_value
from asyncsync.copy.reader import ABSENT, CopyReader, Snapshot
from asyncsync.mirror import Mirror
from asyncsync.model import Entry, Key

Kind: TypeAlias = Literal["missing", "stale", "mistyped", "orphan"]

# A key whose value or fence changes between this many checks is left to the stream: not judged.
CHECKS_MAX = 6

# This machine's clock, the server's and the item's writer's may differ by so much: near its
# expiry an item may be in the copy or not.
CLOCKS_MS = 60_000


@dataclass(frozen=True, slots=True)
class Difference:
    """One key that differs: how, and what the copy held when that was seen."""

    kind: Kind
    key: Key
    name: bytes  # the Redis key; empty if none can be made
    snapshot: tuple[bytes | None, bytes | None]  # the value's digest, or the type; the fence
    reason: str = ""  # why the item cannot be encoded, or what the key holds
    expected: bytes | None = field(default=None, repr=False)
    actual: bytes | None = field(default=None, repr=False)


def difference_of(
    *, exists: bool, entry: Entry, snapshot: Snapshot, config: Config, now_ms: int
) -> Kind | None:
    """Return how the copy differs from an item's entry; None if it does not.

    The entry must be made for the earliest time that any clock may show.
    """
    if snapshot.other_type:  # without an item and a fence, the key may be another application's
        return "mistyped" if exists else "orphan" if snapshot.fence is not None else None
    if not exists:
        return None if snapshot.value is None else "orphan"
    if config.mode == "invalidate":
        return None  # readers fill it, in a form of their choice
    if entry.value is None:  # left out, expired, or it cannot be encoded
        return None if snapshot.value is None else "stale"
    if snapshot.value is None:
        may_have_expired = 0 < entry.expires_at_ms <= now_ms + CLOCKS_MS
        is_due = config.mode == "mirror" and config.ttl_s is None and not may_have_expired
        return "missing" if is_due else None
    return None if same_value(entry.value, snapshot.value, config.value) else "stale"


def is_compared(entry: Entry | None, snapshot: Snapshot, mode: str) -> bool:
    """Return whether an item's entry says what the copy must hold.

    A key that may be absent, and is, proves nothing; nor does a value that readers chose.
    """
    if entry is None or mode == "invalidate":
        return False
    return entry.value is None or snapshot.value is not None


@dataclass(frozen=True, slots=True)
class Comparison:
    """The differences of some items, and how many of the others could not be compared."""

    differences: Sequence[Difference]
    uncompared: int


class Comparer:
    """Compares one table's items with their copy."""

    def __init__(self, mirror: Mirror, table: str, copy: CopyReader, read: ReadItems) -> None:
        self._mirror = mirror
        self._table = table
        self._copy = copy
        self._read = read

    async def compare_items(self, items: Sequence[tuple[Key, bytes | None]]) -> Comparison:
        """Compare items that were read before with what the copy holds now.

        Raises what reading the copy raises, and ConfigError as encode does.
        """
        entries = self._entries(items)
        return self._compare(items, entries, await self._snapshots(entries))

    async def compare(self, keys: Sequence[Key]) -> list[Difference]:
        """Read the copy, then the items, and compare them.

        In this order a snapshot that stays unchanged proves that no record came for the item.
        Raises what compare_items raises, and what reading the items raises.
        """
        snapshots = await self._snapshots(self._entries([(key, None) for key in keys]))
        images: list[bytes | None] = []
        for first in range(0, len(keys), KEYS_MAX):
            images += await self._read(keys[first : first + KEYS_MAX])
        items = list(zip(keys, images, strict=True))
        return [*self._compare(items, self._entries(items), snapshots).differences]

    async def _snapshots(self, entries: Sequence[ItemEntry]) -> list[Snapshot]:
        """Read the copy in the entries' order; a key without a name holds nothing."""
        named = [item.entry for item in entries if item.entry is not None]
        snapshots = iter(await self._copy.read_pairs(named))
        return [next(snapshots) if item.entry else ABSENT for item in entries]

    def _entries(self, items: Sequence[tuple[Key, bytes | None]]) -> list[ItemEntry]:
        """Make entries for the earliest time that any clock may show."""
        earliest_ms = self._now_ms() - CLOCKS_MS
        return entries_of(items, self._table, self._mirror.rules, earliest_ms)

    def _now_ms(self) -> int:
        return int(self._mirror.wall_clock() * 1_000)

    def _compare(
        self,
        items: Sequence[tuple[Key, bytes | None]],
        entries: Sequence[ItemEntry],
        snapshots: Sequence[Snapshot],
    ) -> Comparison:
        differences: list[Difference] = []
        uncompared = 0
        for (_, image), item, snapshot in zip(items, entries, snapshots, strict=True):
            kind = self._kind(item, snapshot, exists=image is not None)
            if kind is not None:
                differences.append(_difference(kind, item, snapshot))
            else:
                uncompared += not is_compared(item.entry, snapshot, self._mirror.config.mode)
        return Comparison(differences, uncompared)

    def _kind(self, item: ItemEntry, snapshot: Snapshot, *, exists: bool) -> Kind | None:
        config, kind = self._mirror.config, None
        if item.entry is not None:
            kind = difference_of(
                exists=exists,
                entry=item.entry,
                snapshot=snapshot,
                config=config,
                now_ms=self._now_ms(),
            )
        if item.fault and kind is None and config.mode == "mirror":
            return "missing"  # the item is in the table, and readers miss it
        if kind is None and config.mode == "invalidate" and not self._may_be_readers(snapshot):
            return "stale"
        return kind

    def _may_be_readers(self, snapshot: Snapshot) -> bool:
        """Whether a reader may have stored this; a transform may give any bytes."""
        value, rules = snapshot.value, self._mirror.rules
        return value is None or rules.transform is not None or is_item(value, rules.config.value)


def _difference(kind: Kind, item: ItemEntry, snapshot: Snapshot) -> Difference:
    entry, value = item.entry, snapshot.value
    if entry is None:
        return Difference(kind, item.key, b"", (None, None), item.fault)
    digest = None if value is None else sha256(value).digest()
    reason = item.fault
    if snapshot.other_type:
        digest, reason = snapshot.other_type.encode(), f"it holds a {snapshot.other_type}"
    unchanged = (digest, snapshot.fence)
    return Difference(kind, item.key, entry.name, unchanged, reason, entry.value, value)


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The result of checking suspects until each is judged, or left to the stream."""

    suspects: int  # differed at the first check
    findings: Sequence[Difference]
    dropped: int  # matched at a later check
    unsettled: int  # changed between all checks


async def confirm(
    keys: Sequence[Key],
    kinds: Collection[Kind],
    compare: Callable[[Sequence[Key]], Awaitable[list[Difference]]],
    wait: Callable[[], Awaitable[None]],
) -> Confirmed:
    """Check keys for differences of some kinds, wait, and check again what differed.

    Raises what compare and wait raise.
    """

    async def differing(keys: Sequence[Key]) -> dict[Key, Difference]:
        return {each.key: each for each in await compare(keys) if each.kind in kinds}

    suspects = await differing(keys)
    at_first, dropped = len(suspects), 0
    findings: list[Difference] = []
    for _ in range(CHECKS_MAX - 1):
        if not suspects:
            break
        snapshots = {key: each.snapshot for key, each in suspects.items()}
        suspects.clear()  # many suspects wait at once: keep no contents
        await wait()
        suspects = await differing([*snapshots])
        dropped += len(snapshots) - len(suspects)
        unchanged = [key for key, each in suspects.items() if each.snapshot == snapshots[key]]
        findings += [suspects.pop(key) for key in unchanged]
    return Confirmed(at_first, findings, dropped, len(suspects))


def wait_s(seconds: float) -> Callable[[], Awaitable[None]]:
    """Return a wait of so many seconds."""

    async def wait() -> None:
        await anyio.sleep(seconds)

    return wait
