"""The operations function's check and get: what they look at from inside the network."""

from __future__ import annotations

import asyncio
import io
import json
import zipfile
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
import redis

from asyncsync import Mirror
from asyncsync.cli import operations
from asyncsync.cli.operations import DOCUMENT_BYTES_MAX, LINE_BYTES_MAX, SliceOutput
from asyncsync.config import Config
from asyncsync.lab.servers import ServerProcess, dynamodb_process, redis_process
from tests.support.events import FIRST, arn, event, record
from tests.support.servers import ONE_SERVER

KEYS = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any", "AWS_REGION": "us-east-1"}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """Moto's server, which also has Lambda."""
    with dynamodb_process() as url:
        yield url


@pytest.fixture(scope="module", params=ONE_SERVER)
def real_server(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    with redis_process(request.param) as server:
        yield server


@pytest.fixture
def settings(
    endpoint: str, real_server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> pytest.MonkeyPatch:
    """The function's environment, as the template sets it in a network that it makes."""
    for name, value in {
        **KEYS,
        operations.TABLE: "Players",
        operations.STATE: "s3://bucket/operations",
        operations.SEES_MAPPING: "false",
        operations.FUNCTION: "mirror",
        "AWS_ENDPOINT_URL": endpoint,
        "NO_PROXY": "127.0.0.1",
        "ASYNCSYNC_REDIS_URL": real_server.url,
        "ASYNCSYNC_KEY": "Players:{@key}",
    }.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def client(service: str, endpoint: str) -> Any:
    return boto3.client(
        service,
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="any",
        aws_secret_access_key="any",
    )


def deploy(endpoint: str, name: str, env: dict[str, str]) -> None:
    """Create a function that nothing invokes."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as written:
        written.writestr("app.py", "def handler(event, context): pass\n")
    trust = '{"Version": "2012-10-17", "Statement": []}'
    role = client("iam", endpoint).create_role(RoleName=name, AssumeRolePolicyDocument=trust)
    client("lambda", endpoint).create_function(
        FunctionName=name,
        Runtime="python3.13",
        Role=role["Role"]["Arn"],
        Handler="asyncsync.handler.lambda_handler",
        Code={"ZipFile": archive.getvalue()},
        Environment={"Variables": env},
    )


@pytest.fixture(scope="module")
def stream(endpoint: str) -> str:
    """A table with its stream; return the stream's ARN."""
    made = client("dynamodb", endpoint).create_table(
        TableName="Players",
        KeySchema=[{"AttributeName": "Number", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "Number", "AttributeType": "N"}],
        BillingMode="PAY_PER_REQUEST",
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"},
    )
    return str(made["TableDescription"]["LatestStreamArn"])


async def invoked(*args: str) -> dict[str, Any]:
    """Run the function in a thread, because it starts an event loop; JSON in, JSON out."""
    answer = await asyncio.to_thread(operations.lambda_handler, {"args": list(args)}, None)
    made: dict[str, Any] = json.loads(json.dumps(answer))
    return made


async def verdicts(*args: str) -> tuple[int, dict[str, dict[str, str]]]:
    answer = await invoked("check", "--json", *args)
    (line,) = answer["said"]
    assert answer["done"]
    return answer["exit_code"], {each["subject"]: each for each in json.loads(line)["verdicts"]}


# --- check ------------------------------------------------------------------------------------


async def test_check_looks_at_the_table_and_the_server_from_inside(
    stream: str, settings: pytest.MonkeyPatch, real_client: redis.Redis
) -> None:
    code, lines = await verdicts()

    assert code == 0
    assert lines["stream"]["message"] == stream
    assert lines["write"]["state"] == "ok"
    assert lines["mapping"]["state"] == "note"
    assert "not checked" in lines["mapping"]["message"]
    assert real_client.keys("*") == []

    answer = await invoked("check")
    assert answer["said"][0].startswith("table Players, Redis ")
    assert any(line.startswith("ok    write        applied") for line in answer["said"])


async def test_a_server_out_of_reach_is_a_fix_for_it_is_inside(
    stream: str, settings: pytest.MonkeyPatch
) -> None:
    settings.setenv("ASYNCSYNC_REDIS_URL", "redis://127.0.0.1:1")
    code, lines = await verdicts()

    assert (code, lines["redis"]["state"]) == (1, "fix")


async def test_where_lambda_is_in_reach_the_mapping_is_checked_too(
    stream: str, endpoint: str, settings: pytest.MonkeyPatch, real_server: ServerProcess
) -> None:
    settings.setenv(operations.SEES_MAPPING, "true")
    code, lines = await verdicts()
    assert (code, lines["function"]["state"]) == (1, "unknown")

    env = {"ASYNCSYNC_REDIS_URL": real_server.url, "ASYNCSYNC_KEY": "Players:{@key}"}
    deploy(endpoint, "mirror", env)
    code, lines = await verdicts()
    assert (code, lines["mapping"]["message"]) == (1, f"mirror has no mapping on {stream}, not 1")
    assert lines["same copy"]["state"] == "ok"

    client("lambda", endpoint).create_event_source_mapping(
        FunctionName="mirror", EventSourceArn=stream, StartingPosition="TRIM_HORIZON"
    )
    code, lines = await verdicts()
    assert (code, lines["source"]["state"]) == (1, "ok")
    assert lines["answers"]["state"] == "fix"
    assert lines["last batch"]["state"] in ("ok", "note", "unknown")  # moto's own words


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ASYNCSYNC_KEY", "Other:{@key}"),
        ("ASYNCSYNC_MODE", "invalidate"),
        ("ASYNCSYNC_VALUE", "dynamodb-json"),
        ("ASYNCSYNC_FENCE_TTL_S", "100000"),
        ("ASYNCSYNC_TTL_S", "60"),
    ],
)
async def test_settings_of_another_copy_are_a_fix(
    stream: str,
    endpoint: str,
    settings: pytest.MonkeyPatch,
    real_server: ServerProcess,
    name: str,
    value: str,
) -> None:
    settings.setenv(operations.SEES_MAPPING, "true")
    settings.setenv(operations.FUNCTION, f"mirror-{name}")
    own = {"ASYNCSYNC_REDIS_URL": real_server.url, "ASYNCSYNC_KEY": "Players:{@key}"}
    env = {**own, name: value}
    deploy(endpoint, f"mirror-{name}", env)
    code, lines = await verdicts()

    assert (code, lines["same copy"]["state"]) == (1, "fix")
    assert name in lines["same copy"]["message"]


