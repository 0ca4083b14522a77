"""Backfill, audit, repair and redrive a copy while its table changes, by the real command line.

Run by `make drill`; CI runs it small. The table is on moto's server, the copy on a real Redis,
and the stream is mirrored as `asyncsync run` does it. A writer changes, removes and brings back
items all the while. What a step works on is left alone by the writer until it was looked at, so
that what is to be found is known to the key. At the first thing that is not so it ends with 1.
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
from asyncsync.lab.servers import binaries, redis_process
from asyncsync.mapping.answers import Answer, FunctionError
from asyncsync.mapping.event_source_mapping import (
    Batch,
    Decision,
    EventSourceMapping,
    MappingSettings,
)
from asyncsync.tools.errors import first_error
from asyncsync.tools.run.poller import Consumer, Poller, function_of, wall_ms
from tests.support.events import SEED, TABLE
from tests.support.moto_server import quick_dynamodb
from tests.support.planted import Foreign, look, plant_foreign
from tests.support.tables import begin_stream, load, make_table, numbered, until

FUNCTION = "arn:aws:lambda:us-east-1:111122223333:function:mirror"
BUCKET = "players-failures"
PROGRAM = (sys.executable, "-m", "asyncsync")

# One more attempt, and a batch that fails is in the bucket; none fails but those that are to.
SETTINGS = MappingSettings(retry_attempts_max=1, report_failures=True, backoff_first_ms=10)
INVOCATION_S = 30.0

DISCARDED = 3  # batches
REMOVED_SHARE = 0.3  # of the writer's changes of an item that is there
MARK = 0  # an item whose change is the writer's last, to see that all before it was mirrored
WITHIN_S = 1_800.0  # for one command or one wait: it hangs

_ODD: tuple[dict[str, Any], ...] = (
    {"N": "-0." + "0" * 129 + "1"},
    {"B": b"\x00\xff"},
    {"SS": ["b", "ü", "a"]},
    {"M": {"a:b{c}%": {"L": [{"NULL": True}, {"BOOL": False}]}}},
)

Say = Callable[[str], None]


class NotSo(AsyncsyncError):
    """Something is not as promised; the message says what."""


def holds(condition: object, otherwise: str) -> None:
    """End the drill where a condition does not hold."""
    if not condition:
        raise NotSo(otherwise)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How large a drill is."""

    items: int
    planted: int
    settle_s: float
    seed: int


@dataclass(slots=True)
class Table:
    """A table and whoever writes to it; one write at a time, so its stream has their order."""

    clients: AwsClients
    chance: random.Random
    versions: dict[int, int]  # by number, of the items that the writer picks from
    absent: set[int] = field(default_factory=set)
    left_alone: set[int] = field(default_factory=set)  # by the writer
    written: int = 0
    is_over: bool = False
    turn: anyio.Lock = field(default_factory=anyio.Lock)

    async def write(self) -> None:
        """Change, remove and bring back items until it is over."""
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
        self.written += 1

    async def remove(self, number: int) -> None:
        key: Any = {"Number": {"N": str(number)}}
        async with self.turn:
            await self.clients.items.delete_item(TableName=TABLE, Key=key)
        self.absent.add(number)
        self.written += 1

    async def read(self) -> dict[str, Any]:
        """Every item by its Redis key, read consistently."""
        return {
            name_of(int(each["Number"]["N"])): plain_item(each)
            async for each in scan(self.clients, TABLE)
        }


def name_of(number: int) -> str:
    return f"{TABLE}:{number}"


