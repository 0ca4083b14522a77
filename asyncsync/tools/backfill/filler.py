"""Items that were read, into the copy: fill, repair where a fence stands without a value.

A page is done when the fate of each of its items is known. Where Redis is away, or refuses
for now, it is tried again after ever longer waits; where the page has become too old to be
filled, it is to be read anew.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio

from asyncsync.copy.entries import entries_of, refuse_without_fence
from asyncsync.copy.fill import SCRIPT, fill, fill_within_s
from asyncsync.copy.repair import ReadItems, Repaired, Repairer, Target
from asyncsync.mirror import Mirror
from asyncsync.model import APPLIED, STANDS, Encoded, Entry, Key
from asyncsync.tools.cursors import add, counts
from asyncsync.tools.errors import CommandFailed, CommandRefused

# Waits between tries while Redis is away: doubled each time up to the last, which is how soon
# a run goes on once Redis is back.
PAUSE_FIRST_S = 0.2
PAUSE_LAST_S = 5.0

# Rounds for a key that changed at every attempt of a round: by then the stream has written it.
ROUNDS_MAX = 3

# What is named, beside the counts.
NAMED_MAX = 10

# A server says ERR where the command itself is wrong, and will say so again; but also where it
# has too many clients for now. So it is asked a few times.
_LASTING = ("ERR", "WRONGTYPE")
LASTING_ASKED_MAX = 4
_ELSEWHERE = ("MOVED", "ASK", "CROSSSLOT")


class TooLate(CommandFailed):
    """Items were read so long ago that a deletion's fence may have ended: read them anew."""


@dataclass(slots=True)
class Tally:
    """What a run has done so far; every item that was read is in one of the others."""

    read: int = 0
    filled: int = 0
    present: int = 0  # a value was there
    repaired: int = 0  # a fence stood without a value
    left_out: int = 0  # by the transform, or expired
    rejected: int = 0  # cannot be encoded
    left: int = 0  # not known to be right
    named: list[str] = field(default_factory=list)  # the first that were rejected or left
    paused: str = ""  # why it waits for Redis

    @property
    def is_whole(self) -> bool:
        """Whether nothing was rejected or left."""
        return not self.rejected and not self.left

    def name(self, what: str) -> None:
        """Name one that was rejected or left, while there are few."""
        if len(self.named) < NAMED_MAX:
            self.named.append(what)

    def add(self, document: Mapping[str, Any]) -> None:
        """Add what another tally has written down."""
        add(self, document)
        for what in document.get("named", []):
            self.name(what)

    def document(self) -> dict[str, Any]:
        """Write down the counts by name, and what is named."""
        return {**counts(self), "named": [*self.named]}


