"""Redrive brings the keys of discarded batches up to date and never replays an image."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import orjson
import pytest
import redis

from asyncsync import Config, Mirror
from asyncsync.aws.clients import AwsClients, AwsFailed
from asyncsync.aws.tables import Table
from asyncsync.copy.entries import version_in
from asyncsync.copy.repair import Target
from asyncsync.fence import version
from asyncsync.lab.servers import ServerProcess, free_port
from asyncsync.mapping.event_source_mapping import Batch, shard_record
from asyncsync.mapping.on_failure import on_failure
from asyncsync.model import SequenceNumber
from asyncsync.tools.errors import CommandFailed, CommandRefused
from asyncsync.tools.redrive.command import OBJECTS_MAX, RedriveOptions, redrive
from asyncsync.tools.redrive.discarded import Discarded, highest, matching, read_discarded
from asyncsync.tools.redrive.objects import OBJECT_BYTES_MAX, Bucket, Files, ObjectLeft
from tests.support.aws.on_failure import LABEL_MS, at_version, discarded
from tests.support.events import FIRST, LABEL, arn, event, item, record
from tests.support.output import RecordedOutput
from tests.support.tables import make_table, only_moto, table_of

PLAYERS = table_of("Players")


def key(number: int) -> Any:
    return (("Number", "N", str(number)),)


# --- what an object says ----------------------------------------------------------------------


@pytest.mark.parametrize("as_object", [False, True])
def test_the_highest_record_of_each_key_is_taken_whatever_their_order(as_object: bool) -> None:
    records = [record(1, FIRST + 9), record(2, FIRST), record(1, FIRST + 10), record(1, FIRST + 3)]

    found = read_discarded(discarded(records, as_object=as_object))

    assert found.table == PLAYERS.arn
    assert sorted(found.targets, key=lambda each: each.key) == [
        Target(key(1), at_version(FIRST + 10)),
        Target(key(2), at_version(FIRST)),
    ]
    assert found.faults == []


def test_the_labs_own_objects_are_read() -> None:
    records = tuple(shard_record(record(number, FIRST + number)) for number in (1, 2))
    batch = Batch("id", "shard", 0, records)
    made = on_failure(
        batch, "RecordAgeExceeded", function="function", stream_arn=arn(), now_ms=10**12
    )

    found = read_discarded(orjson.dumps(made))

    assert [each.key for each in found.targets] == [key(1), key(2)]


def test_a_record_that_cannot_be_decoded_still_names_its_key() -> None:
    found = read_discarded(discarded([record(1, FIRST, image={"Odd": "broken"})]))

    assert found.targets == [Target(key(1), at_version(FIRST))]
    assert found.faults == []


def test_records_without_a_key_or_a_sequence_number_are_faults_and_the_rest_is_taken() -> None:
    records = [
        record(1, FIRST),
        record(2, FIRST + 1, Keys={}),
        record(3, "none"),
    ]

    found = read_discarded(discarded(records))

    assert [each.key for each in found.targets] == [key(1)]
    assert found.faults == [
        f"record {FIRST + 1}: Keys is not a map of one or two key attributes of type S, N or B",
        "a record has no SequenceNumber of 1 to 40 digits",
    ]


def _without(name: str) -> bytes:
    made = orjson.loads(discarded([record(1, FIRST)]))
    del made[name]
    return orjson.dumps(made)


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"", "it is not an on-failure object"),
        (b"\xff", "it is not an on-failure object"),
        (b"[]", "it is not an on-failure object"),
        (b"[" * 100_000, "it is not an on-failure object"),
        (b'{"payload": "{}"}', "it is not an on-failure object"),
        (_without("payload"), "it has no payload: Lambda writes one only to a destination in S3"),
        (discarded([]), "its payload has no record"),
        (
            _without("payload")[:-1] + b',"payload":"<Whole Event>"}',
            "its payload cannot be read: the event is not JSON",
        ),
        (_without("payload")[:-1] + b',"payload":"\\ud800"}', "it is not an on-failure object"),
        (_without("payload")[:-1] + b',"payload":7}', "its payload cannot be read"),
    ],
)
def test_what_is_no_such_object_is_a_fault_that_says_so(body: bytes, fault: str) -> None:
    found = read_discarded(body)

    assert (found.table, found.targets) == (None, ())
    assert len(found.faults) == 1
    assert found.faults[0].startswith(fault)


def test_a_key_that_is_not_the_tables_is_a_fault() -> None:
    for other in ((("Name", "S", "ada"),), (("Number", "S", "1"),), (*key(1), ("Z", "S", "a"))):
        found = Discarded(PLAYERS.arn, [Target(key(1)), Target(other)])

        assert matching(found, {"Number": "N"}) == Discarded(
            PLAYERS.arn,
            [Target(key(1))],
            ["its keys do not match the table's key, which is Number (N)"],
        )
    assert matching(Discarded(None, [Target(key(1))]), {"Number": "N"}).faults == ()
    two = {"B": "S", "A": "N"}  # the hash key first, as the table has them
    assert (
        matching(Discarded(None, [Target((("A", "N", "1"), ("B", "S", "b")))]), two).faults == ()
    )


def test_of_many_objects_the_highest_record_of_a_key_is_taken_a_new_streams_above_all() -> None:
    versions = [at_version(FIRST * 10), at_version(9), version(LABEL_MS + 1, SequenceNumber(1))]

    for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
        targets = [Target(key(1), versions[at]) for at in order]
        assert highest([*targets, Target(key(2))]) == [Target(key(1), versions[2]), Target(key(2))]


# --- the command ------------------------------------------------------------------------------


class Bench:
    """A table, its mirror on one server, and a folder of discarded batches."""

    def __init__(
        self, clients: AwsClients, endpoint: str, table: Table, folder: Path, **mirror: Any
    ) -> None:
        self.clients = clients
        self.endpoint = endpoint
        self.table = table.name
        self.stream_arn = f"{table.arn}/stream/{LABEL}"
        self.folder = folder
        self.said: list[str] = []
        self._mirror = mirror

    def mirror(self) -> Mirror:
        settings = dict(self._mirror)
        transform = settings.pop("transform", None)
        return Mirror(Config(**settings), transform=transform, emit=lambda _: None)

    async def put(self, number: int, **attributes: Any) -> None:
        made: Any = item(number, **attributes)
        await self.clients.items.put_item(TableName=self.table, Item=made)

    async def handle(self, *records: Any) -> None:
        mirror = self.mirror()
        await mirror.handle(event(records), None)
        mirror.close()

    def record(self, number: int, sequence_number: int | str, **change: Any) -> Any:
        return record(number, sequence_number, stream_arn=self.stream_arn, created_s=0.0, **change)

    def discard(self, name: str, *records: Any) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(discarded(records))
        return path

    async def redrive(self, *places: str, **options: Any) -> bool:
        output = RecordedOutput()
        mirror = self.mirror()
        wanted = RedriveOptions(
            table=self.table,
            places=places or [str(self.folder)],
            endpoint_url=self.endpoint,
            **options,
        )
        try:
            return await redrive(self.clients, wanted, mirror, output)
        finally:
            self.said = output.lines
            mirror.close()
            await asyncio.sleep(0)  # lets the sockets go

    def files(self) -> list[str]:
        return sorted(
            str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file()
        )


# Repairs themselves are tested on every server; here one is enough.


@pytest.fixture
def server(fake_server: ServerProcess) -> ServerProcess:
    return fake_server


@pytest.fixture
def client(fake_client: redis.Redis) -> redis.Redis:
    return fake_client


@pytest.fixture
async def make(
    clients: AwsClients, endpoint: str, server: ServerProcess, client: redis.Redis, tmp_path: Path
) -> AsyncIterator[Callable[..., Any]]:
    made: list[str] = []

    async def bench(**mirror: Any) -> Bench:
        table = await make_table(clients, f"Redrive{len(made)}")
        made.append(table.name)
        settings = {"redis_url": server.url} | mirror
        return Bench(clients, endpoint, table, tmp_path, **settings)

    yield bench
    for table in made:
        await clients.items.delete_table(TableName=table)


@pytest.fixture
async def bench(make: Callable[..., Any]) -> Bench:
    made: Bench = await make()
    return made


def bytes_of(reply: object) -> bytes | None:
    assert reply is None or isinstance(reply, bytes)
    return reply


def held(client: redis.Redis, name: str) -> tuple[bytes | None, bytes, bytes]:
    """A key's value, and the version and rank of its fence."""
    value, fence = (bytes_of(each) for each in client.mget(name, f"{{{name}}}!f"))
    parts = version_in(fence)
    assert parts is not None
    return value, *parts


