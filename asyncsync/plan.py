"""Stage 4: entries in, the commands of one round trip out; pure data, not yet sent.

One script call carries many keys, within the server's limits: arguments, bytes, and how long
a script may hold the server; for a cluster, keys of one slot. Without the fence it is one plain
command per key.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from asyncsync.config import Config
from asyncsync.keys import slot
from asyncsync.limits import CALL_ARGUMENTS_MAX, CALL_BYTES_MAX, CALL_KEYS_MAX
from asyncsync.model import Call, Entry

_ARGUMENTS_FIXED = 5  # EVALSHA, digest, key count, life, refresh
_ARGUMENTS_PER_KEY = 5  # value's name, fence's name, version, expiry, value
KEYS_MAX = min(CALL_KEYS_MAX, (CALL_ARGUMENTS_MAX - _ARGUMENTS_FIXED) // _ARGUMENTS_PER_KEY)


def plan(entries: Sequence[Entry], config: Config) -> list[Call]:
    """Order the writes of a batch into calls; every entry is in exactly one."""
    if config.redis_cluster:
        return list(_by_slot(entries, config))
    if config.fence == "off":
        return [_plain(at, entry, config) for at, entry in enumerate(entries)]
    return [_fenced(chunk, entries, config) for chunk in _chunks(entries)]


def _by_slot(entries: Sequence[Entry], config: Config) -> Iterator[Call]:
    slots: dict[int, list[int]] = {}
    for at, entry in enumerate(entries):
        slots.setdefault(slot(entry.name), []).append(at)
    for number, places in slots.items():
        if config.fence == "off":
            yield from (_plain(at, entries[at], config, number) for at in places)
            continue
        for chunk in _chunks([entries[at] for at in places]):
            yield _fenced(places[chunk.start : chunk.stop], entries, config, number)


def _chunks(entries: Sequence[Entry]) -> Iterator[range]:
    first = size = 0
    for at, entry in enumerate(entries):
        entry_bytes = len(entry.value or b"") + len(entry.name) + len(entry.fence)
        if at > first and (at - first == KEYS_MAX or size + entry_bytes > CALL_BYTES_MAX):
            yield range(first, at)
            first, size = at, 0
        size += entry_bytes
    if entries:
        yield range(first, len(entries))


def _fenced(
    chunk: Sequence[int], entries: Sequence[Entry], config: Config, number: int | None = None
) -> Call:
    names: list[bytes] = []
    arguments = [b"%d" % config.fence_ttl_s, b"XX" if config.mode == "refresh" else b""]
    for at in chunk:
        entry = entries[at]
        names += (entry.name, entry.fence)
        if entry.value is None:
            arguments += (entry.version, b"-", b"")
        else:
            expiry = b"%d" % entry.expires_at_ms if entry.expires_at_ms else b""
            arguments += (entry.version, expiry, entry.value)
    return Call((b"%d" % len(names), *names, *arguments), chunk, fenced=True, slot=number)


def _plain(at: int, entry: Entry, config: Config, number: int | None = None) -> Call:
    if entry.value is None:
        return Call((b"DEL", entry.name), (at,), fenced=False, slot=number)
    expiry = (b"PXAT", b"%d" % entry.expires_at_ms) if entry.expires_at_ms else ()
    only = (b"XX",) if config.mode == "refresh" else ()
    arguments = (b"SET", entry.name, entry.value, *expiry, *only)
    return Call(arguments, (at,), fenced=False, slot=number)
