"""What one run measures: which batches, on how much of a processor, and which contestants."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.events import Keys, View
from benchmarks.harness import bundles, contestants
from benchmarks.harness.bundles import CannotBuild
from benchmarks.harness.contestants import Contestant
from benchmarks.harness.cpu_share import ONE_VCPU_MB
from benchmarks.harness.servers import LOOPBACK, ZONE

BOTH_IMAGES: View = "NEW_AND_OLD_IMAGES"
SIZES: tuple[tuple[int, Keys], ...] = (
    (1, "distinct"),
    (10, "distinct"),
    (100, "hot"),
    (100, "distinct"),
    (1_000, "hot"),
    (1_000, "distinct"),
    (2_000, "distinct"),
)

# The contestants that are timed at every memory size.
AT_EVERY_SIZE = (
    contestants.OWN,
    contestants.OWN_JSON,
    contestants.SEED_AWAITED,
    contestants.POWERTOOLS,
)


@dataclass(frozen=True, slots=True)
class Case:
    """One batch to time: on which network and memory size, by whom, how often."""

    network: str
    memory_mb: int
    view: View
    records: int
    keys: Keys
    rounds: int
    contestants: tuple[str, ...] = ()  # none: all of the main table


def quick_cases() -> Iterator[Case]:
    """Return the cases of `make bench`."""
    for size in SIZES:
        if size not in ((1, "distinct"), (100, "distinct"), (2_000, "distinct")):
            yield Case(ZONE, ONE_VCPU_MB, BOTH_IMAGES, *size, rounds=7)
    yield Case(ZONE, 128, BOTH_IMAGES, 100, "hot", 5, AT_EVERY_SIZE)


def full_cases() -> Iterator[Case]:
    """Return the cases of `make bench-full`, in the order they are timed in."""
    for size in SIZES:
        yield Case(ZONE, ONE_VCPU_MB, BOTH_IMAGES, *size, rounds=15)
    for size in SIZES[1:-1]:
        yield Case(ZONE, ONE_VCPU_MB, "NEW_IMAGE", *size, rounds=7)
        yield Case(LOOPBACK, ONE_VCPU_MB, BOTH_IMAGES, *size, rounds=7)
    # At the smallest share the slowest take seconds: fewer rounds of the largest batch.
    yield Case(ZONE, 128, BOTH_IMAGES, 10, "distinct", 9)
    yield Case(ZONE, 128, BOTH_IMAGES, 100, "hot", 9)
    yield Case(ZONE, 128, BOTH_IMAGES, 1_000, "hot", 3)
    timed = {(128, 10, "distinct"), (128, 100, "hot"), (128, 1_000, "hot")}
    for memory_mb in (128, 256, 512, 1_024):
        for size in SIZES[:-1]:
            if (memory_mb, *size) not in timed:
                yield Case(ZONE, memory_mb, BOTH_IMAGES, *size, 5, AT_EVERY_SIZE)


def choose_contestants(full: bool, only: str | None) -> tuple[dict[str, str], list[Contestant]]:
    """Build every bundle that can be built; return who is absent and why, and who takes part.

    `only` holds names with ; between them (default: everybody of the main table).
    """
    absent: dict[str, str] = {}
    present = []
    names = None if only is None else {name.strip() for name in only.split(";")}
    for contestant in contestants.CONTESTANTS:
        name = contestant.name
        if name in contestants.ASIDE or (names is not None and name not in names):
            continue
        if contestant.is_node and not full and not bundles.has_node_bundle():
            absent[name] = "make bench-full builds AWS's client for Node (two minutes)"
            continue
        try:
            contestants.launch_of(contestant)
        except CannotBuild as exc:
            absent[name] = str(exc)
            continue
        present.append(contestant)
    return absent, present
