"""Names and encodes items given as plain Python values, with the handler's own rules.

Mirror.redis_key and Mirror.redis_value are these functions; asyncsync.testing builds events
with dynamodb_json.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, TypeAlias

import orjson

from asyncsync.copy.equality import fields_of
from asyncsync.decode import decode, parse_stream_arn
from asyncsync.encode import EncodeRules, namer, value_encoder
from asyncsync.errors import EventError, RecordError
from asyncsync.keys import TABLE, Placeholder, parse_template, redis_names
from asyncsync.model import Key

Attributes: TypeAlias = Mapping[str, object]

LABEL = "2026-01-01T00:00:00.000"  # of a stream, where the caller names none

_ACCOUNT_ARN = "arn:aws:dynamodb:us-east-1:111122223333:table/"
_TABLE = r"(arn:[^:/]+:dynamodb:[^:/]+:[^:/]+:table/)?([A-Za-z0-9_.-]+)"

# What a number of DynamoDB holds (DynamoDB developer guide, "Data types").
_DIGITS_MAX = 38
_EXPONENTS = range(-130, 126)


# --- the handler's names and values -------------------------------------------------------------


def redis_key(rules: EncodeRules, keys: Attributes, table: str | None) -> str:
    """Return the Redis key that the handler gives an item; see Mirror.redis_key."""
    key = key_of(keys)
    if table is not None:
        table = parse_stream_arn(stream_arn(table)).table
    elif rules.key is None and Placeholder(TABLE) in parse_template(rules.config.key):
        raise TypeError(
            f"the key template {rules.config.key!r} uses the table's name: "
            "call redis_key(keys, table='Players')"
        )
    name_of = namer(tuple([attribute for attribute, _, _ in key]), table or "", rules)
    return redis_names(name_of(key))[0].decode()


def redis_value(
    rules: EncodeRules, image: Attributes, now_ms: int, key: Iterable[str]
) -> bytes | dict[bytes, bytes] | None:
    """Return the value that the handler writes for an image; see Mirror.redis_value."""
    key = tuple(key)
    if rules.config.fields is not None and not key:
        raise TypeError(
            f"fields={rules.config.fields!r} keeps the item's key, so name its attributes: "
            'call redis_value(image, key=["Number"])'
        )
    encode_value = value_encoder(rules, now_ms, key)
    if encode_value is None:
        return None
    value, _ = encode_value(orjson.dumps(image_of(image)))
    return fields_of(value) if isinstance(value, tuple) else value


def key_of(keys: Attributes) -> Key:
    """Return an item's key as a stream record has it, from Python values or DynamoDB JSON.

    Raises RecordError where these are no key of a table.
    """
    change = {"Keys": image_of(keys), "SequenceNumber": "1"}
    record = {"eventSourceARN": stream_arn("Players"), "dynamodb": change}
    decoded = decode(orjson.dumps({"Records": [record]}))
    for reject in decoded.rejects:
        raise RecordError(reject.reason, *reject.path)
    return decoded.records[0].key


def stream_arn(table: str, label: str = LABEL) -> str:
    """Return the ARN of a table's stream; `table` is the table's name or its ARN.

    Raises ValueError where either argument is wrong.
    """
    match = re.fullmatch(_TABLE, table)
    if match is None:
        raise ValueError(f"table={table!r} is neither a table's name nor a table's ARN")
    arn = f"{match[1] or _ACCOUNT_ARN}{match[2]}/stream/{label}"
    try:
        return parse_stream_arn(arn).arn
    except EventError:
        raise ValueError(
            f"label={label!r} is not a stream's label, which is an ISO time such as {LABEL}"
        ) from None


# --- DynamoDB JSON ------------------------------------------------------------------------------


def image_of(attributes: Attributes) -> dict[str, Any]:
    """Return attributes as DynamoDB JSON, whether they come so or as Python values.

    An item has a key, and no key is a map. So attributes that are all maps are DynamoDB JSON.
    Raises as dynamodb_json does.
    """
    if attributes and all(isinstance(value, Mapping) for value in attributes.values()):
        return dict(attributes)
    return dynamodb_json(attributes)


def dynamodb_json(attributes: Attributes) -> dict[str, Any]:
    """Write plain Python values as DynamoDB JSON, as a stream's record holds them.

    str is S; int, float and Decimal are N; bytes B; bool BOOL; None NULL; list and tuple L;
    a mapping M; a set SS, NS or BS. Raises TypeError for any other type, ValueError for an
    empty or mixed set and for a number that DynamoDB cannot hold.
    """
    return {name: _attribute(value, str(name)) for name, value in attributes.items()}


def _attribute(value: object, path: str) -> dict[str, Any]:
    match value:
        case None:
            return {"NULL": True}
        case bool():
            return {"BOOL": value}
        case Mapping():
            return {
                "M": {name: _attribute(each, f"{path}.{name}") for name, each in value.items()}
            }
        case list() | tuple():
            return {"L": [_attribute(each, f"{path}.{at}") for at, each in enumerate(value)]}
        case set() | frozenset():
            members = [_scalar(member, path) for member in value]
            tags = {tag for tag, _ in members}
            if len(tags) != 1:
                raise ValueError(f"{path}: a set needs members, all of one type")
            return {f"{tags.pop()}S": sorted(text for _, text in members)}
    tag, text = _scalar(value, path)
    return {tag: text}


def _scalar(value: object, path: str) -> tuple[str, str]:
    match value:
        case str():
            return "S", value
        case bytes() | bytearray():
            return "B", b64encode(value).decode()
        case int() | float() | Decimal() if not isinstance(value, bool):
            return "N", _digits(Decimal(str(value)), path)
    raise TypeError(f"{path}: DynamoDB has no type for {type(value).__name__}")


def _digits(number: Decimal, path: str) -> str:
    """Write a number as DynamoDB does. Raises ValueError where it cannot."""
    significant = "".join(map(str, number.as_tuple().digits)).strip("0")
    if not number.is_finite() or len(significant) > _DIGITS_MAX:
        raise ValueError(f"{path}: DynamoDB has no number {number}: it holds {_DIGITS_MAX} digits")
    if number and number.adjusted() not in _EXPONENTS:
        raise ValueError(f"{path}: DynamoDB has no number {number}: it holds 1E-130 to 9.99E+125")
    return digits_of(number)


def digits_of(number: Decimal) -> str:
    """Write a number without an exponent and without zeros that say nothing."""
    digits = format(number, "f")
    if "." in digits:
        digits = digits.rstrip("0").rstrip(".")
    return digits if number else "0"
