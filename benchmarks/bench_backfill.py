"""How fast a backfill is, and how much memory it takes, beside the least that could be done.

fill: from pages of a scan that are in memory already, as DynamoDB sends them, to confirmed
fills; beside it redis-py's pipelined SET of the very same values, a pipeline a page, which
encodes nothing and asks nothing. Both in rounds of random order against one server, emptied
before each; the values are compared first.

table: a whole backfill from moto's server; beside it the same parallel scan through aioboto3,
which parses the items and at which nobody looks. moto is the slower side by far.

read: a scan's page from a server that answers at once, to keys and images; beside it the page as
aioboto3 parses it, at which nobody looks. By this process's CPU, as the server has another.

memory: the peak of a process that backfills 20 000 items, and of one that does 200 000, their
pages made as they are asked for.

Exit 1 where a target is missed: the median ratio for the first two.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import io
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import Any

import anyio
import redis

from asyncsync.aws.clients import AwsClients, open_clients
from asyncsync.aws.items import ItemPage, image_of, key_of, scan_page
from asyncsync.aws.raw_items import without_items
from asyncsync.aws.tables import Table, TableArn, describe_table
from asyncsync.config import Config
from asyncsync.copy.entries import entries_of
from asyncsync.copy.equality import text_of
from asyncsync.lab.servers import (
    BINARIES,
    ServerProcess,
    binaries,
    dynamodb_process,
    free_port,
    redis_process,
    running,
)
from asyncsync.mirror import Mirror
from asyncsync.tools import table_scan
from asyncsync.tools.backfill import command
from asyncsync.tools.backfill.command import WORKERS_MAX, BackfillOptions, backfill
from asyncsync.tools.backfill.filler import Filler, FillTally
from asyncsync.tools.mirrors import make_mirror
from asyncsync.tools.output import Output
from benchmarks.bench_core import timed_rounds
from benchmarks.events import Image, image
from benchmarks.report.statistics import ratios, summarize

FILL_TARGET = 0.6
TABLE_TARGET = 0.8
MEMORY_TARGET = 1.2

PROGRAM = (sys.executable, "-m", "benchmarks.bench_backfill")  # for its other processes

PAGE_BYTES = 1_048_576  # of a scan
TABLE = "Players"
NAMES = ["Number"]
# The server of `--answer-with` has one answer: that of a scan.
READ_TABLE = Table(TableArn("aws", "us-east-1", "123456789012", TABLE), {"Number": "N"})


def sdk_item(each: Image) -> dict[str, Any]:
    """Write an image as the SDK gives an item: binary values as bytes."""
    made: dict[str, Any] = dict(each)
    made["Avatar"] = {"B": b64decode(each["Avatar"]["B"])}
    made["Tokens"] = {"BS": [b64decode(one) for one in each["Tokens"]["BS"]]}
    return made


def pages_of(items: int, chance: random.Random) -> list[list[dict[str, Any]]]:
    """Make the pages of a table's scan."""
    made = [sdk_item(image(number, chance)) for number in range(items)]
    a_page = PAGE_BYTES // len(image_of(made[0]))
    return [made[first : first + a_page] for first in range(0, items, a_page)]


def body_of(page: Sequence[dict[str, Any]]) -> bytes:
    """Write a page as DynamoDB answers a scan."""
    return b'{"Count":%d,"Items":[%b]}' % (len(page), b",".join(map(image_of, page)))


async def fill_pages(mirror: Mirror, bodies: Sequence[bytes]) -> FillTally:
    """Fill pages that are in memory, by as many workers as a backfill has."""
    tally = FillTally()
    left = iter(bodies)

    async def nothing(_: object) -> list[bytes | None]:
        raise AssertionError("no fence stands")

    async def worker() -> None:
        filler = Filler(mirror, TABLE, nothing, tally)
        for body in left:
            _, _, items = without_items("Scan", body)
            found = [(key_of(item, NAMES), image_of(item)) for item in items]
            await filler.page(found, mirror.wall_clock())
        filler.close()
        await asyncio.sleep(0)  # lets the socket go

    async with anyio.create_task_group() as tasks:
        for _ in range(min(WORKERS_MAX, len(bodies))):
            tasks.start_soon(worker)
    return tally


def values_of(
    mirror: Mirror, pages: Sequence[Sequence[dict[str, Any]]]
) -> list[list[tuple[bytes, bytes]]]:
    """Make the names and values of each page beforehand."""
    return [
        [
            (each.entry.name, text_of(each.entry.value or b""))
            for each in entries_of(
                [(key_of(item, NAMES), image_of(item)) for item in page], TABLE, mirror.rules, 0
            )
            if each.entry
        ]
        for page in pages
    ]


def pipelined_sets(client: redis.Redis, values: Sequence[Sequence[tuple[bytes, bytes]]]) -> None:
    """SET every value, a pipeline a page."""
    for page in values:
        pipeline = client.pipeline(transaction=False)
        for name, value in page:
            pipeline.set(name, value)
        pipeline.execute()


