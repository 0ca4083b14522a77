"""The reader's options: each has a unit, a bound and a default. A wrong one is a ConfigError."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from asyncsync.errors import ConfigError
from asyncsync.reader.limits import (
    ABSENT_MS_MAX,
    JITTER_MAX,
    LEASE_MS_MAX,
    LEASE_MS_MIN,
    TABLE_READS_PER_S_MAX,
    TIMEOUT_MS_MAX,
    WAIT_MS_MAX,
)

_RANGES: Mapping[str, tuple[int, int]] = {
    "lease_ms": (LEASE_MS_MIN, LEASE_MS_MAX),
    "absent_ms": (0, ABSENT_MS_MAX),
    "wait_ms": (0, WAIT_MS_MAX),
    "table_reads_per_s": (1, TABLE_READS_PER_S_MAX),
    "timeout_ms": (1, TIMEOUT_MS_MAX),
}


class ReaderOptions(Struct, frozen=True, kw_only=True):
    """How a reader behaves.

        Reader(mirror, "Players", options=ReaderOptions(wait_ms=200))

    Args:
        lease_ms: How long others wait for this reader's load before one of them may load.
        absent_ms: How long readers remember that an item does not exist; 0: never.
        wait_ms: The longest wait for another's load, and for a turn in the read budget.
        table_reads_per_s: The most items that this reader reads from the table in a second.
        jitter: The share of ttl_s by which a loaded value may expire earlier.
        timeout_ms: The longest wait for one round trip to Redis.

    Raises:
        ConfigError: A value is out of its bounds.
    """

    lease_ms: int = 3_000
    absent_ms: int = 5_000
    wait_ms: int = 500
    table_reads_per_s: int = 1_000
    jitter: float = 0.1
    timeout_ms: int = 250

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                allowed = f"a whole number from {low:,} to {high:,}"
                raise ConfigError(f"{name}={value!r} is not allowed; allowed is {allowed}")
        if type(self.jitter) not in (int, float) or not 0 <= self.jitter <= JITTER_MAX:
            allowed = f"a number from 0 to {JITTER_MAX}"
            raise ConfigError(f"jitter={self.jitter!r} is not allowed; allowed is {allowed}")
