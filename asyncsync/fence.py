"""The fence beside each value: its content and its name, written and read in this one place.

    content = version + rank + nonce   decimal digits only, so that byte order is version order
    version = "1", the stream's label (13 digits of epoch milliseconds), the count of the
              sequence number's digits (2 digits), the sequence number
    rank    = one digit for who wrote it; part of the comparison
    nonce   = digits that make a repair's fence unique; empty after a record

Content that begins with "0" is a reader's claim: a nonce without a version.

`version` and `write_fence` write content, `read_fence` reads it, `fence_name` gives the name.
fence.lua and repair.lua only compare contents; fill.lua looks at the first digit.
"""

from __future__ import annotations

from functools import lru_cache

from msgspec import Struct

from asyncsync.limits import LABEL_DIGITS, SEQUENCE_NUMBER_DIGITS_MAX
from asyncsync.model import SequenceNumber

FENCE_FORMAT = b"1"
CLAIM_FORMAT = b"0"

RANK_REJECT = b"0"  # the record could not be encoded, its key was removed
RANK_RECORD = b"1"
RANK_REPAIR = b"2"  # a repair or a reader's fill

# Two repairs of a key leave the same fence once in a million million.
NONCE_DIGITS = 12

FENCE_SUFFIX = b"!f"

_LABEL_END = 1 + LABEL_DIGITS
_COUNT_END = _LABEL_END + 2
_COUNTS = [b"%02d" % count for count in range(SEQUENCE_NUMBER_DIGITS_MAX + 1)]


class Fence(Struct, frozen=True):
    """A fence's content, in its parts."""

    version: bytes  # NO_VERSION where no record of the key was known
    rank: bytes
    nonce: bytes

    @property
    def label_ms(self) -> int:
        """Return the stream's label in epoch milliseconds."""
        return int(self.version[1:_LABEL_END])

    @property
    def sequence_number(self) -> SequenceNumber:
        """Return the sequence number of the last record that was applied."""
        return SequenceNumber(int(self.version[_COUNT_END:]))


def version(label_ms: int, sequence_number: SequenceNumber) -> bytes:
    """Write a record's version: byte order is the order of streams, then of records.

    Digits only: Lua's < follows the server's locale, and digits sort alike in all of them.
    """
    digits = b"%d" % sequence_number
    return _label(label_ms) + _COUNTS[len(digits)] + digits


@lru_cache(maxsize=16)
def _label(label_ms: int) -> bytes:
    return b"%b%0*d" % (FENCE_FORMAT, LABEL_DIGITS, label_ms)


# The version of a key of which no record is known: lower than any record's.
NO_VERSION = version(0, SequenceNumber(0))


def write_fence(version: bytes, rank: bytes, nonce: int) -> bytes:
    """Write a repair's fence; a record's is its version and rank alone."""
    return b"%b%b%0*d" % (version, rank, NONCE_DIGITS, nonce)


def read_fence(content: bytes) -> Fence | None:
    """Read a fence's content; None where it is not of this format.

    A reader's claim has NO_VERSION at the lowest rank.
    """
    if not content.isdigit():
        return None
    if content.startswith(CLAIM_FORMAT):
        return Fence(NO_VERSION, RANK_REJECT, content[1:])
    count = int(content[_LABEL_END:_COUNT_END] or b"0")
    end = _COUNT_END + count
    fence = Fence(content[:end], content[end : end + 1], content[end + 1 :])
    is_ours = (
        0 < count <= SEQUENCE_NUMBER_DIGITS_MAX
        and fence.rank in (RANK_REJECT, RANK_RECORD, RANK_REPAIR)
        and fence.version == version(fence.label_ms, fence.sequence_number)
    )
    return fence if is_ours else None


def fence_name(name: bytes, tag: bytes | None) -> bytes:
    """Return the name of a value's fence, in the same slot; `tag` is the name's hash tag.

    Callers outside keys.py use keys.redis_names, which first makes room for it in the name.
    """
    return b"{" + name + b"}" + FENCE_SUFFIX if tag is None else name + FENCE_SUFFIX
