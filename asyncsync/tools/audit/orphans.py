"""Finds possible orphans: key names of ours that hold a value and have no item.

A name that is not surely an item's of this table is foreign: it is counted and left alone. So
is a key of any type but string, which the handler never writes, unless the item's fence is
beside it: then the handler has removed that item, and readers must find nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from asyncsync.copy.entries import KEYS_MAX, ReadItems
from asyncsync.copy.names import KeyNames, is_fence
from asyncsync.copy.reader import NO_KEY, STRING, CopyReader
from asyncsync.keys import redis_names
from asyncsync.model import Key
from asyncsync.tools.key_scan import keys_of


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
    types = await copy.types(itemless)
    orphans = [ours[n] for n, kind in zip(itemless, types, strict=True) if kind == STRING]
    others = [n for n, kind in zip(itemless, types, strict=True) if kind not in (STRING, NO_KEY)]
    fences = await copy.values([redis_names(name)[1] for name in others])
    mistyped = [ours[n] for n, fence in zip(others, fences, strict=True) if fence is not None]
    unfenced = len(others) - len(mistyped)
    foreign = len(names) - len(ours) + unfenced
    return Suspects(len(ours) - unfenced, foreign, [*orphans, *mistyped])


async def _without_item(ours: dict[bytes, Key], read: ReadItems) -> list[bytes]:
    keys = [*ours.values()]
    images: list[bytes | None] = []
    for first in range(0, len(keys), KEYS_MAX):
        images += await read(keys[first : first + KEYS_MAX])
    return [name for name, image in zip(ours, images, strict=True) if image is None]
