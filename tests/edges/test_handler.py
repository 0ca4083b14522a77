"""Invocations in one process, while servers and connections change between them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
import redis

from asyncsync import Config, Mirror
from asyncsync.lab.servers import ServerProcess, free_port, redis_process
from asyncsync.testing.events import CREATED_S
from tests.support.context import Context
from tests.support.events import FIRST, arn, event, failed, record
from tests.support.servers import ONE_SERVER


class Lines:
    """The lines that the handler printed, parsed."""

    def __init__(self) -> None:
        self.all: list[dict[str, Any]] = []

    def __call__(self, line: bytes) -> None:
        self.all.append(json.loads(line))

    @property
    def metrics(self) -> list[dict[str, Any]]:
        return [line for line in self.all if "_aws" in line]

    @property
    def logs(self) -> list[dict[str, Any]]:
        return [line for line in self.all if "_aws" not in line]


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture
def mirror(real_server: ServerProcess, real_client: redis.Redis, lines: Lines) -> Iterator[Mirror]:
    made = Mirror(Config(redis_url=real_server.url, metrics="every"), emit=lines)
    yield made
    made.close()


def test_three_invocations_share_one_loop_and_one_connection(
    mirror: Mirror, real_client: redis.Redis, lines: Lines
) -> None:
    connected = _connections(real_client)

    for at in range(3):
        assert mirror.lambda_handler(event([record(1, FIRST + at)]), Context()) == {
            "batchItemFailures": []
        }

    assert _connections(real_client) == connected + 1
    assert [line.get("ColdStart", 0) for line in lines.metrics] == [1, 0, 0]


def test_what_waits_for_a_metrics_line_is_written_on_closing(
    real_server: ServerProcess, lines: Lines
) -> None:
    mirror = Mirror(Config(redis_url=real_server.url), emit=lines, wall_clock=lambda: CREATED_S)
    for at in range(3):
        mirror.lambda_handler(event([record(1, FIRST + at)]), Context())
    assert [line["Invocations"] for line in lines.metrics] == [1]

    mirror.close()

    assert [line["Invocations"] for line in lines.metrics] == [1, 2]
    mirror.close()
    assert len(lines.metrics) == 2


def test_the_metrics_of_two_tables_wait_apart(real_server: ServerProcess, lines: Lines) -> None:
    mirror = Mirror(Config(redis_url=real_server.url), emit=lines, wall_clock=lambda: CREATED_S)
    for table in ("Players", "Games", "Games", "Players", "Players"):
        mirror.lambda_handler(event([record(1, FIRST, stream_arn=arn(table=table))]), Context())
    mirror.close()

    assert [(line["Table"], line["Invocations"]) for line in lines.metrics] == [
        ("Players", 1),
        ("Games", 1),
        ("Players", 2),
        ("Games", 1),
    ]


def test_a_connection_killed_between_two_invocations_loses_nothing(
    mirror: Mirror, real_client: redis.Redis, lines: Lines
) -> None:
    mirror.lambda_handler(event([record(1, FIRST)]), Context())
    real_client.client_kill_filter(_type="normal", skipme=True)

    answer = mirror.lambda_handler(event([record(at, FIRST + 1) for at in range(300)]), Context())

    assert answer == {"batchItemFailures": []}
    assert all(real_client.exists(f"Players:{at}") for at in range(300))
    assert lines.logs == []  # nothing failed, so nothing is logged


@pytest.mark.parametrize("binary", ONE_SERVER)
def test_a_stopped_server_is_answered_for_in_time_and_written_when_it_goes_on(
    binary: str, lines: Lines
) -> None:
    """SIGSTOP: the socket stays open and silent, as with a frozen or partitioned server."""
    with redis_process(binary) as server, redis.Redis(port=server.port) as client:
        mirror = Mirror(Config(redis_url=server.url), emit=lines)
        mirror.lambda_handler(event([record(1, FIRST)]), Context())
        assert server.process is not None
        server.process.send_signal(signal.SIGSTOP)
        context = Context(3_000)

        answer = mirror.lambda_handler(
            event([record(1, FIRST + 1), record(2, FIRST + 2)]), context
        )

        assert context.get_remaining_time_in_millis() >= 100
        assert failed(answer) == [str(FIRST + 1)]
        assert lines.logs[-1]["event"] == "reconnected"
        assert lines.logs[-1]["error"] == "TimeoutError"
        server.process.send_signal(signal.SIGCONT)
        retried = mirror.lambda_handler(
            event([record(1, FIRST + 1), record(2, FIRST + 2)]), Context(3_000)
        )
        assert failed(retried) == []
        assert client.get("Players:2") is not None
        mirror.close()


@pytest.mark.parametrize("binary", ONE_SERVER)
def test_a_restarted_server_has_no_script_and_gets_all(binary: str, lines: Lines) -> None:
    port = free_port()
    with redis_process(binary, port=port) as server:
        mirror = Mirror(Config(redis_url=server.url), emit=lines)
        mirror.lambda_handler(event([record(1, FIRST)]), Context())
    with redis_process(binary, port=port) as server, redis.Redis(port=port) as client:
        answer = mirror.lambda_handler(
            event([record(at, FIRST + 1) for at in range(400)]), Context()
        )

        assert failed(answer) == []
        assert client.dbsize() == 800
        mirror.close()


def test_a_server_that_is_down_fails_the_batch_and_nothing_raises(lines: Lines) -> None:
    mirror = Mirror(Config(redis_url=f"redis://127.0.0.1:{free_port()}"), emit=lines)

    answer = mirror.lambda_handler(event([record(2, FIRST + 9), record(1, FIRST + 3)]), Context())

    assert failed(answer) == [str(FIRST + 3)]
    assert lines.logs[0]["error"] == "ConnectionRefusedError"
    assert lines.logs[0]["lowest_sequence_number"] == str(FIRST + 3)
    assert lines.logs[0]["highest_sequence_number"] == str(FIRST + 9)
    mirror.close()


def test_a_dict_and_bytes_give_the_same(
    mirror: Mirror, real_client: redis.Redis, lines: Lines
) -> None:
    body = event([record(1, FIRST)])

    assert mirror.lambda_handler(body) == mirror.lambda_handler(json.loads(body))
    assert [line.get("RawEvent", 0) for line in lines.metrics] == [1, 0]
    assert [line["Applied"] for line in lines.metrics] == [1, 1]


def test_a_batch_without_records_is_a_success_and_sends_nothing(
    mirror: Mirror, lines: Lines
) -> None:
    assert mirror.lambda_handler({"Records": []}, Context()) == {"batchItemFailures": []}
    assert lines.all == []


async def test_a_notebook_with_its_own_loop_can_call_the_handler(
    mirror: Mirror, real_client: redis.Redis
) -> None:
    assert asyncio.get_running_loop().is_running()
    assert mirror.lambda_handler(event([record(1, FIRST)])) == {"batchItemFailures": []}
    assert real_client.get("Players:1") is not None


def test_the_users_own_key_and_transform_are_used(
    real_server: ServerProcess, real_client: redis.Redis, lines: Lines
) -> None:
    mirror = Mirror(
        Config(redis_url=real_server.url),
        key=lambda keys: f"p/{keys['Number']['N']}",
        transform=lambda item: {"n": item["Number"]} if item["Number"] != 2 else None,
        emit=lines,
    )
    real_client.set("p/2", b"before")

    mirror.lambda_handler(event([record(1, FIRST), record(2, FIRST + 1)]))

    assert real_client.get("p/1") == b'{"n":1}'
    assert real_client.get("p/2") is None  # None leaves the item out: a removal with its version
    assert real_client.exists("{p/2}!f")
    mirror.close()


def test_the_entry_point_reads_the_environment_and_says_how_it_keeps_the_copy(
    real_server: ServerProcess, real_client: redis.Redis
) -> None:
    """The import is the cold start, in a new process as Lambda's."""
    program = (
        "import json, sys; from asyncsync.handler import lambda_handler; "
        "print(json.dumps(lambda_handler(json.load(sys.stdin), None)))"
    )
    env = {"ASYNCSYNC_REDIS_URL": real_server.url, "ASYNCSYNC_METRICS": "off"}

    done = subprocess.run(
        [sys.executable, "-c", program],
        input=event([record(7, FIRST)]),
        env={**os.environ, **env},
        capture_output=True,
        check=True,
    )

    cold_start, answer = map(json.loads, done.stdout.splitlines())
    assert answer == {"batchItemFailures": []}
    assert cold_start["event"] == "cold_start"
    # RFC 3339, as Lambda wants it beside a level; it takes any other line for INFO.
    assert datetime.fromisoformat(cold_start["timestamp"]).tzinfo is not None
    assert cold_start["server"] == {
        "address": f"127.0.0.1:{real_server.port}",
        "tls": False,
        "cluster": False,
    }
    assert real_client.get("Players:7") is not None


