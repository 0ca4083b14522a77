"""The operations function: its slices, its rights, and the state machine that runs it."""

from __future__ import annotations

import asyncio
import fnmatch
import json
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import aioboto3
import anyio
import pytest
import redis

from asyncsync import Config, ConfigError, Mirror
from asyncsync.aws.clients import AwsClients, AwsFailed
from asyncsync.aws.items import scan_page
from asyncsync.aws.tables import describe_table, stream_of
from asyncsync.cli import operations
from asyncsync.cli.operations import (
    EVENT_BYTES_MAX,
    LINE_BYTES_MAX,
    LINES_BYTES_MAX,
    LINES_MAX,
    SliceOutput,
    lambda_handler,
)
from asyncsync.copy import reader as copy_module
from asyncsync.errors import StoreRefused
from asyncsync.lab.proxy import proxy_to
from asyncsync.lab.servers import ServerProcess, dynamodb_process, redis_process
from asyncsync.tools import table_scan
from asyncsync.tools.audit.command import AuditOptions, audit
from asyncsync.tools.backfill.command import BackfillOptions, backfill
from asyncsync.tools.errors import CommandFailed
from asyncsync.tools.get import get
from asyncsync.tools.output import Output
from asyncsync.tools.retire.command import RetireOptions, retire
from tests.support.aws.exports import Exported, parts
from tests.support.aws.functions import function
from tests.support.aws.on_failure import at_version, discarded
from tests.support.events import FIRST, record
from tests.support.formats import REAL_SERVERS, format_server
from tests.support.planted import ITEMS, plant_differences, result
from tests.support.servers import ONE_SERVER
from tests.support.tables import begin_stream, load, make_table, numbered, stream_arn_of
from tests.support.template.cache_users import access, set_user
from tests.support.template.cloudformation import PSEUDO, Resolver
from tests.support.template.state_machine import Failed, Walk

BUCKET = "operated"
STATE = f"s3://{BUCKET}/operations"


class Deadline:
    """Lambda's context; its time is up after a number of looks at it."""

    aws_request_id = "8f2a"

    def __init__(self, looks: int) -> None:
        self._looks = looks

    def get_remaining_time_in_millis(self) -> int:
        self._looks -= 1
        return 900_000 if self._looks > 0 else 59_000


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """Moto's server, which also has S3."""
    with dynamodb_process() as url:
        yield url


