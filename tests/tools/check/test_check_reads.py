"""asyncsync check, what it reads beside settings: results, streams, durability, memory."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import pytest
import redis

from asyncsync import Config, Mirror
from asyncsync.aws.caches import ManagedCache, managed_cache, read_durability
from asyncsync.aws.clients import AwsFailed, open_clients
from asyncsync.aws.functions import DeployedFunction
from asyncsync.cli.main import main
from asyncsync.connection import ReplyError
from asyncsync.lab.servers import ServerProcess, redis_process
from asyncsync.tools.check.aws import check_durability, check_mappings, check_table
from asyncsync.tools.check.info import ServerInfo, check_info, eviction, memory, persistence
from tests.support.cluster import Cluster
from tests.support.events import arn
from tests.support.servers import ONE_SERVER
from tests.support.stack.checking import CONFIG, GOOD, checked
from tests.support.tables import table_of
from tests.support.template.cache_users import set_user

OLD = arn().rsplit("/", 1)[0] + "/2025-01-01T00:00:00.000"
ELSEWHERE = arn().replace("/Players/", "/Games/")
ACL = ["on", "~*", "-@all", "+evalsha", "+eval", "+mget", "+set", "+del"]


def function(*mappings: dict[str, Any]) -> DeployedFunction:
    return DeployedFunction("mirror", {}, mappings, [])


def states(verdicts: Any) -> dict[str, str]:
    return {verdict.subject: verdict.state for verdict in verdicts}


def messages(verdicts: Any) -> dict[str, str]:
    return {verdict.subject: verdict.message for verdict in verdicts}


# --- the mapping ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "state", "words"),
    [
        ("OK", "ok", "OK"),
        ("No records processed", "note", "No records processed"),
        ("PROBLEM: Function call failed", "fix", "PROBLEM: Function call failed"),
        ("PROBLEM: internal Lambda error", "fix", "internal Lambda error"),
        ("PROBLEM:\n no rights", "fix", "PROBLEM: no rights"),
        ("Problem: it moved", "fix", "Problem: it moved"),
        ("OK, but late", "unknown", "Lambda says OK, but late"),
        ("ok", "unknown", "Lambda says ok"),
        ("Something new", "unknown", "Lambda says Something new"),
        ("", "unknown", "Lambda says nothing"),
        (None, "unknown", "Lambda says nothing"),
    ],
)
def test_what_lambda_says_of_its_last_attempt_is_a_line(
    result: str | None, state: str, words: str
) -> None:
    """D3: a mapping without rights, without its key or without its stream stays enabled."""
    mapping = {**GOOD, "LastProcessingResult": result}
    verdicts = check_mappings(function(mapping), arn(), CONFIG)

    assert states(verdicts)["last batch"] == state
    assert words in messages(verdicts)["last batch"]
    assert set(states(verdicts).values()) <= {"ok", state}


def test_a_mapping_without_a_result_is_not_ok() -> None:
    mapping = {name: value for name, value in GOOD.items() if name != "LastProcessingResult"}

    assert states(check_mappings(function(mapping), arn(), CONFIG))["last batch"] == "unknown"


@pytest.mark.parametrize(
    ("streams", "wrong", "words"),
    [
        ([arn()], {}, "reads the table's stream"),
        ([OLD], {"source": "fix"}, f"reads {OLD}, not {arn()}"),
        ([arn(), OLD], {"old stream": "note"}, "reads the table's stream"),
        ([ELSEWHERE], {"mapping": "fix"}, f"no mapping on {arn()}"),
        ([arn(), ELSEWHERE], {}, "reads the table's stream"),
        ([arn(), arn()], {"mapping": "fix"}, "2 mappings"),
    ],
)
def test_a_stream_that_is_made_again_leaves_its_mapping_behind(
    streams: list[str], wrong: dict[str, str], words: str
) -> None:
    mappings = [{**GOOD, "EventSourceArn": stream} for stream in streams]
    verdicts = check_mappings(function(*mappings), arn(), CONFIG)

    assert {s: state for s, state in states(verdicts).items() if state != "ok"} == wrong
    assert any(words in verdict.message for verdict in verdicts)


def test_an_old_mapping_is_checked_in_everything() -> None:
    mapping = {
        **GOOD,
        "EventSourceArn": OLD,
        "LastProcessingResult": "PROBLEM: no stream",
        "FilterCriteria": {"Filters": [{"Pattern": "{}"}]},
    }
    verdicts = states(check_mappings(function(mapping), arn(), CONFIG))

    assert {s for s, state in verdicts.items() if state == "fix"} == {
        "source",
        "filter",
        "last batch",
    }


def test_without_the_tables_stream_the_source_is_not_known() -> None:
    verdicts = check_mappings(function(dict(GOOD)), None, CONFIG)

    assert states(verdicts)["source"] == "unknown"


# --- the table --------------------------------------------------------------------------------


def test_a_table_alone_says_which_stream_to_deploy_with() -> None:
    table = replace(table_of("Players"), stream_arn=arn(), view_type="NEW_IMAGE")

    assert messages(check_table(table, CONFIG))["stream"] == arn()


def test_a_wrong_view_type_says_both_commands() -> None:
    table = replace(table_of("Players"), stream_arn=arn(), view_type="KEYS_ONLY")
    message = messages(check_table(table, CONFIG))["view type"]

    off, on = "StreamEnabled=false;", "StreamEnabled=true,StreamViewType=NEW_IMAGE;"
    update = f"aws dynamodb update-table --region {table.arn.region} --table-name Players "
    assert message.count(update) == 2
    assert 0 < message.index(off) < message.index(on)


# --- which cache ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "kind", "name"),
    [
        ("master.copy.ab12cd.use1.cache.amazonaws.com", "replication group", "copy"),
        ("clustercfg.my-copy.ab12cd.use1.cache.amazonaws.com", "replication group", "my-copy"),
        ("copy.ab12cd.ng.0001.use1.cache.amazonaws.com", "replication group", "copy"),
        ("copy.ab12cd.clustercfg.use1.cache.amazonaws.com", "replication group", "copy"),
        ("copy-001.ab12cd.0001.use1.cache.amazonaws.com", "replication group", "copy"),
        ("copy-0002-001.copy.ab12cd.use1.cache.amazonaws.com", "replication group", "copy"),
        ("master.copy.ab12cd.cnn1.cache.amazonaws.com.cn", "replication group", "copy"),
        ("MASTER.Copy.ab12cd.use1.cache.amazonaws.com", "replication group", "copy"),
        ("copy-ab12cd.serverless.use1.cache.amazonaws.com", "serverless", "copy-ab12cd"),
        ("clustercfg.copy.ab12cd.memorydb.us-east-1.amazonaws.com", "memorydb", "copy"),
        ("copy-0001-001.copy.ab12cd.memorydb.us-east-1.amazonaws.com", "memorydb", "copy"),
        ("cache.example.com", None, ""),
        ("127.0.0.1", None, ""),
        ("cache.amazonaws.com.example.com", None, ""),
    ],
)
def test_a_cache_is_known_by_its_address(host: str, kind: str | None, name: str) -> None:
    cache = managed_cache(Config(redis_url=f"rediss://{host}"))

    assert (cache and cache.kind, cache.name if cache else "") == (kind, name)


@pytest.mark.parametrize(
    ("host", "kind"),
    [
        ("cache.example.com", "replication group"),
        ("copy-ab12cd.serverless.use1.cache.amazonaws.com", "serverless"),
        ("clustercfg.copy.ab12cd.memorydb.us-east-1.amazonaws.com", "memorydb"),
    ],
)
def test_the_name_for_iam_is_the_caches_name(host: str, kind: str) -> None:
    config = Config(redis_url=f"rediss://user@{host}", redis_iam_cache="mine")

    assert managed_cache(config) == ManagedCache(kind, "mine")  # type: ignore[arg-type]


# --- durability -------------------------------------------------------------------------------

GROUP = """<DescribeReplicationGroupsResponse xmlns="http://elasticache.amazonaws.com/doc/2015-02-02/">
<DescribeReplicationGroupsResult><ReplicationGroups><ReplicationGroup>
<ReplicationGroupId>copy</ReplicationGroupId><Status>available</Status>{durability}
<ClusterEnabled>true</ClusterEnabled></ReplicationGroup></ReplicationGroups>
</DescribeReplicationGroupsResult><ResponseMetadata><RequestId>r</RequestId></ResponseMetadata>
</DescribeReplicationGroupsResponse>"""
ABSENT = """<ErrorResponse xmlns="http://elasticache.amazonaws.com/doc/2015-02-02/"><Error>
<Type>Sender</Type><Code>ReplicationGroupNotFoundFault</Code>
<Message>ReplicationGroup copy not found.</Message></Error><RequestId>r</RequestId>
</ErrorResponse>"""


@contextmanager
def elasticache(status: int, body: str) -> Iterator[str]:
    """Answer every request as ElastiCache's Query API does."""

    class Endpoint(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            assert asked["Action"] == ["DescribeReplicationGroups"]
            assert asked["ReplicationGroupId"] == ["copy"]
            self.send_response(status)
            self.send_header("Content-Type", "text/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *args: Any) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=[0.01], daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def in_effect(url: str) -> str:
    async def ask() -> str:
        async with open_clients(url, {}) as clients:
            return await read_durability(clients, "copy")

    return asyncio.run(ask())


@pytest.mark.parametrize(
    ("durability", "effective", "state"),
    [
        ("<EffectiveDurability>sync</EffectiveDurability>", "sync", "ok"),
        ("<EffectiveDurability>async</EffectiveDurability>", "async", "note"),
        ("<EffectiveDurability>disabled</EffectiveDurability>", "disabled", "note"),
        # What was asked for is not what is in effect.
        (
            "<Durability>sync</Durability><EffectiveDurability>async</EffectiveDurability>",
            "async",
            "note",
        ),
        ("<Durability>sync</Durability>", "", "unknown"),
        ("", "", "unknown"),
        ("<EffectiveDurability>other</EffectiveDurability>", "other", "unknown"),
        ("<EffectiveDurability/>", "", "unknown"),
    ],
)
def test_the_durability_in_effect_is_read_whatever_the_sdks_age(
    durability: str, effective: str, state: str
) -> None:
    with elasticache(200, GROUP.format(durability=durability)) as url:
        assert in_effect(url) == effective

    cache = ManagedCache("replication group", "copy")
    assert check_durability(cache, effective).state == state


def test_a_group_that_is_not_there_is_an_error() -> None:
    with elasticache(404, ABSENT) as url, pytest.raises(AwsFailed, match="NotFoundFault"):
        in_effect(url)
    with elasticache(403, "no XML at all") as url, pytest.raises(AwsFailed):
        in_effect(url)


@pytest.mark.parametrize(
    ("status", "body", "line"),
    [
        (200, GROUP.format(durability="<EffectiveDurability>sync</EffectiveDurability>"), "ok"),
        (403, ABSENT.replace("ReplicationGroupNotFoundFault", "AccessDenied"), "?"),
    ],
)
def test_the_line_is_written_though_the_cache_is_out_of_reach(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    moto: str,
    status: int,
    body: str,
    line: str,
) -> None:
    monkeypatch.setenv("ASYNCSYNC_TIMEOUT_MS", "100")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "any")
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", moto)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    url = "rediss://master.copy.ab12cd.use1.cache.amazonaws.com"
    with elasticache(status, body) as elsewhere:
        monkeypatch.setenv("AWS_ENDPOINT_URL_ELASTICACHE", elsewhere)
        where = ["--table", "Absent", "--region", "us-east-1", "--redis-url", url]
        code, lines = checked(capsys, *where)

    assert code == 1
    assert lines["durability"].startswith(line)
    assert ("AccessDenied" in lines["durability"]) == (line == "?")


@pytest.mark.parametrize(("kind", "state"), [("memorydb", "ok"), ("serverless", "note")])
def test_other_caches_have_one_durability(kind: Any, state: str) -> None:
    assert check_durability(ManagedCache(kind, "copy")).state == state


@pytest.mark.parametrize(
    ("fields", "state"),
    [
        ({"aof_enabled": "1", "appendfsync": "always"}, "ok"),
        ({"aof_enabled": "1", "appendfsync": "everysec"}, "note"),
        ({"aof_enabled": "1", "appendfsync": "no"}, "note"),
        ({"aof_enabled": "1"}, "unknown"),
        (
            {"aof_enabled": "1", "appendfsync": "always", "aof_last_write_status": "err"},
            "fix",
        ),
        ({"aof_enabled": "0", "appendfsync": "always"}, "note"),
        ({}, "unknown"),
    ],
)
def test_what_a_restart_keeps(fields: dict[str, str], state: str) -> None:
    assert persistence(ServerInfo("a:1", fields)).state == state


# --- what the server says ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("used", "most", "state"),
    [
        ("79", "100", "ok"),
        ("80", "100", "fix"),
        ("101", "100", "fix"),
        ("0", "100", "ok"),
        ("5", "0", "note"),
        ("5", "-1", "note"),
        ("x", "100", "unknown"),
        ("5", None, "unknown"),
        (None, "100", "unknown"),
    ],
)
def test_memory_has_head_room(used: str | None, most: str | None, state: str) -> None:
    fields = {"used_memory": used, "maxmemory": most}
    info = ServerInfo("a:1", {name: value for name, value in fields.items() if value is not None})

    assert memory(info).state == state


