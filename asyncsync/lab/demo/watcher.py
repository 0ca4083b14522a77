"""Watches a copy as a reader sees it: which version, when, and every step backwards.

It knows each item's versions because the demo notes them before it writes them. It cannot tell
two removals of an item apart, and assumes the one that counts in the copy's favor: it may
count a step too few, never one too many, and a lag too short, never too long.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from asyncsync.lab.demo.changes import ItemChange

Version = Callable[[bytes], int]


@dataclass(slots=True)
class Journal:
    """The changes to the table, and the time at which each was confirmed."""

    changes: dict[int, list[ItemChange]] = field(default_factory=lambda: defaultdict(list))
    written_s: dict[tuple[int, int], float] = field(default_factory=dict)

    def begin(self, change: ItemChange) -> None:
        """Note a change before it is sent: a reader may see it from then on."""
        self.changes[change.number].append(change)

    def confirm(self, change: ItemChange, now_s: float) -> None:
        """Note the time at which the table confirmed a change."""
        self.written_s[change.number, change.version] = now_s

    def removals(self, number: int) -> Iterable[int]:
        """Return an item's versions that are removals, oldest first."""
        return (change.version for change in self.changes[number] if change.item is None)


@dataclass(slots=True)
class CopyWatcher:
    """What a reader has seen of one copy."""

    journal: Journal
    version: Version  # reads the version of a value
    values: dict[int, bytes | None] = field(default_factory=dict)
    position: dict[int, int] = field(default_factory=dict)  # the version that is visible now
    highest: dict[int, int] = field(default_factory=dict)
    lags_s: dict[tuple[int, int], float] = field(default_factory=dict)
    shown: set[tuple[int, int]] = field(default_factory=set)
    backward: int = 0

    def see(self, number: int, value: bytes | None, now_s: float) -> None:
        """Note the value that one read of an item returned."""
        if self.values.get(number) == value:
            return
        self.values[number] = value
        before = self.position.get(number, 0)
        if value is None:
            version, reached = self._removal(number, before)
        else:
            version = reached = self.version(value)
        self.backward += version < before
        self.position[number] = version
        self.shown.add((number, reached))
        self._take_lags(number, reached, now_s)

    def _removal(self, number: int, before: int) -> tuple[int, int]:
        """Return the first and the last removal that an absent key may stand for."""
        removals = list(self.journal.removals(number))
        last = max(removals, default=0)
        return min((version for version in removals if version > before), default=last), last

    def _take_lags(self, number: int, version: int, now_s: float) -> None:
        for reached in range(self.highest.get(number, 0) + 1, version + 1):
            # A version can be visible before its write is confirmed.
            written_s = self.journal.written_s.get((number, reached), now_s)
            self.lags_s[number, reached] = now_s - written_s
        self.highest[number] = max(version, self.highest.get(number, 0))

    def behind_s(self, now_s: float) -> float:
        """Return the age of the oldest change that nobody has seen yet; 0 if all were seen."""
        unseen = [
            self.journal.written_s.get((number, self.highest.get(number, 0) + 1), now_s)
            for number, changes in self.journal.changes.items()
            if self.highest.get(number, 0) < changes[-1].version
        ]
        return now_s - min(unseen, default=now_s)

    def lag_ms(self, share: float, now_s: float) -> int:
        """Return a quantile of the lag of all changes; one that was never seen still lags."""
        lags = sorted(
            self.lags_s.get(version, now_s - written_s)
            for version, written_s in self.journal.written_s.items()
        )
        return round(lags[min(len(lags) - 1, int(share * len(lags)))] * 1_000) if lags else 0
