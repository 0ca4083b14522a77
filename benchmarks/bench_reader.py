"""What a read through asyncsync.Reader costs, beside the bare commands through the same client.

hit: `get` with as_bytes beside GET, and `get` beside GET and the same JSON decoding.

many: `get_many` of 100 hits beside MGET, as bytes and as items.

miss: `get` of a key that the copy lacks, until its answer, beside GetItem and two GETs: what a
miss must cost. The write to the copy follows the answer and is not timed. DynamoDB is moto's
server, through aiobotocore.

All in rounds of random order on one event loop, against one server. Hits are timed by this
process's CPU: both sides wait for the same replies, so by the clock the ratios are lower. Misses
are timed by the clock. Exit 1 where the median of the rounds' ratios is above a target.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import platform
import random
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from decimal import Decimal
from importlib.metadata import version
from typing import Any

from redis.asyncio import Redis

from asyncsync.aws.clients import open_clients
from asyncsync.config import Config
from asyncsync.lab.servers import BINARIES, binaries, dynamodb_process, redis_process
from asyncsync.reader.options import ReaderOptions
from asyncsync.reader.reader import Reader
from asyncsync.values import to_json
from benchmarks.events import image
from benchmarks.report.statistics import Summary, ratios, summarize

TARGETS = {"hit": 1.2, "many": 1.3}
MANY = 100
TABLE = "Players"
KEYS = [{"Number": number} for number in range(MANY)]
NAMES = [b"Players:%d" % number for number in range(MANY)]

Work = Callable[[], Awaitable[float]]  # returns its seconds


def decoded(value: Any) -> Any:
    """Decode a value as a reader does, so that only the reader's own work is compared."""
    return json.loads(value.decode(), parse_float=Decimal, parse_int=Decimal)


class Bench:
    """The contestants, over one reader and the clients that it has."""

    def __init__(self, reader: Reader, redis: Redis, dynamodb: Any, repeats: int) -> None:
        self._reader, self._redis, self._dynamodb = reader, redis, dynamodb
        self._repeats = repeats

    async def _timed(self, ask: Callable[[int], Awaitable[object]]) -> float:
        gc.collect()
        began_s = time.process_time()
        for at in range(self._repeats):
            await ask(at % MANY)
        return (time.process_time() - began_s) / self._repeats

    async def get(self) -> float:
        return await self._timed(lambda at: self._reader.get(KEYS[at], as_bytes=True))

    async def bare_get(self) -> float:
        return await self._timed(lambda at: self._redis.get(NAMES[at]))

    async def get_item(self) -> float:
        return await self._timed(lambda at: self._reader.get(KEYS[at]))

    async def bare_get_item(self) -> float:
        async def ask(at: int) -> Any:
            return decoded(await self._redis.get(NAMES[at]))

        return await self._timed(ask)

    async def get_many(self) -> float:
        return await self._timed(lambda _: self._reader.get_many(KEYS, as_bytes=True))

    async def bare_mget(self) -> float:
        return await self._timed(lambda _: self._redis.mget(NAMES))

    async def get_many_items(self) -> float:
        return await self._timed(lambda _: self._reader.get_many(KEYS))

    async def bare_mget_items(self) -> float:
        async def ask(_: int) -> Any:
            return [decoded(value) for value in await self._redis.mget(NAMES)]

        return await self._timed(ask)

    async def miss(self) -> float:
        """Time misses; the copy is emptied before each, and its write awaited after."""
        spent_s = 0.0
        for at in range(self._repeats):
            await self._redis.flushall()
            began_s = time.perf_counter()
            assert await self._reader.get(KEYS[at % MANY], as_bytes=True) is not None
            spent_s += time.perf_counter() - began_s
            await self._reader.finish_loads()
        return spent_s / self._repeats

    async def least_miss(self) -> float:
        spent_s = 0.0
        for at in range(self._repeats):
            await self._redis.flushall()
            began_s = time.perf_counter()
            await self._redis.get(NAMES[at % MANY])
            await self._redis.get(NAMES[at % MANY])
            key: Any = {"Number": {"N": str(at % MANY)}}
            await self._dynamodb.get_item(TableName=TABLE, Key=key, ConsistentRead=True)
            spent_s += time.perf_counter() - began_s
        return spent_s / self._repeats


