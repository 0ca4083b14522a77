"""What a real server says to a user it does not want, and when it is not the primary any more."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis

from asyncsync import Config, Mirror, StoreRefused
from asyncsync.connection import ReplyError
from asyncsync.lab.servers import ServerProcess, redis_process
from tests.support.events import FIRST, event, failed, record
from tests.support.history import MIRRORS

SECRET = "hush-hush"
NAME = "cache.example"

# 1: below every limit before sign-in; 2: past ten arguments; 1,000: closed while it is sent.
SIZES = (1, 2, 100, 1_000)


@pytest.fixture(autouse=True, params=MIRRORS.values(), ids=list(MIRRORS))
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test in both ways: as Lambda calls a mirror, and on the caller's event loop."""
    monkeypatch.setattr(Run, "made", request.param)


class Run:
    """A mirror and the lines that it printed."""

    made: type[Mirror] = Mirror

    def __init__(self, url: str, **options: Any) -> None:
        self.printed: list[dict[str, Any]] = []
        self.mirror = self.made(
            Config(redis_url=url, timeout_ms=5_000, metrics="off", **options),
            emit=lambda line: self.printed.append(json.loads(line)),
        )

    async def __call__(self, records: int = 1, name_bytes: int = 10) -> list[str]:
        image = {"Name": {"S": "x" * name_bytes}}
        batch = [record(at, FIRST + at, image=image) for at in range(records)]
        return failed(await self.mirror.handle(event(batch), None))


@asynccontextmanager
async def running(url: str, **options: Any) -> AsyncIterator[Run]:
    run = Run(url, **options)
    try:
        yield run
    finally:
        run.mirror.close()
        await asyncio.sleep(0)


# --- signing in ---------------------------------------------------------------------------------


@pytest.fixture
def locked(real_server: ServerProcess) -> Iterator[ServerProcess]:
    """Run a server with a password, and ACL users each of whom lacks something."""
    users: dict[str, str] = {
        "mirror": "on ~* +@all",
        "disabled": "off ~* +@all",
        "no-script": "on ~* +@all -evalsha -eval",
        "no-set": "on ~* +@all -set",
        "no-mget": "on ~* +@all -mget",
        "other-keys": "on ~Teams:* +@all",
        "nothing": "on",
    }
    options = [["--user", name, f">{SECRET}", *rules.split()] for name, rules in users.items()]
    words = [word for option in options for word in option]
    with redis_process(real_server.name, *words, "--requirepass", SECRET) as server:
        yield server


@pytest.mark.parametrize("name_bytes", [10, 20_000])
@pytest.mark.parametrize("records", SIZES)
@pytest.mark.parametrize("user", ["", "mirror@"])
async def test_a_missing_password_raises_whatever_the_batch(
    locked: ServerProcess, user: str, records: int, name_bytes: int
) -> None:
    name = user.removesuffix("@") or "default"
    async with running(f"redis://{user}{locked.host}:{locked.port}") as run:
        for _ in range(2):
            with pytest.raises(
                StoreRefused,
                match=rf"{locked.port} refused user '{name}' the command EVALSHA .*: "
                "(NOAUTH|Protocol error: unauthenticated (multi)?bulk length); see ASYNCSYNC_RED",
            ):
                await run(records, name_bytes)
    assert run.printed == []


@pytest.mark.parametrize("records", SIZES)
async def test_a_missing_password_raises_without_the_fence(
    locked: ServerProcess, records: int
) -> None:
    async with running(f"redis://{locked.host}:{locked.port}", fence="off") as run:
        with pytest.raises(StoreRefused, match="user 'default' the command SET: "):
            await run(records, 20_000)


@pytest.mark.parametrize("records", SIZES)
@pytest.mark.parametrize(
    ("user", "says"),
    [
        ("disabled", "AUTH: WRONGPASS"),
        ("unknown", "AUTH: WRONGPASS"),
        ("no-script", "EVALSHA .*: NOPERM"),
        ("no-set", "EVALSHA .*: (NOPERM|ACL failure|The user executing the script can't run)"),
        ("no-mget", "EVALSHA .*: (NOPERM|ACL failure|The user executing the script can't run)"),
        ("other-keys", "EVALSHA .*: (NOPERM|ACL failure|The user executing the script can't acc)"),
        ("nothing", "EVALSHA .*: NOPERM"),
    ],
)
async def test_a_user_who_may_not_raises_by_name(
    locked: ServerProcess, user: str, says: str, records: int
) -> None:
    async with running(f"redis://{user}:{SECRET}@{locked.host}:{locked.port}") as run:
        with pytest.raises(StoreRefused, match=f"user '{user}' the command {says}") as refused:
            await run(records)

    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("records", SIZES)
async def test_a_wrong_password_raises_and_is_never_shown(
    locked: ServerProcess, records: int
) -> None:
    for user in ("", "mirror"):
        url = f"redis://{user}:wrong-{SECRET}@{locked.host}:{locked.port}"
        async with running(url) as run:
            with pytest.raises(StoreRefused, match="the command AUTH: WRONGPASS") as refused:
                await run(records)
        assert "hush" not in str(refused.value)


async def test_a_user_deleted_while_connected_raises(locked: ServerProcess) -> None:
    with redis.Redis(port=locked.port, password=SECRET) as client:
        async with running(f"redis://mirror:{SECRET}@{locked.host}:{locked.port}") as run:
            assert await run() == []
            client.acl_deluser("mirror")

            with pytest.raises(StoreRefused, match="user 'mirror' the command AUTH: WRONGPASS"):
                await run(1_000, 20_000)


