"""The copy's names, node by node, so that a slice can end between any two answers of SCAN.

A cursor is of one server, from when it was started: another would leave names out. So what was
scanned before counts only while every node says that it is the server that it was; else all
begins anew, and is given up where that goes on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from asyncsync.copy.reader import Copy
from asyncsync.tools.cursors import Cursors, Page
from asyncsync.tools.deadline import TimeLeft
from asyncsync.tools.errors import CommandFailed

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")

# A server that does not say who it is, or another each time, would be scanned for ever: so often
# may a scan begin that did not end in its slice. Failovers are rarer.
BEGINNINGS_MAX = 5


@dataclass(frozen=True, slots=True)
class KeyScan(Generic[T]):
    """A scan of the copy's names: its nodes, which servers they are, and how far it is."""

    nodes: Sequence[int | None]
    servers: Sequence[str]  # none where nothing is kept
    trail: Cursors[T]
    beginnings: int = 0  # that came to no end

    def document(self) -> dict[str, Any]:
        """Write down what can be gone on from."""
        made = {"servers": self.servers, "trail": self.trail.document()}
        return made | {"beginnings": self.beginnings}


async def naming(copy: Copy, tally: T, held: Mapping[str, Any], *, kept: bool) -> KeyScan[T]:
    """Begin to scan names, or go on where the servers are those that they were.

    Raises what asking the copy raises, and CommandFailed where it began too often.
    """
    nodes = await copy.nodes()
    servers = await copy.servers(nodes) if kept else []
    before = held.get("trail", {})
    is_resumed = all(servers) and held.get("servers") == servers
    was_begun = before.get("next", 0) > 0
    beginnings = held.get("beginnings", 0) + (was_begun and not is_resumed)
    if beginnings >= BEGINNINGS_MAX:
        raise CommandFailed(
            f"the copy's names were scanned {beginnings} times and never to their end: the server "
            "says each time that it is another one (run_id of INFO), or does not say; give the "
            "scan more time, or leave it out with --no-orphans"
        )
    trail = Cursors(len(nodes), tally, before if is_resumed else None)
    return KeyScan(nodes, servers, trail, beginnings)


async def names_of(
    copy: Copy, pattern: bytes, naming: KeyScan[T], make_tally: Callable[[], T], left_s: TimeLeft
) -> AsyncIterator[tuple[list[bytes], Page[T]]]:
    """Give names that a pattern fits, each few with their step, until all are or time is up.

    Raises what asking the copy raises, and CommandFailed where a cluster's slots have moved.
    """
    async for few in _some(copy, pattern, naming, make_tally, left_s):
        yield few
    if await copy.nodes() != naming.nodes:
        raise CommandFailed("the cluster's slots moved while names were read: run it again")


async def _some(
    copy: Copy, pattern: bytes, naming: KeyScan[T], make_tally: Callable[[], T], left_s: TimeLeft
) -> AsyncIterator[tuple[list[bytes], Page[T]]]:
    for part, place in naming.trail.todo():
        cursor: str | None = place or "0"
        while cursor is not None:
            found, cursor = await copy.names(pattern, naming.nodes[part], cursor)
            yield found, naming.trail.add_page(part, cursor, make_tally())
            if left_s() <= 0:
                return
