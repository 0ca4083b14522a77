"""What the table holds, as entries: made by the handler's own encode, so there is one copy.

An item that was read from the table is handed over as a record without a version would be.
Template, key function, transform, value format and expiry are the mirror's.
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

# DynamoDB reads so many items at once (API_BatchGetItem).
KEYS_MAX = 100

# Items' images by key, read consistently, in the keys' order; None where there is no item.
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
