"""Scans the copy's key names node by node, so that a run can end between any two replies.

A SCAN cursor belongs to one server since its start: with another server it would leave keys
out. So a saved scan is resumed only if every node says that it is still the same server. If
not, the scan begins again, and fails if that happens too often.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from asyncsync.copy.names import KeyNames
from asyncsync.copy.reader import CopyReader
from asyncsync.model import Key
from asyncsync.tools.cursors import Cursors, Page
from asyncsync.tools.deadline import TimeLeft
from asyncsync.tools.errors import CommandFailed

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")

# A scan may begin so often without coming to its end. A server that does not say who it is, or
# says another name each time, would be scanned for ever; failovers are rarer than this.
BEGINNINGS_MAX = 5


@dataclass(frozen=True, slots=True)
class KeyScan(Generic[T]):
    """A scan of the copy's key names: its nodes, their servers, and how far it is."""

    nodes: Sequence[int | None]
    servers: Sequence[str]  # none where nothing is saved
    cursors: Cursors[T]
    beginnings: int = 0  # without coming to an end

    def document(self) -> dict[str, Any]:
        """Return the state to resume from, as JSON."""
        return {
            "servers": self.servers,
            "cursors": self.cursors.document(),
            "beginnings": self.beginnings,
        }


async def open_scan(
    copy: CopyReader, tally: T, document: Mapping[str, Any], *, is_saved: bool
) -> KeyScan[T]:
    """Resume a scan of key names if its servers are the same, else begin it.

    Raises what reading the copy raises, and CommandFailed if it began too often.
    """
    nodes = await copy.nodes()
    servers = await copy.servers(nodes) if is_saved else []
    before = document.get("cursors", {})
    is_resumed = all(servers) and document.get("servers") == servers
    was_begun = before.get("next", 0) > 0
    beginnings = document.get("beginnings", 0) + (was_begun and not is_resumed)
    if beginnings >= BEGINNINGS_MAX:
        raise CommandFailed(
            f"the scan of the copy's keys began {beginnings} times and never came to its end: "
            "each time the server says that it is another one (run_id of INFO), or does not say. "
            "Give the scan more time, or leave it out with --no-orphans"
        )
    cursors = Cursors(len(nodes), tally, before if is_resumed else None)
    return KeyScan(nodes, servers, cursors, beginnings)


async def scan_keys(
    copy: CopyReader,
    pattern: bytes,
    scan: KeyScan[T],
    make_tally: Callable[[], T],
    time_left: TimeLeft,
) -> AsyncIterator[tuple[list[bytes], Page[T]]]:
    """Yield key names that match a pattern, and their page, until all are read or time is up.

    A name may come twice. Raises what reading the copy raises, and CommandFailed if a cluster's
    slots moved meanwhile.
    """
    async for names in _scan_nodes(copy, pattern, scan, make_tally, time_left):
        yield names
    if await copy.nodes() != scan.nodes:
        raise CommandFailed("the cluster's slots moved while its keys were scanned: run it again")


async def _scan_nodes(
    copy: CopyReader,
    pattern: bytes,
    scan: KeyScan[T],
    make_tally: Callable[[], T],
    time_left: TimeLeft,
) -> AsyncIterator[tuple[list[bytes], Page[T]]]:
    for part, saved_cursor in scan.cursors.todo():
        cursor: str | None = saved_cursor or "0"
        while cursor is not None:
            names, cursor = await copy.names(pattern, scan.nodes[part], cursor)
            yield names, scan.cursors.add_page(part, cursor, make_tally())
            if time_left() <= 0:
                return


async def keys_of(
    names: Sequence[bytes], key_names: KeyNames, copy: CopyReader
) -> list[Key | None]:
    """Read the item's key out of each name, or out of its value if the name does not say.

    The result is in the names' order; None for a name of no item. Raises what reading the copy
    raises.
    """
    keys = [key_names.read(name) for name in names]
    unread = [
        at for at, key in enumerate(keys) if key is None and key_names.may_be_hashed(names[at])
    ]
    if not unread:
        return keys
    values = await copy.values([names[at] for at in unread])
    for at, value in zip(unread, values, strict=True):
        if value is not None:
            keys[at] = key_names.read_by_value(names[at], value)
    return keys
