"""Repair: make a key equal the table, whatever record was applied last.

The order of the steps keeps it right beside a stream: read the fence and the value; read the
item consistently; write or remove only if both are unchanged, within a minute. The fence keeps
its version and takes rank 2, a new nonce and a full lifetime. If either has changed, all steps
run again: a change by others never counts as a repair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random, SystemRandom
from typing import Literal, TypeAlias

from asyncsync.config import Config
from asyncsync.copy.entries import (
    KEYS_MAX,
    ItemEntry,
    ReadItems,
    entries_of,
    refuse_without_fence,
    version_in,
)
from asyncsync.copy.reader import ABSENT, read_pairs, slot_of, with_reader
from asyncsync.fence import NONCE_DIGITS, RANK_RECORD, RANK_REPAIR, write_fence
from asyncsync.formats import ARMS
from asyncsync.mirror import Mirror
from asyncsync.model import APPLIED, Call, Entry, Key, Outcome, Value

SCRIPT = Path(__file__).with_name("repair.lua").read_bytes()
_EQUALS = Path(__file__).with_name("equals.lua").read_bytes()

# The oldest snapshot that a write may act on. It is far less than a fence's lifetime: else a
# fence could be written and expire unseen.
SNAPSHOT_AGE_S_MAX = 60.0

# After this many changes during a repair, leave the key to the stream.
ATTEMPTS_MAX = 5

RepairKind: TypeAlias = Literal["repaired", "past", "rejected", "changed", "foreign", "failed"]


@dataclass(frozen=True, slots=True)
class Target:
    """A key to repair, perhaps with a version (without its rank).

    A fence that is past the version (higher, or equal at rank 1 or 2) needs no repair; a
    repair else leaves the fence at the version.
    """

    key: Key
    version: bytes = b""


@dataclass(frozen=True, slots=True)
class Repaired:
    """A target's result.

    The key is right where it is repaired (the copy equals the table), past (the fence is past
    the version) or rejected (the item cannot be encoded, and the key has no value). It may be
    wrong where it is changed (on every attempt), foreign (its fence is of an unknown format) or
    failed (Redis did not confirm the write).
    """

    target: Target
    kind: RepairKind
    name: bytes = b""  # the Redis key; empty where the item has none
    reason: str = ""


def script_of(config: Config) -> bytes:
    """Return the script that repairs values of the settings' format, for Mirror.new_store."""
    return with_reader(_EQUALS + SCRIPT, config.value) if config.value in ARMS else SCRIPT


