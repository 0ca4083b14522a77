"""Backfill, audit, repair and redrive a copy while its table changes, by the real command line.

Run by `make drill`; CI runs it small. The table is on moto's server, the copy on a real Redis,
and the stream is mirrored as `asyncsync run` does it. A writer changes, removes and inserts items
meanwhile. It does not touch the items that a step works on, so the step knows which keys a command
must find. The drill ends with 1 at the first broken promise.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import redis

from asyncsync import Config, Mirror
from asyncsync.aws.clients import AwsClients, open_clients
from asyncsync.aws.items import get_item, scan
from asyncsync.aws.tables import describe_table, stream_of
from asyncsync.errors import AsyncsyncError
from asyncsync.lab.compare import from_json, plain_item
from asyncsync.lab.servers import redis_process
from asyncsync.mapping.answers import Answer, FunctionError
from asyncsync.mapping.event_source_mapping import (
    Batch,
    Decision,
    EventSourceMapping,
    MappingSettings,
)
from asyncsync.tools.errors import first_error
from asyncsync.tools.run.poller import Consumer, Poller, function_of, wall_ms
from tests.support.aws.moto_server import quick_dynamodb
from tests.support.events import SEED, TABLE
from tests.support.planted import Foreign, look, plant_foreign
from tests.support.servers import add_binary
from tests.support.tables import begin_stream, load, make_table, numbered, until

FUNCTION = "arn:aws:lambda:us-east-1:111122223333:function:mirror"
BUCKET = "players-failures"
PROGRAM = (sys.executable, "-m", "asyncsync")

# After one more attempt, a failed batch is discarded. Only batches fail that the drill chooses.
SETTINGS = MappingSettings(retry_attempts_max=1, report_failures=True, backoff_first_ms=10)
INVOCATION_S = 30.0

DISCARDED = 3  # batches
REMOVED_SHARE = 0.3  # of the writer's changes of an item that exists
MARK = 0  # an item that is written last: when it is mirrored, so is all before it
WITHIN_S = 1_800.0  # after that a command or a wait hangs

_ODD: tuple[dict[str, Any], ...] = (
    {"N": "-0." + "0" * 129 + "1"},
    {"B": b"\x00\xff"},
    {"SS": ["b", "ü", "a"]},
    {"M": {"a:b{c}%": {"L": [{"NULL": True}, {"BOOL": False}]}}},
)

Say = Callable[[str], None]


class NotSo(AsyncsyncError):
    """A promise is broken; the message says which."""


def require(condition: object, failure: str) -> None:
    """Raise NotSo with a message unless a condition holds."""
    if not condition:
        raise NotSo(failure)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """The size of a drill."""

    items: int
    planted: int
    settle_s: float
    seed: int


@dataclass(slots=True)
class Table:
    """A table and its writers; one writes at a time, so the stream has their order."""

    clients: AwsClients
    chance: random.Random
    versions: dict[int, int]  # by number, of the items that the writer may change
    absent: set[int] = field(default_factory=set)
    left_alone: set[int] = field(default_factory=set)  # the writer does not touch these
    writes: int = 0
    is_over: bool = False
    turn: anyio.Lock = field(default_factory=anyio.Lock)

    async def write(self) -> None:
        """Change, remove and insert items until the run is over."""
        numbers = list(self.versions)
        while not self.is_over:
            number = self.chance.choice(numbers)
            if number in self.left_alone:
                await anyio.lowlevel.checkpoint()
            elif number not in self.absent and self.chance.random() < REMOVED_SHARE:
                await self.remove(number)
            else:
                await self.put(number)

    async def put(self, number: int) -> None:
        version = self.versions[number] = self.versions.get(number, 1) + 1
        item: Any = {
            "Number": {"N": str(number)},
            "Name": {"S": f"item {number}"},
            "Version": {"N": str(version)},
            "Odd": self.chance.choice(_ODD),
        }
        async with self.turn:
            await self.clients.items.put_item(TableName=TABLE, Item=item)
        self.absent.discard(number)
        self.writes += 1

    async def remove(self, number: int) -> None:
        key: Any = {"Number": {"N": str(number)}}
        async with self.turn:
            await self.clients.items.delete_item(TableName=TABLE, Key=key)
        self.absent.add(number)
        self.writes += 1

    async def read(self) -> dict[str, Any]:
        """Read every item consistently; return them by Redis key."""
        return {
            name_of(int(item["Number"]["N"])): plain_item(item)
            async for item in scan(self.clients, TABLE)
        }


def name_of(number: int) -> str:
    return f"{TABLE}:{number}"


@dataclass(slots=True)
class Stream:
    """The table's stream, from the mapping to the handler; some batches can be made to fail."""

    mapping: EventSourceMapping
    mirror: Mirror
    table: Table
    records: int = 0
    batches: int = 0
    lag_ms: int = 0  # the largest since it was last set to 0
    to_discard: int = 0  # batches to fail until they are discarded
    discarded: list[Batch] = field(default_factory=list)
    _doomed: dict[str, Batch] = field(default_factory=dict)  # by request id

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Mirror until the block ends, as `asyncsync run` does."""
        consumer = Consumer(self.mapping, self._function(), self._watch)
        poller = Poller(self.table.clients, self.mapping.stream_arn, [consumer])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(poller.run)
            yield
            tasks.cancel_scope.cancel()

    def _function(self) -> Callable[[Batch], Awaitable[Answer]]:
        handle = function_of(self.mirror, INVOCATION_S)

        async def invoke(batch: Batch) -> Answer:
            if batch.request_id not in self._doomed and self.to_discard:
                self.to_discard -= 1
                self._doomed[batch.request_id] = batch
                self.table.left_alone |= numbers_of([batch])
            if batch.request_id in self._doomed:
                return FunctionError("Drilled")
            return await handle(batch)

        return invoke

    def _watch(self, batch: Batch, _answer: Answer, decision: Decision) -> None:
        if decision.kind == "discarded":
            self.discarded.append(batch)
        self.batches += decision.kind == "done"
        self.records += len(decision.acknowledged)
        if decision.acknowledged:
            self.lag_ms = max(self.lag_ms, wall_ms() - decision.acknowledged[0].created_ms)


def numbers_of(batches: Iterable[Batch]) -> set[int]:
    """Return the numbers of the items that batches change."""
    records = [record for batch in batches for record in json.loads(batch.event)["Records"]]
    return {int(record["dynamodb"]["Keys"]["Number"]["N"]) for record in records}


@dataclass(slots=True)
class Drill:
    """One run: a table, its stream, its copy, and the commands that work on them."""

    scale: Scale
    chance: random.Random
    endpoint: str
    redis_url: str
    copy: redis.Redis
    table: Table
    stream: Stream
    foreign: Foreign
    program: Sequence[str]
    say: Say

    # --- its means ----------------------------------------------------------------------------

    async def command(self, name: str, *arguments: str) -> tuple[list[dict[str, Any]], int]:
        """Run one command while the writer writes; return its JSON lines and its exit code."""
        before = self.table.writes
        words = [*self.program, name, "--table", TABLE, "--json", *arguments]
        words += ["--endpoint-url", self.endpoint, "--redis-url", self.redis_url]
        env = {k: v for k, v in os.environ.items() if not k.startswith(("ASYNCSYNC_", "AWS_"))}
        with anyio.fail_after(WITHIN_S):
            process = await anyio.run_process(words, check=False, env=env)
        stderr = process.stderr.decode()  # progress, but no error
        is_clean = "asyncsync: " not in stderr and "Traceback" not in stderr
        require(is_clean, f"{name} wrote to stderr: {stderr[-500:]}")
        require(self.table.writes > before, f"nothing was written during the {name}")
        return [json.loads(line) for line in process.stdout.splitlines()], process.returncode

    async def audit(self, *arguments: str) -> tuple[dict[str, str], dict[str, Any]]:
        """Audit; return the findings by key, and the summary."""
        settle = ("--recheck-after", str(self.scale.settle_s), *arguments)
        (*lines, summary), exit_code = await self.command("audit", *settle)
        findings = {line["key"]: line["finding"] for line in lines}
        require(len(findings) == len(lines), "a key was found twice")
        good = len(findings) == summary["repaired"]
        require(exit_code == (0 if good else 1), f"the audit ended with {exit_code}")
        require(summary["whole"], "the audit was not of the whole table")
        require(
            summary["foreign"] == len(self.foreign),
            f"{summary['foreign']} keys are foreign, {len(self.foreign)} were planted",
        )
        return findings, summary

    @contextmanager
    def reported(self) -> Any:
        """Print the lines that the block adds, with its writes and the stream's lag."""
        before, began_s = self.table.writes, time.monotonic()
        self.stream.lag_ms = 0
        lines: list[str] = []
        yield lines
        writes = self.table.writes - before
        self.say(
            f"{lines[0]}: in {time.monotonic() - began_s:.1f} s, {writes:,} writes meanwhile, "
            f"the stream at most {self.stream.lag_ms / 1_000:.0f} s behind"
        )
        for line in lines[1:]:
            self.say(f"  {line}")

    async def caught_up(self) -> None:
        """Wait until every write before now has been mirrored or discarded."""
        await self.table.put(MARK)
        version = self.table.versions[MARK]

        def is_there() -> bool:
            value: Any = self.copy.get(name_of(MARK))
            return value is not None and json.loads(value)["Version"] >= version

        await until(is_there, WITHIN_S)

    async def differing(self, numbers: Iterable[int]) -> list[str]:
        """Return the keys of these items that differ; the writer does not touch them."""
        differ = []
        for number in sorted(numbers):
            key: Any = {"Number": {"N": str(number)}}
            item = await get_item(self.table.clients, TABLE, key)
            if (item and plain_item(item)) != decoded(self.copy.get(name_of(number))):
                differ.append(name_of(number))
        return differ

    # --- its steps ----------------------------------------------------------------------------

    async def backfill(self) -> None:
        """Fill the copy with the items that are older than the stream."""
        with self.reported() as lines:
            (counts,), exit_code = await self.command("backfill", "--skip-mapping-check")
            require(exit_code == 0, f"the backfill ended with {exit_code}")
            require(counts["filled"] > 0, "the backfill filled nothing")
            require(counts["present"] > 0, "the stream mirrored no item before the scan")
            lines.append(
                f"backfill: {counts['read']:,} items read, {counts['filled']:,} filled, "
                f"{counts['present']:,} there, {counts['repaired']:,} repaired"
            )

    async def clean_audit(self) -> None:
        """Audit, and require that nothing differs."""
        with self.reported() as lines:
            findings, summary = await self.audit()
            require(not findings, f"a clean copy has findings: {summary_of(findings)}")
            lines.append(
                f"audit: {summary['same']:,} of {summary['keys']:,} keys the same, no finding; "
                f"{summary['differed_at_first']:,} differed when first looked at"
            )

    async def plant(self) -> dict[str, str]:
        """Make the copy differ where the writer does not write; return the findings to expect."""
        count = self.scale.planted
        picked = self.chance.sample(sorted(self.table.versions.keys() - {MARK}), 2 * count)
        self.table.left_alone |= set(picked)
        await self.caught_up()
        there = [number for number in picked if number not in self.table.absent][:count]
        require(len(there) == count, "too few items exist to plant that many differences")
        missing, stale, removed = there[0::3], there[1::3], there[2::3][::2]
        never = [self.scale.items + at for at in range(1, len(there[2::3]) - len(removed) + 1)]
        for number in removed:
            await self.table.remove(number)
        await self.caught_up()
        self.copy.delete(*map(name_of, missing))
        for at, number in enumerate(stale):
            self.copy.set(name_of(number), (b"not JSON", b'{"Number":%d}' % number)[at % 2])
        for number in [*removed, *never]:
            self.copy.set(name_of(number), b'{"Number":%d,"Name":"gone"}' % number)
        kinds = {"missing": missing, "stale": stale, "orphan": [*removed, *never]}
        return {name_of(number): kind for kind, numbers in kinds.items() for number in numbers}

    async def mend(self) -> None:
        """Plant differences; require that an audit finds just them and repairs them."""
        with self.reported() as lines:
            planted = await self.plant()
            findings, summary = await self.audit("--repair")
            require(
                findings == planted,
                f"the audit did not find just that: {mismatch(planted, findings)}",
            )
            require(summary["repaired"] == len(planted), f"{summary['repaired']:,} were repaired")
            lines.append(
                f"audit --repair: {len(planted):,} differences planted, found to the key and "
                f"repaired ({summary['missing']:,} missing, {summary['stale']:,} stale, "
                f"{summary['orphans']:,} orphans)"
            )
        numbers = [int(name.rpartition(":")[2]) for name in planted]
        differ = await self.differing(numbers)
        require(not differ, f"repaired, and yet not the same: {differ[:5]}")
        self.table.left_alone.clear()

    async def redrive(self) -> None:
        """Let the mapping discard batches; require that a redrive repairs their keys."""
        with self.reported() as lines:
            self.stream.to_discard = DISCARDED
            await until(lambda: len(self.stream.discarded) == DISCARDED, WITHIN_S)
            await self.caught_up()
            numbers = numbers_of(self.stream.discarded)
            behind = await self.differing(numbers)
            require(behind, "no key of the discarded batches is behind")
            await self.put_objects()
            (summary,), exit_code = await self.command("redrive", f"s3://{BUCKET}")
            require(exit_code == 0, f"the redrive ended with {exit_code}")
            require(summary["redriven"] == DISCARDED, f"redrove {summary['redriven']} batches")
            keys = summary["keys_repaired"] + summary["keys_past"]
            require(keys == len(numbers), f"redrove {keys} keys of {len(numbers)}")
            differ = await self.differing(numbers)
            require(not differ, f"redriven, and yet not the same: {differ[:5]}")
            lines.append(
                f"redrive: {DISCARDED} batches of {len(numbers):,} keys, {len(behind):,} of them "
                f"behind; {summary['keys_repaired']:,} repaired, {summary['keys_past']:,} past"
            )
        self.table.left_alone.clear()

    async def put_objects(self) -> None:
        """Put the discarded batches into the bucket: one payload as JSON, the rest as strings."""
        async with self.table.clients.open("s3") as s3:
            await s3.create_bucket(Bucket=BUCKET)
            for at, discarded in enumerate(self.stream.mapping.discarded):
                document: dict[str, Any] = dict(discarded)
                if at == 0:
                    document["payload"] = json.loads(discarded["payload"])
                key = f"aws/lambda/5c9b7b0e/{discarded['DDBStreamBatchInfo']['shardId']}/{at}"
                await s3.put_object(Bucket=BUCKET, Key=key, Body=json.dumps(document).encode())

    async def at_rest(self) -> None:
        """Stop the writer; require that the copy equals the table, foreign keys untouched."""
        self.table.is_over = True
        await self.caught_up()
        items = await self.table.read()
        scanned: Any = self.copy.scan_iter(count=1_000)
        names = [bytes(name).decode() for name in scanned if not bytes(name).endswith(b"!f")]
        own = [name for name in names if name not in self.foreign]
        copy: dict[str, Any] = {}
        for first in range(0, len(own), 1_000):
            chunk = own[first : first + 1_000]
            values: Any = self.copy.mget(chunk)
            copy |= zip(chunk, map(decoded, values), strict=True)
        differ = [name for name in items.keys() | copy.keys() if items.get(name) != copy.get(name)]
        require(not differ, f"{len(differ):,} keys differ at rest: {differ[:5]}")
        require(look(self.copy, self.foreign) == self.foreign, "a foreign key was touched")
        discarded = len(self.stream.mapping.discarded)
        require(discarded == DISCARDED, f"{discarded} batches were discarded")
        self.say(
            f"at rest: all {len(items):,} items equal the copy, {len(self.foreign)} foreign keys "
            f"are untouched; {self.table.writes:,} writes, {self.stream.batches:,} batches"
        )


