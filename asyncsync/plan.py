"""Stage 4: entries in, the commands of one round trip out; pure data, not yet sent.

One script call carries many keys, within the server's limits: arguments, bytes, and how long
a script may hold the server; for a cluster, keys of one slot. Without the fence it is one plain
command per key. A call is there as soon as its last entry is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeAlias

from asyncsync.config import Config
from asyncsync.keys import slot
from asyncsync.limits import CALL_ARGUMENTS_MAX, CALL_BYTES_MAX, CALL_KEYS_MAX
from asyncsync.model import Call, Entry

_ARGUMENTS_FIXED = 5  # EVALSHA, digest, key count, life, refresh
_ARGUMENTS_PER_KEY = 5  # value's name, fence's name, version, expiry, value
KEYS_MAX = min(CALL_KEYS_MAX, (CALL_ARGUMENTS_MAX - _ARGUMENTS_FIXED) // _ARGUMENTS_PER_KEY)


def plan(entries: Iterable[Entry], config: Config) -> Iterator[Call]:
    """Order the writes of a batch into calls; every entry is in exactly one."""
    places = enumerate(entries)
    if config.redis_cluster:
        return _by_slot(places, config)
    return _calls(places, config)


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
        return
    taken: list[int] = []
    names: list[bytes] = []
    arguments: list[bytes] = []
    size = 0
    for at, entry in places:
        entry_bytes = len(entry.value or b"") + len(entry.name) + len(entry.fence)
        if taken and (len(taken) == KEYS_MAX or size + entry_bytes > CALL_BYTES_MAX):
            yield _fenced(taken, names, arguments, config, number)
            taken, names, arguments, size = [], [], [], 0
        taken.append(at)
        names += (entry.name, entry.fence)
        if entry.value is None:
            arguments += (entry.version, b"-", b"")
        else:
            expiry = b"%d" % entry.expires_at_ms if entry.expires_at_ms else b""
            arguments += (entry.version, expiry, entry.value)
        size += entry_bytes
    if taken:
        yield _fenced(taken, names, arguments, config, number)


def _fenced(
    taken: list[int],
    names: list[bytes],
    arguments: list[bytes],
    config: Config,
    number: int | None,
) -> Call:
    life = b"%d" % config.fence_ttl_s
    only = b"XX" if config.mode == "refresh" else b""
    words = (b"%d" % len(names), *names, life, only, *arguments)
    return Call(words, taken, fenced=True, slot=number)


def _plain(at: int, entry: Entry, config: Config, number: int | None = None) -> Call:
    if entry.value is None:
        return Call((b"DEL", entry.name), (at,), fenced=False, slot=number)
    expiry = (b"PXAT", b"%d" % entry.expires_at_ms) if entry.expires_at_ms else ()
    only = (b"XX",) if config.mode == "refresh" else ()
    arguments = (b"SET", entry.name, entry.value, *expiry, *only)
    return Call(arguments, (at,), fenced=False, slot=number)
