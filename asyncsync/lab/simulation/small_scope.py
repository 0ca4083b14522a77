"""The small scope: every history of up to four records of two items, with at most one fault.

A history says which item each record is of, whether it removes the item, how the records fall
into batches, and where the one fault strikes; a late fault also says after which later batch
it shows. The real handler runs against fakeredis, which runs the real script, and the oracle
looks after each command. The histories are counted, and the count is compared with a formula.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import product
from math import comb

from asyncsync.lab.simulation.network import Fate

RECORDS_MAX = 4
ITEMS = (1, 2)


class ScopeFault(StrEnum):
    """A fault of the small scope, as it is printed."""

    REQUEST_LOST = "no byte of the request arrives"
    REQUEST_HALF = "half of the request arrives"
    REQUEST_SHORT = "all but the last byte of the request arrives"
    REPLY_LOST = "no byte of the reply arrives"
    REPLY_HALF = "half of the reply arrives"
    REPLY_SHORT = "all but the last byte of the reply arrives"
    REPLY_NEVER = "the reply never comes"
    REQUEST_NEVER = "the request never arrives"
    THROTTLED = "throttled"
    KILLED_BEFORE_WRITE = "killed before the write"
    KILLED_DURING_WRITE = "killed during the write"
    KILLED_AFTER_WRITE = "killed after the write"
    CONNECTION_REFUSED = "the connection is refused"
    CONNECTION_DEAD = "the connection is dead at its next use"
    SCRIPTS_LOST = "the script cache is emptied"
    LOADING = "the server is loading"
    ANSWER_MALFORMED = "the answer is malformed"
    ZOMBIE = "the request arrives late (a zombie)"
    REDELIVERED = "the acknowledged batch is delivered again"
    MAPPING_RECREATED = "the mapping is created again and delivers all from that batch on"
    NOT_AT_FIRST = "the record cannot be encoded at first"
    NEVER_ENCODED = "the record can never be encoded"


# The network's faults: what becomes of a request of a size in bytes.
FATES: Mapping[ScopeFault, Callable[[int], Fate]] = {
    ScopeFault.REQUEST_LOST: lambda _: Fate(cut_request=0),
    ScopeFault.REQUEST_HALF: lambda size: Fate(cut_request=size // 2),
    ScopeFault.REQUEST_SHORT: lambda size: Fate(cut_request=size - 1),
    ScopeFault.REPLY_LOST: lambda _: Fate(cut_reply=0),
    ScopeFault.REPLY_HALF: lambda _: Fate(cut_reply=5),
    ScopeFault.REPLY_SHORT: lambda _: Fate(cut_reply=-1),
    ScopeFault.REPLY_NEVER: lambda _: Fate(answered=False),
    ScopeFault.REQUEST_NEVER: lambda _: Fate(arrives=False),
}

# Each of these strikes at one batch and shows after the same or a later one.
AFTER_A_LATER_BATCH = (
    ScopeFault.ZOMBIE,
    ScopeFault.REDELIVERED,
    ScopeFault.MAPPING_RECREATED,
)

# Each of these strikes one record.
OF_A_RECORD = (ScopeFault.NOT_AT_FIRST, ScopeFault.NEVER_ENCODED)

# All others strike at one batch.
AT_A_BATCH = tuple(kind for kind in ScopeFault if kind not in AFTER_A_LATER_BATCH + OF_A_RECORD)


@dataclass(frozen=True, slots=True)
class PlacedFault:
    """One fault at one place; `at` counts batches from 0, or records for a record's fault."""

    kind: ScopeFault
    at: int
    until: int = 0  # the batch after which it shows


@dataclass(frozen=True, slots=True)
class History:
    """One history."""

    records: tuple[tuple[int, bool], ...]  # the item, and whether it is removed
    batches: tuple[int, ...]  # the number of records in each
    fault: PlacedFault | None


def sequences(count: int) -> Iterator[tuple[tuple[int, bool], ...]]:
    """Yield every order of that many records of two items; only present items are removed."""
    for items in product(ITEMS, repeat=count):
        for removed in product((False, True), repeat=count):
            present = dict.fromkeys(ITEMS, False)
            for item, is_removed in zip(items, removed, strict=True):
                if is_removed and not present[item]:
                    break
                present[item] = not is_removed
            else:
                yield tuple(zip(items, removed, strict=True))


def splits(count: int) -> Iterator[tuple[int, ...]]:
    """Yield every way to divide that many records into batches."""
    if count == 0:
        yield ()
    for first in range(1, count + 1):
        for rest in splits(count - first):
            yield (first, *rest)


def faults(records: int, batches: int) -> Iterator[PlacedFault | None]:
    """Yield no fault, then each fault at each of its places."""
    yield None
    for at in range(batches):
        for kind in AT_A_BATCH:
            yield PlacedFault(kind, at)
        for kind in AFTER_A_LATER_BATCH:
            for until in range(at, batches):
                yield PlacedFault(kind, at, until)
    for at in range(records):
        for kind in OF_A_RECORD:
            yield PlacedFault(kind, at)


def histories(records_max: int = RECORDS_MAX) -> Iterator[History]:
    """Yield every history of the scope."""
    for count in range(1, records_max + 1):
        for records in sequences(count):
            for batches in splits(count):
                for fault in faults(count, len(batches)):
                    yield History(records, batches, fault)


def expected(records_max: int = RECORDS_MAX) -> int:
    """Count the histories by a formula, without making them.

    Only a present item is removed. So an item's k records are words of inserts and removals
    that begin with an insert and have no two removals in a row: F(k + 1) of them (Fibonacci).
    n records interleave in C(n, k) ways and fall into m batches in C(n - 1, m - 1) ways. They
    meet no fault, or one of A at m batches, of B at m (m + 1) / 2 pairs of batches, or of R at
    n records.
    """
    fibonacci = [1, 1]  # words of length 0 and 1
    while len(fibonacci) <= records_max:
        fibonacci.append(fibonacci[-1] + fibonacci[-2])
    total = 0
    for n in range(1, records_max + 1):
        orders = sum(comb(n, k) * fibonacci[k] * fibonacci[n - k] for k in range(n + 1))
        faulty = sum(
            comb(n - 1, m - 1)
            * (
                1
                + len(AT_A_BATCH) * m
                + len(AFTER_A_LATER_BATCH) * m * (m + 1) // 2
                + len(OF_A_RECORD) * n
            )
            for m in range(1, n + 1)
        )
        total += orders * faulty
    return total
