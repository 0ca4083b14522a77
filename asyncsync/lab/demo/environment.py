"""What a demo stands on: a DynamoDB, a Redis, a table, and a way in that can be cut.

Embedded where nothing is given. On servers of the user's own it touches only a table and keys
of a random name, and takes both away again.
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

TABLE = "Players"  # the seed's
READ_TIMEOUT_S = 10.0  # of the reader, which is past the proxy: longer means a dead server


@dataclass(frozen=True, slots=True)
class Servers:
    """Where the demo's DynamoDB and Redis are, and how they are called."""

    endpoint_url: str
    dynamodb_name: str
    redis_url: str
    redis_name: str  # empty where the server can be asked


@contextmanager
def servers(endpoint_url: str | None, redis_url: str | None) -> Iterator[Servers]:
    """Start what is not given.

    Raises ServerError where a server does not start.
    """
    with _dynamodb(endpoint_url) as dynamodb_url, _redis(redis_url) as (url, redis_name):
        name = f"moto {version('moto')}" if endpoint_url is None else "yours"
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
    found = binaries()
    with redis_process(found[0]) if found else fake_redis() as server:
        yield server.url, "" if found else f"fakeredis {version('fakeredis')}"


def table_names(is_guest: bool) -> tuple[str, str]:
    """Name the table and the loop's copy, randomly on servers that are not ours alone."""
    if not is_guest:
        return TABLE, TABLE
    tail = secrets.token_hex(4)
    return f"{TABLE}-{tail}", f"{TABLE}-loop-{tail}"


@asynccontextmanager
async def temporary_table(dynamo: AwsClients, name: str, *, keep: bool) -> AsyncIterator[str]:
    """Create the seed's table with a stream, give the stream's ARN, and delete it again."""
    with aws_errors(f"creating table {name}"):
        made = await dynamo.items.create_table(
            TableName=name,
            KeySchema=[{"AttributeName": "Number", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "Number", "AttributeType": "N"}],
            BillingMode="PAY_PER_REQUEST",
            StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"},
        )
        await dynamo.items.get_waiter("table_exists").wait(
            TableName=name, WaiterConfig={"Delay": 1}
        )
    try:
        yield made["TableDescription"]["LatestStreamArn"]
    finally:
        if not keep:
            with aws_errors(f"deleting table {name}"):
                await dynamo.items.delete_table(TableName=name)


class Reader:
    """A client of one database that is not ours: redis-py, past the proxy."""

    def __init__(self, server: Server) -> None:
        self._address = server.address
        self._client: redis.asyncio.Redis = redis.asyncio.Redis(
            **client_arguments(server, READ_TIMEOUT_S), retry=Retry(NoBackoff(), 0)
        )

    async def read(self, names: list[str]) -> list[bytes | None]:
        """Read many keys at one moment.

        Raises CommandFailed, as every method does.
        """
        with self._errors():
            values = await self._client.mget(names)
        return [value if isinstance(value, bytes) else None for value in values]

    async def server_name(self) -> str:
        """Name the server and its version, as far as it says."""
        try:
            with self._errors():
                said = await self._client.info("server")
        except CommandFailed as exc:
            if isinstance(exc.__cause__, ResponseError):
                return "of unknown version"  # it answers, but not to INFO
            raise
        if "valkey_version" in said:
            return f"valkey {said['valkey_version']}"
        return f"redis {said.get('redis_version', 'of unknown version')}"

    async def write(self, name: str, value: bytes) -> None:
        """Overwrite a key behind everyone's back; for the test of the demo's own eyes."""
        with self._errors():
            await self._client.set(name, value)

    async def remove(self, names: list[str]) -> None:
        """Remove keys and the fences beside them."""
        with self._errors():
            for name in names:
                await self._client.delete(*redis_names(name.encode()))

    async def close(self) -> None:
        """Give the connection up."""
        await self._client.aclose()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (RedisError, OSError) as exc:
            said = " ".join(str(exc).split())
            raise CommandFailed(f"Redis at {self._address}: {said}") from exc


def through(proxy: Proxy) -> Connect:
    """Return how to reach a server by way of a proxy, TLS included."""

    async def connect(server: Server) -> Streams:
        context = tls_context(server.ca_file) if server.tls else None
        return await asyncio.open_connection(
            "127.0.0.1",
            proxy.port,
            ssl=context,
            server_hostname=server.host if context else None,
        )

    return connect
