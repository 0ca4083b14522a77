"""A model of Redis as asyncsync uses it: commands as bytes in, reply bytes out, no I/O.

It implements what each shipped script promises instead of running its Lua. So it is a second
opinion on the scripts; tests compare the two on Redis and Valkey. Time is an argument. The
states of a real server (full, loading, a replica) are attributes that a fault sets.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha1
from typing import TypeAlias

from asyncsync.copy.fill import SCRIPT as FILL
from asyncsync.copy.repair import SCRIPT as REPAIR
from asyncsync.store import SCRIPT as FENCE
from asyncsync.store import digest_of

Command: TypeAlias = Sequence[bytes]

# Enough for a failover that loses a few batches; older commands have reached every replica.
UNDO_COMMANDS_MAX = 64

# The reply to CLUSTER SLOTS: one endpoint has all slots, as on ElastiCache serverless.
TOPOLOGY = b"*1\r\n*3\r\n:0\r\n:16383\r\n*3\r\n$9\r\nsimulated\r\n:6379\r\n$2\r\nid\r\n"

_OK = b"+OK\r\n"
_NIL = b"$-1\r\n"


@dataclass(frozen=True, slots=True)
class StoredValue:
    """A key's value; expiry in epoch milliseconds, 0 for never."""

    value: bytes
    expires_at_ms: int = 0


class ErrorReply(Exception):
    """An error reply of the server."""


