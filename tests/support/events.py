"""Build DynamoDB stream events as Lambda delivers them.

    stream_event(
        insert({"Number": 10}, {"Name": "Pelé"}),
        modify({"Number": 7}, {"Name": "Zoë", "Goals": 12}),
        remove({"Number": 9}),
    )

Keys and attributes are plain Python values. Every record is newer than all built before it, as
in a stream. `record` builds one record of the tests' own table from DynamoDB JSON, field by
field, for what a real stream would not send.
"""

from __future__ import annotations

import os
import time
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import count
from typing import Any, Literal

import orjson

# Of the random histories in test_order.py; printed in every run's header.
SEED = int(os.environ.get("ASYNCSYNC_TEST_SEED", "20261124"))

LABEL = "2026-01-01T00:00:00.000"
TABLE = "Players"
MOTO_ACCOUNT = "123456789012"
FIRST = 10**21  # a sequence number as DynamoDB writes them, past 2**53

Record = dict[str, Any]
Attributes = Mapping[str, object]
View = Literal["KEYS_ONLY", "NEW_IMAGE", "OLD_IMAGE", "NEW_AND_OLD_IMAGES"]

_sequence_numbers = count(FIRST)


# --- events from plain Python values ------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Change:
    """One change of one item. Images hold all attributes, the keys included; None: no item."""

    keys: Attributes
    old: Attributes | None
    new: Attributes | None


def insert(keys: Attributes, attributes: Attributes) -> Change:
    """Create an item with these keys and these further attributes."""
    return Change(keys, None, {**keys, **attributes})


def modify(keys: Attributes, attributes: Attributes, old: Attributes | None = None) -> Change:
    """Replace an item's attributes; `old` are those before (default: none but the keys)."""
    return Change(keys, {**keys, **(old or {})}, {**keys, **attributes})


def remove(keys: Attributes, old: Attributes | None = None) -> Change:
    """Delete an item; `old` are its attributes before (default: none but the keys)."""
    return Change(keys, {**keys, **(old or {})}, None)


def stream_event(
    *changes: Change,
    table: str = TABLE,
    view: View = "NEW_AND_OLD_IMAGES",
    created_s: float | None = None,
    first_sequence_number: int | None = None,
) -> dict[str, Any]:
    """Return the event of one batch, one record per change, oldest first.

    `created_s` is the records' creation in epoch seconds (default: now). Sequence numbers rise
    by one from `first_sequence_number` (default: above those of every event built before).
    Raises TypeError or ValueError where DynamoDB has no type for a value.
    """
    numbers = _sequence_numbers if first_sequence_number is None else count(first_sequence_number)
    created_s = time.time() if created_s is None else created_s
    records = []
    for change, number in zip(changes, numbers, strict=False):
        images: Record = {}
        if change.new is not None and view in ("NEW_IMAGE", "NEW_AND_OLD_IMAGES"):
            images["NewImage"] = dynamodb_json(change.new)
        if change.old is not None and view in ("OLD_IMAGE", "NEW_AND_OLD_IMAGES"):
            images["OldImage"] = dynamodb_json(change.old)
        body = {
            "ApproximateCreationDateTime": float(int(created_s)),
            "Keys": dynamodb_json(change.keys),
            **images,
            "SequenceNumber": str(number),
            "SizeBytes": len(orjson.dumps(images)),
            "StreamViewType": view,
        }
        name = "INSERT" if change.old is None else "REMOVE" if change.new is None else "MODIFY"
        records.append(_record(name, body, arn(table=table), f"{number:032x}"))
    return {"Records": records}


def dynamodb_json(attributes: Attributes) -> dict[str, Any]:
    """Write plain Python values as DynamoDB JSON, as a stream's record holds them.

    str is S; int, float and Decimal are N; bytes B; bool BOOL; None NULL; list and tuple L;
    a mapping M; a set SS, NS or BS. Raises TypeError for any other type, ValueError for an
    empty or mixed set and for a number that is not finite.
    """
    return {name: _attribute(value) for name, value in attributes.items()}


def _attribute(value: object) -> dict[str, Any]:
    match value:
        case None:
            return {"NULL": True}
        case bool():
            return {"BOOL": value}
        case Mapping():
            return {"M": dynamodb_json(value)}
        case list() | tuple():
            return {"L": [_attribute(member) for member in value]}
        case set() | frozenset():
            members = [_scalar(member) for member in value]
            tags = {tag for tag, _ in members}
            if len(tags) != 1:
                raise ValueError("a set needs members, all of one type")
            return {f"{tags.pop()}S": sorted(text for _, text in members)}
    tag, text = _scalar(value)
    return {tag: text}


def _scalar(value: object) -> tuple[str, str]:
    match value:
        case str():
            return "S", value
        case bytes() | bytearray():
            return "B", b64encode(value).decode()
        case int() | float() | Decimal() if not isinstance(value, bool):
            return "N", _digits(Decimal(str(value)))
    raise TypeError(f"DynamoDB has no type for {type(value).__name__}")


def _digits(number: Decimal) -> str:
    """Write a number as DynamoDB does: no exponent, no zeros that say nothing."""
    if not number.is_finite():
        raise ValueError(f"DynamoDB has no number {number}")
    digits = format(number, "f")
    if "." in digits:
        digits = digits.rstrip("0").rstrip(".")
    return digits if number else "0"


# --- records of the tests' table, field by field ------------------------------------------------


def arn(label: str = LABEL, table: str = TABLE, account: str = "111122223333") -> str:
    """Return the ARN of a table's stream."""
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
    created_s: float | None = 1_767_225_600.0,
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
    return _record("REMOVE" if removed else "MODIFY", body, stream_arn or arn(), "0" * 32)


def _record(name: str, body: Mapping[str, Any], stream_arn: str, event_id: str) -> Record:
    return {
        "eventID": event_id,
        "eventName": name,
        "eventVersion": "1.1",
        "eventSource": "aws:dynamodb",
        "awsRegion": "us-east-1",
        "dynamodb": dict(body),
        "eventSourceARN": stream_arn,
    }


def event(records: Sequence[Record]) -> bytes:
    """Return the event of these records as bytes, as Lambda's runtime has it."""
    return orjson.dumps({"Records": list(records)})


def failed(response: Mapping[str, Any]) -> list[str]:
    """Return the item identifiers of a response."""
    return [failure["itemIdentifier"] for failure in response["batchItemFailures"]]