@pytest.fixture(scope="module", params=ONE_SERVER)
def real_server(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    """One server is enough: other tests run the commands on every server."""
    with redis_process(request.param) as server:
        yield server


@pytest.fixture
async def bucket(clients: AwsClients) -> AsyncIterator[Any]:
    async with clients.open("s3") as s3:
        await s3.create_bucket(Bucket=BUCKET)
        yield s3
        listed = await s3.list_objects_v2(Bucket=BUCKET)
        for each in listed.get("Contents", []):
            await s3.delete_object(Bucket=BUCKET, Key=each["Key"])
        await s3.delete_bucket(Bucket=BUCKET)


@pytest.fixture
def settings(
    table: str, real_server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> pytest.MonkeyPatch:
    """The function's environment, as the template sets it."""
    for name, value in {
        operations.TABLE: table,
        operations.PLACE: f"s3://{BUCKET}/aws/lambda/",
        operations.STATE: STATE,
        operations.SEES_MAPPING: "false",
        "ASYNCSYNC_REDIS_URL": real_server.url,
    }.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    async def few(*arguments: Any) -> Any:
        clients, name, segment, segments, after, _ = arguments
        return await scan_page(clients, name, segment, segments, after, 5)

    monkeypatch.setattr(table_scan, "scan_page", few)
    monkeypatch.setattr(copy_module, "SCAN_COUNT", 20)


async def invoked(event: Any, context: Any = None) -> dict[str, Any]:
    """Run the function in a thread, because it starts an event loop; JSON in, JSON out."""
    given = json.loads(json.dumps(event))
    answer = await asyncio.to_thread(lambda_handler, given, context)
    made: dict[str, Any] = json.loads(json.dumps(answer))
    return made


async def until_done(event: Any, looks: int) -> list[dict[str, Any]]:
    """Invoke it with its own answers until it is done; return the answers."""
    answers = [await invoked(event, Deadline(looks))]
    while not answers[-1]["done"]:
        answers.append(await invoked(answers[-1]["next"], Deadline(looks)))
        assert len(answers) < 100, "no slice got anywhere"
    return answers


# --- slices -----------------------------------------------------------------------------------


async def test_a_backfill_in_slices_fills_what_one_invocation_fills(
    clients: AwsClients,
    endpoint: str,
    table: str,
    bucket: Any,
    settings: pytest.MonkeyPatch,
    real_client: redis.Redis,
) -> None:
    await make_table(clients, table)
    await load(clients, table, numbered(ITEMS))
    args = ["backfill", "--endpoint-url", endpoint, "--skip-mapping-check", "--segments", "4"]
    args += ["--page-items", "5", "--json"]

    (once,) = await until_done({"args": args}, 10**6)
    copied = {name: real_client.get(name) for name in real_client.scan_iter()}
    real_client.flushall()
    answers = await until_done({"args": args}, 10)

    assert len(answers) >= 5
    assert (once["done"], once["exit_code"]) == (True, 0)
    assert [each["exit_code"] for each in answers] == [1] * (len(answers) - 1) + [0]
    first, last = (json.loads(each["said"][-1]) for each in (once, answers[-1]))
    assert (last["read"], last["filled"]) == (first["read"], first["filled"]) == (ITEMS, ITEMS)
    assert {name: real_client.get(name) for name in real_client.scan_iter()} == copied
    assert "Contents" not in await bucket.list_objects_v2(Bucket=BUCKET)


async def test_an_audit_in_slices_finds_what_one_invocation_finds(
    clients: AwsClients,
    endpoint: str,
    table: str,
    bucket: Any,
    settings: pytest.MonkeyPatch,
    real_client: redis.Redis,
    capsys: pytest.CaptureFixture[str],
) -> None:
    await make_table(clients, table)
    await load(clients, table, numbered(ITEMS))
    planted = plant_differences(real_client, table)
    args = ["audit", "--endpoint-url", endpoint, "--recheck-after", "0.001", "--json"]

    (once,) = await until_done({"args": args}, 10**6)
    answers = await until_done({"args": args}, 10)

    assert len(answers) >= 5
    assert once["exit_code"] == answers[-1]["exit_code"] == 1
    findings, summary = result(once["said"])
    assert findings == planted
    assert result(answers[-1]["said"])[1] == summary
    found: dict[str, str] = {}
    for each in answers:
        lines = [line for line in each["said"] if line.startswith('{"format":1,"finding"')]
        found |= {json.loads(line)["key"]: json.loads(line)["finding"] for line in lines}
    assert found == planted
    assert "Contents" not in await bucket.list_objects_v2(Bucket=BUCKET)
    logged = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    metrics = [line["AuditDifferences"] for line in logged if "_aws" in line]
    assert metrics == [len(planted)] * 2  # once for each audit, when its last slice has ended


async def test_the_environment_supplies_arguments(
    clients: AwsClients,
    endpoint: str,
    table: str,
    bucket: Any,
    settings: pytest.MonkeyPatch,
    real_client: redis.Redis,
) -> None:
    stream_arn = stream_arn_of(await make_table(clients, table))
    await load(clients, table, numbered(3))
    made = record(2, FIRST, stream_arn=stream_arn)
    body = discarded([made], table=table)
    await bucket.put_object(Bucket=BUCKET, Key="aws/lambda/a", Body=body)

    answer = await invoked({"args": ["redrive", "--endpoint-url", endpoint]}, Deadline(10**6))

    assert (answer["done"], answer["exit_code"]) == (True, 0)
    copy, *said = answer["said"]
    assert copy.startswith(f"table arn:aws:dynamodb:us-east-1:123456789012:table/{table}, Redis ")
    assert copy.endswith("settings from the environment")
    assert said == [
        "1 of 1 object redriven and moved to redriven/: 1 key repaired, 0 were already newer; "
        "0 objects left"
    ]
    assert real_client.exists(f"{table}:2")
    listed = await bucket.list_objects_v2(Bucket=BUCKET)
    assert [each["Key"] for each in listed["Contents"]] == ["redriven/aws/lambda/a"]


async def test_work_past_the_deadline_is_abandoned_and_done_again(
    clients: AwsClients,
    endpoint: str,
    table: str,
    bucket: Any,
    settings: pytest.MonkeyPatch,
    real_server: ServerProcess,
    real_client: redis.Redis,
) -> None:
    """Redis is down: a page would wait for it for a day."""
    await make_table(clients, table)
    await load(clients, table, numbered(20))
    args = ["backfill", "--endpoint-url", endpoint, "--skip-mapping-check"]
    async with proxy_to(real_server.host, real_server.port) as proxy:
        settings.setenv("ASYNCSYNC_REDIS_URL", f"redis://127.0.0.1:{proxy.port}")
        proxy.cut()
        with settings.context() as patched:
            patched.setattr(operations, "ANSWER_S", 898.0)  # of 900 s
            cut = await invoked({"args": args}, Deadline(10**6))
        proxy.heal()
        (done,) = await until_done(cut["next"], 10**6)

    assert (cut["done"], cut["exit_code"]) == (False, 1)
    assert cut["said"][-1] == "time is up: the work under way is done again"
    assert done["exit_code"] == 0
    assert real_client.dbsize() == 20


def test_the_entry_point_is_the_functions_name() -> None:
    assert f"{lambda_handler.__module__}.{lambda_handler.__name__}" == operations.ENTRY_POINT


# --- refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (
            {"args": ["demo"]},
            "demo cannot run here: give backfill, audit, redrive, retire, check, get",
        ),
        ({"args": ["run", "--table", "T"]}, "run cannot run here"),
        ({"args": ["simulate"]}, "simulate cannot run here"),
        ({"args": []}, "nothing cannot run here"),
        ({"args": ["--version"]}, "--version cannot run here"),
        ({}, "an event must be "),
        (["audit"], "an event must be "),
        ({"args": ["audit"], "arg": []}, "an event must be "),
        ({"args": "audit"}, "args must be a list"),
        (
            {"args": ["audit", "--sample", 100]},
            "args must be a list of strings: quote its numbers",
        ),
        ({"args": ["audit"], "also": "--repair"}, "args must be a list"),
        (
            {"args": ["audit", "--sample", "0"]},
            "--sample: must be a whole number from 1 to 1,000,000,000, not 0",
        ),
        (
            {"args": ["audit", "--sampel", "1"]},
            "there is no option --sampel; did you mean --sample?",
        ),
        ({"args": ["audit", "--state", "a.json"]}, "--state must be s3://bucket/prefix here"),
        ({"args": ["check", "--function", "other"]}, "this function's own are used"),
        ({"args": ["get"]}, "required: KEY"),
        ({"args": ["get", "Players:1", "--state", "s3://b/p"]}, "there is no option --state"),
        ({"args": ["retire", "{A}", "--repair"]}, "there is no option --repair."),
        ({"args": ["backfill"]}, "give --skip-mapping-check"),
        ({"args": ["audit", "x" * EVENT_BYTES_MAX]}, "at most 16,384 bytes"),
        ({"args": ["audit", "\ud800"]}, "unexpected argument"),
    ],
)
def test_wrong_arguments_are_an_answer_with_exit_code_2(
    event: Any, message: str, settings: pytest.MonkeyPatch
) -> None:
    answer = lambda_handler(event, Deadline(10**6))

    assert (answer["done"], answer["exit_code"]) == (True, 2)
    assert message in answer["said"][0]
    assert answer["next"] == event
    json.dumps(answer).encode()


