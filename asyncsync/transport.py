"""A blocking socket as transport, and how to run a coroutine that waits on nothing else.

Lambda gives a process one event at a time, so there is nothing to do while Redis answers.
Without an event loop a cold start imports two fifths less, and the answer to a small batch
comes sooner (benchmarks/README.md, "Where the time goes").
"""

from __future__ import annotations

import socket
from collections.abc import Coroutine
from contextlib import suppress
from threading import Thread
from typing import Any, TypeVar

from asyncsync.config import Server
from asyncsync.connection import READ_BYTES, TimeLeft, Transport, tls_context

T = TypeVar("T")


def run_blocking(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that waits on blocking sockets only, and so never yields."""
    try:
        work.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    work.close()
    raise RuntimeError("a coroutine over blocking sockets waited for an event loop")


class SocketTransport:
    """A connected socket, or TLS over one."""

    def __init__(
        self, connected: socket.socket, full: tuple[type[OSError], ...] = (BlockingIOError,)
    ) -> None:
        self._socket = connected
        self._full = full  # what a send raises while the socket takes no more
        self._unsent: list[bytes | memoryview] = []

    async def write(self, data: bytes) -> None:
        """Send what the socket takes at once and keep the rest."""
        self._unsent.append(data)
        self._socket.settimeout(0)
        with suppress(*self._full):
            while self._unsent:
                self._send()

    async def read(self, time_left: TimeLeft) -> bytes:
        """Send the rest, then wait for bytes, all within the time left."""
        while self._unsent:
            wait_at_most(self._socket, time_left)
            self._send()
        wait_at_most(self._socket, time_left)
        return self._socket.recv(READ_BYTES)

    def _send(self) -> None:
        data = self._unsent[0]
        sent = self._socket.send(data)
        if sent < len(data):
            self._unsent[0] = memoryview(data)[sent:]
        else:
            del self._unsent[0]

    def abort(self) -> None:
        """Close the socket."""
        self._socket.close()


def wait_at_most(waiting: socket.socket, time_left: TimeLeft) -> None:
    """Let the socket's next call wait for as long as there is time left.

    Raises TimeoutError if there is none: a timeout of 0 would mean not to wait.
    """
    left_s = time_left()
    if left_s <= 0:
        raise TimeoutError
    waiting.settimeout(left_s)


async def open_socket(server: Server, time_left: TimeLeft) -> Transport:
    """Connect over a unix socket, TCP or TLS, to the first address that answers.

    Raises OSError, or TimeoutError when the time is over.
    """
    if server.path:
        return SocketTransport(_connect(socket.AF_UNIX, server.path, time_left))
    error = OSError(f"{server.host} has no address")
    for family, _, _, _, address in _addresses(server, time_left):
        try:
            connected = _connect(family, address, time_left)
        except OSError as exc:
            error = exc
            continue
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return _secure(connected, server, time_left) if server.tls else SocketTransport(connected)
    raise error


def _connect(family: int, address: Any, time_left: TimeLeft) -> socket.socket:
    connecting = socket.socket(family, socket.SOCK_STREAM)
    try:
        wait_at_most(connecting, time_left)
        connecting.connect(address)
    except BaseException:
        connecting.close()
        raise
    return connecting


def _secure(connected: socket.socket, server: Server, time_left: TimeLeft) -> SocketTransport:
    import ssl  # 12 ms that only TLS pays

    try:
        wait_at_most(connected, time_left)  # the whole handshake
        secured = tls_context(server.ca_file).wrap_socket(connected, server_hostname=server.host)
    except BaseException:
        connected.close()
        raise
    return SocketTransport(secured, (ssl.SSLWantReadError, ssl.SSLWantWriteError))


def _addresses(server: Server, time_left: TimeLeft) -> list[Any]:
    """Look a server's name up, in a thread because a resolver has no deadline."""
    results: list[Any] = []

    def look_up() -> None:
        try:
            results.append(socket.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as exc:
            results.append(exc)

    thread = Thread(target=look_up, daemon=True)
    thread.start()
    thread.join(max(0.0, time_left()))
    if not results:
        raise TimeoutError
    if isinstance(results[0], Exception):
        raise results[0]
    return list(results[0])
