"""Reads items from the copy; what the copy lacks comes from the table and goes into the copy."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AsyncExitStack, ExitStack
from random import Random, SystemRandom
from typing import TYPE_CHECKING, Any, Literal, Self, overload

from msgspec import structs

from asyncsync.aws.table_reads import TableReads, open_dynamodb
from asyncsync.aws.tables import parse_table_arn
from asyncsync.config import Config
from asyncsync.encode import EncodeRules
from asyncsync.errors import ConfigError, RecordError
from asyncsync.mirror import Mirror
from asyncsync.reader.cache import NO_ANSWER, Cache, NoAnswer
from asyncsync.reader.circuit import CircuitState
from asyncsync.reader.clients import new_redis, refuse_decoding
from asyncsync.reader.counters import OnCount, ReaderCounters
from asyncsync.reader.errors import TableBudgetExceeded
from asyncsync.reader.limits import BATCH_KEYS_MAX, POLL_LAST_S
from asyncsync.reader.loader import Edges, Loader
from asyncsync.reader.names import ItemKey, ItemNamer, ItemNames
from asyncsync.reader.options import ReaderOptions
from asyncsync.reader.values import ITEM_READERS, PlainItem, read_item
from asyncsync.store import Clock

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal
    from types_aiobotocore_dynamodb import DynamoDBClient

    from asyncsync.reader.cache import RedisClient


class Reader:
    """Read a table's items through its copy in Redis.

        async with Reader(mirror, "Players") as reader:
            player = await reader.get({"Number": 10})  # a dict, or None

    A hit is one GET. A miss reads the table and writes the item to the copy, unless the stream
    has brought a newer change meanwhile. While Redis is away, reads come from the table.

    Args:
        settings: Your mirror, or its Config where it has no key function and no transform.
        table: The table's name or ARN.
        redis: A client of redis.asyncio, single or cluster; yours to close. By default the
            reader makes one from the settings.
        dynamodb: An aiobotocore client of DynamoDB; yours to close. By default the reader makes
            one.
        region: The Region of the client that the reader makes; by default the ARN's, or the
            SDK's own.
        endpoint_url: The endpoint of the client that the reader makes.
        options: How it behaves, such as ReaderOptions(wait_ms=200).
        on_count: Is called with a counter's name and its rise; see `counters`.
        clock: Tells seconds that never go back; for tests.
        wall_clock: Tells epoch seconds; for tests.
        chance: Makes nonces and jitter; for tests.

    Raises:
        ConfigError: An argument is wrong, or the fence is off.
    """

    def __init__(
        self,
        settings: Config | Mirror,
        table: str,
        *,
        redis: RedisClient | None = None,
        dynamodb: DynamoDBClient | None = None,
        region: str | None = None,
        endpoint_url: str | None = None,
        options: ReaderOptions | None = None,
        on_count: OnCount | None = None,
        clock: Clock = time.monotonic,
        wall_clock: Clock = time.time,
        chance: Random | None = None,
    ) -> None:
        self._rules = _rules_of(settings)
        if redis is not None:
            refuse_decoding(redis)
        arn = parse_table_arn(table)
        self._table = arn.name if arn else table
        self._address = table
        self._redis, self._dynamodb = redis, dynamodb
        self._region = region or (arn.region if arn else None)
        self._endpoint_url = endpoint_url
        self._options = options or ReaderOptions()
        self._edges = Edges(clock, wall_clock, asyncio.sleep, chance or SystemRandom())
        self._namer = ItemNamer(self._table, self._rules)
        self._stack = AsyncExitStack()
        self._cache: Cache | None = None
        self._loader: Loader | None = None
        self.counters = ReaderCounters(on_count)

    @classmethod
    def sync(cls, settings: Config | Mirror, table: str, **arguments: Any) -> BlockingReader:
        """Return a reader for programs without an event loop; it takes the same arguments.

        Its methods block, in any thread: `with Reader.sync(mirror, "Players") as reader`.
        """
        return BlockingReader(lambda: cls(settings, table, **arguments))

    @property
    def circuit(self) -> CircuitState:
        """Return whether Redis is asked: "closed" it is, "open" it is not, "half-open" a probe."""
        return "closed" if self._cache is None else self._cache.circuit.state

    @property
    def last_cache_error(self) -> str:
        """Return what Redis or the way to it said last, for a person to read; empty: nothing."""
        return "" if self._cache is None else self._cache.last_error

    async def __aenter__(self) -> Self:
        """Open the clients that were not given; neither server is asked yet."""
        config = self._rules.config
        async with AsyncExitStack() as stack:
            redis = self._redis
            if redis is None:
                redis = new_redis(config, self._region, self._edges.wall_clock)
                stack.push_async_callback(redis.aclose)
            dynamodb = self._dynamodb
            if dynamodb is None:
                opened = open_dynamodb(self._region, self._endpoint_url)
                dynamodb = await stack.enter_async_context(opened)
            timeout_s = self._options.timeout_ms / 1_000
            self._cache = Cache(redis, timeout_s, self.counters, self._edges.clock)
            self._loader = Loader(
                self._cache,
                TableReads(dynamodb, self._address).read,
                self._table,
                self._rules,
                self._options,
                self.counters,
                self._edges,
            )
            stack.push_async_callback(self._loader.finish)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Wait for loads that are under way, then close the clients that this reader made."""
        await self._stack.aclose()
        self._cache = self._loader = None

    @overload
    async def get(
        self, key: ItemKey, *, as_bytes: Literal[False] = ..., copy_only: bool = ...
    ) -> PlainItem | None: ...

    @overload
    async def get(
        self, key: ItemKey, *, as_bytes: Literal[True], copy_only: bool = ...
    ) -> bytes | None: ...

    async def get(
        self, key: ItemKey, *, as_bytes: bool = False, copy_only: bool = False
    ) -> PlainItem | bytes | None:
        """Return an item, or None where it does not exist: `await get({"Number": 10})`.

        Args:
            key: The item's key attributes, as Python values or DynamoDB JSON.
            as_bytes: Return the value's bytes instead of the item, whose numbers are Decimal.
            copy_only: Never read the table: None also where the copy has no value.

        Raises:
            AwsFailed: The table could not be read. Redis never raises.
            TableBudgetExceeded: Too many items were read from the table in the last second.
            RecordError: The key is none of a table's, the transform fails on the item, or its
                bytes are no item.
        """
        names = self._namer.names(key)
        reply = await self._opened()[0].get(names.name)
        if isinstance(reply, bytes):
            self.counters.count("hits")
            value: bytes | None = reply
        else:
            (value,) = await self._values([names], [reply], copy_only)
        if as_bytes or value is None:
            return value
        return await self._item(names, value, copy_only)

    @overload
    async def get_many(
        self, keys: Iterable[ItemKey], *, as_bytes: Literal[False] = ..., copy_only: bool = ...
    ) -> list[PlainItem | None]: ...

    @overload
    async def get_many(
        self, keys: Iterable[ItemKey], *, as_bytes: Literal[True], copy_only: bool = ...
    ) -> list[bytes | None]: ...

    async def get_many(
        self, keys: Iterable[ItemKey], *, as_bytes: bool = False, copy_only: bool = False
    ) -> list[PlainItem | None] | list[bytes | None]:
        """Return items in the keys' order, None for each that does not exist.

        One MGET (on a cluster, one round trip per node), and batch reads of what is missing.
        Takes and raises what `get` does.
        """
        names = self._namer.names_of_many(keys)
        if not names:
            return []
        replies = await self._opened()[0].get_many([each.name for each in names])
        values = await self._values(names, replies, copy_only)
        if as_bytes:
            return values
        return [
            None if value is None else await self._item(each, value, copy_only)
            for each, value in zip(names, values, strict=True)
        ]

    async def prefetch(self, keys: Iterable[ItemKey]) -> None:
        """Load into the copy the items that it lacks, within the read budget, however long.

        Raises what `get` does, but not TableBudgetExceeded.
        """
        cache, loader = self._opened()
        names = self._namer.names_of_many(keys)
        step = min(BATCH_KEYS_MAX, self._options.table_reads_per_s)
        for first in range(0, len(names), step):
            batch = names[first : first + step]
            values = await cache.get_many([each.name for each in batch])
            missing = self._missing(batch, values)
            while missing:
                try:
                    await loader.load(missing)
                    break
                except TableBudgetExceeded:
                    await self._edges.sleep(POLL_LAST_S)

    async def finish_loads(self) -> None:
        """Wait until what was read from the table is in the copy; closing does so too."""
        await self._opened()[1].finish()

    # --- steps ----------------------------------------------------------------------------------

    def _opened(self) -> tuple[Cache, Loader]:
        if self._cache is None or self._loader is None:
            raise RuntimeError("open the reader first: async with Reader(...) as reader")
        return self._cache, self._loader

    def _missing(
        self, names: Sequence[ItemNames], values: Sequence[bytes | NoAnswer | None]
    ) -> list[ItemNames]:
        """Count hits and misses; return what is missing."""
        pairs = zip(names, values, strict=True)
        missing = [each for each, value in pairs if not isinstance(value, bytes)]
        if len(missing) < len(names):
            self.counters.count("hits", len(names) - len(missing))
        if missing:
            self.counters.count("misses", len(missing))
        return missing

    async def _values(
        self,
        names: Sequence[ItemNames],
        replies: Sequence[bytes | NoAnswer | None],
        copy_only: bool,
    ) -> list[bytes | None]:
        """Return each item's value, from the copy's reply or else from the table."""
        if None not in replies and NO_ANSWER not in replies:  # the quick way for hits
            self.counters.count("hits", len(names))
            return list(replies)  # type: ignore[arg-type]
        missing = self._missing(names, replies)
        loaded: list[bytes | None] = [None] * len(missing)
        if missing and not copy_only:
            loaded = await self._opened()[1].load(missing)
        rest = iter(loaded)
        return [reply if isinstance(reply, bytes) else next(rest) for reply in replies]

    async def _item(self, names: ItemNames, value: bytes, copy_only: bool) -> PlainItem | None:
        """Read a value; one that is no item may be of another program, so the table decides.

        Raises RecordError where the table's own value is no item either.
        """
        value_format = self._rules.config.value
        try:
            return read_item(value, value_format)
        except RecordError:
            if copy_only:
                return None
        own = await self._opened()[1].read(names)
        return None if own is None else read_item(own, value_format)