def decoded(value: Any) -> Any:
    try:
        return None if value is None else from_json(value)
    except ValueError:
        return value


def summary_of(findings: dict[str, str]) -> str:
    first = ", ".join(f"{name} {kind}" for name, kind in list(findings.items())[:5])
    return f"{len(findings):,}: {first}"


def mismatch(planted: dict[str, str], findings: dict[str, str]) -> str:
    """Describe how the findings differ from what was planted."""
    unfound = {name: kind for name, kind in planted.items() if findings.get(name) != kind}
    more = {name: kind for name, kind in findings.items() if planted.get(name) != kind}
    return f"planted and not found {summary_of(unfound)}; found and not planted {summary_of(more)}"


@asynccontextmanager
async def staged(
    scale: Scale, endpoint: str, redis_url: str, program: Sequence[str], say: Say
) -> AsyncIterator[Drill]:
    """Load the table, plant the foreign keys, then write and mirror until the block ends."""
    chance = random.Random(scale.seed)
    began_s = time.monotonic()
    async with open_clients(endpoint, {}) as clients:
        await make_table(clients, TABLE)
        await load(clients, TABLE, numbered(scale.items, Version={"N": "1"}))
        await begin_stream(clients, TABLE)
        rate = scale.items / (time.monotonic() - began_s)
        say(f"loaded {scale.items:,} items, {rate:,.0f}/s; the stream begins now")
        arn = stream_of(await describe_table(clients, TABLE))
        mapping = EventSourceMapping(SETTINGS, function=FUNCTION, stream_arn=arn)
        versions = dict.fromkeys(range(1, scale.items + 1), 1)
        table = Table(clients, random.Random(scale.seed + 1), versions)
        with redis.Redis.from_url(redis_url) as copy:
            copy.flushall()
            foreign = plant_foreign(copy, first_free=10 * scale.items)
            mirror = Mirror(Config(redis_url=redis_url, metrics="off"), emit=lambda _: None)
            stream = Stream(mapping, mirror, table)
            run = Drill(
                scale, chance, endpoint, redis_url, copy, table, stream, foreign, program, say
            )
            try:
                async with stream.running(), anyio.create_task_group() as tasks:
                    tasks.start_soon(table.write)
                    await until(lambda: stream.records >= scale.items // 50, WITHIN_S)
                    yield run
                    tasks.cancel_scope.cancel()
            finally:
                mirror.close()
                await asyncio.sleep(0)  # lets the sockets close


async def drill(
    scale: Scale, endpoint: str, redis_url: str, say: Say, program: Sequence[str] = PROGRAM
) -> None:
    """Run all steps. Raises NotSo at the first broken promise."""
    with first_error():
        async with staged(scale, endpoint, redis_url, program, say) as run:
            await run.backfill()
            await run.clean_audit()
            await run.mend()
            await run.clean_audit()
            await run.redrive()
            await run.clean_audit()
            await run.at_rest()


def main() -> int:
    """Run the drill on its own servers; return 1 at the first broken promise."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument(
        "--planted", type=int, help="differences (default: 1 of 200 items, at least 100)"
    )
    parser.add_argument("--recheck-after", dest="settle", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=SEED)
    add_binary(parser)
    options = parser.parse_args()
    began_s = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - began_s:7.1f} s  {line}", flush=True)

    scale = Scale(
        items=options.items,
        planted=options.planted or max(100, options.items // 200),
        settle_s=options.settle,
        seed=options.seed,
    )
    say(f"{options.binary} and moto, {scale.items:,} items, seed {scale.seed}")
    try:
        with quick_dynamodb() as endpoint, redis_process(options.binary) as server:
            asyncio.run(drill(scale, endpoint, server.url, say))
    except AsyncsyncError as exc:
        say(f"NOT SO: {exc}")
        return 1
    say("PASS: the audit found and repaired what was planted; the copy equals the table")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
