"""Finds possible orphans: key names of ours that hold a value and have no item.

A name that is not surely an item's of this table is foreign: it is counted and left alone. So
is a key of any type but string, which the handler never writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from asyncsync.copy.entries import KEYS_MAX, ReadItems
from asyncsync.copy.names import KeyNames, is_fence
from asyncsync.copy.reader import CopyReader
from asyncsync.model import Key
from asyncsync.tools.key_scan import STRING, keys_of

_GONE = b"none"


@dataclass(frozen=True, slots=True)
class Suspects:
    """Some key names: how many are ours, how many are foreign, and which have no item."""

    ours: int
    foreign: int
    keys: Sequence[Key]


async def suspects(
    names: Sequence[bytes], key_names: KeyNames, copy: CopyReader, read: ReadItems
) -> Suspects:
    """Classify key names of the copy; fences are neither ours nor foreign.

    Raises what reading table and copy raises.
    """
    names = [name for name in dict.fromkeys(names) if not is_fence(name)]
    keys = await keys_of(names, key_names, copy)
    ours = {name: key for name, key in zip(names, keys, strict=True) if key is not None}
    itemless = await _without_item(ours, read)
    types = await copy.types(itemless) if itemless else []
    orphans = [ours[n] for n, kind in zip(itemless, types, strict=True) if kind == STRING]
    wrong_type = sum(kind not in (STRING, _GONE) for kind in types)
    return Suspects(len(ours) - wrong_type, len(names) - len(ours) + wrong_type, orphans)


async def _without_item(ours: dict[bytes, Key], read: ReadItems) -> list[bytes]:
    keys = [*ours.values()]
    images: list[bytes | None] = []
    for first in range(0, len(keys), KEYS_MAX):
        images += await read(keys[first : first + KEYS_MAX])
    return [name for name, image in zip(ours, images, strict=True) if image is None]
