"""redis.asyncio used well: one loop, the latest record of each key, one pipeline, no MULTI."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import orjson
import redis.asyncio

runner = asyncio.Runner()
client = redis.asyncio.Redis(
    host=os.environ["REDIS_HOST"],
    port=int(os.environ["REDIS_PORT"]),
    db=int(os.environ["REDIS_DATABASE"]),
)


def lambda_handler(event: Any, context: Any) -> dict[str, Any]:
    """Write the batch; an error fails it all."""
    runner.run(mirror(event["Records"]))
    return {"batchItemFailures": []}


async def mirror(records: list[Any]) -> None:
    """Write the latest record of each key in one pipeline."""
    latest: dict[str, tuple[int, Any]] = {}
    for record in records:
        change = record["dynamodb"]
        number = change["Keys"]["Number"]["N"]
        sequence_number = int(change["SequenceNumber"])
        if number not in latest or sequence_number > latest[number][0]:
            latest[number] = sequence_number, change.get("NewImage")
    async with client.pipeline(transaction=False) as pipeline:
        for number, (_, image) in latest.items():
            if image is None:
                pipeline.delete(f"Players:{number}")
            else:
                pipeline.set(f"Players:{number}", orjson.dumps(image))
        await pipeline.execute()
