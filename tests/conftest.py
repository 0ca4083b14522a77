"""Fixtures: which servers there are, and a Redis client that is not ours to look with."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator
from functools import cache
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import botocore.session
import pytest
import redis

from asyncsync.aws.clients import AwsClients, open_clients
from asyncsync.lab.servers import (
    ServerProcess,
    dynamodb_process,
    fake_redis,
    redis_process,
)
from tests.support.cloudformation import ROOT, TOOLS, translate
from tests.support.cluster import Cluster, redis_cluster
from tests.support.events import SEED
from tests.support.recoveries import HEAD, Recoveries
from tests.support.servers import FOUND, WANTED
from tests.support.tables import drop_tables, table_names
from tests.support.tls import make_authority

_RECOVERIES = pytest.StashKey[list[str]]()

# A DynamoDB of one's own beside moto's, such as AWS's DynamoDB Local.
GIVEN_DYNAMODB = os.environ.get("ASYNCSYNC_TEST_DYNAMODB_URL", "")


def pytest_report_header() -> list[str]:
    """Say which servers the tests run against; in CI both must be there."""
    missing = [name for name in WANTED if name not in FOUND]
    if missing and os.environ.get("CI"):
        pytest.exit(f"CI needs {' and '.join(missing)} on PATH", returncode=1)
    absent = f"; not found: {', '.join(missing)}" if missing else ""
    servers = f"servers: {', '.join(['fakeredis', *FOUND])}{absent}"
    servers += f"; DynamoDB: moto{', and ' + GIVEN_DYNAMODB if GIVEN_DYNAMODB else ''}"
    return [servers, f"seed of the random histories: {SEED} (ASYNCSYNC_TEST_SEED)"]


@pytest.fixture
def recoveries(request: pytest.FixtureRequest) -> Recoveries:
    """Where a test notes how its faults went."""
    return Recoveries(request.config.stash.setdefault(_RECOVERIES, []))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Show how long it took until the first record was written after each fault had gone."""
    rows = config.stash.get(_RECOVERIES, [])
    if rows:
        terminalreporter.section("faults: batches failed, redelivered; time to recover")
        terminalreporter.write_line(HEAD)
        for row in sorted(rows):
            terminalreporter.write_line(row)


@pytest.fixture(scope="session", params=["fakeredis", *FOUND])
def any_server(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    """Each server in turn: the fake one, Redis, Valkey; one process for the whole session."""
    started = fake_redis() if request.param == "fakeredis" else redis_process(request.param)
    with started as server:
        yield server


@pytest.fixture(scope="session", params=FOUND)
def real_server(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    """Each real server in turn."""
    with redis_process(request.param) as server:
        yield server


@pytest.fixture(scope="session")
def fake_server() -> Iterator[ServerProcess]:
    """The fake server."""
    with fake_redis() as server:
        yield server


def _client(server: ServerProcess) -> Iterator[redis.Redis]:
    with redis.Redis(host=server.host, port=server.port) as client:
        client.flushall()
        yield client


@pytest.fixture
def any_client(any_server: ServerProcess) -> Iterator[redis.Redis]:
    """An emptied server, seen through redis-py."""
    yield from _client(any_server)


@pytest.fixture
def fake_client(fake_server: ServerProcess) -> Iterator[redis.Redis]:
    """The fake server, emptied, seen through redis-py."""
    yield from _client(fake_server)


@pytest.fixture
def real_client(real_server: ServerProcess) -> Iterator[redis.Redis]:
    """An emptied real server, seen through redis-py."""
    yield from _client(real_server)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private CA and a certificate of it for localhost."""
    folder = tmp_path_factory.mktemp("tls")
    make_authority(folder)
    return folder


@pytest.fixture(scope="session", params=FOUND)
def running_cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Six nodes of each real server in turn, three of them replicas."""
    with redis_cluster(request.param) as cluster:
        yield cluster


@pytest.fixture
def cluster(running_cluster: Cluster) -> Cluster:
    """A cluster that is whole, with nothing in it."""
    for node in running_cluster.nodes:
        if node.process is None:
            node.start(running_cluster.binary)
    running_cluster.wait_until_ready()
    running_cluster.flush()
    return running_cluster


@pytest.fixture(scope="session")
def translated() -> Any:
    """The template as CloudFormation is given it; without its tools CI fails."""
    if not TOOLS.exists() and not os.environ.get("CI"):
        pytest.skip("`make template` installs what the template is checked with")
    ended = translate(ROOT / "template.yaml")
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test of the tools on moto, and where one is given and it may, on that DynamoDB."""
    if "endpoint" in metafunc.fixturenames:
        alone = not GIVEN_DYNAMODB or metafunc.definition.get_closest_marker("only_moto")
        servers = ["moto"] if alone else ["moto", "given"]
        metafunc.parametrize("endpoint", servers, indirect=True, scope="module")


@pytest.fixture(scope="session")
def moto_process() -> Iterator[str]:
    """Moto's server; one process for the whole session."""
    with dynamodb_process() as url:
        yield url


@pytest.fixture(scope="module")
def moto(moto_process: str) -> str:
    """Moto's server with nothing in it, for a module's tests."""
    connection = HTTPConnection(moto_process.removeprefix("http://"))
    connection.request("POST", "/moto-api/reset")
    assert connection.getresponse().status == 200
    connection.close()
    return moto_process


@pytest.fixture(scope="session")
def one_loader() -> Iterator[None]:
    """Let all sessions of botocore share what they read of its folder of services' models."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.session, "create_loader", cache(botocore.session.create_loader))
        yield


@pytest.fixture
def no_sdk_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the SDK try again at once, as often as it would."""
    backoff = "botocore.retries.standard.ExponentialBackoff.delay_amount"
    monkeypatch.setattr(backoff, lambda *_: 0.0)


@pytest.fixture(scope="module")
def endpoint(request: pytest.FixtureRequest, one_loader: None) -> Iterator[str]:
    """A DynamoDB for a module's tests: moto's, and where one is given, that one too.

    What is on a given one stays there; what the tests put there is taken away again.
    """
    if request.param == "moto":
        yield request.getfixturevalue("moto")
        return
    before = asyncio.run(table_names(GIVEN_DYNAMODB))
    yield GIVEN_DYNAMODB
    asyncio.run(drop_tables(GIVEN_DYNAMODB, but=before))


@pytest.fixture
def table(request: pytest.FixtureRequest) -> str:
    """A table name that no other test uses."""
    name = request.node.name.removeprefix("test_")
    return "".join(c if c.isalnum() else "-" for c in name)[:200]


@pytest.fixture
async def clients(endpoint: str) -> AsyncIterator[AwsClients]:
    async with open_clients(endpoint, {}) as opened:
        yield opened
