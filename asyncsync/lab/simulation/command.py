"""asyncsync simulate: seeds of simulated runs, one told in full, or the small scope whole."""

from __future__ import annotations

import time
from dataclasses import dataclass

from asyncsync.lab.simulation import small_scope as scope
from asyncsync.lab.simulation.faults import Fault
from asyncsync.lab.simulation.seeds import MEDIANS_MIN, Summary, run_seeds
from asyncsync.lab.simulation.small_scope_play import MODES, FakeRedis, play
from asyncsync.lab.simulation.virtual_time import VirtualLoop
from asyncsync.lab.simulation.world import RunResult, run
from asyncsync.tools.output import Say
from asyncsync.version import __version__

PROGRESS_INTERVAL_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulateOptions:
    """What the command line says."""

    first: int = 0
    seeds: int = 500
    jobs: int = 1
    violations_max: int = 10  # after which it ends: somebody has to read them
    program: str = "asyncsync"


class Progress:
    """Says how far a long work is, every few seconds."""

    def __init__(self, total: int, unit: str, say: Say) -> None:
        self._total = total
        self._unit = unit
        self._say = say
        self._began_s = self._said_s = time.monotonic()

    def at(self, done: int, violations: int) -> None:
        """Take how many are done."""
        now_s = time.monotonic()
        if now_s - self._said_s < PROGRESS_INTERVAL_S:
            return
        self._said_s = now_s
        rate = done / (now_s - self._began_s)
        left_s = (self._total - done) / rate
        self._say(
            f"{now_s - self._began_s:8.1f} s  {done:,} of {self._total:,} {self._unit}, "
            f"{rate:,.0f}/s, {left_s:,.0f} s left, {violations} violations"
        )


def simulate(options: SimulateOptions, say: Say) -> Summary:
    """Run seeds, print what came of them, and return it."""
    last = options.first + options.seeds - 1
    say(f"asyncsync {__version__} simulate, seeds {options.first} to {last}, {options.jobs} jobs")
    progress = Progress(options.seeds, "seeds", say)
    began_s = time.monotonic()
    summary = run_seeds(
        options.first,
        options.seeds,
        options.jobs,
        options.violations_max,
        lambda so_far: progress.at(so_far.seeds, len(so_far.violations)),
    )
    for line in summary_lines(summary, time.monotonic() - began_s, options.program):
        say(line)
    return summary


def is_good(summary: Summary) -> bool:
    """Whether no promise was broken, and the seeds were worth running."""
    return not summary.violations and not summary.shortcomings


def summary_lines(summary: Summary, seconds: float, program: str) -> list[str]:
    """Write what became of many seeds for people."""
    lines = [f"{summary.seeds:,} seeds in {seconds:.0f} s, {summary.checks:,} checks of an item"]
    lines += [
        f"  {name:<14} quartiles {' / '.join(str(each) for each in summary.quartiles(name))}"
        for name in MEDIANS_MIN
    ]
    lines.append("  how often each fault fired")
    lines += [f"  {summary.fired[fault]:>10,}  {fault}" for fault in Fault]
    lines += [f"TOO LITTLE  {each}" for each in summary.shortcomings]
    for ended in summary.violations:
        lines.append(f"VIOLATION  seed {ended.seed}: {ended.violation}")
        lines.append(f"           replay: {program} simulate --seed {ended.seed} --trace")
    verdict = "FAIL" if summary.violations or summary.shortcomings else "PASS"
    lines.append(f"{verdict}  {len(summary.violations)} violations in {summary.seeds:,} seeds")
    return lines


def tell(seed: int, say: Say, *, trace: bool) -> RunResult:
    """Run one seed, with its story where that is wanted."""
    say(f"asyncsync {__version__} simulate, seed {seed}")
    ended = run(seed, say if trace else None)
    say(f"seed {seed}: {ended.scenario}")
    say(f"{ended.changes} changes, {ended.invocations} invocations, {ended.checks} checks")
    for fault in Fault:
        if fault in ended.fired:
            say(f"{ended.fired[fault]:>6}  {fault}")
    say(f"VIOLATION  {ended.violation}" if ended.violation else "PASS")
    return ended


def whole_scope(records_max: int, violations_max: int, say: Say) -> bool:
    """Play every history of the small scope; say whether none broke a promise."""
    total = scope.expected(records_max) * len(MODES)
    say(
        f"asyncsync {__version__} simulate, the small scope: up to {records_max} records of "
        f"{len(scope.ITEMS)} items, one fault at every point, {len(MODES)} modes"
    )
    progress = Progress(total, "histories", say)
    loop, backend = VirtualLoop(), FakeRedis()
    played, violations = 0, 0
    for mode in MODES:
        for history in scope.histories(records_max):
            violation = play(history, backend, loop, mode)
            played += 1
            if violation:
                violations += 1
                say(f"VIOLATION  {mode}, {history}: {violation}")
                if violations >= violations_max:
                    return False
            progress.at(played, violations)
    loop.close()
    assert played == total, f"the scope has {total} histories by its formula, {played} were made"
    verdict = "FAIL" if violations else "PASS"
    say(f"{verdict}  {played:,} histories, as the formula counts them, {violations} violations")
    return not violations
