"""The command line as a person has it: on a terminal, interrupted, with a profile."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from asyncsync.aws.clients import AwsFailed
from asyncsync.aws.credentials import session_credentials
from asyncsync.iam import AwsCredentials
from asyncsync.lab.servers import ServerProcess


def on_a_terminal(*words: str, **env: str) -> str:
    """Run a command whose stdout is a terminal; return what it shows."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "asyncsync", *words],
        stdout=theirs,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TERM": "xterm", **env},
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


@pytest.mark.parametrize(
    ("env", "has_colour"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_colour_goes_to_a_terminal_unless_it_is_not_wanted(
    fake_server: ServerProcess, env: dict[str, str], has_colour: bool
) -> None:
    shown = on_a_terminal("check", "--redis-url", fake_server.url, **env)

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
