"""Stream records of the tests' own table, field by field, for what a real stream would not send.

Events of plain Python values come from asyncsync.testing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from asyncsync.copy.plain import LABEL as LABEL
from asyncsync.testing.events import CREATED_S, FIRST_SEQUENCE_NUMBER, lambda_record
from asyncsync.testing.events import TABLE as TABLE

# Of the random histories in test_order.py; printed in every run's header.
SEED = int(os.environ.get("ASYNCSYNC_TEST_SEED", "20261124"))

FIRST = FIRST_SEQUENCE_NUMBER
MOTO_ACCOUNT = "123456789012"

Record = dict[str, Any]


def arn(label: str = LABEL, table: str = TABLE, account: str = "111122223333") -> str:
    """Return the ARN of a table's stream, whatever the label is."""
    return f"arn:aws:dynamodb:us-east-1:{account}:table/{table}/stream/{label}"


def item(number: int, **attributes: Any) -> dict[str, Any]:
    """Return an image of item `number`, with further attributes in DynamoDB JSON."""
    return {"Number": {"N": str(number)}, "Name": {"S": f"player {number}"}, **attributes}


def record(
    number: int,
    sequence_number: int | str,
    *,
    image: Mapping[str, Any] | None = None,
    removed: bool = False,
    created_s: float | None = CREATED_S,
    view: str = "NEW_IMAGE",
    stream_arn: str | None = None,
    **change: Any,
) -> Record:
    """Return one stream record of item `number`; `change` overrides fields of its body."""
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
    name = "REMOVE" if removed else "MODIFY"
    return {**lambda_record(name, body, arn(), "0" * 32), "eventSourceARN": stream_arn or arn()}


def event(records: Sequence[Record]) -> bytes:
    """Return the event of these records as bytes, as Lambda's runtime has it."""
    return orjson.dumps({"Records": list(records)})


def failed(response: Mapping[str, Any]) -> list[str]:
    """Return the item identifiers of a response."""
    return [failure["itemIdentifier"] for failure in response["batchItemFailures"]]