class ModelServer:
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
            return _error(str(exc))
        finally:
            if self._before:
                self._undo.append(self._before)

    def get(self, name: bytes, now_ms: int) -> bytes | None:
        """Return what a reader would get."""
        stored = self.keys.get(name)
        if stored is None or 0 < stored.expires_at_ms <= now_ms:
            return None
        return stored.value

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
            return _NIL if self._set(arguments) is None else _OK
        if word == b"DEL":
            return b":%d\r\n" % self._delete(arguments[0])
        return self._read(word, arguments)

    def _read(self, word: bytes, arguments: Sequence[bytes]) -> bytes:
        if word == b"MGET":
            return _array([_bulk(self._value(name)) for name in arguments])
        if word == b"SCAN":  # returns all names at once, as a server may
            assert arguments[1] == b"MATCH", "the tools scan by a pattern"
            matches = [name for name in self.keys if _matches(name, arguments[2])]
            names = _array([_bulk(name) for name in matches if self._live(name) is not None])
            return _array([_bulk(b"0"), names])
        value = self._value(arguments[0]) if arguments else None
        if word == b"GET":
            return _bulk(value)
        if word == b"EXISTS":
            return b":%d\r\n" % (value is not None)
        if word == b"TYPE":  # every value is a string
            return b"+none\r\n" if value is None else b"+string\r\n"
        raise ErrorReply(f"ERR unknown command '{word.decode()}'")

    # --- scripts -------------------------------------------------------------------------------

    def _script(self, word: bytes, arguments: Sequence[bytes]) -> bytes:
        digest, key_count = arguments[0], int(arguments[1])
        if word == b"EVAL":
            digest = sha1(arguments[0], usedforsecurity=False).hexdigest().encode()
            self.scripts.add(digest)
        elif digest not in self.scripts:
            raise ErrorReply("NOSCRIPT No matching script. Please use EVAL.")
        return self.run_script(digest, arguments[2 : 2 + key_count], arguments[2 + key_count :])

    def run_script(self, digest: bytes, keys: Sequence[bytes], argv: Sequence[bytes]) -> bytes:
        """Do what a shipped script promises; no other script is modelled."""
        if digest == _FENCE:
            return self._fence(keys, argv)
        if digest == _FILL:
            return self._fill(keys, argv)
        assert digest == _REPAIR, "a script that is not modelled"
        return self._repair(keys, argv)

    def _fence(self, keys: Sequence[bytes], argv: Sequence[bytes]) -> bytes:
        fence_ttl_s, set_option, entries = int(argv[0]), argv[1], argv[2:]
        # The script reads every fence before it writes any.
        fences = [self._live(fence) for fence in keys[1::2]]
        replies = []
        for at, fence in enumerate(keys[1::2]):
            version, expiry, value = entries[3 * at : 3 * at + 3]
            seen = fences[at]
            if seen is not None and version < seen.value:
                replies.append(b":0\r\n")
            else:
                replies.append(
                    self._fenced(
                        keys[2 * at], fence, (version, expiry, value), fence_ttl_s, set_option
                    )
                )
        return _array(replies)

    def _fill(self, keys: Sequence[bytes], argv: Sequence[bytes]) -> bytes:
        fences = [self._live(fence) for fence in keys[1::2]]
        return _array(
            [
                self._filled(keys[2 * at], fence, argv[3 * at + 3], argv[3 * at + 4])
                for at, fence in enumerate(fences)
            ]
        )

    def _filled(
        self, name: bytes, fence: StoredValue | None, expiry: bytes, value: bytes
    ) -> bytes:
        """Write a value where there is none; a fence without a version is a reader's lease."""
        if fence is not None and not fence.value.startswith(b"0"):
            return b":2\r\n" if self._live(name) is None else b":0\r\n"
        try:
            stored = self._set((name, value, *((b"PXAT", expiry) if expiry else ()), b"NX"))
        except ErrorReply as exc:
            return _bulk(str(exc).encode())
        return b":%d\r\n" % (stored is not None)

    def _repair(self, keys: Sequence[bytes], argv: Sequence[bytes]) -> bytes:
        name, fence_name = keys
        fence_ttl, set_option, fence_seen, had_value, value_seen, fence, expiry, value = argv
        now = self._value(name)
        is_unchanged = (
            (self._value(fence_name) or b"") == fence_seen
            and (now is not None) == (had_value == b"1")
            and (now or b"") == value_seen
        )
        if not is_unchanged:
            return _array([b":0\r\n"])
        entry = (fence, expiry, value)
        return _array([self._fenced(name, fence_name, entry, int(fence_ttl), set_option)])

    def _fenced(
        self,
        name: bytes,
        fence: bytes,
        entry: tuple[bytes, bytes, bytes],
        fence_ttl_s: int,
        set_option: bytes,
    ) -> bytes:
        """Write a value, then its fence; if the value is refused, leave the fence alone."""
        version, expiry, value = entry
        try:
            if expiry == b"-":
                self._delete(name)
            else:
                options = (b"PXAT", expiry) if expiry else ()
                self._set((name, value, *options, *((b"XX",) if set_option == b"XX" else ())))
            self._set((fence, version, b"EX", b"%d" % fence_ttl_s))
        except ErrorReply as exc:
            return _bulk(str(exc).encode())
        return b":1\r\n"

    def _set(self, arguments: Sequence[bytes]) -> StoredValue | None:
        name, value, *options = arguments
        self._check_writable(grows=True)
        expires_at_ms = 0
        if b"PXAT" in options:
            expires_at_ms = int(options[options.index(b"PXAT") + 1])
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
        stored = self.keys.get(name)
        return None if stored is None or 0 < stored.expires_at_ms <= self._now_ms else stored

    def _value(self, name: bytes) -> bytes | None:
        stored = self._live(name)
        return None if stored is None else stored.value

    def _write(self, name: bytes, stored: StoredValue | None) -> None:
        self._before.append((name, self.keys.get(name)))
        self.changed.append(name)
        self._put(name, stored)

    def _put(self, name: bytes, stored: StoredValue | None) -> None:
        if stored is None:
            self.keys.pop(name, None)
        else:
            self.keys[name] = stored


_FENCE, _FILL, _REPAIR = digest_of(FENCE), digest_of(FILL), digest_of(REPAIR)


def _matches(name: bytes, pattern: bytes) -> bool:
    """Return whether a name matches a pattern: a prefix, with escapes, and a star."""
    assert pattern.endswith(b"*"), "the tools scan for a prefix"
    return name.startswith(pattern[:-1].replace(b"\\", b""))


def _bulk(value: bytes | None) -> bytes:
    return _NIL if value is None else b"$%d\r\n%b\r\n" % (len(value), value)


def _array(replies: Sequence[bytes]) -> bytes:
    return b"*%d\r\n%b" % (len(replies), b"".join(replies))


def never() -> bool:
    """Return False: the server is not full."""
    return False


def _error(text: str) -> bytes:
    return b"-%b\r\n" % text.encode()
