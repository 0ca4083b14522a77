"""Loads what the copy lacks: lease, consistent read, load. One load of a key at a time.

In a process the callers for a key share one flight, and those who come while it is under way the
next one: nothing read before a caller came answers it. Between processes the lease decides: a
reader that meets another's waits for the value for a bounded time, then reads the table without
writing. A flight answers its callers as soon as the item is read; the write to the copy follows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from asyncsync.copy.delays import delays
from asyncsync.copy.entries import ReadItems, entries_of
from asyncsync.encode import EncodeRules
from asyncsync.errors import AsyncsyncError, RecordError
from asyncsync.fence import NONCE_DIGITS
from asyncsync.model import Entry
from asyncsync.reader.bucket import TokenBucket
from asyncsync.reader.cache import Cache, NoAnswer, Script
from asyncsync.reader.counters import ReaderCounters
from asyncsync.reader.errors import TableBudgetExceeded
from asyncsync.reader.limits import BATCH_KEYS_MAX, POLL_FIRST_S, POLL_LAST_S
from asyncsync.reader.names import ItemNames
from asyncsync.reader.options import ReaderOptions
from asyncsync.reader.protocol import (
    LEASE_SCRIPT,
    LOAD_SCRIPT,
    Absent,
    Arguments,
    Busy,
    Hit,
    Lease,
    fence_after_load,
    fence_after_release,
    fence_of_absent,
    lease_arguments,
    load_arguments,
    nonce_of,
    read_lease,
    read_load,
    writes_value,
)
from asyncsync.store import Clock


@dataclass(eq=False, slots=True)
class _Flight:
    """One item's load: its callers wait for the result, a value or None."""

    item: ItemNames
    result: asyncio.Future[bytes | None]
    lease: Lease | None = None

    def answer(self, value: bytes | None) -> None:
        if not self.result.done():
            self.result.set_result(value)

    def fail(self, error: BaseException) -> None:
        if not self.result.done():
            self.result.set_exception(error)
            self.result.exception()  # its callers may all have gone


@dataclass(frozen=True, slots=True)
class Edges:
    """What a loader takes from outside: clocks, sleep and chance."""

    clock: Clock
    wall_clock: Clock
    sleep: Callable[[float], Any]
    chance: Random


