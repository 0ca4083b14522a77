"""The reader's protocol, pure: arguments of its two scripts, their replies, the fences it leaves.

    GET value        -> nil
    lease.lua        -> a lease: a nonce in the fence, whatever that was
    consistent read  -> the item
    load.lua         -> written, only where the nonce still stands and no value exists

Any record of the stream that arrives meanwhile replaces the fence, and the nonce with it. So a
load can never replace a newer change. An absent fence proves nothing: no nonce, no load.
docs/read-through.md has the wire format for other languages.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

from msgspec import Struct

from asyncsync.fence import CLAIM_FORMAT, NONCE_DIGITS, RANK_REPAIR
from asyncsync.reader.limits import CLAIM_MS

LEASE_SCRIPT = Path(__file__).with_name("lease.lua").read_bytes()
LOAD_SCRIPT = Path(__file__).with_name("load.lua").read_bytes()

# What a lease and a mark add to a fence's version and rank.
KIND_LEASE = b"1"
KIND_ABSENT = b"2"
END_DIGITS = 13
LEASE_DIGITS = 1 + END_DIGITS + NONCE_DIGITS

NO_VALUE = b"-"


class Hit(Struct, frozen=True):
    """A value is there now."""

    value: bytes


class Lease(Struct, frozen=True):
    """The right to load one item; it lasts while the fence is exactly this."""

    fence: bytes

    @property
    def head(self) -> bytes:
        """Return the fence's version and rank, or CLAIM_FORMAT where it has none."""
        return self.fence[:-LEASE_DIGITS]

    @property
    def ends_ms(self) -> int:
        """Return when the lease ends, in epoch milliseconds on the server's clock."""
        return int(self.fence[-LEASE_DIGITS + 1 : -NONCE_DIGITS])

    @property
    def nonce(self) -> bytes:
        """Return the digits that make it unique."""
        return self.fence[-NONCE_DIGITS:]


class Absent(Struct, frozen=True):
    """A reader has found no item, and no record has arrived since."""

    left_ms: int


class Busy(Struct, frozen=True):
    """Another reader loads the item."""

    left_ms: int


class Foreign(Struct, frozen=True):
    """The fence has an unknown format: nothing may be loaded."""


LeaseReply: TypeAlias = Hit | Lease | Absent | Busy | Foreign
Arguments: TypeAlias = tuple[bytes, ...]  # of EVALSHA, after the digest


def nonce_of(number: int) -> bytes:
    """Write a random number below 10 ** NONCE_DIGITS as a nonce."""
    return b"%0*d" % (NONCE_DIGITS, number)


def lease_arguments(name: bytes, fence_name: bytes, nonce: bytes, lease_ms: int) -> Arguments:
    """Return the arguments of lease.lua for a value's name and its fence's name."""
    return (b"2", name, fence_name, nonce, b"%d" % lease_ms, b"%d" % CLAIM_MS)


def read_lease(reply: object) -> LeaseReply:
    """Read the reply of lease.lua."""
    assert isinstance(reply, list), "lease.lua answers with a list"
    kind, detail = reply
    if kind == 0:
        return Hit(detail)
    if kind == 1:
        return Lease(detail)
    return Foreign() if kind == 4 else (Absent if kind == 2 else Busy)(detail)


def load_arguments(
    name: bytes,
    fence_name: bytes,
    lease: Lease,
    fence: bytes,
    value: bytes | None = None,
    expires_at_ms: int = 0,
) -> Arguments:
    """Return the arguments of load.lua; `fence` is the content to leave.

    Without a value only the fence changes. An expiry of 0 means never.
    """
    expiry = NO_VALUE if value is None else b"%d" % expires_at_ms if expires_at_ms else b""
    return (b"2", name, fence_name, lease.fence, fence, expiry, value or b"")


def writes_value(load: Arguments) -> bool:
    """Return whether a load's arguments have a value, and not the fence alone."""
    return load[-2] != NO_VALUE


def read_load(reply: object) -> bool:
    """Read the reply of load.lua: whether it wrote."""
    return reply == 1


# --- the fences that a reader leaves ------------------------------------------------------------


def fence_after_load(lease: Lease) -> bytes:
    """Return the fence beside a loaded value: the lease's version at rank 2.

    The record of that version, delivered again, then leaves the value alone. A claim has no
    version, and so no rank.
    """
    if lease.head == CLAIM_FORMAT:
        return CLAIM_FORMAT + lease.nonce
    return lease.head[:-1] + RANK_REPAIR + lease.nonce


def fence_of_absent(lease: Lease, lease_ms: int, absent_ms: int) -> bytes:
    """Return the fence that marks an item as absent, for absent_ms from the lease's beginning.

    Version and rank stay: no value was written.
    """
    ends_ms = lease.ends_ms - lease_ms + absent_ms
    return b"%b%b%0*d%b" % (lease.head, KIND_ABSENT, END_DIGITS, ends_ms, lease.nonce)


def fence_after_release(lease: Lease) -> bytes:
    """Return the fence after a lease that loaded nothing: others need not wait for it."""
    return lease.head + lease.nonce