def fill_ratios(server: ServerProcess, items: int, rounds: int, chance: random.Random) -> int:
    """Time fills beside SETs; print, and return 1 where the target is missed."""
    mirror = make_mirror(Config(redis_url=server.url))
    pages = pages_of(items, chance)
    values = values_of(mirror, pages)
    bodies = [body_of(page) for page in pages]
    gc.freeze()  # what is the benchmark's own is no contestant's garbage to look through
    with redis.Redis(port=server.port) as client:
        client.flushall()
        tally = anyio.run(fill_pages, mirror, bodies)
        assert tally.filled == items, "all are filled"
        for page in values:
            held: Any = client.mget([name for name, _ in page])
            assert held == [value for _, value in page], "the values are the same"

        def filled() -> None:
            anyio.run(fill_pages, mirror, bodies)

        def emptied(work: Callable[[], None]) -> Callable[[], None]:
            def run() -> None:
                client.flushall()
                work()

            return run

        contestants: Mapping[str, Callable[[], object]] = {
            "fill": emptied(filled),
            "SET": emptied(lambda: pipelined_sets(client, values)),
        }
        timed_rounds(contestants, 2, chance)  # warm-up
        times_ms = timed_rounds(contestants, rounds, chance)
    return _printed("fill", "SET", times_ms, items, FILL_TARGET)


def table_ratios(server: ServerProcess, items: int, rounds: int, chance: random.Random) -> int:
    """Time backfills beside idle scans; print, and return 1 where the target is missed."""
    mirror = make_mirror(Config(redis_url=server.url))
    with dynamodb_process() as url, redis.Redis(port=server.port) as client:
        anyio.run(_load, url, items, chance)
        options = BackfillOptions(
            table=TABLE, endpoint_url=url, skip_mapping_check=True, as_json=True
        )

        def filled() -> None:
            client.flushall()
            anyio.run(_backfill, options, mirror)
            assert client.dbsize() == items, "all are filled"

        contestants: Mapping[str, Callable[[], object]] = {
            "backfill": filled,
            "scan": lambda: anyio.run(_idle_scan, url),
        }
        timed_rounds(contestants, 1, chance)  # warm-up
        times_ms = timed_rounds(contestants, rounds, chance)
    return _printed("backfill", "scan", times_ms, items, TABLE_TARGET)


async def _backfill(options: BackfillOptions, mirror: Mirror) -> bool:
    output = Output(io.StringIO(), io.StringIO())
    async with open_clients(options.endpoint_url, {}) as clients:
        return await backfill(clients, options, mirror, output)


async def _load(url: str, items: int, chance: random.Random) -> None:
    async with open_clients(url, {}) as clients:
        await clients.items.create_table(
            TableName=TABLE,
            KeySchema=[{"AttributeName": "Number", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "Number", "AttributeType": "N"}],
            BillingMode="PAY_PER_REQUEST",
        )
        made = [sdk_item(image(number, chance)) for number in range(items)]
        for first in range(0, items, 25):
            request: Any = {
                TABLE: [{"PutRequest": {"Item": each}} for each in made[first : first + 25]]
            }
            await clients.items.batch_write_item(RequestItems=request)


async def _idle_scan(url: str) -> None:
    async with open_clients(url, {}) as clients:
        await describe_table(clients, TABLE)

        async def segment(number: int) -> None:
            segments: Any = {"Segment": number, "TotalSegments": command.SEGMENTS_MIN}
            while True:
                page = await clients.items.scan(TableName=TABLE, **segments)
                if "LastEvaluatedKey" not in page:
                    return
                segments["ExclusiveStartKey"] = page["LastEvaluatedKey"]

        async with anyio.create_task_group() as tasks:
            for number in range(command.SEGMENTS_MIN):
                tasks.start_soon(segment, number)


# --- reading ----------------------------------------------------------------------------------


def read_ratios(items: int, rounds: int, chance: random.Random) -> int:
    """Time the reading of a page beside its parsing; print, and return 0: it has no target."""
    page = pages_of(items, chance)[0]
    port = free_port()
    with tempfile.NamedTemporaryFile() as file:
        file.write(body_of(page))
        file.flush()
        serve = [*PROGRAM, "--answer-with", file.name, "--port", str(port)]
        with running(serve, port):
            times_us = anyio.run(_read, f"http://127.0.0.1:{port}", page, rounds)
    for name, each in times_us.items():
        print(f"{name:10} {summarize(each):.1f} us of CPU an item")
    print(f"{'':10} {ratios(times_us['parsed'], times_us['read']):.1f} times")
    return 0


async def _read(
    url: str, page: Sequence[dict[str, Any]], rounds: int
) -> Mapping[str, Sequence[float]]:
    times_us: dict[str, list[float]] = {"read": [], "parsed": []}
    async with open_clients(url, {}) as clients:

        async def read() -> list[Any]:
            answer = await scan_page(clients, READ_TABLE, 0, 1, None)
            return [(key_of(item, NAMES), image_of(item)) for item in answer.items]

        async def parsed() -> list[Any]:
            return (await clients.items.scan(TableName=TABLE))["Items"]

        assert await read() == [(key_of(item, NAMES), image_of(item)) for item in page]
        assert await parsed() == page, "both read the same"
        for _ in range(rounds):
            for name, work in (("read", read), ("parsed", parsed)):
                gc.collect()
                began_s = time.process_time()
                await work()
                times_us[name].append((time.process_time() - began_s) / len(page) * 1e6)
    return times_us