def test_wrong_settings_are_an_answer(settings: pytest.MonkeyPatch) -> None:
    settings.setenv("ASYNCSYNC_MODE", "sideways")
    assert "ASYNCSYNC_MODE" in lambda_handler({"args": ["audit"]})["said"][0]
    settings.delenv(operations.STATE)
    assert "OPERATIONS_STATE is not set" in lambda_handler({"args": ["audit"]})["said"][0]
    settings.delenv(operations.TABLE)
    assert "give --table" in lambda_handler({"args": ["audit"]})["said"][0]
    settings.delenv(operations.PLACE)
    said = lambda_handler({"args": ["redrive", "--table", "T"]})["said"]
    assert "required: PLACE" in said[0]


async def test_an_error_that_a_retry_may_fix_is_raised(
    clients: AwsClients, endpoint: str, table: str, bucket: Any, settings: pytest.MonkeyPatch
) -> None:
    args = ["audit", "--endpoint-url", endpoint]
    with pytest.raises(AwsFailed, match="describing table"):  # it is not there
        await invoked({"args": args})
    await make_table(clients, table)
    settings.setenv("ASYNCSYNC_REDIS_PASSWORD", "wrong")
    with pytest.raises(StoreRefused) as raised:
        await invoked({"args": args})
    assert "wrong" not in str(raised.value).replace("WRONGPASS", "").replace("invalid", "")
    assert not issubclass(ConfigError, StoreRefused)


