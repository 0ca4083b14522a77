"""Entries as encode makes them, for tests of plan and store."""

from __future__ import annotations

from asyncsync.fence import version
from asyncsync.keys import redis_names
from asyncsync.model import Entry, SequenceNumber, Value

LABEL_MS = 1_767_225_600_000


def entry(
    name: bytes,
    number: int,
    value: Value | None = b"v",
    *,
    rank: bytes = b"1",
    expires_at_ms: int = 0,
) -> Entry:
    number = SequenceNumber(number)
    text = version(LABEL_MS, number) + rank
    return Entry(*redis_names(name), text, value, expires_at_ms, number, str(number))