async def test_keys_get_what_the_table_holds_now_and_their_fences_the_records_version(
    bench: Bench, client: redis.Redis
) -> None:
    await bench.put(1, Version={"N": "3"})
    await bench.handle(bench.record(1, FIRST, image=item(1)), bench.record(2, FIRST + 1))
    bench.discard("a", bench.record(1, FIRST + 5, image=item(1, Version={"N": "2"})))
    bench.discard("b/c", bench.record(2, FIRST + 6, removed=True), bench.record(3, FIRST + 7))

    assert await bench.redrive()

    value, *fence = held(client, f"{bench.table}:1")
    assert json.loads(value or b"") == {"Number": 1, "Name": "player 1", "Version": 3}
    assert fence == [at_version(FIRST + 5), b"2"]
    assert held(client, f"{bench.table}:2") == (None, at_version(FIRST + 6), b"2")
    assert held(client, f"{bench.table}:3") == (None, at_version(FIRST + 7), b"2")
    assert bench.files() == ["redriven/a", "redriven/b/c"]
    assert bench.said[-1] == (
        "2 of 2 objects redriven and moved to redriven/: 3 keys repaired, 0 were already newer; "
        "0 objects left"
    )


async def test_an_image_is_never_replayed_over_a_key_that_is_past_it(
    bench: Bench, client: redis.Redis
) -> None:
    """The table holds what the newer record says; nothing is read for a copy that is past it."""
    await bench.handle(bench.record(1, FIRST + 9, image=item(1, Version={"N": "9"})))
    before = client.mget(f"{bench.table}:1", f"{{{bench.table}:1}}!f")
    bench.discard("old", bench.record(1, FIRST, image=item(1, Version={"N": "1"})))
    bench.discard("same", bench.record(1, FIRST + 9, image=item(1, Version={"N": "9"})))

    assert await bench.redrive()

    assert client.mget(f"{bench.table}:1", f"{{{bench.table}:1}}!f") == before
    assert bench.files() == ["redriven/old", "redriven/same"]
    assert "0 keys repaired, 1 was already newer" in bench.said[-1]


