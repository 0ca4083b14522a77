"""The formats of values (ASYNCSYNC_VALUE): how an image becomes what readers GET.

A format has a name in config.Config.value, an encoder and a writer of a transform's result here,
and a reader in copy/equality.py for comparisons. Values of the first two are strings: SET writes
them, in fence.lua, copy/fill.lua and copy/repair.lua as they stand. Each of the other two has a
module, imported only where it is chosen, and an arm in Lua, which store.script_for puts in SET's
place: the fence's comparison exists once. A test holds the names together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from asyncsync.errors import RecordError
from asyncsync.model import Value
from asyncsync.shapes import Shapes, is_utf8
from asyncsync.values import Result, plain_json

# Encodes an image's bytes; None leaves the item out. Raises RecordError.
ImageEncoder: TypeAlias = Callable[[bytes], Value | None]

# Encodes what a transform returned. Raises RecordError.
Writer: TypeAlias = Callable[[Result], Value]

# The arm of each format whose values are no strings.
ARMS = {"hash": "hash.lua", "redis-json": "document.lua"}


def _raw_image(image: bytes) -> bytes:
    if not image:
        raise RecordError("the record has no NewImage")
    if not is_utf8(image):  # else its bytes were read as JSON already
        raise RecordError("NewImage is not JSON")
    return image


def _hash_encoder(shapes: Shapes) -> ImageEncoder:
    from asyncsync.hashes import hash_shapes

    shapes.others = shapes.others or hash_shapes()
    return shapes.others.encode


def _document_encoder(shapes: Shapes) -> ImageEncoder:
    from asyncsync.documents import document_shapes

    shapes.others = shapes.others or document_shapes()
    return shapes.others.encode


def _write_hash(result: Result) -> Value:
    from asyncsync.hashes import write_hash

    return write_hash(result)


def _write_document(result: Result) -> Value:
    from asyncsync.documents import write_document

    return write_document(result)


FORMATS: Mapping[str, Callable[[Shapes], ImageEncoder]] = {
    "json": lambda shapes: shapes.encode,
    "dynamodb-json": lambda _: _raw_image,
    "hash": _hash_encoder,
    "redis-json": _document_encoder,
}

# A transform makes its own values, so there is none for dynamodb-json.
WRITERS: Mapping[str, Writer] = {
    "json": plain_json,
    "hash": _write_hash,
    "redis-json": _write_document,
}