def test_authorities_are_read_at_cold_start() -> None:
    """They take 40 ms of processor in INIT, but half a second in a function of 128 MB."""
    program = (
        "import asyncsync.handler; from asyncsync.connection import tls_context; "
        "print(tls_context.cache_info().currsize)"
    )
    env = {**os.environ, "ASYNCSYNC_REDIS_URL": "rediss://127.0.0.1:1"}

    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True
    )

    assert done.stdout.splitlines()[-1] == "1"


def test_authorities_that_cannot_be_read_fail_the_batch_not_the_cold_start(lines: Lines) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"rediss://127.0.0.1:{listening.getsockname()[1]}"
        mirror = Mirror(Config(redis_url=url, redis_ca_file="absent.pem"), emit=lines)

        answer = mirror.lambda_handler(event([record(1, FIRST)]), Context())

    assert failed(answer) == [str(FIRST)]
    assert lines.logs[0]["error"] == "FileNotFoundError"


@pytest.mark.parametrize(
    ("env", "arguments", "said"),
    [
        ({"ASYNCSYNC_REDIS_URL": "redis://h", "ASYNCSYNC_MOD": "mirror"}, [], "ASYNCSYNC_MODE?"),
        ({}, [], "ASYNCSYNC_REDIS_URL is not set"),
        ({"ASYNCSYNC_REDIS_URL": "redis://h"}, ["-O"], "PYTHONOPTIMIZE"),
    ],
)
def test_a_wrong_start_is_refused_by_one_line(
    env: dict[str, str], arguments: list[str], said: str
) -> None:
    done = subprocess.run(
        [sys.executable, *arguments, "-c", "import asyncsync.handler"],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert said in done.stderr.splitlines()[-1]
    assert done.stderr.splitlines()[-1].startswith("asyncsync.errors.ConfigError: ")


def _connections(client: redis.Redis) -> int:
    return int(client.info("clients")["connected_clients"])
