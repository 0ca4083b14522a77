"""A model of Redis as asyncsync uses it: commands of bytes in, reply bytes out, no I/O.

It knows each shipped script by what the script promises, not by running Lua, so it is a second
opinion on it; tests hold the two equal on Redis and Valkey. Time is an argument. States that a
real server gets into (full, loading, a replica) are fields to be set.
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

# Enough for a failover that loses a few batches; older commands are on every replica.
UNDO_COMMANDS_MAX = 64

# To CLUSTER SLOTS: one endpoint that holds them all, as ElastiCache serverless answers.
TOPOLOGY = b"*1\r\n*3\r\n:0\r\n:16383\r\n*3\r\n$9\r\nsimulated\r\n:6379\r\n$2\r\nid\r\n"

_OK = b"+OK\r\n"
_NIL = b"$-1\r\n"


@dataclass(frozen=True, slots=True)
class StoredValue:
    """What a key holds; expiry in epoch milliseconds, 0 for never."""

    value: bytes
    expires_at_ms: int = 0


class ErrorReply(Exception):
    """The server's error reply."""


class ModelServer:
    """One server's keys, its script cache, and the state it is in."""

    def __init__(self) -> None:
        self.keys: dict[bytes, StoredValue] = {}
        self.scripts: set[bytes] = set()  # digests
        self.loading = False
        self.read_only = False
        self.is_full: Callable[[], bool] = never  # asked for each command that takes memory
        self.changed: list[bytes] = []  # names that the last command wrote or removed
        self._undo: deque[list[tuple[bytes, StoredValue | None]]] = deque(maxlen=UNDO_COMMANDS_MAX)

    def execute(self, command: Command, now_ms: int) -> bytes:
        """Run one command to its end, as a server does, and return its reply."""
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
        held = self.keys.get(name)
        if held is None or 0 < held.expires_at_ms <= now_ms:
            return None
        return held.value

    # --- what befalls a server -----------------------------------------------------------------

    def lose_last(self, commands: int) -> list[bytes]:
        """Fail over to a replica that never got the last writes; name the keys that differ."""
        lost: dict[bytes, StoredValue | None] = {}
        for _ in range(min(commands, len(self._undo))):
            lost.update(reversed(self._undo.pop()))
        for name, held in lost.items():
            self._put(name, held)
        return list(lost)

    def lose_all(self) -> list[bytes]:
        """Lose every key; name them."""
        names = list(self.keys)
        self.keys.clear()
        self._undo.clear()
        return names

    def evict(self, name: bytes) -> None:
        """Evict one key, as a full server does to what expires."""
        self.keys.pop(name, None)

    # --- commands ------------------------------------------------------------------------------

    def _run(self, command: Command) -> bytes:
        word, *arguments = command
        if self.loading:
            raise ErrorReply("LOADING Redis is loading the dataset in memory")
        if word in (b"EVALSHA", b"EVAL"):
            return self._script(word, arguments)
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
        if word == b"SCAN":  # all names at once, which a server may do
            assert arguments[1] == b"MATCH", "the tools scan by a pattern"
            found = [each for each in self.keys if _fits(each, arguments[2])]
            names = _array([_bulk(each) for each in found if self._live(each) is not None])
            return _array([_bulk(b"0"), names])
        held = self._value(arguments[0]) if arguments else None
        if word == b"GET":
            return _bulk(held)
        if word == b"EXISTS":
            return b":%d\r\n" % (held is not None)
        if word == b"TYPE":  # all that it holds are strings
            return b"+none\r\n" if held is None else b"+string\r\n"
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
        """Do what a script promises; of the shipped ones, which are all that is modelled."""
        if digest == _FENCE:
            return self._fence(keys, argv)
        if digest == _FILL:
            return self._fill(keys, argv)
        assert digest == _REPAIR, "a script that is not modelled"
        return self._repair(keys, argv)

    def _fence(self, keys: Sequence[bytes], argv: Sequence[bytes]) -> bytes:
        life_s, only, entries = int(argv[0]), argv[1], argv[2:]
        # The script reads every fence before it writes any.
        fences = [self._live(fence) for fence in keys[1::2]]
        replies = []
        for at, fence in enumerate(keys[1::2]):
            version, expiry, value = entries[3 * at : 3 * at + 3]
            held = fences[at]
            if held is not None and version < held.value:
                replies.append(b":0\r\n")
            else:
                replies.append(
                    self._fenced(keys[2 * at], fence, (version, expiry, value), life_s, only)
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
        """Write a value where there is none; a fence without a version is a reader's claim."""
        if fence is not None and not fence.value.startswith(b"0"):
            return b":2\r\n" if self._live(name) is None else b":0\r\n"
        try:
            done = self._set((name, value, *((b"PXAT", expiry) if expiry else ()), b"NX"))
        except ErrorReply as exc:
            return _bulk(str(exc).encode())
        return b":%d\r\n" % (done is not None)

    def _repair(self, keys: Sequence[bytes], argv: Sequence[bytes]) -> bytes:
        name, fence_name = keys
        life, only, was, there, before, fence, expiry, value = argv
        held = self._value(name)
        unchanged = (
            (self._value(fence_name) or b"") == was
            and (held is not None) == (there == b"1")
            and (held or b"") == before
        )
        if not unchanged:
            return _array([b":0\r\n"])
        return _array([self._fenced(name, fence_name, (fence, expiry, value), int(life), only)])

    def _fenced(
        self,
        name: bytes,
        fence: bytes,
        entry: tuple[bytes, bytes, bytes],
        life_s: int,
        only: bytes,
    ) -> bytes:
        """Write a value, then its fence; what refuses the first leaves the second alone."""
        version, expiry, value = entry
        try:
            if expiry == b"-":
                self._delete(name)
            else:
                options = (b"PXAT", expiry) if expiry else ()
                self._set((name, value, *options, *((b"XX",) if only == b"XX" else ())))
            self._set((fence, version, b"EX", b"%d" % life_s))
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
        held = StoredValue(value, expires_at_ms)
        self._write(name, held if expires_at_ms == 0 or expires_at_ms > self._now_ms else None)
        return held

    def _delete(self, name: bytes) -> int:
        self._check_writable(grows=False)
        was_there = self._live(name) is not None
        self._write(name, None)
        return int(was_there)

    def _check_writable(self, *, grows: bool) -> None:
        if self.read_only:
            raise ErrorReply("READONLY You can't write against a read only replica.")
        # A script that has written once is let finish, however full the server is.
        if grows and not self._has_written and self.is_full():
            raise ErrorReply("OOM command not allowed when used memory > 'maxmemory'.")
        self._has_written = True

    # --- keys ----------------------------------------------------------------------------------

    def _live(self, name: bytes) -> StoredValue | None:
        held = self.keys.get(name)
        return None if held is None or 0 < held.expires_at_ms <= self._now_ms else held

    def _value(self, name: bytes) -> bytes | None:
        held = self._live(name)
        return None if held is None else held.value

    def _write(self, name: bytes, held: StoredValue | None) -> None:
        self._before.append((name, self.keys.get(name)))
        self.changed.append(name)
        self._put(name, held)

    def _put(self, name: bytes, held: StoredValue | None) -> None:
        if held is None:
            self.keys.pop(name, None)
        else:
            self.keys[name] = held


_FENCE, _FILL, _REPAIR = digest_of(FENCE), digest_of(FILL), digest_of(REPAIR)


def _fits(name: bytes, pattern: bytes) -> bool:
    """Whether a name fits a pattern of a prefix, some of its bytes escaped, and a star."""
    assert pattern.endswith(b"*"), "the tools look for a prefix"
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
