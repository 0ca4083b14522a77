"""Reads the copy for an audit: values, fences and key names. `remove` is the only write.

It uses the mirror's own kind of connection, so an audit needs no other access than the handler.
While Redis is unavailable it tries again, for a minute.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain, groupby, islice
from pathlib import Path
from typing import TypeVar

import anyio

from asyncsync.config import Config
from asyncsync.copy.delays import delays
from asyncsync.errors import StoreUnavailable
from asyncsync.formats import ARMS
from asyncsync.keys import slot
from asyncsync.mirror import Mirror
from asyncsync.model import Call, Entry, Outcome, Value
from asyncsync.store import SCRIPT, Store

# Waits while Redis is unavailable: a minute in all.
PAUSES_S = (*islice(delays(0.2, 25.6), 8),)

# Keys that one SCAN looks at. It blocks other clients for well under a millisecond.
SCAN_COUNT = 1_000

_READ = Path(__file__).with_name("read.lua").read_bytes()

# TYPE's replies for what the handler writes, and for no key.
STRING, NO_KEY = b"string", b"none"

# By format, the types of keys that are surely an item's: its own first. Strings may be there from
# before the copy's format changed.
OUR_TYPES = {
    "json": (STRING,),
    "dynamodb-json": (STRING,),
    "hash": (b"hash", STRING, b"ReJSON-RL"),
    "redis-json": (b"ReJSON-RL", STRING, b"hash"),
}

_RUN_ID = re.compile(rb"^run_id:(\w+)\r?$", re.MULTILINE)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A key's value and fence at one moment; with an error, neither is known.

    A hash's fields are in order. A key of another type than the format's has no value.
    """

    value: Value | None
    fence: bytes | None
    error: str = ""
    other_type: str = ""  # such as "list"; of strings only CopyReader.read_pairs looks for it


ABSENT = Snapshot(None, None)


async def read_pairs(
    store: Store, entries: Sequence[Entry], config: Config, end_s: float = float("inf")
) -> list[Snapshot]:
    """Read each entry's value and fence, both at one moment, before end_s on the store's clock.

    Raises StoreRefused.
    """
    calls = [read_call(at, config, entry.name, entry.fence) for at, entry in enumerate(entries)]
    written = await store.apply(calls, len(entries), end_s)
    return [snapshot_of(outcome, config) for outcome in written.outcomes]


def read_call(at: int, config: Config, *names: bytes) -> Call:
    """Make a call that reads a value, or a value and its fence, for snapshot_of."""
    command: tuple[bytes, ...] = (b"MGET",)
    if config.value in ARMS:
        command = (b"EVAL", read_script(config.value), b"%d" % len(names))
    return Call((*command, *names), (at,), fenced=False, slot=slot_of(names[0], config))


@lru_cache
def read_script(value_format: str) -> bytes:
    """Return the script without its comments: it is sent for each key."""
    return re.sub(rb"(?m)^ *--.*\n", b"", with_reader(_READ, value_format))


def with_reader(script: bytes, value_format: str) -> bytes:
    """Return a script after the function that reads values of a format; strings have none."""
    if value_format not in ARMS:
        return script
    return Path(__file__).with_name(f"read_{ARMS[value_format]}").read_bytes() + script


def slot_of(name: bytes, config: Config) -> int | None:
    """Return the slot of a name on a cluster; None where there is no cluster."""
    return slot(name) if config.redis_cluster else None


def snapshot_of(outcome: Outcome, config: Config) -> Snapshot:
    """Return what a read_call has read."""
    if outcome.kind == "failed":
        return Snapshot(None, None, f"{outcome.error}: {outcome.reason}")
    reply = outcome.reply
    assert isinstance(reply, list), "MGET and the script answer with a list"
    if config.value not in ARMS:
        value, fence = (*reply, None)[:2]
        return Snapshot(value, fence)
    state, value, fence = (*reply, None)[:3]
    if state != b"1":
        return Snapshot(None, fence, other_type=state.decode())
    if isinstance(value, list):  # the server gives a hash's fields in no order
        value = tuple(chain.from_iterable(sorted(zip(value[::2], value[1::2], strict=True))))
    return Snapshot(value, fence)