async def test_a_record_that_arrives_late_after_it_moves_nothing_back(
    bench: Bench, client: redis.Redis
) -> None:
    await bench.put(1, Version={"N": "2"})
    late = bench.record(1, FIRST + 5, image=item(1, Version={"N": "1"}))
    bench.discard("a", late)
    assert await bench.redrive()

    await bench.handle(late)

    assert b'"Version":2' in (client.get(f"{bench.table}:1") or b"")


async def test_twice_is_as_good_as_once(bench: Bench, client: redis.Redis) -> None:
    await bench.put(1)
    path = bench.discard("a", bench.record(1, FIRST))
    body = path.read_bytes()
    assert await bench.redrive()
    once = client.mget(f"{bench.table}:1", f"{{{bench.table}:1}}!f")

    assert await bench.redrive()
    assert bench.said[-1].startswith("0 of 0 objects redriven")
    path.write_bytes(body)
    assert await bench.redrive()

    assert client.mget(f"{bench.table}:1", f"{{{bench.table}:1}}!f") == once
    assert bench.files() == ["redriven/a"]


async def test_two_at_once_leave_nothing_undone_and_fail_at_nothing(
    bench: Bench, client: redis.Redis
) -> None:
    count = 3 * OBJECTS_MAX
    for number in range(count):
        await bench.put(number)
        bench.discard(f"{number:03}", bench.record(number, FIRST + number))
    ended: list[bool] = []

    async def run() -> None:
        ended.append(await bench.redrive())

    async with anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(run)

    assert ended == [True, True]
    assert bench.files() == [f"redriven/{number:03}" for number in range(count)]
    for number in range(count):
        value, *fence = held(client, f"{bench.table}:{number}")
        assert value is not None
        assert fence == [at_version(FIRST + number), b"2"]


