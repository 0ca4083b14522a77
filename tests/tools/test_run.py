"""asyncsync run, its poller, and how it reads DynamoDB, on a server."""

from __future__ import annotations

import json
import re
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest
import redis

from asyncsync import Config, ConfigError
from asyncsync.aws.clients import AwsClients, AwsFailed, IteratorGone
from asyncsync.aws.items import get_item, scan
from asyncsync.aws.streams import (
    RecordPage,
    Shard,
    lambda_record,
    read_page,
    shard_iterator,
    shards,
)
from asyncsync.aws.tables import describe_table, stream_of
from asyncsync.cli.main import main
from asyncsync.lab.servers import ServerProcess, free_port
from asyncsync.mapping.answers import Answer, FunctionError, Returned
from asyncsync.mapping.event_source_mapping import (
    Batch,
    Decision,
    EventSourceMapping,
    MappingSettings,
)
from asyncsync.tools.errors import UserCodeFailed
from asyncsync.tools.mirrors import load_mirror, make_mirror
from asyncsync.tools.run import poller as poll
from asyncsync.tools.run.command import RunOptions, run
from asyncsync.tools.run.poller import Consumer, Poller
from tests.support.events import FIRST, arn, record
from tests.support.output import RecordedOutput


async def make_table(
    clients: AwsClients, name: str, view: str | None = "NEW_AND_OLD_IMAGES"
) -> None:
    stream: dict[str, Any] = {"StreamEnabled": False}
    if view is not None:
        stream = {"StreamEnabled": True, "StreamViewType": view}
    await clients.items.create_table(
        TableName=name,
        KeySchema=[{"AttributeName": "Number", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "Number", "AttributeType": "N"}],
        BillingMode="PAY_PER_REQUEST",
        StreamSpecification=stream,  # type: ignore[arg-type]
    )


async def put(clients: AwsClients, table: str, number: int, **attributes: Any) -> None:
    await clients.items.put_item(
        TableName=table, Item={"Number": {"N": str(number)}, **attributes}
    )


# --- the command ------------------------------------------------------------------------------


