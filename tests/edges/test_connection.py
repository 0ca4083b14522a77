"""Connecting: TCP, unix socket, TLS, passwords, databases, and servers that are not Redis."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import redis

from asyncsync import Config, Mirror, StoreRefused
from asyncsync.lab.proxy import proxy_to
from asyncsync.lab.servers import ServerProcess, free_port, redis_process
from tests.support.events import FIRST, event, failed, record
from tests.support.history import MIRRORS
from tests.support.tls import tls_options

SECRET = "hush-hush"


@pytest.fixture(autouse=True, params=MIRRORS.values(), ids=list(MIRRORS))
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test in both ways: as Lambda calls a mirror, and on the caller's event loop."""
    monkeypatch.setattr(Run, "made", request.param)


class Run:
    """Handle one event with the given settings and keep the printed lines."""

    made: type[Mirror] = Mirror

    def __init__(self, url: str, **options: Any) -> None:
        self.printed: list[dict[str, Any]] = []
        self.mirror = self.made(
            Config(redis_url=url, timeout_ms=1_000, **options),
            emit=lambda line: self.printed.append(json.loads(line)),
        )

    async def __call__(self, *records: dict[str, Any]) -> list[str]:
        try:
            return failed(await self.mirror.handle(event(records or [record(1, FIRST)]), None))
        finally:
            self.mirror.close()
            await asyncio.sleep(0)

    @property
    def error(self) -> str:
        return str(self.printed[-1]["error"])


async def test_a_unix_socket_works_and_its_database_is_chosen(
    real_server: ServerProcess, tmp_path: Path
) -> None:
    path = tmp_path / "redis.sock"
    with (
        redis_process(real_server.name, "--unixsocket", str(path)) as server,
        redis.Redis(port=server.port, db=3) as client,
    ):
        assert await Run(f"unix://{path}?db=3")() == []
        assert client.get("Players:1") is not None


async def test_tls_with_a_private_ca_works_and_a_strangers_is_refused(
    real_server: ServerProcess, authority: Path
) -> None:
    port = free_port()
    with (
        redis_process(real_server.name, *tls_options(authority, port, real_server.name)) as server,
        redis.Redis(port=server.port) as client,
    ):
        trusting = Run(f"rediss://localhost:{port}", redis_ca_file=str(authority / "ca.crt"))
        assert await trusting() == [], trusting.printed
        assert client.get("Players:1") is not None

        stranger = Run(f"rediss://localhost:{port}")
        assert await stranger() == [str(FIRST)]
        assert stranger.error == ssl.SSLCertVerificationError.__name__

        wrong_name = Run(f"rediss://127.0.0.1:{port}", redis_ca_file=str(authority / "ca.crt"))
        assert await wrong_name() == [str(FIRST)]
        assert wrong_name.error == ssl.SSLCertVerificationError.__name__


@pytest.fixture
async def locked(real_server: ServerProcess) -> AsyncIterator[ServerProcess]:
    """A server with a password, and an ACL user beside the default one."""
    acl = ["--user", "mirror", "on", f">{SECRET}", "~*", "+@all", "--requirepass", SECRET]
    with redis_process(real_server.name, *acl) as server:
        yield server


async def test_a_password_signs_in_alone_or_with_a_user(locked: ServerProcess) -> None:
    address = f"{locked.host}:{locked.port}"
    with redis.Redis(port=locked.port, password=SECRET, db=2) as client:
        assert await Run(f"redis://:{SECRET}@{address}/2")(record(1, FIRST)) == []
        assert await Run(f"redis://mirror:{SECRET}@{address}/2")(record(2, FIRST)) == []
        separate = Run(f"redis://mirror@{address}/2", redis_password=SECRET)
        assert await separate(record(3, FIRST)) == []
        assert all(client.get(f"Players:{at}") for at in (1, 2, 3))


async def test_a_refused_password_raises_and_is_never_shown(locked: ServerProcess) -> None:
    address = f"{locked.host}:{locked.port}"
    with pytest.raises(StoreRefused, match="user 'mirror' the command AUTH: WRONGPASS") as caught:
        await Run(f"redis://mirror:not-{SECRET}@{address}")()
    assert "hush" not in str(caught.value)

    with pytest.raises(StoreRefused, match=r"user 'default' the command EVALSHA .*: NOAUTH"):
        await Run(f"redis://{address}")()


async def test_a_password_that_the_server_does_not_want_raises(real_server: ServerProcess) -> None:
    with pytest.raises(StoreRefused, match="user 'default' the command AUTH"):
        await Run(f"redis://:{SECRET}@{real_server.host}:{real_server.port}")()


async def test_a_database_that_is_not_there_fails_and_nothing_is_written_elsewhere(
    real_server: ServerProcess, real_client: redis.Redis
) -> None:
    run = Run(f"{real_server.url}/4711")

    assert await run() == [str(FIRST)]
    assert run.error == "DB index is out of range"
    assert real_client.dbsize() == 0


async def test_a_server_that_is_not_redis_fails_the_batch_and_says_so() -> None:
    """An HTTP server listens on the port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1_000)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        run = Run(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}")

        assert await run(record(2, FIRST + 5), record(1, FIRST)) == [str(FIRST)]

    assert run.error == "ProtocolError"
    assert run.printed[-1]["reason"] == "the server does not speak Redis's protocol"


@pytest.mark.parametrize("allowed", [0, 1, 5, 40, 1_000, 20_000])
async def test_a_request_cut_at_any_byte_is_reported_and_written_when_sent_again(
    real_server: ServerProcess, real_client: redis.Redis, allowed: int
) -> None:
    """A new connection that breaks is not retried: Lambda's retry is the second try."""
    records = [record(at, FIRST + at) for at in range(300)]
    async with proxy_to(real_server.host, real_server.port) as proxy:
        proxy.cut_after_request_bytes = allowed

        assert await Run(f"redis://127.0.0.1:{proxy.port}")(*records) == [str(FIRST)]

        proxy.cut_after_request_bytes = None
        assert await Run(f"redis://127.0.0.1:{proxy.port}")(*records) == []
        assert real_client.dbsize() == 600


@pytest.mark.parametrize("allowed", [0, 1, 4, 500, 900])
async def test_a_reply_cut_at_any_byte_leaves_only_what_it_confirmed_acknowledged(
    real_server: ServerProcess, real_client: redis.Redis, allowed: int
) -> None:
    """Three calls of 180, 180 and 40 keys; the reply to each is a few bytes a key."""
    warm = Run(real_server.url)
    await warm(record(1_000, FIRST))
    records = [record(at, FIRST + at) for at in range(400)]
    async with proxy_to(real_server.host, real_server.port) as proxy:
        proxy.cut_after_reply_bytes = allowed

        lowest = await Run(f"redis://127.0.0.1:{proxy.port}")(*records)

    assert lowest == [str(FIRST + (180 if allowed > 4 * 180 else 0))]
    assert real_client.dbsize() == 802  # all were written: the fence keeps the retry in order


async def test_an_item_of_400_kb_is_written_whole(
    real_server: ServerProcess, real_client: redis.Redis
) -> None:
    big = "ä" * 200_000  # 400,000 bytes

    assert await Run(real_server.url)(record(1, FIRST, image={"Big": {"S": big}})) == []

    value = real_client.get("Players:1")
    assert isinstance(value, bytes)
    assert json.loads(value) == {"Big": big}
