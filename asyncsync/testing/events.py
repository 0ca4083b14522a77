"""Builds DynamoDB stream events as Lambda delivers them, from plain Python values.

No clock and no chance is in them: the same calls give the same events.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal, TypeAlias, overload

import orjson

from asyncsync.copy.plain import LABEL, Attributes, dynamodb_json, key_of, stream_arn
from asyncsync.limits import SEQUENCE_NUMBER_DIGITS_MAX

View: TypeAlias = Literal["KEYS_ONLY", "NEW_IMAGE", "OLD_IMAGE", "NEW_AND_OLD_IMAGES"]

# Who deletes an expired item (DynamoDB developer guide, "DynamoDB Streams and TTL").
TTL_DELETION: Mapping[str, str] = {"type": "Service", "principalId": "dynamodb.amazonaws.com"}

TABLE = "Players"
CREATED_S = 1_767_225_600.0  # 2026-01-01
FIRST_SEQUENCE_NUMBER = 10**21  # as DynamoDB writes them, past 2**53

_sequence_numbers = count(FIRST_SEQUENCE_NUMBER)


@dataclass(frozen=True, slots=True)
class TableChange:
    """One change of one item, made by insert, modify or remove.

    Images hold all attributes, the keys included; None: no item.
    """

    keys: Attributes
    old: Attributes | None
    new: Attributes | None
    sequence_number: int | str | None = None
    user_identity: Mapping[str, str] | None = None


def insert(
    keys: Attributes, attributes: Attributes, *, sequence_number: int | str | None = None
) -> TableChange:
    """Create an item.

    Args:
        keys: the item's one or two key attributes.
        attributes: its other attributes.
        sequence_number: of the record; default: the next one of the event.

    Raises ValueError where an attribute contradicts the keys.

        insert({"Number": 7}, {"Name": "Ada", "Scores": [1, Decimal("2.5")], "Tags": {"a", "b"}})
    """
    return TableChange(keys, None, _image(keys, attributes), sequence_number)


def modify(
    keys: Attributes,
    attributes: Attributes,
    old: Attributes | None = None,
    *,
    sequence_number: int | str | None = None,
) -> TableChange:
    """Replace an item's attributes.

    Args:
        keys: the item's one or two key attributes.
        attributes: its other attributes after the change.
        old: its other attributes before the change; default: none.
        sequence_number: of the record; default: the next one of the event.

    Raises ValueError where an attribute contradicts the keys.

        modify({"Number": 7}, {"Name": "Ada", "Goals": 1}, old={"Name": "Ada"})
    """
    return TableChange(keys, _image(keys, old or {}), _image(keys, attributes), sequence_number)


def remove(
    keys: Attributes,
    old: Attributes | None = None,
    *,
    sequence_number: int | str | None = None,
    user_identity: Mapping[str, str] | None = None,
) -> TableChange:
    """Delete an item.

    Args:
        keys: the item's one or two key attributes.
        old: its other attributes before the change; default: none.
        sequence_number: of the record; default: the next one of the event.
        user_identity: who deleted it: TTL_DELETION for an item that expired; default: a user,
            of whom a record says nothing.

    Raises ValueError where an attribute contradicts the keys.

        remove({"Number": 7}, user_identity=TTL_DELETION)
    """
    return TableChange(keys, _image(keys, old or {}), None, sequence_number, user_identity)


def _image(keys: Attributes, attributes: Attributes) -> Attributes:
    for name in keys.keys() & attributes.keys():
        if keys[name] != attributes[name]:
            raise ValueError(f"attribute {name!r} is in the keys with another value")
    return {**keys, **attributes}


@overload
def stream_event(
    *changes: TableChange,
    table: str = TABLE,
    label: str = LABEL,
    view: View = "NEW_AND_OLD_IMAGES",
    created_s: float = CREATED_S,
    first_sequence_number: int | None = None,
    as_bytes: Literal[False] = False,
) -> dict[str, Any]: ...
@overload
def stream_event(
    *changes: TableChange,
    table: str = TABLE,
    label: str = LABEL,
    view: View = "NEW_AND_OLD_IMAGES",
    created_s: float = CREATED_S,
    first_sequence_number: int | None = None,
    as_bytes: Literal[True],
) -> bytes: ...
def stream_event(
    *changes: TableChange,
    table: str = TABLE,
    label: str = LABEL,
    view: View = "NEW_AND_OLD_IMAGES",
    created_s: float = CREATED_S,
    first_sequence_number: int | None = None,
    as_bytes: bool = False,
) -> dict[str, Any] | bytes:
    """Return the event of one batch: one record for each change, oldest first.

    Deliver one event twice for a duplicate. Give changes a `sequence_number` for records out of
    order, and a later `label` for a stream that was created again.

    Args:
        changes: from insert, modify and remove.
        table: the table's name, or its ARN for another Region or account.
        label: the stream's label, the ISO time of its creation.
        view: the stream's view type, which decides the images of a record.
        created_s: creation of the records, in epoch seconds.
        first_sequence_number: of the first change; they rise by one. Default: above those of
            every event built before without this argument.
        as_bytes: return JSON, as Lambda's runtime has it, instead of what it parses.

    Raises TypeError or ValueError where an argument is wrong or DynamoDB has no type for a value,
    RecordError where the keys of a change are no key.

        stream_event(insert({"Number": 7}, {"Name": "Ada"}), remove({"Number": 9}))
    """
    numbers = _sequence_numbers if first_sequence_number is None else count(first_sequence_number)
    arn = stream_arn(table, label)
    records = []
    for change in changes:
        if change.sequence_number is None:
            number = str(next(numbers))
        else:
            number = str(change.sequence_number)
        records.append(_record(change, arn, number, view, created_s))
    event = {"Records": records}
    return orjson.dumps(event) if as_bytes else event


def _record(
    change: TableChange, arn: str, sequence_number: str, view: View, created_s: float
) -> dict[str, Any]:
    key_of(change.keys)
    _refuse_number(sequence_number)
    images = {}
    if change.new is not None and view in ("NEW_IMAGE", "NEW_AND_OLD_IMAGES"):
        images["NewImage"] = dynamodb_json(change.new)
    if change.old is not None and view in ("OLD_IMAGE", "NEW_AND_OLD_IMAGES"):
        images["OldImage"] = dynamodb_json(change.old)
    body = {
        "ApproximateCreationDateTime": float(int(created_s)),
        "Keys": dynamodb_json(change.keys),
        **images,
        "SequenceNumber": sequence_number,
        "SizeBytes": len(orjson.dumps(images)),
        "StreamViewType": view,
    }
    name = "INSERT" if change.old is None else "REMOVE" if change.new is None else "MODIFY"
    record = lambda_record(name, body, arn, f"{int(sequence_number):032x}"[-32:])
    if change.user_identity is not None:
        record["userIdentity"] = dict(change.user_identity)
    return record


def _refuse_number(text: str) -> None:
    is_number = text.isdigit() and text.isascii()
    if not is_number or len(text) > SEQUENCE_NUMBER_DIGITS_MAX:
        raise ValueError(
            f"sequence_number={text!r} is not a number of 1 to {SEQUENCE_NUMBER_DIGITS_MAX} digits"
        )


def lambda_record(name: str, body: Mapping[str, Any], arn: str, event_id: str) -> dict[str, Any]:
    """Return one record as Lambda delivers it, around the body that the stream has."""
    return {
        "eventID": event_id,
        "eventName": name,
        "eventVersion": "1.1",
        "eventSource": "aws:dynamodb",
        "awsRegion": arn.split(":")[3],
        "dynamodb": dict(body),
        "eventSourceARN": arn,
    }