# --- the answer ------------------------------------------------------------------------------


def test_an_answer_is_bounded_and_keeps_the_first_and_the_last_lines() -> None:
    output = SliceOutput()
    for number in range(10 * LINES_MAX):
        output.line(f"stale    Players:{number}")
    lines = output.lines()

    assert len(lines) == LINES_MAX + 1
    assert (lines[0], lines[-2]) == ("stale    Players:0", "stale    Players:1999")
    assert lines[-1] == f"({9 * LINES_MAX:,} lines of the middle left out)"

    for line in ("x" * 10**6, '"\\\n' * 10**5, "zoë\U0001f600" * 10**5):
        output = SliceOutput()
        for _ in range(100):
            output.line(line)
        assert len(json.dumps(output.lines())) < LINES_BYTES_MAX + 1_000
        assert len(output.lines()[0].encode()) <= LINE_BYTES_MAX
    # Half of what Step Functions takes, which is less than Lambda does.
    assert LINES_BYTES_MAX + 1_000 + EVENT_BYTES_MAX + 1_000 < 128 * 1_024


def test_of_progress_the_answer_has_the_latest_and_the_log_a_line_each_half_minute(
    capsys: pytest.CaptureFixture[str],
) -> None:
    now_s = 0.0
    output = SliceOutput(lambda: now_s)
    output.line("table   Players")
    for _ in range(100):
        now_s += 1.0
        output.progress(f"{now_s:.0f} keys, 1/s, 0 findings")
        if now_s == 50:
            output.line("stale    Players:7")

    assert output.lines() == [
        "table   Players",
        "   50.0 s  50 keys, 1/s, 0 findings",
        "stale    Players:7",
        "  100.0 s  100 keys, 1/s, 0 findings",
    ]
    logged = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["says"] for each in logged] == [
        f"{n}.0 s  {n} keys, 1/s, 0 findings" for n in (30, 60, 90)
    ]


async def test_neither_arguments_nor_findings_are_logged(
    clients: AwsClients,
    endpoint: str,
    table: str,
    bucket: Any,
    settings: pytest.MonkeyPatch,
    real_server: ServerProcess,
    real_client: redis.Redis,
    capsys: pytest.CaptureFixture[str],
) -> None:
    await make_table(clients, table)
    await load(clients, table, numbered(ITEMS))
    plant_differences(real_client, table)
    real_client.acl_setuser(
        "who", enabled=True, passwords=["+secret"], keys=["*"], commands=["+@all"]
    )
    url = f"redis://who:secret@127.0.0.1:{real_server.port}"
    args = ["audit", "--endpoint-url", endpoint, "--recheck-after", "0.001", "--show-values"]
    args += ["--redis-url", url]
    settings.setattr(operations, "LOG_INTERVAL_S", 0.0)

    answer = await invoked({"args": args}, Deadline(10**6))

    real_client.acl_deluser("who")
    assert any("another" in line for line in answer["said"])  # --show-values was given
    out, err = capsys.readouterr()
    logged = [json.loads(line) for line in out.splitlines()]
    events = [line["event"] for line in logged]
    assert (events[0], events[-1]) == ("slice_began", "slice_ended")
    assert all(datetime.fromisoformat(line["timestamp"]).tzinfo for line in logged)
    assert "progress" in events
    for word in ("secret", "another", f"{table}:", "--show-values"):
        assert word not in out + err


