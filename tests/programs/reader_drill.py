"""Read through a copy beside two kinds of cache-aside while its server loses what it holds.

Run by `make reader-drill`; CI runs it small. Readers and writers work on one table and one real
server. Each read goes through all three strategies, and each write is told to each in its way:
asyncsync's mirror gets the stream, cache-aside deletes the key. The table and its stream are
stand-ins in this process: a read can be held up, and the real mapping delivers records late, again
and out of order. The server is flushed, killed and too small. At the end of each round everything
comes to rest, and a checker that shares no code with the strategies compares every key with the
table. The drill ends with 1 if asyncsync has a wrong value, or if it finds none in the others.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from asyncsync import Config, Mirror
from asyncsync.lab.servers import free_port, redis_process
from asyncsync.mapping.answers import Answer
from asyncsync.mapping.event_source_mapping import (
    Batch,
    Decision,
    EventSourceMapping,
    MappingSettings,
    shard_record,
)
from asyncsync.reader import Reader, ReaderOptions
from asyncsync.tools.run.poller import Consumer, function_of, wall_ms
from tests.support.events import FIRST, SEED, TABLE, arn, record
from tests.support.servers import add_binary
from tests.support.tables import until

ROOT = Path(__file__).parents[2]
RESULT = ROOT / "docs" / "reader-drill.json"
PAGE = ROOT / "docs" / "strategies.md"
BEGIN, END = "<!-- reader-drill -->\n", "<!-- /reader-drill -->\n"

OURS, PLAIN, EXPIRING = "asyncsync.Reader", "cache-aside", "cache-aside with a TTL"

READERS = 24
WRITERS = 8
PROCESSES = 4  # readers with a Reader and a client of their own, as in as many processes

HEAT = 0.5  # an item's share of reads and writes is proportional to 1 / rank ** this
REMOVED_SHARE = 0.15  # of the writes
AGAIN_SHARE = 0.2  # of the batches, after which an older one is delivered again
FAULTS_SHARE = (
    0.7  # of a round: then the server is left alone, so that there is something to check
)
TIMEOUT_S = 0.25  # of a request to Redis, as a Reader's
REST_WITHIN_S = 60.0
SHARD = "shardId-00000001"

SETTINGS = MappingSettings(
    batch_size=50, parallelization_factor=4, report_failures=True, backoff_max_ms=200
)

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """The size of a drill."""

    rounds: int = 6
    round_s: float = 10.0
    keys: int = 300
    maxmemory: str = "4mb"
    held_up_share: float = 0.05  # of the table's answers
    ttl_s: int = 10
    seed: int = SEED


# --- the table and its stream --------------------------------------------------------------------


class DrillTable:
    """A table in memory: what each item is now, and the records that tell of each change."""

    def __init__(self, keys: int, held_up_share: float, chance: random.Random) -> None:
        self.chance = chance
        self._held_up_share = held_up_share
        self.versions: dict[int, int | None] = dict.fromkeys(range(1, keys + 1), 1)
        self.records: list[dict[str, Any]] = []  # that the stream has not delivered
        self.writes = 0
        self._last = dict.fromkeys(self.versions, 1)

    def image(self, number: int) -> dict[str, Any] | None:
        """Return an item in DynamoDB JSON."""
        version = self.versions[number]
        if version is None:
            return None
        pad = f"{version:08}" * 500
        return {"Number": {"N": str(number)}, "Version": {"N": str(version)}, "Pad": {"S": pad}}

    async def read(self, number: int) -> dict[str, Any] | None:
        """Read an item; the answer takes its time, and sometimes a long one."""
        await asyncio.sleep(self.chance.uniform(0.001, 0.003))
        image = self.image(number)
        is_held_up = self.chance.random() < self._held_up_share
        await asyncio.sleep(self.chance.uniform(0.05, 0.8) if is_held_up else 0.001)
        return image

    async def write(self, number: int) -> None:
        """Change, remove or insert an item."""
        await asyncio.sleep(self.chance.uniform(0.001, 0.003))
        self.writes += 1
        self._last[number] += 1
        is_removed = self.versions[number] is not None and self.chance.random() < REMOVED_SHARE
        self.versions[number] = None if is_removed else self._last[number]
        self.records.append(
            record(
                number,
                int(FIRST) + self.writes,
                image=self.image(number),
                removed=is_removed,
                created_s=time.time(),
            )
        )


class CountedReads:
    """A client of DynamoDB for one strategy; it counts the items that are read."""

    def __init__(self, table: DrillTable) -> None:
        self._table = table
        self.items = 0

    async def get_item(self, **request: Any) -> Any:
        image = await self._read(request["Key"])
        return {} if image is None else {"Item": image}

    async def batch_get_item(self, **request: Any) -> Any:
        ((name, asked),) = request["RequestItems"].items()
        images = await asyncio.gather(*map(self._read, asked["Keys"]))
        return {"Responses": {name: [each for each in images if each]}, "UnprocessedKeys": {}}

    async def _read(self, key: Mapping[str, Any]) -> dict[str, Any] | None:
        self.items += 1
        return await self._table.read(int(key["Number"]["N"]))


class DrillStream:
    """Delivers a table's records through the real mapping: late, again, and some out of order."""

    def __init__(self, table: DrillTable, mirror: Mirror) -> None:
        self._table = table
        self._mapping = EventSourceMapping(SETTINGS, function=arn(), stream_arn=arn())
        self._mapping.open(SHARD)
        self._consumer = Consumer(self._mapping, function_of(mirror, 30.0), self._watch)
        self._done: list[Batch] = []
        self.delivered_again = 0
        self.attempts_failed = 0

    async def run(self) -> None:
        """Deliver until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._consumer.run())
            tasks.create_task(self._deliver())

    async def rest(self) -> None:
        """Wait until every record has been delivered."""
        await until(lambda: not self._table.records and self._mapping.is_idle, REST_WITHIN_S)

    async def _deliver(self) -> None:
        while True:
            await asyncio.sleep(self._table.chance.uniform(0.02, 0.3))
            records, self._table.records = self._table.records, []
            if records:
                self._mapping.add(SHARD, [shard_record(each) for each in records], wall_ms())
                self._consumer.wake()

    def _watch(self, batch: Batch, _answer: Answer, decision: Decision) -> None:
        self.attempts_failed += decision.kind != "done"
        if decision.kind != "done":
            return
        self._done.append(batch)
        if self._table.chance.random() < AGAIN_SHARE:
            self._mapping.deliver_again(self._table.chance.choice(self._done[-100:]))
            self.delivered_again += 1


# --- the strategies ------------------------------------------------------------------------------


@dataclass(slots=True)
class Strategy:
    """A way to read through a cache, and what was measured of it."""

    name: str
    prefix: str
    reads: CountedReads
    latencies_s: list[float] = field(default_factory=list)
    hits: int = 0
    wrong: int = 0  # keys at rest, summed over the checks
    wrong_later: int = 0  # of those of the last check, when a TTL has passed

    async def get(self, number: int) -> None:
        """Read one item."""
        raise NotImplementedError

    async def changed(self, number: int) -> None:
        """Take note of a write that the table has confirmed."""

    async def rest(self) -> None:
        """Wait for what is under way."""


@dataclass(slots=True)
class CacheAside(Strategy):
    """GET; on a miss GetItem, then SET. A writer deletes the key after its write."""

    client: Any = None
    ttl_s: int | None = None

    async def get(self, number: int) -> None:
        name = f"{self.prefix}{number}"
        value = None
        with suppress(RedisError, OSError):
            value = await self.client.get(name)
        if value is not None:
            self.hits += 1
            json.loads(value)
            return
        answer = await self.reads.get_item(Key={"Number": {"N": str(number)}})
        if "Item" in answer:
            plain = {key: next(iter(each.values())) for key, each in answer["Item"].items()}
            with suppress(RedisError, OSError):
                await self.client.set(name, json.dumps(plain), ex=self.ttl_s)

    async def changed(self, number: int) -> None:
        with suppress(RedisError, OSError):
            await self.client.delete(f"{self.prefix}{number}")


@dataclass(slots=True)
class ReadThrough(Strategy):
    """asyncsync: the stream keeps the copy, and these readers fill it."""

    readers: Sequence[Reader] = ()
    _next: int = 0

    async def get(self, number: int) -> None:
        self._next += 1
        await self.readers[self._next % len(self.readers)].get({"Number": number})
        self.hits = sum(reader.counters.hits for reader in self.readers)

    async def rest(self) -> None:
        for reader in self.readers:
            await reader.finish_loads()


# --- the drill -----------------------------------------------------------------------------------


@dataclass(slots=True)
class SmallServer:
    """A server with too little memory, at one address however often it is killed."""

    binary: str
    maxmemory: str
    port: int = field(default_factory=free_port)
    evicted: int = 0
    _stack: ExitStack = field(default_factory=ExitStack)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    async def start(self) -> None:
        options = ("--maxmemory", self.maxmemory, "--maxmemory-policy", "allkeys-lru")
        server = redis_process(self.binary, *options, port=self.port)
        await asyncio.to_thread(self._stack.enter_context, server)

    async def kill(self) -> None:
        await asyncio.to_thread(self._stack.close)


@dataclass(slots=True)
class Drill:
    """One run: a table, its stream, a server, and the strategies that read through it."""

    scale: Scale
    table: DrillTable
    stream: DrillStream
    server: SmallServer
    checker: Redis  # a client of the checker alone
    strategies: Sequence[Strategy]
    say: Say
    flushes: int = 0
    kills: int = 0
    _chance: random.Random = field(init=False)
    _numbers: Sequence[int] = field(init=False)  # the hottest first
    _weights: Sequence[float] = field(init=False)

    def __post_init__(self) -> None:
        self._chance = random.Random(self.scale.seed)
        self._numbers = self._chance.sample(list(self.table.versions), len(self.table.versions))
        self._weights = [1 / rank**HEAT for rank in range(1, len(self._numbers) + 1)]

    async def play(self) -> None:
        """Read, write and break things for a round, then bring everything to rest."""
        end_s = time.monotonic() + self.scale.round_s
        async with asyncio.TaskGroup() as tasks:
            for _ in range(READERS):
                tasks.create_task(self._until(end_s, self._read, 0.01))
            for _ in range(WRITERS):
                tasks.create_task(self._until(end_s, self._write, 0.06))
            tasks.create_task(self._break(time.monotonic() + FAULTS_SHARE * self.scale.round_s))
        for strategy in self.strategies:
            await strategy.rest()
        await self.stream.rest()

    async def _until(
        self, end_s: float, step: Callable[[int], Awaitable[None]], pause_s: float
    ) -> None:
        while time.monotonic() < end_s:
            (number,) = self._chance.choices(self._numbers, self._weights)
            await step(number)
            await asyncio.sleep(self._chance.uniform(0, 2 * pause_s))

    async def _read(self, number: int) -> None:
        for strategy in self._chance.sample(self.strategies, len(self.strategies)):
            began_s = time.perf_counter()
            await strategy.get(number)
            strategy.latencies_s.append(time.perf_counter() - began_s)

    async def _write(self, number: int) -> None:
        await self.table.write(number)
        await asyncio.gather(*(each.changed(number) for each in self.strategies))

    async def _break(self, end_s: float) -> None:
        """Flush and kill the server in turn, at random times."""
        faults = self._chance.sample([self._flush, self._kill], 2)
        while True:
            for fault in faults:
                await asyncio.sleep(self.scale.round_s * self._chance.uniform(0.1, 0.3))
                if time.monotonic() > end_s and self.kills and self.flushes:
                    return
                await fault()

    async def _flush(self) -> None:
        await self._note_evictions()
        await self.checker.flushall()
        self.flushes += 1

    async def _kill(self) -> None:
        await self._note_evictions()
        await self.server.kill()
        self.kills += 1
        await asyncio.sleep(self._chance.uniform(0.05, 0.8))
        await self.server.start()

    async def _note_evictions(self) -> None:
        """Add what the server has evicted; a restart forgets it."""
        stats: Any = await self.checker.info("stats")
        self.server.evicted += int(stats["evicted_keys"])
        await self.checker.config_resetstat()

    async def wrong(self, strategy: Strategy) -> list[str]:
        """Return the keys whose value is not the table's; a key without a value is not wrong."""
        names = {number: f"{strategy.prefix}{number}" for number in self.table.versions}
        values: Any = await self.checker.mget(list(names.values()))
        wrong = []
        for (number, name), value in zip(names.items(), values, strict=True):
            if value is not None and int(json.loads(value)["Version"]) != (
                self.table.versions[number] or 0
            ):
                wrong.append(name)
        return wrong

    async def check(self) -> None:
        """Compare every key of each strategy with the table, at rest."""
        await self._note_evictions()
        for strategy in self.strategies:
            strategy.wrong += len(await self.wrong(strategy))
        counts = ", ".join(f"{each.name} {each.wrong:,}" for each in self.strategies)
        self.say(f"at rest: {self.table.writes:,} writes; wrong so far: {counts}")

    async def ask(self) -> None:
        """Count the wrong answers of asyncsync's readers too: an item can be known absent.

        Once, at the end: it loads every key.
        """
        ours: Any = self.strategies[0]
        keys = [{"Number": number} for number in self.table.versions]
        for reader in ours.readers:
            for key, item in zip(keys, await reader.get_many(keys), strict=True):
                version = None if item is None else int(item["Version"])
                ours.wrong += version != self.table.versions[key["Number"]]

    async def check_later(self) -> None:
        """Count again what the last check found, when the TTL has passed."""
        await asyncio.sleep(self.scale.ttl_s + 1)
        for strategy in self.strategies:
            strategy.wrong_later = len(await self.wrong(strategy))