async def timed_rounds(
    contestants: Mapping[str, Work], rounds: int, chance: random.Random
) -> dict[str, list[float]]:
    """Run all contestants in each round, in random order; return microseconds by contestant."""
    times_us: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name in chance.sample(list(contestants), len(contestants)):
            times_us[name].append(await contestants[name]() * 1e6)
    return times_us


async def compare(
    name: str, ours: Work, theirs: Work, rounds: int, chance: random.Random, target: float | None
) -> bool:
    """Time a pair; print it, and return whether the target is missed."""
    pair = {"ours": ours, "theirs": theirs}
    await timed_rounds(pair, 2, chance)  # warm-up
    times_us = await timed_rounds(pair, rounds, chance)
    ratio = ratios(times_us["ours"], times_us["theirs"])
    missed = target is not None and ratio.median > target
    print(
        f"{name:32}{_cell(summarize(times_us['ours']), '.0f')}"
        f"{_cell(summarize(times_us['theirs']), '.0f')}{_cell(ratio, '.2f')}"
        f"{f'{target:>8}' if target else ''}{'  MISSED' if missed else ''}"
    )
    return missed


def _cell(summary: Summary, form: str) -> str:
    return f"{format(summary, form):>26}"


async def run(redis_url: str, endpoint_url: str, arguments: argparse.Namespace) -> int:
    """Time all pairs; return the exit code."""
    chance = random.Random(arguments.seed)
    rounds = arguments.rounds
    config = Config(redis_url=redis_url)
    options = ReaderOptions(table_reads_per_s=1_000_000, timeout_ms=10_000)
    async with open_clients(endpoint_url, {}) as clients, Redis.from_url(redis_url) as redis:
        items = [image(number, chance) for number in range(MANY)]
        await _make_table(clients.items, items)
        async with Reader(
            config, TABLE, redis=redis, dynamodb=clients.items, options=options
        ) as reader:
            values = {name: to_json(each) for name, each in zip(NAMES, items, strict=True)}
            await redis.mset(values)
            assert await reader.get_many(KEYS) == [decoded(each) for each in values.values()]
            size = sum(map(len, values.values())) // MANY
            print(f"values of {size} bytes, {rounds} rounds; us: median (10th to 90th percentile)")
            print(f"{'':32}{'reader':>26}{'bare':>26}{'times':>26}{'target':>8}")
            many = Bench(reader, redis, clients.items, max(1, arguments.repeats // 10))
            one = Bench(reader, redis, clients.items, arguments.repeats)
            few = Bench(reader, redis, clients.items, max(1, arguments.repeats // 20))
            pairs: Sequence[tuple[str, Work, Work, float | None]] = (
                ("hit, bytes: GET", one.get, one.bare_get, TARGETS["hit"]),
                ("hit, item: GET, decode", one.get_item, one.bare_get_item, TARGETS["hit"]),
                ("100 hits, bytes: MGET", many.get_many, many.bare_mget, TARGETS["many"]),
                (
                    "100 hits, items: MGET, decode",
                    many.get_many_items,
                    many.bare_mget_items,
                    TARGETS["many"],
                ),
                ("miss: GET, GET, GetItem", few.miss, few.least_miss, None),
            )
            missed = [await compare(*pair[:3], rounds, chance, pair[3]) for pair in pairs]
    return int(any(missed))


async def _make_table(dynamodb: Any, items: Sequence[Any]) -> None:
    await dynamodb.create_table(
        TableName=TABLE,
        KeySchema=[{"AttributeName": "Number", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "Number", "AttributeType": "N"}],
        BillingMode="PAY_PER_REQUEST",
    )
    for item in items:
        await dynamodb.put_item(TableName=TABLE, Item=_for_sdk(item))


def _for_sdk(item: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what is binary: the SDK wants it as bytes."""
    return {name: each for name, each in item.items() if not {"B", "BS"} & each.keys()}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and return the exit code."""
    parser = argparse.ArgumentParser(description="Time reads through the copy.")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=400, help="gets in a round (default: 400)")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args(argv)
    if not binaries():
        parser.error(
            f"none of {', '.join(BINARIES)} is on PATH; on Debian: apt install redis-server"
        )
    binary = binaries()[0]
    print(
        f"{platform.machine()}, Python {platform.python_version()}, redis-py {version('redis')}, "
        f"hiredis {version('hiredis')}, aiobotocore {version('aiobotocore')}, {binary}"
    )
    with redis_process(binary) as server, dynamodb_process() as url:
        return asyncio.run(run(server.url, url, arguments))


if __name__ == "__main__":
    sys.exit(main())
