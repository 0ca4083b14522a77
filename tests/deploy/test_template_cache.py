"""The template's cache users on real servers, and its function that reads one key."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import redis

from asyncsync import StoreRefused
from asyncsync.lab.servers import ServerProcess, free_port, redis_process
from tests.support.cluster import Cluster
from tests.support.formats import REAL_SERVERS, FormatServer, modules_of
from tests.support.servers import SERVERS
from tests.support.template.cache_users import access, set_user, write
from tests.support.template.cloudformation import Resolver
from tests.support.tls import tls_options

MODES = ("mirror", "refresh", "invalidate")


def mirror_url(server: ServerProcess) -> str:
    return f"redis://copy:any@{server.host}:{server.port}"


@pytest.mark.parametrize("mode", MODES)
def test_the_node_caches_user_may_do_what_every_mode_sends(
    translated: Any, real_server: ServerProcess, real_client: redis.Redis, mode: str
) -> None:
    real_client.script_flush()
    set_user(real_client, "copy", access(translated, "MirrorUser", Cache="node"))

    write(mirror_url(real_server), mode=mode)

    assert real_client.exists("{Players:7}!f", "{Players:8}!f") == 2
    assert (real_client.get("Players:7") is not None) == (mode == "mirror")


@pytest.mark.parametrize("command", ["evalsha", "eval", "mget", "set", "del"])
def test_without_any_one_of_its_commands_it_could_not(
    translated: Any, real_server: ServerProcess, real_client: redis.Redis, command: str
) -> None:
    real_client.script_flush()
    rules = access(translated, "MirrorUser", Cache="node")
    set_user(real_client, "copy", [rule for rule in rules if rule != f"+{command}"])

    with pytest.raises(StoreRefused):
        write(mirror_url(real_server))


def writes_a_format(translated: Any, at: FormatServer, mode: str, without: str = "") -> bool:
    """Write values of a format as the node cache's user; return whether all went well."""
    given = {"Cache": "node", "ValueFormat": at.value, "Mode": mode}
    rules = access(translated, "MirrorUser", **given)
    assert not without or without in rules
    set_user(at.client, "copy", [rule for rule in rules if rule != without])
    for ttl_s in (None,) if mode == "invalidate" else (None, 3_600):
        at.client.flushall()
        at.client.script_flush()
        at.client.hset("Players:7", "an", "older image")  # of documents, another type
        try:
            write(mirror_url(at.server), mode=mode, value=at.value, ttl_s=ttl_s)
        except (StoreRefused, AssertionError):
            return False
        name = None if mode == "invalidate" else "player 7"
        value = at.read("Players:7")
        assert (value and value["Name"]) == name
        assert (at.client.pttl("Players:7") > 0) == (name is not None and ttl_s is not None)
        assert at.client.exists("{Players:7}!f", "{Players:8}!f") == 2
    return True


@pytest.mark.parametrize("mode", MODES)
def test_the_node_caches_user_may_write_a_format_in_every_mode_and_needs_each_command(
    translated: Any, real_format: FormatServer, mode: str
) -> None:
    given = {"Cache": "node", "Mode": mode}
    strings = access(translated, "MirrorUser", **given)
    rules = access(translated, "MirrorUser", ValueFormat=real_format.value, **given)

    assert writes_a_format(translated, real_format, mode)
    for more in {*rules} - {*strings}:
        assert not writes_a_format(translated, real_format, mode, without=more), more
    assert strings == rules if mode == "invalidate" else {*strings} < {*rules}


DURABLE = {"Cache": "node", "Durability": "sync", "CacheNodeType": "cache.m7g.large"}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("value", ["json", "hash"])  # no cluster here has a JSON module
@pytest.mark.parametrize("given", [{}, DURABLE], ids=["serverless", "durable"])
def test_a_clustered_caches_user_may_do_what_a_cluster_asks_for(
    translated: Any, cluster: Cluster, given: dict[str, str], value: str, mode: str
) -> None:
    given = {**given, "ValueFormat": value, "Mode": mode}
    for node in cluster.nodes:
        with redis.Redis(host="127.0.0.1", port=node.port) as client:
            set_user(client, "copy", access(translated, "MirrorUser", **given))

    url = f"redis://copy:any@127.0.0.1:{cluster.nodes[0].port}"
    write(url, redis_cluster=True, mode=mode, value=value)


@pytest.mark.parametrize(
    ("user", "command"),
    [
        ("MirrorUser", "GET Players:7"),
        ("MirrorUser", "SET Games:7 x"),
        ("MirrorUser", "SET PlayersToo:7 x"),
        ("MirrorUser", "DEL {Games:7}!f"),
        ("MirrorUser", "KEYS *"),
        ("MirrorUser", "FLUSHALL"),
        ("MirrorUser", "PUBLISH a b"),
        ("LookUser", "SET Players:7 x"),
        ("LookUser", "GET Games:7"),
    ],
)
def test_the_users_may_do_nothing_else(
    translated: Any, real_server: ServerProcess, real_client: redis.Redis, user: str, command: str
) -> None:
    set_user(real_client, "copy", access(translated, user, Cache="node"))
    with redis.Redis(
        host=real_server.host, port=real_server.port, username="copy", password="any"
    ) as client:
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.execute_command(*command.split())


