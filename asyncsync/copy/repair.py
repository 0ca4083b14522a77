"""Repair: make a key hold what the table holds, whatever record was applied last.

In this order, which is what keeps it right beside a stream: read the fence and the value; read
the item consistently; write, or remove, only where both are still what they were, within a
minute. The fence keeps its version, takes rank 2, a new nonce and a full life. Where anything
changed, all of it is done again; a key is never taken for repaired because it was changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random, SystemRandom
from typing import Literal, TypeAlias

from asyncsync.copy.entries import (
    KEYS_MAX,
    ItemEntry,
    ReadItems,
    entries_of,
    refuse_without_fence,
    version_in,
)
from asyncsync.copy.reader import ABSENT, read_pairs, slot_of
from asyncsync.fence import NONCE_DIGITS, RANK_RECORD, RANK_REPAIR, write_fence
from asyncsync.mirror import Mirror
from asyncsync.model import (
    APPLIED,
    Call,
    Entry,
    Key,
    Outcome,
)

SCRIPT = Path(__file__).with_name("repair.lua").read_bytes()

# A witness older than this is not acted on: far less than a fence lives, so that one that was
# written and has ended meanwhile cannot be taken for none.
WITHIN_S = 60.0

# A key that changes as often as this while it is being repaired is in the stream's hands.
ATTEMPTS_MAX = 5

RepairKind: TypeAlias = Literal["repaired", "past", "rejected", "changed", "foreign", "failed"]


@dataclass(frozen=True, slots=True)
class Target:
    """A key to be repaired.

    With a version (rank not included), nothing is to do where the fence is past it, which is
    higher, or the same at rank 1 or 2; else the fence is left at it.
    """

    key: Key
    version: bytes = b""


@dataclass(frozen=True, slots=True)
class Repaired:
    """What became of a target.

    repaired: the copy holds what the table held; past: the fence is past the version; rejected:
    it cannot be encoded, and the key holds no value. Not known to be right are: changed, it
    was at every attempt; foreign, its fence is of a format that is not known here; failed,
    Redis did not confirm it.
    """

    target: Target
    kind: RepairKind
    name: bytes = b""  # the Redis key; empty where none can be made
    reason: str = ""


class Repairer:
    """Repairs keys of one table's copy, on a connection of its own; one call at a time.

    A dry run answers what would be repaired and writes nothing. Raises ConfigError where
    the fence is off.
    """

    def __init__(
        self,
        mirror: Mirror,
        table: str,
        read: ReadItems,
        chance: Random | None = None,
        *,
        dry_run: bool = False,
    ) -> None:
        refuse_without_fence(mirror.config)
        self._mirror = mirror
        self._config = mirror.config
        self._table = table
        self._read = read
        self._chance = chance or SystemRandom()
        self._dry_run = dry_run
        self._store = mirror.new_store(SCRIPT)

    async def repair(self, targets: Sequence[Target]) -> list[Repaired]:
        """Repair each target, none of them twice; the answers are in the targets' order.

        Raises StoreRefused, ConfigError as encode does, or what reading the items raises.
        """
        assert len({each.key for each in targets}) == len(targets), "one target a key"
        done: list[Repaired] = []
        for first in range(0, len(targets), KEYS_MAX):
            done += await self._repair_few(targets[first : first + KEYS_MAX])
        return done

    def close(self) -> None:
        """Throw the connection away."""
        self._store.close()

    async def _repair_few(self, targets: Sequence[Target]) -> list[Repaired]:
        items = self._entries([(target.key, None) for target in targets])
        repairs = [_Repair(*pair) for pair in zip(targets, items, strict=True)]
        for _ in range(ATTEMPTS_MAX):
            unanswered = [repair for repair in repairs if repair.answer is None]
            if not unanswered:
                break
            await self._attempt(unanswered)
        return [r.answer or r.result("changed", "it changed every time") for r in repairs]

    async def _attempt(self, repairs: Sequence[_Repair]) -> None:
        """Read the copy, then the items, then write; a key that changed gets no answer."""
        mirror = self._mirror
        end_s, wall_end_s = mirror.clock() + WITHIN_S, mirror.wall_clock() + WITHIN_S
        snapshots = await read_pairs(self._store, [r.names for r in repairs], self._config, end_s)
        for repair, snapshot in zip(repairs, snapshots, strict=True):
            repair.snapshot = snapshot
            repair.answer = _answer_before_reading(repair)
        repairs = [repair for repair in repairs if repair.answer is None]
        if not repairs:
            return

        keys = [repair.target.key for repair in repairs]
        images = await self._read(keys)
        assert len(images) == len(keys), "an image for each key"
        items = self._entries(list(zip(keys, images, strict=True)))
        for repair, item in zip(repairs, items, strict=True):
            repair.item = item
        # The one clock stands still while a machine sleeps, the other may be set back.
        left_s = min(end_s - mirror.clock(), wall_end_s - mirror.wall_clock())
        await self._write(repairs, mirror.clock() + left_s)

    async def _write(self, repairs: Sequence[_Repair], end_s: float) -> None:
        outcomes: Sequence[Outcome] = [APPLIED] * len(repairs)
        if not self._dry_run:
            calls = [self._write_call(at, repair) for at, repair in enumerate(repairs)]
            outcomes = (await self._store.apply(calls, len(calls), end_s)).outcomes
        for repair, outcome in zip(repairs, outcomes, strict=True):
            if outcome.kind != "fenced":
                repair.answer = _answer(repair, outcome)

    def _write_call(self, at: int, repair: _Repair) -> Call:
        """One key a call: the old value goes along with the new one, and both may be 400 KB."""
        names, snapshot, entry = repair.names, repair.snapshot, repair.item.entry
        assert entry is not None, "a key that had a name has one again"
        assert entry.name == names.name, "a key function gives a key one name"
        expiry = b"%d" % entry.expires_at_ms if entry.expires_at_ms else b""
        arguments = (
            b"2",
            names.name,
            names.fence,
            b"%d" % self._config.fence_ttl_s,
            b"XX" if self._config.mode == "refresh" else b"",
            snapshot.fence or b"",
            b"" if snapshot.value is None else b"1",
            snapshot.value or b"",
            self._fence(repair),
            b"-" if entry.value is None else expiry,
            entry.value or b"",
        )
        return Call(arguments, (at,), fenced=True, slot=slot_of(names.name, self._config))

    def _fence(self, repair: _Repair) -> bytes:
        """Return the fence to leave.

        A removal because the item cannot be encoded claims nothing: version and rank stay, so
        that a deployment that can encode it may still write the same record.
        """
        parts = version_in(repair.snapshot.fence)
        assert parts is not None, "what is not understood is left alone"
        version, rank = parts
        if not repair.item.fault:
            version, rank = max(version, repair.target.version), RANK_REPAIR
        return write_fence(version, rank, self._chance.randrange(10**NONCE_DIGITS))

    def _entries(self, items: Sequence[tuple[Key, bytes | None]]) -> list[ItemEntry]:
        now_ms = int(self._mirror.wall_clock() * 1_000)
        return entries_of(items, self._table, self._mirror.rules, now_ms)


class _Repair:
    """One key while it is repaired: its names, snapshot and item, and in the end its answer."""

    def __init__(self, target: Target, item: ItemEntry) -> None:
        self.target = target
        self.item = item  # without an image until the table has been read
        self.snapshot = ABSENT
        self._names = item.entry
        self.answer = None if item.entry else self.result("rejected", item.fault)

    @property
    def names(self) -> Entry:
        """The key's entry, for the names of its value and its fence."""
        assert self._names is not None, "a key without a name is answered at once"
        return self._names

    def result(self, kind: RepairKind, reason: str = "") -> Repaired:
        """Make this key's answer."""
        name = self._names.name if self._names else b""
        return Repaired(self.target, kind, name, reason)


def _answer(repair: _Repair, outcome: Outcome) -> Repaired:
    if outcome.kind == "failed":
        return repair.result("failed", f"{outcome.error}: {outcome.reason}")
    if repair.item.fault:
        return repair.result("rejected", repair.item.fault)
    return repair.result("repaired")


def _answer_before_reading(repair: _Repair) -> Repaired | None:
    """Return what the snapshot alone decides; None where the item has to be read."""
    target, snapshot = repair.target, repair.snapshot
    if snapshot.error:
        return repair.result("failed", snapshot.error)
    if version_in(snapshot.fence) is None:
        return repair.result("foreign", "its fence is of a format not known here")
    if target.version and (snapshot.fence or b"") >= target.version + RANK_RECORD:
        return repair.result("past")
    return None