def test_a_server_that_says_nothing_is_not_ok() -> None:
    info = ServerInfo("a:1", {}, "a:1: user 'u' may not run INFO: allow +info")

    for judge in (memory, persistence):
        assert judge(info).state == "unknown"
        assert judge(info).message == f"could not look: {info.refusal}"
    assert eviction(info, CONFIG).state == "unknown"
    assert eviction(info, Config(redis_url="redis://a", mode="invalidate")).state == "unknown"


def test_a_user_without_info_leaves_three_lines_open(
    real_server: ServerProcess, real_client: redis.Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    set_user(real_client, "copy", ACL)
    url = f"redis://copy:hush@{real_server.host}:{real_server.port}"
    code, lines = checked(capsys, "--redis-url", url)

    assert code == 1
    unknown = {subject for subject, line in lines.items() if line.startswith("?")}
    assert unknown == {"eviction", "memory", "durability"}
    assert "allow +info" in lines["memory"]
    assert "hush" not in "".join(lines.values())

    set_user(real_client, "copy", [*ACL, "+info"])
    assert checked(capsys, "--redis-url", url)[0] == 0


@pytest.mark.parametrize(
    ("options", "user", "state", "code"),
    [
        (["--appendonly", "yes", "--appendfsync", "always"], "", "ok", 0),
        (["--appendonly", "yes", "--appendfsync", "everysec"], "", "note", 0),
        (["--appendonly", "yes", "--appendfsync", "always"], "copy:any@", "?", 1),
        (["--appendonly", "no"], "copy:any@", "note", 0),
    ],
)
@pytest.mark.parametrize("binary", ONE_SERVER)
def test_a_servers_own_durability(
    binary: str,
    options: list[str],
    user: str,
    state: str,
    code: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with redis_process(binary, *options) as server:
        with redis.Redis(host=server.host, port=server.port) as client:
            set_user(client, "copy", [*ACL, "+info"])
        got, lines = checked(capsys, "--redis-url", f"redis://{user}{server.host}:{server.port}")

    assert lines["durability"].split()[0] == state
    assert got == code


@pytest.mark.parametrize(("most", "state"), [("1gb", "ok"), ("1100kb", "fix"), ("0", "note")])
def test_a_real_servers_memory(
    real_server: ServerProcess,
    real_client: redis.Redis,
    capsys: pytest.CaptureFixture[str],
    most: str,
    state: str,
) -> None:
    real_client.config_set("maxmemory", most)
    try:
        code, lines = checked(capsys, "--redis-url", real_server.url)
    finally:
        real_client.config_set("maxmemory", "0")

    assert lines["memory"].split()[0] == state
    assert code == (state == "fix")


def test_one_node_of_a_cluster_is_enough_to_be_wrong(
    cluster: Cluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASYNCSYNC_REDIS_CLUSTER", "true")
    url = f"redis://127.0.0.1:{cluster.nodes[0].port}"
    last = [node for node in cluster.nodes if b"master" in _role(node.port)][-1]
    with redis.Redis(host="127.0.0.1", port=last.port) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.config_set("maxmemory", "1500kb")
        try:
            code, lines = checked(capsys, "--redis-url", url)
        finally:
            client.config_set("maxmemory-policy", "noeviction")
            client.config_set("maxmemory", "0")

    assert code == 1
    assert lines["eviction"].startswith("fix allkeys-lru")
    assert lines["memory"].startswith(f"fix 127.0.0.1:{last.port}")


def _role(port: int) -> bytes:
    with redis.Redis(host="127.0.0.1", port=port) as client:
        return client.execute_command("ROLE")[0]  # type: ignore[no-any-return]


def answered(reply: object) -> Callable[..., Awaitable[object]]:
    async def ask(*_: bytes) -> object:
        return reply

    return ask


@pytest.mark.parametrize(
    ("mode", "reply", "expected"),
    [
        ("mirror", ReplyError("NOPERM"), {"eviction": "note", "memory": "note", "run id": "note"}),
        ("mirror", b"# Memory\r\n", {"eviction": "note", "memory": "note", "run id": "note"}),
        (
            "invalidate",
            ReplyError("ERR unknown"),
            {"eviction": "ok", "memory": "note", "run id": "note"},
        ),
        (
            "mirror",
            b"maxmemory_policy:allkeys-lru\r\nused_memory:1\r\nmaxmemory:100\r\nrun_id:a\r\n",
            {"eviction": "fix", "memory": "ok", "run id": "ok"},
        ),
    ],
)
async def test_serverless_may_say_less(mode: Any, reply: object, expected: dict[str, str]) -> None:
    mirror = Mirror(Config(redis_url="redis://a", mode=mode))
    verdicts = await check_info(mirror, answered(reply), ManagedCache("serverless", "copy"))

    assert states(verdicts) == expected


@pytest.mark.parametrize("reply", [ReplyError("NOPERM"), b"OK", [1], [[0, 5, [b"h"]]], None])
async def test_a_topology_that_cannot_be_read_is_not_ok(reply: object) -> None:
    mirror = Mirror(Config(redis_url="redis://a", redis_cluster=True))
    verdicts = await check_info(mirror, answered(reply), None)

    assert set(states(verdicts).values()) == {"unknown"}


def test_the_exit_code_is_1_where_something_is_unknown(
    fake_server: ServerProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    """The fake server has no INFO."""
    assert main(["check", "--redis-url", fake_server.url, "--json", "--quiet"]) == 1
    assert '"to_fix":0' in capsys.readouterr().out
