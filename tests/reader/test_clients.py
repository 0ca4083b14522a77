"""The clients that a reader makes from the settings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis, RedisCluster, SSLConnection, UnixDomainSocketConnection

from asyncsync import Config
from asyncsync.lab.servers import redis_process
from asyncsync.reader.clients import new_redis
from tests.support.project.package import ROOT
from tests.support.servers import ONE_SERVER

IAM = {
    "redis_url": "rediss://reader@cache.example:6380",
    "redis_iam_cache": "my-cache",
}


def arguments_of(**settings: Any) -> dict[str, Any]:
    client: Any = new_redis(Config(**settings), "eu-west-1", lambda: 1_767_225_600.0)
    kwargs: dict[str, Any] = client.get_connection_kwargs()
    return kwargs


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"redis_url": "redis://h"}, {"host": "h", "port": 6379, "db": 0, "password": None}),
        (
            {"redis_url": "redis://me:secret@h:7/3"},
            {"host": "h", "port": 7, "db": 3, "username": "me", "password": "secret"},
        ),
        (
            {"redis_url": "redis://:old@h", "redis_password": "new"},
            {"username": None, "password": "new"},
        ),
        ({"redis_url": "unix:///tmp/s?db=2"}, {"path": "/tmp/s", "db": 2}),
        (
            {"redis_url": "rediss://h", "redis_ca_file": "/etc/ca.pem"},
            {"host": "h", "ssl_ca_certs": "/etc/ca.pem"},
        ),
    ],
)
def test_a_client_has_the_settings(settings: dict[str, Any], expected: dict[str, Any]) -> None:
    arguments = arguments_of(**settings)

    assert {name: arguments.get(name) for name in expected} == expected


def test_a_url_decides_the_kind_of_connection() -> None:
    def kind(url: str) -> Any:
        client: Any = new_redis(Config(redis_url=url), None, lambda: 0.0)
        return client.connection_pool.connection_class

    assert kind("rediss://h") is SSLConnection
    assert kind("unix:///tmp/s") is UnixDomainSocketConnection
    cluster = new_redis(Config(redis_url="redis://h", redis_cluster=True), None, lambda: 0.0)
    assert isinstance(cluster, RedisCluster)


def test_iam_signs_in_with_a_token_of_the_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    provider = arguments_of(**IAM)["credential_provider"]

    user, token = provider.get_credentials()

    assert user == "reader"
    assert token.startswith("my-cache/?Action=connect&User=reader")
    assert "eu-west-1" in token
    assert "X-Amz-Date=20260101T000000Z" in token


@pytest.mark.parametrize("binary", ONE_SERVER)
async def test_a_made_client_signs_in_to_a_real_server(binary: str, tmp_path: Path) -> None:
    with redis_process(binary, "--requirepass", "secret") as server:
        url = f"redis://:secret@127.0.0.1:{server.port}"
        client = new_redis(Config(redis_url=url), None, lambda: 0.0)
        assert isinstance(client, Redis)
        assert await client.set("name", "value")
        assert await client.get("name") == b"value"
        await client.aclose()


@pytest.mark.parametrize("package", ["redis", "anyio"])
def test_without_the_extra_the_error_says_what_to_install(package: str) -> None:
    code = f"import sys; sys.modules[{package!r}] = None; from asyncsync import Reader"
    command = [sys.executable, "-c", code]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    needed = f'ImportError: a reader needs {package}: pip install "asyncsync[reader]"'
    assert process.stderr.splitlines()[-1] == needed
