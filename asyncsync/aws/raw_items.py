"""Items as DynamoDB sent them, taken out of an answer before the SDK makes objects of them.

An item in an answer is already the image that its stream record would have. So it is left as
text: to parse one of 1 KB takes the SDK some 140 us, and it would have to be written again;
this takes 9, its key included (measured). Where an answer is not JSON as it is known here, the
SDK parses it as ever.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import msgspec
from msgspec import Raw

# Which member of an operation's answer has the items, and what it is made of.
_MEMBERS: dict[str, tuple[str, msgspec.json.Decoder[Any]]] = {
    "Scan": ("Items", msgspec.json.Decoder(list[Raw])),
    "BatchGetItem": ("Responses", msgspec.json.Decoder(dict[str, list[Raw]])),
}
_FIELDS = msgspec.json.Decoder(dict[str, Raw])

_is_wanted: ContextVar[bool] = ContextVar("items are wanted as they were sent", default=False)


@contextmanager
def raw_items() -> Iterator[None]:
    """Within the block, the answers of a client that leaves items as they were sent do so."""
    before = _is_wanted.set(True)
    try:
        yield
    finally:
        _is_wanted.reset(before)


def leave_items(events: Any) -> None:
    """Make a client whose events these are leave items as they were sent, where it is asked to."""
    for operation in _MEMBERS:
        events.register(f"before-parse.dynamodb.{operation}", _before_parse)


def _before_parse(
    operation_model: Any,
    response_dict: dict[str, Any],
    customized_response_dict: dict[str, Any],
    **_: object,
) -> None:
    """Give the SDK the answer without its items, and put the items into what it makes of it."""
    if not _is_wanted.get():
        return
    try:
        rest, member, items = without_items(operation_model.name, response_dict["body"])
    except (msgspec.DecodeError, KeyError):
        return  # an error, or of another form
    response_dict["body"] = rest
    customized_response_dict[member] = items


def without_items(operation: str, body: bytes) -> tuple[bytes, str, Any]:
    """Take an answer apart: the rest of it, and the member that has the items, which are text.

    Raises DecodeError or KeyError where it is not such an answer.
    """
    member, decoder = _MEMBERS[operation]
    fields = _FIELDS.decode(body)
    items = decoder.decode(fields.pop(member))
    return msgspec.json.encode(fields), member, items
