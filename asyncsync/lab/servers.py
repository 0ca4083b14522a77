"""Starts servers on loopback for a demo or a test, and stops them again.

Redis or Valkey from PATH, else fakeredis's TCP server; DynamoDB from moto, in its own process.
No file and no process is left behind.
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
PRINTED_MAX = 500  # bytes of a server's output, the last ones, that an error shows

# The usual names; Valkey first, because a new ElastiCache cache is one.
BINARIES = ("valkey-server", "redis-server")


class ServerError(AsyncsyncError):
    """A server did not start; the message says which one and what it printed."""


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """A started server; `process` is None for a fake one inside this process."""

    name: str
    host: str
    port: int
    process: subprocess.Popen[bytes] | None

    @property
    def url(self) -> str:
        """Return the Redis URL of this server."""
        return f"redis://{self.host}:{self.port}"


def binaries() -> list[str]:
    """Return the names of the Redis-like servers on PATH."""
    return [name for name in BINARIES if shutil.which(name)]


def free_port() -> int:
    """Return a loopback port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def redis_process(
    binary: str, *options: str, port: int | None = None, env: dict[str, str] | None = None
) -> Iterator[ServerProcess]:
    """Run a Redis or Valkey server without persistence until the block ends.

    Raises ServerError where it does not answer in time.
    """
    port = free_port() if port is None else port
    with tempfile.TemporaryDirectory(prefix="asyncsync-") as folder:
        command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--dir", folder]
        command += ["--save", "", "--appendonly", "no", *options]
        with running(command, port, env=env) as process:
            _wait_for_answer(binary, port)
            yield ServerProcess(binary, "127.0.0.1", port, process)


def _wait_for_answer(name: str, port: int) -> None:
    """Wait for a first byte: a server accepts before it has opened its other listeners."""
    try:
        with (
            socket.create_connection(("127.0.0.1", port), STARTED_WITHIN_S) as probe,
            suppress(ConnectionError),  # a server that speaks TLS hangs up
        ):
            probe.sendall(b"PING\r\n")
            probe.recv(1)
    except OSError as exc:
        raise ServerError(f"{name} did not answer on port {port}: {exc}") from exc


@contextmanager
def running(
    command: Sequence[str], port: int, *, name: str = "", env: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server process until the block ends; it is up when its port accepts.

    Errors call it `name`, by default the command's first word. Raises ServerError.
    """
    name = name or command[0]
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(
                command,
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                env=env,
                start_new_session=True,  # Ctrl-C is for us: we stop the server when we are done
            )
        except OSError as exc:
            raise ServerError(f"{name} did not start: {exc}") from exc
        try:
            _wait_until_up(process, port, name, output.fileno())
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
    status = process.poll()
    reason = "it does not listen" if status is None else f"it exited with {status}"
    printed = Path(f"/proc/self/fd/{output}").read_bytes()[-PRINTED_MAX:].decode(errors="replace")
    text = " ".join(printed.split()) or "nothing"
    raise ServerError(f"{name} did not start on port {port}: {reason}; it printed: {text}")


@contextmanager
def fake_redis() -> Iterator[ServerProcess]:
    """Run fakeredis's TCP server in a thread until the block ends.

    Raises ServerError where it cannot listen.
    """
    from fakeredis import TcpFakeServer
    from fakeredis._clients._tcp_server import TCPFakeRequestHandler
    from redis.exceptions import ResponseError

    class Handler(TCPFakeRequestHandler):
        """Keeps the connection open after an error reply, as Redis does."""

        def setup(self) -> None:
            super().setup()
            read_response = self.current_client.read_response

            def read_or_error() -> object:
                try:
                    return read_response()
                except ResponseError as error:
                    return error

            client: Any = self.current_client  # replaces a method of this one object
            client.read_response = read_or_error

    port = free_port()
    try:
        server = TcpFakeServer(("127.0.0.1", port), server_type="redis")
    except OSError as exc:
        raise ServerError(f"fakeredis did not start on port {port}: {exc}") from exc
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
    """Run moto's server, which has DynamoDB and its streams; yield its endpoint URL.

    Raises ServerError where it does not start.
    """
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with running(command, port, name="moto"):
        yield f"http://127.0.0.1:{port}"