_IN_PLAIN = """
import json, ssl, sys, index
class Plain:
    def wrap_socket(self, socket, server_hostname): return socket
ssl.create_default_context = Plain
print(json.dumps([index.look({"key": key}, 0)["value"] for key in sys.argv[1:]]))
"""


def test_the_function_that_looks_follows_a_cluster(
    translated: Any, cluster: Cluster, tmp_path: Path
) -> None:
    function = Resolver(translated, DURABLE, known=True).resources()["LookFunction"]["Properties"]
    (tmp_path / "index.py").write_text(function["Code"]["ZipFile"])
    variables = function["Environment"]["Variables"]
    for node in cluster.nodes:
        with redis.Redis(host="127.0.0.1", port=node.port) as client:
            set_user(client, variables["REDIS_USER"], access(translated, "LookUser", **DURABLE))
    keys = [f"Players:{number}" for number in range(12)]  # in the slots of all nodes
    write_all = redis.RedisCluster(host="127.0.0.1", port=cluster.nodes[0].port)
    with write_all as client:
        for key in keys:
            client.set(key, key)

    ended = subprocess.run(
        [sys.executable, "-c", _IN_PLAIN, *keys],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            **variables,
            "HOST": "127.0.0.1",
            "PORT": str(cluster.nodes[0].port),
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "not-a-secret",
        },
    )

    assert ended.returncode == 0, ended.stderr[-500:]
    assert json.loads(ended.stdout) == keys


def looked(
    translated: Any, authority: Path, tmp_path: Path, binary: str, value_format: str, *keys: str
) -> list[subprocess.CompletedProcess[str]]:
    """Read keys with the function over TLS, as its user; Players:7 has a value of the format."""
    given = {"ValueFormat": value_format}
    function = Resolver(translated, given, known=True).resources()["LookFunction"]["Properties"]
    (tmp_path / "index.py").write_text(function["Code"]["ZipFile"])
    module, name = function["Handler"].split(".")
    variables = function["Environment"]["Variables"]
    program = (
        f"import json, sys, {module}\n"
        f"print(json.dumps({module}.{name}({{'key': sys.argv[1]}}, 0)))"
    )
    tls_port = free_port()
    options = tls_options(authority, tls_port, binary)
    options += modules_of(binary) if value_format == "redis-json" else ()
    with redis_process(binary, *options) as server:
        with redis.Redis(host=server.host, port=server.port) as client:
            set_user(client, variables["REDIS_USER"], access(translated, "LookUser", **given))
            if value_format == "hash":
                client.hset("Players:7", mapping={"Name": "Zoë", "Number": "7"})
            else:
                put = "SET Players:7" if value_format == "json" else "JSON.SET Players:7 $"
                client.execute_command(*put.split(), DOCUMENT)
            client.set("Games:7", "not for it")
        return [
            subprocess.run(
                [sys.executable, "-c", program, key],
                cwd=tmp_path,
                capture_output=True,
                text=True,
                check=False,
                env={
                    **os.environ,
                    **variables,
                    "HOST": "localhost",
                    "PORT": str(tls_port),
                    "SSL_CERT_FILE": str(authority / "ca.crt"),
                    "AWS_REGION": "us-east-1",
                    "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
                    "AWS_SECRET_ACCESS_KEY": "not-a-secret",
                },
            )
            for key in keys
        ]


DOCUMENT = '{"Name":"Zoë","Number":7}'


@pytest.mark.parametrize("binary", SERVERS)
def test_the_function_that_looks_reads_a_key_over_tls(
    translated: Any, authority: Path, tmp_path: Path, binary: str
) -> None:
    keys = ("Players:7", "Players:8", "Games:7")
    there, absent, foreign = looked(translated, authority, tmp_path, binary, "json", *keys)

    assert json.loads(there.stdout) == {"key": "Players:7", "value": DOCUMENT}, there.stderr
    assert json.loads(absent.stdout) == {"key": "Players:8", "value": None}
    assert "NOPERM" in foreign.stderr


@pytest.mark.parametrize("at", REAL_SERVERS)
def test_the_function_that_looks_reads_hashes_and_documents(
    translated: Any, authority: Path, tmp_path: Path, at: tuple[str, str]
) -> None:
    value_format, binary = at
    keys = ("Players:7", "Players:8", "Games:7")
    there, absent, foreign = looked(translated, authority, tmp_path, binary, value_format, *keys)

    value = {"Name": "Zoë", "Number": "7"} if value_format == "hash" else DOCUMENT
    assert json.loads(there.stdout) == {"key": "Players:7", "value": value}, there.stderr
    assert json.loads(absent.stdout) == {"key": "Players:8", "value": None}, absent.stderr
    assert "NOPERM" in foreign.stderr
