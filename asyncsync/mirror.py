"""The pipeline, top to bottom: event -> decode -> collapse -> encode -> plan -> store -> report.

Everything but the store is pure. The store is the only await.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from asyncsync.collapse import collapse
from asyncsync.config import Config, Server
from asyncsync.connection import OpenTransport, Password, tls_context
from asyncsync.decode import decode, to_bytes
from asyncsync.encode import EncodeRules, encode
from asyncsync.errors import ConfigError
from asyncsync.keys import KeyFunction
from asyncsync.model import Decoded
from asyncsync.plan import plan
from asyncsync.report import Invocation, Report, Response, report
from asyncsync.runtime import take_raw_events
from asyncsync.store import SCRIPT, Client, Clock, RedisStore, Store
from asyncsync.transport import open_socket, run_blocking
from asyncsync.values import Transform

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from asyncsync.iam import Credentials
    from asyncsync.transport_asyncio import Connect


class LambdaContext(Protocol):
    """What is used of Lambda's context object."""

    aws_request_id: str

    def get_remaining_time_in_millis(self) -> int:
        """Return how long the invocation may still run."""


def print_line(line: bytes) -> None:
    """Write one line where Lambda takes log lines from."""
    print(line.decode(), flush=True)


class Mirror:
    """Keep a Redis copy of one table: decode, collapse, encode, plan, one round trip, report.

    `key` names an item from its key attributes and must be injective; `transform` makes a
    value from an item, None leaves the item out; `credentials` sign where the settings ask
    for IAM. `raw_event` has Lambda's runtime client hand its events over as bytes, where that
    is safe: only for a process whose handler is this mirror's, since no other can read them.
    One object serves one event loop.
    Raises ConfigError.
    """

    def __init__(
        self,
        config: Config,
        *,
        key: KeyFunction | None = None,
        transform: Transform | None = None,
        raw_event: bool = False,
        connect: Connect | None = None,
        clock: Clock = time.monotonic,
        wall_clock: Clock = time.time,
        credentials: Credentials | None = None,
        emit: Callable[[bytes], None] = print_line,
    ) -> None:
        _refuse_transform(transform, config)
        self.config = config
        self.rules = EncodeRules(config, key, transform)
        self.clock = clock
        self.wall_clock = wall_clock
        self._emit = emit
        self._password = _password_of(config, credentials, wall_clock)
        self._connect = connect
        self._is_cold = True
        self._loop: AbstractEventLoop | None = None
        self._loop_store: Store | None = None
        self._socket_store: Store | None = None  # of lambda_handler, where no event loop is needed
        # What takes long is done now, as part of INIT, which has more processor than a small
        # function: importing asyncio for a cluster, and for TLS reading the authorities (40 ms).
        if config.redis_cluster:
            self._loop_store = self.new_store(SCRIPT)
        elif connect is None:
            self._socket_store = RedisStore(self.new_client(config.server, open_socket))
        if config.server.tls:
            with suppress(OSError):  # connecting says what is wrong with the authorities
                tls_context(config.server.ca_file)
        # Last, because it changes AWS's client: a refused mirror leaves that alone.
        self.raw_event = raw_event and config.raw_event == "auto" and take_raw_events(sys.modules)

    def new_store(self, script: bytes) -> Store:
        """Make one more store of the same server, on the running event loop, with that script."""
        from asyncsync.transport_asyncio import (  # 25 ms that lambda_handler saves
            asyncio_transport,
            connect,
        )

        open_transport = asyncio_transport(self._connect or connect)

        def new_client(server: Server) -> Client:
            return self.new_client(server, open_transport, script)

        if not self.config.redis_cluster:
            return RedisStore(new_client(self.config.server))
        from asyncsync.cluster import ClusterStore  # 3 ms that only a cluster pays

        return ClusterStore(self.config.server, new_client)

    def new_client(
        self, server: Server, open_transport: OpenTransport, script: bytes = SCRIPT
    ) -> Client:
        """Make a client of one server, signed in as this mirror is."""
        timeout_ms = self.config.timeout_ms
        return Client(server, timeout_ms, open_transport, self.clock, self._password, script)

    async def _run(
        self, event: bytes | Mapping[str, Any], end_s: float, request_id: str, store: Store
    ) -> Report:
        now_ms = int(self.wall_clock() * 1_000)
        invocation = Invocation(request_id, now_ms, self._is_cold, isinstance(event, bytes))
        self._is_cold = False

        decoded = decode(to_bytes(event))
        if decoded.stream is None:
            return Report({"batchItemFailures": []}, None, ())
        _refuse_view(decoded, self.config)
        collapsed = collapse(decoded.records)
        encoding = encode(collapsed.latest, decoded.stream, self.rules, now_ms)
        # Entries are made as the store takes calls: the server writes the first meanwhile.
        calls = plan(encoding, self.config)
        written = await store.apply(calls, len(encoding), end_s)
        return report(decoded, collapsed, encoding.finished(), written, self.config, invocation)

    async def handle(
        self, event: bytes | Mapping[str, Any], context: LambdaContext | None
    ) -> Response:
        """Mirror one event on the caller's own event loop and answer as Lambda expects.

        One at a time: a mirror has one connection to a server, and a second batch meanwhile
        raises RuntimeError. Raises EventError, ConfigError or StoreRefused where no partial
        answer makes sense, and EventError or BatchFailed after the rest of the batch was written.
        """
        if self._loop_store is None:
            self._loop_store = self.new_store(SCRIPT)
        return await self._answer(event, context, self._loop_store)

    async def _answer(
        self, event: bytes | Mapping[str, Any], context: LambdaContext | None, store: Store
    ) -> Response:
        end_s = float("inf")
        if context is not None:
            end_s = self.clock() + context.get_remaining_time_in_millis() / 1_000
        request_id = context.aws_request_id if context is not None else ""

        made = await self._run(event, end_s, request_id, store)
        for line in made.lines:
            self._emit(line)
        if made.error is not None:
            raise made.error
        return made.response

    def lambda_handler(
        self, event: bytes | Mapping[str, Any], context: LambdaContext | None = None
    ) -> Response:
        """Answer Lambda, which cannot run a coroutine; one connection for the process's life.

        It blocks, as Lambda expects. Only a cluster, or a `connect` of one's own, needs an
        event loop for it.
        """
        if self._socket_store is not None:
            return run_blocking(self._answer(event, context, self._socket_store))
        import asyncio

        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        return _wait_for(self._loop, self.handle(event, context))

    def close(self) -> None:
        """Give up the connections and the event loop; for tests and tools, Lambda never does."""
        for store in (self._socket_store, self._loop_store):
            if store is not None:
                store.close()
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon(self._loop.stop)
            self._loop.run_forever()  # one turn, which lets the socket go
            self._loop.close()
        self._loop = None


