"""The command line as a person has it: on a terminal, interrupted, with a profile."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest
import redis

from asyncsync.aws.clients import AwsClients, AwsFailed
from asyncsync.aws.credentials import session_credentials
from asyncsync.iam import AwsCredentials
from asyncsync.lab.servers import ServerProcess
from tests.support.tables import load, make_table, numbered


def on_a_terminal(
    *words: str, columns: int = 80, errors: bool = False, env: Mapping[str, str] | None = None
) -> str:
    """Run a command on a terminal; return what it shows, with `errors` on stderr, too."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    inherited = {name: text for name, text in os.environ.items() if name != "COLUMNS"}
    with subprocess.Popen(
        [sys.executable, "-m", "asyncsync", *words],
        stdout=theirs,
        stderr=theirs if errors else subprocess.DEVNULL,
        env={**inherited, "TERM": "xterm", **(env or {})},
    ) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                more = os.read(ours, 65_536)
            except OSError:  # the other end is closed
                break
            if not more:
                break
            shown += more
        process.wait(20)
    os.close(ours)
    return shown.decode()


@pytest.mark.parametrize("columns", [120, 50])
async def test_progress_is_one_line_of_the_terminals_width_which_answers_replace(
    clients: AwsClients,
    endpoint: str,
    fake_server: ServerProcess,
    fake_client: redis.Redis,
    columns: int,
) -> None:
    await shown_slowly(clients, fake_client)
    words = ["audit", "--table", "Players", "--endpoint-url", endpoint, "--redis-url"]
    words += [fake_server.url, "--recheck-after", "2.5"]

    shown = await anyio.to_thread.run_sync(
        lambda: on_a_terminal(*words, columns=columns, errors=True)
    )

    head, *updates = shown.split("\r\x1b[K")
    assert head.startswith("table arn:aws:dynamodb:")
    progress = [each for each in updates if re.match(r"(\[[#-]{20}\])? +[0-9.]+ s  ", each)]
    assert len(progress) >= 2
    assert all("\n" not in each and len(each) < columns for each in progress)
    assert any("30 keys, " in each for each in progress)
    answers = "".join(each for each in updates if each not in progress)
    assert answers.splitlines()[0] == "missing  Players:7"
    assert "29 of 30 keys are the same in table and copy" in answers
    assert shown.endswith("\n")


async def test_quiet_shows_a_terminal_answers_only(
    clients: AwsClients, endpoint: str, fake_server: ServerProcess, fake_client: redis.Redis
) -> None:
    await shown_slowly(clients, fake_client)
    words = ["audit", "--table", "Players", "--endpoint-url", endpoint, "--redis-url"]
    words += [fake_server.url, "--recheck-after", "2.5", "--quiet"]

    shown = await anyio.to_thread.run_sync(lambda: on_a_terminal(*words, errors=True))

    assert shown.startswith("missing  Players:7\r\n29 of 30 keys are the same")
    assert "\x1b" not in shown


async def shown_slowly(clients: AwsClients, client: redis.Redis) -> None:
    """Make a table and a copy with one difference, which an audit checks again later."""
    if "Players" not in (await clients.items.list_tables())["TableNames"]:
        await make_table(clients, "Players")
        await load(clients, "Players", numbered(30))
    for number in range(1, 31):
        client.set(f"Players:{number}", f'{{"Number":{number},"Name":"item {number}"}}')
    client.delete("Players:7")


@pytest.mark.parametrize(
    ("env", "has_colour"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_colour_goes_to_a_terminal_unless_it_is_not_wanted(
    fake_server: ServerProcess, env: dict[str, str], has_colour: bool
) -> None:
    shown = on_a_terminal("check", "--redis-url", fake_server.url, env=env)

    assert ("\x1b[32mok" in shown) == has_colour
    assert "answers, signed in as default" in shown


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_the_simulator_ends_at_once_when_it_is_interrupted(jobs: str) -> None:
    """C21: it went on for 11 s."""
    command = [sys.executable, "-m", "asyncsync", "simulate", "--seeds", "1000000", "--jobs", jobs]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        assert "simulate, seeds 0 to 999,999" in process.stderr.readline()
        time.sleep(3)
        began_s = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        out, errors = process.communicate(timeout=20)
        took_s = time.monotonic() - began_s

    assert took_s < 2
    assert (process.returncode, out) == (130, "")
    assert errors == "asyncsync: interrupted\n"


@pytest.fixture
def profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config").write_text("[profile there]\nregion = eu-west-1\n[profile bare]\n")
    (tmp_path / "credentials").write_text(
        "[there]\naws_access_key_id = AKIATHERE\naws_secret_access_key = hush\n"
        "aws_session_token = token\n"
        "[bare]\naws_access_key_id = AKIABARE\naws_secret_access_key = hush\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)


ENV = {"AWS_ACCESS_KEY_ID": "AKIAENV", "AWS_SECRET_ACCESS_KEY": "hush"}


@pytest.mark.parametrize(
    ("env", "options", "key", "region"),
    [
        (ENV | {"AWS_REGION": "eu-west-2"}, {}, "AKIAENV", "eu-west-2"),
        (ENV | {"AWS_DEFAULT_REGION": "eu-west-3"}, {}, "AKIAENV", "eu-west-3"),
        (ENV, {"region": "eu-north-1"}, "AKIAENV", "eu-north-1"),
        ({"AWS_PROFILE": "there"}, {}, "AKIATHERE", "eu-west-1"),
        (ENV | {"AWS_REGION": "eu-west-2"}, {"profile": "there"}, "AKIATHERE", "eu-west-2"),
        ({}, {"profile": "there", "region": "eu-north-1"}, "AKIATHERE", "eu-north-1"),
    ],
)
def test_sign_in_to_redis_takes_the_sessions_credentials(
    profiles: None,
    monkeypatch: pytest.MonkeyPatch,
    env: dict[str, str],
    options: dict[str, Any],
    key: str,
    region: str,
) -> None:
    """C3: "not set: AWS_ACCESS_KEY_ID" with a profile or SSO."""
    for name, text in env.items():
        monkeypatch.setenv(name, text)

    by: AwsCredentials = session_credentials(env, **options)()

    assert (by.access_key_id, by.region) == (key, region)
    assert by.session_token == ("token" if key == "AKIATHERE" else "")
    assert "hush" not in repr(by)


@pytest.mark.parametrize(
    ("env", "options", "message"),
    [
        ({"AWS_REGION": "eu-west-1"}, {}, "there are none: sign in to AWS, or pass --profile"),
        ({}, {"profile": "bare"}, "no AWS Region is set"),
        (ENV, {}, "no AWS Region is set"),
    ],
)
def test_a_session_that_cannot_sign_says_what_to_do(
    profiles: None,
    monkeypatch: pytest.MonkeyPatch,
    env: dict[str, str],
    options: dict[str, Any],
    message: str,
) -> None:
    for name, text in env.items():
        monkeypatch.setenv(name, text)

    with pytest.raises(AwsFailed, match=message):
        session_credentials(env, **options)()
