"""A local Lambda Runtime API: gives events to AWS's own runtime client and takes its answers."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

GIVES_UP_S = 20.0


class RuntimeApi:
    """One function process and the API it polls (Lambda developer guide, "Runtime API")."""

    def __init__(self) -> None:
        self.events: queue.Queue[bytes] = queue.Queue()
        self.answers: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self.output = tempfile.TemporaryFile()  # noqa: SIM115

    def invoke(self, event: bytes) -> tuple[str, bytes]:
        """Give one event; returns ("response" or "error", body)."""
        self.events.put(event)
        return self.answers.get(timeout=GIVES_UP_S)

    def printed(self) -> list[dict[str, Any]]:
        """The JSON lines that the function wrote to its standard output so far."""
        # Not by seek and read: the process shares this file's offset.
        written = os.pread(self.output.fileno(), 1_000_000, 0)
        return [json.loads(line) for line in written.splitlines() if line.startswith(b"{")]


@contextmanager
def function(handler: str, env: Mapping[str, str]) -> Iterator[RuntimeApi]:
    """Run `python -m awslambdaric HANDLER` against an API of its own until the block ends."""
    api = RuntimeApi()

    class Endpoint(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = api.events.get()
            self.send_response(200)
            self.send_header("Lambda-Runtime-Aws-Request-Id", "request-1")
            deadline_ms = int((time.time() + 30) * 1_000)
            self.send_header("Lambda-Runtime-Deadline-Ms", str(deadline_ms))
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(202)
            self.send_header("Content-Length", "0")
            self.end_headers()
            api.answers.put((self.path.rsplit("/", 1)[-1], body))

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *args: Any) -> None:
            """A killed function's connection is no news."""

    server = Server(("127.0.0.1", 0), Endpoint)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = {
        **os.environ,
        **env,
        "_HANDLER": handler,
        "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{server.server_address[1]}",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "awslambdaric", handler],
        env=environment,
        stdout=api.output,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield api
    finally:
        process.kill()
        process.wait()
        api.output.close()
        api.events.put(b"")
        server.shutdown()
        server.server_close()
