"""A local Lambda Runtime API: drives AWS's runtime client and times it as Lambda bills.

Each function process has its own API, as in Lambda (developer guide, "Using the Lambda runtime
API"). An invocation's time runs from before the first byte of the event is sent until the last
byte of the answer has arrived. INIT runs from the start of the process until it asks for its first
event. Plain blocking sockets: nothing here waits for a scheduler or another thread.
"""

from __future__ import annotations

import json
import math
import os
import selectors
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ARN = "arn:aws:lambda:us-east-1:111122223333:function:mirror"
FUNCTION_TIMEOUT_S = 30  # the deadline that the function sees
GIVES_UP_S = 60.0  # longest wait for the function

_POLL_S = 0.1  # how often to check a silent process
_READ_BYTES = 1 << 20
_NO_CONTENT = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"


class FunctionFailed(Exception):
    """The process ended, stayed silent, or its handler could not be loaded."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of one invocation, and its time."""

    kind: str  # "response" or "error"
    body: bytes
    ms: float

    @property
    def billed_ms(self) -> int:
        """Return the time as Lambda bills it: rounded up to a millisecond."""
        return math.ceil(self.ms)


class Function:
    """One function process and the API that it polls; `function` starts it."""

    def __init__(
        self,
        command: Sequence[str],
        env: Mapping[str, str],
        folder: Path | None,
        processors: Collection[int],
    ) -> None:
        self.output = tempfile.TemporaryFile()  # noqa: SIM115
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._selector = selectors.DefaultSelector()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._buffers: dict[socket.socket, bytearray] = {}
        self._asking: socket.socket | None = None
        self._invocations = 0
        api = f"127.0.0.1:{self._listener.getsockname()[1]}"
        began_s = time.perf_counter()
        with _on(processors):  # a child starts on its parent's processor
            self.process = subprocess.Popen(
                command,
                env={**env, "AWS_LAMBDA_RUNTIME_API": api},
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=self.output,
                stderr=self.errors,
            )
        try:
            self._wait_until_it_asks()
        except BaseException:
            self.stop()
            raise
        self.init_ms = (time.perf_counter() - began_s) * 1_000

    def invoke(self, event: bytes, *, freeze: bool = False) -> Answer:
        """Send one event and return the answer; `freeze` stops the process when it arrives.

        Raises FunctionFailed where there is no answer.
        """
        self._wait_until_it_asks()
        asking = self._asking
        assert asking is not None
        self._asking = None
        self._invocations += 1
        deadline_ms = int((time.time() + FUNCTION_TIMEOUT_S) * 1_000)
        head = (
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
            f"Lambda-Runtime-Aws-Request-Id: request-{self._invocations}\r\n"
            f"Lambda-Runtime-Deadline-Ms: {deadline_ms}\r\n"
            f"Lambda-Runtime-Invoked-Function-Arn: {ARN}\r\n"
            f"Content-Length: {len(event)}\r\n\r\n"
        ).encode()
        began_s = time.perf_counter()
        asking.sendall(head)
        asking.sendall(event)
        connection, path, body = self._request()
        ms = (time.perf_counter() - began_s) * 1_000
        if freeze:
            self.process.send_signal(signal.SIGSTOP)
        connection.sendall(_NO_CONTENT)
        kind = path.rsplit("/", 1)[-1]
        if not path.startswith("/2018-06-01/runtime/invocation/"):
            raise FunctionFailed(f"the function answered at {path}: {_excerpt(body)}")
        return Answer(kind, body, ms)

    def wait_until_idle(self) -> None:
        """Wait until the function asks for its next event; nobody is billed for this time."""
        self._wait_until_it_asks()

    def thaw(self) -> None:
        """Let a frozen process continue."""
        self.process.send_signal(signal.SIGCONT)

    def json_lines(self) -> list[dict[str, Any]]:
        """Return the JSON lines on the function's standard output so far."""
        return [json.loads(line) for line in self.stdout().splitlines() if line.startswith(b"{")]

    def stdout(self) -> bytes:
        """Return the function's standard output so far."""
        # pread: the process shares this file's offset.
        return os.pread(self.output.fileno(), 1 << 30, 0)

    def stop(self) -> None:
        """Kill the process and close everything."""
        self.process.kill()
        self.process.wait()
        for connection in self._buffers:
            connection.close()
        self._listener.close()
        self._selector.close()
        self.output.close()
        self.errors.close()

    def _wait_until_it_asks(self) -> None:
        while self._asking is None:
            connection, path, body = self._request()
            if not path.endswith("/invocation/next"):
                connection.sendall(_NO_CONTENT)
                raise FunctionFailed(f"the function reports at {path}: {_excerpt(body)}")
            self._asking = connection

    def _request(self) -> tuple[socket.socket, str, bytes]:
        """Return the next complete request of any connection, with its path and body."""
        gives_up_s = time.perf_counter() + GIVES_UP_S
        while True:
            ready = self._selector.select(_POLL_S)
            for key, _ in ready:
                connection = key.fileobj
                assert isinstance(connection, socket.socket)
                if connection is self._listener:
                    self._accept()
                    continue
                request = self._read(connection)
                if request is not None:
                    return connection, *request
            if not ready and self.process.poll() is not None:
                raise FunctionFailed(
                    f"the function ended with {self.process.returncode}: {self._last_words()}"
                )
            if not ready and time.perf_counter() > gives_up_s:
                raise FunctionFailed(f"the function was silent for {GIVES_UP_S:g} s")

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffers[connection] = bytearray()
        self._selector.register(connection, selectors.EVENT_READ)

    def _read(self, connection: socket.socket) -> tuple[str, bytes] | None:
        """Read what has arrived; return path and body when a request is complete."""
        try:
            received = connection.recv(_READ_BYTES)
        except ConnectionResetError:
            received = b""
        if not received:
            self._selector.unregister(connection)
            del self._buffers[connection]
            connection.close()
            return None
        buffer = self._buffers[connection]
        buffer += received
        end = buffer.find(b"\r\n\r\n")
        if end < 0:
            return None
        start_line, *lines = bytes(buffer[:end]).decode().split("\r\n")
        headers = {
            name.lower(): value.strip() for name, value in (line.split(":", 1) for line in lines)
        }
        assert "transfer-encoding" not in headers, "AWS's clients send a length"
        body_end = end + 4 + int(headers.get("content-length", "0"))
        if len(buffer) < body_end:
            return None
        body = bytes(buffer[end + 4 : body_end])
        del buffer[:body_end]
        return start_line.split(" ")[1], body

    def _last_words(self) -> str:
        output = os.pread(self.errors.fileno(), 1 << 20, 0) or self.stdout()
        return output[-1_000:].decode(errors="replace").strip() or "no output"


def _excerpt(body: bytes) -> str:
    return body[:1_000].decode(errors="replace")


@contextmanager
def _on(processors: Collection[int]) -> Iterator[None]:
    if not processors:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, processors)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def function(
    command: Sequence[str],
    env: Mapping[str, str],
    folder: Path | None = None,
    processors: Collection[int] = (),
) -> Iterator[Function]:
    """Run a function's process until the block ends, on these processors (default: any).

    It has asked for its first event when the block begins. Raises FunctionFailed where it never
    asks.
    """
    running = Function(command, env, folder, processors)
    try:
        yield running
    finally:
        running.stop()
