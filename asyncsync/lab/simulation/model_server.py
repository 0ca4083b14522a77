"""What each shipped script promises, instead of its Lua: a second opinion on the scripts.

Tests compare the two on Redis and Valkey.
"""

from __future__ import annotations

from collections.abc import Sequence

from asyncsync.lab.simulation.model_commands import ErrorReply, ModelCommands
from asyncsync.lab.simulation.model_values import (
    HASH,
    KINDS,
    SHIPPED,
    STRING,
    StoredValue,
    fields_of,
    flat,
    one_string,
    text_of,
)
from asyncsync.lab.simulation.resp import array, bulk, reply
from asyncsync.model import Value


class ModelServer(ModelCommands):
    """A server with the shipped scripts."""

    def run_script(self, digest: bytes, keys: Sequence[bytes], argv: Sequence[bytes]) -> bytes:
        """Do what a shipped script promises; no other script is modelled."""
        work, value_format, _ = SHIPPED[digest]
        self._kind = KINDS.get(value_format, STRING)  # of the values that it writes
        works = {
            "fence": self._fence,
            "fill": self._fill,
            "repair": self._repair,
            "read": self._read_pair,
            "lease": self._lease,
            "load": self._load,
        }
        return works[work](keys, argv)

    def _read_pair(self, keys: Sequence[bytes], _: Sequence[bytes]) -> bytes:
        """Read a value that is no string, and its fence if that is asked for."""
        stored = self._live(keys[0])
        parts = [bulk(self._state(stored))]
        parts.append(reply(stored.value if stored and stored.kind == self._kind else b""))
        parts += [bulk(self._string(name)) for name in keys[1:]]
        return array(parts)

    def _state(self, stored: StoredValue | None) -> bytes:
        """Return 1 for a value, else the name of a key's other type; to SET that is no key."""
        if stored is None or (stored.kind != self._kind == STRING):
            return b""
        return b"1" if stored.kind == self._kind else stored.kind

    def _content(self, argv: Sequence[bytes], value: bytes) -> Value:
        """Return the value that an argument says: of a hash it is the place of the fields."""
        if self._kind != HASH or not value:
            return value
        at = int(value)
        return flat(fields_of(argv[at : at + int(argv[at - 1])]))

    def _fence(self, keys: Sequence[bytes], argv: Sequence[bytes]) -> bytes:
        fence_ttl_s, set_option, entries = int(argv[0]), argv[1], argv[2:]
        # The script reads every fence before it writes any.
        fences = [self._live(fence) for fence in keys[1::2]]
        replies = []
        for at, fence in enumerate(keys[1::2]):
            version, expiry, value = entries[3 * at : 3 * at + 3]
            seen = fences[at]
            if seen is not None and version < text_of(seen):
                replies.append(b":0\r\n")
            else:
                replies.append(
                    self._fenced(
                        keys[2 * at],
                        fence,
                        (version, expiry, self._content(argv, value)),
                        fence_ttl_s,
                        set_option,
                    )
                )
        return array(replies)

    def _fill(self, keys: Sequence[bytes], argv: Sequence[bytes]) -> bytes:
        fences = [self._live(fence) for fence in keys[1::2]]
        return array(
            [
                self._filled(
                    keys[2 * at],
                    fence,
                    argv[3 * at + 3],
                    self._content(argv, argv[3 * at + 4]),
                )
                for at, fence in enumerate(fences)
            ]
        )

    def _filled(
        self, name: bytes, fence: StoredValue | None, expiry: bytes, value: Value
    ) -> bytes:
        """Write a value where there is none; a fence without a version is a reader's lease."""
        is_lease = fence is not None and text_of(fence).startswith(b"0")
        if fence is None or is_lease:
            try:
                if self._put_value(name, value, expiry, b"NX") is not None:
                    return b":1\r\n"
            except ErrorReply as exc:
                return bulk(str(exc).encode())
        return b":0\r\n" if self._state(self._live(name)) == b"1" else b":2\r\n"

    def _repair(self, keys: Sequence[bytes], argv: Sequence[bytes]) -> bytes:
        name, fence_name = keys
        fence_ttl, set_option, fence_seen, had_value, value_seen, fence, expiry, value = argv[:8]
        stored = self._live(name)
        state = self._state(stored)
        now = one_string(stored.value) if stored and state == b"1" else b""
        is_unchanged = (
            (self._string(fence_name) or b"") == fence_seen
            and state == had_value
            and (now == value_seen or state not in (b"", b"1"))
        )
        if not is_unchanged:
            return array([b":0\r\n"])
        entry = (fence, expiry, self._content(argv, value))
        return array([self._fenced(name, fence_name, entry, int(fence_ttl), set_option)])

    def _lease(self, keys: Sequence[bytes], argv: Sequence[bytes]) -> bytes:
        """Grant a reader's lease, or say why not: there is a value, a mark, another's lease."""
        name, fence_name = keys
        nonce, lease_ms, claim_ms = argv[0], int(argv[1]), int(argv[2])
        value, fence = self._string(name), self._string(fence_name)
        if value is not None:
            return array([b":0\r\n", bulk(value)])
        length = 1 if fence is None or fence.startswith(b"0") else 17 + int(fence[14:16])
        head, tail = (fence or b"0")[:length], (fence or b"")[length:]
        if len(tail) == 26:
            left_ms = int(tail[1:14]) - self._now_ms
            if 0 < left_ms <= claim_ms and tail[:1] == b"2":
                return array([b":2\r\n", b":%d\r\n" % left_ms])
            if 0 < left_ms <= claim_ms and tail[:1] == b"1" and tail[14:] != nonce:
                return array([b":3\r\n", b":%d\r\n" % left_ms])
        lease = b"%b1%013d%b" % (head, self._now_ms + lease_ms, nonce)
        expires_at_ms = 0 if fence is None else self.keys[fence_name].expires_at_ms
        self._check_writable(grows=True)
        ends_ms = max(expires_at_ms, self._now_ms + claim_ms)
        self._write(fence_name, StoredValue(lease, ends_ms))
        return array([b":1\r\n", bulk(lease)])

    def _load(self, keys: Sequence[bytes], argv: Sequence[bytes]) -> bytes:
        """Write what a reader read, only while its lease is in the fence and no value exists."""
        name, fence_name = keys
        lease, fence, expiry, value = argv
        if self._string(fence_name) != lease or self._live(name) is not None:
            return b":0\r\n"
        if expiry != b"-":
            self._set((name, value, *((b"PXAT", expiry) if expiry else ())))
        self._set((fence_name, fence, b"KEEPTTL"))
        return b":1\r\n"

    def _fenced(
        self,
        name: bytes,
        fence: bytes,
        entry: tuple[bytes, bytes, Value],
        fence_ttl_s: int,
        set_option: bytes,
    ) -> bytes:
        """Write a value, then its fence; if the value is refused, leave the fence alone."""
        version, expiry, value = entry
        try:
            if expiry == b"-":
                self._delete(name)
            else:
                self._put_value(name, value, expiry, set_option)
            self._set((fence, version, b"EX", b"%d" % fence_ttl_s))
        except ErrorReply as exc:
            return bulk(str(exc).encode())
        return b":1\r\n"

    def _put_value(
        self, name: bytes, value: Value, expiry: bytes, option: bytes
    ) -> StoredValue | None:
        """Write a value of the script's kind as a whole; None where the option forbids it."""
        if isinstance(value, bytes) and self._kind == STRING:
            options = (b"PXAT", expiry) if expiry else ()
            return self._set((name, value, *options, *((option,) if option else ())))
        is_there = self._live(name) is not None
        if option and is_there != (option == b"XX"):
            return None
        self._check_writable(grows=True)
        stored = StoredValue(value, int(expiry or b"0"), self._kind)
        self._write(name, None if expiry and int(expiry) <= self._now_ms else stored)
        return stored
