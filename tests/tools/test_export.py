"""Backfill reads an export in AWS's layout and names a broken part."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import orjson
import pytest
import redis

from asyncsync import Config
from asyncsync.aws.clients import AwsClients, open_clients
from asyncsync.lab.servers import ServerProcess
from asyncsync.tools.backfill.command import BackfillOptions, backfill
from asyncsync.tools.backfill.filler import TooLate
from asyncsync.tools.errors import CommandRefused
from asyncsync.tools.mirrors import make_mirror
from tests.support.aws.exports import BUCKET, FOLDER, Exported, part_of, parts
from tests.support.output import RecordedOutput
from tests.support.tables import make_table, only_moto

MOTOS = "arn:aws:dynamodb:us-east-1:123456789012:table"


class Runs:
    """Backfills of one table from its export."""

    def __init__(self, table: str, endpoint: str, server: ServerProcess) -> None:
        self._output = RecordedOutput()
        self._options: dict[str, Any] = {
            "table": table,
            "endpoint_url": endpoint,
            "skip_mapping_check": True,
        }
        self._mirror = make_mirror(Config(redis_url=server.url, metrics="off"))

    async def __call__(self, **options: Any) -> bool:
        given = BackfillOptions(**self._options, **options)
        async with open_clients(given.endpoint_url, {}) as clients:
            return await backfill(clients, given, self._mirror, self._output)

    @property
    def said(self) -> list[str]:
        return self._output.lines

    @property
    def last(self) -> str:
        return "\n".join(self.said)


@only_moto
async def test_every_part_is_filled_and_no_capacity_is_read(
    clients: AwsClients, endpoint: str, real_server: ServerProcess, real_client: redis.Redis
) -> None:
    await make_table(clients, f"Whole-{real_server.name}")
    table = f"Whole-{real_server.name}"
    url = await Exported(clients, table, parts()).put()
    runs = Runs(table, endpoint, real_server)

    assert await runs(from_export=url)

    assert f"table   {table}, about 300 items, 3 parts of an export" in runs.last
    assert "done: 300 read, 300 filled; " in runs.last
    assert runs.last.endswith(" 0.0 units")
    assert real_client.dbsize() == 300
    assert real_client.get(f"{table}:299") == b'{"Number":299,"B":"/w=="}'


@only_moto
@pytest.mark.parametrize(
    "change",
    [
        {"dataFileS3Key": None},
        {"dataFileS3Key": 7},
        {"itemCount": None},
        {"itemCount": "100"},
        {"itemCount": True},
    ],
)
async def test_a_manifest_that_is_not_as_expected_is_said_in_one_line(
    clients: AwsClients, endpoint: str, fake_server: ServerProcess, change: dict[str, Any]
) -> None:
    if "Odd" not in (await clients.items.list_tables())["TableNames"]:
        await make_table(clients, "Odd")
    export = Exported(clients, "Odd", parts(1))
    url = await export.put()
    async with clients.open("s3") as s3:
        listed = {**export.files[0], **change}
        key = f"{FOLDER}/manifest-files.json"
        await s3.put_object(Bucket=BUCKET, Key=key, Body=orjson.dumps(listed))

    with pytest.raises(CommandRefused, match="lists a file without dataFileS3Key or itemCount"):
        await Runs("Odd", endpoint, fake_server)(from_export=url)


def _another_checksum(held: bytes) -> bytes:
    return held + b"\0"


def _cut(held: bytes) -> bytes:
    return held[: len(held) // 2]


def _fewer(_: bytes) -> bytes:
    return part_of(range(100, 150))


def _no_item(_: bytes) -> bytes:
    return gzip.compress(b'{"Item": 7}\n' * 100)


def _no_gzip(_: bytes) -> bytes:
    return b"not gzip"


@only_moto
@pytest.mark.parametrize(
    ("broken", "has_checksum", "said"),
    [
        (_another_checksum, True, "its checksum is not the manifest's"),
        (_cut, False, "it is not whole (EOFError)"),
        (_fewer, False, "it has 50 items, the manifest says 100"),
        (_no_item, False, "line 1 is not an item of the table"),
        (_no_gzip, False, "it is not whole (BadGzipFile)"),
    ],
)
async def test_a_broken_part_is_named_the_rest_is_done_and_then_it_alone(
    clients: AwsClients,
    endpoint: str,
    fake_server: ServerProcess,
    tmp_path: Any,
    broken: Callable[[bytes], bytes],
    has_checksum: bool,
    said: str,
) -> None:
    table = f"Broken-{broken.__name__}"
    await make_table(clients, table)
    export = Exported(clients, table, parts())
    if not has_checksum:
        export.files[1]["md5Checksum"] = ""
    whole = export.parts[1]
    export.parts[1] = broken(whole)
    url = await export.put()
    runs = Runs(table, endpoint, fake_server)
    options = {"from_export": url, "state": str(tmp_path / "state.json")}

    with redis.Redis(port=fake_server.port) as client:
        client.flushall()
        assert not await runs(**options)
        assert f"left: {FOLDER}/data/part1.json.gz: {said}" in runs.last
        assert "resume with the same arguments and --state " in runs.last
        assert {client.exists(f"{table}:{number}") for number in [*range(100), 200, 299]} == {1}

        export.parts[1] = whole
        if not has_checksum:  # the manifest is what it was
            export.files[1]["md5Checksum"] = ""
        await export.put()
        assert await runs(**options)
        assert client.dbsize() == 300
        assert ", 3 parts of an export, 2 of them done before" in runs.last
        assert "done: 300 read, 300 filled; " in runs.said[-1]  # both runs together


@only_moto
async def test_the_command_line_ends_with_1_where_a_part_is_broken(
    clients: AwsClients, endpoint: str, fake_server: ServerProcess
) -> None:
    await make_table(clients, "Ends")
    export = Exported(clients, "Ends", parts())
    export.parts[0] = _another_checksum(export.parts[0])
    url = await export.put()
    program = [sys.executable, "-m", "asyncsync", "backfill", "--table", "Ends", "--json"]
    program += ["--endpoint-url", endpoint, "--redis-url", fake_server.url]

    ended = await anyio.run_process(
        [*program, "--skip-mapping-check", "--from-export", url], check=False
    )

    said = orjson.loads(ended.stdout)
    assert ended.returncode == 1
    assert (said["how"], said["read"], said["filled"]) == ("done", 200, 200)
    assert said["broken"] == [f"{FOLDER}/data/part0.json.gz: its checksum is not the manifest's"]


@only_moto
async def test_a_part_that_is_not_there_is_named_and_the_rest_is_filled(
    clients: AwsClients, endpoint: str, fake_server: ServerProcess
) -> None:
    await make_table(clients, "Gone")
    export = Exported(clients, "Gone", parts())
    url = await export.put()
    async with clients.open("s3") as s3:
        await s3.delete_object(Bucket=BUCKET, Key=str(export.files[2]["dataFileS3Key"]))

    runs = Runs("Gone", endpoint, fake_server)

    assert not await runs(from_export=url)

    assert "200 read" in runs.last
    assert f"  left: {FOLDER}/data/part2.json.gz: S3 refused reading s3://exports/" in runs.last


@only_moto
@pytest.mark.parametrize(
    ("summary", "said"),
    [
        ({"outputFormat": "ION"}, "its format is ION, not DYNAMODB_JSON"),
        ({"exportType": "INCREMENTAL_EXPORT"}, "which holds changes, not a table"),
        ({"tableArn": f"{MOTOS}/Other"}, f"it is of {MOTOS}/Other, not of table {MOTOS}/Refused"),
        ({"tableArn": "arn:aws:dynamodb:us-east-1:1:table/Refused"}, f"not of table {MOTOS}"),
        (
            {"tableArn": "arn:aws:dynamodb:eu-west-1:123456789012:table/Refused"},
            f"table/Refused, not of table {MOTOS}/Refused",
        ),
        ({"exportTime": "yesterday"}, "its exportTime 'yesterday' is not a time"),
        ({"exportTime": None}, "its exportTime None is not a time"),
        ({"exportTime": 7}, "is not a time"),
        ({"itemCount": 7}, "its two manifests do not count the same items"),
        ({"tableArn": None}, "it is of a table that it does not name, not of"),
    ],
)
async def test_what_is_no_full_export_of_the_table_is_refused(
    clients: AwsClients,
    endpoint: str,
    fake_server: ServerProcess,
    summary: dict[str, Any],
    said: str,
) -> None:
    if "Refused" not in (await clients.items.list_tables())["TableNames"]:
        await make_table(clients, "Refused")
    url = await Exported(clients, "Refused", parts(1), **summary).put()

    with pytest.raises(CommandRefused, match=said):
        await Runs("Refused", endpoint, fake_server)(from_export=url)


@only_moto
async def test_an_export_that_is_older_than_a_fill_may_be_is_not_filled(
    clients: AwsClients, endpoint: str, fake_server: ServerProcess
) -> None:
    await make_table(clients, "Old")
    made_at = (datetime.now(UTC) - timedelta(hours=25)).isoformat()
    url = await Exported(clients, "Old", parts(1), exportTime=made_at).put()

    with pytest.raises(TooLate, match="too old to fill"):
        await Runs("Old", endpoint, fake_server)(from_export=url)
