"""Run seeds that nobody has run, from where the last soak stopped, and write down which.

Run by `make soak`, `SEEDS=` says how many. Every slice is appended to docs/soak.jsonl once it
is done, so an interrupted soak goes on where it was. A violation ends it with 1 and is not
written down as run.
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

ROOT = Path(__file__).parents[2]
JOURNAL = ROOT / "docs" / "soak.jsonl"
GOAL = 1_000_000
SLICE = 10_000


def rows(journal: Path = JOURNAL) -> list[dict[str, Any]]:
    """What has been run so far, oldest first."""
    if not journal.exists():
        return []
    return [json.loads(line) for line in journal.read_text().splitlines()]


def next_seed(done: list[dict[str, Any]]) -> int:
    """The first seed that nobody has run."""
    return max((row["first"] + row["seeds"] for row in done), default=0)


def row_of(summary: Summary, first: int, commit: str, seconds: float) -> dict[str, Any]:
    """A slice as it stands in the journal."""
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
    """What git says."""
    done = subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def main() -> int:
    """Run as many seeds as the first argument says, in slices."""
    count = int(sys.argv[1])
    if git("status", "--porcelain", "asyncsync"):
        print("asyncsync/ has changes that are in no commit: a soak says which commit it ran")
        return 2
    commit = git("rev-parse", "--short", "HEAD")
    first = next_seed(rows())
    print(f"seeds {first:,} to {first + count - 1:,} of {GOAL:,}, commit {commit}", flush=True)
    whole, began_s = Summary(), time.monotonic()
    for at in range(first, first + count, SLICE):
        slice_began_s = time.monotonic()
        options = SimulateOptions(
            first=at,
            seeds=min(SLICE, first + count - at),
            jobs=os.cpu_count() or 1,
            program=".venv/bin/python -m asyncsync",
        )
        summary = simulate(options, lambda line: print(line, flush=True))
        whole.add(summary)
        if summary.violations or summary.shortcomings:
            return 1
        row = row_of(summary, at, commit, time.monotonic() - slice_began_s)
        JOURNAL.parent.mkdir(exist_ok=True)
        with JOURNAL.open("a") as journal:
            journal.write(json.dumps(row) + "\n")
    print("\n".join(summary_lines(whole, time.monotonic() - began_s, "asyncsync")))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
