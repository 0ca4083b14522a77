"""Runs the bundle under AWS's Runtime Interface Emulator, on a server with TLS and an ACL.

As in Lambda, the function's folder holds only the bundle, the runtime's folder holds AWS's client,
and the settings are the template's. No server here knows IAM, so the template's user accepts any
password.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis

from asyncsync import Config, Mirror
from asyncsync.lab.servers import ServerProcess, free_port, redis_process
from scripts import bundle
from tests.support.events import FIRST, event, record
from tests.support.servers import SERVERS
from tests.support.template.cache_users import set_user
from tests.support.template.cloudformation import ROOT, TOOLS, Resolver
from tests.support.tls import tls_options

GIVES_UP_S = 30.0
RUNTIME = ("awslambdaric", "simplejson", "snapshot_restore_py.py")
EVENTS = ("sam_generate_event", "every_type")


@dataclass(frozen=True, slots=True)
class Function:
    """The function under the emulator, and a client of the server that it writes to."""

    url: str
    output: Path
    client: redis.Redis

    def invoke(self, payload: bytes) -> Any:
        """Send an event and return the answer."""
        with urllib.request.urlopen(self.url, payload, timeout=GIVES_UP_S) as answer:
            return json.load(answer)

    def printed(self) -> list[dict[str, Any]]:
        """Return the JSON lines that the function has printed."""
        lines = self.output.read_text(errors="replace").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]


@pytest.fixture(scope="module", params=SERVERS)
def function(
    request: pytest.FixtureRequest,
    translated: Any,
    authority: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Function]:
    """Run the bundle's handler as Lambda does, writing to each real server in turn."""
    folder = tmp_path_factory.mktemp("lambda")
    task, runtime = folder / "task", folder / "runtime"
    bundle.build(task)
    runtime.mkdir()
    packages = Path(sysconfig.get_path("purelib"))
    for name in (*RUNTIME, *(path.name for path in packages.glob("runtime_client*.so"))):
        (runtime / name).symlink_to(packages / name)

    resources = Resolver(translated, {"Cache": "node"}, known=True).resources()
    settings = dict(resources["Mirror"]["Properties"]["Environment"]["Variables"])
    user = resources["MirrorUser"]["Properties"]
    tls_port = free_port()
    settings["ASYNCSYNC_REDIS_URL"] = f"rediss://{user['UserName']}@localhost:{tls_port}"
    settings["ASYNCSYNC_REDIS_CA_FILE"] = str(authority / "ca.crt")
    with (
        redis_process(request.param, *tls_options(authority, tls_port, request.param)) as server,
        redis.Redis(host=server.host, port=server.port) as client,
    ):
        set_user(client, user["UserName"], user["AccessString"].split())
        set_user(client, "default", ["on", "+@all", "~*"])
        env = {
            **settings,
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{task}:{runtime}",
            "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "not-a-secret",
            "AWS_SESSION_TOKEN": "not-a-token",
            "AWS_REGION": "us-east-1",
            "AWS_LAMBDA_FUNCTION_TIMEOUT": str(resources["Mirror"]["Properties"]["Timeout"]),
        }
        yield from emulated(folder, env, resources["Mirror"]["Properties"]["Handler"], client)


def emulated(
    folder: Path, env: dict[str, str], handler: str, client: redis.Redis
) -> Iterator[Function]:
    architecture = {"aarch64": "arm64"}.get(platform.machine(), platform.machine())
    (emulator,) = TOOLS.parent.glob(f"lib/*/site-packages/samcli/local/rapid/*-{architecture}")
    port, output = free_port(), folder / "output"
    addresses = ["--runtime-interface-emulator-address", f"127.0.0.1:{port}"]
    addresses += ["--runtime-api-address", f"127.0.0.1:{free_port()}"]
    # -S: no site-packages, because Lambda has nothing but these two folders.
    command = [sys.executable, "-S", "-m", "awslambdaric", handler]
    with output.open("wb") as file:
        process = subprocess.Popen(
            [str(emulator), *addresses, *command],
            cwd=folder / "task",
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # the emulator and what it started end together
        )
        try:
            wait_until_up(port, process)
            url = f"http://127.0.0.1:{port}/2015-03-31/functions/function/invocations"
            yield Function(url, output, client)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_until_up(port: int, process: subprocess.Popen[bytes]) -> None:
    gives_up_s = time.monotonic() + GIVES_UP_S
    while time.monotonic() < gives_up_s and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.01)
    pytest.fail("the emulator did not start")


def held(client: redis.Redis) -> dict[bytes, bytes]:
    return {name: client.get(name) for name in client.scan_iter()}  # type: ignore[misc]


@pytest.mark.parametrize("name", EVENTS)
def test_a_real_event_is_written_as_in_this_process(
    function: Function, fake_server: ServerProcess, name: str
) -> None:
    payload = (ROOT / "tests" / "core" / "events" / f"{name}.json").read_bytes()
    function.client.flushall()
    with redis.Redis(host=fake_server.host, port=fake_server.port) as other:
        other.flushall()
        mirror = Mirror(Config(redis_url=fake_server.url, key="Players:{@key}", metrics="off"))
        answer = mirror.lambda_handler(payload)
        mirror.close()

        assert function.invoke(payload) == answer == {"batchItemFailures": []}
        assert held(function.client) == held(other) != {}


def test_it_comes_as_bytes_over_tls_with_a_token_and_says_so_once(function: Function) -> None:
    function.client.flushall()
    assert function.invoke(event([record(7, FIRST)])) == {"batchItemFailures": []}
    assert function.invoke(event([record(7, FIRST + 1)])) == {"batchItemFailures": []}

    lines = function.printed()
    (cold,) = [line for line in lines if line.get("event") == "cold_start"]
    metrics = [line for line in lines if "_aws" in line]
    assert cold["raw_event"] is True
    assert cold["server"]["tls"] is True
    assert [line.get("ColdStart", 0) for line in metrics] == [1] + [0] * (len(metrics) - 1)
    assert all(line["RawEvent"] == line["Invocations"] for line in metrics)
    assert "X-Amz-Signature" not in function.output.read_text()


def test_a_poisoned_record_is_named_and_its_key_removed(function: Function) -> None:
    function.client.flushall()
    function.invoke(event([record(7, FIRST), record(8, FIRST + 1)]))

    bad = event([record(7, FIRST + 2, image={"a": {"Q": "?"}}), record(8, FIRST + 3)])
    answer = function.invoke(bad)

    assert answer == {"batchItemFailures": [{"itemIdentifier": str(FIRST + 2)}]}
    assert function.client.get("Players:7") is None
    assert function.client.get("Players:8") is not None


def test_what_is_no_stream_event_fails_the_invocation(function: Function) -> None:
    assert function.invoke(b'{"not": "a stream event"}')["errorType"] == "EventError"
