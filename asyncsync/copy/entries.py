"""Makes entries of a table's items, with the handler's own encode, so both write the same copy.

An item from the table is encoded like a stream record without a version. Key template, key
function, transform, value format and expiry are the mirror's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from msgspec import Raw

from asyncsync.config import Config
from asyncsync.encode import EncodeRules, encode
from asyncsync.errors import ConfigError
from asyncsync.fence import NO_VERSION, RANK_REJECT, read_fence
from asyncsync.model import Entry, Key, SequenceNumber, Stream, StreamRecord

# The most keys of one read (DynamoDB API reference, BatchGetItem).
KEYS_MAX = 100

# Reads items by key and returns their images in the keys' order, None where there is no item.
ReadItems: TypeAlias = Callable[[Sequence[Key]], Awaitable[Sequence[bytes | None]]]


@dataclass(frozen=True, slots=True)
class ItemEntry:
    """An item's key and its entry, with the fault where the item cannot be encoded.

    The entry is None where the item has no name, and a removal where only its value is at fault.
    """

    key: Key
    entry: Entry | None
    fault: str = ""


def entries_of(
    items: Sequence[tuple[Key, bytes | None]], table: str, rules: EncodeRules, now_ms: int
) -> list[ItemEntry]:
    """Make one entry for each item, in the given order, from its key and its image.

    An item without an image becomes a removal. Raises ConfigError as encode does.
    """
    none = SequenceNumber(0)
    records = [
        StreamRecord(key, none, str(at), image is None, Raw(image or b""))
        for at, (key, image) in enumerate(items)
    ]
    encoded = encode(records, Stream("", table, 0), rules, now_ms).finished()
    entries = {entry.item_identifier: entry for entry in encoded.entries}
    faults = {reject.item_identifier: reject.reason for reject in encoded.rejects}
    return [
        ItemEntry(
            record.key,
            entries.get(record.item_identifier),
            faults.get(record.item_identifier, ""),
        )
        for record in records
    ]


def version_in(fence: bytes | None) -> tuple[bytes, bytes] | None:
    """Return a fence's version and rank; None where its format is unknown.

    Without a fence, or with a reader's claim, they are NO_VERSION and the lowest rank.
    """
    if fence is None:
        return NO_VERSION, RANK_REJECT
    content = read_fence(fence)
    return None if content is None else (content.version, content.rank)


def refuse_without_fence(config: Config) -> None:
    """Refuse to fill or repair a copy that has no fences.

    Raises ConfigError.
    """
    if config.fence == "off":
        raise ConfigError(
            "fills and repairs need ASYNCSYNC_FENCE=on: without fences an older value could "
            "replace a newer one"
        )