# --- rights -----------------------------------------------------------------------------------

ALIASES = {"s3:ListObjectsV2": "s3:ListBucket"}


class Calls:
    """Every call to AWS as IAM sees it: action and resource."""

    def __init__(self) -> None:
        self.made: set[tuple[str, str]] = set()

    def note(self, params: Any, model: Any, **_: Any) -> None:
        service = model.service_model.service_name
        action = ALIASES.get(f"{service}:{model.name}", f"{service}:{model.name}")
        if action == "s3:CopyObject":
            source = params["CopySource"]
            self.made.add(("s3:GetObject", f"{source['Bucket']}/{source['Key']}"))
            action = "s3:PutObject"
        self.made.add((action, self._resource(service, params)))

    def _resource(self, service: str, params: Any) -> str:
        if service == "s3":
            return "/".join(str(params[name]) for name in ("Bucket", "Key") if name in params)
        if service == "dynamodb":
            return str(params.get("TableName") or next(iter(params["RequestItems"])))
        return "*"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Every call of every client that the tools open, from botocore's events."""
    noted = Calls()
    session = aioboto3.Session

    class Noted(session):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any, **given: Any) -> None:
            super().__init__(*args, **given)
            self._session.register("provide-client-params", noted.note)

    monkeypatch.setattr(aioboto3, "Session", Noted)
    return noted


def statements(translated: Any, **given: str) -> list[tuple[str, str]]:
    """Action and resource of what the role allows these commands: not network, logs and check."""
    role = Resolver(translated, given, known=True).resources()["OperationsRole"]
    (policy,) = role["Properties"]["Policies"]
    allowed = []
    for each in policy["PolicyDocument"]["Statement"]:
        if each["Sid"] in ("Logs", "Connect", "Interfaces", "InterfacesNotByCode"):
            continue
        if each["Sid"].startswith("Check"):
            continue
        actions = each["Action"] if isinstance(each["Action"], list) else [each["Action"]]
        allowed += [(action, each["Resource"]) for action in actions]
    return allowed


OURS = {
    "Network": "existing",
    "SubnetIds": "subnet-0a1b2c3d",
    "SecurityGroupIds": "sg-0a1b2c3d",
}


async def test_the_commands_call_what_the_role_allows_and_the_role_allows_nothing_else(
    translated: Any,
    clients: AwsClients,
    endpoint: str,
    table: str,
    bucket: Any,
    settings: pytest.MonkeyPatch,
    real_client: redis.Redis,
    calls: Calls,
) -> None:
    await _everything(clients, endpoint, table, bucket, settings, real_client)
    names = {BUCKET: "${GivenUp.Arn}", table: "arn:aws:dynamodb:*:table/players-Players-X1"}
    made = {(action, _named(resource, names)) for action, resource in calls.made}

    for given, left_out in ((OURS, set()), ({}, {"lambda", "cloudwatch"})):
        allowed = statements(translated, **given)
        used = {each for each in made if each[0].split(":")[0] not in left_out}
        for action, resource in used:
            assert any(
                action == its and fnmatch.fnmatchcase(resource, _pattern(pattern))
                for its, pattern in allowed
            ), (action, resource)
        for its, pattern in allowed:
            assert any(
                action == its and fnmatch.fnmatchcase(resource, _pattern(pattern))
                for action, resource in used
            ), (its, pattern)


def _named(resource: str, names: dict[str, str]) -> str:
    first, slash, rest = resource.partition("/")
    return names.get(first, first) + slash + rest


def _pattern(resource: str) -> str:
    """Return a policy's resource for fnmatch; in a table's ARN any account matches."""
    return resource.replace(f"us-east-1:{PSEUDO['AWS::AccountId']}", "*").replace("[", "[[]")


