"""A TCP proxy that makes a round trip as long as one between two hosts of a zone.

As a program, `python -m benchmarks.harness.delay_proxy PORT ONE_WAY_US` listens on a port that it
prints. It uses one thread and select, whose timeout is in microseconds; asyncio's timers have a
resolution of a millisecond.
"""

from __future__ import annotations

import ctypes
import resource
import select
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

RTT_US = 500  # what the benchmark aims at: a cache in the function's own zone

_READ_BYTES = 1 << 18
_BUFFER_BYTES = 1 << 22
_PR_SET_TIMERSLACK = 29


class Pairs:
    """Pairs of connections, a near end and a far one, and which of them can be read.

    epoll waits in milliseconds; select waits in microseconds, but only for low descriptors. So
    select waits for epoll.
    """

    def __init__(self) -> None:
        self.other: dict[socket.socket, socket.socket] = {}
        self.ready = select.epoll()
        self._numbers: dict[int, socket.socket] = {}

    def add(self, near: socket.socket, far: socket.socket) -> None:
        """Join two connections."""
        self.other[near], self.other[far] = far, near
        for each in (near, far):
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
            self._numbers[each.fileno()] = each
            self.ready.register(each, select.EPOLLIN)

    def readable(self, wait_s: float | None) -> list[socket.socket | None]:
        """Return the ends that can be read; None for anything else, such as a listener."""
        select.select([self.ready], [], [], wait_s)
        return [self._numbers.get(number) for number, _ in self.ready.poll(0)]

    def forget(self, end: socket.socket) -> None:
        """Stop watching an end: once closed, it stays readable for ever."""
        if self._numbers.pop(end.fileno(), None) is not None:
            self.ready.unregister(end)

    def close(self, end: socket.socket) -> None:
        """Close both ends."""
        for each in (self.other[end], end):
            self.forget(each)
            del self.other[each]
            each.close()


def serve(port: int, one_way_s: float) -> None:
    """Forward bytes to a port of loopback with a delay each way, until killed."""
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)  # sleep to the nanosecond, not 50 us
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    # Some contestants never close a connection.
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    print(listener.getsockname()[1], flush=True)
    pairs = Pairs()
    pairs.ready.register(listener, select.EPOLLIN)
    # All wait equally long, so they stay in order.
    late: deque[tuple[float, socket.socket, bytes]] = deque()
    while True:
        wait_s = max(0.0, late[0][0] - time.perf_counter()) if late else None
        readable = pairs.readable(wait_s)
        due_s = time.perf_counter() + one_way_s
        for source in readable:
            if source is None:
                pairs.add(listener.accept()[0], socket.create_connection(("127.0.0.1", port)))
                continue
            data = _read(source)
            if not data:
                pairs.forget(source)
            late.append((due_s, source, data))
        while late and late[0][0] <= time.perf_counter():
            _, source, data = late.popleft()
            if source in pairs.other and not _forward(pairs.other[source], data):
                pairs.close(source)


def _read(source: socket.socket) -> bytes:
    try:
        return source.recv(_READ_BYTES)
    except OSError:
        return b""


def _forward(target: socket.socket, data: bytes) -> bool:
    """Send bytes; return whether the connection stays open."""
    try:
        target.sendall(data)
    except OSError:
        return False
    return bool(data)


# --- from outside -----------------------------------------------------------------------------


@contextmanager
def proxy(port: int, one_way_us: float) -> Iterator[int]:
    """Run a proxy to a port until the block ends; yields the proxy's port."""
    command = [sys.executable, "-m", "benchmarks.harness.delay_proxy", str(port), str(one_way_us)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


def ping_us(port: int, count: int = 400) -> float:
    """Measure the median round trip of a PING, in microseconds."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        times_us = []
        for _ in range(count):
            began_s = time.perf_counter()
            connection.sendall(b"PING\r\n")
            assert connection.recv(64) == b"+PONG\r\n"
            times_us.append((time.perf_counter() - began_s) * 1e6)
    return median(times_us)


def one_way_us_for(port: int, rtt_us: float = RTT_US) -> float:
    """Return the delay each way that makes a PING through a proxy take rtt_us."""
    one_way_us = 0.0
    for _ in range(3):  # waking up late adds to it, so measure and correct
        with proxy(port, one_way_us) as delayed:
            one_way_us = max(0.0, one_way_us + (rtt_us - ping_us(delayed)) / 2)
    return one_way_us


if __name__ == "__main__":
    serve(int(sys.argv[1]), float(sys.argv[2]) / 1e6)
