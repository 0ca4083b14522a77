"""The demo's two ways to read through a cache: cache-aside, and asyncsync.Reader."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from random import Random
from typing import Any

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError

from asyncsync.aws.clients import aws_errors
from asyncsync.aws.items import json_attributes
from asyncsync.lab.compare import from_dynamodb_json, from_json
from asyncsync.reader import Reader

# Of the table's answers, so many are held up for so long, as by a busy process or network.
HELD_UP_SHARE = 0.05
HELD_UP_S = 0.3


class SlowTable:
    """A client of DynamoDB that counts a reader's items; some of its answers are held up."""

    def __init__(self, client: Any, chance: Random) -> None:
        self._client = client
        self._chance = chance
        self.items = 0

    async def get_item(self, **request: Any) -> Any:
        """Read one item."""
        self.items += 1
        answer = await self._client.get_item(**request)
        await self._hold_up()
        return answer

    async def batch_get_item(self, **request: Any) -> Any:
        """Read items."""
        ((_, wanted_keys),) = request["RequestItems"].items()
        self.items += len(wanted_keys["Keys"])
        answer = await self._client.batch_get_item(**request)
        await self._hold_up()
        return answer

    async def _hold_up(self) -> None:
        if self._chance.random() < HELD_UP_SHARE:
            await asyncio.sleep(HELD_UP_S)


class ReadWay:
    """A way to read through a cache, and how long its reads took."""

    name = ""

    def __init__(self, slow_table: SlowTable) -> None:
        self.slow_table = slow_table
        self.latencies_s: list[float] = []
        self.hits = 0

    async def read(self, number: int) -> None:
        """Read one item, as a program does."""
        began_s = time.perf_counter()
        await self.answer(number)
        self.latencies_s.append(time.perf_counter() - began_s)

    async def answer(self, number: int) -> Any:
        """Return an item, decoded as the comparison decodes it; None if there is none."""
        raise NotImplementedError

    async def rest(self) -> None:
        """Wait for what is under way."""

    def latency_ms(self, share: float) -> float:
        """Return a quantile of the reads' times."""
        latencies_s = sorted(self.latencies_s)
        return round(latencies_s[int(share * (len(latencies_s) - 1))] * 1_000, 1)


class CacheAside(ReadWay):
    """GET; on a miss GetItem, then SET. Its writer deletes a key after the table's write."""

    name = "cache-aside"

    def __init__(self, slow_table: SlowTable, redis: Redis, table: str, prefix: str) -> None:
        super().__init__(slow_table)
        self._redis = redis
        self._table = table
        self.prefix = prefix
        self.lost_deletes = 0

    async def answer(self, number: int) -> Any:
        """Return an item from the cache, else from the table."""
        name = f"{self.prefix}:{number}"
        value: Any = None
        with suppress(RedisError, OSError):
            value = await self._redis.get(name)
        if value is not None:
            self.hits += 1
            return from_dynamodb_json(value)
        key = {"Number": {"N": str(number)}}
        with aws_errors(f"reading table {self._table}"):
            answer = await self.slow_table.get_item(
                TableName=self._table, Key=key, ConsistentRead=True
            )
        if "Item" not in answer:
            return None
        value = orjson.dumps(json_attributes(answer["Item"]))
        with suppress(RedisError, OSError):
            await self._redis.set(name, value)
        return from_dynamodb_json(value)

    async def forget(self, numbers: Sequence[int]) -> None:
        """Delete the keys of items that a write has changed."""
        try:
            await self._redis.delete(*[f"{self.prefix}:{number}" for number in numbers])
        except (RedisError, OSError):
            self.lost_deletes += len(numbers)


class ReadThrough(ReadWay):
    """asyncsync: the stream deletes what changed, and Reader loads what is read."""

    name = "asyncsync"

    def __init__(self, slow_table: SlowTable, reader: Reader) -> None:
        super().__init__(slow_table)
        self._reader = reader

    async def answer(self, number: int) -> Any:
        """Return an item through the reader."""
        value = await self._reader.get({"Number": number}, as_bytes=True)
        self.hits = self._reader.counters.hits
        return None if value is None else from_json(value)

    async def rest(self) -> None:
        """Wait until what was read is in the copy."""
        await self._reader.finish_loads()
