"""Servers that a demo or a test starts for itself on loopback and takes down again.

Redis or Valkey from PATH, else fakeredis's TCP server; DynamoDB by moto, in a process of its
own. Nothing is left behind: no file, no process.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asyncsync.errors import AsyncsyncError

STARTED_WITHIN_S = 20.0  # moto imports for seconds on a busy machine

# Stock names; valkey first, because it is what a new ElastiCache is.
BINARIES = ("valkey-server", "redis-server")


class ServerError(AsyncsyncError):
    """A server did not start; the message says which and what it printed."""


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """One started server; `process` is None for a fake one inside this process."""

    name: str
    host: str
    port: int
    process: subprocess.Popen[bytes] | None

    @property
    def url(self) -> str:
        """Return the Redis URL of this server."""
        return f"redis://{self.host}:{self.port}"


def binaries() -> list[str]:
    """Name the Redis-like servers that are on PATH."""
    return [name for name in BINARIES if shutil.which(name)]


def free_port() -> int:
    """Return a port of loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def redis_process(
    binary: str, *options: str, port: int | None = None, env: dict[str, str] | None = None
) -> Iterator[ServerProcess]:
    """Run a Redis or Valkey server without persistence until the block ends.

    Raises ServerError where it does not listen in time.
    """
    port = free_port() if port is None else port
    with tempfile.TemporaryDirectory(prefix="asyncsync-") as folder:
        command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--dir", folder]
        command += ["--save", "", "--appendonly", "no", *options]
        with running(command, port, env=env) as process:
            _wait_until_it_answers(port)
            yield ServerProcess(binary, "127.0.0.1", port, process)


def _wait_until_it_answers(port: int) -> None:
    """Wait for a first byte: a server accepts before it has opened its other listeners."""
    with (
        socket.create_connection(("127.0.0.1", port), STARTED_WITHIN_S) as probe,
        suppress(ConnectionError),  # where it speaks TLS, it hangs up
    ):
        probe.sendall(b"PING\r\n")
        probe.recv(1)


@contextmanager
def running(
    command: Sequence[str], port: int, *, env: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server process until the block ends; it is up when its port accepts."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            env=env,
            start_new_session=True,  # Ctrl-C is for us, who take it down when we are done
        )
        try:
            _wait_until_up(process, port, command[0], output.fileno())
            yield process
        finally:
            process.kill()
            process.wait()


def _wait_until_up(process: subprocess.Popen[bytes], port: int, name: str, output: int) -> None:
    gives_up_s = time.monotonic() + STARTED_WITHIN_S
    while time.monotonic() < gives_up_s and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.01)
    said = Path(f"/proc/self/fd/{output}").read_bytes()[-500:].decode(errors="replace")
    raise ServerError(f"{name} did not start on port {port}: {said.strip() or 'it said nothing'}")


@contextmanager
def fake_redis() -> Iterator[ServerProcess]:
    """Run fakeredis's TCP server in a thread until the block ends."""
    from fakeredis import TcpFakeServer
    from fakeredis._clients._tcp_server import TCPFakeRequestHandler
    from redis.exceptions import ResponseError

    class Handler(TCPFakeRequestHandler):
        """Keep the connection open after an error reply, as Redis does."""

        def setup(self) -> None:
            super().setup()
            read_response = self.current_client.read_response

            def read_or_error() -> object:
                try:
                    return read_response()
                except ResponseError as error:
                    return error

            client: Any = self.current_client  # a method is replaced on this one object
            client.read_response = read_or_error

    port = free_port()
    server = TcpFakeServer(("127.0.0.1", port), server_type="redis")
    server.RequestHandlerClass = Handler
    server.daemon_threads = True
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
    )
    thread.start()
    try:
        yield ServerProcess("fakeredis", "127.0.0.1", port, None)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def dynamodb_process() -> Iterator[str]:
    """Run moto's server, which has DynamoDB and its streams; gives its endpoint URL."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with running(command, port):
        yield f"http://127.0.0.1:{port}"