@dataclass(slots=True)
class Stream:
    """The table's stream through the mapping into the handler, which may be made to give up."""

    mapping: EventSourceMapping
    mirror: Mirror
    table: Table
    records: int = 0
    batches: int = 0
    lag_ms: int = 0  # the most since it was looked at
    to_give_up: int = 0  # batches
    given_up: list[Batch] = field(default_factory=list)
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
            if batch.request_id not in self._doomed and self.to_give_up:
                self.to_give_up -= 1
                self._doomed[batch.request_id] = batch
                self.table.left_alone |= numbers_of([batch])
            if batch.request_id in self._doomed:
                return FunctionError("Drilled")
            return await handle(batch)

        return invoke

    def _watch(self, batch: Batch, _answer: Answer, decision: Decision) -> None:
        if decision.kind == "discarded":
            self.given_up.append(batch)
        self.batches += decision.kind == "done"
        self.records += len(decision.acknowledged)
        if decision.acknowledged:
            self.lag_ms = max(self.lag_ms, wall_ms() - decision.acknowledged[0].created_ms)


def numbers_of(batches: Iterable[Batch]) -> set[int]:
    """The items that batches are about."""
    records = [record for batch in batches for record in json.loads(batch.event)["Records"]]
    return {int(each["dynamodb"]["Keys"]["Number"]["N"]) for each in records}


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

    # --- what it works with -------------------------------------------------------------------

    async def command(self, name: str, *arguments: str) -> tuple[list[dict[str, Any]], int]:
        """Run one command while the writer writes; give what it said, and its exit code."""
        before = self.table.written
        words = [*self.program, name, "--table", TABLE, "--json", *arguments]
        words += ["--endpoint-url", self.endpoint, "--redis-url", self.redis_url]
        env = {k: v for k, v in os.environ.items() if not k.startswith(("ASYNCSYNC_", "AWS_"))}
        with anyio.fail_after(WITHIN_S):
            ended = await anyio.run_process(words, check=False, env=env)
        holds(not ended.stderr, f"{name} said: {ended.stderr.decode()[-500:]}")
        holds(self.table.written > before, f"nothing was written during the {name}")
        return [json.loads(line) for line in ended.stdout.splitlines()], ended.returncode

    async def audit(self, *arguments: str) -> tuple[dict[str, str], dict[str, Any]]:
        """Audit; give the findings by key, and what it came to."""
        settle = ("--recheck-after", str(self.scale.settle_s), *arguments)
        (*found, summary), exit_code = await self.command("audit", *settle)
        findings = {each["key"]: each["finding"] for each in found}
        holds(len(findings) == len(found), "a key was found twice")
        good = len(findings) == summary["repaired"]
        holds(exit_code == (0 if good else 1), f"the audit ended with {exit_code}")
        holds(summary["whole"], "the audit was not of the whole table")
        holds(
            summary["foreign"] == len(self.foreign),
            f"{summary['foreign']} keys are foreign, {len(self.foreign)} were planted",
        )
        return findings, summary

    @contextmanager
    def told(self) -> Any:
        """Count what is written and how late the stream is, from here until it is told."""
        before, began_s = self.table.written, time.monotonic()
        self.stream.lag_ms = 0
        lines: list[str] = []
        yield lines
        written = self.table.written - before
        self.say(
            f"{lines[0]}: in {time.monotonic() - began_s:.1f} s, {written:,} writes meanwhile, "
            f"the stream at most {self.stream.lag_ms / 1_000:.0f} s behind"
        )
        for line in lines[1:]:
            self.say(f"  {line}")

    async def caught_up(self) -> None:
        """Wait until all that was written before now has been mirrored, or given up on."""
        await self.table.put(MARK)
        wanted = self.table.versions[MARK]

        def is_there() -> bool:
            held: Any = self.copy.get(name_of(MARK))
            return held is not None and json.loads(held)["Version"] >= wanted

        await until(is_there, WITHIN_S)

    async def differing(self, numbers: Iterable[int]) -> list[str]:
        """Name the keys of these items that differ; the writer leaves them alone."""
        differ = []
        for number in sorted(numbers):
            key: Any = {"Number": {"N": str(number)}}
            item = await get_item(self.table.clients, TABLE, key)
            if (item and plain_item(item)) != decoded(self.copy.get(name_of(number))):
                differ.append(name_of(number))
        return differ

    # --- what it does -------------------------------------------------------------------------

    async def backfill(self) -> None:
        """Fill the copy of what the table held before its stream."""
        with self.told() as lines:
            (counts,), exit_code = await self.command("backfill", "--skip-mapping-check")
            holds(exit_code == 0, f"the backfill ended with {exit_code}")
            holds(counts["filled"] > 0, "the backfill filled nothing")
            holds(counts["present"] > 0, "the stream had brought nothing before its item was read")
            lines.append(
                f"backfill: {counts['read']:,} items read, {counts['filled']:,} filled, "
                f"{counts['present']:,} there, {counts['repaired']:,} repaired"
            )

    async def clean_audit(self) -> None:
        """See that nothing differs."""
        with self.told() as lines:
            findings, summary = await self.audit()
            holds(not findings, f"an audit that should find nothing found {shown(findings)}")
            lines.append(
                f"audit: {summary['same']:,} of {summary['keys']:,} keys the same, no finding; "
                f"{summary['differed_at_first']:,} differed when first looked at"
            )

    async def plant(self) -> dict[str, str]:
        """Make the copy differ where the writer leaves it alone; give what is to be found."""
        number_of = self.scale.planted
        picked = self.chance.sample(sorted(self.table.versions.keys() - {MARK}), 2 * number_of)
        self.table.left_alone |= set(picked)
        await self.caught_up()
        there = [each for each in picked if each not in self.table.absent][:number_of]
        holds(len(there) == number_of, "too few of the items are there to plant that many")
        missing, stale, removed = there[0::3], there[1::3], there[2::3][::2]
        never = [self.scale.items + at for at in range(1, len(there[2::3]) - len(removed) + 1)]
        for number in removed:
            await self.table.remove(number)
        await self.caught_up()
        self.copy.delete(*[name_of(each) for each in missing])
        for at, number in enumerate(stale):
            self.copy.set(name_of(number), (b"not JSON", b'{"Number":%d}' % number)[at % 2])
        for number in [*removed, *never]:
            self.copy.set(name_of(number), b'{"Number":%d,"Name":"gone"}' % number)
        kinds = {"missing": missing, "stale": stale, "orphan": [*removed, *never]}
        return {name_of(each): kind for kind, numbers in kinds.items() for each in numbers}

    async def mend(self) -> None:
        """Plant differences; see that an audit finds them and no other, and repairs them."""
        with self.told() as lines:
            planted = await self.plant()
            findings, summary = await self.audit("--repair")
            holds(
                findings == planted,
                f"the audit did not find just that: {apart(planted, findings)}",
            )
            holds(summary["repaired"] == len(planted), f"repaired were {summary['repaired']:,}")
            lines.append(
                f"audit --repair: {len(planted):,} differences planted, found to the key and "
                f"repaired ({summary['missing']:,} missing, {summary['stale']:,} stale, "
                f"{summary['orphans']:,} orphans)"
            )
        numbers = [int(name.rpartition(":")[2]) for name in planted]
        differ = await self.differing(numbers)
        holds(not differ, f"repaired, and yet not the same: {differ[:5]}")
        self.table.left_alone.clear()

    async def redrive(self) -> None:
        """Let the mapping give up on batches; see that a redrive mends their keys."""
        with self.told() as lines:
            self.stream.to_give_up = DISCARDED
            await until(lambda: len(self.stream.given_up) == DISCARDED, WITHIN_S)
            await self.caught_up()
            numbers = numbers_of(self.stream.given_up)
            behind = await self.differing(numbers)
            holds(behind, "no key of the batches that were given up on is behind")
            await self.put_objects()
            (summary,), exit_code = await self.command("redrive", f"s3://{BUCKET}")
            holds(exit_code == 0, f"the redrive ended with {exit_code}")
            holds(summary["redriven"] == DISCARDED, f"redriven were {summary['redriven']}")
            keys = summary["keys_repaired"] + summary["keys_past"]
            holds(keys == len(numbers), f"it was of {keys} keys, the batches of {len(numbers)}")
            differ = await self.differing(numbers)
            holds(not differ, f"redriven, and yet not the same: {differ[:5]}")
            lines.append(
                f"redrive: {DISCARDED} batches of {len(numbers):,} keys, {len(behind):,} of them "
                f"behind; {summary['keys_repaired']:,} repaired, {summary['keys_past']:,} past"
            )
        self.table.left_alone.clear()

    async def put_objects(self) -> None:
        """Put what was given up on into the bucket, one payload as an object, the rest as text."""
        async with self.table.clients.open("s3") as s3:
            await s3.create_bucket(Bucket=BUCKET)
            for at, made in enumerate(self.stream.mapping.discarded):
                held: dict[str, Any] = dict(made)
                if at == 0:
                    held["payload"] = json.loads(made["payload"])
                key = f"aws/lambda/5c9b7b0e/{made['DDBStreamBatchInfo']['shardId']}/{at}"
                await s3.put_object(Bucket=BUCKET, Key=key, Body=json.dumps(held).encode())

    async def at_rest(self) -> None:
        """Stop the writer; see that the copy is the table, key by key, and the rest untouched."""
        self.table.is_over = True
        await self.caught_up()
        items = await self.table.read()
        scanned: Any = self.copy.scan_iter(count=1_000)
        names = [bytes(each).decode() for each in scanned if not bytes(each).endswith(b"!f")]
        ours = [each for each in names if each not in self.foreign]
        copy: dict[str, Any] = {}
        for first in range(0, len(ours), 1_000):
            few = ours[first : first + 1_000]
            held: Any = self.copy.mget(few)
            copy |= zip(few, map(decoded, held), strict=True)
        differ = [name for name in items.keys() | copy.keys() if items.get(name) != copy.get(name)]
        holds(not differ, f"{len(differ):,} keys differ at rest: {differ[:5]}")
        holds(look(self.copy, self.foreign) == self.foreign, "a foreign key was touched")
        discarded = len(self.stream.mapping.discarded)
        holds(discarded == DISCARDED, f"{discarded} batches were given up on")
        self.say(
            f"at rest: all {len(items):,} items equal the copy, {len(self.foreign)} foreign keys "
            f"are what they were; {self.table.written:,} writes, {self.stream.batches:,} batches"
        )