async def test_a_table_is_mirrored_and_progress_is_shown(
    clients: AwsClients,
    endpoint: str,
    any_server: ServerProcess,
    any_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = f"Tail-{any_server.name}"
    await make_table(clients, table)
    for number in (1, 2, 3):
        await put(clients, table, number, Odd={"B": b"\xff"})
    await put(clients, table, 1, Odd={"S": "newer"})
    await clients.items.delete_item(TableName=table, Key={"Number": {"N": "2"}})
    any_client.script_flush()  # so that one more round trip sends the script
    output = RecordedOutput()

    monkeypatch.setattr("asyncsync.tools.run.command.PROGRESS_INTERVAL_S", 0.05)
    options = RunOptions(table=table, exit_when_idle_s=1.5)
    await run(clients, options, make_mirror(Config(redis_url=any_server.url)), output)

    held: Any = any_client.mget(*(f"{table}:{number}" for number in (1, 2, 3)))
    assert [each and json.loads(each) for each in held] == [
        {"Number": 1, "Odd": "newer"},
        None,
        {"Number": 3, "Odd": "/w=="},
    ]
    (last,) = output.lines
    assert "5 records in 1 batch, 2 superseded, caught up" in last
    assert any("5 records in 1 batch" in line for line in output.progress_lines)


async def test_a_redis_that_is_down_is_noted_with_what_was_reported(
    clients: AwsClients, endpoint: str
) -> None:
    await make_table(clients, "Down")
    await put(clients, "Down", 1)
    refused = anyio.Event()

    class Listening(RecordedOutput):
        def warn(self, text: str) -> None:
            super().warn(text)
            if "ConnectionRefusedError" in text:
                refused.set()

    output = Listening()
    async with anyio.create_task_group() as tasks:
        mirror = make_mirror(Config(redis_url=f"redis://127.0.0.1:{free_port()}"))
        tasks.start_soon(run, clients, RunOptions(table="Down"), mirror, output)
        with anyio.fail_after(10):
            await refused.wait()
        tasks.cancel_scope.cancel()

    assert any(re.search("batch of 1 reported [0-9]{21}", line) for line in output.notes)


async def test_a_stream_without_new_images_is_refused_at_the_start(
    clients: AwsClients, endpoint: str, real_server: ServerProcess
) -> None:
    table = f"KeysOnly-{real_server.name}"
    await make_table(clients, table, "KEYS_ONLY")  # with no record yet

    command = ["-m", "asyncsync", "run", "--table", table, "--endpoint-url", endpoint]
    ended = await anyio.run_process(
        [sys.executable, *command, "--redis-url", real_server.url], check=False
    )

    assert ended.returncode == 2
    (_, error) = ended.stderr.splitlines()
    assert b"has view type KEYS_ONLY, which has no new images" in error


async def test_a_table_without_a_stream_or_no_table_is_refused(
    clients: AwsClients, endpoint: str
) -> None:
    await make_table(clients, "Streamless", None)
    mirror = make_mirror(Config(redis_url="redis://127.0.0.1:1"))

    with pytest.raises(ConfigError, match="Streamless has no stream: enable one"):
        await run(clients, RunOptions(table="Streamless"), mirror, RecordedOutput())
    with pytest.raises(AwsFailed, match="describing table Nowhere: ResourceNotFoundException"):
        await run(clients, RunOptions(table="Nowhere"), mirror, RecordedOutput())


def test_an_endpoint_that_is_not_there_is_one_line(
    no_sdk_backoff: None, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    given = ["--table", "T", "--endpoint-url", url, "--redis-url", "redis://127.0.0.1:1"]

    assert main(["run", *given]) == 3
    assert "DynamoDB failed at describing table T: Could not" in capsys.readouterr().err


async def test_ctrl_c_ends_it_with_a_last_line_and_exit_130(
    clients: AwsClients, endpoint: str, real_server: ServerProcess, real_client: redis.Redis
) -> None:
    table = f"CtrlC-{real_server.name}"
    await make_table(clients, table)
    await put(clients, table, 1)
    command = ["-m", "asyncsync", "run", "--table", table, "--endpoint-url", endpoint]
    process = await anyio.open_process([sys.executable, *command, "--redis-url", real_server.url])
    async with process:
        assert process.stdout is not None
        assert process.stderr is not None
        with anyio.fail_after(20):
            while not real_client.exists(f"{table}:1"):  # noqa: ASYNC110
                await anyio.sleep(0.05)
            await anyio.sleep(1)  # it counts the batch after Redis has it
            process.send_signal(signal.SIGINT)
            last = "".join([each.decode() async for each in process.stdout])
            errors = "".join([each.decode() async for each in process.stderr])

    assert process.returncode == 130
    assert errors.splitlines()[-1] == "asyncsync: interrupted"
    assert "1 record in 1 batch," in last
    assert real_client.get(f"{table}:1") == b'{"Number":1}'


async def test_the_users_mirror_is_used_as_it_is(
    clients: AwsClients,
    endpoint: str,
    real_server: ServerProcess,
    real_client: redis.Redis,
    tmp_path: Path,
) -> None:
    table = f"Own-{real_server.name}"
    await make_table(clients, table)
    await put(clients, table, 1)
    (tmp_path / "mine.py").write_text(
        "from asyncsync import Config, Mirror\n"
        f"mirror = Mirror(Config(redis_url={real_server.url!r}, metrics='off'),\n"
        "                key=lambda keys: 'mine:' + keys['Number']['N'])\n"
    )
    command = ["-m", "asyncsync", "run", "--table", table, "--endpoint-url", endpoint]
    command += ["--mirror", "mine:mirror", "--exit-when-idle", "0.3"]

    ended = await anyio.run_process([sys.executable, *command], cwd=tmp_path, check=False)

    assert ended.returncode == 0
    assert b"keys by mine.<lambda>" in ended.stderr
    assert b"settings from --mirror mine:mirror" in ended.stderr
    assert b"caught up" in ended.stdout
    assert real_client.get("mine:1") == b'{"Number":1}'


TYPO = """
from asyncsync import Config, Mirror

def name_of(keys):
    return 'mine:' + keys['{key}']['N']

def shape(item):
    return {{'Name': inner(item)}}

def inner(item):
    return item['{attribute}']

{more}
mirror = Mirror(Config(redis_url={url!r}), key=name_of, transform=shape)
"""


@pytest.mark.parametrize(
    ("wrong", "last", "line"),
    [
        ({"attribute": "Nmae"}, "KeyError: 'Nmae'", "return item['Nmae']"),
        ({"key": "Nubmer"}, "KeyError: 'Nubmer'", "return 'mine:' + keys['Nubmer']['N']"),
        ({"more": "import no_such_module"}, "No module named 'no_such_module'", "import no_such"),
        ({"more": "raise ValueError('mine')"}, "ValueError: mine", "raise ValueError('mine')"),
        ({"more": "def broken(:"}, "SyntaxError: invalid syntax", "def broken(:"),
        ({"more": "from asyncsync import Mirrors"}, "cannot import name 'Mirrors'", "Mirrors"),
    ],
)
async def test_an_exception_of_the_users_ends_it_with_their_traceback_and_none_of_our_lines(
    clients: AwsClients,
    endpoint: str,
    fake_server: ServerProcess,
    fake_client: redis.Redis,
    tmp_path: Path,
    table: str,
    wrong: dict[str, str],
    last: str,
    line: str,
) -> None:
    """C12: raw metrics and "raised KeyError", tried again for ever."""
    await make_table(clients, table)
    await put(clients, table, 1, Name={"S": "one"})
    source = {"url": fake_server.url, "attribute": "Name", "key": "Number", "more": "", **wrong}
    (tmp_path / "mine.py").write_text(TYPO.format(**source))
    command = ["-m", "asyncsync", "run", "--table", table, "--endpoint-url", endpoint]

    with anyio.fail_after(20):
        ended = await anyio.run_process(
            [sys.executable, *command, "--mirror", "mine:mirror", "--quiet"],
            cwd=tmp_path,
            check=False,
        )

    errors = ended.stderr.decode()
    assert ended.returncode == 1, errors
    assert b'"_aws"' not in ended.stdout
    assert last in errors.splitlines()[-1]
    assert line in errors
    files = re.findall(r'File "(.+)", line', errors)
    assert {*files} == {str(tmp_path / "mine.py")}


RETURNS = """
import functools
from asyncsync import Config, Mirror

def name_of(keys):
    return {name}

def shape(item):
    return {value}

class Shape:
    def __call__(self, item):
        return {value}

def two(option, item):
    return {value}

async def later(item):
    return {{}}

mirror = Mirror(Config(redis_url={url!r}), key=name_of, transform={transform})
"""


@pytest.mark.parametrize(
    ("wrong", "line", "last"),
    [
        ({"value": "[1]"}, "8, in shape", "the transform returned list, not dict, bytes or None"),
        ({"value": "7"}, "8, in shape", "the transform returned int, not dict, bytes or None"),
        ({"value": "'text'"}, "8, in shape", "returned str, not dict, bytes or None"),
        ({"value": "bytearray(b'x')"}, "8, in shape", "returned bytearray, not dict, bytes"),
        (
            {"value": "{'a': {'b': [{1, 'x'}]}}"},
            "8, in shape",
            "a.b.0: the transform returned a set that JSON cannot hold",
        ),
        ({"value": "{'a': object()}"}, "8, in shape", "a: the transform returned a object that"),
        ({"value": "{'a': float('nan')}"}, "8, in shape", "a: the transform returned a float"),
        ({"value": "{1: 2}"}, "8, in shape", "returned a name of type int that JSON cannot"),
        (
            {"value": "7", "transform": "Shape()"},
            "12, in Shape.__call__",
            "the transform returned int, not dict, bytes or None",
        ),
        (
            {"value": "7", "transform": "functools.partial(two, 1)"},
            "15, in two",
            "the transform returned int, not dict, bytes or None",
        ),
        (
            {"transform": "later"},
            "18, in later",
            "returned coroutine, not dict, bytes or None: define it with def, not async def",
        ),
        ({"name": "7"}, "5, in name_of", "the key function returned int; it must return a non-"),
        ({"name": "''"}, "5, in name_of", "the key function returned str; it must return a non"),
        ({"name": "None"}, "5, in name_of", "the key function returned NoneType; it must"),
        ({"name": "'\\ud800'"}, "5, in name_of", "returned a string that is not UTF-8"),
    ],
)
async def test_what_a_user_wrongly_returns_ends_it_with_the_function_and_the_type(
    clients: AwsClients,
    endpoint: str,
    fake_server: ServerProcess,
    tmp_path: Path,
    table: str,
    monkeypatch: pytest.MonkeyPatch,
    wrong: dict[str, str],
    line: str,
    last: str,
) -> None:
    """C12: such a record was a reject, and tried again for a day."""
    await make_table(clients, table)
    await put(clients, table, 1)
    rest = {"value": "item", "name": "keys['Number']['N']", "transform": "shape"}
    source = RETURNS.format(**{**rest, **wrong}, url=fake_server.url)
    (tmp_path / "mine_returns.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mine_returns", raising=False)
    mirror = load_mirror("mine_returns:mirror")

    with anyio.fail_after(20), pytest.raises(UserCodeFailed) as raised:
        await run(clients, RunOptions(table=table), mirror, RecordedOutput())

    place, *_, reason = str(raised.value).splitlines()
    assert place.strip() == f'File "{tmp_path / "mine_returns.py"}", line {line}'
    assert last in reason


async def test_the_users_traceback_needs_no_run(
    endpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text("raise ValueError('mine')\n")
    command = ["-m", "asyncsync", "audit", "--table", "T", "--endpoint-url", endpoint]

    ended = await anyio.run_process(
        [sys.executable, *command, "--mirror", "mine:mirror"], cwd=tmp_path, check=False
    )

    assert ended.returncode == 1
    assert ended.stderr.decode().splitlines()[-1] == "ValueError: mine"
    assert b"asyncsync" not in ended.stderr


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", "is not of the form module:name"),
        ("no_such_module:mirror", "cannot be loaded"),
        ("asyncsync:no_such_name", "cannot be loaded"),
        ("asyncsync:__version__", "is str, not an asyncsync.Mirror"),
    ],
)
def test_a_name_without_a_mirror_is_refused(
    name: str, message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setattr(sys, "path", list(sys.path))

    assert main(["run", "--table", "T", "--mirror", name]) == 2
    assert message in capsys.readouterr().err


# --- reading DynamoDB -------------------------------------------------------------------------


def test_an_sdk_record_becomes_the_record_that_lambda_sends() -> None:
    sdk = {
        "eventID": "0" * 32,
        "eventName": "REMOVE",
        "eventVersion": "1.1",
        "eventSource": "aws:dynamodb",
        "awsRegion": "us-east-1",
        "dynamodb": {
            "ApproximateCreationDateTime": datetime(2026, 1, 1, tzinfo=UTC),
            "Keys": {"Number": {"N": "7"}},
            "OldImage": {
                "B": {"B": b"foobar"},
                "BS": {"BS": [b"a", b"b"]},
                "L": {"L": [{"B": b"x"}, {"M": {"b": {"B": b"y"}}}]},
                "S": {"S": "text"},
                "NULL": {"NULL": True},
            },
            "SequenceNumber": str(FIRST),
            "SizeBytes": 100,
            "StreamViewType": "OLD_IMAGE",
        },
        "userIdentity": {"PrincipalId": "dynamodb.amazonaws.com", "Type": "Service"},
    }

    made = lambda_record(sdk, arn())

    expected = record(
        7,
        FIRST,
        removed=True,
        view="OLD_IMAGE",
        OldImage={
            "B": {"B": "Zm9vYmFy"},
            "BS": {"BS": ["YQ==", "Yg=="]},
            "L": {"L": [{"B": "eA=="}, {"M": {"b": {"B": "eQ=="}}}]},
            "S": {"S": "text"},
            "NULL": {"NULL": True},
        },
    )
    identity = {"type": "Service", "principalId": "dynamodb.amazonaws.com"}
    assert made == {**expected, "userIdentity": identity}
    assert json.loads(json.dumps(made)) == made


async def test_items_are_read_consistently_one_or_all(clients: AwsClients) -> None:
    await make_table(clients, "Items")
    for number in range(3):
        await put(clients, "Items", number, B={"B": b"\x00"})

    table = await describe_table(clients, "Items")

    assert (table.key, table.view_type) == ({"Number": "N"}, "NEW_AND_OLD_IMAGES")
    assert stream_of(table).endswith(table.stream_arn or "?")
    found = [item async for item in scan(clients, "Items")]
    assert sorted(item["Number"]["N"] for item in found) == ["0", "1", "2"]
    assert await get_item(clients, "Items", {"Number": {"N": "1"}}) == {
        "Number": {"N": "1"},
        "B": {"B": "AA=="},
    }
    assert await get_item(clients, "Items", {"Number": {"N": "9"}}) is None


# --- caught up ----------------------------------------------------------------------------------


class Pages:
    """A stream of one shard: these pages, then empty ones; each read is counted."""

    def __init__(self, *pages: int) -> None:
        self._pages = [
            [record(number, FIRST + at * 1_000 + number) for number in range(count)]
            for at, count in enumerate(pages)
        ]

    async def shards(self, *_: object) -> list[Shard]:
        return [Shard("only", None)]

    async def shard_iterator(self, *_: object) -> str:
        return "0"

    async def read_page(self, _clients: object, _arn: str, iterator: str) -> RecordPage:
        at = int(iterator)
        records = self._pages[at] if at < len(self._pages) else []
        return RecordPage(records, str(at + 1))


@pytest.mark.parametrize(
    "pages",
    [
        (1_000, 1_000, 5),
        (3, 1_000, 2),  # a page of 1 MB is short, and more follow
        (2, 0, 3),  # an empty page between
        (0, 7),
    ],
)
async def test_it_says_caught_up_only_where_every_record_was_read_and_handled(
    clients: AwsClients,
    monkeypatch: pytest.MonkeyPatch,
    fake_server: ServerProcess,
    fake_client: redis.Redis,
    pages: tuple[int, ...],
) -> None:
    """C12: "caught up" after 1,000 of 12,000, because the mapping was idle for a moment."""
    table = f"Pages-{'-'.join(map(str, pages))}"
    await make_table(clients, table)
    stream = Pages(*pages)
    for name in ("shards", "shard_iterator", "read_page"):
        monkeypatch.setattr(poll, name, getattr(stream, name))
    monkeypatch.setattr(poll, "POLL_INTERVAL_S", 0.1)
    monkeypatch.setattr("asyncsync.tools.run.command.PROGRESS_INTERVAL_S", 0.005)
    output = RecordedOutput()
    mirror = make_mirror(Config(redis_url=fake_server.url))

    with anyio.fail_after(60):
        await run(clients, RunOptions(table=table, exit_when_idle_s=0.05), mirror, output)

    total = sum(pages)
    told = [line for line in [*output.progress_lines, *output.lines] if "caught up" in line]
    assert told
    assert all(f"{total:,} records" in line for line in told), told
    assert any("reading on" in line for line in output.progress_lines)


# --- the poller -------------------------------------------------------------------------------


class Shards:
    """A stream of three shards, one the child of another; moto's streams have one shard."""

    def __init__(self) -> None:
        self.pages = {
            "child": [[record(1, FIRST + 9)]],
            "parent": [[record(1, FIRST)], [], [record(1, FIRST + 1), record(2, FIRST + 2)]],
            "other": [[record(3, FIRST + 5)]],
        }
        self.gone = True

    async def shards(self, *_: object) -> list[Shard]:
        return [Shard("child", "parent"), Shard("parent", "trimmed"), Shard("other", None)]

    async def shard_iterator(
        self, _clients: object, _arn: str, shard_id: str, after: str | None = None
    ) -> str:
        at = 0
        if after is not None:
            assert (shard_id, after) == ("parent", str(FIRST))
            at = 1
        return f"{shard_id}/{at}"

    async def read_page(self, _clients: object, _arn: str, iterator: str) -> RecordPage:
        shard_id, at = iterator.split("/")
        if iterator == "parent/2" and self.gone:
            self.gone = False
            raise IteratorGone("older than 15 minutes")
        following = int(at) + 1
        more = following < len(self.pages[shard_id])
        return RecordPage(
            self.pages[shard_id][int(at)], f"{shard_id}/{following}" if more else None
        )


async def test_a_child_shard_follows_its_parent_and_an_iterator_that_expired_is_renewed(
    clients: AwsClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = Shards()
    for name in ("shards", "shard_iterator", "read_page"):
        monkeypatch.setattr(poll, name, getattr(stream, name))
    monkeypatch.setattr(poll, "POLL_INTERVAL_S", 0.0)
    seen: list[int] = []
    failing = iter([True])
    done = anyio.Event()

    async def function(batch: Batch) -> Answer:
        return FunctionError() if next(failing, False) else Returned(None)

    def watch(_batch: Batch, _answer: Answer, decision: Decision) -> None:
        seen.extend(int(each.item_identifier) - FIRST for each in decision.acknowledged)
        if len(seen) == 5:
            done.set()

    mapping = EventSourceMapping(
        MappingSettings(backoff_first_ms=20), function="f", stream_arn=arn()
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Poller(clients, arn(), [Consumer(mapping, function, watch)]).run)
        with anyio.fail_after(10):
            await done.wait()
        tasks.cancel_scope.cancel()

    assert [at for at in seen if at != 5] == [0, 1, 2, 9]
    assert mapping.checkpoint("parent") == str(FIRST + 2)


async def test_reading_pauses_while_too_many_records_wait(
    clients: AwsClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poll, "WAITING_MAX", 3)
    await make_table(clients, "Slow")
    for number in range(10):
        await put(clients, "Slow", number)
    stream_arn = stream_of(await describe_table(clients, "Slow"))
    read = 0

    async def page(_clients: AwsClients, _arn: str, iterator: str) -> RecordPage:
        nonlocal read
        read += 1
        answer = await clients.streams.get_records(ShardIterator=iterator, Limit=5)
        records = [lambda_record(each, stream_arn) for each in answer["Records"]]
        return RecordPage(records, answer.get("NextShardIterator"))

    monkeypatch.setattr(poll, "read_page", page)
    monkeypatch.setattr(poll, "POLL_INTERVAL_S", 0.0)
    invoked, resume, done = anyio.Event(), anyio.Event(), anyio.Event()
    mapping = EventSourceMapping(MappingSettings(), function="f", stream_arn=stream_arn)

    async def function(_batch: Batch) -> Answer:
        invoked.set()
        await resume.wait()
        return Returned(None)

    def watch(_batch: Batch, _answer: Answer, _decision: Decision) -> None:
        if read > 1 and mapping.waiting == 0:
            done.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Poller(clients, stream_arn, [Consumer(mapping, function, watch)]).run)
        await invoked.wait()
        await anyio.wait_all_tasks_blocked()
        assert (read, mapping.waiting) == (1, 5)
        resume.set()
        with anyio.fail_after(10):
            await done.wait()
        tasks.cancel_scope.cancel()


async def test_a_shard_iterator_begins_at_the_oldest_or_after_a_record(
    clients: AwsClients,
) -> None:
    await make_table(clients, "Iterators")
    for number in range(3):
        await put(clients, "Iterators", number)
    stream_arn = stream_of(await describe_table(clients, "Iterators"))
    (shard,) = await shards(clients, stream_arn)

    first = await read_page(
        clients, stream_arn, await shard_iterator(clients, stream_arn, shard.shard_id)
    )
    second = first.records[1]["dynamodb"]["SequenceNumber"]
    rest = await read_page(
        clients, stream_arn, await shard_iterator(clients, stream_arn, shard.shard_id, second)
    )

    assert len(first.records) == 3
    assert rest.records == first.records[2:]
