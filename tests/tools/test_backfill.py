"""asyncsync backfill: complete, next to a live stream, interrupted and resumed."""

from __future__ import annotations

import json
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import anyio
import anyio.lowlevel
import orjson
import pytest
import redis
import redis.asyncio
from aiohttp import ClientSession, web

from asyncsync import Config, ConfigError, Mirror
from asyncsync.aws.clients import AwsClients, open_clients
from asyncsync.aws.items import ItemPage, scan_page
from asyncsync.aws.tables import describe_table, stream_of
from asyncsync.copy.entries import version_in
from asyncsync.fence import NO_VERSION
from asyncsync.lab.proxy import proxy_to
from asyncsync.lab.servers import ServerProcess
from asyncsync.mapping.event_source_mapping import EventSourceMapping, MappingSettings
from asyncsync.tools import table_scan
from asyncsync.tools.audit.command import AuditOptions, audit
from asyncsync.tools.backfill.command import SEGMENT_BYTES, BackfillOptions, _segments, backfill
from asyncsync.tools.backfill.filler import (
    PERMANENT_TRIES,
    Filler,
    FillTally,
    TooLate,
    _is_permanent,
)
from asyncsync.tools.errors import CommandFailed, CommandRefused
from asyncsync.tools.mirrors import make_mirror
from asyncsync.tools.run.poller import Consumer, Poller, function_of
from asyncsync.tools.state import FORMAT
from tests.support.cluster import Cluster
from tests.support.events import FIRST, event, item, record
from tests.support.output import RecordedOutput
from tests.support.tables import (
    begin_stream,
    differences,
    load,
    make_table,
    numbered,
    only_moto,
    table_of,
    until,
)


def mirror_of(url: str, **options: Any) -> Mirror:
    return make_mirror(Config(redis_url=url, metrics="off", **options))


class Runs:
    """Backfills of one table."""

    def __init__(self, table: str, endpoint: str, mirror: Mirror) -> None:
        self.output = RecordedOutput()
        self._table, self._endpoint, self._mirror = table, endpoint, mirror

    async def __call__(self, **options: Any) -> bool:
        given = {"endpoint_url": self._endpoint, "skip_mapping_check": True, **options}
        wanted = BackfillOptions(table=self._table, **given)
        async with open_clients(wanted.endpoint_url, {}) as clients:
            return await backfill(clients, wanted, self._mirror, self.output)

    @property
    def said(self) -> list[str]:
        return self.output.lines

    async def counts(self, **options: Any) -> dict[str, Any]:
        await self(as_json=True, **options)
        counts: dict[str, Any] = orjson.loads(self.said[-1])
        return counts


def copy_of(client: redis.Redis) -> dict[str, bytes]:
    """Every value, without the fences."""
    names = [bytes(name) for name in client.scan_iter(count=1_000)]
    names = [name for name in names if not name.endswith(b"!f")]
    values: Any = client.mget(names) if names else []
    return {name.decode(): value for name, value in zip(names, values, strict=True)}


def command(table: str, endpoint: str, *arguments: str) -> list[str]:
    fixed = ["-m", "asyncsync", "backfill", "--table", table, "--endpoint-url", endpoint]
    return [sys.executable, *fixed, "--skip-mapping-check", *arguments]


# --- the command ------------------------------------------------------------------------------


async def test_a_table_is_filled_and_progress_is_told(
    clients: AwsClients,
    endpoint: str,
    table: str,
    any_server: ServerProcess,
    any_client: redis.Redis,
) -> None:
    await make_table(clients, table)
    await load(clients, table, numbered(300, Odd={"B": b"\xff"}))
    runs = Runs(table, endpoint, mirror_of(any_server.url))

    assert await runs()
    counts = await runs.counts()
    assert (counts["read"], counts["filled"], counts["present"]) == (300, 0, 300)

    assert runs.said[0] == f"table   {table}, about 300 items, 4 segments"
    assert runs.said[1] == f"redis   127.0.0.1:{any_server.port}, keys {{@table}}:{{@key}}"
    assert "done: 300 read, 300 filled; " in runs.said[-2]
    assert await differences(clients, table, copy_of(any_client)) == {}
    assert len(copy_of(any_client)) == any_client.dbsize() == 300  # and no fence