@asynccontextmanager
async def staged(scale: Scale, binary: str, say: Say) -> AsyncIterator[Drill]:
    """Start the server, the stream and the strategies, until the block ends."""
    table = DrillTable(scale.keys, scale.held_up_share, random.Random(scale.seed + 1))
    server = SmallServer(binary, scale.maxmemory)
    async with AsyncExitStack() as stack:
        await server.start()
        stack.push_async_callback(server.kill)

        def client() -> Redis:
            made = Redis.from_url(
                server.url, retry=Retry(NoBackoff(), 1), socket_timeout=TIMEOUT_S
            )
            stack.push_async_callback(made.aclose)
            return made

        config = Config(redis_url=server.url, mode="invalidate", key="ours:{@key}", metrics="off")
        mirror = Mirror(config, emit=lambda _: None)
        stack.callback(mirror.close)
        reads = CountedReads(table)
        options = ReaderOptions(table_reads_per_s=1_000_000)
        readers = [
            await stack.enter_async_context(
                Reader(mirror, TABLE, redis=client(), dynamodb=reads, options=options)  # type: ignore[arg-type]
            )
            for _ in range(PROCESSES)
        ]
        aside, expiring = CountedReads(table), CountedReads(table)
        strategies = (
            ReadThrough(OURS, "ours:", reads, readers=readers),
            CacheAside(PLAIN, "aside:", aside, client=client()),
            CacheAside(EXPIRING, "ttl:", expiring, client=client(), ttl_s=scale.ttl_s),
        )
        stream = DrillStream(table, mirror)
        checker = Redis.from_url(server.url, retry=Retry(NoBackoff(), 1))
        stack.push_async_callback(checker.aclose)
        delivery = asyncio.create_task(stream.run())
        yield Drill(scale, table, stream, server, checker, strategies, say)
        delivery.cancel()
        with suppress(asyncio.CancelledError):
            await delivery