def _rules_of(settings: Config | Mirror) -> EncodeRules:
    """Return the mirror's rules about names and values, for readers that write values.

    Raises ConfigError.
    """
    rules = settings.rules if isinstance(settings, Mirror) else EncodeRules(settings)
    if rules.config.value not in ITEM_READERS:
        read = {"hash": "HGETALL", "redis-json": "JSON.GET"}[rules.config.value]
        raise ConfigError(
            f"a reader cannot read ASYNCSYNC_VALUE={rules.config.value} yet: send {read} with "
            "your own Redis client"
        )
    if rules.config.fence == "off":
        raise ConfigError(
            "a reader needs ASYNCSYNC_FENCE=on: without fences an older value could replace a "
            "newer one"
        )
    if rules.config.mode == "mirror":
        return rules
    # With invalidate the handler writes no values; its readers do.
    return structs.replace(rules, config=structs.replace(rules.config, mode="mirror"))


# --- without an event loop -----------------------------------------------------------------------


class BlockingReader:
    """A reader whose methods block; see Reader.sync. Any number of threads may use it."""

    def __init__(self, make: Callable[[], Reader]) -> None:
        self._make = make
        self._stack = ExitStack()
        self._portal: BlockingPortal | None = None
        self._reader: Reader | None = None

    def __enter__(self) -> Self:
        """Start the thread and open the reader."""
        from anyio.from_thread import start_blocking_portal

        with ExitStack() as stack:
            portal = stack.enter_context(start_blocking_portal())
            reader = portal.call(self._make)
            stack.enter_context(portal.wrap_async_context_manager(reader))
            self._portal, self._reader = portal, reader
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Close the reader and end the thread."""
        self._stack.close()
        self._portal = self._reader = None

    @property
    def reader(self) -> Reader:
        """Return the reader, for its counters and its circuit."""
        return self._opened()[1]

    @overload
    def get(
        self, key: ItemKey, *, as_bytes: Literal[False] = ..., copy_only: bool = ...
    ) -> PlainItem | None: ...

    @overload
    def get(
        self, key: ItemKey, *, as_bytes: Literal[True], copy_only: bool = ...
    ) -> bytes | None: ...

    def get(
        self, key: ItemKey, *, as_bytes: bool = False, copy_only: bool = False
    ) -> PlainItem | bytes | None:
        """Return an item; see Reader.get."""
        portal, reader = self._opened()
        if as_bytes:
            return portal.call(lambda: reader.get(key, as_bytes=True, copy_only=copy_only))
        return portal.call(lambda: reader.get(key, copy_only=copy_only))

    @overload
    def get_many(
        self, keys: Iterable[ItemKey], *, as_bytes: Literal[False] = ..., copy_only: bool = ...
    ) -> list[PlainItem | None]: ...

    @overload
    def get_many(
        self, keys: Iterable[ItemKey], *, as_bytes: Literal[True], copy_only: bool = ...
    ) -> list[bytes | None]: ...

    def get_many(
        self, keys: Iterable[ItemKey], *, as_bytes: bool = False, copy_only: bool = False
    ) -> list[PlainItem | None] | list[bytes | None]:
        """Return items in the keys' order; see Reader.get_many."""
        portal, reader = self._opened()
        if as_bytes:
            return portal.call(lambda: reader.get_many(keys, as_bytes=True, copy_only=copy_only))
        return portal.call(lambda: reader.get_many(keys, copy_only=copy_only))

    def prefetch(self, keys: Iterable[ItemKey]) -> None:
        """Load into the copy the items that it lacks; see Reader.prefetch."""
        portal, reader = self._opened()
        portal.call(reader.prefetch, keys)

    def _opened(self) -> tuple[BlockingPortal, Reader]:
        if self._portal is None or self._reader is None:
            raise RuntimeError("open the reader first: with Reader.sync(...) as reader")
        return self._portal, self._reader