class CopyReader:
    """Reads one copy over its own connection; concurrent calls wait for each other.

    Every method raises StoreRefused, or StoreUnavailable where Redis is away for too long.
    """

    def __init__(
        self, mirror: Mirror, sleep: Callable[[float], Awaitable[None]] = anyio.sleep
    ) -> None:
        self._config = mirror.config
        self._store = mirror.new_store(SCRIPT)
        self._sleep = sleep
        self._turn = anyio.Lock()
        self.our_types = OUR_TYPES[self._config.value]

    async def read_pairs(self, entries: Sequence[Entry]) -> list[Snapshot]:
        """Read each entry's value and fence, both at one moment, then the types of other keys."""

        async def ask() -> tuple[list[Snapshot], str]:
            snapshots = await read_pairs(self._store, entries, self._config)
            return snapshots, next((each.error for each in snapshots if each.error), "")

        snapshots = await self._with_retries(ask)
        if self._config.value in ARMS:
            return snapshots
        without = [at for at, each in enumerate(snapshots) if each.value is None]
        types = await self.types([entries[at].name for at in without])
        for at, kind in zip(without, types, strict=True):
            if kind not in (STRING, NO_KEY):
                snapshots[at] = replace(snapshots[at], other_type=kind.decode())
        return snapshots

    async def nodes(self) -> list[int | None]:
        """Return one slot of each primary, to address it by; [None] without a cluster."""
        if not self._config.redis_cluster:
            return [None]
        (outcome,) = await self._ask([Call((b"CLUSTER", b"SLOTS"), (0,), fenced=False, slot=0)])
        assert isinstance(outcome.reply, list), "CLUSTER SLOTS answers with a list"
        owners = sorted((bytes(primary[2]), first) for first, _, primary, *_ in outcome.reply)
        return [next(iter(slots))[1] for _, slots in groupby(owners, key=lambda owner: owner[0])]

    async def servers(self, nodes: Sequence[int | None]) -> list[str]:
        """Return each node's identity, which a restart changes; "" where it has none."""
        calls = [
            Call((b"INFO", b"server"), (at,), fenced=False, slot=node)
            for at, node in enumerate(nodes)
        ]
        replies = [outcome.reply for outcome in await self._ask(calls, accepted=("ERR",))]
        run_ids = [_RUN_ID.search(each if isinstance(each, bytes) else b"") for each in replies]
        return [
            f"{node} {run_id[1].decode()}" if run_id else ""
            for node, run_id in zip(nodes, run_ids, strict=True)
        ]

    async def names(
        self, pattern: bytes, node: int | None, cursor: str
    ) -> tuple[list[bytes], str | None]:
        """Scan a node once for keys that match a pattern; return names and the next cursor.

        A name may come more than once. The cursor is None when the scan is complete.
        """
        scan = (b"SCAN", cursor.encode(), b"MATCH", pattern, b"COUNT", b"%d" % SCAN_COUNT)
        (outcome,) = await self._ask([Call(scan, (0,), fenced=False, slot=node)])
        assert isinstance(outcome.reply, list), "SCAN answers with a list"
        next_cursor, names = outcome.reply
        return names, None if next_cursor == b"0" else next_cursor.decode()

    async def types(self, names: Sequence[bytes]) -> list[bytes]:
        """Return each key's type: one of our_types for the handler's values, or NO_KEY."""
        if not names:
            return []
        outcomes = await self._ask([self._call(at, (b"TYPE", n)) for at, n in enumerate(names)])
        return [each.reply if isinstance(each.reply, bytes) else b"" for each in outcomes]

    async def values(self, names: Sequence[bytes]) -> list[Value | None]:
        """Return each key's value; None where there is no key or it is of another type."""
        calls = [read_call(at, self._config, name) for at, name in enumerate(names)]
        outcomes = await self._ask(calls)
        return [snapshot_of(outcome, self._config).value for outcome in outcomes]

    async def remove(self, names: Sequence[bytes]) -> None:
        """Remove keys of any type."""
        await self._ask([self._call(at, (b"DEL", name)) for at, name in enumerate(names)])

    def close(self) -> None:
        """Close the connection."""
        self._store.close()

    def _call(self, at: int, arguments: tuple[bytes, ...]) -> Call:
        return Call(arguments, (at,), fenced=False, slot=slot_of(arguments[1], self._config))

    async def _ask(
        self, calls: Sequence[Call], accepted: Collection[str] = ()
    ) -> Sequence[Outcome]:
        """Send calls until each has a reply; an accepted error counts as one."""

        async def ask() -> tuple[Sequence[Outcome], str]:
            written = await self._store.apply(calls, len(calls), float("inf"))
            failed = [
                outcome
                for outcome in written.outcomes
                if outcome.kind == "failed" and outcome.error not in accepted
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
