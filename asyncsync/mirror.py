"""The pipeline, top to bottom: event -> decode -> collapse -> encode -> plan -> store -> report.

Everything but the store is pure. The store is the only await.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeAlias

from asyncsync.collapse import collapse
from asyncsync.config import Config, Server
from asyncsync.connection import OpenTransport, Password, tls_context
from asyncsync.decode import decode, to_bytes
from asyncsync.encode import EncodeRules, encode
from asyncsync.errors import ConfigError
from asyncsync.formats import FORMATS, WRITERS
from asyncsync.keys import KeyFunction
from asyncsync.metrics import Metrics, emf
from asyncsync.model import Decoded
from asyncsync.plan import plan
from asyncsync.report import Invocation, Response, report
from asyncsync.runtime import take_raw_events
from asyncsync.store import SCRIPT, Client, Clock, Store, script_for
from asyncsync.transport import open_socket, run_blocking
from asyncsync.values import Transform

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from asyncsync.iam import Credentials
    from asyncsync.transport_asyncio import Connect

Event: TypeAlias = bytes | Mapping[str, Any]  # JSON, or what the runtime parsed of it


class LambdaContext(Protocol):
    """The part of Lambda's context object that a mirror uses; AWS's and Powertools' fit."""

    @property
    def aws_request_id(self) -> str:
        """Return the invocation's id, which log lines name."""

    def get_remaining_time_in_millis(self) -> int:
        """Return how long the invocation may still run."""


def print_line(line: bytes) -> None:
    """Write one line to stdout, where Lambda takes log lines from."""
    print(line.decode(), flush=True)