async def test_a_password_that_is_not_wanted_raises(real_server: ServerProcess) -> None:
    async with running(f"redis://:{SECRET}@{real_server.host}:{real_server.port}") as run:
        with pytest.raises(StoreRefused, match="the command AUTH: AUTH <password> called"):
            await run(2)


# --- a mere ERR ---------------------------------------------------------------------------------


@pytest.mark.parametrize("records", SIZES)
async def test_too_many_clients_are_named(real_server: ServerProcess, records: int) -> None:
    with (
        redis_process(real_server.name, "--maxclients", "1") as server,
        redis.Redis(port=server.port) as client,
    ):
        client.ping()
        async with running(server.url) as run:
            assert await run(records, 20_000) == [str(FIRST)]

    assert run.printed[-1]["error"] == "max number of clients reached"
    assert run.printed[-1]["reason"] == "refused by the server"


async def test_an_unknown_command_is_named_without_its_arguments(
    real_server: ServerProcess,
) -> None:
    with redis_process(real_server.name, "--rename-command", "EVALSHA", "") as server:
        async with running(server.url) as run:
            assert await run(2) == [str(FIRST)]

    assert run.printed[-1]["error"].replace("`", "'") == "unknown command 'EVALSHA'"
    assert "Players" not in str(run.printed[-1]["error"])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("ERR max number of clients reached", "max number of clients reached"),
        (
            "ERR unknown command 'EVALSHA', with args beginning with: 'f1' '2' 'Players:1' ",
            "unknown command 'EVALSHA'",
        ),
        ("ERR unknown command `GET`, with args beginning with: `k`, ", "unknown command `GET`"),
        ("ERR invalid expire time in 'set' command", "invalid expire time in 'set' command"),
        ("ERR bad key 'a secret' here", "bad key ... here"),
        ("ERR bad key Players:1 here", "bad key ... here"),
        ("ERR bad value {1} here", "bad value ... here"),
        ("ERR " + "x" * 500, "x" * 200),
        ("ERR", "refused by the server"),
        ("OOM command not allowed when used memory > 'maxmemory'.", "refused by the server"),
        ("MISCONF Errors writing to the AOF file: Players:1", "refused by the server"),
    ],
)
def test_a_reason_holds_what_the_server_said_and_no_argument(text: str, reason: str) -> None:
    assert ReplyError(text).reason([b"2", b"Players:1", b"{1}"]) == reason


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("OOM command not allowed", "OOM command not allowed"),
        ("-OOM command not allowed", "OOM command not allowed"),
        ("@user_script: 28: -READONLY You can't write", "READONLY You can't write"),
        ("@user_script:28: READONLY You can't write", "READONLY You can't write"),
        ("@user_script: 3: The user may not", "ERR The user may not"),
        ("ERR syntax error", "ERR syntax error"),
    ],
)
def test_an_error_in_a_script_is_read_as_every_server_writes_it(text: str, error: str) -> None:
    assert str(ReplyError.in_script(text)) == error


# --- the name moves -----------------------------------------------------------------------------


class Resolver:
    """A name that leads to one server, and later to another."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.port = 0
        self.lookups = 0
        self._resolve = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self.resolve)

    def resolve(self, host: Any, port: Any, *arguments: Any, **options: Any) -> Any:
        if host != NAME:
            return self._resolve(host, port, *arguments, **options)
        self.lookups += 1
        return self._resolve("127.0.0.1", self.port, *arguments, **options)


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Resolver:
    return Resolver(monkeypatch)


def wait_until(is_true: Callable[[], bool]) -> None:
    give_up_s = time.monotonic() + 10
    while not is_true():
        assert time.monotonic() < give_up_s
        time.sleep(0.05)


async def test_the_name_is_looked_up_again_after_the_primary_became_a_replica(
    real_server: ServerProcess, resolver: Resolver
) -> None:
    """A failover in which the old primary stays up: its connection never breaks."""
    with (
        redis_process(real_server.name) as old,
        redis_process(real_server.name, "--replicaof", old.host, str(old.port)) as new,
        redis.Redis(port=old.port) as old_client,
        redis.Redis(port=new.port) as new_client,
    ):
        wait_until(lambda: new_client.info("replication")["master_link_status"] == "up")
        resolver.port = old.port
        async with running(f"redis://{NAME}") as run:
            assert await run(3) == []
            assert resolver.lookups == 1

            new_client.replicaof("NO", "ONE")
            old_client.replicaof(new.host, new.port)
            resolver.port = new.port
            assert await run(3) == [str(FIRST)]
            assert run.printed[-1]["error"] in ("READONLY", "MASTERDOWN", "LOADING")

            assert await run(3) == []
            assert await run(3) == []
            assert resolver.lookups == 2
        assert new_client.dbsize() == 6


async def test_the_name_is_looked_up_again_after_a_replica_without_its_primary(
    real_server: ServerProcess, resolver: Resolver
) -> None:
    stale = ["--replicaof", "127.0.0.1", "1", "--replica-serve-stale-data", "no"]
    with (
        redis_process(real_server.name, *stale) as old,
        redis_process(real_server.name) as new,
    ):
        resolver.port = old.port
        async with running(f"redis://{NAME}") as run:
            assert await run() == [str(FIRST)]
            assert run.printed[-1]["error"] == "MASTERDOWN"

            resolver.port = new.port
            assert await run() == []


async def test_a_server_without_memory_keeps_its_connection(
    real_server: ServerProcess, resolver: Resolver
) -> None:
    with redis_process(real_server.name, "--maxmemory", "1") as server:
        resolver.port = server.port
        async with running(f"redis://{NAME}") as run:
            for _ in range(3):
                assert await run() == [str(FIRST)]
                assert run.printed[-1]["error"] == "OOM"
            assert resolver.lookups == 1
