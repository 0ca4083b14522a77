"""Counts what a reader does: for its user to read, and for a callback."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

OnCount: TypeAlias = Callable[[str, int], None]  # gets a counter's name and what it rose by


class ReaderCounters:
    """Counts since the reader was made: items, but for cache_errors."""

    __slots__ = (
        "absent_hits",
        "cache_errors",
        "fills",
        "hits",
        "misses",
        "on_count",
        "over_budget",
        "refused_fills",
        "table_reads",
        "waits",
    )

    def __init__(self, on_count: OnCount | None = None) -> None:
        self.hits = 0  # the copy had the value
        self.misses = 0  # it did not
        self.absent_hits = 0  # misses of items that were known not to exist
        self.waits = 0  # misses that waited for another reader's load
        self.table_reads = 0  # items read from the table
        self.fills = 0  # values written to the copy
        self.refused_fills = 0  # not written: the lease was over, or Redis refused
        self.over_budget = 0  # refused, because the budget was used up
        self.cache_errors = 0  # requests to Redis that failed
        self.on_count = on_count

    def count(self, name: str, by: int = 1) -> None:
        """Raise a counter, and tell the callback."""
        setattr(self, name, getattr(self, name) + by)
        if self.on_count is not None:
            self.on_count(name, by)

    def as_dict(self) -> dict[str, int]:
        """Return every counter by its name."""
        return {name: getattr(self, name) for name in self.__slots__ if name != "on_count"}
