"""Writes a result as documents: the charts, all tables, and the README's lines."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks.harness.contestants import (
    EMPTY,
    IOREDIS,
    LIMIT,
    OWN,
    OWN_JSON,
    POWERTOOLS,
    POWERTOOLS_ASYNC,
    REDIS_ASYNCIO,
    SEED_AWAITED,
    SEED_PUBLISHED,
)
from benchmarks.harness.cpu_share import ONE_VCPU_MB
from benchmarks.harness.servers import ZONE
from benchmarks.report.cost import PRICES_DATED, best_memory_mb, measured_cost
from benchmarks.report.result import Result, billed_ms, times
from benchmarks.report.tables import report, table
from benchmarks.report.targets import format_ratio, targets

BEGINS, ENDS = "<!-- bench -->", "<!-- /bench -->"

README_ROWS = (
    OWN, OWN_JSON, IOREDIS, SEED_AWAITED, REDIS_ASYNCIO,
    POWERTOOLS_ASYNC, POWERTOOLS, EMPTY, LIMIT,
)  # fmt: skip
README_BATCHES = (
    ("10 distinct", ONE_VCPU_MB), ("100 hot", ONE_VCPU_MB), ("1 000 distinct", ONE_VCPU_MB),
    ("100 hot", 128),
)  # fmt: skip


def publish(result: Result, root: Path) -> None:
    """Draw the charts, write the tables, and put the README's lines between their marks."""
    from benchmarks.report.charts import draw  # only this needs matplotlib

    results = root / "benchmarks" / "results"
    draw(result, results)
    (results / "full.md").write_text(full_document(result), encoding="utf-8")
    readme = root / "README.md"
    readme.write_text(with_lines(readme.read_text(encoding="utf-8"), result), encoding="utf-8")


def full_document(result: Result) -> str:
    """Write all tables as one document."""
    title = "# What the benchmark found\n\nMade by `make bench-full`, from full.json."
    return f"{title}\n\n{report(result)}\n"


def with_lines(text: str, result: Result) -> str:
    """Return a README whose lines between the marks are this result's."""
    block = f"{BEGINS}\n{readme_lines(result)}\n{ENDS}"
    readme, count = re.subn(f"{BEGINS}.*?{ENDS}", lambda _: block, text, flags=re.DOTALL)
    assert count == 1, f"the README has {BEGINS} once"
    return readme


def readme_lines(result: Result) -> str:
    """Write the README's table and sentences."""
    head = ["billed ms, warm (times ours)"]
    warms = []
    for batch, memory_mb in README_BATCHES:
        warm = result.find(batch, ZONE, memory_mb)
        assert warm is not None, "a full result has every batch of the README"
        warms.append(warm)
        share = "" if memory_mb == ONE_VCPU_MB else f", {memory_mb} MB"
        head.append(
            f"{warm.records:_} records of {warm.distinct:_} items{share}".replace("_", " ")
        )
    head.append("INIT, ms")
    rows = []
    for name in README_ROWS:
        cells = []
        for warm in warms:
            cell = "-"
            if name in warm.samples_ms:
                cell = f"{billed_ms(warm, name):g}"
                if name != OWN:
                    cell += f" ({times(warm, name, OWN).median:.1f}x)"
                if warm.verdicts[name] != "right":
                    cell += f", {warm.verdicts[name].split(':')[0]}"
            cells.append(cell)
        init = result.cold.get(name)
        cells.append(
            "-" if init is None else f"{sorted(init['init_ms'])[len(init['init_ms']) // 2]:.0f}"
        )
        rows.append([name, *cells])
    return "\n".join([
        "![Billed milliseconds of a warm invocation](benchmarks/results/billed.svg)",
        "",
        table(head, rows),
        "",
        sentences(result),
    ])  # fmt: skip


def sentences(result: Result) -> str:
    """Write the sentences below the table."""
    thousand = result.find("1 000 distinct", ZONE, ONE_VCPU_MB)
    best = best_memory_mb(result, OWN_JSON, ZONE)
    assert thousand is not None, "a full result has it"
    assert best is not None, "a full result has every memory size"
    rounds = len(thousand.samples_ms[OWN])
    empty = format_ratio(times(thousand, OWN, EMPTY))
    lost = thousand.verdicts.get(SEED_PUBLISHED, "not run").split(": ")[-1]
    costs = [
        measured_cost(result, OWN_JSON, batch, ZONE, best)
        for batch in ("10 distinct", "100 distinct", "1 000 distinct")
    ]
    usd = ", ".join(f"{cost.usd:.3f}" for cost in costs if cost is not None)
    met = [target.met for target in targets(result)]
    versions = f"Python {result.versions['Python']} and Node {result.versions['Node'].lstrip('v')}"
    text = f"""
        Medians of {rounds} interleaved rounds on {result.origin["date"]}, AWS's own runtime
        clients on {versions}, {result.machine["cores"]} cores of {result.machine["processor"]},
        a Redis {result.networks[ZONE] / 1_000:.1f} ms away, each contestant's copy compared with
        the batch; `asyncsync` is fenced and in `dynamodb-json`. Nothing ran on AWS.
        At 1 000 items it takes {empty} of the time of an empty Python handler, because it skips
        the runtime's own parse of the event. The algorithm of 2017 as it was published is not in
        the table: it answers before it writes; of 1 000 items' values {lost}.
        A million changes cost {usd} dollars in batches of 10, 100 and 1 000 at {best} MB, the
        best memory size (plain `json`, arm64, us-east-1, prices of {PRICES_DATED}; time, requests
        and the metrics line). {met.count(True)} of {len(met)} targets are met: see
        [all tables](benchmarks/results/full.md) and [how it is measured](benchmarks/README.md).
    """
    return " ".join(text.split())
