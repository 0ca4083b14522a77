"""Which copy a command acts on: settings from the environment, a function, or a mirror."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import anyio
import pytest
import redis

from asyncsync.aws.clients import AwsClients, open_clients
from asyncsync.aws.functions import DeployedFunction, is_reference
from asyncsync.cli.main import main
from asyncsync.cli.settings import function_settings, region_of_arguments, table_of
from asyncsync.config import PREFIX
from asyncsync.errors import ConfigError
from asyncsync.lab.servers import ServerProcess
from asyncsync.tools.errors import CommandRefused
from tests.support.aws.functions import function
from tests.support.tables import load, make_table, numbered, only_moto

pytestmark = only_moto

OURS = "asyncsync.handler.lambda_handler"
KEY = "Prod:{@key}"


@pytest.fixture(autouse=True)
def shell(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell without settings, keys or Region of its own; commands run in a thread."""
    monkeypatch.setattr("asyncsync.cli.commands.interruptible", nullcontext)
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "ASYNCSYNC_REDIS_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
async def deployed(
    clients: AwsClients, endpoint: str, table: str, fake_server: ServerProcess
) -> AsyncIterator[str]:
    """A function with KEY, its table's stream mapped to it, and its copy of five items."""
    await make_table(clients, table)
    await clients.items.update_table(
        TableName=table,
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"},
    )
    await load(clients, table, numbered(5))
    described = await clients.items.describe_table(TableName=table)
    stream = described["Table"]["LatestStreamArn"]
    async with function(clients, table, handler=OURS) as functions:
        await set_environment(functions, table, ASYNCSYNC_KEY=KEY, url=fake_server.url)
        await functions.create_event_source_mapping(
            FunctionName=table, EventSourceArn=stream, StartingPosition="TRIM_HORIZON"
        )
        yield table


async def set_environment(functions: Any, name: str, url: str = "", **variables: str) -> None:
    if url:
        variables[f"{PREFIX}REDIS_URL"] = url
    await functions.update_function_configuration(
        FunctionName=name, Environment={"Variables": variables}
    )


Ran = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(endpoint: str, capsys: pytest.CaptureFixture[str]) -> Ran:
    """Run a command against the endpoint; return its exit code, stdout and stderr."""

    def command(*arguments: str) -> tuple[int, str, str]:
        code = main([*arguments, "--endpoint-url", endpoint])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return command


async def ran(run: Ran, *arguments: str) -> tuple[int, str, str]:
    return await anyio.to_thread.run_sync(lambda: run(*arguments))


# --- --function -------------------------------------------------------------------------------


