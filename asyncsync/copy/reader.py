"""The copy as an audit reads it: names, values, fences; it writes nothing but what it is told to.

It reads through the mirror's own kind of connection, so whatever lets the handler in lets an
audit in. Where Redis is away it is asked again, for a minute.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import TypeVar

import anyio

from asyncsync.config import Config
from asyncsync.copy.delays import delays
from asyncsync.errors import StoreUnavailable
from asyncsync.keys import slot
from asyncsync.mirror import Mirror
from asyncsync.model import Call, Entry, Outcome
from asyncsync.store import SCRIPT, Store

# Waits while Redis is away: doubled each time, a minute in all.
PAUSES_S = (*islice(delays(0.2, 25.6), 8),)

# Names that one SCAN looks at: what others wait for meanwhile, well under a millisecond.
SCAN_COUNT = 1_000

_OF_ANOTHER_TYPE = "WRONGTYPE"

_RUN_ID = re.compile(rb"^run_id:(\w+)\r?$", re.MULTILINE)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A key's value and fence at one moment; with an error, neither is known."""

    value: bytes | None
    fence: bytes | None
    error: str = ""


ABSENT = Snapshot(None, None)


async def read_pairs(
    store: Store, named: Sequence[Entry], config: Config, end_s: float = float("inf")
) -> list[Snapshot]:
    """Read value and fence of each entry's names, both at one moment, before end_s.

    Raises StoreRefused.
    """
    calls = [
        Call(
            (b"MGET", each.name, each.fence), (at,), fenced=False, slot=slot_of(each.name, config)
        )
        for at, each in enumerate(named)
    ]
    written = await store.apply(calls, len(named), end_s)
    return [_snapshot(outcome) for outcome in written.outcomes]


def slot_of(name: bytes, config: Config) -> int | None:
    """Return the slot that a cluster keeps a name in; None where there is no cluster."""
    return slot(name) if config.redis_cluster else None


def _snapshot(outcome: Outcome) -> Snapshot:
    if outcome.kind == "failed":
        return Snapshot(None, None, f"{outcome.error}: {outcome.reason}")
    assert isinstance(outcome.reply, list), "MGET answers with a list"
    value, fence = outcome.reply
    return Snapshot(value, fence)


class CopyReader:
    """Reads one copy, on a connection of its own; its calls wait for each other."""

    def __init__(
        self, mirror: Mirror, sleep: Callable[[float], Awaitable[None]] = anyio.sleep
    ) -> None:
        self._config = mirror.config
        self._store = mirror.new_store(SCRIPT)
        self._sleep = sleep
        self._turn = anyio.Lock()

    async def read_pairs(self, named: Sequence[Entry]) -> list[Snapshot]:
        """Read value and fence of each entry's names, both at one moment.

        Raises StoreRefused, or StoreUnavailable where Redis is away for too long.
        """

        async def ask() -> tuple[list[Snapshot], str]:
            seen = await read_pairs(self._store, named, self._config)
            return seen, next((each.error for each in seen if each.error), "")

        return await self._with_retries(ask)

    async def nodes(self) -> list[int | None]:
        """Return a slot of each primary, by which a command is sent to it.

        Raises what read_pairs raises.
        """
        if not self._config.redis_cluster:
            return [None]
        (outcome,) = await self._ask([Call((b"CLUSTER", b"SLOTS"), (0,), fenced=False, slot=0)])
        assert isinstance(outcome.reply, list), "CLUSTER SLOTS answers with a list"
        held = sorted((bytes(primary[2]), first) for first, _, primary, *_ in outcome.reply)
        return [next(iter(slots))[1] for _, slots in groupby(held, key=lambda each: each[0])]

    async def servers(self, nodes: Sequence[int | None]) -> list[str]:
        """Say which server each node is, and of which start; nothing where it does not say.

        Raises what read_pairs raises.
        """
        calls = [
            Call((b"INFO", b"server"), (at,), fenced=False, slot=node)
            for at, node in enumerate(nodes)
        ]
        said = [each.reply for each in await self._ask(calls, but=("ERR",))]
        found = [_RUN_ID.search(each if isinstance(each, bytes) else b"") for each in said]
        return [
            f"{node} {each[1].decode()}" if each else ""
            for node, each in zip(nodes, found, strict=True)
        ]

    async def names(
        self, pattern: bytes, node: int | None, cursor: str
    ) -> tuple[list[bytes], str | None]:
        """Name some keys that fit a pattern, perhaps not for the first time, and where to go on.

        None is the end. Raises what read_pairs raises.
        """
        scan = (b"SCAN", cursor.encode(), b"MATCH", pattern, b"COUNT", b"%d" % SCAN_COUNT)
        (outcome,) = await self._ask([Call(scan, (0,), fenced=False, slot=node)])
        assert isinstance(outcome.reply, list), "SCAN answers with a list"
        after, found = outcome.reply
        return found, None if after == b"0" else after.decode()

    async def types(self, names: Sequence[bytes]) -> list[bytes]:
        """Return the type of each key: b"string" for what the handler writes, b"none"."""
        outcomes = await self._ask([self._call(at, (b"TYPE", n)) for at, n in enumerate(names)])
        return [each.reply if isinstance(each.reply, bytes) else b"" for each in outcomes]

    async def values(self, names: Sequence[bytes]) -> list[bytes | None]:
        """Return the value of each key; None where there is none or it is of another type."""
        outcomes = await self._ask([self._call(at, (b"GET", n)) for at, n in enumerate(names)])
        return [each.reply if isinstance(each.reply, bytes) else None for each in outcomes]

    async def remove(self, names: Sequence[bytes]) -> None:
        """Remove keys, whatever they hold."""
        await self._ask([self._call(at, (b"DEL", name)) for at, name in enumerate(names)])

    def close(self) -> None:
        """Throw the connection away."""
        self._store.close()

    def _call(self, at: int, arguments: tuple[bytes, ...]) -> Call:
        return Call(arguments, (at,), fenced=False, slot=slot_of(arguments[1], self._config))

    async def _ask(
        self, calls: Sequence[Call], but: Collection[str] = (_OF_ANOTHER_TYPE,)
    ) -> Sequence[Outcome]:
        """Ask until each is answered, if with an error that is one of these."""

        async def ask() -> tuple[Sequence[Outcome], str]:
            written = await self._store.apply(calls, len(calls), float("inf"))
            failed = [
                each
                for each in written.outcomes
                if each.kind == "failed" and each.error not in but
            ]
            return written.outcomes, f"{failed[0].error}: {failed[0].reason}" if failed else ""

        return await self._with_retries(ask)

    async def _with_retries(self, ask: Callable[[], Awaitable[tuple[T, str]]]) -> T:
        async with self._turn:
            for pause_s in (*PAUSES_S, None):
                answer, error = await ask()
                if not error:
                    return answer
                if pause_s is None:
                    raise StoreUnavailable(f"Redis at {self._config.server.address}", error)
                await self._sleep(pause_s)
        raise AssertionError("the last try returns or raises")
