"""The blocking socket: what it sends at once, what later, and that no wait exceeds its time."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from asyncsync import Config, Mirror
from asyncsync.config import Server
from asyncsync.lab.servers import ServerProcess, free_port, redis_process
from asyncsync.transport import SocketTransport, open_socket, run_blocking
from tests.support.context import Context
from tests.support.events import FIRST, event, failed, record
from tests.support.tls import tls_options

# Far more than a socket's buffers take, without repetition.
MUCH = random.Random(4711).randbytes(4_000_000)

TimeLeft = Callable[[], float]


def within(seconds: float) -> TimeLeft:
    until_s = time.monotonic() + seconds
    return lambda: until_s - time.monotonic()


@pytest.fixture
def ends() -> Iterator[tuple[SocketTransport, socket.socket]]:
    """Return a transport and the socket at its other end."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield SocketTransport(ours), theirs


def write(transport: SocketTransport, *pieces: bytes) -> None:
    for piece in pieces:
        run_blocking(transport.write(piece))


@contextmanager
def reading(theirs: socket.socket, count: int, answer: bytes) -> Iterator[list[bytes]]:
    """Read `count` bytes in a thread, then answer."""
    taken: list[bytes] = []

    def take() -> None:
        while sum(map(len, taken)) < count:
            taken.append(theirs.recv(65_536))
        theirs.sendall(answer)

    thread = threading.Thread(target=take)
    thread.start()
    yield taken
    thread.join()


# --- bytes ------------------------------------------------------------------------------------


def test_a_write_waits_for_nobody_and_the_rest_goes_in_order_before_a_reply_is_waited_for(
    ends: tuple[SocketTransport, socket.socket],
) -> None:
    transport, theirs = ends
    pieces = [MUCH[at : at + 70_000] for at in range(0, len(MUCH), 70_000)]

    began_s = time.monotonic()
    write(transport, *pieces)  # nobody reads yet
    assert time.monotonic() - began_s < 5

    with reading(theirs, len(MUCH), b"+OK\r\n") as taken:
        assert run_blocking(transport.read(within(20))) == b"+OK\r\n"
    assert b"".join(taken) == MUCH


def test_what_a_full_socket_kept_back_goes_with_a_later_write(
    ends: tuple[SocketTransport, socket.socket],
) -> None:
    transport, theirs = ends
    write(transport, MUCH)
    theirs.setblocking(False)
    taken = b""
    for at in range(100):
        while True:
            try:
                taken += theirs.recv(1_000_000)
            except BlockingIOError:
                break
        write(transport, b"%d," % at)

    assert taken[: len(MUCH)] == MUCH
    assert b"97,98,".startswith(taken[-6:-3])


def test_the_other_sides_end_is_no_bytes(ends: tuple[SocketTransport, socket.socket]) -> None:
    transport, theirs = ends
    theirs.close()

    assert run_blocking(transport.read(within(20))) == b""
    with pytest.raises(BrokenPipeError):
        write(transport, b"x")


def test_an_abandoned_socket_sends_no_more(ends: tuple[SocketTransport, socket.socket]) -> None:
    transport, theirs = ends
    write(transport, MUCH)
    transport.abort()

    taken = 0
    while received := theirs.recv(1_000_000):
        taken += len(received)
    assert 0 < taken < len(MUCH)


# --- time -------------------------------------------------------------------------------------


@pytest.mark.parametrize("unsent", [b"x", MUCH], ids=["all sent", "unsent"])
@pytest.mark.parametrize("left_s", [0.05, 0.0, -1.0])
def test_a_silent_other_side_is_waited_for_as_long_as_there_is_time(
    ends: tuple[SocketTransport, socket.socket], unsent: bytes, left_s: float
) -> None:
    """The other side neither reads nor answers."""
    transport, _ = ends
    write(transport, unsent)
    began_s = time.monotonic()

    with pytest.raises(TimeoutError):
        run_blocking(transport.read(within(left_s)))

    assert max(left_s, 0) <= time.monotonic() - began_s < 5


