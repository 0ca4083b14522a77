"""The copy's names, node by node, so that a slice can end between any two answers of SCAN.

A cursor is of one server, from when it was started: another would leave names out. So what was
scanned before counts only while every node is the server that it was; else all begins anew.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from asyncsync.operate.copy import Copy
from asyncsync.operate.errors import CommandFailed
from asyncsync.operate.slices import LeftS
from asyncsync.operate.trail import Step, Trail

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")


@dataclass(frozen=True, slots=True)
class Naming(Generic[T]):
    """A scan of the copy's names: its nodes, which servers they are, and how far it is."""

    nodes: Sequence[int | None]
    servers: Sequence[str]  # none where nothing is kept
    trail: Trail[T]

    def document(self) -> dict[str, Any]:
        """Write down what can be gone on from."""
        return {"servers": self.servers, "trail": self.trail.document()}


async def naming(copy: Copy, tally: T, held: Mapping[str, Any], *, kept: bool) -> Naming[T]:
    """Begin to scan names, or go on where the servers are those that they were.

    Raises what asking the copy raises.
    """
    nodes = await copy.nodes()
    servers = await copy.servers(nodes) if kept else []
    same = held.get("trail") if held.get("servers") == servers else None
    return Naming(nodes, servers, Trail(len(nodes), tally, same))


async def names_of(
    copy: Copy, pattern: bytes, naming: Naming[T], make_tally: Callable[[], T], left_s: LeftS
) -> AsyncIterator[tuple[list[bytes], Step[T]]]:
    """Give names that a pattern fits, each few with their step, until all are or time is up.

    Raises what asking the copy raises, and CommandFailed where a cluster's slots have moved.
    """
    async for few in _some(copy, pattern, naming, make_tally, left_s):
        yield few
    if await copy.nodes() != naming.nodes:
        raise CommandFailed("the cluster's slots moved while names were read: run it again")


async def _some(
    copy: Copy, pattern: bytes, naming: Naming[T], make_tally: Callable[[], T], left_s: LeftS
) -> AsyncIterator[tuple[list[bytes], Step[T]]]:
    for part, place in naming.trail.todo():
        cursor: str | None = place or "0"
        while cursor is not None:
            found, cursor = await copy.names(pattern, naming.nodes[part], cursor)
            yield found, naming.trail.step(part, cursor, make_tally())
            if left_s() <= 0:
                return
