"""Powertools' BatchProcessor with redis-py: one record after the other, one SET or DEL each."""

from __future__ import annotations

import os
from typing import Any

import redis
from aws_lambda_powertools.utilities.batch import (
    BatchProcessor,
    EventType,
    process_partial_response,
)
from aws_lambda_powertools.utilities.data_classes.dynamo_db_stream_event import DynamoDBRecord

from plain import to_json

client = redis.Redis(
    os.environ["REDIS_HOST"], int(os.environ["REDIS_PORT"]), int(os.environ["REDIS_DATABASE"])
)
processor = BatchProcessor(event_type=EventType.DynamoDBStreams)


def mirror(record: DynamoDBRecord) -> None:
    """Write one record."""
    assert record.dynamodb is not None
    name = f"Players:{record.dynamodb.keys['Number']}"
    if record.dynamodb.new_image:
        client.set(name, to_json(record.dynamodb.new_image))
    else:
        client.delete(name)


def lambda_handler(event: Any, context: Any) -> Any:
    """Write each record, report those that failed."""
    return process_partial_response(event, mirror, processor, context)