async def _everything(
    clients: AwsClients,
    endpoint: str,
    table: str,
    bucket: Any,
    settings: pytest.MonkeyPatch,
    client: redis.Redis,
) -> None:
    """Run each command, from each source, to each kind of end."""
    await make_table(clients, table)
    await begin_stream(clients, table)
    await load(clients, table, numbered(40))
    settings.setenv(operations.SEES_MAPPING, "true")
    at = ["--endpoint-url", endpoint]
    described = await describe_table(clients, table)
    async with function(clients) as functions:
        await functions.create_event_source_mapping(
            EventSourceArn=stream_of(described),
            FunctionName="mirror",
            StartingPosition="TRIM_HORIZON",
        )
        for looks in (6, 10**6):
            await until_done({"args": ["backfill", *at, "--page-items", "5"]}, looks)
    export = Exported(clients, table, parts())
    del export.summary["manifestFilesS3Key"]
    url = await export.put(BUCKET, "exports/")
    client.flushall()
    args = ["backfill", *at, "--skip-mapping-check", "--from-export", url]
    assert (await until_done({"args": args}, 3))[-1]["exit_code"] == 0

    client.delete(f"{table}:3")
    client.set(f"{table}:999", "an orphan")
    soon = ["--recheck-after", "0.001"]
    for args in (
        ["audit", *soon, "--sample", "10"],
        ["audit", *soon, "--repair"],
        ["retire", "old:{Number}"],
    ):
        assert (await until_done({"args": [*args, *at]}, 3))[-1]["done"]
    for name, number in (("a", 1), ("b", 2)):
        made = record(number, FIRST, stream_arn=stream_arn_of(described))
        key = f"aws/lambda/{name}"
        await bucket.put_object(Bucket=BUCKET, Key=key, Body=discarded([made], table=table))
    assert (await until_done({"args": ["redrive", *at]}, 1))[-1]["exit_code"] == 0


# --- commands to the cache ----------------------------------------------------------------------

COMMANDS = "evalsha eval mget get pttl set del type scan info"
MORE = {
    "json": "",
    "hash": "hset hlen persist pexpireat exists hgetall",
    "redis-json": "json.set persist pexpireat exists json.get",
}


async def _on_the_cache(
    clients: AwsClients,
    endpoint: str,
    table: str,
    state: str,
    url: str,
    client: redis.Redis,
    value: Any,
) -> bool:
    """Fill, repair in slices, retire and look; return whether all went well."""
    client.flushall()
    client.script_flush()
    for name in ("Players:v0:1", "Players:1", "Players:999"):
        client.set(name, "{}")
    if value == "hash":  # with a field of an older image
        client.delete("Players:1")
        client.hset("Players:1", "older", "image")
    client.set("{Players:2}!f", at_version(FIRST) + b"1")  # removed, then created again
    client.rpush("Players:7000", "not", "ours")
    client.set("Players:" + "!" + "0" * 64, '{"Number":998}')  # a hashed name of no item
    config = Config(redis_url=url, key="Players:{Number}", value=value, ttl_attribute="Until")
    mirror = Mirror(config, emit=lambda _: None)
    filled = BackfillOptions(table=table, endpoint_url=endpoint, skip_mapping_check=True)
    audited = AuditOptions(
        table=table, endpoint_url=endpoint, recheck_after_s=0.001, repair=True, state=state
    )
    retired = RetireOptions(table=table, endpoint_url=endpoint, template="Players:v0:{Number}")
    output = Output(sys.stdout, sys.stderr)
    return (
        await backfill(clients, filled, mirror, output)
        and await audit(clients, audited, mirror, output)
        and await retire(clients, retired, mirror, output)
        and await get("Players:1", mirror, output, as_json=False)
        and client.exists("Players:1", "Players:2", "Players:3") == 3
        and client.pttl("Players:1") == -1
        and client.pttl("Players:3") > 0
        and not client.exists("Players:999", "Players:v0:1")
    )


