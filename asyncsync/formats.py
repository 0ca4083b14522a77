"""The formats of values (ASYNCSYNC_VALUE): how an image becomes the bytes that readers GET.

A format has a name in config.Config.value, an encoder here, a reader in copy/equality.py for
comparisons, and an arm in fence.lua, copy/fill.lua and copy/repair.lua. SET is the arm of both
formats below, because their values are strings. A test holds the names together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from asyncsync.errors import RecordError
from asyncsync.shapes import Shapes, is_utf8

# Encodes an image's bytes; None leaves the item out. Raises RecordError.
ImageEncoder: TypeAlias = Callable[[bytes], bytes | None]


def _raw_image(image: bytes) -> bytes:
    if not image:
        raise RecordError("the record has no NewImage")
    if not is_utf8(image):  # else its bytes were read as JSON already
        raise RecordError("NewImage is not JSON")
    return image


FORMATS: Mapping[str, Callable[[Shapes], ImageEncoder]] = {
    "json": lambda shapes: shapes.encode,
    "dynamodb-json": lambda _: _raw_image,
}
