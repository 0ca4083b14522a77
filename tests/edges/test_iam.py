"""ElastiCache IAM: every new connection gets a valid token, signed as botocore signs it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import quote

import pytest
import redis
from botocore.credentials import Credentials as BotoCredentials
from botocore.hooks import HierarchicalEmitter
from botocore.model import ServiceId
from botocore.signers import RequestSigner
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from asyncsync import Config, ConfigError, Mirror, StoreRefused
from asyncsync.cli.main import main
from asyncsync.config import Server, parse_url
from asyncsync.connection import Password
from asyncsync.iam import AwsCredentials, is_serverless, sign_token, token_password
from asyncsync.lab.servers import ServerProcess, free_port, redis_process
from asyncsync.limits import IAM_TOKEN_AGE_S_MAX, IAM_TOKEN_S
from tests.support.context import Context
from tests.support.events import FIRST, event, failed, record
from tests.support.tls import tls_options

NOW_S = 1_767_225_600.0  # 2026-01-01
TWELVE_HOURS_S = 12 * 3_600.0

ROLE = AwsCredentials(
    access_key_id="ASIAEXAMPLE",
    secret_access_key="hush/key+of=40",
    session_token="hush/IQoJ+b3=//x==",
    region="eu-central-1",
)
NODE_URL = "rediss://mirror@master.players.abc123.euc1.cache.amazonaws.com:6379"
NODE = parse_url(NODE_URL)
SERVERLESS = parse_url("rediss://mirror@players-abc123.serverless.euc1.cache.amazonaws.com")
MEMORYDB = parse_url("rediss://mirror@clustercfg.players.abc123.memorydb.us-east-1.amazonaws.com")
PLAYERS = Config(redis_url=NODE_URL, redis_iam_cache="players")


_EMITTER = HierarchicalEmitter()  # a signer keeps only a weak reference


def botocore_token(cache: str, server: Server, by: AwsCredentials, now_s: float) -> str:
    """Sign with AWS's own signer at a fixed time."""
    service = "memorydb" if ".memorydb." in server.host else "elasticache"
    signer = RequestSigner(
        ServiceId(service),
        by.region,
        service,
        "v4",
        BotoCredentials(by.access_key_id, by.secret_access_key, by.session_token or None),
        _EMITTER,
    )
    query = f"Action=connect&User={quote(server.username, safe='')}"
    if ".serverless." in server.host:
        query += "&ResourceType=ServerlessCache"
    request: dict[str, Any] = {
        "method": "GET",
        "url": f"https://{cache.lower()}/?{query}",
        "body": {},
        "headers": {},
        "context": {},
    }
    moment = datetime.fromtimestamp(now_s, UTC)
    with patch("botocore.auth.get_current_datetime", lambda: moment):
        url: str = signer.generate_presigned_url(
            request, operation_name="connect", expires_in=900, region_name=by.region
        )
    return url.removeprefix("https://")


# --- signing ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cache", "server", "by", "now_s"),
    [
        ("players", NODE, ROLE, NOW_S),
        ("players", SERVERLESS, ROLE, NOW_S),
        ("Players-2", NODE, ROLE, NOW_S + 0.999),
        ("players", NODE, replace(ROLE, session_token=""), NOW_S - 1),
        ("players", replace(NODE, username="a+b &=%/ü~-._"), ROLE, NOW_S),
        ("players", SERVERLESS, replace(ROLE, region="cn-north-1"), 4_102_444_799.0),
        ("players", MEMORYDB, ROLE, NOW_S),
        ("players", replace(MEMORYDB, host=f"{MEMORYDB.host}.cn"), ROLE, NOW_S),
    ],
    ids=[
        *("node", "serverless", "name in capitals", "no session", "escapes", "year 2099"),
        *("MemoryDB", "MemoryDB in China"),
    ],
)
def test_a_token_is_the_one_botocore_signs(
    cache: str, server: Server, by: AwsCredentials, now_s: float
) -> None:
    token = sign_token(cache, server, by, now_s)

    assert token == botocore_token(cache, server, by, now_s)
    assert token.startswith(f"{cache.lower()}/?Action=connect&User=")
    assert "&X-Amz-Expires=900&" in token


TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=40)


@settings(max_examples=200, deadline=None)
@given(
    cache=st.from_regex(r"[A-Za-z][A-Za-z0-9-]{0,39}", fullmatch=True),
    user=TEXTS,
    host=st.sampled_from([NODE.host, SERVERLESS.host]),
    by=st.builds(
        AwsCredentials,
        access_key_id=TEXTS,
        secret_access_key=TEXTS,
        session_token=st.one_of(st.just(""), TEXTS),
        region=st.from_regex(r"[a-z]{2}(-[a-z]{3,9}){1,2}-[0-9]", fullmatch=True),
    ),
    # Eighths of a second: datetime would round anything finer than a microsecond.
    now_s=st.integers(0, 32 * 10**9).map(lambda eighths: eighths / 8),
)
def test_any_token_is_the_one_botocore_signs(
    cache: str, user: str, host: str, by: AwsCredentials, now_s: float
) -> None:
    server = replace(NODE, host=host, username=user)

    assert sign_token(cache, server, by, now_s) == botocore_token(cache, server, by, now_s)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("players-abc123.serverless.euc1.cache.amazonaws.com", True),
        ("players-abc123.serverless.cnn1.cache.amazonaws.com.cn", True),
        ("master.players.abc123.euc1.cache.amazonaws.com", False),
        ("serverless.players.abc123.euc1.cache.amazonaws.com", False),
        ("serverless.euc1.cache.amazonaws.com", False),
        ("players.serverless.euc1.cache.amazonaws.com.example.org", False),
        ("localhost", False),
        ("", False),
    ],
)
def test_serverless_is_told_from_the_host_name(host: str, expected: bool) -> None:
    assert is_serverless(host) is expected


# --- age --------------------------------------------------------------------------------------


class Hand:
    """A wall clock that the test moves."""

    now_s = NOW_S

    def __call__(self) -> float:
        return self.now_s