class Repairer:
    """Repairs keys of one table's copy over its own connection; one call at a time.

    A dry run returns what would be repaired and writes nothing. Raises ConfigError where the
    fence is off.
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
        self._store = mirror.new_store(script_of(mirror.config))

    async def repair(self, targets: Sequence[Target]) -> list[Repaired]:
        """Repair targets, each key once; return the results in the targets' order.

        Raises StoreRefused, ConfigError as encode does, or what reading the items raises.
        """
        assert len({each.key for each in targets}) == len(targets), "one target a key"
        results: list[Repaired] = []
        for first in range(0, len(targets), KEYS_MAX):
            results += await self._repair_few(targets[first : first + KEYS_MAX])
        return results

    def close(self) -> None:
        """Close the connection."""
        self._store.close()

    async def _repair_few(self, targets: Sequence[Target]) -> list[Repaired]:
        items = self._entries([(target.key, None) for target in targets])
        repairs = [_Repair(*pair) for pair in zip(targets, items, strict=True)]
        for _ in range(ATTEMPTS_MAX):
            unfinished = [repair for repair in repairs if repair.result is None]
            if not unfinished:
                break
            await self._attempt(unfinished)
        changed = "it changed on every attempt"
        return [repair.result or repair.make_result("changed", changed) for repair in repairs]

    async def _attempt(self, repairs: Sequence[_Repair]) -> None:
        """Read the copy, then the items, then write; a key that changed gets no result."""
        mirror = self._mirror
        end_s = mirror.clock() + SNAPSHOT_AGE_S_MAX
        wall_end_s = mirror.wall_clock() + SNAPSHOT_AGE_S_MAX
        snapshots = await read_pairs(self._store, [r.names for r in repairs], self._config, end_s)
        for repair, snapshot in zip(repairs, snapshots, strict=True):
            repair.snapshot = snapshot
            repair.result = _result_of_snapshot(repair)
        repairs = [repair for repair in repairs if repair.result is None]
        if not repairs:
            return

        keys = [repair.target.key for repair in repairs]
        images = await self._read(keys)
        assert len(images) == len(keys), "an image for each key"
        items = self._entries(list(zip(keys, images, strict=True)))
        for repair, item in zip(repairs, items, strict=True):
            repair.item = item
        # The monotonic clock stops while a machine sleeps; the wall clock may be set back.
        left_s = min(end_s - mirror.clock(), wall_end_s - mirror.wall_clock())
        await self._write(repairs, mirror.clock() + left_s)

    async def _write(self, repairs: Sequence[_Repair], end_s: float) -> None:
        outcomes: Sequence[Outcome] = [APPLIED] * len(repairs)
        if not self._dry_run:
            calls = [self._write_call(at, repair) for at, repair in enumerate(repairs)]
            outcomes = (await self._store.apply(calls, len(calls), end_s)).outcomes
        for repair, outcome in zip(repairs, outcomes, strict=True):
            if outcome.kind != "fenced":
                repair.result = _result_of_write(repair, outcome)

    def _write_call(self, at: int, repair: _Repair) -> Call:
        """Make a call for one key: it carries the old and the new value, each up to 400 KB."""
        names, snapshot, entry = repair.names, repair.snapshot, repair.item.entry
        assert entry is not None, "a key that had a name has one again"
        assert entry.name == names.name, "a key function gives a key one name"
        expiry = b"%d" % entry.expires_at_ms if entry.expires_at_ms else b""
        had_value = snapshot.other_type.encode() if snapshot.value is None else b"1"
        value, fields = entry.value or b"", ()
        if isinstance(value, tuple):
            value, fields = b"9", (b"%d" % len(value), *value)  # as in fence.lua
        arguments = (
            b"2",
            names.name,
            names.fence,
            b"%d" % self._config.fence_ttl_s,
            b"XX" if self._config.mode == "refresh" else b"",
            snapshot.fence or b"",
            had_value,
            _one_string(snapshot.value or b""),
            self._fence(repair),
            b"-" if entry.value is None else expiry,
            value,
            *fields,
        )
        return Call(arguments, (at,), fenced=True, slot=slot_of(names.name, self._config))

    def _fence(self, repair: _Repair) -> bytes:
        """Return the fence to leave.

        Where the item cannot be encoded, version and rank stay: a deployment that can encode it
        may then still write the same record.
        """
        parts = version_in(repair.snapshot.fence)
        assert parts is not None, "a foreign fence gets its result before reading"
        version, rank = parts
        if not repair.item.fault:
            version, rank = max(version, repair.target.version), RANK_REPAIR
        return write_fence(version, rank, self._chance.randrange(10**NONCE_DIGITS))

    def _entries(self, items: Sequence[tuple[Key, bytes | None]]) -> list[ItemEntry]:
        now_ms = int(self._mirror.wall_clock() * 1_000)
        return entries_of(items, self._table, self._mirror.rules, now_ms)


class _Repair:
    """One key during its repair: names, snapshot, item and, in the end, the result."""

    def __init__(self, target: Target, item: ItemEntry) -> None:
        self.target = target
        self.item = item  # made without an image until the table has been read
        self.snapshot = ABSENT
        self._names = item.entry
        self.result = None if item.entry else self.make_result("rejected", item.fault)

    @property
    def names(self) -> Entry:
        """The key's entry, for the names of its value and its fence."""
        assert self._names is not None, "a key without a name gets its result at once"
        return self._names

    def make_result(self, kind: RepairKind, reason: str = "") -> Repaired:
        """Make this key's result."""
        name = self._names.name if self._names else b""
        return Repaired(self.target, kind, name, reason)


def _one_string(value: Value) -> bytes:
    """Return a value as equals.lua takes it: each part of a hash after its length and a colon."""
    if isinstance(value, bytes):
        return value
    return b"".join([b"%d:%b" % (len(part), part) for part in value])


def _result_of_write(repair: _Repair, outcome: Outcome) -> Repaired:
    if outcome.kind == "failed":
        return repair.make_result("failed", f"{outcome.error}: {outcome.reason}")
    if repair.item.fault:
        return repair.make_result("rejected", repair.item.fault)
    return repair.make_result("repaired")


def _result_of_snapshot(repair: _Repair) -> Repaired | None:
    """Return what the snapshot alone decides; None where the item has to be read."""
    target, snapshot = repair.target, repair.snapshot
    if snapshot.error:
        return repair.make_result("failed", snapshot.error)
    if version_in(snapshot.fence) is None:
        return repair.make_result("foreign", "its fence has an unknown format")
    if target.version and (snapshot.fence or b"") >= target.version + RANK_RECORD:
        return repair.make_result("past")
    return None
