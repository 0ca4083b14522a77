"""Keeps items as the JSON that DynamoDB sent, before the SDK makes objects of them.

That JSON already is the image of the item's stream record. For an item of 1 KB the SDK's
parsing takes some 140 us, and the item would have to be encoded again; this takes 9 us, its
key included (measured). An answer of an unknown form is left to the SDK.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import msgspec
from msgspec import Raw

# The member of each operation's answer that holds the items, and its decoder.
_MEMBERS: dict[str, tuple[str, msgspec.json.Decoder[Any]]] = {
    "Scan": ("Items", msgspec.json.Decoder(list[Raw])),
    "BatchGetItem": ("Responses", msgspec.json.Decoder(dict[str, list[Raw]])),
}
_FIELDS = msgspec.json.Decoder(dict[str, Raw])

_is_wanted: ContextVar[bool] = ContextVar("raw items are wanted", default=False)


@contextmanager
def raw_items() -> Iterator[None]:
    """Within the block, return items as raw JSON from a client that keep_raw_items prepared."""
    token = _is_wanted.set(True)
    try:
        yield
    finally:
        _is_wanted.reset(token)


def keep_raw_items(events: Any) -> None:
    """Prepare a client, by its events, to return raw items within a raw_items() block."""
    for operation in _MEMBERS:
        events.register(f"before-parse.dynamodb.{operation}", _before_parse)


def _before_parse(
    operation_model: Any,
    response_dict: dict[str, Any],
    customized_response_dict: dict[str, Any],
    **_: object,
) -> None:
    """Let the SDK parse the answer without its items, and add the raw items to the result."""
    if not _is_wanted.get():
        return
    try:
        rest, member, items = without_items(operation_model.name, response_dict["body"])
    except (msgspec.DecodeError, KeyError):
        return  # an error, or an unknown form
    response_dict["body"] = rest
    customized_response_dict[member] = items


def without_items(operation: str, body: bytes) -> tuple[bytes, str, Any]:
    """Split an answer: return the rest of it, the member that holds the items, and the raw items.

    Raises DecodeError or KeyError where it is no answer of this operation.
    """
    member, decoder = _MEMBERS[operation]
    fields = _FIELDS.decode(body)
    items = decoder.decode(fields.pop(member))
    return msgspec.json.encode(fields), member, items