@pytest.mark.parametrize(
    "at", [*(pytest.param(("json", each)) for each in ONE_SERVER), *REAL_SERVERS]
)
async def test_the_caches_user_may_do_what_the_commands_send_and_nothing_less_will_do(
    translated: Any,
    clients: AwsClients,
    endpoint: str,
    table: str,
    tmp_path: Path,
    at: tuple[Any, str],
) -> None:
    value, binary = at
    await make_table(clients, table)
    until = {"Until": {"N": str(int(time.time()) + 86_400)}}
    await load(clients, table, [*numbered(2), *numbered(3, **until)[2:]])
    rules = access(translated, "OperationsUser", Cache="node", ValueFormat=value)
    commands = [*COMMANDS.split(), *MORE[value].split()]
    assert [rule[1:] for rule in rules if rule.startswith("+")] == commands

    with format_server(value, binary) as real:
        url = f"redis://operator:any@127.0.0.1:{real.server.port}"
        for without in ("", *commands):
            set_user(real.client, "operator", [each for each in rules if each != f"+{without}"])
            state = str(tmp_path / f"{without}.json")
            try:
                went_well = await _on_the_cache(
                    clients, endpoint, table, state, url, real.client, value
                )
            except (StoreRefused, CommandFailed):
                went_well = False
            assert went_well == (not without), without
    await asyncio.sleep(0)


# --- many segments at once ----------------------------------------------------------------------


class Lambda:
    """The function, called directly, and the other resources of the state machine."""

    def __init__(self, endpoint: str, looks: int) -> None:
        self.endpoint = endpoint
        self.looks = looks
        self.mapping = {"State": "Enabled", "StartingPosition": "TRIM_HORIZON"}
        self.alarm = "OK"
        self.events: list[Any] = []
        self.fails = 0

    def resources(self) -> dict[str, Callable[[Any], Any]]:
        return {
            "lambda:invoke": self.invoke,
            "aws-sdk:lambda:getEventSourceMapping": self.look,
            "aws-sdk:cloudwatch:describeAlarms": lambda given: {
                "MetricAlarms": [{"StateValue": self.alarm, "AlarmName": given["AlarmNames"][0]}]
            },
        }

    def look(self, given: Any) -> Any:
        assert given == {"Uuid": "${MirrorChanges}"}
        return {**self.mapping, "BatchSize": 1000}

    def invoke(self, given: Any) -> Any:
        assert given["FunctionName"] == "${OperationsFunction.Arn}"
        self.events.append(given["Payload"])
        if self.fails:
            self.fails -= 1
            raise CommandFailed("Redis is away")
        answer = lambda_handler(given["Payload"], Deadline(self.looks))
        return {"StatusCode": 200, "Payload": json.loads(json.dumps(answer))}


@pytest.fixture
def definition(translated: Any) -> Any:
    resources = Resolver(translated, {"OperationsMap": "true"}, known=True).resources()
    return resources["OperationsMachine"]["Properties"]["Definition"]


async def test_the_machine_runs_every_segment_until_none_has_work_left(
    definition: Any,
    clients: AwsClients,
    endpoint: str,
    table: str,
    bucket: Any,
    settings: pytest.MonkeyPatch,
    real_client: redis.Redis,
) -> None:
    await make_table(clients, table)
    await load(clients, table, numbered(ITEMS))
    function = Lambda(endpoint, looks=4)
    function.fails = 3  # then works
    walk = Walk(function.resources())
    args = ["backfill", "--endpoint-url", endpoint, "--page-items", "10"]

    await asyncio.to_thread(walk.run, definition, {"args": args, "segments": 6})

    also = ["--skip-mapping-check", "--segments", "6", "--only-segments"]
    events = [{"args": args, "also": [*also, str(number)]} for number in range(6)]
    assert [
        each for at, each in enumerate(function.events) if each not in function.events[:at]
    ] == (events)
    assert len(function.events) >= 12  # slices
    assert walk.entered.count("Again") == walk.entered.count("Slice") - 6
    assert walk.entered[-1] == "Done"
    assert real_client.dbsize() == ITEMS
    assert "Contents" not in await bucket.list_objects_v2(Bucket=BUCKET)


