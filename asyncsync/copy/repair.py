"""Repair: make a key hold what the table holds, whatever record was applied last.

In this order, which is what keeps it right beside a stream: read the fence and the value; read
the item consistently; write, or remove, only where both are still what they were, within a
minute. The fence keeps its version, takes rank 2, a new nonce and a full life. Where anything
changed, all of it is done again; a key is never taken for repaired because it was changed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random, SystemRandom
from typing import Literal, TypeAlias

from asyncsync.config import Config
from asyncsync.copy.entries import entries_of, refuse_without_fence, version_in
from asyncsync.fence import NONCE_DIGITS, RANK_RECORD, RANK_REPAIR, write_fence
from asyncsync.keys import slot
from asyncsync.mirror import Mirror
from asyncsync.model import (
    APPLIED,
    Call,
    Encoded,
    Entry,
    Key,
    Outcome,
)
from asyncsync.store import Store

SCRIPT = Path(__file__).with_name("repair.lua").read_bytes()

# A witness older than this is not acted on: far less than a fence lives, so that one that was
# written and has ended meanwhile cannot be taken for none.
WITHIN_S = 60.0

# A key that changes as often as this while it is being repaired is in the stream's hands.
ATTEMPTS_MAX = 5

# DynamoDB reads so many items at once (API_BatchGetItem).
KEYS_MAX = 100

# Items' images by key, read consistently, in the keys' order; None where there is no item.
ReadItems: TypeAlias = Callable[[Sequence[Key]], Awaitable[Sequence[bytes | None]]]


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
    kind: Literal["repaired", "past", "rejected", "changed", "foreign", "failed"]
    name: bytes = b""  # the Redis key; empty where none can be made
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A key's value and fence at one moment; with an error, neither is known."""

    value: bytes | None
    fence: bytes | None
    error: str = ""


_NOTHING = Snapshot(None, None)


async def look(
    store: Store, named: Sequence[Entry], config: Config, end_s: float = float("inf")
) -> list[Snapshot]:
    """Read value and fence of each entry's names, both at one moment, before end_s.

    Raises StoreRefused.
    """
    calls = [
        Call((b"MGET", each.name, each.fence), (at,), fenced=False, slot=_slot(each, config))
        for at, each in enumerate(named)
    ]
    written = await store.apply(calls, len(named), end_s)
    return [_seen(outcome) for outcome in written.outcomes]