@pytest.mark.parametrize("hash_type", ["S", "B"])
async def test_composite_and_binary_keys_are_named_as_the_handler_does(
    clients: AwsClients,
    endpoint: str,
    table: str,
    real_server: ServerProcess,
    real_client: redis.Redis,
    request: pytest.FixtureRequest,
    hash_type: str,
) -> None:
    await make_table(clients, table, Who=hash_type, At="N")
    who = [{"S": "a:b"}, {"S": "zoë"}] if hash_type == "S" else [{"B": b"\x00"}, {"B": b"\xff:"}]
    items = [{"Who": each, "At": {"N": str(at)}} for each in who for at in range(20)]
    await load(clients, table, items)
    mirror = mirror_of(real_server.url)

    # moto cannot put a binary key into a segment.
    segments = 1 if request.node.callspec.params["endpoint"] == "moto" else 3
    assert await Runs(table, endpoint, mirror)(segments=segments, page_items=7)
    filled = copy_of(real_client)
    real_client.flushall()
    keys = [
        {"At": each["At"], "Who": json.loads(orjson.dumps(each["Who"], default=_b64))}
        for each in items
    ]
    arn = f"arn:aws:dynamodb:us-east-1:111122223333:table/{table}/stream/2026-01-01T00:00:00.000"
    records = [
        record(0, FIRST + at, image={"Who": key["Who"], "At": key["At"]}, Keys=key, stream_arn=arn)
        for at, key in enumerate(keys)
    ]
    await mirror.handle(event(records), None)
    mirror.close()
    await anyio.lowlevel.checkpoint()

    assert copy_of(real_client).keys() == filled.keys()
    assert {name: json.loads(value) for name, value in copy_of(real_client).items()} == {
        name: json.loads(value) for name, value in filled.items()
    }
    assert len(filled) == 40


def _b64(value: bytes) -> str:
    import base64

    return base64.b64encode(value).decode()


