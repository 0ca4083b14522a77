"""On-failure objects of the builders' stream, as AWS writes them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import orjson

from asyncsync.fence import version
from asyncsync.model import SequenceNumber
from tests.support.events import arn, event

LABEL_MS = 1_767_225_600_000  # of the builders' stream


def at_version(sequence_number: int) -> bytes:
    return version(LABEL_MS, SequenceNumber(sequence_number))


def discarded(records: Sequence[Any], *, as_object: bool = False, table: str = "Players") -> bytes:
    """Return an on-failure object in AWS's shape; as_object: its payload is not a string."""
    made: dict[str, Any] = {
        "requestContext": {
            "requestId": "316aa6d0-8154-xmpl-85d7-4a178a6f27d1",
            "functionArn": "arn:aws:lambda:us-east-1:111122223333:function:mirror",
            "condition": "RetryAttemptsExhausted",
            "approximateInvokeCount": 4,
        },
        "responseContext": {
            "statusCode": 200,
            "executedVersion": "$LATEST",
            "functionError": None,
        },
        "version": "1.0",
        "timestamp": "2026-01-02T00:13:49.717Z",
        "DDBStreamBatchInfo": {
            "shardId": "shardId-00000001573689847184-864758bb",
            "startSequenceNumber": "1",
            "endSequenceNumber": "2",
            "approximateArrivalOfFirstRecord": "2026-01-02T00:13:19Z",
            "approximateArrivalOfLastRecord": "2026-01-02T00:13:19Z",
            "batchSize": len(records),
            "streamArn": arn(table=table),
        },
    }
    body = event(records)
    made["payload"] = json.loads(body) if as_object else body.decode()
    return orjson.dumps(made)