def _refuse_transform(transform: Transform | None, config: Config) -> None:
    if transform is not None and config.value != "json":
        raise ConfigError("a transform makes plain JSON or bytes: it needs value='json'")
    if transform is not None and config.mode == "invalidate":
        raise ConfigError("a transform is never called with mode='invalidate': it writes no value")


def _password_of(config: Config, credentials: Credentials | None, wall_clock: Clock) -> Password:
    if config.redis_iam_cache is None:
        password = config.server.password
        return lambda: password
    from asyncsync.iam import token_password  # 3 ms that only IAM pays

    return token_password(config, credentials, wall_clock)


def _wait_for(loop: AbstractEventLoop, answer: Awaitable[Response]) -> Response:
    from asyncio import get_running_loop

    try:
        get_running_loop()
    except RuntimeError:
        return loop.run_until_complete(answer)
    # A notebook runs a loop of its own in this thread; ours gets another thread meanwhile.
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(loop.run_until_complete, answer).result()


def _refuse_view(decoded: Decoded, config: Config) -> None:
    if config.mode != "invalidate" and decoded.view_type in ("KEYS_ONLY", "OLD_IMAGE"):
        raise ConfigError(
            f"the stream's view type is {decoded.view_type}, which has no new images: re-create "
            "the stream with NEW_IMAGE (it gets a new ARN, so the mapping is made again too), "
            "or set ASYNCSYNC_MODE=invalidate"
        )
