"""What the table holds, as entries: made by the handler's own encode, so there is one copy.

An item that was read from the table is handed over as a record without a version would be.
Template, key function, transform, value format and expiry are the mirror's.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import msgspec
from msgspec import Raw

from asyncsync.config import Config
from asyncsync.encode import EncodeRules, encode
from asyncsync.errors import ConfigError
from asyncsync.fence import NO_VERSION, RANK_REJECT, read_fence
from asyncsync.model import Encoded, Key, SequenceNumber, Stream, StreamRecord

# An item that was read: in the SDK's shape, or the text that DynamoDB sent.
Item: TypeAlias = Mapping[str, Mapping[str, Any]] | Raw

_FIELDS = msgspec.json.Decoder(dict[str, Raw])
_ATTRIBUTE = msgspec.json.Decoder(dict[str, str])


def entries_of(
    found: Sequence[tuple[Key, bytes | None]], table: str, rules: EncodeRules, now_ms: int
) -> Encoded:
    """Make the entry of each item from its key and image; no image is a removal.

    The item identifier of an entry or reject is its place in what was given.
    Raises ConfigError as encode does.
    """
    none = SequenceNumber(0)
    records = [
        StreamRecord(key, none, str(at), image is None, Raw(image or b""))
        for at, (key, image) in enumerate(found)
    ]
    return encode(records, Stream("", table, 0), rules, now_ms).finished()


def key_of(item: Item, names: Sequence[str]) -> Key:
    """Take the key out of an item; bytes, as the SDK has them, become their base64 text."""
    if isinstance(item, Raw):
        fields = _FIELDS.decode(item)
        item = {name: _ATTRIBUTE.decode(fields[name]) for name in names}
    return tuple([_key_attribute(name, item[name]) for name in names])


def _key_attribute(name: str, attribute: Mapping[str, Any]) -> tuple[str, str, str]:
    ((tag, held),) = attribute.items()
    return name, tag, held if isinstance(held, str) else b64encode(held).decode()


def version_in(fence: bytes | None) -> tuple[bytes, bytes] | None:
    """Return the version that a fence holds and its rank.

    Where there is no fence, or a reader's claim that has no version, it is NO_VERSION at rank
    0. None where the content is none of this format.
    """
    if fence is None:
        return NO_VERSION, RANK_REJECT
    content = read_fence(fence)
    return None if content is None else (content.version, content.rank)


def refuse_without_fence(config: Config) -> None:
    """Refuse to write beside a stream where nothing says what is newer.

    Raises ConfigError.
    """
    if config.fence == "off":
        raise ConfigError(
            "fills and repairs need ASYNCSYNC_FENCE=on: without the fence they could put an "
            "older value over a newer one"
        )