async def test_started_again_the_machine_goes_on_with_the_segment_that_was_under_way(
    definition: Any,
    clients: AwsClients,
    endpoint: str,
    table: str,
    bucket: Any,
    settings: pytest.MonkeyPatch,
    real_client: redis.Redis,
) -> None:
    await make_table(clients, table)
    await load(clients, table, numbered(60))
    function = Lambda(endpoint, looks=3)
    args = ["backfill", "--endpoint-url", endpoint, "--page-items", "5", "--json"]
    given = {"args": args, "segments": 1}
    invoke = function.invoke

    def until_it_is_away(event: Any) -> Any:
        function.fails = 100 if len(function.events) >= 2 else 0
        return invoke(event)

    first = Walk({**function.resources(), "lambda:invoke": until_it_is_away})
    with pytest.raises(CommandFailed):
        await asyncio.to_thread(first.run, definition, given)
    filled = real_client.dbsize()
    assert 0 < filled < 60

    function.fails, function.events = 0, []
    await asyncio.to_thread(Walk(function.resources()).run, definition, given)
    assert real_client.dbsize() == 60
    assert len(function.events) <= 4  # two of six slices were done before


async def test_the_machine_says_what_is_left_what_is_wrong_and_what_does_not_follow(
    definition: Any,
    clients: AwsClients,
    endpoint: str,
    table: str,
    bucket: Any,
    settings: pytest.MonkeyPatch,
    real_client: redis.Redis,
    tmp_path: Path,
) -> None:
    await make_table(clients, table)
    await load(clients, table, numbered(20))
    function = Lambda(endpoint, looks=10**6)

    async def walk(*args: str) -> Any:
        given = {"args": ["backfill", "--endpoint-url", endpoint, *args], "segments": 2}
        made = Walk(function.resources())
        with pytest.raises(Failed) as failed:
            await asyncio.to_thread(made.run, definition, given)
        return failed.value.args

    (tmp_path / "poisoned.py").write_text(
        "import os\n"
        "from asyncsync import Config, Mirror\n"
        "def value(item):\n"
        "    raise LookupError\n"
        "mirror = Mirror(Config(redis_url=os.environ['ASYNCSYNC_REDIS_URL']), transform=value)\n"
    )
    settings.syspath_prepend(str(tmp_path))
    assert (await walk("--mirror", "poisoned:mirror"))[0] == "LeftWork"
    assert (await walk("--what"))[0] == "WrongArguments"
    assert "there is no option --what" in (await walk("--what"))[1]
    function.alarm = "ALARM"
    assert (await walk())[0] == "NotFollowed"
    function.alarm = "INSUFFICIENT_DATA"  # nobody writes to the table
    function.mapping["State"] = "Disabled"
    assert (await walk())[0] == "NotFollowed"
    function.mapping = {"State": "Enabled", "StartingPosition": "LATEST"}
    invoked_before = len(function.events)
    assert (await walk())[0] == "NotFollowed"
    assert len(function.events) == invoked_before


def test_the_machine_is_a_distributed_map_whose_concurrency_is_capped(definition: Any) -> None:
    states = definition["States"]
    inner = states["Backfill"]["ItemProcessor"]
    ends = {name: each for name, each in inner["States"].items() if each["Type"] == "Task"}

    assert inner["ProcessorConfig"] == {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"}
    assert states["Backfill"]["MaxConcurrency"] == 8
    assert inner["States"]["Slice"]["TimeoutSeconds"] > 900
    for machine in (definition, inner):  # every state can be reached, and leads to another
        led_to = {machine["StartAt"]}
        for state in machine["States"].values():
            led_to |= {state[name] for name in ("Next", "Default") if name in state}
            led_to |= {each["Next"] for each in state.get("Choices", ())}
        assert led_to == set(machine["States"])
    assert list(ends) == ["Slice"]


@pytest.fixture(autouse=True)
def no_state_is_left() -> Iterator[None]:
    """Close the sockets of event loops that have ended."""
    yield
    anyio.run(anyio.sleep, 0)
