"""Reads a table's segments page by page, as keys and images."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from asyncsync.aws.budget import ReadBudget
from asyncsync.aws.clients import AwsClients
from asyncsync.aws.items import image_of, json_attributes, key_of, scan_page, sdk_attributes
from asyncsync.aws.tables import Table
from asyncsync.model import Key
from asyncsync.store import Clock


@dataclass(frozen=True, slots=True)
class SourcePage:
    """Some items of one part of a table, or of an export."""

    items: Sequence[tuple[Key, bytes]]  # key and image
    cursor: Any  # where the next page begins, as JSON; None: this was the part's last page
    read_s: float  # wall clock; the items are as they were then, or later


class TableScan:
    """Scans the segments of one table within a read budget."""

    def __init__(
        self,
        clients: AwsClients,
        table: Table,
        segments: int,
        budget: ReadBudget,
        wall_clock: Clock = time.time,
        page_items: int | None = None,
    ) -> None:
        self.parts = segments
        self.items = table.items  # about
        self._key_names = sorted(table.key)  # in the order that records have them
        self._budget = budget
        self._wall_clock = wall_clock
        self._scan = partial(scan_page, clients, table)
        self._page_items = page_items

    async def pages(self, part: int, cursor: Any) -> AsyncGenerator[SourcePage, None]:
        """Yield a segment's pages from a cursor; None begins at the segment's first item.

        Raises AwsFailed.
        """
        after = sdk_attributes(cursor) if cursor else None
        while True:
            read_s = self._wall_clock()
            ask = partial(self._scan, part, self.parts, after, self._page_items)
            page = await self._budget.read(ask)
            after = page.rest
            items = [(key_of(item, self._key_names), image_of(item)) for item in page.items]
            yield SourcePage(items, json_attributes(after) if after else None, read_s)
            if not after:
                return
