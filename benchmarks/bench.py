"""The benchmark: billed duration of asyncsync and of what people use today, in one run.

`make bench` shows the main rows in three minutes; `make bench-full` measures everything in
about fifteen and writes benchmarks/results/full.json, from which the tables, the charts and
the README's numbers are made. The report names what could not be measured here, and why.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from asyncsync.lab.servers import BINARIES, binaries
from benchmarks.events import batch
from benchmarks.harness.bundles import BUILT, ROOT
from benchmarks.harness.cpu_share import leave_one_free
from benchmarks.harness.machine import machine, origin, versions
from benchmarks.harness.parts import Run, cluster_of_six, cold, server_cost, stages, warm
from benchmarks.harness.plan import choose_contestants, full_cases, quick_cases
from benchmarks.harness.progress import ProgressBar
from benchmarks.harness.servers import servers
from benchmarks.report.publish import publish
from benchmarks.report.result import Result, load, save
from benchmarks.report.tables import report

FULL = ROOT / "benchmarks" / "results" / "full.json"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, write the result, print the tables; return the exit code."""
    parser = argparse.ArgumentParser(description="Measure billed duration beside the peers.")
    parser.add_argument("--full", action="store_true", help="measure everything (15 minutes)")
    parser.add_argument(
        "--read", type=Path, metavar="FILE", help="print a saved result; measure nothing"
    )
    parser.add_argument("--into", type=Path, metavar="FILE", help="write the result here, as JSON")
    parser.add_argument("--publish", action="store_true", help="write the charts and documents")
    parser.add_argument("--seed", type=int, default=1, help="seed of the events (default: 1)")
    parser.add_argument("--only", metavar="NAMES", help="contestants, with ; between them")
    parser.add_argument("--rounds", type=int, help="rounds of each measurement")
    arguments = parser.parse_args(argv)
    if arguments.read is not None:
        result = load(arguments.read)
    else:
        on_path = binaries()
        if not on_path:
            print(f"bench: none of {', '.join(BINARIES)} is on PATH", file=sys.stderr)
            return 2
        result = measure_all(
            arguments, "redis-server" if "redis-server" in on_path else on_path[0]
        )
        into = arguments.into or (FULL if arguments.full else BUILT / "quick.json")
        save(result, into)
        print(f"every sample: {into}", file=sys.stderr)
    if arguments.publish or (arguments.full and arguments.into is None):
        publish(result, ROOT)
    print(report(result))
    return 0


def measure_all(arguments: argparse.Namespace, binary: str) -> Result:
    """Run all parts."""
    began_s = time.monotonic()
    cases = [
        case if arguments.rounds is None else replace(case, rounds=arguments.rounds)
        for case in (full_cases() if arguments.full else quick_cases())
    ]
    rounds = arguments.rounds or (11 if arguments.full else 5)
    views = {(case.records, case.keys, case.view) for case in cases}
    batches = {key: batch(*key, arguments.seed) for key in sorted(views)}
    print("building the bundles", file=sys.stderr)
    absent, present = choose_contestants(arguments.full, arguments.only)
    leave_one_free()
    with (
        ProgressBar(sum(case.rounds for case in cases) + 3 * rounds + 1) as progress,
        servers(list(batches.values()), binary) as networks,
    ):
        for name, network in networks.items():
            progress.describe(f"{name}: a PING takes {network.rtt_us:.0f} us")
        result = Result(
            origin("make bench-full" if arguments.full else "make bench", arguments.seed),
            machine(),
            versions(binary),
            {name: round(network.rtt_us, 1) for name, network in networks.items()},
            absent=absent,
        )
        run = Run(result, networks, batches, random.Random(arguments.seed), progress)
        for case in cases:
            warm(run, case, present)
        cold(run, rounds, present)
        server_cost(run, rounds)
        stages(run, rounds)
        cluster_of_six(run, rounds, binary)
    result.origin["seconds"] = round(time.monotonic() - began_s)
    return result


if __name__ == "__main__":
    sys.exit(main())
