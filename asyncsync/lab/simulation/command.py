"""asyncsync simulate: many seeds, one seed with its story, or the whole small scope."""

from __future__ import annotations

import time
from dataclasses import dataclass

from asyncsync.lab.simulation import small_scope as scope
from asyncsync.lab.simulation.faults import Fault
from asyncsync.lab.simulation.seeds import MEDIANS_MIN, Summary, run_seeds
from asyncsync.lab.simulation.small_scope_play import MODES, FakeRedis, play
from asyncsync.lab.simulation.virtual_time import VirtualLoop
from asyncsync.lab.simulation.world import RunResult, run
from asyncsync.tools.output import Output, rate_and_left
from asyncsync.version import __version__


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulateOptions:
    """Options of the command line."""

    first: int = 0
    seeds: int = 500
    jobs: int = 1
    violations_max: int = 10  # end then: people have to read them
    program: str = "asyncsync"


def simulate(options: SimulateOptions, output: Output) -> Summary:
    """Run seeds, print a summary, and return it."""
    last = options.first + options.seeds - 1
    output.line(
        f"asyncsync {__version__} simulate, seeds {options.first} to {last}, {options.jobs} jobs"
    )
    began_s = time.monotonic()

    def show(summary: Summary) -> None:
        took_s = time.monotonic() - began_s
        text = _progress_text(summary.seeds, options.seeds, "seeds", took_s)
        output.progress(f"{text}, {len(summary.violations)} violations")

    summary = run_seeds(options.first, options.seeds, options.jobs, options.violations_max, show)
    for line in summary_lines(summary, time.monotonic() - began_s, options.program):
        output.line(line)
    return summary


def is_good(summary: Summary) -> bool:
    """Return whether every promise was kept and the seeds were worth running."""
    return not summary.violations and not summary.shortcomings


def summary_lines(summary: Summary, seconds: float, program: str) -> list[str]:
    """Return the summary of many seeds as lines for people."""
    lines = [f"{summary.seeds:,} seeds in {seconds:.0f} s, {summary.checks:,} checks of an item"]
    for name in MEDIANS_MIN:
        quartiles = " / ".join(str(quartile) for quartile in summary.quartiles(name))
        lines.append(f"  {name:<14} quartiles {quartiles}")
    lines.append("  how often each fault struck")
    lines += [f"  {summary.fired[fault]:>10,}  {fault}" for fault in Fault]
    lines += [f"TOO LITTLE  {shortcoming}" for shortcoming in summary.shortcomings]
    for result in summary.violations:
        lines.append(f"VIOLATION  seed {result.seed}: {result.violation}")
        lines.append(f"           replay: {program} simulate --seed {result.seed} --trace")
    verdict = "PASS" if is_good(summary) else "FAIL"
    lines.append(f"{verdict}  {len(summary.violations)} violations in {summary.seeds:,} seeds")
    return lines


def tell(seed: int, output: Output, *, trace: bool) -> RunResult:
    """Run one seed and print its result, with its whole story if `trace` is true."""
    output.line(f"asyncsync {__version__} simulate, seed {seed}")
    result = run(seed, output.line if trace else None)
    output.line(f"seed {seed}: {result.scenario}")
    output.line(
        f"{result.changes} changes, {result.invocations} invocations, {result.checks} checks"
    )
    for fault in Fault:
        if fault in result.fired:
            output.line(f"{result.fired[fault]:>6}  {fault}")
    output.line(f"VIOLATION  {result.violation}" if result.violation else "PASS")
    return result


def whole_scope(records_max: int, violations_max: int, output: Output) -> bool:
    """Play every history of the small scope; return whether every promise was kept."""
    total = scope.expected(records_max) * len(MODES)
    output.line(
        f"asyncsync {__version__} simulate, the small scope: up to {records_max} records of "
        f"{len(scope.ITEMS)} items, one fault at every point, {len(MODES)} modes"
    )
    began_s = time.monotonic()
    loop, backend = VirtualLoop(), FakeRedis()
    played, violations = 0, 0
    for mode in MODES:
        for history in scope.histories(records_max):
            violation = play(history, backend, loop, mode)
            played += 1
            if violation:
                violations += 1
                output.line(f"VIOLATION  {mode}, {history}: {violation}")
                if violations >= violations_max:
                    return False
            text = _progress_text(played, total, "histories", time.monotonic() - began_s)
            output.progress(f"{text}, {violations} violations")
    loop.close()
    assert played == total, f"the formula counts {total} histories, {played} were played"
    verdict = "FAIL" if violations else "PASS"
    output.line(f"{verdict}  {played:,} histories, as the formula counts, {violations} violations")
    return not violations


def _progress_text(done: int, total: int, unit: str, took_s: float) -> str:
    return f"{done:,} of {total:,} {unit}, {rate_and_left(done, total, took_s)}"
