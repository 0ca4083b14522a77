"""Stage 4: entries in, the commands of one round trip out; pure data, not yet sent.

One script call carries many keys, within the server's limits: arguments, bytes, and how long a
script may block the server; on a cluster, keys of one slot. Without the fence there is one plain
command per key. A call is ready as soon as its last entry is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

from asyncsync.config import Config
from asyncsync.keys import slot
from asyncsync.limits import (
    CALL_ARGUMENTS_MAX,
    CALL_BYTES_MAX,
    CALL_DOCUMENTS_MAX,
    CALL_HASHES_MAX,
    CALL_KEYS_MAX,
)
from asyncsync.model import Call, Entry

_ARGUMENTS_FIXED = 5  # EVALSHA, digest, key count, the fence's TTL, SET's option
_ARGUMENTS_PER_KEY = 5  # value's name, fence's name, version, expiry, value
KEYS_MAX = min(CALL_KEYS_MAX, (CALL_ARGUMENTS_MAX - _ARGUMENTS_FIXED) // _ARGUMENTS_PER_KEY)

_KEYS_MAX = {"hash": CALL_HASHES_MAX, "redis-json": CALL_DOCUMENTS_MAX}

# What is left of a call of so many keys for the fields of hashes. One larger hash goes alone.
FIELD_ARGUMENTS_MAX = CALL_ARGUMENTS_MAX - _ARGUMENTS_FIXED - KEYS_MAX * _ARGUMENTS_PER_KEY


def plan(entries: Iterable[Entry], config: Config) -> Iterator[Call]:
    """Order the writes of a batch into calls; every entry is in exactly one."""
    places = enumerate(entries)
    return _by_slot(places, config) if config.redis_cluster else _calls(places, config)


_Places: TypeAlias = Iterable[tuple[int, Entry]]


def _by_slot(places: _Places, config: Config) -> Iterator[Call]:
    slots: dict[int, list[tuple[int, Entry]]] = {}
    for at, entry in places:
        slots.setdefault(slot(entry.name), []).append((at, entry))
    for number, share in slots.items():
        yield from _calls(share, config, number)


def _calls(places: _Places, config: Config, number: int | None = None) -> Iterator[Call]:
    if config.fence == "off":
        for at, entry in places:
            yield _plain(at, entry, config, number)
    else:
        for chunk in _chunks(places, _KEYS_MAX.get(config.value, KEYS_MAX)):
            yield _fenced(chunk, config, number)


def _chunks(places: _Places, keys_max: int) -> Iterator[list[tuple[int, Entry]]]:
    """Split entries into what one script call may carry."""
    chunk: list[tuple[int, Entry]] = []
    size = fields = 0
    for place in places:
        entry = place[1]
        value, entry_fields = entry.value, 0
        entry_bytes = len(entry.name) + len(entry.fence)
        if isinstance(value, bytes):
            entry_bytes += len(value)
        elif value is not None:
            entry_bytes += sum(map(len, value))
            entry_fields = len(value) + 1
        if chunk and (
            len(chunk) == keys_max
            or size + entry_bytes > CALL_BYTES_MAX
            or fields + entry_fields > FIELD_ARGUMENTS_MAX
        ):
            yield chunk
            chunk, size, fields = [], 0, 0
        chunk.append(place)
        size += entry_bytes
        fields += entry_fields
    if chunk:
        yield chunk


def _fenced(chunk: Sequence[tuple[int, Entry]], config: Config, number: int | None) -> Call:
    names: list[bytes] = []
    arguments: list[bytes] = []
    fields: list[bytes] = []  # of hashes, after the arguments of all keys
    for _, entry in chunk:
        names += (entry.name, entry.fence)
        value = entry.value
        if value is None:
            arguments += (entry.version, b"-", b"")
            continue
        if isinstance(value, tuple):
            place = 2 + 3 * len(chunk) + len(fields) + 1  # Lua counts ARGV from 1
            fields += (b"%d" % len(value), *value)
            value = b"%d" % place
        expiry = b"%d" % entry.expires_at_ms if entry.expires_at_ms else b""
        arguments += (entry.version, expiry, value)
    fence_ttl = b"%d" % config.fence_ttl_s
    set_option = b"XX" if config.mode == "refresh" else b""
    words = (b"%d" % len(names), *names, fence_ttl, set_option, *arguments, *fields)
    return Call(words, [at for at, _ in chunk], fenced=True, slot=number)


def _plain(at: int, entry: Entry, config: Config, number: int | None) -> Call:
    if entry.value is None:
        return Call((b"DEL", entry.name), (at,), fenced=False, slot=number)
    assert isinstance(entry.value, bytes), "hashes are written by the fence's script"
    expiry = (b"PXAT", b"%d" % entry.expires_at_ms) if entry.expires_at_ms else ()
    set_option = (b"XX",) if config.mode == "refresh" else ()
    arguments = (b"SET", entry.name, entry.value, *expiry, *set_option)
    return Call(arguments, (at,), fenced=False, slot=number)