async def test_a_dry_run_says_the_same_and_touches_nothing(
    make: Callable[..., Any], client: redis.Redis
) -> None:
    bench: Bench = await make(transform=_only_named)
    for number in (1, 2):
        await bench.put(number)
    await bench.clients.items.put_item(TableName=bench.table, Item={"Number": {"N": "3"}})
    await bench.handle(bench.record(2, FIRST + 9))
    for number in (1, 2, 3):
        bench.discard(str(number), bench.record(number, FIRST))
    before = {name: client.get(name) for name in client.keys()}  # noqa: SIM118

    assert not await bench.redrive(dry_run=True, as_json=True)

    left, summary = (json.loads(line) for line in bench.said)
    assert left == {
        "format": 1,
        "left": str(bench.folder / "3"),
        "kind": "rejected",
        "key": f"{bench.table}:3",
        "reason": "the transform raised KeyError",
    }
    assert summary == {
        "format": 1,
        "objects": 3,
        "redriven": 2,
        "left": 1,
        "of_other_tables": 0,
        "skipped": 0,
        "keys_repaired": 1,
        "keys_past": 1,
        "dry_run": True,
    }
    assert {name: client.get(name) for name in client.keys()} == before  # noqa: SIM118
    assert bench.files() == ["1", "2", "3"]

    assert not await bench.redrive(as_json=True)
    assert [json.loads(line) for line in bench.said] == [left, {**summary, "dry_run": False}]
    assert bench.files() == ["3", "redriven/1", "redriven/2"]


def _only_named(item: dict[str, object]) -> dict[str, object]:
    return {"Name": item["Name"]}


async def test_poison_stays_with_its_reason_until_it_can_be_encoded(
    make: Callable[..., Any], client: redis.Redis
) -> None:
    bench: Bench = await make(transform=_only_named)
    await bench.clients.items.put_item(TableName=bench.table, Item={"Number": {"N": "1"}})
    client.set(f"{bench.table}:1", "older")
    bench.discard("a", bench.record(1, FIRST), bench.record(2, FIRST + 1))

    assert not await bench.redrive()

    assert bench.said[0] == (
        f"left    {bench.folder / 'a'}: {bench.table}:1: the transform raised KeyError"
    )
    assert client.get(f"{bench.table}:1") is None
    assert bench.files() == ["a"]

    await bench.put(1)  # the item was mended
    assert await bench.redrive()
    assert client.get(f"{bench.table}:1") == b'{"Name":"player 1"}'
    assert held(client, f"{bench.table}:1")[1:] == (at_version(FIRST), b"2")
    assert bench.files() == ["redriven/a"]


async def test_what_cannot_be_read_stays_and_another_tables_is_named_and_left(
    bench: Bench, client: redis.Redis
) -> None:
    bench.discard("other").write_bytes(discarded([record(1, FIRST)], table="Players"))
    bench.discard("broken").write_bytes(b"{")
    bench.discard("keys", bench.record(1, FIRST, Keys={"Number": {"S": "ada"}}))

    assert not await bench.redrive()

    broken, keys, other = (
        f"left    {bench.folder / name}" for name in ("broken", "keys", "other")
    )
    assert bench.said[:3] == [
        f"{broken}: it is not an on-failure object of a DynamoDB stream",
        f"{keys}: its keys do not match the table's key, which is Number (N)",
        f"{other}: of another table, {PLAYERS.arn}",
    ]
    assert bench.said[-1].endswith("2 objects left; 1 of other tables")
    assert bench.files() == ["broken", "keys", "other"]
    assert client.dbsize() == 0


async def test_where_redis_is_away_nothing_is_moved(make: Callable[..., Any]) -> None:
    bench: Bench = await make(redis_url=f"redis://127.0.0.1:{free_port()}")
    bench.discard("a", bench.record(1, FIRST))

    with pytest.raises(CommandFailed, match=r"confirmed none of 1 key \(ConnectionRefused"):
        await bench.redrive()

    assert bench.files() == ["a"]
    assert bench.said == []


async def test_a_key_that_is_not_confirmed_leaves_its_object_alone(
    bench: Bench, client: redis.Redis
) -> None:
    await bench.put(1)
    client.set(f"{{{bench.table}:2}}!f", "9" * 40)  # of a format that is not known
    bench.discard("a", bench.record(1, FIRST))
    bench.discard("b", bench.record(2, FIRST + 1))

    assert not await bench.redrive()

    assert bench.files() == ["b", "redriven/a"]
    assert client.get(f"{{{bench.table}:2}}!f") == b"9" * 40


async def test_a_place_that_is_not_there_is_refused(bench: Bench) -> None:
    for place in (str(bench.folder / "none"), "s3://", "s3://bucket/redriven/aws/lambda"):
        with pytest.raises(CommandRefused, match=r"is not a file|is not s3://bucket/prefix"):
            await bench.redrive(place)
        assert bench.said == []


# --- S3 ---------------------------------------------------------------------------------------


