"""Fixtures: the servers, and redis-py as a second way to look at them."""

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
from tests.support.cluster import Cluster, redis_cluster
from tests.support.events import SEED
from tests.support.formats import ANY_SERVER, REAL_SERVERS, FormatServer, format_server
from tests.support.recoveries import HEAD, Recoveries
from tests.support.servers import (
    FOUND,
    LACKING,
    ONE_SERVER,
    SERVERS,
    WANTED,
    shortages,
    skip,
    skip_without,
)
from tests.support.tables import drop_tables, table_names
from tests.support.template.cloudformation import ROOT, TOOLS, translate
from tests.support.tls import make_authority

_RECOVERIES = pytest.StashKey[list[str]]()

# Another DynamoDB beside moto, such as AWS's DynamoDB Local.
OTHER_DYNAMODB = os.environ.get("ASYNCSYNC_TEST_DYNAMODB_URL", "")


def pytest_sessionstart() -> None:
    """End at once in CI if a server is missing."""
    missing = [name for name in WANTED if name not in FOUND]
    if missing and os.environ.get("CI"):
        pytest.exit(f"CI needs {' and '.join(missing)} on PATH", returncode=1)


def pytest_report_header() -> list[str]:
    """Name the servers that the tests use."""
    missing = [name for name in WANTED if name not in FOUND]
    absent = f"; not found: {', '.join(missing)}" if missing else ""
    servers = f"servers: {', '.join(['fakeredis', *FOUND])}{absent}"
    servers += f"; DynamoDB: moto{', and ' + OTHER_DYNAMODB if OTHER_DYNAMODB else ''}"
    return [servers, f"seed of the random histories: {SEED} (ASYNCSYNC_TEST_SEED)"]


@pytest.fixture
def recoveries(request: pytest.FixtureRequest) -> Recoveries:
    """Collect how the faults of a test went."""
    return Recoveries(request.config.stash.setdefault(_RECOVERIES, []))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Show how long each fault took until the first record was written after it."""
    rows = config.stash.get(_RECOVERIES, [])
    if rows:
        terminalreporter.section("faults: batches failed, redelivered; time to recover")
        terminalreporter.write_line(HEAD)
        for row in sorted(rows):
            terminalreporter.write_line(row)


@pytest.hookimpl(wrapper=True, tryfirst=True, specname="pytest_terminal_summary")
def pytest_last_lines(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    """Say last what was skipped for want of which program, and how to install it."""
    yield
    skipped = terminalreporter.stats.get("skipped", [])
    for line in shortages(report.longrepr[2].removeprefix("Skipped: ") for report in skipped):
        terminalreporter.write_line(line)


@pytest.fixture(scope="session", params=["fakeredis", *SERVERS])
def any_server(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    """Run each server in turn: the fake one, Redis, Valkey; one process per session."""
    started = fake_redis() if request.param == "fakeredis" else redis_process(request.param)
    with started as server:
        yield server


@pytest.fixture(scope="session", params=SERVERS)
def real_server(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    """Run each real server in turn."""
    with redis_process(request.param) as server:
        yield server


@pytest.fixture(scope="session")
def fake_server() -> Iterator[ServerProcess]:
    """Run the fake server."""
    with fake_redis() as server:
        yield server


@pytest.fixture(scope="session", params=ONE_SERVER)
def one_server(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    """Run one real server, for what does not depend on which."""
    with redis_process(request.param) as server:
        yield server


def _client(server: ServerProcess) -> Iterator[redis.Redis]:
    with redis.Redis(host=server.host, port=server.port) as client:
        client.flushall()
        yield client


@pytest.fixture
def any_client(any_server: ServerProcess) -> Iterator[redis.Redis]:
    """Return a redis-py client of an empty server."""
    yield from _client(any_server)


@pytest.fixture
def fake_client(fake_server: ServerProcess) -> Iterator[redis.Redis]:
    """The fake server, emptied, seen through redis-py."""
    yield from _client(fake_server)


@pytest.fixture
def real_client(real_server: ServerProcess) -> Iterator[redis.Redis]:
    """Return a redis-py client of an empty real server."""
    yield from _client(real_server)


@pytest.fixture(scope="session", params=ANY_SERVER)
def any_format_server(request: pytest.FixtureRequest) -> Iterator[FormatServer]:
    """Run each server in turn for each format whose values are no strings."""
    with format_server(*request.param) as server:
        yield server


@pytest.fixture(scope="session", params=REAL_SERVERS)
def real_format_server(request: pytest.FixtureRequest) -> Iterator[FormatServer]:
    """The same, real servers only."""
    with format_server(*request.param) as server:
        yield server


@pytest.fixture
def any_format(any_format_server: FormatServer) -> FormatServer:
    """Return an empty server, and a format to write there."""
    any_format_server.client.flushall()
    return any_format_server


@pytest.fixture
def real_format(real_format_server: FormatServer) -> FormatServer:
    """The same, a real one."""
    real_format_server.client.flushall()
    return real_format_server


@pytest.fixture
def one_client(one_server: ServerProcess) -> Iterator[redis.Redis]:
    """Return a redis-py client of that server, emptied."""
    yield from _client(one_server)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a private CA and its certificate for localhost."""
    skip_without("openssl")
    folder = tmp_path_factory.mktemp("tls")
    make_authority(folder)
    return folder


