"""The servers of a demo: a DynamoDB, a Redis, a table, and a connection that can be cut.

The demo starts its own servers where it is given none. On the user's servers it touches only a
table and keys with a random name, and removes both again.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from importlib.metadata import version

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from asyncsync.aws.clients import AwsClients, aws_errors
from asyncsync.config import Server
from asyncsync.connection import tls_context
from asyncsync.keys import redis_names
from asyncsync.lab.demo.redis_client import client_arguments
from asyncsync.lab.proxy import Proxy
from asyncsync.lab.servers import binaries, dynamodb_process, fake_redis, redis_process
from asyncsync.tools.errors import CommandFailed
from asyncsync.transport_asyncio import Connect, Streams

TABLE = "Players"
READ_TIMEOUT_S = 10.0  # the reader goes past the proxy: a longer wait means a dead server


@dataclass(frozen=True, slots=True)
class Servers:
    """The addresses and names of the demo's DynamoDB and Redis."""

    endpoint_url: str
    dynamodb_name: str
    redis_url: str
    redis_name: str  # empty: ask the server


@contextmanager
def open_servers(endpoint_url: str | None, redis_url: str | None) -> Iterator[Servers]:
    """Start each server that is not given, until the block ends.

    Raises ServerError where one does not start.
    """
    with _dynamodb(endpoint_url) as dynamodb_url, _redis(redis_url) as (url, redis_name):
        name = f"moto {version('moto')}" if endpoint_url is None else "your server"
        yield Servers(dynamodb_url, name, url, redis_name)


@contextmanager
def _dynamodb(endpoint_url: str | None) -> Iterator[str]:
    if endpoint_url is not None:
        yield endpoint_url
        return
    with dynamodb_process() as url:
        yield url


@contextmanager
def _redis(redis_url: str | None) -> Iterator[tuple[str, str]]:
    if redis_url is not None:
        yield redis_url, ""
        return
    installed = binaries()
    with redis_process(installed[0]) if installed else fake_redis() as server:
        yield server.url, "" if installed else f"fakeredis {version('fakeredis')}"


def table_names(is_guest: bool) -> tuple[str, str, str]:
    """Return the names of the table and of both usual copies; random on the user's servers."""
    if not is_guest:
        return TABLE, TABLE, TABLE
    suffix = secrets.token_hex(4)
    return f"{TABLE}-{suffix}", f"{TABLE}-usual-{suffix}", f"{TABLE}-awaited-{suffix}"


@asynccontextmanager
async def temporary_table(clients: AwsClients, name: str, *, keep: bool) -> AsyncIterator[str]:
    """Create a table with a stream, yield the stream's ARN, and delete the table again.

    Raises AwsFailed.
    """
    with aws_errors(f"creating table {name}"):
        answer = await clients.items.create_table(
            TableName=name,
            KeySchema=[{"AttributeName": "Number", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "Number", "AttributeType": "N"}],
            BillingMode="PAY_PER_REQUEST",
            StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"},
        )
        await clients.items.get_waiter("table_exists").wait(
            TableName=name, WaiterConfig={"Delay": 1}
        )
    try:
        yield answer["TableDescription"]["LatestStreamArn"]
    finally:
        if not keep:
            with aws_errors(f"deleting table {name}"):
                await clients.items.delete_table(TableName=name)


class DemoReader:
    """A client of one database that shares no code with the mirror: redis-py, past the proxy."""

    def __init__(self, server: Server) -> None:
        self._address = server.address
        self._client: redis.asyncio.Redis = redis.asyncio.Redis(
            **client_arguments(server, READ_TIMEOUT_S), retry=Retry(NoBackoff(), 0)
        )

    async def read(self, names: list[str]) -> list[bytes | None]:
        """Read many keys with one command.

        Raises CommandFailed, as every method does.
        """
        with self._errors():
            values = await self._client.mget(names)
        return [value if isinstance(value, bytes) else None for value in values]

    async def server_name(self) -> str:
        """Return the server's name and version, as far as it tells."""
        try:
            with self._errors():
                info = await self._client.info("server")
        except CommandFailed as exc:
            if isinstance(exc.__cause__, ResponseError):
                return "of unknown version"  # it refuses INFO
            raise
        if "valkey_version" in info:
            return f"valkey {info['valkey_version']}"
        return f"redis {info.get('redis_version', 'of unknown version')}"

    async def write(self, name: str, value: bytes) -> None:
        """Overwrite a key past the mirror: a test does this to see the demo fail."""
        with self._errors():
            await self._client.set(name, value)

    async def remove(self, names: list[str]) -> None:
        """Remove keys and the fences beside them."""
        with self._errors():
            for name in names:
                await self._client.delete(*redis_names(name.encode()))

    async def close(self) -> None:
        """Close the connection."""
        await self._client.aclose()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (RedisError, OSError) as exc:
            reason = " ".join(str(exc).split())
            raise CommandFailed(f"Redis at {self._address}: {reason}") from exc


def through(proxy: Proxy) -> Connect:
    """Return a function that connects to a server through a proxy, with TLS if it wants that."""

    async def connect(server: Server) -> Streams:
        context = tls_context(server.ca_file) if server.tls else None
        return await asyncio.open_connection(
            "127.0.0.1",
            proxy.port,
            ssl=context,
            server_hostname=server.host if context else None,
        )

    return connect
