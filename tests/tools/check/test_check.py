"""asyncsync check: ok where everything is right; a fix, with its remedy, for each mistake."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest
import redis

from asyncsync import Config
from asyncsync.cli.main import main
from asyncsync.lab.servers import ServerProcess, free_port, redis_process
from asyncsync.tools.check.aws import check_mapping, check_table
from asyncsync.tools.check.redis import scratch_key
from tests.support.cluster import Cluster
from tests.support.events import arn
from tests.support.formats import FormatServer
from tests.support.servers import ONE_SERVER
from tests.support.stack.checking import CONFIG, GOOD, checked
from tests.support.tables import table_of
from tests.support.template.cache_users import set_user
from tests.support.tls import tls_options

UPDATE_TABLE = (
    "off: aws dynamodb update-table --region us-east-1 --table-name Still "
    "--stream-specification StreamEnabled=true,StreamViewType=NEW_IMAGE"
)
COMMANDS = ["EVALSHA", "EVAL", "MGET", "SET", "DEL", "write", "removal"]


# --- the server -------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["mirror", "refresh", "invalidate"])
def test_a_right_server_is_ok_and_empty_afterwards(
    real_server: ServerProcess,
    real_client: redis.Redis,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
) -> None:
    monkeypatch.setenv("ASYNCSYNC_MODE", mode)
    code, lines = checked(capsys, "--redis-url", real_server.url)

    assert code == 0
    server = ["redis", "TLS", "cluster", "eviction", "memory", "durability"]
    assert list(lines) == [*server, "scratch key", *COMMANDS]
    notes = {"TLS", "memory", "durability", "scratch key"}
    assert {line.split()[0] for subject, line in lines.items() if subject not in notes} == {"ok"}
    assert lines["TLS"].startswith("note off")
    assert real_client.keys("*") == []


@pytest.mark.parametrize("mode", ["mirror", "refresh", "invalidate"])
def test_a_server_of_hashes_or_documents_is_ok_and_empty_afterwards(
    real_format: FormatServer,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
) -> None:
    monkeypatch.setenv("ASYNCSYNC_VALUE", real_format.value)
    monkeypatch.setenv("ASYNCSYNC_MODE", mode)
    code, lines = checked(capsys, "--redis-url", real_format.url)

    words = ["HSET", "HLEN"] if real_format.value == "hash" else ["JSON.SET"]
    words += ["EXISTS"] if mode == "refresh" else []
    words = [] if mode == "invalidate" else [*words, "PERSIST", "PEXPIREAT"]
    assert code == 0
    first = [*lines].index("EVALSHA")
    assert [*lines][first:] == [*COMMANDS[:3], *words, *COMMANDS[3:]]
    assert real_format.client.keys("*") == []


@pytest.mark.parametrize("denied", ["write", "persist", "pexpireat"])
def test_a_command_that_hashes_or_documents_need_is_a_fix_where_it_is_denied(
    real_format: FormatServer,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    denied: str,
) -> None:
    word = {"write": "hset" if real_format.value == "hash" else "json.set"}.get(denied, denied)
    set_user(real_format.client, "limited", ["on", ">pw", "~*", "+@all", f"-{word}"])
    monkeypatch.setenv("ASYNCSYNC_VALUE", real_format.value)
    url = real_format.url.replace("redis://", "redis://limited:pw@")

    code, lines = checked(capsys, "--redis-url", url)

    assert code == 1
    assert lines[word.upper()].startswith("fix ")
    assert f"refused user 'limited' the command {word.upper()}" in lines[word.upper()]
    assert {subject for subject, line in lines.items() if line.startswith("fix")} == {word.upper()}


def test_a_server_without_a_json_module_is_a_fix(
    real_server: ServerProcess,
    real_client: redis.Redis,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ASYNCSYNC_VALUE", "redis-json")

    code, lines = checked(capsys, "--redis-url", real_server.url)

    assert code == 1
    assert lines["JSON.SET"].startswith("fix the server has no JSON module: use one that has")
    assert real_client.keys("*") == []


def test_without_the_fence_only_two_commands_are_tried(
    real_server: ServerProcess,
    real_client: redis.Redis,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ASYNCSYNC_FENCE", "off")
    code, lines = checked(capsys, "--redis-url", real_server.url)

    assert code == 0
    assert list(lines)[7:] == ["SET", "DEL"]


@pytest.mark.parametrize("command", ["evalsha", "eval", "mget", "set", "del"])
def test_a_forbidden_command_is_named(
    real_server: ServerProcess,
    real_client: redis.Redis,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    rules = ["on", "~Players:*", "~{Players:*}!f", "-@all", "+info"]
    rules += [f"+{each}" for each in ("evalsha", "eval", "mget", "set", "del") if each != command]
    set_user(real_client, "copy", rules)
    real_client.script_flush()
    monkeypatch.setenv("ASYNCSYNC_KEY", "Players:{@key}")
    url = f"redis://copy:hush@{real_server.host}:{real_server.port}"

    code, lines = checked(capsys, "--redis-url", url)

    assert code == 1
    assert {each for each, line in lines.items() if line.startswith("fix")} == {command.upper()}
    assert "NOPERM" in lines[command.upper()]
    assert "hush" not in "".join(lines.values())
    assert "write" not in lines


def test_forbidden_keys_are_found_by_the_template(
    real_server: ServerProcess,
    real_client: redis.Redis,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_user(real_client, "copy", ["on", "~Players:*", "~{Players:*}!f", "+@all"])
    url = f"redis://copy:any@{real_server.host}:{real_server.port}"

    monkeypatch.setenv("ASYNCSYNC_KEY", "Games:{@key}")
    code, lines = checked(capsys, "--redis-url", url)
    assert (code, lines["SET"].split()[0]) == (1, "fix")
    monkeypatch.setenv("ASYNCSYNC_KEY", "Players:{Number}")
    assert checked(capsys, "--redis-url", url)[0] == 0


@pytest.mark.parametrize("binary", ONE_SERVER)
def test_a_wrong_password_authority_or_port_is_one_line(
    binary: str,
    authority: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tls_port = free_port()
    options = [*tls_options(authority, tls_port, binary), "--requirepass", "hush-hush"]
    with redis_process(binary, *options) as server:
        code, lines = checked(capsys, "--redis-url", f"redis://:hush-no@127.0.0.1:{server.port}")
        assert (code, list(lines)) == (1, ["redis"])
        assert "WRONGPASS" in lines["redis"]
        assert "hush" not in lines["redis"]

        url = f"rediss://:hush-hush@localhost:{tls_port}"
        code, lines = checked(capsys, "--redis-url", url)
        assert code == 1
        assert "certificate verify failed" in lines["redis"]
        monkeypatch.setenv("ASYNCSYNC_REDIS_CA_FILE", str(authority / "ca.crt"))
        code, lines = checked(capsys, "--redis-url", url)
        assert (code, lines["TLS"]) == (0, "ok on, the certificate is trusted")
        monkeypatch.delenv("ASYNCSYNC_REDIS_CA_FILE")
    code, lines = checked(capsys, "--redis-url", f"redis://127.0.0.1:{server.port}")
    assert code == 1
    assert "cannot be reached" in lines["redis"]


def test_a_cluster_and_its_setting_must_agree(
    cluster: Cluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"redis://127.0.0.1:{cluster.nodes[0].port}"
    code, lines = checked(capsys, "--redis-url", url)
    assert (code, lines["cluster"]) == (1, "fix set ASYNCSYNC_REDIS_CLUSTER=true")
    assert "SET" not in lines

    monkeypatch.setenv("ASYNCSYNC_REDIS_CLUSTER", "true")
    code, lines = checked(capsys, "--redis-url", url)
    assert code == 0
    assert lines["cluster"] == "ok yes, as set"
    assert lines["ASKING"] == "ok permitted"
    assert lines["write"] == "ok applied"


def test_a_single_server_set_as_a_cluster_is_a_fix(
    real_server: ServerProcess, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASYNCSYNC_REDIS_CLUSTER", "true")
    code, lines = checked(capsys, "--redis-url", real_server.url)

    assert (code, lines["cluster"]) == (1, "fix set ASYNCSYNC_REDIS_CLUSTER=false")


@pytest.mark.parametrize(
    ("policy", "mode", "state"),
    [
        ("noeviction", "mirror", "ok"),
        ("volatile-lru", "mirror", "note"),
        ("allkeys-lru", "mirror", "fix"),
        ("allkeys-lru", "invalidate", "ok"),
    ],
)
def test_a_policy_that_evicts_is_reported(
    real_server: ServerProcess,
    real_client: redis.Redis,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    policy: str,
    mode: str,
    state: str,
) -> None:
    monkeypatch.setenv("ASYNCSYNC_MODE", mode)
    real_client.config_set("maxmemory-policy", policy)
    try:
        code, lines = checked(capsys, "--redis-url", real_server.url)
    finally:
        real_client.config_set("maxmemory-policy", "noeviction")

    assert lines["eviction"].split()[0] == state
    assert code == (state == "fix")


@pytest.mark.parametrize(
    ("key", "keys", "name"),
    [
        ("{@table}:{@key}", ("Id", "Sort"), b"T:asyncsync-check-n:asyncsync-check-n"),
        ("p:{Number}", (), b"p:asyncsync-check-n"),
        ("p:{@key}", (), b"p:asyncsync-check-n"),
    ],
)
def test_a_scratch_key_is_named_like_an_items_key(
    key: str, keys: tuple[str, ...], name: bytes
) -> None:
    key_of_item = scratch_key(Config(redis_url="redis://unused", key=key), "T", keys, "n")

    assert (key_of_item.name, key_of_item.fence) == (name, b"{" + name + b"}!f")


# --- the table --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stream", "view", "mode", "state"),
    [
        (arn(), "NEW_IMAGE", "mirror", "ok"),
        (arn(), "NEW_AND_OLD_IMAGES", "refresh", "note"),
        (arn(), "KEYS_ONLY", "mirror", "fix"),
        (arn(), "OLD_IMAGE", "refresh", "fix"),
        (arn(), "KEYS_ONLY", "invalidate", "ok"),
        (arn(), "NEW_AND_OLD_IMAGES", "invalidate", "note"),
    ],
)
def test_the_view_type_must_fit_the_mode(stream: str, view: str, mode: Any, state: str) -> None:
    table = replace(table_of("Players"), stream_arn=stream, view_type=view)
    verdicts = check_table(table, Config(redis_url="redis://unused", mode=mode))

    assert {v.subject: v.state for v in verdicts}["view type"] == state


@pytest.fixture(scope="module")
def dynamodb(moto: str) -> str:
    client = boto3.client(
        "dynamodb",
        endpoint_url=moto,
        region_name="us-east-1",
        aws_access_key_id="any",
        aws_secret_access_key="any",
    )
    for name, view in (("Players", "NEW_IMAGE"), ("Keys", "KEYS_ONLY"), ("Still", "")):
        stream = {"StreamEnabled": bool(view), **({"StreamViewType": view} if view else {})}
        client.create_table(
            TableName=name,
            KeySchema=[{"AttributeName": "Number", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "Number", "AttributeType": "N"}],
            BillingMode="PAY_PER_REQUEST",
            **({"StreamSpecification": stream} if view else {}),
        )
    return moto


@pytest.mark.parametrize(
    ("table", "key", "wrong"),
    [
        ("Players", "{@table}:{@key}", {}),
        ("Keys", "{@table}:{@key}", {"view type": "KEYS_ONLY has no new images"}),
        ("Still", "{@table}:{@key}", {"stream": UPDATE_TABLE}),
        ("Absent", "{@table}:{@key}", {"table": "ResourceNotFoundException"}),
        ("Players", "{Id}", {"key": "the key of table 'Players' is ['Number']"}),
    ],
)
def test_a_tables_mistakes_are_named(
    dynamodb: str,
    real_server: ServerProcess,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    table: str,
    key: str,
    wrong: Mapping[str, str],
) -> None:
    monkeypatch.setenv("ASYNCSYNC_KEY", key)
    arguments = ["--table", table, "--endpoint-url", dynamodb]
    code, lines = checked(capsys, *arguments, "--redis-url", real_server.url)

    fixes = {subject: line for subject, line in lines.items() if line.startswith("fix")}
    assert fixes.keys() == wrong.keys()
    assert all(wrong[subject] in line for subject, line in fixes.items())
    assert code == bool(wrong)


# --- the mapping ------------------------------------------------------------------------------


def test_the_templates_mapping_is_right_in_everything(translated: Any) -> None:
    from tests.support.template.cloudformation import Resolver

    mapping = dict(Resolver(translated, {}, known=True).resources()["MirrorChanges"]["Properties"])
    mapping |= {"State": "Enabled", "LastProcessingResult": "OK"}
    mapping["DestinationConfig"] = GOOD["DestinationConfig"]  # AWS makes the bucket's ARN

    assert {verdict.state for verdict in check_mapping(mapping, CONFIG)} == {"ok"}


@pytest.mark.parametrize(
    ("change", "subject", "message"),
    [
        ({"FunctionResponseTypes": []}, "answers", "set ReportBatchItemFailures"),
        ({"MaximumRetryAttempts": -1}, "attempts", "unlimited"),
        ({"MaximumRecordAgeInSeconds": -1}, "record age", "not under 86,400 s"),
        ({"MaximumRecordAgeInSeconds": 86_400}, "record age", "not under 86,400 s"),
        ({"DestinationConfig": {}}, "on failure", "go to nowhere"),
        (
            {"DestinationConfig": {"OnFailure": {"Destination": "arn:aws:sqs:a:b:c"}}},
            "on failure",
            "keeps no records",
        ),
        ({"BisectBatchOnFunctionError": False}, "bisect", "set BisectBatchOnFunctionError"),
        ({"State": "Disabled"}, "mapping", "is Disabled"),
    ],
)
def test_a_mapping_that_loses_records_is_a_fix(
    change: dict[str, Any], subject: str, message: str
) -> None:
    verdicts = check_mapping({**GOOD, **change}, CONFIG)

    (wrong,) = [each for each in verdicts if each.state == "fix"]
    assert wrong.subject == subject
    assert message in wrong.message


def test_a_function_that_raises_needs_no_answers() -> None:
    config = Config(redis_url="redis://unused", on_failure="raise")
    verdicts = check_mapping({**GOOD, "FunctionResponseTypes": []}, config)

    assert {each.state for each in verdicts} == {"ok"}


def test_a_record_age_of_a_second_under_a_day_will_do() -> None:
    verdicts = check_mapping({**GOOD, "MaximumRecordAgeInSeconds": 86_399}, CONFIG)

    assert {each.state for each in verdicts} == {"ok"}


def stream_of(dynamodb: str, table: str) -> str:
    client = boto3.client(
        "dynamodb",
        endpoint_url=dynamodb,
        region_name="us-east-1",
        aws_access_key_id="any",
        aws_secret_access_key="any",
    )
    return str(client.describe_table(TableName=table)["Table"]["LatestStreamArn"])


class Lambda:
    """A stub of Lambda's API: one function, and mappings."""

    def __init__(self) -> None:
        self.settings: dict[str, str] = {"ASYNCSYNC_REDIS_URL": "rediss://cache.example.com"}
        self.mappings: list[dict[str, Any]] = [dict(GOOD)]
        self.error: dict[str, Any] | None = None  # where Lambda could not decrypt the settings

    def answer(self, url: str) -> tuple[int, dict[str, Any]]:
        parts = urlsplit(url)
        if parts.path == "/2015-03-31/functions/mirror/configuration":
            return 200, {
                "FunctionName": "mirror",
                "FunctionArn": GOOD["FunctionArn"],
                "Handler": "asyncsync.handler.lambda_handler",
                "KMSKeyArn": "arn:aws:kms:us-east-1:111122223333:key/a",
                "Environment": {"Error": self.error}
                if self.error
                else {"Variables": self.settings},
            }
        if parts.path.rstrip("/") == "/2015-03-31/event-source-mappings":
            query = parse_qs(parts.query)
            (name,), (stream,) = query.get("FunctionName", [""]), query.get("EventSourceArn", [""])
            mappings = [
                mapping
                for mapping in self.mappings
                if (name and mapping["FunctionArn"].endswith(f":function:{name}"))
                or mapping["EventSourceArn"] == stream
            ]
            return 200, {"EventSourceMappings": mappings}
        return 404, {"Message": f"no function at {parts.path}"}


