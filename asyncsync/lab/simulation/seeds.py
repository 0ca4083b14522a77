"""Runs many seeds on every core, counts what they did, and checks that they did enough.

A simulation that does little finds little. So a run also fails if its histories are small or a
fault hardly ever struck.
"""

from __future__ import annotations

import gc
import multiprocessing
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED as ANY
from concurrent.futures import Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice

from asyncsync.lab.simulation.faults import Fault
from asyncsync.lab.simulation.world import RunResult, run

# The least that the median history must have: with less, the seeds prove little.
MEDIANS_MIN: Mapping[str, int] = {"changes": 60, "invocations": 20, "fault classes": 3}

# Each fault must strike this often in a run of at least this many seeds.
FIRED_MIN = 100
SEEDS_FOR_FIRED_MIN = 500

SEEDS_A_TASK = 20  # given to a process at once: half a second of work


@dataclass(slots=True)
class Summary:
    """The results of many seeds; each counter of `sizes` maps a size to a number of histories."""

    seeds: int = 0
    checks: int = 0
    violations: list[RunResult] = field(default_factory=list)
    fired: Counter[Fault] = field(default_factory=Counter)
    sizes: dict[str, Counter[int]] = field(
        default_factory=lambda: {name: Counter() for name in MEDIANS_MIN}
    )

    def take(self, result: RunResult) -> None:
        """Count the result of one seed."""
        self.seeds += 1
        self.checks += result.checks
        self.fired.update(result.fired)
        self.sizes["changes"][result.changes] += 1
        self.sizes["invocations"][result.invocations] += 1
        self.sizes["fault classes"][len(result.fired)] += 1
        if result.violation:
            self.violations.append(result)

    def add(self, other: Summary) -> None:
        """Add the counts of another summary."""
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
        """Return a line for each way in which these seeds did too little."""
        lines = [
            f"the median history has {self.quartiles(name)[1]} {name}, at least {least} are wanted"
            for name, least in MEDIANS_MIN.items()
            if self.quartiles(name)[1] < least
        ]
        if self.seeds >= SEEDS_FOR_FIRED_MIN:
            lines += [
                f"'{fault}' struck {self.fired[fault]} times, at least {FIRED_MIN} are wanted"
                for fault in Fault
                if self.fired[fault] < FIRED_MIN
            ]
        return lines


def quantile(sizes: Counter[int], share: float) -> int:
    """Return a quantile of counted sizes; 0 if there are none."""
    remaining = share * sum(sizes.values())
    for size in sorted(sizes):
        remaining -= sizes[size]
        if remaining <= 0:
            return size
    return 0


def run_some(first: int, count: int) -> Summary:
    """Run seeds one after another in this process."""
    summary = Summary()
    for seed in range(first, first + count):
        summary.take(run(seed))
        gc.collect(0)  # a run's world is a reference cycle; older objects need no look
    return summary


def run_seeds(
    first: int,
    count: int,
    jobs: int,
    violations_max: int,
    progress: Callable[[Summary], None],
) -> Summary:
    """Run seeds on several processes; stop once `violations_max` violations were found."""
    summary = Summary()
    for part in _parts(first, count, jobs):
        summary.add(part)
        progress(summary)
        if len(summary.violations) >= violations_max:
            break
    summary.violations.sort(key=lambda result: result.seed)
    return summary


def _parts(first: int, count: int, jobs: int) -> Iterator[Summary]:
    tasks = [
        (at, min(SEEDS_A_TASK, first + count - at))
        for at in range(first, first + count, SEEDS_A_TASK)
    ]
    if jobs == 1:
        yield from (run_some(*task) for task in tasks)
        return
    context = multiprocessing.get_context("spawn")  # a child inherits no thread and no socket
    others = multiprocessing.active_children()
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        try:
            yield from _results(pool, iter(tasks), 2 * jobs)
        except BaseException:  # Ctrl-C, or enough violations: what is under way is not wanted
            for child in set(multiprocessing.active_children()) - {*others}:
                child.kill()
            pool.shutdown(cancel_futures=True)
            raise


def _results(
    pool: ProcessPoolExecutor, tasks: Iterator[tuple[int, int]], pending_max: int
) -> Iterator[Summary]:
    """Yield each task's result as it comes; submit few at once, so that a soak keeps few."""
    pending: set[Future[Summary]] = set()
    while True:
        with _without_interrupt():
            for task in islice(tasks, pending_max - len(pending)):
                pending.add(pool.submit(run_some, *task))
        if not pending:
            return
        done, pending = wait(pending, return_when=ANY)
        for future in done:
            yield future.result()


@contextmanager
def _without_interrupt() -> Iterator[None]:
    """Block SIGINT, so that a process that starts within the block never gets Ctrl-C.

    This process ends them then; a traceback of each would follow otherwise.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