def _slot(entry: Entry, config: Config) -> int | None:
    return slot(entry.name) if config.redis_cluster else None


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

    async def look(self, named: Sequence[Entry], end_s: float = float("inf")) -> list[Snapshot]:
        """Read value and fence of each entry's names, both at one moment.

        Raises StoreRefused.
        """
        return await look(self._store, named, self._config, end_s)

    def close(self) -> None:
        """Throw the connection away."""
        self._store.close()

    async def _repair_few(self, targets: Sequence[Target]) -> list[Repaired]:
        named = self._entries([(each.key, None) for each in targets])
        done = {
            int(each.item_identifier): Repaired(
                targets[int(each.item_identifier)], "rejected", reason=each.reason
            )
            for each in named.rejects
        }
        names = {int(each.item_identifier): each for each in named.entries}
        for _ in range(ATTEMPTS_MAX):
            wanted = [_Wanted(targets[at], each) for at, each in names.items() if at not in done]
            if not wanted:
                break
            for each in await self._attempt(wanted):
                done[int(each.named.item_identifier)] = each.answer
        for at, entry in names.items():
            done.setdefault(
                at, Repaired(targets[at], "changed", entry.name, "it changed every time")
            )
        return [done[at] for at in range(len(targets))]

    async def _attempt(self, wanted: Sequence[_Wanted]) -> list[_Answered]:
        """Look, read, write, once; what changed meanwhile has no answer."""
        mirror = self._mirror
        end_s, wall_end_s = mirror.clock() + WITHIN_S, mirror.wall_clock() + WITHIN_S
        seen = await self.look([each.named for each in wanted], end_s)
        answers: list[_Answered] = []
        open_: list[_Wanted] = []
        for each, at_first in zip(wanted, seen, strict=True):
            each.seen = at_first
            ended = _ended(each)
            if ended is None:
                open_.append(each)
            else:
                answers.append(_Answered(each.named, ended))
        if not open_:
            return answers

        images = await self._read([each.target.key for each in open_])
        assert len(images) == len(open_), "an answer for each key"
        found = [(each.target.key, image) for each, image in zip(open_, images, strict=True)]
        made = self._entries(found)
        reasons = {int(each.item_identifier): each.reason for each in made.rejects}
        for entry in made.entries:
            each = open_[int(entry.item_identifier)]
            each.entry, each.fault = entry, reasons.get(int(entry.item_identifier), "")
        # The one clock stands still while a machine sleeps, the other may be set back.
        left_s = min(end_s - mirror.clock(), wall_end_s - mirror.wall_clock())
        return answers + await self._write(open_, mirror.clock() + left_s)

    async def _write(self, open_: Sequence[_Wanted], end_s: float) -> list[_Answered]:
        outcomes: Sequence[Outcome] = [APPLIED] * len(open_)
        if not self._dry_run:
            calls = [self._write_call(at, each) for at, each in enumerate(open_)]
            outcomes = (await self._store.apply(calls, len(calls), end_s)).outcomes
        return [
            _Answered(each.named, _answer(each, outcome))
            for each, outcome in zip(open_, outcomes, strict=True)
            if outcome.kind != "fenced"
        ]

    def _write_call(self, at: int, wanted: _Wanted) -> Call:
        """One key a call: the old value goes along with the new one, and both may be 400 KB."""
        named, seen, entry = wanted.named, wanted.seen, wanted.entry
        assert entry is not None, "what had a name has one again"
        assert entry.name == named.name, "a key function gives a key one name"
        expiry = b"%d" % entry.expires_at_ms if entry.expires_at_ms else b""
        arguments = (
            b"2",
            named.name,
            named.fence,
            b"%d" % self._config.fence_ttl_s,
            b"XX" if self._config.mode == "refresh" else b"",
            seen.fence or b"",
            b"" if seen.value is None else b"1",
            seen.value or b"",
            self._fence(wanted),
            b"-" if entry.value is None else expiry,
            entry.value or b"",
        )
        return Call(arguments, (at,), fenced=True, slot=_slot(named, self._config))

    def _fence(self, wanted: _Wanted) -> bytes:
        """Return the fence to leave.

        A removal because the item cannot be encoded claims nothing: version and rank stay, so
        that a deployment that can encode it may still write the same record.
        """
        held = version_in(wanted.seen.fence)
        assert held is not None, "what is not understood is left alone"
        kept, rank = held
        if not wanted.fault:
            kept, rank = max(kept, wanted.target.version), RANK_REPAIR
        return write_fence(kept, rank, self._chance.randrange(10**NONCE_DIGITS))

    def _entries(self, found: Sequence[tuple[Key, bytes | None]]) -> Encoded:
        now_ms = int(self._mirror.wall_clock() * 1_000)
        return entries_of(found, self._table, self._mirror.rules, now_ms)


@dataclass(slots=True)
class _Wanted:
    """One key while it is being repaired: its names, what stood there, what is to stand there."""

    target: Target
    named: Entry
    seen: Snapshot = _NOTHING
    entry: Entry | None = None
    fault: str = ""  # why it cannot be encoded; then the entry is a removal


@dataclass(frozen=True, slots=True)
class _Answered:
    named: Entry
    answer: Repaired


def _answer(wanted: _Wanted, outcome: Outcome) -> Repaired:
    name = wanted.named.name
    if outcome.kind == "failed":
        return Repaired(wanted.target, "failed", name, f"{outcome.error}: {outcome.reason}")
    if wanted.fault:
        return Repaired(wanted.target, "rejected", name, wanted.fault)
    return Repaired(wanted.target, "repaired", name)


def _seen(outcome: Outcome) -> Snapshot:
    if outcome.kind == "failed":
        return Snapshot(None, None, f"{outcome.error}: {outcome.reason}")
    assert isinstance(outcome.reply, list), "MGET answers with a list"
    value, fence = outcome.reply
    return Snapshot(value, fence)


def _ended(wanted: _Wanted) -> Repaired | None:
    """Say what is known before the item is read; None where it is to be read."""
    target, name, seen = wanted.target, wanted.named.name, wanted.seen
    if seen.error:
        return Repaired(target, "failed", name, seen.error)
    if version_in(seen.fence) is None:
        return Repaired(target, "foreign", name, "its fence is of a format not known here")
    if target.version and (seen.fence or b"") >= target.version + RANK_RECORD:
        return Repaired(target, "past", name)
    return None
