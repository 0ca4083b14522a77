"""Builders of events as Lambda receives them; no logic beyond defaults."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

# Of the random histories in test_order.py; printed in every run's header.
SEED = int(os.environ.get("ASYNCSYNC_TEST_SEED", "20261124"))

LABEL = "2026-01-01T00:00:00.000"
TABLE = "Players"
FIRST = 10**21  # a sequence number as DynamoDB writes them, past 2**53

Record = dict[str, Any]


def arn(label: str = LABEL, table: str = TABLE) -> str:
    return f"arn:aws:dynamodb:us-east-1:111122223333:table/{table}/stream/{label}"


def item(number: int, **attributes: Any) -> dict[str, Any]:
    """A new image of item `number`, with further attributes in DynamoDB JSON."""
    return {"Number": {"N": str(number)}, "Name": {"S": f"player {number}"}, **attributes}


def record(
    number: int,
    sequence_number: int | str,
    *,
    image: Mapping[str, Any] | None = None,
    removed: bool = False,
    created_s: float | None = 1_767_225_600.0,
    view: str = "NEW_IMAGE",
    stream_arn: str | None = None,
    **change: Any,
) -> Record:
    """One stream record of item `number`; `change` overrides fields of its dynamodb object."""
    body: dict[str, Any] = {
        "Keys": {"Number": {"N": str(number)}},
        "SequenceNumber": str(sequence_number),
        "SizeBytes": 100,
        "StreamViewType": view,
    }
    if created_s is not None:
        body["ApproximateCreationDateTime"] = created_s
    if not removed:
        body["NewImage"] = dict(image) if image is not None else item(number)
    body.update(change)
    return {
        "eventID": "0" * 32,
        "eventName": "REMOVE" if removed else "MODIFY",
        "eventVersion": "1.1",
        "eventSource": "aws:dynamodb",
        "awsRegion": "us-east-1",
        "dynamodb": body,
        "eventSourceARN": stream_arn or arn(),
    }


def event(records: Sequence[Record]) -> bytes:
    """The event as bytes, the way it comes from the runtime."""
    return orjson.dumps({"Records": list(records)})


def failed(response: Mapping[str, Any]) -> list[str]:
    """The item identifiers of a response."""
    return [failure["itemIdentifier"] for failure in response["batchItemFailures"]]