@pytest.fixture(scope="session", params=SERVERS)
def running_cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Run a cluster of six nodes of each real server in turn, three of them replicas."""
    with redis_cluster(request.param) as cluster:
        yield cluster


@pytest.fixture
def cluster(running_cluster: Cluster) -> Cluster:
    """Return a cluster that is complete and empty."""
    for node in running_cluster.nodes:
        if node.process is None:
            node.start(running_cluster.binary)
    running_cluster.wait_until_ready()
    running_cluster.flush()
    return running_cluster


@pytest.fixture(scope="session")
def translated() -> Any:
    """Return the template as CloudFormation gets it; CI fails without the template's tools."""
    if not TOOLS.exists():
        skip(f"{LACKING}tools for the template (make template)")
    process = translate(ROOT / "template.yaml")
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test of the tools on moto, and on another DynamoDB if there is one."""
    if "endpoint" in metafunc.fixturenames:
        only_moto = not OTHER_DYNAMODB or metafunc.definition.get_closest_marker("only_moto")
        servers = ["moto"] if only_moto else ["moto", "other"]
        metafunc.parametrize("endpoint", servers, indirect=True, scope="module")


@pytest.fixture(scope="session")
def moto_process() -> Iterator[str]:
    """Run moto's server; one process per session."""
    with dynamodb_process() as url:
        yield url


@pytest.fixture(scope="module")
def moto(moto_process: str) -> str:
    """Empty moto's server for a module's tests; return its URL."""
    connection = HTTPConnection(moto_process.removeprefix("http://"))
    connection.request("POST", "/moto-api/reset")
    assert connection.getresponse().status == 200
    connection.close()
    return moto_process


@pytest.fixture(scope="session")
def one_loader() -> Iterator[None]:
    """Let all sessions of botocore share the models of services that they read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.session, "create_loader", cache(botocore.session.create_loader))
        yield


@pytest.fixture
def no_sdk_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the SDK retry at once."""
    backoff = "botocore.retries.standard.ExponentialBackoff.delay_amount"
    monkeypatch.setattr(backoff, lambda *_: 0.0)


@pytest.fixture(scope="module")
def endpoint(request: pytest.FixtureRequest, one_loader: None) -> Iterator[str]:
    """Return the URL of a DynamoDB for a module's tests: moto, then another if there is one.

    Tables that the tests create on another DynamoDB are deleted; its own tables stay.
    """
    if request.param == "moto":
        yield request.getfixturevalue("moto")
        return
    before = asyncio.run(table_names(OTHER_DYNAMODB))
    yield OTHER_DYNAMODB
    asyncio.run(drop_tables(OTHER_DYNAMODB, but=before))


@pytest.fixture
def table(request: pytest.FixtureRequest) -> str:
    """A table name that no other test uses."""
    name = request.node.name.removeprefix("test_")
    return "".join(c if c.isalnum() else "-" for c in name)[:200]


@pytest.fixture
async def clients(endpoint: str) -> AsyncIterator[AwsClients]:
    async with open_clients(endpoint, {}) as opened:
        yield opened
