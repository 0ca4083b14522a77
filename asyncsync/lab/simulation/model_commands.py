"""A model of Redis as asyncsync uses it: plain commands in, reply bytes out, no I/O.

Time is an argument. The states of a real server (full, loading, a replica) are attributes that
a fault sets. model_server.py adds the scripts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha1
from typing import TypeAlias

from asyncsync.lab.simulation.model_values import (
    DOCUMENT,
    HASH,
    STRING,
    StoredValue,
    fields_of,
    flat,
    matches,
    text_of,
)
from asyncsync.lab.simulation.resp import NIL, OK, array, bulk, error, reply
from asyncsync.model import Value

Command: TypeAlias = Sequence[bytes]

# Enough for a failover that loses a few batches; older commands have reached every replica.
UNDO_COMMANDS_MAX = 64

# The reply to CLUSTER SLOTS: one endpoint has all slots, as on ElastiCache serverless.
TOPOLOGY = b"*1\r\n*3\r\n:0\r\n:16383\r\n*3\r\n$9\r\nsimulated\r\n:6379\r\n$2\r\nid\r\n"


class ErrorReply(Exception):
    """An error reply of the server."""


# The commands that read one value, and the type that they read.
_READ = {b"GET": STRING, b"HGETALL": HASH, b"HLEN": HASH, b"JSON.GET": DOCUMENT}


class ModelCommands(ABC):
    """One server's keys, its script cache, and its state."""

    def __init__(self) -> None:
        self.keys: dict[bytes, StoredValue] = {}
        self.scripts: set[bytes] = set()  # digests
        self.loading = False
        self.read_only = False
        self.is_full: Callable[[], bool] = never  # called for each command that takes memory
        self.changed: list[bytes] = []  # by the last command: names that it wrote or removed
        self._undo: deque[list[tuple[bytes, StoredValue | None]]] = deque(maxlen=UNDO_COMMANDS_MAX)

    def execute(self, command: Command, now_ms: int) -> bytes:
        """Run one command to its end and return its reply."""
        self._now_ms = now_ms
        self.changed = []
        self._before: list[tuple[bytes, StoredValue | None]] = []
        self._has_written = False
        try:
            return self._run(command)
        except ErrorReply as exc:
            return error(str(exc))
        finally:
            if self._before:
                self._undo.append(self._before)

    def get(self, name: bytes, now_ms: int) -> Value | None:
        """Return what a reader would get."""
        stored = self.stored(name, now_ms)
        return None if stored is None else stored.value

    def stored(self, name: bytes, now_ms: int) -> StoredValue | None:
        """Return a key's value and type as a reader would find them."""
        stored = self.keys.get(name)
        return None if stored is None or 0 < stored.expires_at_ms <= now_ms else stored

    # --- faults --------------------------------------------------------------------------------

    def lose_last(self, commands: int) -> list[bytes]:
        """Fail over to a replica that lacks the last writes; return the keys that differ."""
        lost: dict[bytes, StoredValue | None] = {}
        for _ in range(min(commands, len(self._undo))):
            lost.update(reversed(self._undo.pop()))
        for name, stored in lost.items():
            self._put(name, stored)
        return list(lost)

    def lose_all(self) -> list[bytes]:
        """Lose every key; return their names."""
        names = list(self.keys)
        self.keys.clear()
        self._undo.clear()
        return names

    def evict(self, name: bytes) -> None:
        """Evict one key, as a full server does with keys that expire."""
        self.keys.pop(name, None)

    # --- commands ------------------------------------------------------------------------------

    def _run(self, command: Command) -> bytes:
        word, *arguments = command
        if self.loading:
            raise ErrorReply("LOADING Redis is loading the dataset in memory")
        if word in (b"EVALSHA", b"EVAL"):
            return self._script(word, arguments)
        if word == b"PING":
            return b"+PONG\r\n"
        if word == b"CLUSTER":
            return TOPOLOGY
        if word == b"SET":
            return NIL if self._set(arguments) is None else OK
        if word == b"DEL":
            return b":%d\r\n" % self._delete(arguments[0])
        if word in (b"HSET", b"JSON.SET", b"PERSIST", b"PEXPIREAT"):
            return self._change(word, *arguments)
        return self._read(word, arguments)

    def _change(self, word: bytes, name: bytes, *arguments: bytes) -> bytes:
        """Run one of the commands with which a script writes values that are no strings."""
        if word in (b"PERSIST", b"PEXPIREAT"):
            self._check_writable(grows=False)
            stored, ends_ms = self._live(name), int(arguments[0]) if arguments else 0
            if stored is None or (word == b"PERSIST" and not stored.expires_at_ms):
                return b":0\r\n"
            is_over = word == b"PEXPIREAT" and ends_ms <= self._now_ms
            self._write(name, None if is_over else replace(stored, expires_at_ms=ends_ms))
            return b":1\r\n"
        self._check_writable(grows=True)
        kind = HASH if word == b"HSET" else DOCUMENT
        stored = self._live(name)
        self._check_kind(stored, kind)
        ends_ms = 0 if stored is None else stored.expires_at_ms
        if kind == DOCUMENT:
            self._write(name, StoredValue(arguments[1], ends_ms, kind))
            return OK
        before = {}
        if stored is not None and isinstance(stored.value, tuple):
            before = fields_of(stored.value)
        fields = before | fields_of(arguments)
        self._write(name, StoredValue(flat(fields), ends_ms, kind))
        return b":%d\r\n" % (len(fields) - len(before))

    def _check_kind(self, stored: StoredValue | None, kind: bytes) -> None:
        if stored is not None and stored.kind != kind:
            raise ErrorReply("WRONGTYPE Operation against a key holding the wrong kind of value")

    def _read(self, word: bytes, arguments: Sequence[bytes]) -> bytes:
        if word == b"MGET":
            return array([bulk(self._string(name)) for name in arguments])
        if word == b"SCAN":  # returns all names at once, as a server may
            assert arguments[1] == b"MATCH", "the tools scan by a pattern"
            found = [name for name in sorted(self.keys) if matches(name, arguments[2])]
            names = array([bulk(name) for name in found if self._live(name) is not None])
            return array([bulk(b"0"), names])
        if word == b"TIME":
            seconds, ms = divmod(self._now_ms, 1_000)
            return array([bulk(b"%d" % seconds), bulk(b"%d" % (ms * 1_000))])
        return self._read_one(word, self._live(arguments[0]) if arguments else None)

    def _read_one(self, word: bytes, stored: StoredValue | None) -> bytes:
        if word == b"PTTL":
            left_ms = stored.expires_at_ms - self._now_ms if stored else -2
            return b":%d\r\n" % (-1 if stored and not stored.expires_at_ms else left_ms)
        if word == b"EXISTS":
            return b":%d\r\n" % (stored is not None)
        if word == b"TYPE":
            return b"+%b\r\n" % (b"none" if stored is None else stored.kind)
        if word in _READ:
            self._check_kind(stored, _READ[word])
            if word == b"HLEN":
                return b":%d\r\n" % (0 if stored is None else len(stored.value) // 2)
            return (
                reply(() if word == b"HGETALL" else None)
                if stored is None
                else reply(stored.value)
            )
        raise ErrorReply(f"ERR unknown command '{word.decode()}'")

    def _script(self, word: bytes, arguments: Sequence[bytes]) -> bytes:
        digest, key_count = arguments[0], int(arguments[1])
        if word == b"EVAL":
            digest = sha1(arguments[0], usedforsecurity=False).hexdigest().encode()
            self.scripts.add(digest)
        elif digest not in self.scripts:
            raise ErrorReply("NOSCRIPT No matching script. Please use EVAL.")
        return self.run_script(digest, arguments[2 : 2 + key_count], arguments[2 + key_count :])

    @abstractmethod
    def run_script(self, digest: bytes, keys: Sequence[bytes], argv: Sequence[bytes]) -> bytes:
        """Run a script that the server has."""

    def _set(self, arguments: Sequence[bytes]) -> StoredValue | None:
        name, value, *options = arguments
        self._check_writable(grows=True)
        expires_at_ms = 0
        if b"PXAT" in options:
            expires_at_ms = int(options[options.index(b"PXAT") + 1])
        elif b"PX" in options:
            expires_at_ms = self._now_ms + int(options[options.index(b"PX") + 1])
        elif b"KEEPTTL" in options:
            stored = self._live(name)
            expires_at_ms = 0 if stored is None else stored.expires_at_ms
        elif b"EX" in options:
            expires_at_ms = self._now_ms + int(options[options.index(b"EX") + 1]) * 1_000
        if expires_at_ms <= 0 and (b"PXAT" in options or b"EX" in options):
            raise ErrorReply("ERR invalid expire time in 'set' command")
        is_there = self._live(name) is not None
        if (b"XX" in options and not is_there) or (b"NX" in options and is_there):
            return None
        stored = StoredValue(value, expires_at_ms)
        self._write(name, stored if expires_at_ms == 0 or expires_at_ms > self._now_ms else None)
        return stored

    def _delete(self, name: bytes) -> int:
        self._check_writable(grows=False)
        was_there = self._live(name) is not None
        self._write(name, None)
        return int(was_there)

    def _check_writable(self, *, grows: bool) -> None:
        if self.read_only:
            raise ErrorReply("READONLY You can't write against a read only replica.")
        # A script that has written once may finish, however full the server is.
        if grows and not self._has_written and self.is_full():
            raise ErrorReply("OOM command not allowed when used memory > 'maxmemory'.")
        self._has_written = True

    # --- keys ----------------------------------------------------------------------------------

    def _live(self, name: bytes) -> StoredValue | None:
        return self.stored(name, self._now_ms)

    def _string(self, name: bytes) -> bytes | None:
        stored = self._live(name)
        return None if stored is None or stored.kind != STRING else text_of(stored)

    def _write(self, name: bytes, stored: StoredValue | None) -> None:
        self._before.append((name, self.keys.get(name)))
        self.changed.append(name)
        self._put(name, stored)

    def _put(self, name: bytes, stored: StoredValue | None) -> None:
        if stored is None:
            self.keys.pop(name, None)
        else:
            self.keys[name] = stored


def never() -> bool:
    """Return False: the server is not full."""
    return False