def test_the_time_is_one_for_all_that_is_still_to_be_sent_and_the_answer(
    ends: tuple[SocketTransport, socket.socket],
) -> None:
    """The other side reads a little now and then: each wait is short, their sum is not."""
    transport, theirs = ends
    write(transport, MUCH)
    over = threading.Event()

    def nibble() -> None:
        while not over.wait(0.02):
            theirs.recv(100_000)

    thread = threading.Thread(target=nibble)
    thread.start()
    began_s = time.monotonic()
    with pytest.raises(TimeoutError):
        run_blocking(transport.read(within(0.2)))
    took_s = time.monotonic() - began_s
    over.set()
    thread.join()

    assert 0.2 <= took_s < 0.6


# --- opening ----------------------------------------------------------------------------------


def server_of(url: str, **options: Any) -> Server:
    return Config(redis_url=url, **options).server


def test_a_resolver_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [answered.wait(20)])
    began_s = time.monotonic()

    with pytest.raises(TimeoutError):
        run_blocking(open_socket(server_of("redis://cache.example"), within(0.05)))

    assert time.monotonic() - began_s < 5
    answered.set()


def test_a_name_that_is_not_known_fails_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    lines: list[dict[str, Any]] = []
    mirror = Mirror(
        Config(redis_url="redis://cache.example"), emit=lambda line: lines.append(json.loads(line))
    )

    assert failed(mirror.lambda_handler(event([record(1, FIRST)]), Context())) == [str(FIRST)]
    (log,) = [line for line in lines if "error" in line]
    assert (log["error"], log["reason"]) == ("gaierror", "cannot connect")


def test_an_address_that_refuses_is_not_the_last_one_tried(
    real_server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    def address(port: int) -> tuple[Any, ...]:
        return socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)

    closed = free_port()
    found = [address(closed), address(real_server.port)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    transport = run_blocking(open_socket(server_of("redis://cache.example"), within(20)))
    run_blocking(transport.write(b"PING\r\n"))
    assert run_blocking(transport.read(within(20))) == b"+PONG\r\n"
    transport.abort()

    del found[1]
    with pytest.raises(ConnectionRefusedError):
        run_blocking(open_socket(server_of("redis://cache.example"), within(20)))
    found.clear()
    with pytest.raises(OSError, match=r"cache\.example has no address"):
        run_blocking(open_socket(server_of("redis://cache.example"), within(20)))


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_a_server_that_takes_a_connection_and_says_nothing_is_answered_for_in_time(
    scheme: str,
) -> None:
    """A TLS handshake is a wait like any other."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        mirror = Mirror(
            Config(redis_url=f"{scheme}://127.0.0.1:{port}", timeout_ms=100),
            emit=lambda _: None,
        )
        context = Context(10_000)

        assert failed(mirror.lambda_handler(event([record(1, FIRST)]), context)) == [str(FIRST)]
        assert context.get_remaining_time_in_millis() > 5_000


def test_small_requests_are_not_held_back_for_larger_ones(real_server: ServerProcess) -> None:
    transport = run_blocking(open_socket(server_of(real_server.url), within(20)))
    assert isinstance(transport, SocketTransport)

    assert transport._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    transport.abort()


# --- TLS --------------------------------------------------------------------------------------


def test_a_batch_larger_than_any_buffer_arrives_whole_over_tls(
    real_server: ServerProcess, authority: Path
) -> None:
    port = free_port()
    values = {at: hashlib.sha256(b"%d" % at).hexdigest() * 60 for at in range(1_500)}  # 5.7 MB
    records = [record(at, FIRST + at, image={"V": {"S": text}}) for at, text in values.items()]
    with (
        redis_process(real_server.name, *tls_options(authority, port, real_server.name)) as server,
        redis.Redis(port=server.port) as client,
    ):
        config = Config(
            redis_url=f"rediss://localhost:{port}", redis_ca_file=str(authority / "ca.crt")
        )
        mirror = Mirror(config, emit=lambda _: None)
        for _ in range(2):  # once while connecting, once connected
            assert failed(mirror.lambda_handler(event(records), Context(30_000))) == []
            found = client.mget([f"Players:{at}" for at in values])
            assert [json.loads(each)["V"] for each in found] == list(values.values())
            client.flushall()
        mirror.close()


# --- no event loop ----------------------------------------------------------------------------


def test_a_coroutine_that_waits_for_an_event_loop_is_refused() -> None:
    async def returns() -> int:
        return 7

    assert run_blocking(returns()) == 7
    with pytest.raises(RuntimeError, match="waited for an event loop"):
        run_blocking(asyncio.sleep(0))
