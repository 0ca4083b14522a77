"""The small scope, whole: every history of up to four records of two items, with one fault.

A history is which item each record is of, whether it removes it, how the records fall into
batches, and one fault: at which batch, and, for what comes late, after which later batch. The
real handler runs against fakeredis, which runs the real script; the oracle looks after each
command. How many histories there are is counted, and compared with a formula.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from math import comb

from asyncsync.lab.simulation.network import Fate

RECORDS_MAX = 4
ITEMS = (1, 2)

# What becomes of a request of so many bytes, for the faults that are the network's alone.
FATES: Mapping[str, Callable[[int], Fate]] = {
    "no byte of the request arrives": lambda _: Fate(cut_request=0),
    "half of the request arrives": lambda size: Fate(cut_request=size // 2),
    "all but the last byte of the request arrives": lambda size: Fate(cut_request=size - 1),
    "no byte of the reply arrives": lambda _: Fate(cut_reply=0),
    "half of the reply arrives": lambda _: Fate(cut_reply=5),
    "all but the last byte of the reply arrives": lambda _: Fate(cut_reply=-1),
    "the reply never comes": lambda _: Fate(answered=False),
    "the request never arrives": lambda _: Fate(arrives=False),
}

# One fault at one batch.
AT_A_BATCH = (
    *FATES,
    "throttled",
    "killed before the write",
    "killed during the write",
    "killed after the write",
    "the connection is refused",
    "the connection is dead at its next use",
    "the script cache is emptied",
    "the server is loading",
    "the answer is malformed",
)

# One fault at one batch, which shows after the same or a later one.
AFTER_A_LATER_BATCH = (
    ZOMBIE := "the request arrives late (a zombie)",
    AGAIN := "the acknowledged batch is delivered again",
    MADE_AGAIN := "the mapping is made again and delivers all from that batch on",
)

# One fault of one record.
OF_A_RECORD = (
    NOT_AT_FIRST := "the record cannot be encoded at first",
    NEVER := "the record can never be encoded",
)


@dataclass(frozen=True, slots=True)
class PlacedFault:
    """One fault; `at` counts batches, or records for those of a record, from 0."""

    kind: str
    at: int
    until: int = 0  # the batch after which it shows


@dataclass(frozen=True, slots=True)
class History:
    """One history."""

    records: tuple[tuple[int, bool], ...]  # the item, and whether it is removed
    batches: tuple[int, ...]  # how many records each holds
    fault: PlacedFault | None


def sequences(count: int) -> Iterator[tuple[tuple[int, bool], ...]]:
    """Give every order of so many records of two items: none removes what is not there."""
    for items in product(ITEMS, repeat=count):
        for removed in product((False, True), repeat=count):
            there = dict.fromkeys(ITEMS, False)
            for item, gone in zip(items, removed, strict=True):
                if gone and not there[item]:
                    break
                there[item] = not gone
            else:
                yield tuple(zip(items, removed, strict=True))


def splits(count: int) -> Iterator[tuple[int, ...]]:
    """Give every way in which so many records fall into batches."""
    if count == 0:
        yield ()
    for first in range(1, count + 1):
        for rest in splits(count - first):
            yield (first, *rest)


def faults(records: int, batches: int) -> Iterator[PlacedFault | None]:
    """Give no fault, then each fault at each of its points."""
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
    """Give every history of the scope."""
    for count in range(1, records_max + 1):
        for records in sequences(count):
            for batches in splits(count):
                for fault in faults(count, len(batches)):
                    yield History(records, batches, fault)


def expected(records_max: int = RECORDS_MAX) -> int:
    """Count the histories without making them.

    An item's k records: none removes what is not there, so they are words of inserts and
    removals that begin with an insert and have no two removals in a row, F(k + 1) of them
    (Fibonacci). n records interleave in C(n, k) ways, fall into m batches in C(n - 1, m - 1)
    ways, and meet no fault, or one of A at m batches, of B at m (m + 1) / 2 pairs of batches,
    or of R at n records.
    """
    fibonacci = [1, 1]  # words of length 0 and 1
    while len(fibonacci) <= records_max:
        fibonacci.append(fibonacci[-1] + fibonacci[-2])
    total = 0
    for n in range(1, records_max + 1):
        orders = sum(comb(n, k) * fibonacci[k] * fibonacci[n - k] for k in range(n + 1))
        met = sum(
            comb(n - 1, m - 1)
            * (
                1
                + len(AT_A_BATCH) * m
                + len(AFTER_A_LATER_BATCH) * m * (m + 1) // 2
                + len(OF_A_RECORD) * n
            )
            for m in range(1, n + 1)
        )
        total += orders * met
    return total