class Filler:
    """Fills the copy of one table, on connections of its own; one page at a time.

    Raises CommandRefused where the mirror's settings allow no fill.
    """

    def __init__(
        self,
        mirror: Mirror,
        table: str,
        read: ReadItems,
        tally: Tally,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        refuse_to_fill(mirror)
        self._mirror = mirror
        self._table = table
        self._tally = tally
        self._sleep = sleep
        self._store = mirror.new_store(SCRIPT)
        self._repairer = Repairer(mirror, table, read)

    async def page(self, found: Sequence[tuple[Key, bytes]], read_s: float) -> Tally:
        """Fill what was read at read_s, on the mirror's wall clock, or later; count it.

        Raises TooLate, StoreRefused, or what reading the items for a repair raises.
        """
        now_ms = int(self._mirror.wall_clock() * 1_000)
        made = entries_of(found, self._table, self._mirror.rules, now_ms)
        standing: list[Entry] = []
        tally = Tally(read=len(found))
        wanted = [each for each in made.entries if each.value is not None]
        await self._fill(wanted, read_s, standing, tally)
        keys = [found[int(each.item_identifier)][0] for each in standing]
        await self._repair([Target(key) for key in keys], tally)

        tally.left_out = len(found) - len(wanted) - len(made.rejects)
        tally.rejected += len(made.rejects)
        _name_rejects(made, tally)
        assert sum(counts(tally).values()) == 2 * tally.read, "the fate of every item is known"
        self._tally.add(tally.document())
        return tally

    def close(self) -> None:
        """Throw the connections away."""
        self._store.close()
        self._repairer.close()

    async def _fill(
        self, entries: Sequence[Entry], read_s: float, standing: list[Entry], tally: Tally
    ) -> None:
        pauses = 0
        while entries:
            end_s = self._mirror.clock() + self._left_s(read_s)
            outcomes = await fill(self._store, entries, self._mirror.config, end_s)
            again: list[Entry] = []
            reason = ""
            for entry, outcome in zip(entries, outcomes, strict=True):
                if outcome is APPLIED:
                    tally.filled += 1
                elif outcome is STANDS:
                    standing.append(entry)
                elif outcome.kind == "fenced":
                    tally.present += 1
                elif _lasts(outcome.error, outcome.reason, pauses + 1):
                    tally.left += 1
                    tally.name(_named(entry.name, f"{outcome.error}: {outcome.reason}"))
                else:
                    again.append(entry)
                    reason = f"{outcome.error}: {outcome.reason}"
            entries = again
            if entries:
                await self._pause(reason, pauses)
                pauses += 1
        self._tally.paused = ""

    async def _repair(self, targets: Sequence[Target], tally: Tally) -> None:
        pauses = rounds = 0
        while targets:
            answers = await self._repairer.repair(targets)
            rounds += any(each.kind == "changed" for each in answers)
            again = [each for each in answers if _may_end_well(each, rounds, pauses + 1)]
            for each in answers:
                if each not in again:
                    _count(each, tally)
            targets = [each.target for each in again]
            if targets:
                await self._pause(again[0].reason, pauses)
                pauses += 1
        self._tally.paused = ""

    async def _pause(self, reason: str, pauses: int) -> None:
        self._tally.paused = reason
        await self._sleep(min(PAUSE_LAST_S, PAUSE_FIRST_S * 2 ** min(pauses, 10)))

    def _left_s(self, read_s: float) -> float:
        """Return how long what was read may still be filled.

        By the wall clock, which goes on while a machine sleeps.
        """
        age_s = self._mirror.wall_clock() - read_s
        left_s = fill_within_s(self._mirror.config) - age_s
        if left_s <= 0:
            raise TooLate(f"what was read {age_s:,.0f} s ago is too old to be filled")
        return left_s


def refuse_to_fill(mirror: Mirror) -> None:
    """Refuse settings under which nothing may be filled.

    Raises CommandRefused.
    """
    refuse_without_fence(mirror.config)
    if mirror.config.mode != "mirror":
        raise CommandRefused(
            f"nothing is to be filled with ASYNCSYNC_MODE={mirror.config.mode}: there only what "
            "readers have asked for is in the copy"
        )


def _lasts(error: str, reason: str, asked: int) -> bool:
    """Whether the server will say so again; raise CommandFailed where it will of every key."""
    if error in _ELSEWHERE:
        raise CommandFailed(reason)
    return error in _LASTING and asked >= LASTING_ASKED_MAX


def _may_end_well(answer: Repaired, rounds: int, asked: int) -> bool:
    if answer.kind == "failed":
        error, _, reason = answer.reason.partition(": ")
        return not _lasts(error, reason, asked)
    return answer.kind == "changed" and rounds < ROUNDS_MAX


def _count(answer: Repaired, tally: Tally) -> None:
    if answer.kind == "repaired":
        tally.repaired += 1
        return
    if answer.kind == "rejected":
        tally.rejected += 1
    else:
        tally.left += 1
    tally.name(_named(answer.name, answer.reason))


def _name_rejects(made: Encoded, tally: Tally) -> None:
    for reject in made.rejects[:NAMED_MAX]:
        mine = (
            each.name for each in made.entries if each.item_identifier == reject.item_identifier
        )
        tally.name(_named(next(mine, b""), reject.reason))


def _named(name: bytes, reason: str) -> str:
    return f"{name.decode(errors='backslashreplace') or 'an item'}: {reason}"
