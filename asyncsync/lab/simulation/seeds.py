"""Many seeds in a row: run on every core, counted, and held to being worth something.

A simulation that does little finds little, so a run fails too where its histories are small or
a fault hardly ever fired.
"""

from __future__ import annotations

import gc
import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED as ANY
from concurrent.futures import Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field

from asyncsync.lab.simulation.faults import Fault
from asyncsync.lab.simulation.world import RunResult, run

# What the median history must have at least; else the seeds say little.
MEDIANS_MIN: Mapping[str, int] = {"changes": 60, "invocations": 20, "fault classes": 3}

# How often each fault must have fired in a run of so many seeds.
FIRED_MIN = 100
SEEDS_FOR_FIRED_MIN = 500

SEEDS_A_TASK = 20  # handed to a process at once: half a second of work


@dataclass(slots=True)
class Summary:
    """What became of many seeds; the counters map a size to how many histories had it."""

    seeds: int = 0
    checks: int = 0
    violations: list[RunResult] = field(default_factory=list)
    fired: Counter[Fault] = field(default_factory=Counter)
    sizes: dict[str, Counter[int]] = field(
        default_factory=lambda: {name: Counter() for name in MEDIANS_MIN}
    )

    def take(self, ended: RunResult) -> None:
        """Count one seed."""
        self.seeds += 1
        self.checks += ended.checks
        self.fired.update(ended.fired)
        self.sizes["changes"][ended.changes] += 1
        self.sizes["invocations"][ended.invocations] += 1
        self.sizes["fault classes"][len(ended.fired)] += 1
        if ended.violation:
            self.violations.append(ended)

    def add(self, other: Summary) -> None:
        """Count what another one counted."""
        self.seeds += other.seeds
        self.checks += other.checks
        self.violations += other.violations
        self.fired.update(other.fired)
        for name, sizes in other.sizes.items():
            self.sizes[name].update(sizes)

    def quartiles(self, name: str) -> tuple[int, int, int]:
        """Return a size's lower quartile, median and upper quartile."""
        sizes = self.sizes[name]
        return quantile(sizes, 0.25), quantile(sizes, 0.5), quantile(sizes, 0.75)

    @property
    def shortcomings(self) -> list[str]:
        """Say in what these seeds are worth too little."""
        found = [
            f"the median history has {self.quartiles(name)[1]} {name}, wanted are {least}"
            for name, least in MEDIANS_MIN.items()
            if self.quartiles(name)[1] < least
        ]
        if self.seeds >= SEEDS_FOR_FIRED_MIN:
            found += [
                f"'{fault}' fired {self.fired[fault]} times, wanted are {FIRED_MIN}"
                for fault in Fault
                if self.fired[fault] < FIRED_MIN
            ]
        return found


def quantile(sizes: Counter[int], share: float) -> int:
    """Return the size that a share of all are at most as large as; 0 where there are none."""
    left = share * sum(sizes.values())
    for size in sorted(sizes):
        left -= sizes[size]
        if left <= 0:
            return size
    return 0


def run_some(first: int, count: int) -> Summary:
    """Run seeds one after another in this process."""
    summary = Summary()
    for seed in range(first, first + count):
        summary.take(run(seed))
        gc.collect(0)  # a run's world is a cycle; the rest need not be looked through
    return summary


def run_seeds(
    first: int,
    count: int,
    jobs: int,
    violations_max: int,
    progress: Callable[[Summary], None],
) -> Summary:
    """Run seeds on several processes; end early where enough violations were found."""
    summary = Summary()
    for part in _parts(first, count, jobs):
        summary.add(part)
        progress(summary)
        if len(summary.violations) >= violations_max:
            break
    summary.violations.sort(key=lambda ended: ended.seed)
    return summary


def _parts(first: int, count: int, jobs: int) -> Iterator[Summary]:
    tasks = [
        (at, min(SEEDS_A_TASK, first + count - at))
        for at in range(first, first + count, SEEDS_A_TASK)
    ]
    if jobs == 1:
        yield from (run_some(*task) for task in tasks)
        return
    context = multiprocessing.get_context("spawn")  # no thread or socket is inherited
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        left = iter(tasks)
        pending: set[Future[Summary]] = set()
        try:
            while True:
                # A few more than there are processes, so that a soak holds few in memory.
                for task in left:
                    pending.add(pool.submit(run_some, *task))
                    if len(pending) >= 2 * jobs:
                        break
                if not pending:
                    return
                done, pending = wait(pending, return_when=ANY)
                for each in done:
                    yield each.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
