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
from asyncsync.tools.output import Output, plural, rate_and_left
from asyncsync.version import __version__


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulateOptions:
    """Options of the command line."""

    first: int = 0
    seeds: int = 500
    jobs: int = 1
    violations_max: int = 10  # end then: people have to read them
    program: str = "asyncsync"
    as_json: bool = False


def simulate(options: SimulateOptions, output: Output) -> Summary:
    """Run seeds, print a summary, and return it."""
    last = options.first + options.seeds - 1
    output.note(
        f"asyncsync {__version__} simulate, seeds {options.first:,} to {last:,}, "
        f"{plural(options.jobs, 'process', 'processes')}"
    )
    began_s = time.monotonic()

    def show(summary: Summary) -> None:
        took_s = time.monotonic() - began_s
        text = _progress_text(summary.seeds, options.seeds, "seeds", took_s)
        output.progress(f"{text}, {plural(len(summary.violations), 'violation')}")

    show(Summary())
    summary = run_seeds(options.first, options.seeds, options.jobs, options.violations_max, show)
    seconds = time.monotonic() - began_s
    if options.as_json:
        output.document(_summary_document(summary, seconds))
    else:
        for line in summary_lines(summary, seconds, options.program):
            output.line(line)
    return summary


def _summary_document(summary: Summary, seconds: float) -> dict[str, object]:
    return {
        "seeds": summary.seeds,
        "seconds": round(seconds, 3),
        "checks": summary.checks,
        "faults": {str(fault): summary.fired[fault] for fault in Fault},
        "too_little": summary.shortcomings,
        "violations": [
            {"seed": result.seed, "violation": result.violation} for result in summary.violations
        ],
    }


def is_good(summary: Summary) -> bool:
    """Return whether every promise was kept and the seeds were worth running."""
    return not summary.violations and not summary.shortcomings


def summary_lines(summary: Summary, seconds: float, program: str) -> list[str]:
    """Return the summary of many seeds as lines for people."""
    lines = [
        f"{plural(summary.seeds, 'seed')} in {seconds:,.0f} s, "
        f"{plural(summary.checks, 'check')} of an item"
    ]
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
    violations = plural(len(summary.violations), "violation")
    lines.append(f"{verdict}  {violations} in {plural(summary.seeds, 'seed')}")
    return lines


def tell(seed: int, output: Output, *, trace: bool, as_json: bool = False) -> RunResult:
    """Run one seed and print its result, with its whole story if `trace` is true."""
    output.note(f"asyncsync {__version__} simulate, seed {seed}")
    result = run(seed, output.line if trace and not as_json else None)
    fired = {fault: result.fired[fault] for fault in Fault if fault in result.fired}
    if as_json:
        output.document(
            {
                "seed": seed,
                "scenario": str(result.scenario),
                "changes": result.changes,
                "invocations": result.invocations,
                "checks": result.checks,
                "faults": {str(fault): count for fault, count in fired.items()},
                "violation": result.violation or None,
            }
        )
        return result
    output.line(f"seed {seed}: {result.scenario}")
    done = (result.changes, "change"), (result.invocations, "invocation"), (result.checks, "check")
    output.line(", ".join(plural(count, noun) for count, noun in done))
    for fault, count in fired.items():
        output.line(f"{count:>6,}  {fault}")
    output.line(f"VIOLATION  {result.violation}" if result.violation else "PASS")
    return result


def whole_scope(records_max: int, options: SimulateOptions, output: Output) -> bool:
    """Play every history of the small scope; return whether every promise was kept."""
    total = scope.expected(records_max) * len(MODES)
    output.note(
        f"asyncsync {__version__} simulate, the small scope: up to "
        f"{plural(records_max, 'record')} of {len(scope.ITEMS)} items, one fault at every point, "
        f"{len(MODES)} modes"
    )
    began_s = time.monotonic()
    loop, backend = VirtualLoop(), FakeRedis()
    played, violations = 0, 0
    histories = ((mode, each) for mode in MODES for each in scope.histories(records_max))
    for mode, history in histories:
        violation = play(history, backend, loop, mode)
        played += 1
        if violation:
            violations += 1
            if options.as_json:
                output.document({"violation": violation, "mode": mode, "history": str(history)})
            else:
                output.line(f"VIOLATION  {mode}, {history}: {violation}")
            if violations >= options.violations_max:
                break
        text = _progress_text(played, total, "histories", time.monotonic() - began_s)
        output.progress(f"{text}, {plural(violations, 'violation')}")
    loop.close()
    assert violations or played == total, f"{total} histories are expected, {played} were played"
    if options.as_json:
        output.document({"histories": played, "violations": violations})
    else:
        verdict = "FAIL" if violations else "PASS"
        output.line(
            f"{verdict}  {played:,} histories, as the formula counts, "
            f"{plural(violations, 'violation')}"
        )
    return not violations


def _progress_text(done: int, total: int, unit: str, took_s: float) -> str:
    return f"{done:,} of {total:,} {unit}, {rate_and_left(done, total, took_s)}"
