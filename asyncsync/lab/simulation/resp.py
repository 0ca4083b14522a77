"""Replies of a Redis server, in its protocol."""

from __future__ import annotations

from collections.abc import Sequence

from asyncsync.model import Value

OK = b"+OK\r\n"
NIL = b"$-1\r\n"


def reply(value: Value | None) -> bytes:
    """Write a value: a hash as an array of its fields and values."""
    return array([*map(bulk, value)]) if isinstance(value, tuple) else bulk(value)


def bulk(value: bytes | None) -> bytes:
    """Write a string; None is nil."""
    return NIL if value is None else b"$%d\r\n%b\r\n" % (len(value), value)


def array(replies: Sequence[bytes]) -> bytes:
    """Write an array of replies."""
    return b"*%d\r\n%b" % (len(replies), b"".join(replies))


def error(text: str) -> bytes:
    """Write an error."""
    return b"-%b\r\n" % text.encode()
