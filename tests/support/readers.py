"""A reader's surroundings in tests: a table that is watched, and the copy's clients.

As a program it is one process of a stampede, which reads one key many times at once:

    python -m tests.support.readers REDIS_URL ENDPOINT_URL GETS

It prints "ready", waits for a line, and prints its counters and distinct answers as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from asyncsync.aws.clients import AwsClients, open_clients
from asyncsync.config import Config
from asyncsync.lab.servers import ServerProcess
from asyncsync.mirror import Mirror
from asyncsync.reader import Reader
from asyncsync.reader.options import ReaderOptions

Step = Callable[[], Awaitable[object]]


class WatchedTable:
    """A client of DynamoDB that counts a reader's reads; a step may run before each answers."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.items = 0  # that reads asked for
        self.requests: list[str] = []
        self.during: Step | None = None
        self.error: Exception | None = None
        self.unread = 0  # so many batch reads leave all but one key unread

    async def get_item(self, **request: Any) -> Any:
        assert request["ConsistentRead"]
        self._count("GetItem", 1)
        answer = await self._client.get_item(**request)
        await self._step()
        return answer

    async def batch_get_item(self, **request: Any) -> Any:
        ((table, asked),) = request["RequestItems"].items()
        assert asked["ConsistentRead"]
        self._count("BatchGetItem", len(asked["Keys"]))
        rest = []
        if self.unread and len(asked["Keys"]) > 1:
            self.unread -= 1
            rest = asked["Keys"][1:]
            request = {"RequestItems": {table: {**asked, "Keys": asked["Keys"][:1]}}}
        answer = await self._client.batch_get_item(**request)
        if rest:
            answer["UnprocessedKeys"] = {table: {**asked, "Keys": rest}}
        await self._step()
        return answer

    def _count(self, request: str, items: int) -> None:
        self.requests.append(request)
        self.items += items
        if self.error is not None:
            raise self.error

    async def _step(self) -> None:
        if self.during is not None:
            step, self.during = self.during, None
            await step()


class EndlessTable:
    """A client of a table that has an item of every number, and notes when each was read."""

    def __init__(self, latency_s: float = 0.002) -> None:
        self._latency_s = latency_s
        self.reads: list[float] = []  # when, on the monotonic clock; one for each item

    async def get_item(self, **request: Any) -> Any:
        return {"Item": (await self._items([request["Key"]]))[0]}

    async def batch_get_item(self, **request: Any) -> Any:
        ((table, asked),) = request["RequestItems"].items()
        return {"Responses": {table: await self._items(asked["Keys"])}, "UnprocessedKeys": {}}

    async def _items(self, keys: Sequence[Any]) -> list[Any]:
        self.reads += [time.monotonic()] * len(keys)
        await asyncio.sleep(self._latency_s)
        return [{**key, "Name": {"S": f"player {key['Number']['N']}"}} for key in keys]

    def assert_within(self, per_s: int) -> None:
        """Assert that no stretch of time holds more reads than it may: a second's are saved."""
        first_s = self.reads[0]
        for at, read_s in enumerate(self.reads, 1):
            assert at <= per_s * (read_s - first_s + 1) + 1


def redis_client(server: ServerProcess) -> Redis:
    """Return a client as a user would make it, that does not wait between its tries."""
    return Redis(host=server.host, port=server.port, retry=Retry(NoBackoff(), 1))


@asynccontextmanager
async def reading(
    clients: AwsClients, server: ServerProcess, mirror: Mirror, table: str, **arguments: Any
) -> AsyncIterator[tuple[Reader, WatchedTable]]:
    """Open a reader over a client of the server and a watched table."""
    options = {"timeout_ms": 5_000, **arguments.pop("options", {})}
    watched: Any = WatchedTable(clients.items)
    redis = redis_client(server)
    try:
        async with Reader(
            mirror,
            table,
            redis=redis,
            dynamodb=watched,
            options=ReaderOptions(**options),
            **arguments,
        ) as reader:
            yield reader, watched
    finally:
        await redis.aclose()
        await asyncio.sleep(0)  # lets the sockets close


async def stampede(redis_url: str, endpoint_url: str, gets: int) -> None:
    """Read Players 7 so many times at once."""
    async with open_clients(endpoint_url, {}) as clients, Redis.from_url(redis_url) as redis:
        await redis.ping()
        # A process of many on a busy machine is slow; one of production waits half a second.
        options = ReaderOptions(wait_ms=20_000, lease_ms=20_000, timeout_ms=20_000)
        arguments = {"redis": redis, "dynamodb": clients.items, "options": options}
        config = Config(redis_url=redis_url)
        async with Reader(config, "Players", **arguments) as reader:  # type: ignore[arg-type]
            print("ready", flush=True)
            await asyncio.to_thread(sys.stdin.readline)
            items = await asyncio.gather(*(reader.get({"Number": 7}) for _ in range(gets)))
    answers = sorted({str(each) for each in items})
    print(json.dumps({"counters": reader.counters.as_dict(), "answers": answers}))


if __name__ == "__main__":
    asyncio.run(stampede(sys.argv[1], sys.argv[2], int(sys.argv[3])))