def decoded(value: Any) -> Any:
    try:
        return None if value is None else from_json(value)
    except ValueError:
        return value


def shown(findings: dict[str, str]) -> str:
    few = ", ".join(f"{name} {kind}" for name, kind in list(findings.items())[:5])
    return f"{len(findings):,}: {few}"


def apart(planted: dict[str, str], findings: dict[str, str]) -> str:
    """Say how what was found is not what was planted."""
    unfound = {name: kind for name, kind in planted.items() if findings.get(name) != kind}
    more = {name: kind for name, kind in findings.items() if planted.get(name) != kind}
    return f"planted and not found {shown(unfound)}; found and not planted {shown(more)}"


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
            made = Drill(
                scale, chance, endpoint, redis_url, copy, table, stream, foreign, program, say
            )
            try:
                async with stream.running(), anyio.create_task_group() as tasks:
                    tasks.start_soon(table.write)
                    await until(lambda: stream.records >= scale.items // 50, WITHIN_S)
                    yield made
                    tasks.cancel_scope.cancel()
            finally:
                mirror.close()
                await asyncio.sleep(0)  # lets the sockets go


async def drill(
    scale: Scale, endpoint: str, redis_url: str, say: Say, program: Sequence[str] = PROGRAM
) -> None:
    """Run all of it.

    Raises NotSo at the first thing that is not as promised.
    """
    with first_error():
        async with staged(scale, endpoint, redis_url, program, say) as made:
            await made.backfill()
            await made.clean_audit()
            await made.mend()
            await made.clean_audit()
            await made.redrive()
            await made.clean_audit()
            await made.at_rest()


def main() -> int:
    """Run the drill on servers of its own; 1 at the first thing that is not as promised."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--planted", type=int, help="differences (1 of 200 items, at least 100)")
    parser.add_argument("--recheck-after", dest="settle", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--binary", choices=binaries(), default=binaries()[0])
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
    say("PASS: what was planted was found, what was found was mended, the copy is the table")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
