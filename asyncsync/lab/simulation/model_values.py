"""What the model server stores, and the scripts that it knows by their digests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from asyncsync.config import Config
from asyncsync.copy import fill, repair
from asyncsync.copy.reader import read_script
from asyncsync.formats import ARMS
from asyncsync.model import Value
from asyncsync.reader.protocol import LEASE_SCRIPT, LOAD_SCRIPT
from asyncsync.store import SCRIPT, digest_of, script_for

STRING, HASH, DOCUMENT = b"string", b"hash", b"ReJSON-RL"
KINDS = {"hash": HASH, "redis-json": DOCUMENT}  # of values, by format; else STRING


@dataclass(frozen=True, slots=True)
class StoredValue:
    """A key's value; expiry in epoch milliseconds, 0 for never; a hash in order of its fields."""

    value: Value
    expires_at_ms: int = 0
    kind: bytes = STRING  # as TYPE names it


def _shipped() -> Iterator[tuple[str, str, bytes]]:
    """Yield what each script does, for which format, and its text."""
    for value_format in ("json", *ARMS):
        config = Config(redis_url="redis://unused", value=value_format)  # type: ignore[arg-type]
        yield "fence", value_format, script_for(SCRIPT, value_format)
        yield "fill", value_format, script_for(fill.script_of(config), value_format)
        yield "repair", value_format, script_for(repair.script_of(config), value_format)
        if value_format in ARMS:
            yield "read", value_format, read_script(value_format)
    yield "lease", "json", LEASE_SCRIPT
    yield "load", "json", LOAD_SCRIPT


SHIPPED = {digest_of(script[-1]): script for script in _shipped()}


def fields_of(value: Sequence[bytes]) -> dict[bytes, bytes]:
    """Return a hash's fields."""
    return dict(zip(value[::2], value[1::2], strict=True))


def flat(fields: Mapping[bytes, bytes]) -> tuple[bytes, ...]:
    """Return a hash as it is stored: fields and values in turn, in order."""
    return tuple(part for field in sorted(fields.items()) for part in field)


def text_of(stored: StoredValue) -> bytes:
    """Return a string or a document."""
    assert isinstance(stored.value, bytes), "a string"
    return stored.value


def one_string(value: Value) -> bytes:
    """Return a value as repair.lua takes it: each part of a hash after its length and a colon."""
    parts = () if isinstance(value, bytes) else value
    return value if isinstance(value, bytes) else b"".join(b"%d:%b" % (len(p), p) for p in parts)


def matches(name: bytes, pattern: bytes) -> bool:
    """Return whether a name matches a pattern: a prefix, with escapes, and a star."""
    assert pattern.endswith(b"*"), "the tools scan for a prefix"
    return name.startswith(pattern[:-1].replace(b"\\", b""))