class Loader:
    """Loads items of one table into its copy; `read` reads them consistently."""

    def __init__(
        self,
        cache: Cache,
        read: ReadItems,
        table: str,
        rules: EncodeRules,
        options: ReaderOptions,
        counters: ReaderCounters,
        edges: Edges,
    ) -> None:
        self._cache = cache
        self._read = read
        self._table = table
        self._rules = rules
        self._options = options
        self._counters = counters
        self._edges = edges
        self._wait_s = options.wait_ms / 1_000
        self._bucket = TokenBucket(options.table_reads_per_s, edges.clock())
        self._batch_keys = min(BATCH_KEYS_MAX, options.table_reads_per_s)
        self._lease, self._load = Script(LEASE_SCRIPT), Script(LOAD_SCRIPT)
        self._boarding: dict[bytes, _Flight] = {}  # not begun: callers may still join
        self._flying: dict[bytes, _Flight] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def load(self, items: Sequence[ItemNames]) -> list[bytes | None]:
        """Return each item's value; None where the item does not exist.

        Raises what reading the table raises, TableBudgetExceeded, or RecordError where an item
        cannot be encoded.
        """
        flights = [self._boarding.get(item.name) for item in items]
        new: dict[bytes, _Flight] = {}
        for at, item in enumerate(items):
            if flights[at] is None:
                if item.name not in new:
                    new[item.name] = _Flight(item, asyncio.get_running_loop().create_future())
                flights[at] = new[item.name]
        if new:
            self._boarding |= new
            task = asyncio.create_task(self._run(list(new.values())))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        # Shielded: a caller that gives up must not end the flight of the others.
        results = [asyncio.shield(flight.result) for flight in flights if flight is not None]
        if len(results) == 1:
            return [await results[0]]
        return list(await asyncio.gather(*results))

    async def read(self, item: ItemNames) -> bytes | None:
        """Read one item's value from the table and write nothing; raises what load does."""
        flight = _Flight(item, asyncio.get_running_loop().create_future())
        await self._read_batch([flight])
        return await flight.result

    async def finish(self) -> None:
        """Wait for the loads that are under way."""
        if self._tasks:
            await asyncio.wait({*self._tasks})

    async def _run(self, flights: Sequence[_Flight]) -> None:
        try:
            await self._depart(flights)
            await self._fly(flights)
        except Exception as exc:
            for flight in flights:
                flight.fail(exc)
        finally:
            for flight in flights:
                flight.result.cancel()  # without effect where there is a result
                for flights_of in (self._boarding, self._flying):
                    if flights_of.get(flight.item.name) is flight:
                        del flights_of[flight.item.name]

    async def _depart(self, flights: Sequence[_Flight]) -> None:
        """Wait until earlier flights for the same items have an answer, then close to callers.

        A caller may have seen that the copy has changed, so nothing read before it came is an
        answer to it.
        """
        for flight in flights:
            earlier = self._flying.get(flight.item.name)
            if earlier is not None and not earlier.result.done():
                await asyncio.wait([earlier.result])
        for flight in flights:
            del self._boarding[flight.item.name]
            self._flying[flight.item.name] = flight

    async def _fly(self, flights: Sequence[_Flight]) -> None:
        edges = self._edges
        end_s = edges.clock() + self._wait_s
        busy = await self._begin_all(flights)
        if busy:
            self._counters.count("waits", len(busy))
        for pause_s in delays(POLL_FIRST_S, POLL_LAST_S):
            if not busy or edges.clock() >= end_s:
                break
            await edges.sleep(pause_s * edges.chance.uniform(0.5, 1.0))
            busy = await self._begin_all(busy)
        for batch in self._batches(busy):
            await self._read_batch(batch)

    def _batches(self, flights: Sequence[_Flight]) -> Iterator[Sequence[_Flight]]:
        for first in range(0, len(flights), self._batch_keys):
            yield flights[first : first + self._batch_keys]

    async def _begin_all(self, flights: Sequence[_Flight]) -> list[_Flight]:
        """Begin batch by batch, so that each lease is young when its item is read."""
        busy: list[_Flight] = []
        for batch in self._batches(flights):
            busy += await self._begin(batch)
        return busy

    async def _begin(self, flights: Sequence[_Flight]) -> list[_Flight]:
        """Ask for leases, and load what need not wait; return the flights that must."""
        digits = 10**NONCE_DIGITS
        calls = [
            lease_arguments(
                flight.item.name,
                flight.item.fence,
                nonce_of(self._edges.chance.randrange(digits)),
                self._options.lease_ms,
            )
            for flight in flights
        ]
        busy, ready = [], []
        replies = await self._cache.run(self._lease, calls)
        for flight, raw in zip(flights, replies, strict=True):
            reply = None if isinstance(raw, NoAnswer) else read_lease(raw)
            if isinstance(reply, Hit):
                flight.answer(reply.value)
            elif isinstance(reply, Absent):
                self._counters.count("absent_hits")
                flight.answer(None)
            elif isinstance(reply, Busy):
                busy.append(flight)
            else:
                flight.lease = reply if isinstance(reply, Lease) else None
                ready.append(flight)
        if ready:
            await self._read_batch(ready)
        return busy

    async def _read_batch(self, flights: Sequence[_Flight]) -> None:
        """Read items within the budget, answer, then write to the copy what may be written."""
        await self._write(await self._read_items(flights))

    async def _read_items(self, flights: Sequence[_Flight]) -> list[Arguments | None]:
        """Read items, and answer or fail their flights; return the arguments of their loads."""
        wait_s = self._bucket.reserve(len(flights), self._edges.clock(), self._wait_s)
        if wait_s is None:
            self._counters.count("over_budget", len(flights))
            for flight in flights:
                flight.fail(TableBudgetExceeded(self._options.table_reads_per_s))
            return [_release(flight) for flight in flights]
        if wait_s:
            await self._edges.sleep(wait_s)
        self._counters.count("table_reads", len(flights))
        keys = [flight.item.key for flight in flights]
        try:
            images = await self._read(keys)
        except AsyncsyncError as exc:
            for flight in flights:
                flight.fail(exc)
            return [_release(flight) for flight in flights]
        now_ms = int(self._edges.wall_clock() * 1_000)
        pairs = list(zip(keys, images, strict=True))
        entries = entries_of(pairs, self._table, self._rules, now_ms)
        return [
            self._answer(flight, each.entry, each.fault, now_ms)
            for flight, each in zip(flights, entries, strict=True)
        ]

    def _answer(
        self, flight: _Flight, entry: Entry | None, fault: str, now_ms: int
    ) -> Arguments | None:
        """Answer a flight's callers; return the arguments of its load."""
        if fault or entry is None:
            flight.fail(RecordError(fault))
            return _release(flight)
        assert not isinstance(entry.value, tuple), "the reader refuses hashes"
        flight.answer(entry.value)
        lease, item, options = flight.lease, flight.item, self._options
        if lease is None:
            return None
        if entry.value is None:
            fence = fence_of_absent(lease, options.lease_ms, options.absent_ms)
            return load_arguments(item.name, item.fence, lease, fence)
        expires_at_ms = self._expiry_ms(entry.expires_at_ms, now_ms)
        fence = fence_after_load(lease)
        return load_arguments(item.name, item.fence, lease, fence, entry.value, expires_at_ms)

    def _expiry_ms(self, expires_at_ms: int, now_ms: int) -> int:
        """Return when a value expires: of ttl_s, up to the jitter's share is taken away."""
        ttl_s = self._rules.config.ttl_s
        if ttl_s is None:
            return expires_at_ms
        share = 1 - self._edges.chance.uniform(0, self._options.jitter)
        return min(expires_at_ms, now_ms + int(ttl_s * 1_000 * share))

    async def _write(self, loads: Sequence[Arguments | None]) -> None:
        calls = [arguments for arguments in loads if arguments is not None]
        if not calls:
            return
        replies = await self._cache.run(self._load, calls)
        for arguments, reply in zip(calls, replies, strict=True):
            if writes_value(arguments):
                self._counters.count("fills" if read_load(reply) else "refused_fills")


def _release(flight: _Flight) -> Arguments | None:
    if flight.lease is None:
        return None
    item, lease = flight.item, flight.lease
    return load_arguments(item.name, item.fence, lease, fence_after_release(lease))