async def drill(scale: Scale, binary: str, say: Say, *, later: bool = True) -> dict[str, Any]:
    """Run all rounds; return the result as it is committed."""
    async with staged(scale, binary, say) as run:
        for _ in range(scale.rounds):
            await run.play()
            await run.check()
        await run.ask()
        if later:
            await run.check_later()
        info: Any = await run.checker.info("server")
        name = "valkey" if "valkey_version" in info else "redis"
        return {
            "date": datetime.now(UTC).date().isoformat(),
            "server": f"{name} {info[f'{name}_version']}",
            "machine": f"{os.cpu_count()} cores, Python {platform.python_version()}",
            "seed": scale.seed,
            "rounds": scale.rounds,
            "round_s": scale.round_s,
            "readers": READERS,
            "writers": WRITERS,
            "keys": scale.keys,
            "maxmemory": scale.maxmemory,
            "ttl_s": scale.ttl_s,
            "writes": run.table.writes,
            "batches_delivered_again": run.stream.delivered_again,
            "attempts_failed": run.stream.attempts_failed,
            "flushes": run.flushes,
            "kills": run.kills,
            "evicted": run.server.evicted,
            "strategies": [_measured(each) for each in run.strategies],
        }


def _measured(strategy: Strategy) -> dict[str, Any]:
    latencies_s = sorted(strategy.latencies_s)

    def quantile_ms(share: float) -> float:
        return round(latencies_s[int(share * (len(latencies_s) - 1))] * 1_000, 2)

    return {
        "strategy": strategy.name,
        "reads": len(latencies_s),
        "hit_rate": round(strategy.hits / len(latencies_s), 4),
        "table_reads": strategy.reads.items,
        "p50_ms": quantile_ms(0.50),
        "p99_ms": quantile_ms(0.99),
        "wrong_at_rest": strategy.wrong,
        "wrong_later": strategy.wrong_later,
    }


