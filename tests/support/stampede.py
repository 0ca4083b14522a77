"""One process of a stampede: it reads one key many times at once, when its input says so.

    python -m tests.support.stampede REDIS_URL ENDPOINT_URL GETS

Prints "ready", waits for a line, prints the counters and the distinct answers as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys

from redis.asyncio import Redis

from asyncsync import Config
from asyncsync.aws.clients import open_clients
from asyncsync.reader import Reader, ReaderOptions


async def main(redis_url: str, endpoint_url: str, gets: int) -> None:
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
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