def test_three_quarters_of_a_tokens_life_is_its_age_limit() -> None:
    assert (IAM_TOKEN_S, IAM_TOKEN_AGE_S_MAX) == (15 * 60, 15 * 60 * 3 // 4)


@pytest.mark.parametrize(
    ("later_s", "anew"),
    [(0.0, False), (674.999, False), (675.0, True), (TWELVE_HOURS_S, True), (-0.001, True)],
    ids=["at once", "just before three quarters", "at three quarters", "12 h", "clock set back"],
)
def test_a_token_is_kept_until_three_quarters_and_no_longer(later_s: float, anew: bool) -> None:
    clock = Hand()
    signers = [ROLE]
    password = token_password(PLAYERS, lambda: signers[-1], clock)
    first = password()
    assert first == sign_token("players", NODE, ROLE, NOW_S)

    clock.now_s = NOW_S + later_s

    # Tokens signed within one second are equal, so other credentials tell them apart.
    other = replace(ROLE, access_key_id="ASIAOTHER")
    signers.append(other)
    expected = sign_token("players", NODE, other, NOW_S + later_s) if anew else first
    assert password() == expected


def test_the_age_counts_from_the_last_signing() -> None:
    clock = Hand()
    password = token_password(PLAYERS, lambda: ROLE, clock)
    tokens = []
    for now_s in (0, 674, 676, 1_350, 1_352):
        clock.now_s = NOW_S + now_s
        tokens.append(password())

    signed = [re.findall(r"X-Amz-Date=\d+T(\d+)Z", token) for token in tokens]
    assert signed == [["000000"], ["000000"], ["001116"], ["001116"], ["002232"]]


# --- who signs --------------------------------------------------------------------------------

ENV = {
    "AWS_ACCESS_KEY_ID": ROLE.access_key_id,
    "AWS_SECRET_ACCESS_KEY": ROLE.secret_access_key,
    "AWS_SESSION_TOKEN": ROLE.session_token,
    "AWS_REGION": ROLE.region,
}
IAM = Config(redis_url="rediss://mirror@cache.internal", redis_iam_cache="players")


def test_credentials_are_what_lambda_puts_into_the_environment() -> None:
    assert AwsCredentials.from_env(ENV) == ROLE
    without = {name: text for name, text in ENV.items() if name != "AWS_SESSION_TOKEN"}
    assert AwsCredentials.from_env(without) == replace(ROLE, session_token="")


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"])
@pytest.mark.parametrize("how", ["absent", "empty"])
def test_what_is_missing_is_named_in_one_line(name: str, how: str) -> None:
    env = {**ENV, name: ""} if how == "empty" else {k: v for k, v in ENV.items() if k != name}

    with pytest.raises(ConfigError) as refused:
        Mirror(IAM, credentials=lambda: AwsCredentials.from_env(env))

    assert str(refused.value) == f"ASYNCSYNC_REDIS_IAM_CACHE signs in with {name}: not set"


def password_of(mirror: Mirror) -> Password:
    """Return the function that gives a mirror's new connections their password."""
    return mirror._password


def test_a_mirror_with_nobody_to_sign_is_refused_and_told_how() -> None:
    with pytest.raises(ConfigError, match=r"AwsCredentials\.from_env\(os\.environ\)"):
        Mirror(IAM)


def test_without_the_setting_nobody_signs_and_nothing_of_it_is_loaded() -> None:
    def never() -> AwsCredentials:
        raise AssertionError("asked for credentials")

    mirror = Mirror(Config(redis_url="redis://u:p@h"), credentials=never)
    assert password_of(mirror)() == "p"
    program = "import asyncsync.handler, sys; print('asyncsync.iam' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "ASYNCSYNC_REDIS_URL": "redis://h"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "False"


def test_credentials_show_nothing_but_the_region() -> None:
    assert repr(ROLE) == "AwsCredentials(region='eu-central-1')"
    assert f"{ROLE}" == repr(ROLE)


def test_the_entry_point_signs_with_its_environment_and_refuses_an_incomplete_one() -> None:
    settings = {
        "ASYNCSYNC_REDIS_URL": "rediss://mirror@cache.internal",
        "ASYNCSYNC_REDIS_IAM_CACHE": "players",
    }
    bare = {name: text for name, text in os.environ.items() if not name.startswith("AWS_")}

    def start(env: dict[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", "import asyncsync.handler"],
            env={**bare, **settings, **env},
            capture_output=True,
            text=True,
            check=False,
        )

    refused, started = start({}), start(ENV)

    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1] == (
        "asyncsync.errors.ConfigError: ASYNCSYNC_REDIS_IAM_CACHE signs in with "
        "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION: not set"
    )
    assert started.returncode == 0, started.stderr
    assert json.loads(started.stdout)["event"] == "cold_start"
    assert "hush" not in started.stdout


# --- a server whose password is the token -----------------------------------------------------


class Cache:
    """A TLS server that accepts one token, the one AWS would sign now."""

    def __init__(self, client: redis.Redis, port: int, authority: Path) -> None:
        self.client = client
        self.clock = Hand()
        self.printed: list[bytes] = []
        self.config = Config(
            redis_url=f"rediss://mirror@localhost:{port}",
            redis_ca_file=str(authority / "ca.crt"),
            redis_iam_cache="Players",
        )
        self.mirror = Mirror(
            self.config,
            wall_clock=self.clock,
            credentials=lambda: ROLE,
            emit=self.printed.append,
        )

    def wants(self, token: str) -> None:
        self.client.acl_setuser(
            "mirror",
            enabled=True,
            reset=True,
            passwords=[f"+{token}"],
            keys=["*"],
            categories=["+@all"],
        )

    def wants_the_token_of_now(self) -> None:
        self.wants(botocore_token("Players", self.config.server, ROLE, self.clock.now_s))

    def close_every_connection(self) -> None:
        assert self.client.client_kill_filter(_type="normal", skipme=True)

    def write(self, number: int, at: int) -> list[str]:
        return failed(self.mirror.lambda_handler(event([record(number, FIRST + at)]), Context()))


@contextmanager
def cache_of(binary: str, authority: Path) -> Iterator[Cache]:
    port = free_port()
    with (
        redis_process(binary, *tls_options(authority, port, binary)) as server,
        redis.Redis(port=server.port) as client,
    ):
        cache = Cache(client, port, authority)
        yield cache
        cache.mirror.close()


def test_every_new_connection_signs_in_with_a_token_that_is_valid_then(
    real_server: ServerProcess, authority: Path
) -> None:
    """AWS closes a connection after 12 hours and accepts a token for 15 minutes."""
    with cache_of(real_server.name, authority) as cache:
        cache.wants_the_token_of_now()
        assert cache.write(1, 0) == []

        cache.clock.now_s += 600  # closed for another reason: the token is still valid
        cache.close_every_connection()
        assert cache.write(2, 1) == []

        cache.clock.now_s += TWELVE_HOURS_S
        assert cache.write(3, 2) == []  # signed in already: AWS does not check the token again
        cache.wants_the_token_of_now()
        cache.close_every_connection()
        assert cache.write(4, 3) == []

        assert all(cache.client.exists(f"Players:{number}") for number in (1, 2, 3, 4))
        assert not any(b"hush" in line for line in cache.printed)


def test_a_refused_token_raises_and_is_never_shown(
    real_server: ServerProcess, authority: Path
) -> None:
    with cache_of(real_server.name, authority) as cache:
        cache.wants("another token")

        with pytest.raises(StoreRefused, match=r"user 'mirror' the command AUTH: WRONGPASS") as no:
            cache.write(1, 0)

        password = password_of(cache.mirror)
        token = password()
        shown = "\n".join(
            [
                *traceback.format_exception(no.value),
                repr(no.value),
                repr(cache.config),
                repr(password),
                *map(bytes.decode, cache.printed),
            ]
        )
        assert token.startswith("players/?")
        assert "ASYNCSYNC_REDIS_IAM_CACHE" in shown
        for secret in (token, token[-64:], "X-Amz", "hush", ROLE.access_key_id):
            assert secret not in shown


def test_get_signs_in_with_a_token_too(
    real_server: ServerProcess,
    authority: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with cache_of(real_server.name, authority) as cache:
        cache.wants_the_token_of_now()
        cache.write(7, 0)
        at_its_time = partial(Mirror, wall_clock=cache.clock)
        monkeypatch.setattr("asyncsync.tools.mirrors.Mirror", at_its_time)
        for name, text in ENV.items():
            monkeypatch.setenv(name, text)
        monkeypatch.setenv("ASYNCSYNC_REDIS_URL", cache.config.redis_url)
        monkeypatch.setenv("ASYNCSYNC_REDIS_CA_FILE", str(cache.config.redis_ca_file))
        monkeypatch.setenv("ASYNCSYNC_REDIS_IAM_CACHE", "Players")

        assert main(["get", "Players:7"]) == 0
        assert '"Number":7' in capsys.readouterr().out

        cache.clock.now_s += TWELVE_HOURS_S
        assert main(["get", "Players:7", "--quiet"]) == 3
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert "hush" not in said
        assert "X-Amz" not in said

        monkeypatch.delenv("AWS_REGION")
        assert main(["get", "Players:7"]) == 3
        assert "no AWS Region is set: pass --region" in capsys.readouterr().err
        assert main(["get", "Players:7", "--region", ENV["AWS_REGION"]]) == 3  # a token, too old