@pytest.fixture
async def bucket(clients: AwsClients) -> AsyncIterator[tuple[Any, str]]:
    async with clients.open("s3") as s3:
        await s3.create_bucket(Bucket="failures")
        yield s3, "failures"
        for key in await keys_in(s3, "failures"):
            await s3.delete_object(Bucket="failures", Key=key)
        await s3.delete_bucket(Bucket="failures")


async def keys_in(s3: Any, name: str) -> list[str]:
    page = await s3.list_objects_v2(Bucket=name)
    return [each["Key"] for each in page.get("Contents", [])]


LAMBDAS = "aws/lambda/b2f5xmpl/shardId-864758bb/2026/01/02/2026-01-02T00.13.49-"


@only_moto
async def test_objects_of_s3_are_moved_once_they_are_done(
    bench: Bench, bucket: tuple[Any, str], client: redis.Redis
) -> None:
    s3, name = bucket
    await bench.put(1)
    done = discarded([bench.record(1, FIRST)], as_object=True)
    await s3.put_object(Bucket=name, Key=f"{LAMBDAS}a", Body=done)
    await s3.put_object(Bucket=name, Key=f"{LAMBDAS}b", Body=b"{")

    assert not await bench.redrive(f"s3://{name}")

    assert await keys_in(s3, name) == [f"{LAMBDAS}b", f"redriven/{LAMBDAS}a"]
    assert client.exists(f"{bench.table}:1")
    answer = await s3.get_object(Bucket=name, Key=f"redriven/{LAMBDAS}a")
    assert await answer["Body"].read() == done
    assert bench.said[0].startswith(f"left    s3://{name}/{LAMBDAS}b: ")
    assert not await bench.redrive(f"s3://{name}")
    assert bench.said[-1].startswith("0 of 1 object redriven")
    assert await bench.redrive(f"s3://{name}/elsewhere")


