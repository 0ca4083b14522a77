"""Writes scanned items into the copy: fills absent keys, repairs keys that have only a fence.

A page is done when the fate of each of its items is known. While Redis is away, or refuses
for now, the filler tries again after longer and longer waits. A page that has become too old
to fill must be read again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

import anyio

from asyncsync.copy.delays import delays
from asyncsync.copy.entries import ReadItems, entries_of, refuse_without_fence
from asyncsync.copy.fill import SCRIPT, fill, fill_within_s
from asyncsync.copy.repair import Repaired, Repairer, Target
from asyncsync.mirror import Mirror
from asyncsync.model import APPLIED, NO_VALUE, Entry, Key
from asyncsync.tools.cursors import add, counts
from asyncsync.tools.errors import CommandFailed, CommandRefused

# Waits between tries while Redis is away: doubled each time up to the last, which bounds how
# late a run notices that Redis is back.
PAUSE_FIRST_S = 0.2
PAUSE_LAST_S = 5.0

# Tries for a key that changed during each repair: by then the stream has written it.
ROUNDS_MAX = 3

# Rejected or unfilled keys that are named, beside their counts.
NAMED_MAX = 10

# A server answers ERR where the command itself is wrong, which no retry helps, but also where
# it has too many clients for now. So these errors are permanent only after a few tries.
_PERMANENT = ("ERR", "WRONGTYPE")
PERMANENT_TRIES = 4
_ELSEWHERE = ("MOVED", "ASK", "CROSSSLOT")

T = TypeVar("T")

# Tries some keys, for the nth time; returns those to try again, and why one of them failed.
Attempt: TypeAlias = Callable[[Sequence[T], int], Awaitable[tuple[Sequence[T], str]]]


class TooLate(CommandFailed):
    """Items were read so long ago that a deletion's fence may have expired: read them again."""


@dataclass(slots=True)
class FillTally:
    """What a run has done so far; every item that was read is in exactly one other count."""

    read: int = 0
    filled: int = 0
    present: int = 0  # the key had a value
    repaired: int = 0  # the key had a fence and no value
    left_out: int = 0  # by the transform, or expired
    rejected: int = 0  # cannot be encoded
    left: int = 0  # not known to be right
    named: list[str] = field(default_factory=list)  # the first keys that were rejected or left
    paused: str = ""  # why it waits for Redis

    @property
    def is_whole(self) -> bool:
        """Whether nothing was rejected or left."""
        return not self.rejected and not self.left

    def name(self, line: str) -> None:
        """Name a key that was rejected or left, up to NAMED_MAX of them."""
        if len(self.named) < NAMED_MAX:
            self.named.append(line)

    def add(self, document: Mapping[str, Any]) -> None:
        """Add another tally's document."""
        add(self, document)
        for line in document.get("named", []):
            self.name(line)

    def document(self) -> dict[str, Any]:
        """Return the counts by name, and the named keys, as JSON."""
        return {**counts(self), "named": [*self.named]}