class Mirror:
    """Keep a Redis copy of one table, from the events of the table's stream.

        mirror = Mirror(Config(redis_url="rediss://cache.example:6379"))
        lambda_handler = mirror.lambda_handler

    On an event loop: `async with Mirror(config) as mirror: await mirror.handle(event)`.

    Args:
        config: The settings.
        key: Names an item from its key attributes, as DynamoDB JSON. No two items may share a
            name. By default the template of the settings names items.
        transform: Makes the value from an item: a dict that JSON can hold, or the bytes
            themselves; None leaves the item out.
        raw_event: Make Lambda's runtime client pass events as bytes, where that is safe: only
            for a process whose handler is this mirror's, since no other can read them.
        connect: Opens asyncio's streams to a server; for tests.
        clock: Tells seconds that never go back; for tests.
        wall_clock: Tells epoch seconds; for tests.
        credentials: Sign in where the settings ask for IAM.
        emit: Takes each log and metrics line; by default stdout does.

    Raises:
        ConfigError: An argument is wrong, or does not go with the settings.
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
        _refuse_wrong(config, key, transform)
        self.config = config
        self.rules = EncodeRules(config, key, transform)
        self.clock = clock
        self.wall_clock = wall_clock
        self._emit = emit
        self._password = _password_of(config, credentials, wall_clock)
        self._connect = connect
        self._is_cold = True
        self._unsent: dict[str, Metrics] = {}  # by table: what waits for a metrics line
        self._loop: AbstractEventLoop | None = None  # of lambda_handler, where it needs one
        self._loop_stores: dict[AbstractEventLoop, Store] = {}
        self._socket_store: Client | None = None  # of lambda_handler, which then needs no loop
        # Do the slow things now: INIT has more processor than a small function. They are what a
        # format imports, asyncio's import for a cluster, and for TLS the authorities (40 ms).
        FORMATS[config.value](self.rules.shapes)
        if config.redis_cluster:
            self.new_store(SCRIPT)
        elif connect is None:
            self._socket_store = self.new_client(config.server, open_socket)
        if config.server.tls:
            with suppress(OSError):  # connecting reports what is wrong with the authorities
                tls_context(config.server.ca_file)
        # Last, because it changes AWS's client: a refused mirror leaves that alone.
        self.raw_event = raw_event and config.raw_event == "auto" and take_raw_events(sys.modules)

    def new_store(self, script: bytes) -> Store:
        """Make another store of this mirror's server or cluster, on the running event loop.

        It runs that script for fenced calls. A tool can also send it plain commands: a
        `Call(arguments, (n,), fenced=False, slot=...)` leaves its reply in outcome n.
        """
        from asyncsync.transport_asyncio import asyncio_transport, connect  # 25 ms

        open_transport = asyncio_transport(self._connect or connect)
        new_client = partial(self.new_client, open_transport=open_transport, script=script)
        if not self.config.redis_cluster:
            return new_client(self.config.server)
        from asyncsync.cluster import ClusterStore  # 3 ms that only a cluster pays

        return ClusterStore(self.config.server, new_client)

    def new_client(
        self, server: Server, open_transport: OpenTransport, script: bytes = SCRIPT
    ) -> Client:
        """Make a client of one server, which signs in as this mirror does.

        The script is written for strings; the client runs it for the format of values. A tool
        that looks at one server asks it with `client.ask(command, end_s)`.
        """
        timeout_ms = self.config.timeout_ms
        script = script_for(script, self.config.value)
        return Client(server, timeout_ms, open_transport, self.clock, self._password, script)

    async def handle(self, event: Event, context: LambdaContext | None = None) -> Response:
        """Mirror one event on the running event loop, whichever that is, and answer as Lambda
        expects: `{"batchItemFailures": [...]}`, with the lowest failed record if any.

        One at a time on each loop, because each has one connection to a server.

        Args:
            event: The event's JSON, or what was parsed of it: any mapping.
            context: Lambda's context; without it only the timeout setting bounds a call.

        Raises:
            EventError: The event is not of a table's stream, or, after all else was written, a
                record cannot be named in the answer.
            ConfigError: The settings do not fit the table or its stream.
            StoreRefused: Redis refused the user.
            BatchFailed: Some records failed, and the settings ask to raise then.
            RuntimeError: Another event is being handled on this loop.
        """
        from asyncio import get_running_loop

        loop = get_running_loop()
        if loop not in self._loop_stores:
            for other in [each for each in [*self._loop_stores] if each.is_closed()]:
                self._loop_stores.pop(other).close()
            self._loop_stores[loop] = self.new_store(SCRIPT)
        return await self._answer(event, context, self._loop_stores[loop])

    async def _answer(self, event: Event, context: LambdaContext | None, store: Store) -> Response:
        end_s, request_id = float("inf"), ""
        if context is not None:
            end_s = self.clock() + context.get_remaining_time_in_millis() / 1_000
            request_id = context.aws_request_id
        now_ms = int(self.wall_clock() * 1_000)
        invocation = Invocation(request_id, now_ms, self._is_cold, isinstance(event, bytes))
        self._is_cold = False

        decoded = decode(to_bytes(event))
        if decoded.stream is None:
            return {"batchItemFailures": []}
        _refuse_view(decoded, self.config)
        collapsed = collapse(decoded.records)
        encoding = encode(collapsed.latest, decoded.stream, self.rules, now_ms)
        # The store pulls the calls, and they pull the entries: the server writes the first
        # while later values are still being encoded.
        calls = plan(encoding, self.config)
        written = await store.apply(calls, len(encoding), end_s)
        table, encoded = decoded.stream.table, encoding.finished()
        unsent = self._unsent.get(table, Metrics())
        result = report(decoded, collapsed, encoded, written, self.config, invocation, unsent)
        self._unsent[table] = result.unsent
        for line in result.lines:
            self._emit(line)
        if result.error is not None:
            raise result.error
        return result.response

    def lambda_handler(self, event: Event, context: LambdaContext | None = None) -> Response:
        """Mirror one event and answer Lambda, which cannot run a coroutine; it blocks.

        Takes, answers and raises what `handle` does. One connection serves the process's life.
        """
        if self._socket_store is not None:
            return run_blocking(self._answer(event, context, self._socket_store))
        import asyncio

        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        return _wait_for(self._loop, self.handle(event, context))

    async def __aenter__(self) -> Self:
        """Return this mirror; leaving the block closes its connections."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        from asyncio import sleep

        self.close()
        await sleep(0)  # one turn, in which the socket closes

    def close(self) -> None:
        """Close the connections and the event loop, and write the metrics that wait for a line.

        Lambda never calls this.
        """
        now_ms = int(self.wall_clock() * 1_000)
        for table, unsent in self._unsent.items():
            if unsent.counts:
                self._emit(emf(unsent, table, now_ms))
        self._unsent.clear()
        if self._socket_store is not None:
            self._socket_store.close()
        while self._loop_stores:
            self._loop_stores.popitem()[1].close()
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon(self._loop.stop)
            self._loop.run_forever()  # one turn, in which the socket closes
            self._loop.close()
        self._loop = None

    def redis_key(self, keys: Mapping[str, object], *, table: str | None = None) -> str:
        """Return the Redis key of an item: `redis_key({"Number": 10}) == "player-10"`.

        Args:
            keys: the item's key attributes, as Python values or DynamoDB JSON.
            table: the table's name or ARN; only a key template with {@table} needs it.

        Raises RecordError, ConfigError, or TypeError or ValueError where an argument is wrong.
        """
        from asyncsync.copy.plain import redis_key  # not for Lambda: the bundle leaves it out

        return redis_key(self.rules, keys, table)

    def redis_value(
        self, image: Mapping[str, object], *, key: Iterable[str] = ()
    ) -> bytes | dict[bytes, bytes] | None:
        """Return what `GET` gives for an item: `redis_value({"Number": 10}) == b'{"Number":10}'`.

        Of a hash it is what `HGETALL` gives, {b"Number": b"10"}. None: the item is left out, has
        expired, or the mode writes no values.

        Args:
            image: all attributes of the item, as Python values or DynamoDB JSON.
            key: the names of its key attributes; only with the setting `fields`, which keeps them.

        Raises RecordError with the attribute's path, or TypeError or ValueError where DynamoDB
        has no type for a value.
        """
        from asyncsync.copy.plain import redis_value

        return redis_value(self.rules, image, int(self.wall_clock() * 1_000), key)


def _refuse_wrong(config: Config, key: object, transform: object) -> None:
    if not isinstance(config, Config):
        kind = type(config).__name__
        raise ConfigError(f"a mirror needs a Config, not {kind}: Mirror(Config(redis_url=...))")
    if not (key is None or callable(key)):
        raise ConfigError("key must be a function; a template is a setting: Config(key=...)")
    if not (transform is None or callable(transform)):
        raise ConfigError(f"transform must be a function, not {type(transform).__name__}")
    if transform is not None and config.value not in WRITERS:
        needed = " or ".join(repr(name) for name in WRITERS)
        raise ConfigError(f"a transform makes its own values: it needs value={needed}")
    if transform is not None and config.fields is not None:
        raise ConfigError("fields has no use with a transform, which chooses attributes itself")
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
    # A notebook already runs a loop in this thread, so run ours in another one.
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