async def test_a_tool_acts_on_the_functions_copy_and_says_so(
    deployed: str,
    clients: AwsClients,
    run: Ran,
    fake_client: redis.Redis,
    fake_server: ServerProcess,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A8: the documented commands, from a shell that does not have the function's settings."""
    given = ["--skip-mapping-check", "--function", deployed]
    monkeypatch.setenv("ASYNCSYNC_KEY", "Other:{@key}")
    code, out, err = await ran(run, "backfill", *given)
    assert (code, "5 filled" in out) == (0, True), (out, err)
    keys: Any = fake_client.keys("*")
    assert sorted(keys) == [b"Prod:%d" % number for number in range(1, 6)]
    assert "not used: ASYNCSYNC_KEY of this environment" in err
    (line,) = [line for line in err.splitlines() if line.startswith("table ")]
    arn = f"arn:aws:dynamodb:us-east-1:123456789012:table/{deployed}"
    assert line == (
        f"table {arn}, Redis {fake_server.host}:{fake_server.port}, keys {KEY}, values json, "
        f"mode mirror; settings from function arn:aws:lambda:us-east-1:123456789012:function:"
        f"{deployed}"
    )

    code, out, err = await ran(run, "audit", "--function", deployed)
    assert (code, "5 of 5 keys are the same" in out) == (0, True)

    # Without --function the other copy is audited, and that is what the first line says.
    monkeypatch.delenv("ASYNCSYNC_KEY")
    monkeypatch.setenv("ASYNCSYNC_REDIS_URL", fake_server.url)
    code, out, err = await ran(run, "audit", "--table", deployed, "--recheck-after", "0.01")
    assert (code, "5 missing" in out) == (1, True)
    assert "keys {@table}:{@key}, values json, mode mirror; settings from the environment" in err


@pytest.mark.parametrize("command", ["audit", "retire", "redrive", "run"])
async def test_every_command_takes_the_function(
    deployed: str, run: Ran, command: str, tmp_path: Path
) -> None:
    words = {
        "audit": ["audit", "--no-orphans", "--sample", "1"],
        "retire": ["retire", "old:{@key}"],
        "redrive": ["redrive", str(tmp_path)],
        "run": ["run", "--exit-when-idle", "0.1"],
    }[command]
    _, _, err = await ran(run, *words, "--function", deployed)

    assert f"table/{deployed}, Redis " in err
    assert f"keys {KEY}" in err
    assert (
        f"settings from function arn:aws:lambda:us-east-1:123456789012:function:{deployed}" in err
    )


async def test_get_and_check_take_the_function_too(
    deployed: str, run: Ran, fake_server: ServerProcess
) -> None:
    code, out, err = await ran(run, "get", "Prod:1", "--function", deployed)
    assert code in (0, 1)
    assert f"keys {KEY}" in err

    _, out, err = await ran(run, "check", "--function", deployed)
    assert f"table/{deployed}" in err
    assert f"ok    key          {KEY} uses Number" in out
    assert "ok    SET          permitted" in out


async def test_the_server_may_be_reached_another_way(
    deployed: str, clients: AwsClients, run: Ran, fake_server: ServerProcess
) -> None:
    async with clients.open("lambda") as functions:
        url = "redis://cache.invalid:6379"
        await set_environment(functions, deployed, ASYNCSYNC_KEY=KEY, url=url)
        given = ["--function", deployed, "--redis-url", fake_server.url, "--sample", "1"]
        _, _, err = await ran(run, "audit", *given, "--recheck-after", "0.01")
    assert f"Redis {fake_server.host}:{fake_server.port}, keys {KEY}" in err
    assert ", server from --redis-url" in err


async def test_a_table_that_is_not_the_functions_is_refused(
    deployed: str, clients: AwsClients, run: Ran
) -> None:
    await make_table(clients, f"{deployed}-2")

    code, out, err = await ran(run, "audit", "--function", deployed, "--table", f"{deployed}-2")

    assert (code, out) == (2, "")
    assert f"table/{deployed}, not table {deployed}-2" in err


async def test_a_function_that_is_not_there_or_has_no_server_is_one_line(
    deployed: str, clients: AwsClients, run: Ran
) -> None:
    code, _, err = await ran(run, "audit", "--function", "absent")
    assert (code, err.count("\n")) == (3, 1)
    assert "Lambda refused reading function absent" in err

    async with clients.open("lambda") as functions:
        await set_environment(functions, deployed, ASYNCSYNC_KEY=KEY)
    code, _, err = await ran(run, "audit", "--function", deployed, "--quiet")
    assert code == 2
    assert f"function {deployed} does not set ASYNCSYNC_REDIS_URL: pass --redis-url" in err


async def test_a_handler_of_the_users_is_pointed_out(
    deployed: str, clients: AwsClients, run: Ran
) -> None:
    async with clients.open("lambda") as functions:
        await functions.update_function_configuration(
            FunctionName=deployed, Handler="app.lambda_handler"
        )
    _, _, err = await ran(run, "audit", "--function", deployed, "--sample", "1", "--quiet")

    assert f"function {deployed} runs app.lambda_handler: if that makes a Mirror of its own" in err


def deployed_function(*tables: str, **settings: str) -> DeployedFunction:
    stream = "/stream/2026-01-01T00:00:00.000"
    mappings = [{"EventSourceArn": table + stream} for table in tables]
    return DeployedFunction("mirror", settings, mappings, [], "arn:aws:lambda:x", OURS)


PLAYERS = "arn:aws:dynamodb:us-east-1:123456789012:table/Players"
GAMES = "arn:aws:dynamodb:us-east-1:123456789012:table/Games"


@pytest.mark.parametrize(
    ("tables", "table", "chosen"),
    [
        ([PLAYERS], None, PLAYERS),
        ([PLAYERS], "Players", PLAYERS),
        ([PLAYERS], PLAYERS, PLAYERS),
        ([PLAYERS, GAMES], "Games", GAMES),
        ([PLAYERS, PLAYERS], None, PLAYERS),  # two mappings of one table
        ([], "Players", "Players"),  # not mapped yet
    ],
)
def test_the_table_is_that_of_the_functions_mapping(
    tables: list[str], table: str | None, chosen: str
) -> None:
    assert table_of(_arguments(table=table), deployed_function(*tables)) == chosen


@pytest.mark.parametrize(
    ("tables", "table", "message"),
    [
        ([], None, "reads no table's stream: pass --table"),
        ([PLAYERS, GAMES], None, "pass --table"),
        ([PLAYERS], "Games", "not table Games"),
        ([PLAYERS], PLAYERS.replace("us-east-1", "eu-west-1"), "not table arn:"),
        ([PLAYERS], "Player", "not table Player"),
    ],
)
def test_a_table_that_cannot_be_told_is_refused(
    tables: list[str], table: str | None, message: str
) -> None:
    with pytest.raises(CommandRefused, match=message):
        table_of(_arguments(table=table), deployed_function(*tables))


def _arguments(**values: Any) -> Any:
    import argparse

    return argparse.Namespace(**{"table": None, "function": None, "region": None, **values})


# --- secrets ----------------------------------------------------------------------------------

SECRET = "hush-hush"


@pytest.fixture
async def secrets(clients: AwsClients) -> AsyncIterator[dict[str, str]]:
    """References to one secret, by the way they are written."""
    async with clients.open("secretsmanager") as manager, clients.open("ssm") as parameters:
        text = json.dumps({"password": SECRET, "user": "copy"})
        made = await manager.create_secret(Name="cache", SecretString=text)
        plain = await manager.create_secret(Name="plain", SecretString=SECRET)
        await parameters.put_parameter(Name="/cache/password", Value=SECRET, Type="SecureString")
        arn = "arn:aws:ssm:us-east-1:123456789012:parameter/cache/password"
        yield {
            "dynamic": "{{resolve:secretsmanager:cache:SecretString:password}}",
            "dynamic ARN": f"{{{{resolve:secretsmanager:{made['ARN']}:SecretString:password}}}}",
            "dynamic, stage": (
                "{{resolve:secretsmanager:cache:SecretString:password:AWSCURRENT}}"
            ),
            "dynamic, whole": "{{resolve:secretsmanager:plain}}",
            "ARN": plain["ARN"],
            "ARN with a key": f"{made['ARN']}:password::",
            "ssm": "{{resolve:ssm:/cache/password}}",
            "ssm-secure": "{{resolve:ssm-secure:/cache/password:1}}",
            "parameter's ARN": arn,
        }
        for each in (made, plain):
            await manager.delete_secret(SecretId=each["ARN"], ForceDeleteWithoutRecovery=True)
        await parameters.delete_parameter(Name="/cache/password")


async def test_a_secret_that_the_function_names_is_read(
    clients: AwsClients, secrets: dict[str, str]
) -> None:
    url = "rediss://cache.example.com"
    for how, reference in secrets.items():
        for name in ("ASYNCSYNC_REDIS_PASSWORD", "ASYNCSYNC_REDIS_PASSWORD_ARN"):
            named = deployed_function(ASYNCSYNC_REDIS_URL=url, **{name: reference})
            settings, notes = await function_settings(named, clients, {}, None, None)
            wanted = {"ASYNCSYNC_REDIS_URL": url, "ASYNCSYNC_REDIS_PASSWORD": SECRET}
            assert (settings, notes) == (wanted, ""), how


async def test_a_secret_that_cannot_be_read_is_asked_for_by_its_name(clients: AwsClients) -> None:
    reference = "{{resolve:secretsmanager:absent:SecretString:password}}"
    named = deployed_function(ASYNCSYNC_REDIS_URL="redis://a", ASYNCSYNC_REDIS_PASSWORD=reference)
    prompts: list[str] = []

    def ask(prompt: str) -> str:
        prompts.append(prompt)
        return SECRET

    with pytest.raises(ConfigError, match=r"cannot be read here.*: set ASYNCSYNC_REDIS_PASSWORD"):
        await function_settings(named, clients, {}, None, None)
    settings, notes = await function_settings(named, clients, {}, None, ask)
    assert settings["ASYNCSYNC_REDIS_PASSWORD"] == SECRET
    assert (prompts, SECRET in notes) == (["ASYNCSYNC_REDIS_PASSWORD of function mirror: "], False)

    env = {"ASYNCSYNC_REDIS_PASSWORD": "from-here", "ASYNCSYNC_KEY": "other"}
    settings, notes = await function_settings(named, clients, env, None, ask)
    assert settings["ASYNCSYNC_REDIS_PASSWORD"] == "from-here"
    assert notes == ", ASYNCSYNC_REDIS_PASSWORD from the environment"
    assert "ASYNCSYNC_KEY" not in settings


@pytest.mark.parametrize("value", ["hush", "{{resolve:}}", "arn:", "rediss://user:a@b", ""])
def test_a_plain_value_is_no_reference(value: str) -> None:
    assert not is_reference(value)


async def test_an_authority_in_the_bundle_is_replaced_by_this_machines(
    clients: AwsClients, tmp_path: Path
) -> None:
    named = deployed_function(
        ASYNCSYNC_REDIS_URL="rediss://a", ASYNCSYNC_REDIS_CA_FILE="/var/task/ca.pem"
    )
    here = tmp_path / "ca.pem"
    here.write_text("")

    with pytest.raises(ConfigError, match="is not on this machine: set ASYNCSYNC_REDIS_CA_FILE"):
        await function_settings(named, clients, {}, None, None)
    env = {"ASYNCSYNC_REDIS_CA_FILE": str(here)}
    settings, notes = await function_settings(named, clients, env, None, None)
    assert settings["ASYNCSYNC_REDIS_CA_FILE"] == str(here)
    assert notes == ", ASYNCSYNC_REDIS_CA_FILE from the environment"


# --- --mirror ---------------------------------------------------------------------------------

MODULE = """
from asyncsync import Config, Mirror

def player_key(keys):
    return 'mine:' + keys['Number']['N']

class Shape:
    def __call__(self, item):
        return item

mirror = Mirror(Config(redis_url={url!r}, metrics='off'), key=player_key, transform=Shape())
"""


async def test_a_mirror_is_named_with_its_functions_and_may_get_another_server(
    clients: AwsClients,
    run: Ran,
    table: str,
    fake_server: ServerProcess,
    fake_client: redis.Redis,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await make_table(clients, table)
    await load(clients, table, numbered(2))
    name = f"mine_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(MODULE.format(url="redis://cache.invalid:6379"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("ASYNCSYNC_MODE", "invalidate")
    given = ["--mirror", f"{name}:mirror", "--redis-url", fake_server.url, "--table", table]

    code, out, err = await ran(run, "backfill", "--skip-mapping-check", *given)

    assert code == 0, (out, err)
    assert f"keys by {name}.player_key, values by {name}.Shape, mode mirror" in err
    assert f"settings from --mirror {name}:mirror, server from --redis-url" in err
    assert "not used: ASYNCSYNC_MODE" in err
    keys: Any = fake_client.keys("*")
    assert sorted(keys) == [b"mine:1", b"mine:2"]

    _, _, err = await ran(run, "get", "mine:1", *given[:4])
    assert f"keys by {name}.player_key" in err


# --- Regions and keys -------------------------------------------------------------------------


@pytest.fixture
def profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config").write_text(
        "[profile there]\nregion = eu-west-1\n[profile nowhere]\noutput = json\n"
    )
    (tmp_path / "credentials").write_text(
        "[there]\naws_access_key_id = AKIATHERE\naws_secret_access_key = any\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


KEYS = {"AWS_ACCESS_KEY_ID": "AKIAENV", "AWS_SECRET_ACCESS_KEY": "any"}


@pytest.mark.parametrize(
    ("env", "options", "region", "key"),
    [
        ({}, {}, "us-east-1", "local"),  # both made up
        (KEYS, {}, "us-east-1", "AKIAENV"),  # the Region alone
        ({"AWS_REGION": "eu-west-2"}, {}, "eu-west-2", "local"),  # the keys alone
        ({"AWS_DEFAULT_REGION": "eu-west-3"} | KEYS, {}, "eu-west-3", "AKIAENV"),
        (
            {"AWS_REGION": "eu-west-2", "AWS_DEFAULT_REGION": "eu-west-3"},
            {},
            "eu-west-2",
            "local",
        ),
        ({"AWS_PROFILE": "there"}, {}, "eu-west-1", "AKIATHERE"),
        ({"AWS_PROFILE": "there", "AWS_REGION": "eu-west-2"}, {}, "eu-west-2", "AKIATHERE"),
        ({"AWS_REGION": "eu-west-2"}, {"region": "eu-north-1"}, "eu-north-1", "local"),
        (KEYS, {"profile": "there"}, "eu-west-1", "AKIATHERE"),
        ({"AWS_REGION": "eu-west-2"}, {"profile": "there"}, "eu-west-2", "AKIATHERE"),
        ({}, {"profile": "nowhere"}, "us-east-1", "local"),
    ],
)
async def test_an_endpoint_replaces_the_endpoint_and_nothing_else(
    endpoint: str,
    profiles: None,
    monkeypatch: pytest.MonkeyPatch,
    env: dict[str, str],
    options: dict[str, str],
    region: str,
    key: str,
) -> None:
    for name, text in env.items():
        monkeypatch.setenv(name, text)
    sent: list[str] = []

    async with open_clients(endpoint, env, **options) as clients:
        for client in (clients.items, clients.streams):
            client.meta.events.register(
                "before-send", lambda request, **_: sent.append(request.headers["Authorization"])
            )
        async with clients.open("lambda") as functions:
            functions.meta.events.register(
                "before-send", lambda request, **_: sent.append(request.headers["Authorization"])
            )
            await functions.list_functions()
        await clients.items.list_tables()
        await clients.streams.list_streams()

    assert len(sent) == 3
    for header in sent:
        text = str(header)
        assert f"Credential={key}/" in text
        assert f"/{region}/" in text


@pytest.mark.parametrize("given", [[], ["--profile", "nowhere"]])
def test_no_region_is_exit_3_in_one_line(
    profiles: None, capsys: pytest.CaptureFixture[str], given: list[str]
) -> None:
    words = ["audit", "--table", "T", "--redis-url", "redis://127.0.0.1:1", *given]
    assert main(words) == 3
    assert capsys.readouterr().err == (
        "asyncsync: no AWS Region is set: pass --region, or set AWS_REGION\n"
    )


def test_an_unknown_profile_is_exit_2_in_one_line(
    profiles: None, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["audit", "--table", "T", "--redis-url", "redis://127.0.0.1:1", "--profile", "absent"]
    assert main(words) == 2
    err = capsys.readouterr().err
    assert "absent" in err
    assert err.count("\n") == 1


def test_an_arn_says_its_region_and_may_not_contradict() -> None:
    there = "arn:aws:dynamodb:eu-west-1:123456789012:table/T"
    mirror = "arn:aws:lambda:eu-west-2:123456789012:function:mirror"

    assert region_of_arguments(_arguments(table="T", function="mirror")) is None
    assert region_of_arguments(_arguments(table=there)) == "eu-west-1"
    assert region_of_arguments(_arguments(function=mirror)) == "eu-west-2"
    assert region_of_arguments(_arguments(table=there, region="eu-west-1")) == "eu-west-1"
    for wrong in ({"region": "us-east-1"}, {"function": mirror}):
        with pytest.raises(CommandRefused, match="different Regions"):
            region_of_arguments(_arguments(table=there, **wrong))


async def test_the_table_of_the_arns_region_is_used(
    endpoint: str, run: Ran, table: str, fake_server: ServerProcess, profiles: None
) -> None:
    """C1: the same name in two Regions; the other one is empty."""
    arns = {}
    for region in ("eu-west-1", "us-east-1"):
        async with open_clients(endpoint, {}, region=region) as clients:
            await make_table(clients, table)
            described = await clients.items.describe_table(TableName=table)
            arns[region] = described["Table"]["TableArn"]
    redis_url = ["--redis-url", fake_server.url]
    for words in (["--table", arns["eu-west-1"]], ["--table", table, "--region", "eu-west-1"]):
        code, _, err = await ran(run, "audit", *words, *redis_url)
        assert code == 0
        assert f"table {arns['eu-west-1']}, " in err


# --- exit codes -------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["backfill", "audit", "redrive", "retire", "run"])
async def test_a_dead_server_is_exit_3_at_once(
    clients: AwsClients, run: Ran, table: str, tmp_path: Path, command: str
) -> None:
    """C11: it took 52 s of silence."""
    await make_table(clients, table)
    first = {"redrive": [str(tmp_path)], "retire": ["old:{@key}"]}.get(command, [])
    words = [command, *first, "--table", table, "--redis-url", "redis://127.0.0.1:1"]

    with anyio.fail_after(5):
        code, out, err = await ran(run, *words)

    assert (code, out) == (3, "")
    assert err.splitlines()[-1].startswith("asyncsync: Redis at 127.0.0.1:1: ")


async def test_an_absent_table_is_exit_3(run: Ran, fake_server: ServerProcess) -> None:
    code, out, err = await ran(run, "audit", "--table", "Absent", "--redis-url", fake_server.url)

    assert (code, out) == (3, "")
    assert "describing table Absent: ResourceNotFoundException" in err
