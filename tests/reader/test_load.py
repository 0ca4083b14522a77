"""The reader under load: stampedes, a flush, a server that is away, a cluster."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
import redis
from redis.asyncio import RedisCluster

from asyncsync import Config, Mirror
from asyncsync.aws.clients import AwsClients
from asyncsync.lab.servers import ServerProcess, free_port, redis_process
from asyncsync.reader import Reader, ReaderOptions, TableBudgetExceeded
from asyncsync.reader.limits import MGET_KEYS_MAX
from tests.support.cluster import Cluster
from tests.support.events import FIRST, event, record
from tests.support.project.package import ROOT
from tests.support.readers import EndlessTable, redis_client
from tests.support.servers import ONE_SERVER
from tests.support.tables import load, make_table, numbered

PROCESSES, GETS = 4, 250


def stampede(redis_url: str, endpoint: str) -> list[Any]:
    """Run the processes at once; return what each printed."""
    command = [sys.executable, "-m", "tests.support.readers", redis_url, endpoint, str(GETS)]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with ExitStack() as stack:
        processes: list[Any] = [
            stack.enter_context(subprocess.Popen(command, cwd=ROOT, **pipes))
            for _ in range(PROCESSES)
        ]
        for each in processes:
            assert each.stdout.readline() == "ready\n"
        for each in processes:
            each.stdin.write("go\n")
            each.stdin.flush()
        return [json.loads(each.communicate()[0]) for each in processes]


async def test_a_thousand_misses_of_a_key_in_four_processes_read_the_table_four_times_at_most(
    clients: AwsClients, endpoint: str, one_server: ServerProcess, one_client: redis.Redis
) -> None:
    await make_table(clients, "Players")
    await load(clients, "Players", numbered(7))
    results = await asyncio.to_thread(stampede, one_server.url, endpoint)
    await clients.items.delete_table(TableName="Players")

    (answer,) = {answer for each in results for answer in each["answers"]}
    assert "item 7" in answer
    reads = sum(each["counters"]["table_reads"] for each in results)
    assert 1 <= reads <= PROCESSES
    assert sum(each["counters"]["fills"] for each in results) == 1
    hits = sum(each["counters"]["hits"] + each["counters"]["misses"] for each in results)
    assert hits == PROCESSES * GETS


# --- without a table: how much it would be asked -----------------------------------------------


class Load:
    """A reader over a table that has every number, and tasks that read it without end."""

    def __init__(self, server: ServerProcess, **options: Any) -> None:
        self.table = EndlessTable()
        table: Any = self.table
        self.client = redis_client(server)
        self.mirror = Mirror(Config(redis_url=server.url))
        self.reader = Reader(
            self.mirror,
            "Players",
            redis=self.client,
            dynamodb=table,
            options=ReaderOptions(**options),
        )
        self.answers = 0
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, tasks: int, keys: int, every_s: float) -> None:
        """Let tasks read so many keys in turn, each after a pause."""
        self._tasks += [
            asyncio.create_task(self._read(first, keys, every_s)) for first in range(tasks)
        ]

    async def _read(self, first: int, keys: int, every_s: float) -> None:
        number = first
        while True:
            number = (number + 1) % keys
            item = await self.reader.get({"Number": number})
            assert item is not None
            assert item["Name"] == f"player {number}"
            self.answers += 1
            await asyncio.sleep(every_s)

    async def stop(self) -> None:
        """End the tasks; raise what one of them raised."""
        for task in self._tasks:
            task.cancel()
        for result in await asyncio.gather(*self._tasks, return_exceptions=True):
            assert isinstance(result, asyncio.CancelledError), f"a reader ended: {result!r}"

    async def until(self, condition: Callable[[], bool], within_s: float) -> float:
        """Wait until a condition is true; return the seconds."""
        began_s = time.monotonic()
        async with asyncio.timeout(within_s):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        return time.monotonic() - began_s


async def test_ten_thousand_flushed_keys_stay_within_the_budget(
    one_server: ServerProcess, one_client: redis.Redis
) -> None:
    many = Load(
        one_server, table_reads_per_s=5_000, wait_ms=60_000, lease_ms=60_000, timeout_ms=10_000
    )
    keys = [{"Number": number} for number in range(10_000)]
    async with many.reader as reader:
        await reader.prefetch(keys)
        many.table.reads.clear()
        one_client.flushall()

        groups = [reader.get_many(keys[at : at + 50]) for at in range(0, 5_000, 50)]
        one_by_one = [reader.get(key) for key in keys[5_000:]]
        found = await asyncio.gather(*groups, *one_by_one)

    assert all(found)
    many.table.assert_within(5_000)
    assert len(many.table.reads) == 10_000  # each once
    await many.client.aclose()


async def test_ten_thousand_keys_of_one_call_are_read_in_parts(
    one_server: ServerProcess, one_client: redis.Redis
) -> None:
    """No command is so large that the server, or a timeout, refuses it."""
    many = Load(one_server, table_reads_per_s=1_000_000, timeout_ms=2_000)
    keys = [{"Number": number} for number in range(10_000)]
    async with many.reader as reader:
        found = await reader.get_many(keys, as_bytes=True)
        await reader.finish_loads()
        stats: Any = one_client.info("commandstats")
        before = stats["cmdstat_mget"]["calls"]

        assert await reader.get_many(keys, as_bytes=True) == found
        stats = one_client.info("commandstats")

    assert stats["cmdstat_mget"]["calls"] - before == 10_000 / MGET_KEYS_MAX
    assert (reader.counters.fills, reader.counters.cache_errors) == (10_000, 0)
    await many.client.aclose()


async def test_past_the_budget_a_flush_is_an_error_not_a_stampede(
    one_server: ServerProcess, one_client: redis.Redis
) -> None:
    many = Load(one_server, table_reads_per_s=100, wait_ms=100, timeout_ms=10_000)
    async with many.reader as reader:
        found = await asyncio.gather(
            *(reader.get({"Number": number}) for number in range(1_000)), return_exceptions=True
        )
        await reader.finish_loads()

    many.table.assert_within(100)
    errors = [each for each in found if isinstance(each, TableBudgetExceeded)]
    assert len(errors) + len(many.table.reads) == 1_000
    assert reader.counters.over_budget == len(errors)
    await many.client.aclose()


@pytest.mark.parametrize("binary", ONE_SERVER)
async def test_redis_away_for_ten_seconds_is_noticed_by_nobody_but_the_table(binary: str) -> None:
    port = free_port()
    with ExitStack() as first, ExitStack() as second:
        server = first.enter_context(redis_process(binary, port=port))
        many = Load(server, table_reads_per_s=1_000, wait_ms=5_000)
        async with many.reader as reader:
            many.start(20, 50, 0.05)
            await many.until(lambda: reader.counters.hits > 200, 20)

            first.close()  # killed
            began_s, reads, answers = time.monotonic(), len(many.table.reads), many.answers
            await many.until(lambda: reader.circuit != "closed", 5)
            await asyncio.sleep(10 - (time.monotonic() - began_s))
            away_reads = len(many.table.reads) - reads
            assert away_reads > 100
            assert many.answers - answers > 100

            server = await asyncio.to_thread(
                second.enter_context, redis_process(binary, port=port)
            )
            hits = reader.counters.hits
            took_s = await many.until(lambda: reader.counters.hits > hits, 10)
            await many.stop()
        await many.client.aclose()

    assert took_s < 1
    assert reader.counters.over_budget == 0
    many.table.assert_within(1_000)


async def test_a_frozen_server_costs_its_readers_a_timeout_then_nothing(
    one_server: ServerProcess, one_client: redis.Redis
) -> None:
    many = Load(one_server, table_reads_per_s=1_000, wait_ms=5_000, timeout_ms=100)
    assert one_server.process is not None
    async with many.reader as reader:
        many.start(10, 50, 0.02)
        await many.until(lambda: reader.counters.hits > 100, 20)

        one_server.process.send_signal(signal.SIGSTOP)
        try:
            await many.until(lambda: reader.circuit == "open", 5)
            answers, errors = many.answers, reader.counters.cache_errors
            await asyncio.sleep(1)
            assert many.answers - answers > 50
            assert reader.counters.cache_errors - errors <= 10  # a probe now and then
        finally:
            one_server.process.send_signal(signal.SIGCONT)
        hits = reader.counters.hits
        await many.until(lambda: reader.counters.hits > hits, 2)
        await many.stop()
    await many.client.aclose()


# --- a cluster --------------------------------------------------------------------------------


async def test_on_a_cluster_each_key_goes_to_its_node(cluster: Cluster) -> None:
    table: Any = EndlessTable()
    node = cluster.alive[0]
    client = RedisCluster(host="127.0.0.1", port=node.port)
    mirror = Mirror(Config(redis_url=cluster.url, redis_cluster=True), emit=lambda _: None)
    keys = [{"Number": number} for number in range(200)]
    arguments = {"redis": client, "dynamodb": table}
    options = ReaderOptions(timeout_ms=10_000)
    async with Reader(mirror, "Players", options=options, **arguments) as reader:
        assert await reader.get(keys[0])
        found = await reader.get_many(keys)
        await reader.finish_loads()
        again = await reader.get_many(keys)
        assert await reader.get(keys[7]) == found[7]

        assert [each and each["Name"] for each in found] == [f"player {n}" for n in range(200)]
        assert again == found
        assert len(table.reads) == 200
        assert reader.counters.fills == 200

        # A record ends what the reader wrote, on whichever node.
        await mirror.handle(event([record(7, FIRST, removed=True)]), None)
        assert cluster.get(b"Players:7") is None
        assert await reader.get(keys[7], copy_only=True) is None
    mirror.close()
    await client.aclose()


async def test_a_reader_makes_its_own_client_of_a_cluster(cluster: Cluster) -> None:
    table: Any = EndlessTable()
    config = Config(redis_url=cluster.url, redis_cluster=True)
    options = ReaderOptions(timeout_ms=10_000)
    async with Reader(config, "Players", dynamodb=table, options=options) as reader:
        for _ in range(2):
            assert await reader.get({"Number": 7}) == {"Number": 7, "Name": "player 7"}
            await reader.finish_loads()

    assert (reader.counters.hits, len(table.reads)) == (1, 1)
    assert cluster.get(b"Players:7") == b'{"Number":7,"Name":"player 7"}'