async def test_a_mirror_of_ones_own_names_and_makes_the_values(
    clients: AwsClients,
    endpoint: str,
    table: str,
    real_server: ServerProcess,
    real_client: redis.Redis,
    tmp_path: Path,
) -> None:
    await make_table(clients, table)
    await load(clients, table, numbered(60))
    (tmp_path / "mine.py").write_text(
        "from asyncsync import Config, Mirror\n"
        "def value(item):\n"
        "    number = int(item['Number'])\n"
        "    if number == 7:\n"
        "        raise LookupError\n"
        "    return None if number % 2 else {'half': number // 2}\n"
        f"mirror = Mirror(Config(redis_url={real_server.url!r}, metrics='off'),\n"
        "                key=lambda keys: 'mine:' + keys['Number']['N'], transform=value)\n"
    )

    ended = await anyio.run_process(
        command(table, endpoint, "--mirror", "mine:mirror"), cwd=tmp_path, check=False
    )

    assert ended.returncode == 1
    assert b"keys by mine.<lambda> of line 8, values by mine.value" in ended.stderr
    assert b"60 read, 30 filled, 29 left out, 1 rejected" in ended.stdout
    assert b"left: mine:7: the transform raised LookupError" in ended.stdout
    assert copy_of(real_client) == {
        f"mine:{number}": b'{"half":%d}' % (number // 2) for number in range(2, 61, 2)
    }


async def test_a_clusters_copy_is_filled_and_repaired(
    clients: AwsClients, endpoint: str, table: str, cluster: Cluster
) -> None:
    await make_table(clients, table)
    await load(clients, table, numbered(200))
    mirror = mirror_of(cluster.url, redis_cluster=True)
    arn = f"arn:aws:dynamodb:us-east-1:111122223333:table/{table}/stream/2026-01-01T00:00:00.000"
    removed = [record(at, FIRST + at, removed=True, stream_arn=arn) for at in range(1, 21)]
    await mirror.handle(event(removed), None)

    counts = await Runs(table, endpoint, mirror).counts(segments=2)

    assert (counts["filled"], counts["repaired"]) == (180, 20)
    found = cluster.read([f"{table}:{at}".encode() for at in range(1, 201)])
    assert None not in found.values()  # the table holds them all
    mirror.close()
    await anyio.lowlevel.checkpoint()


# --- beside a stream --------------------------------------------------------------------------


@dataclass
class Watching:
    """Every new pair of value and fence that a reader saw, by key."""

    last: dict[str, tuple[bytes | None, bytes | None]] = field(default_factory=dict)
    seen: list[tuple[str, bytes | None, bytes | None]] = field(default_factory=list)

    async def run(self, client: redis.asyncio.Redis, names: list[str]) -> None:
        """Read until cancelled; one command reads a key's value and fence."""
        while True:
            for name in names:
                both: Any = await client.mget(name, f"{{{name}}}!f")
                value, fence = both
                if self.last.get(name) != (value, fence):
                    self.last[name] = value, fence
                    self.seen.append((name, value, fence))
            await anyio.lowlevel.checkpoint()

    def backward_steps(self) -> list[tuple[str, bytes, bytes]]:
        """Return fences that were followed by a lower one; the order ignores nonces."""
        highest: dict[str, bytes] = {}
        steps = []
        for name, _, fence in self.seen:
            version, rank = version_in(fence) or (b"", b"")
            if fence is not None and version + rank < highest.get(name, b""):
                steps.append((name, highest[name], version + rank))
            highest[name] = max(highest.get(name, b""), version + rank if fence else b"")
        return steps

    def older_than_its_fence(
        self, versions: Mapping[tuple[str, int], int]
    ) -> list[tuple[str, bytes]]:
        """Return values that are older than the record their fence names."""
        older = []
        for name, value, fence in self.seen:
            held = version_in(fence)
            if value is None or fence is None or held is None or held[0] == NO_VERSION:
                continue
            if json.loads(value)["Version"] < versions[name, int(held[0][16:])]:
                older.append((name, value))
        return older


class World:
    """A table that a writer changes, its stream mirrored, its copy watched."""

    def __init__(self, clients: AwsClients, table: str, server: ServerProcess, items: int) -> None:
        self.clients = clients
        self.table = table
        self.server = server
        self.numbers = list(range(1, items + 1))
        self.versions = dict.fromkeys(self.numbers, 1)
        self.absent: set[int] = set()
        self.written = 0
        self.may_write: Callable[[], bool] = lambda: True
        self.watching = Watching()
        self.mirror = mirror_of(server.url)

    async def begin(self) -> None:
        """Load the table, then give it a stream."""
        await make_table(self.clients, self.table)
        first = numbered(len(self.numbers), Version={"N": "1"})
        await load(self.clients, self.table, first)
        await begin_stream(self.clients, self.table)

    async def change(self, number: int, *, remove: bool) -> None:
        self.versions[number] += 1
        key: Any = {"Number": {"N": str(number)}}
        if remove:
            self.absent.add(number)
            await self.clients.items.delete_item(TableName=self.table, Key=key)
        else:
            self.absent.discard(number)
            version = {"Version": {"N": str(self.versions[number])}}
            await self.clients.items.put_item(TableName=self.table, Item={**key, **version})
        self.written += 1

    async def write(self, chance: Random) -> None:
        """Change, remove and bring back items until cancelled."""
        while True:
            await until(lambda: self.may_write())
            number = chance.choice(self.numbers)
            await self.change(number, remove=number not in self.absent and chance.random() < 0.4)

    @asynccontextmanager
    async def mirrored(self) -> AsyncIterator[EventSourceMapping]:
        """Mirror the stream through the handler, and watch the copy, until the block ends."""
        described = await describe_table(self.clients, self.table)
        arn = stream_of(described)
        mapping = EventSourceMapping(MappingSettings(batch_size=20), function="f", stream_arn=arn)
        consumer = Consumer(mapping, function_of(self.mirror, 30.0), lambda *_: None)
        names = [f"{self.table}:{number}" for number in self.numbers]
        async with redis.asyncio.Redis(port=self.server.port) as client:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(Poller(self.clients, arn, [consumer]).run)
                tasks.start_soon(self.watching.run, client, names)
                yield mapping
                tasks.cancel_scope.cancel()
        self.mirror.close()

    async def records(self) -> list[Any]:
        """Every record of the stream."""
        arn = stream_of(await describe_table(self.clients, self.table))
        described = await self.clients.streams.describe_stream(StreamArn=arn)
        shard = described["StreamDescription"]["Shards"][0]["ShardId"]
        opened = await self.clients.streams.get_shard_iterator(
            StreamArn=arn, ShardId=shard, ShardIteratorType="TRIM_HORIZON"
        )
        records: list[Any] = []
        iterator = opened["ShardIterator"]
        while True:
            page = await self.clients.streams.get_records(ShardIterator=iterator)
            if not page["Records"]:
                return [each["dynamodb"] for each in records]
            records += page["Records"]
            iterator = page["NextShardIterator"]

    async def versions_by_record(self) -> dict[tuple[str, int], int]:
        """Return the item's version after each record; a removal counts as a version."""
        counted: Counter[str] = Counter()
        found = {}
        for each in await self.records():
            name = f"{self.table}:{each['Keys']['Number']['N']}"
            counted[name] += 1
            found[name, int(each["SequenceNumber"])] = 1 + counted[name]
        return found

    async def caught_up(self, mapping: EventSourceMapping, seen: int) -> None:
        """Wait until every record was applied."""
        await until(lambda: mapping.is_idle and self.applied(seen))

    def applied(self, seen: int) -> bool:
        fences = [fence for _, _, fence in self.watching.seen]
        return any(
            fence and int((version_in(fence) or (b"0" * 17,))[0][16:]) >= seen for fence in fences
        )


async def test_whatever_changes_meanwhile_wins_and_nothing_comes_back(
    clients: AwsClients,
    endpoint: str,
    table: str,
    real_server: ServerProcess,
    real_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A writer changes the table before, during and after: one change for every two pages."""
    world = World(clients, table, real_server, 200)
    await world.begin()
    runs = Runs(table, endpoint, world.mirror)

    async with world.mirrored() as mapping:
        async with anyio.create_task_group() as writer:
            writer.start_soon(world.write, Random(1))
            await until(lambda: world.written > 40)
            for name in [f"{table}:{number}" for number in world.numbers]:
                if real_client.exists(f"{{{name}}}!f"):
                    real_client.delete(name)  # to be repaired, or written by a record
            before, pages = world.written, 0
            world.may_write = lambda: world.written - before <= pages / 2 + 20

            async def in_step(*arguments: Any) -> ItemPage:
                nonlocal pages
                pages += 1
                due = before + pages / 2
                await until(lambda: world.written >= due)
                return await scan_page(*arguments)

            monkeypatch.setattr(table_scan, "scan_page", in_step)
            counts = await runs.counts(segments=200)
            during = world.written - before
            world.may_write = lambda: True
            await until(lambda: world.written > before + during + 40)
            writer.cancel_scope.cancel()
        last = int((await world.records())[-1]["SequenceNumber"])
        await world.caught_up(mapping, last)

    assert 100 <= during <= 121
    assert counts["filled"] > 50
    assert counts["repaired"] > 0
    assert await differences(clients, table, copy_of(real_client)) == {}
    assert world.watching.backward_steps() == []
    assert world.watching.older_than_its_fence(await world.versions_by_record()) == []


async def test_a_table_that_is_being_emptied_leaves_nothing_behind(
    clients: AwsClients,
    endpoint: str,
    table: str,
    real_server: ServerProcess,
    real_client: redis.Redis,
) -> None:
    world = World(clients, table, real_server, 150)
    await world.begin()

    async def empty() -> None:
        for number in world.numbers:
            await world.change(number, remove=True)

    async with world.mirrored() as mapping:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(empty)
            await until(lambda: world.written > 20)
            await Runs(table, endpoint, world.mirror)(segments=100)
        last = int((await world.records())[-1]["SequenceNumber"])
        await world.caught_up(mapping, last)

    assert copy_of(real_client) == {}
    assert world.watching.backward_steps() == []


# --- cut short --------------------------------------------------------------------------------


async def test_killed_and_started_again_it_goes_on_where_it_was(
    clients: AwsClients,
    endpoint: str,
    table: str,
    real_server: ServerProcess,
    real_client: redis.Redis,
    tmp_path: Path,
) -> None:
    await make_table(clients, table)
    await load(clients, table, numbered(400))
    state = tmp_path / "state.json"
    arguments = ("--redis-url", real_server.url, "--state", str(state), "--segments", "1")
    again = command(table, endpoint, *arguments, "--page-items", "10", "--json")

    process = await anyio.open_process([*again, "--max-rcu", "20"])
    async with process:
        await until(lambda: real_client.dbsize() >= 100)
        process.send_signal(signal.SIGKILL)
    assert orjson.loads(state.read_bytes())["segment-000000"]["after"]
    ended = await anyio.run_process(again)
    counts = orjson.loads(ended.stdout)

    assert counts["read"] == 400  # what the first has read is counted, too
    assert 0 <= counts["present"] <= 10  # at most one page is done again
    assert counts["filled"] + counts["present"] == 400
    assert real_client.dbsize() == 400
    assert not state.exists()


async def test_ctrl_c_says_how_to_go_on(
    clients: AwsClients,
    endpoint: str,
    table: str,
    real_server: ServerProcess,
    real_client: redis.Redis,
    tmp_path: Path,
) -> None:
    await make_table(clients, table)
    await load(clients, table, numbered(200))
    state = str(tmp_path / "state.json")
    arguments = ("--redis-url", real_server.url, "--state", state, "--segments", "1")
    slow = command(table, endpoint, *arguments, "--page-items", "5", "--max-rcu", "5")

    process = await anyio.open_process(slow)
    async with process:
        assert process.stdout is not None
        assert process.stderr is not None
        await until(lambda: real_client.dbsize() >= 10)
        process.send_signal(signal.SIGINT)
        said = "".join([each.decode() async for each in process.stdout])
        errors = "".join([each.decode() async for each in process.stderr])

    assert process.returncode == 130
    resume = f"asyncsync: interrupted: resume with the same arguments and --state {state}"
    assert errors.splitlines()[-1] == resume
    assert "cut short: " in said
    assert f"resume with the same arguments and --state {state}" in said


async def test_a_state_of_another_run_is_refused(
    clients: AwsClients, endpoint: str, table: str, real_server: ServerProcess, tmp_path: Path
) -> None:
    await make_table(clients, table)
    state = tmp_path / "state.json"
    runs = Runs(table, endpoint, mirror_of(real_server.url))
    run = {"format": FORMAT, "command": "backfill", "table": "another"}
    state.write_bytes(orjson.dumps({"run": run}))

    with pytest.raises(CommandRefused, match="of another run: table was 'another' and is now"):
        await runs(state=str(state))
    state.write_text("[]")
    with pytest.raises(CommandRefused, match="is not a state that asyncsync has written"):
        await runs(state=str(state))
    with pytest.raises(CommandRefused, match="not of the form s3://bucket/prefix"):
        await runs(state="s3://bucket")


@only_moto
async def test_a_state_can_be_kept_in_s3(
    clients: AwsClients,
    endpoint: str,
    table: str,
    real_server: ServerProcess,
    real_client: redis.Redis,
) -> None:
    await make_table(clients, table)
    await load(clients, table, numbered(100))
    runs = Runs(table, endpoint, mirror_of(real_server.url))
    place = "s3://states/backfills/one"

    async with clients.open("s3") as s3:
        await s3.create_bucket(Bucket="states")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(runs, state=place, segments=2, page_items=5, max_rcu=10))
            await until(lambda: real_client.dbsize() >= 30)
            tasks.cancel_scope.cancel()
        listed = await s3.list_objects_v2(Bucket="states")
        assert {each["Key"] for each in listed["Contents"]} == {
            "backfills/one/run.json",
            "backfills/one/segment-000000.json",
            "backfills/one/segment-000001.json",
        }
        done = real_client.dbsize()
        counts = await runs.counts(state=place, page_items=5)  # segments as before
        listed = await s3.list_objects_v2(Bucket="states")

    assert 0 < done < 100
    assert counts["read"] == 100
    assert counts["present"] <= 10
    assert real_client.dbsize() == 100
    assert "Contents" not in listed


async def test_while_redis_is_away_it_waits_and_then_goes_on(
    clients: AwsClients,
    endpoint: str,
    table: str,
    real_server: ServerProcess,
    real_client: redis.Redis,
) -> None:
    await make_table(clients, table)
    await load(clients, table, numbered(300))
    async with proxy_to(real_server.host, real_server.port) as proxy:
        mirror = mirror_of(f"redis://127.0.0.1:{proxy.port}")
        runs = Runs(table, endpoint, mirror)
        ended: list[bool] = []

        async def run() -> None:
            ended.append(await runs(segments=4, page_items=10, max_rcu=60))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await until(lambda: real_client.dbsize() >= 40)
            proxy.cut()
            await until(
                lambda: any("paused: Connection" in line for line in runs.output.progress_lines)
            )
            held = real_client.dbsize()
            proxy.heal()

    assert ended == [True]
    assert held < 300
    assert real_client.dbsize() == 300


@asynccontextmanager
async def throttling(endpoint: str) -> AsyncIterator[tuple[str, list[bool]]]:
    """Run a DynamoDB that throttles every third read, and four in a row.

    Yields its URL, and whether it throttled each read.
    """
    put_off: list[bool] = []
    async with ClientSession() as session:

        async def answer(request: web.Request) -> web.Response:
            body = await request.read()
            if request.headers.get("X-Amz-Target", "").endswith((".Scan", ".BatchGetItem")):
                put_off.append(len(put_off) % 3 == 0 or 4 <= len(put_off) < 8)
                if put_off[-1]:
                    error = {
                        "__type": "com.amazonaws.dynamodb.v20120810#"
                        "ProvisionedThroughputExceededException",
                        "message": "later",
                    }
                    return web.json_response(error, status=400)
            headers = {k: v for k, v in request.headers.items() if k not in ("Host",)}
            async with session.post(endpoint, data=body, headers=headers) as answered:
                kind = answered.headers["Content-Type"]
                held = await answered.read()
                return web.Response(
                    body=held, status=answered.status, headers={"Content-Type": kind}
                )

        server = web.Application()
        server.router.add_post("/", answer)
        runner = web.AppRunner(server)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            port = runner.addresses[0][1]
            yield f"http://127.0.0.1:{port}", put_off
        finally:
            await runner.cleanup()


async def test_a_table_that_throttles_is_read_all_the_same(
    clients: AwsClients,
    endpoint: str,
    table: str,
    real_server: ServerProcess,
    real_client: redis.Redis,
    no_sdk_backoff: None,
) -> None:
    """Both scans and repairs read it: the fences of twenty items say that they were removed."""
    await make_table(clients, table)
    await load(clients, table, numbered(200))
    mirror = mirror_of(real_server.url)
    arn = f"arn:aws:dynamodb:us-east-1:111122223333:table/{table}/stream/2026-01-01T00:00:00.000"
    removed = [record(at, FIRST + at, removed=True, stream_arn=arn) for at in range(1, 21)]
    await mirror.handle(event(removed), None)
    async with throttling(endpoint) as (url, put_off):
        runs = Runs(table, url, mirror)

        assert await runs(segments=1, page_items=50)
        assert "200 read, 180 filled, 20 repaired" in runs.said[-1]
        assert ", throttled " in runs.said[-1]  # beyond what the SDK repeats by itself

        real_client.delete(*[f"{table}:{at}" for at in range(101, 121)])
        options = AuditOptions(table=table, endpoint_url=url, recheck_after_s=0.01, repair=True)
        async with open_clients(url, {}) as throttled:
            assert await audit(throttled, options, mirror, runs.output)

    assert sum(put_off) >= len(put_off) / 3
    assert runs.said[-1] == "  20 repaired, 0 left"
    assert await differences(clients, table, copy_of(real_client)) == {}
    mirror.close()
    await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize(
    ("size_bytes", "segments"),
    [(0, 4), (4 * SEGMENT_BYTES, 4), (9 * SEGMENT_BYTES, 9), (2**60, 1_000)],
)
def test_segments_are_as_many_as_the_table_is_large(size_bytes: int, segments: int) -> None:
    options = BackfillOptions(table="T")
    table = replace(table_of(), size_bytes=size_bytes)

    assert _segments(options, table, {}) == segments
    before = {"run": {"segments": 7}}
    assert _segments(options, table, before) == 7  # whatever the table has become
    assert _segments(replace(options, segments=3), table, before) == 3


# --- one page ---------------------------------------------------------------------------------


class Hands:
    """A filler that records its sleeps, and the table that its repairs read."""

    def __init__(self, url: str, **options: Any) -> None:
        self.wall_s = 1_000_000.0
        self.slept: list[float] = []
        self.mirror = Mirror(
            Config(redis_url=url, **options), wall_clock=lambda: self.wall_s, emit=lambda _: None
        )
        self.tally = FillTally()
        self.during: Any = lambda _times: None
        self.filler = Filler(self.mirror, "Players", self.read, self.tally, self.sleep)

    async def read(self, keys: Any) -> list[bytes | None]:
        return [None for _ in keys]

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.during(len(self.slept))

    async def page(self, read_s: float = 1_000_000.0) -> None:
        found = [((("Number", "N", str(at)),), orjson.dumps(item(at))) for at in (1, 2)]
        await self.filler.page(found, read_s)


async def test_what_was_read_too_long_ago_is_not_filled(
    real_server: ServerProcess, real_client: redis.Redis
) -> None:
    hands = Hands(real_server.url)

    hands.wall_s += 90_000 - 3_600
    with pytest.raises(TooLate, match="86,400 s ago"):
        await hands.page()
    assert real_client.dbsize() == 0
    hands.wall_s -= 10
    await hands.page()
    assert hands.tally.filled == 2
    hands.filler.close()


async def test_waits_for_redis_get_longer_and_end_where_the_page_is_too_old() -> None:
    hands = Hands("redis://127.0.0.1:1")

    def go_by(times: int) -> None:
        if times == 8:
            hands.wall_s += 90_000

    hands.during = go_by
    with pytest.raises(TooLate):
        await hands.page()

    assert hands.slept == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]
    assert hands.tally.paused == "ConnectionRefusedError: cannot connect"
    assert hands.tally.read == 0


async def test_a_full_server_is_waited_for(
    real_server: ServerProcess, real_client: redis.Redis
) -> None:
    hands = Hands(real_server.url)
    real_client.config_set("maxmemory", 1)

    def make_room(times: int) -> None:
        assert hands.tally.paused == "OOM: refused by the server"
        if times == 2:
            real_client.config_set("maxmemory", "0")

    hands.during = make_room
    await hands.page()

    assert (hands.tally.filled, len(hands.slept), hands.tally.paused) == (2, 2, "")
    hands.filler.close()


async def test_what_the_server_refuses_every_time_is_left_and_named(
    any_server: ServerProcess, any_client: redis.Redis
) -> None:
    """Before 1970 an expiry is negative, which no server takes."""
    hands = Hands(any_server.url, ttl_s=1)
    hands.wall_s = -1_000_000.0

    await hands.page(read_s=-1_000_000.0)

    assert (hands.tally.read, hands.tally.left, hands.tally.is_whole) == (2, 2, False)
    assert [line.split(" in ")[0] for line in hands.tally.named] == [
        f"Players:{at}: ERR: invalid expire time" for at in (1, 2)
    ]
    assert len(hands.slept) == PERMANENT_TRIES - 1
    hands.filler.close()
    await anyio.lowlevel.checkpoint()


async def test_a_deleted_items_fence_is_repaired_from_the_table(
    real_server: ServerProcess, real_client: redis.Redis
) -> None:
    hands = Hands(real_server.url)
    await hands.mirror.handle(event([record(1, FIRST, removed=True)]), None)

    await hands.page()

    assert (hands.tally.filled, hands.tally.repaired) == (1, 1)
    assert real_client.get("Players:1") is None  # the page held it, the table does not
    hands.filler.close()
    hands.mirror.close()
    await anyio.lowlevel.checkpoint()


# --- when it may not begin --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"fence": "off"}, ConfigError, "need ASYNCSYNC_FENCE=on"),
        (
            {"mode": "refresh"},
            CommandRefused,
            "cannot fill with ASYNCSYNC_MODE=refresh",
        ),
        (
            {"mode": "invalidate"},
            CommandRefused,
            "cannot fill with ASYNCSYNC_MODE=invalidate",
        ),
    ],
)
async def test_settings_that_allow_no_fill_are_refused(
    options: dict[str, Any], error: type[Exception], said: str
) -> None:
    mirror = mirror_of("redis://a", **options)
    async with open_clients("http://127.0.0.1:1", {}) as clients:
        with pytest.raises(error, match=said):
            await backfill(clients, BackfillOptions(table="T"), mirror, RecordedOutput())


async def test_a_server_of_a_cluster_that_the_settings_do_not_know_ends_it() -> None:
    with pytest.raises(CommandFailed, match="ASYNCSYNC_REDIS_CLUSTER"):
        _is_permanent(
            "MOVED", "the server is part of a cluster: set ASYNCSYNC_REDIS_CLUSTER=true", 1
        )
    assert not _is_permanent("OOM", "refused by the server", 100)
