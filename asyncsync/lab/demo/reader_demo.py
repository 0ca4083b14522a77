"""asyncsync demo --reader: asyncsync.Reader beside cache-aside, on one table and one Redis.

Both answer the same reads while the table changes, and both lose Redis for the same seconds.
The demo does not judge: at rest each answers for every item, and a scan of the table decides.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from random import Random, SystemRandom
from typing import Any

import anyio
from msgspec import structs
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from asyncsync.aws.clients import AwsClients, open_clients
from asyncsync.aws.items import scan
from asyncsync.config import Config, parse_url
from asyncsync.lab.compare import Findings, compare, plain_item
from asyncsync.lab.demo.changes import ItemChange, make_changes
from asyncsync.lab.demo.environment import (
    DemoReader,
    Servers,
    table_names,
    temporary_table,
    through,
)
from asyncsync.lab.demo.output import painted, reader_document, reader_scoreboard, reader_verdict
from asyncsync.lab.demo.read_ways import CacheAside, ReadThrough, ReadWay, SlowTable
from asyncsync.lab.demo.redis_client import client_arguments
from asyncsync.lab.demo.stage import FUNCTION, INVOCATION_TIMEOUT_S, SETTINGS, DemoOptions
from asyncsync.lab.demo.writes import next_write, write
from asyncsync.lab.proxy import Proxy, proxy_to
from asyncsync.mapping.answers import Answer
from asyncsync.mapping.event_source_mapping import Batch, Decision, EventSourceMapping
from asyncsync.mirror import Mirror
from asyncsync.reader import Reader, ReaderOptions
from asyncsync.tools.errors import CommandFailed
from asyncsync.tools.output import Output, plural
from asyncsync.tools.run.poller import Consumer, Poller, function_of
from asyncsync.version import __version__

READERS = 8
CHANGES_PER_S = 200.0  # reads share the local DynamoDB with them
READ_PAUSE_S = 0.01
CUT_AT_SHARE = 0.6  # of the changes: after it an item may not change again
DRAINED_WITHIN_S = 20.0
TIMEOUT_S = 1.0  # of a request to Redis


@dataclass(slots=True)
class ReaderStage:
    """Everything that one demo of readers uses."""

    options: DemoOptions
    output: Output
    clients: AwsClients
    table: str
    proxy: Proxy
    copy: DemoReader  # reads our copy past the proxy
    ours: ReadThrough
    aside: CacheAside
    chance: Random
    acknowledged: int = 0  # records
    failures: int = 0  # attempts of ours
    is_over: bool = False  # nobody reads any more
    mapping: EventSourceMapping = field(kw_only=True)

    @property
    def ways(self) -> tuple[ReadWay, ReadWay]:
        """Return both ways, ours first."""
        return self.ours, self.aside

    def tell(self, text: str) -> None:
        """Write a line of the story: with --json it is not the answer."""
        if self.options.as_json:
            self.output.note(text)
        else:
            self.output.paragraph(text, 11)

    def show(self, text: str) -> None:
        """Write a line of the story with its time."""
        self.tell(self.output.timed(text))

    def watch(self, _batch: Batch, _answer: Answer, decision: Decision) -> None:
        """Count what the mapping decided about a batch."""
        self.failures += decision.kind in ("retry", "split")
        self.acknowledged += len(decision.acknowledged)


async def show_readers(
    options: DemoOptions,
    servers: Servers,
    env: Mapping[str, str],
    output: Output,
    before_comparison: Callable[[DemoReader, str], Awaitable[None]] | None,
    verdicts: list[bool],
) -> None:
    """Run the demo of readers; append whether every answer of ours was the table's.

    Raises CommandFailed or AwsFailed.
    """
    seed = SystemRandom().randrange(1_000_000) if options.seed is None else options.seed
    async with staged_readers(options, servers, env, output, seed) as stage:
        output.waits_for("readers and writers")
        await _introduce(stage, servers, seed)
        await _play(stage, make_changes(options.items, options.changes, seed))
        if before_comparison is not None:
            await before_comparison(stage.copy, stage.table)
        findings = await _findings(stage)
        ours, aside = findings
        if options.as_json:
            readers = [reader_document(*each) for each in zip(stage.ways, findings, strict=True)]
            output.document(_document(stage, seed, readers, ours))
        else:
            for line in reader_scoreboard(stage.ways, findings):
                output.line(line)
            keys = (stage.table, stage.aside.prefix)
            for line in reader_verdict(ours, aside, servers.redis_url, keys, options, seed):
                output.paragraph(painted(line, output), 2)
        verdicts.append(not ours.all)
        if options.keep:
            output.note("everything stays up until Ctrl-C")
            await anyio.sleep_forever()


def _document(
    stage: ReaderStage, seed: int, readers: list[dict[str, object]], ours: Findings
) -> dict[str, object]:
    return {
        "table": stage.table,
        "items": stage.options.items,
        "changes": stage.options.changes,
        "seed": seed,
        "passed": not ours.all,
        "differences": ours.all,
        "readers": readers,
    }


@asynccontextmanager
async def staged_readers(
    options: DemoOptions, servers: Servers, env: Mapping[str, str], output: Output, seed: int
) -> AsyncIterator[ReaderStage]:
    """Start mapping, handler and both ways until the block ends; remove keys and table then."""
    server = parse_url(servers.redis_url)
    if server.tls:
        raise CommandFailed("--reader cannot cut a TLS connection; give a redis:// URL, or none")
    is_guest = options.redis_url is not None or options.endpoint_url is not None
    table, aside_table, _ = table_names(is_guest)
    prefix = f"{aside_table}-aside"
    async with AsyncExitStack() as stack:
        clients = await stack.enter_async_context(
            open_clients(servers.endpoint_url, env, region=options.region, profile=options.profile)
        )
        stream_arn = await stack.enter_async_context(
            temporary_table(clients, table, keep=options.keep)
        )
        proxy = await stack.enter_async_context(
            proxy_to(server.host, server.port, path=server.path)
        )
        place = structs.replace(server, host="127.0.0.1", port=proxy.port, path="")

        def client() -> Redis:
            redis = Redis(**client_arguments(place, TIMEOUT_S), retry=Retry(NoBackoff(), 1))
            stack.push_async_callback(redis.aclose)
            return redis

        copy = DemoReader(server)
        stack.push_async_callback(copy.close)
        names = [f"{each}:{n}" for each in (table, prefix) for n in range(1, options.items + 1)]
        if options.redis_url is not None and not options.keep:
            stack.push_async_callback(_remove, copy, names)
        chance = Random(seed)
        ours_slow, aside_slow = (SlowTable(clients.items, chance) for _ in range(2))
        mirror = _mirror(servers.redis_url, proxy)
        stack.callback(mirror.close)
        reader = await stack.enter_async_context(_reader(mirror, table, client(), ours_slow))
        aside = CacheAside(aside_slow, client(), table, prefix)
        mapping = EventSourceMapping(SETTINGS, function=FUNCTION, stream_arn=stream_arn)
        ours = ReadThrough(ours_slow, reader)
        stage = ReaderStage(
            options, output, clients, table, proxy, copy, ours, aside, chance, mapping=mapping
        )
        consumer = Consumer(mapping, function_of(mirror, INVOCATION_TIMEOUT_S), stage.watch)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Poller(clients, stream_arn, [consumer]).run)
            yield stage
            tasks.cancel_scope.cancel()


def _mirror(redis_url: str, proxy: Proxy) -> Mirror:
    config = Config(redis_url=redis_url, mode="invalidate")
    return Mirror(config, connect=through(proxy), emit=lambda _: None)


def _reader(mirror: Mirror, table: str, redis: Redis, dynamodb: Any) -> Reader:
    options = ReaderOptions(table_reads_per_s=1_000_000)
    return Reader(mirror, table, redis=redis, dynamodb=dynamodb, options=options)


async def _remove(copy: DemoReader, names: list[str]) -> None:
    with anyio.CancelScope(shield=True):
        await copy.remove(names)


async def _introduce(stage: ReaderStage, servers: Servers, seed: int) -> None:
    options, line = stage.options, stage.tell
    redis_name = servers.redis_name or await stage.copy.server_name()
    line(f"asyncsync {__version__} demo of readers, seed {seed}")
    size = f"{plural(options.changes, 'change')} to {plural(options.items, 'item')}"
    line(f"  table        {stage.table}, {size}; 1 in 20 of its answers takes 0.3 s more")
    line(f"  DynamoDB     {servers.dynamodb_name} at {servers.endpoint_url}")
    line(f"  Redis        {redis_name} at {parse_url(servers.redis_url).address}, behind a proxy")
    line("  asyncsync    the stream deletes what changed, Reader loads what is read")
    line("  cache-aside  GET, on a miss GetItem and SET; writers DEL after each write")


async def _play(stage: ReaderStage, changes: Sequence[ItemChange]) -> None:
    """Write the changes at their pace while both ways are read; cut Redis off on the way."""
    async with anyio.create_task_group() as tasks:
        for _ in range(READERS):
            tasks.start_soon(_keep_reading, stage)
        async with anyio.create_task_group() as writing:
            due_s, at = time.monotonic(), 0
            cut_at = int(CUT_AT_SHARE * len(changes))
            while at < len(changes):
                batch = next_write(changes, at)
                if at <= cut_at < at + len(batch):
                    writing.start_soon(_cut, stage)
                await write(stage.clients, stage.table, batch)
                await stage.aside.forget([change.number for change in batch])
                at += len(batch)
                due_s += len(batch) / CHANGES_PER_S
                await anyio.sleep(max(0, due_s - time.monotonic()))
        stage.show(f"all {plural(len(changes), 'change')} written")
        stage.is_over = True
    with anyio.move_on_after(DRAINED_WITHIN_S):
        while stage.acknowledged < len(changes) or not stage.mapping.is_idle:  # noqa: ASYNC110
            await anyio.sleep(0.05)
    await stage.ours.rest()
    stage.show("at rest: the stream is read, and nobody reads or writes")


async def _keep_reading(stage: ReaderStage) -> None:
    items = stage.options.items
    while not stage.is_over:
        number = min(stage.chance.randint(1, items), stage.chance.randint(1, items))
        for way in stage.chance.sample(stage.ways, 2):
            await way.read(number)
        await anyio.sleep(READ_PAUSE_S)


async def _cut(stage: ReaderStage) -> None:
    stage.show("CUT: the proxy breaks every connection to Redis and refuses new ones")
    failures, lost = stage.failures, stage.aside.lost_deletes
    stage.proxy.cut()
    await anyio.sleep(stage.options.cut_s)
    stage.proxy.heal()
    stage.show(
        f"Redis is back after {stage.options.cut_s:.1f} s: cache-aside lost "
        f"{plural(stage.aside.lost_deletes - lost, 'delete')}; of the stream "
        f"{plural(stage.failures - failures, 'attempt')} failed, and the mapping repeats them"
    )


async def _findings(stage: ReaderStage) -> tuple[Findings, Findings]:
    """Ask both ways for every item, and compare the answers with a consistent scan."""
    names = {number: f"{stage.table}:{number}" for number in range(1, stage.options.items + 1)}
    table: dict[str, Any] = dict.fromkeys(names.values())
    async for item in scan(stage.clients, stage.table):
        table[names[int(item["Number"]["N"])]] = plain_item(item)
    answers = []
    for way in stage.ways:
        reads, hits = way.slow_table.items, way.hits
        answers.append({name: await way.answer(number) for number, name in names.items()})
        way.slow_table.items, way.hits = reads, hits  # the comparison's own reads do not count
    return compare(table, answers[0]), compare(table, answers[1])
