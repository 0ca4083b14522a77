"""Stage 3, values of the format `hash`: a field for each attribute, as field, value, field, value.

S is its text, N its exact digits, BOOL true or false, B its base64 text. NULL, L, M and sets are
JSON as the format `json` writes it, with the names of each map in order: fields are compared
byte for byte, so equal attributes must give equal bytes.
"""

from __future__ import annotations

from typing import Any

import orjson

from asyncsync.errors import RecordError
from asyncsync.limits import HASH_FIELDS_MAX
from asyncsync.values import TOO_DEEP, Result, json_text, parse_image, plain_map


def encode_hash(image: bytes) -> tuple[bytes, ...]:
    """Encode an image.

    Raises RecordError with the attribute's path where a value is not DynamoDB JSON.
    """
    fields: list[bytes] = []
    try:
        for name, value in plain_map(parse_image(image)).items():
            text = value.encode() if isinstance(value, str) else _dumps(value)
            fields += (name.encode(), text)
    except (orjson.JSONEncodeError, RecursionError):
        raise RecordError(TOO_DEEP) from None
    return _limited(fields)


def _dumps(value: object) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def write_hash(result: Result) -> tuple[bytes, ...]:
    """Encode what a transform returned: text and bytes as they are, everything else as JSON.

    Raises RecordError with the name of what no field can hold.
    """
    if isinstance(result, bytes):
        raise RecordError("the transform returned bytes: a hash needs a dict of its fields")
    if not result:
        raise RecordError("the transform returned an empty dict: a hash has a field at least")
    fields: list[bytes] = []
    for name, value in result.items():
        if not isinstance(name, str):
            raise RecordError(f"the transform returned a name of type {type(name).__name__}")
        try:
            fields += (name.encode(), _field(value))
        except UnicodeEncodeError:
            raise RecordError("the transform returned text that is not UTF-8", name) from None
        except RecordError as exc:
            raise exc.inside(name) from None
    return _limited(fields)


def _field(value: Any) -> bytes:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, str):
        return str(value).encode()
    try:
        text = json_text(_in_order(value))
    except RecursionError:
        raise RecordError("the transform returned a value that is nested too deep") from None
    # A time, a UUID or an enumeration's text.
    return orjson.loads(text).encode() if text.startswith(b'"') else text


def _in_order(value: Any) -> Any:
    """Sort the names of dicts: those of a map come in any order from the table."""
    if isinstance(value, dict) and all(isinstance(name, str) for name in value):
        return {name: _in_order(value[name]) for name in sorted(value)}
    return [_in_order(member) for member in value] if isinstance(value, list | tuple) else value


def _limited(fields: list[bytes]) -> tuple[bytes, ...]:
    if len(fields) > 2 * HASH_FIELDS_MAX:
        raise RecordError(
            f"a hash of {len(fields) // 2:,} fields: one script call can write {HASH_FIELDS_MAX:,}"
        )
    return tuple(fields)
