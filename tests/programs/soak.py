"""Run seeds that nobody has run, from where the last soak stopped, and record them.

`make soak` runs it; `SEEDS=` sets the number of seeds. Each slice is appended to docs/soak.jsonl
when it is done, so the next soak continues after it. A violation ends the soak with exit code 1,
and its slice is not recorded.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from asyncsync.lab.simulation.command import SimulateOptions, simulate, summary_lines
from asyncsync.lab.simulation.seeds import Summary
from asyncsync.tools.output import Output

ROOT = Path(__file__).parents[2]
JOURNAL = ROOT / "docs" / "soak.jsonl"
GOAL = 1_000_000
SLICE = 10_000


def rows(journal: Path = JOURNAL) -> list[dict[str, Any]]:
    """Return the slices that were run so far, oldest first."""
    if not journal.exists():
        return []
    return [json.loads(line) for line in journal.read_text().splitlines()]


def next_seed(done: list[dict[str, Any]]) -> int:
    """Return the first seed that nobody has run."""
    return max((row["first"] + row["seeds"] for row in done), default=0)


def row_of(summary: Summary, first: int, commit: str, seconds: float) -> dict[str, Any]:
    """Return a slice as a line of the journal."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit,
        "first": first,
        "seeds": summary.seeds,
        "seconds": round(seconds),
        "checks": summary.checks,
        "violations": len(summary.violations),
        "fired": dict(sorted(summary.fired.items())),
    }


def git(*arguments: str) -> str:
    """Run git and return what it prints."""
    process = subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return process.stdout.strip()


def main() -> int:
    """Run as many seeds as the first argument, in slices."""
    count = int(sys.argv[1])
    if git("status", "--porcelain", "asyncsync"):
        print("asyncsync/ has uncommitted changes. Commit them: a soak records its commit")
        return 2
    commit = git("rev-parse", "--short", "HEAD")
    first = next_seed(rows())
    print(f"seeds {first:,} to {first + count - 1:,} of {GOAL:,}, commit {commit}", flush=True)
    total, began_s = Summary(), time.monotonic()
    for at in range(first, first + count, SLICE):
        slice_began_s = time.monotonic()
        options = SimulateOptions(
            first=at,
            seeds=min(SLICE, first + count - at),
            jobs=os.cpu_count() or 1,
            program=".venv/bin/python -m asyncsync",
        )
        summary = simulate(options, Output(sys.stdout, sys.stderr))
        total.add(summary)
        if summary.violations or summary.shortcomings:
            return 1
        row = row_of(summary, at, commit, time.monotonic() - slice_began_s)
        JOURNAL.parent.mkdir(exist_ok=True)
        with JOURNAL.open("a") as journal:
            journal.write(json.dumps(row) + "\n")
    print("\n".join(summary_lines(total, time.monotonic() - began_s, "asyncsync")))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
