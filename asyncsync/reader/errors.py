"""The reader's own errors."""

from __future__ import annotations

from asyncsync.errors import AsyncsyncError


class TableBudgetExceeded(AsyncsyncError):
    """The copy has no answer, and the budget of reads from the table is used up for now."""

    def __init__(self, per_s: int) -> None:
        super().__init__(
            f"the copy has no answer, and {per_s:,} items a second were read from the table "
            "already: try again later, set table_reads_per_s higher, or ask with copy_only=True"
        )