@pytest.fixture
def aws_lambda(dynamodb: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lambda]:
    stub = Lambda()
    stub.mappings[0]["EventSourceArn"] = stream_of(dynamodb, "Players")

    class Endpoint(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, answer = stub.answer(self.path)
            body = json.dumps(answer).encode()
            self.send_response(status)
            if status == 404:
                self.send_header("x-amzn-ErrorType", "ResourceNotFoundException")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=[0.01], daemon=True)
    thread.start()
    for name, value in {
        "AWS_ENDPOINT_URL_LAMBDA": f"http://127.0.0.1:{server.server_address[1]}",
        "AWS_ENDPOINT_URL_DYNAMODB": dynamodb,
        "AWS_ACCESS_KEY_ID": "any",
        "AWS_SECRET_ACCESS_KEY": "any",
        "AWS_DEFAULT_REGION": "us-east-1",
        "NO_PROXY": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    yield stub
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_function_is_checked_without_reaching_its_cache(
    aws_lambda: Lambda, capsys: pytest.CaptureFixture[str]
) -> None:
    code, lines = checked(capsys, "--function", "mirror")

    assert code == 0
    assert lines["settings"] == "ok mirror can start with them"
    assert lines["readers"] == "ok no second mapping on the stream"
    assert lines["redis"].startswith("note not checked")
    assert "SET" not in lines


def test_an_endpoint_is_asked_for_the_function_too(
    aws_lambda: Lambda, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = os.environ["AWS_ENDPOINT_URL_LAMBDA"]
    for name in ("AWS_ENDPOINT_URL_LAMBDA", "AWS_ACCESS_KEY_ID", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)

    _, lines = checked(capsys, "--function", "mirror", "--endpoint-url", url)

    assert lines["function"] == "ok mirror exists"
    assert lines["table"].startswith("fix DynamoDB")  # the endpoint is Lambda's alone


def test_the_functions_settings_apply_to_its_server_and_table(
    aws_lambda: Lambda,
    dynamodb: str,
    real_server: ServerProcess,
    real_client: redis.Redis,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(
        "ASYNCSYNC_MODE", "mirror"
    )  # this shell's setting; the function has another
    aws_lambda.settings["ASYNCSYNC_KEY"] = "Players:{Number}"
    aws_lambda.settings["ASYNCSYNC_MODE"] = "invalidate"
    aws_lambda.mappings[0]["EventSourceArn"] = stream_of(dynamodb, "Keys")
    set_user(real_client, "copy", ["on", "~Players:*", "~{Players:*}!f", "+@all"])
    url = f"redis://copy:any@{real_server.host}:{real_server.port}"
    arguments = ["--table", "Keys", "--redis-url", url]

    code, lines = checked(capsys, "--function", "mirror", *arguments)

    assert code == 0
    assert lines["view type"] == "ok KEYS_ONLY"
    assert lines["write"] == "ok applied"


def other(mapping: dict[str, Any], function: str) -> dict[str, Any]:
    return {**mapping, "UUID": function, "FunctionArn": GOOD["FunctionArn"][:-6] + function}


@pytest.mark.parametrize(
    ("others", "state"),
    [(["other"], "note"), (["mirror:live"], "fix"), (["other", "third"], "fix")],
)
def test_another_reader_of_the_stream_is_named(
    aws_lambda: Lambda, capsys: pytest.CaptureFixture[str], others: list[str], state: str
) -> None:
    aws_lambda.mappings += [other(aws_lambda.mappings[0], each) for each in others]
    code, lines = checked(capsys, "--function", "mirror")

    assert lines["readers"].startswith(f"{state} also mapped to {', '.join(others)}")
    assert code == (state == "fix")


def test_wrong_settings_no_mapping_and_no_function_are_fixes(
    aws_lambda: Lambda, capsys: pytest.CaptureFixture[str]
) -> None:
    aws_lambda.settings["ASYNCSYNC_MODE"] = "miror"
    code, lines = checked(capsys, "--function", "mirror")
    assert code == 1
    assert "did you mean mirror?" in lines["settings"]

    aws_lambda.settings["ASYNCSYNC_MODE"] = "mirror"
    aws_lambda.mappings.clear()
    code, lines = checked(capsys, "--function", "mirror")
    assert (code, lines["mapping"]) == (1, "fix mirror has no mapping on a stream, not 1")

    code, lines = checked(capsys, "--function", "absent")
    assert code == 1
    assert "ResourceNotFoundException" in lines["function"]


def test_settings_that_lambda_could_not_decrypt_are_a_fix_and_no_other_copy_is_checked(
    aws_lambda: Lambda,
    fake_server: ServerProcess,
    fake_client: redis.Redis,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    aws_lambda.error = {"ErrorCode": "AccessDeniedException", "Message": "no kms:Decrypt"}
    monkeypatch.setenv("ASYNCSYNC_REDIS_URL", fake_server.url)  # of another copy, perhaps

    code, lines = checked(capsys, "--function", "mirror", "--redis-url", fake_server.url)
    assert code == 1
    assert lines["function"].startswith("fix Lambda could not decrypt the settings of function")
    assert "kms:Decrypt on arn:aws:kms:us-east-1:111122223333:key/a" in lines["function"]
    assert lines["redis"].startswith("note not checked")

    assert main(["audit", "--function", "mirror", "--quiet"]) == 3
    assert "could not decrypt" in capsys.readouterr().err
    assert fake_client.keys("*") == []


def test_a_table_alone_is_checked(
    dynamodb: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ASYNCSYNC_REDIS_URL", raising=False)
    code, lines = checked(capsys, "--table", "Keys", "--endpoint-url", dynamodb)

    assert code == 1
    assert lines["view type"].startswith("fix KEYS_ONLY has no new images")
    assert lines["redis"] == "note not checked: pass --redis-url or set ASYNCSYNC_REDIS_URL"


@pytest.mark.parametrize("binary", ONE_SERVER)
def test_a_missing_password_is_said_once(capsys: pytest.CaptureFixture[str], binary: str) -> None:
    with redis_process(binary, "--requirepass", "hush-hush") as server:
        code, lines = checked(capsys, "--redis-url", server.url)

    assert (code, list(lines)) == (1, ["redis"])
    assert "wants a password (NOAUTH): set ASYNCSYNC_REDIS_PASSWORD" in lines["redis"]


def test_a_server_that_takes_no_more_clients_says_so(
    real_server: ServerProcess, real_client: redis.Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    """C6: the text was lost, and the server "cannot be reached"."""
    real_client.ping()
    real_client.config_set("maxclients", 1)
    try:
        code, lines = checked(capsys, "--redis-url", real_server.url)
        got = main(["get", "a", "--quiet", "--redis-url", real_server.url])
    finally:
        real_client.config_set("maxclients", 10_000)

    assert (code, list(lines)) == (1, ["redis"])
    assert "max number of clients reached" in lines["redis"]
    assert got == 3


def test_json_holds_every_verdict(
    dynamodb: str, fake_server: ServerProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--table", "Keys", "--endpoint-url", dynamodb, "--redis-url", fake_server.url]
    _, lines = checked(capsys, *arguments)  # the fake server has no INFO
    assert main(["check", *arguments, "--json", "--quiet"]) == 1
    document = json.loads(capsys.readouterr().out)

    verdicts = document.pop("verdicts")
    assert document == {"format": 1, "to_fix": 1}
    told = {each["subject"]: each["state"] for each in verdicts}
    assert {*told.values()} == {"ok", "note", "fix", "unknown"}
    shown = {subject: line.split()[0] for subject, line in lines.items()}
    assert {s: state.replace("unknown", "?") for s, state in told.items()} == shown


def test_nothing_to_look_at_is_wrong_arguments(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ASYNCSYNC_REDIS_URL", raising=False)

    assert main(["check"]) == 2
    assert main(["check", "--redis-url", "http://a"]) == 2
    assert capsys.readouterr().err.count("\n") == 2
