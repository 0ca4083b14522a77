"""Which of the copy's names may be orphans: ours, holding a value, and no item is read for them.

A name that is not surely an item's of this table is foreign: it is counted and left alone, as
is a key of any type but string, which the handler never writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from asyncsync.copy.entries import KEYS_MAX, ReadItems
from asyncsync.copy.names import KeyNames, is_fence
from asyncsync.copy.reader import CopyReader
from asyncsync.model import Key
from asyncsync.tools.key_scan import keys_of

_STRING, _GONE = b"string", b"none"


@dataclass(frozen=True, slots=True)
class Suspects:
    """What a few names are: how many are ours, how many foreign, which have no item."""

    ours: int
    foreign: int
    keys: Sequence[Key]


async def suspects(
    found: Sequence[bytes], names: KeyNames, copy: CopyReader, read: ReadItems
) -> Suspects:
    """Tell names of the copy apart; a fence is neither ours nor foreign.

    Raises what reading table and copy raises.
    """
    items = [name for name in dict.fromkeys(found) if not is_fence(name)]
    keys = await keys_of(items, names, copy)
    ours = [(name, key) for name, key in zip(items, keys, strict=True) if key is not None]
    without: list[tuple[bytes, Key]] = []
    for first in range(0, len(ours), KEYS_MAX):
        few = ours[first : first + KEYS_MAX]
        images = await read([key for _, key in few])
        without += [each for each, image in zip(few, images, strict=True) if image is None]

    types = await copy.types([name for name, _ in without]) if without else []
    orphans = [key for (_, key), held in zip(without, types, strict=True) if held == _STRING]
    others = sum(held not in (_STRING, _GONE) for held in types)
    return Suspects(len(ours) - others, len(items) - len(ours) + others, orphans)