def _answer_with(body: bytes, port: int) -> None:
    """ItemPage every request with a scan's page."""

    class Answers(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Type", "application/x-amz-json-1.0")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    ThreadingHTTPServer(("127.0.0.1", port), Answers).serve_forever()


# --- memory -----------------------------------------------------------------------------------


def memory_ratio(server: ServerProcess) -> int:
    """Compare the peaks of two processes; print, and return 1 where the target is missed."""
    peaks = []
    for items in (20_000, 200_000):
        run = [*PROGRAM, "--peak-of", str(items), "--redis-url", server.url]
        ended = subprocess.run(run, capture_output=True, text=True, check=True)
        peaks.append(int(ended.stdout))
    ratio = peaks[1] / peaks[0]
    missed = ratio > MEMORY_TARGET
    small, large = (peak / 1024 for peak in peaks)
    print(
        f"memory     {small:.1f} MB at 20 000 items, {large:.1f} MB at 200 000: "
        f"{ratio:.2f} times, target {MEMORY_TARGET}{'  MISSED' if missed else ''}"
    )
    return int(missed)


async def _peak(items: int, redis_url: str) -> None:
    """Backfill a table that is made as it is read; print this process's peak in KB."""
    mirror = make_mirror(Config(redis_url=redis_url))
    a_page = 700
    segments = command.SEGMENTS_MIN

    async def made(
        _clients: AwsClients, _table: str, segment: int, _segments: int, after: Any, _limit: Any
    ) -> ItemPage:
        first = after or 0
        last = min(first + a_page, items // segments)
        numbers = range(segment * items // segments + first, segment * items // segments + last)
        chance = random.Random(first)
        page = [sdk_item(image(number, chance)) for number in numbers]
        return ItemPage(page, last if last < items // segments else None, 1.0)

    vars(table_scan).update(scan_page=made, json_attributes=lambda cursor: {"at": str(cursor)})
    with dynamodb_process() as url:
        async with open_clients(url, {}) as clients:
            await clients.items.create_table(
                TableName=TABLE,
                KeySchema=[{"AttributeName": "Number", "KeyType": "HASH"}],
                AttributeDefinitions=[{"AttributeName": "Number", "AttributeType": "N"}],
                BillingMode="PAY_PER_REQUEST",
            )
        options = BackfillOptions(
            table=TABLE, endpoint_url=url, skip_mapping_check=True, as_json=True
        )
        assert await _backfill(options, mirror)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


# --- what it prints ---------------------------------------------------------------------------


def _printed(
    ours: str, theirs: str, times_ms: Mapping[str, Sequence[float]], items: int, target: float
) -> int:
    for name in (ours, theirs):
        rate = summarize([items / ms * 1_000 for ms in times_ms[name]])
        print(f"{name:10} {rate:,.0f} items/s")
    ratio = ratios(times_ms[theirs], times_ms[ours])
    missed = ratio.median < target
    print(f"{'':10} {ratio:.2f} of {theirs}, target {target}{'  MISSED' if missed else ''}")
    return int(missed)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and return the exit code."""
    parser = argparse.ArgumentParser(description="Time a backfill and weigh it.")
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--table-items", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=("fill", "table", "read", "memory"))
    parser.add_argument("--peak-of", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--redis-url", help=argparse.SUPPRESS)
    parser.add_argument("--answer-with", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.peak_of:
        anyio.run(_peak, arguments.peak_of, arguments.redis_url)
        return 0
    if arguments.answer_with:
        _answer_with(arguments.answer_with.read_bytes(), arguments.port)

    if not binaries():
        parser.error(
            f"none of {', '.join(BINARIES)} is on PATH; on Debian: apt install redis-server"
        )
    binary = binaries()[0]
    print(
        f"{platform.machine()}, Python {platform.python_version()}, redis-py {version('redis')}, "
        f"hiredis {version('hiredis')}, aioboto3 {version('aioboto3')}, {binary}"
    )
    chance = random.Random(arguments.seed)
    missed = 0
    with redis_process(binary) as server:
        if arguments.only in (None, "fill"):
            missed |= fill_ratios(server, arguments.items, arguments.rounds, chance)
        if arguments.only in (None, "table"):
            rounds = max(2, arguments.rounds // 2)
            missed |= table_ratios(server, arguments.table_items, rounds, chance)
        if arguments.only in (None, "read"):
            missed |= read_ratios(arguments.items, arguments.rounds, chance)
        if arguments.only in (None, "memory"):
            missed |= memory_ratio(server)
    return missed


if __name__ == "__main__":
    sys.exit(main())
