"""Powertools' AsyncBatchProcessor with redis.asyncio: all records at once, one SET or DEL each."""

from __future__ import annotations

import os
from typing import Any

import redis.asyncio
from aws_lambda_powertools.utilities.batch import (
    AsyncBatchProcessor,
    EventType,
    async_process_partial_response,
)
from aws_lambda_powertools.utilities.data_classes.dynamo_db_stream_event import DynamoDBRecord

from plain import to_json

# A pool that waits for a free connection: without a bound, 1 000 records open 1 000.
pool = redis.asyncio.BlockingConnectionPool(
    host=os.environ["REDIS_HOST"],
    port=int(os.environ["REDIS_PORT"]),
    db=int(os.environ["REDIS_DATABASE"]),
    max_connections=50,
    timeout=None,
)
client = redis.asyncio.Redis(connection_pool=pool)
processor = AsyncBatchProcessor(event_type=EventType.DynamoDBStreams)


async def mirror(record: DynamoDBRecord) -> None:
    """Write one record."""
    assert record.dynamodb is not None
    name = f"Players:{record.dynamodb.keys['Number']}"
    if record.dynamodb.new_image:
        await client.set(name, to_json(record.dynamodb.new_image))
    else:
        await client.delete(name)


def lambda_handler(event: Any, context: Any) -> Any:
    """Write all records, report those that failed."""
    return async_process_partial_response(event, mirror, processor, context)