@only_moto
async def test_one_bad_object_of_each_kind_stops_only_itself(
    bench: Bench, bucket: tuple[Any, str], client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3, name = bucket
    await bench.put(1)
    good = [f"{LAMBDAS}{at:02}" for at in range(39)]
    for at, object_key in enumerate(good):
        body = discarded([bench.record(1, FIRST + at)])
        await s3.put_object(Bucket=name, Key=object_key, Body=body)
    elsewhere = bench.stream_arn.replace("us-east-1", "eu-west-1")
    bad: dict[str, tuple[bytes, str]] = {
        "other-table": (
            discarded([record(1, FIRST, stream_arn=elsewhere)]),
            "of another table, arn:aws:dynamodb:eu-west-1",
        ),
        "broken": (b'{"DDBStreamBatchInfo": {}', "it is not an on-failure object"),
        "foreign": (b'{"some": "document"}', "it is not an on-failure object"),
        "gzip-broken": (b"\x1f\x8b\x08\x00broken", "it is not an on-failure object"),
        "no-payload": (b'{"DDBStreamBatchInfo": {}}', "it has no payload"),
        "no-context": (b'{"payload": "{}"}', "it is not an on-failure object"),
    }
    for label, (body, _) in bad.items():
        await s3.put_object(Bucket=name, Key=f"{LAMBDAS}{label}", Body=body)
    archived = discarded([bench.record(1, FIRST)])
    key = f"{LAMBDAS}archived"
    await s3.put_object(Bucket=name, Key=key, Body=archived, StorageClass="GLACIER")
    skipped = {
        f"{LAMBDAS}huge": b" " * (OBJECT_BYTES_MAX + 1),
        "aws/lambda/": b"",
        f"{LAMBDAS}empty": b"",
        "AWSDynamoDB/01/manifest-summary.json": b"{}",
        "AWSDynamoDB/01/data/part.json.gz": b"gzip",
        "operations/backfill-0123/run.json": b"{}",
        "operations/backfill-0123/segment-000001.json": b"{}",
        "operations/audit-0123/progress.json": b"{}",
        "operations/audit-0123/parts.json": b"{}",
        "backup.csv": b"a,b",
        ".DS_Store": b"x",
    }
    for object_key, body in skipped.items():
        await s3.put_object(Bucket=name, Key=object_key, Body=body)
    await s3.put_object(Bucket=name, Key=f"{LAMBDAS}zz-gone", Body=archived)
    read, was_read = Bucket.read, []

    async def reads(self: Bucket, object_name: str) -> bytes | None:
        was_read.append(object_name)
        if object_name.endswith("gone"):
            await s3.delete_object(Bucket=name, Key=f"{LAMBDAS}zz-gone")
        return await read(self, object_name)

    monkeypatch.setattr(Bucket, "read", reads)

    assert not await bench.redrive(f"s3://{name}")

    left = sorted(line for line in bench.said if line.startswith("left "))
    expected = {
        **{label: said for label, (_, said) in bad.items()},
        "archived": "InvalidObjectState",
    }
    assert len(left) == len(expected)
    for line, label in zip(left, sorted(expected), strict=True):
        assert f"{LAMBDAS}{label}: " in line
        assert expected[label] in line
    assert bench.said[-1].startswith("39 of 45 objects redriven and moved")
    assert bench.said[-1].endswith(
        f"6 objects left; 1 of other tables; {len(skipped)} skipped, not Lambda's by name or size"
    )
    assert {each for each in await keys_in(s3, name) if each.startswith("redriven/")} == {
        f"redriven/{each}" for each in good
    }
    assert not {each.removeprefix(f"s3://{name}/") for each in was_read} & skipped.keys()


def test_a_file_that_cannot_be_read_or_moved_is_left(tmp_path: Path) -> None:
    folder = Files(tmp_path)
    (tmp_path / "a").mkdir()
    with pytest.raises(ObjectLeft, match="it cannot be read: Is a directory"):
        asyncio.run(folder.read(str(tmp_path / "a")))
    (tmp_path / "redriven").write_bytes(b"")  # where the folder should be
    (tmp_path / "b").write_bytes(b"{}")
    with pytest.raises(ObjectLeft, match="it cannot be moved to"):
        asyncio.run(folder.move(str(tmp_path / "b")))


@only_moto
async def test_an_object_that_is_gone_was_moved_by_another_run(bucket: tuple[Any, str]) -> None:
    s3, name = bucket
    objects = Bucket(s3, name, "")

    assert await objects.read(f"s3://{name}/gone") is None
    await objects.move(f"s3://{name}/gone")


@only_moto
async def test_every_page_of_a_listing_is_read(bucket: tuple[Any, str]) -> None:
    s3, name = bucket
    for at in range(7):
        await s3.put_object(Bucket=name, Key=f"{at}", Body=b"")

    class Short:
        async def list_objects_v2(self, **request: Any) -> Any:
            return await s3.list_objects_v2(MaxKeys=2, **request)

    found = [each.name async for each in Bucket(Short(), name, "").listed()]

    assert found == [f"s3://{name}/{at}" for at in range(7)]


@only_moto
async def test_a_bucket_that_is_not_there_is_said_in_one_line(bench: Bench) -> None:
    with pytest.raises(AwsFailed, match="S3 refused listing s3://none/a: NoSuchBucket"):
        await bench.redrive("s3://none/a")


@only_moto
async def test_killed_between_copy_and_removal_it_is_done_again(
    bench: Bench, bucket: tuple[Any, str]
) -> None:
    s3, name = bucket
    await s3.put_object(Bucket=name, Key="a", Body=discarded([bench.record(1, FIRST)]))

    class Dies:
        def __getattr__(self, method: str) -> Any:
            if method == "delete_object":
                raise asyncio.CancelledError
            return getattr(s3, method)

    with pytest.raises(asyncio.CancelledError):
        await Bucket(Dies(), name, "").move(f"s3://{name}/a")
    assert await keys_in(s3, name) == ["a", "redriven/a"]

    assert await bench.redrive(f"s3://{name}")
    assert await keys_in(s3, name) == ["redriven/a"]


# --- the command line -------------------------------------------------------------------------


async def test_the_command_line_ends_with_1_where_an_object_is_left(
    bench: Bench, server: ServerProcess
) -> None:
    await bench.put(1)
    bench.discard("a", bench.record(1, FIRST))
    bench.discard("b").write_bytes(b"{")
    program = [sys.executable, "-m", "asyncsync", "redrive", "--table", bench.table]
    program += ["--endpoint-url", bench.endpoint, "--redis-url", server.url, "--json"]

    ended = await anyio.run_process([*program, str(bench.folder)], check=False)
    left, summary = (json.loads(line) for line in ended.stdout.splitlines())
    assert (left["kind"], summary["left"], ended.returncode) == ("unreadable", 1, 1)

    (bench.folder / "b").unlink()
    ended = await anyio.run_process([*program, str(bench.folder)], check=False)
    assert (json.loads(ended.stdout)["objects"], ended.returncode) == (0, 0)