async def test_a_function_that_is_not_named_is_not_ok(
    stream: str, settings: pytest.MonkeyPatch
) -> None:
    settings.setenv(operations.SEES_MAPPING, "true")
    settings.delenv(operations.FUNCTION)
    code, lines = await verdicts()

    assert (code, lines["mapping"]["state"]) == (1, "unknown")
    assert "OPERATIONS_FUNCTION" in lines["mapping"]["message"]


def test_an_object_is_whole_where_an_answer_can_hold_it() -> None:
    output = SliceOutput()
    output.document({"verdicts": ["x" * 100] * 100})
    output.line("y" * 2 * LINE_BYTES_MAX)
    first, second = output.lines()

    assert len(json.loads(first)["verdicts"]) == 100
    assert len(second) == LINE_BYTES_MAX
    output.document({"verdicts": "x" * 10**6})
    assert len(output.lines()[-1]) <= DOCUMENT_BYTES_MAX


# --- get --------------------------------------------------------------------------------------


async def test_get_shows_a_value_only_where_it_is_asked_to(
    settings: pytest.MonkeyPatch,
    real_server: ServerProcess,
    real_client: redis.Redis,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = Config(redis_url=real_server.url, key="Players:{@key}", metrics="off")
    mirror = Mirror(config)
    mirror.lambda_handler(event([record(7, FIRST, stream_arn=arn())]))
    mirror.close()

    hidden = await invoked("get", "Players:7")
    assert (hidden["done"], hidden["exit_code"]) == (True, 0)
    assert "not shown: give --show-values" in hidden["said"][2]
    assert "player 7" not in json.dumps(hidden)
    (as_json,) = (await invoked("get", "Players:7", "--json"))["said"]
    contents = json.loads(as_json)
    assert "value" not in contents
    assert contents["bytes"] == len('{"Number":7,"Name":"player 7"}')
    assert contents["sequence_number"] == str(FIRST)

    (shown,) = (await invoked("get", "Players:7", "--json", "--show-values"))["said"]
    assert json.loads(shown)["value"] == '{"Number":7,"Name":"player 7"}'
    assert "player 7" in (await invoked("get", "Players:7", "--show-values"))["said"][2]
    out, err = capsys.readouterr()
    assert "player 7" not in out + err  # the log
    assert "Players:7" not in out + err

    gone = await invoked("get", "Players:8", "--json")
    assert (gone["exit_code"], json.loads(gone["said"][0])["bytes"]) == (1, None)