def faults_of(result: Mapping[str, Any]) -> list[str]:
    """Return why a result is no pass."""
    wrong = {each["strategy"]: each["wrong_at_rest"] for each in result["strategies"]}
    reasons = []
    if wrong[OURS]:
        reasons.append(f"{OURS} has {wrong[OURS]:,} wrong values at rest")
    reasons += [
        f"nothing wrong was found in {name}: the run was too short to prove anything"
        for name in (PLAIN, EXPIRING)
        if not wrong[name]
    ]
    reasons += [f"no {name} took place" for name in ("flushes", "kills") if not result[name]]
    if not result["evicted"]:
        reasons.append("the server evicted nothing: maxmemory is too large")
    return reasons


# --- the page ------------------------------------------------------------------------------------


def figures_of(result: Mapping[str, Any]) -> str:
    """Return the page's figures of a result."""
    lines = [
        f"| | hit rate | table reads | p50 | p99 | wrong at rest | still wrong "
        f"{result['ttl_s'] + 1} s later |",
        "|---|---|---|---|---|---|---|",
    ]
    for each in result["strategies"]:
        cells = [
            each["strategy"],
            f"{100 * each['hit_rate']:.1f} %",
            f"{each['table_reads']:,}",
            f"{each['p50_ms']:.1f} ms",
            f"{each['p99_ms']:.0f} ms",
            f"**{each['wrong_at_rest']:,}**",
            f"{each['wrong_later']:,}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    reads = result["strategies"][0]["reads"]
    lines += [
        "",
        f"{result['date']}, {result['server']}, {result['machine']}, other work beside it: "
        f"{result['readers']} readers and {result['writers']} writers, "
        f"{result['rounds']} rounds of {result['round_s']:.0f} s, {result['keys']:,} keys in "
        f"`maxmemory {result['maxmemory']}` (`allkeys-lru`), TTL {result['ttl_s']} s.",
        f"Each strategy had {reads:,} reads. There were {result['writes']:,} writes, "
        f"{result['flushes']} flushes, {result['kills']} kills, {result['evicted']:,} evictions. "
        f"The mapping delivered {result['batches_delivered_again']:,} batches again.",
    ]
    return "\n".join(lines) + "\n"


def with_figures(page: str, figures: str) -> str:
    """Return a page with the figures between its marks."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}{figures}{END}{rest.split(END)[1]}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the drill on its own server; return 1 at a wrong value of asyncsync's."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--rounds", type=int, default=6, help="rounds (default: 6)")
    parser.add_argument("--round-s", type=float, default=10.0, help="seconds each (default: 10)")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument(
        "--record", action="store_true", help="write it to docs/, with the page's figures"
    )
    add_binary(parser)
    options = parser.parse_args(argv)

    def say(line: str) -> None:
        if not options.json:
            print(line, flush=True)

    scale = Scale(rounds=options.rounds, round_s=options.round_s, seed=options.seed)
    say(f"{options.binary}, {scale.rounds} rounds of {scale.round_s:g} s, seed {scale.seed}")
    result = asyncio.run(drill(scale, options.binary, say))
    reasons = faults_of(result)
    if options.json:
        print(json.dumps({**result, "faults": reasons}))
    else:
        say(figures_of(result))
        say("\n".join(f"NOT SO: {each}" for each in reasons) or "PASS: asyncsync has none wrong")
    if options.record and not reasons:
        RESULT.write_text(json.dumps(result, indent=1) + "\n")
        PAGE.write_text(with_figures(PAGE.read_text(encoding="utf-8"), figures_of(result)))
    return 1 if reasons else 0


if __name__ == "__main__":
    raise SystemExit(main())