class Filler:
    """Fills the copy of one table on its own connections, one page at a time.

    Raises CommandRefused or ConfigError if the mirror's settings allow no fill.
    """

    def __init__(
        self,
        mirror: Mirror,
        table: str,
        read: ReadItems,
        tally: FillTally,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        refuse_to_fill(mirror)
        self._mirror = mirror
        self._table = table
        self._tally = tally
        self._sleep = sleep
        self._store = mirror.new_store(SCRIPT)
        self._repairer = Repairer(mirror, table, read)

    async def page(self, items: Sequence[tuple[Key, bytes]], read_s: float) -> FillTally:
        """Fill items that were read at read_s (the mirror's wall clock) or later; count them.

        Raises TooLate, StoreRefused, or what reading the items for a repair raises.
        """
        now_ms = int(self._mirror.wall_clock() * 1_000)
        encoded = entries_of(items, self._table, self._mirror.rules, now_ms)
        keys = {item.entry.name: item.key for item in encoded if item.entry is not None}
        entries = [item.entry for item in encoded if item.entry and item.entry.value is not None]
        rejects = [item for item in encoded if item.fault]
        tally = FillTally(read=len(items))
        tombstoned = await self._fill(entries, read_s, tally)
        await self._repair([Target(keys[entry.name]) for entry in tombstoned], tally)

        tally.left_out = len(items) - len(entries) - len(rejects)
        tally.rejected += len(rejects)
        for item in rejects:
            tally.name(_line(item.entry.name if item.entry else b"", item.fault))
        assert sum(counts(tally).values()) == 2 * tally.read, "the fate of every item is known"
        self._tally.add(tally.document())
        return tally

    def close(self) -> None:
        """Close the connections."""
        self._store.close()
        self._repairer.close()

    async def _fill(
        self, entries: Sequence[Entry], read_s: float, tally: FillTally
    ) -> Sequence[Entry]:
        """Fill entries; return those whose key has a fence and no value."""
        tombstoned: list[Entry] = []

        async def attempt(entries: Sequence[Entry], tries: int) -> tuple[list[Entry], str]:
            end_s = self._mirror.clock() + self._left_s(read_s)
            outcomes = await fill(self._store, entries, self._mirror.config, end_s)
            again: list[Entry] = []
            reason = ""
            for entry, outcome in zip(entries, outcomes, strict=True):
                if outcome is APPLIED:
                    tally.filled += 1
                elif outcome is NO_VALUE:
                    tombstoned.append(entry)
                elif outcome.kind == "fenced":
                    tally.present += 1
                elif _is_permanent(outcome.error, outcome.reason, tries):
                    tally.left += 1
                    tally.name(_line(entry.name, f"{outcome.error}: {outcome.reason}"))
                else:
                    again.append(entry)
                    reason = f"{outcome.error}: {outcome.reason}"
            return again, reason

        await self._until_settled(entries, attempt)
        return tombstoned

    async def _repair(self, targets: Sequence[Target], tally: FillTally) -> None:
        rounds = 0

        async def attempt(targets: Sequence[Target], tries: int) -> tuple[list[Target], str]:
            nonlocal rounds
            answers = await self._repairer.repair(targets)
            rounds += any(answer.kind == "changed" for answer in answers)
            again = [answer for answer in answers if _is_retryable(answer, rounds, tries)]
            for answer in answers:
                if answer not in again:
                    _count(answer, tally)
            return [answer.target for answer in again], again[0].reason if again else ""

        await self._until_settled(targets, attempt)

    async def _until_settled(self, todo: Sequence[T], attempt: Attempt[T]) -> None:
        """Attempt what is to do, and again what is left of it, until nothing is left."""
        pauses = delays(PAUSE_FIRST_S, PAUSE_LAST_S)
        tries = 0
        while todo:
            tries += 1
            todo, reason = await attempt(todo, tries)
            if todo:
                self._tally.paused = reason
                await self._sleep(next(pauses))
        self._tally.paused = ""

    def _left_s(self, read_s: float) -> float:
        """Return how long items that were read at read_s may still be filled.

        The wall clock also counts the time that a machine sleeps.
        """
        age_s = self._mirror.wall_clock() - read_s
        left_s = fill_within_s(self._mirror.config) - age_s
        if left_s <= 0:
            raise TooLate(f"items that were read {age_s:,.0f} s ago are too old to fill")
        return left_s


def refuse_to_fill(mirror: Mirror) -> None:
    """Refuse settings under which nothing may be filled.

    Raises CommandRefused, or ConfigError if the fence is off.
    """
    refuse_without_fence(mirror.config)
    if mirror.config.mode != "mirror":
        raise CommandRefused(
            f"cannot fill with ASYNCSYNC_MODE={mirror.config.mode}: in this mode the copy holds "
            "only what readers asked for"
        )


def _is_permanent(error: str, reason: str, tries: int) -> bool:
    """Whether the server would answer so again; raise CommandFailed if it would for every key."""
    if error in _ELSEWHERE:
        raise CommandFailed(reason)
    return error in _PERMANENT and tries >= PERMANENT_TRIES


def _is_retryable(answer: Repaired, rounds: int, tries: int) -> bool:
    if answer.kind == "failed":
        error, _, reason = answer.reason.partition(": ")
        return not _is_permanent(error, reason, tries)
    return answer.kind == "changed" and rounds < ROUNDS_MAX


def _count(answer: Repaired, tally: FillTally) -> None:
    if answer.kind == "repaired":
        tally.repaired += 1
        return
    if answer.kind == "rejected":
        tally.rejected += 1
    else:
        tally.left += 1
    tally.name(_line(answer.name, answer.reason))


def _line(name: bytes, reason: str) -> str:
    return f"{name.decode(errors='backslashreplace') or 'an item'}: {reason}"
