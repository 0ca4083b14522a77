"""Writes the tables and draws the plots of docs/cost.md, from the code of `asyncsync estimate`.

`make cost-page` runs it. A table stands between two marks that have its name. A plot carries a
digest of its points, so that a test without matplotlib sees whether it is the code's.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from asyncsync.tools.estimate import prices
from asyncsync.tools.estimate.bill import bill_of, room_of
from asyncsync.tools.estimate.cheaper import changes_of
from asyncsync.tools.estimate.command import figure_of
from asyncsync.tools.estimate.measured import EXPIRY_BYTES, FENCE_BYTES, KEYS
from asyncsync.tools.estimate.memory import Workload, memory_of
from asyncsync.tools.output import plural

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "cost.md"

EXAMPLE = Workload(items=1_000_000, item_bytes=1_000.0, writes_per_s=50.0)
EXAMPLES = (
    Workload(items=10_000, item_bytes=1_000.0, writes_per_s=1.0),
    EXAMPLE,
    replace(EXAMPLE, items=10_000_000, writes_per_s=500.0),
    replace(EXAMPLE, items=1_000_000_000, writes_per_s=5_000.0),
)

Points = Mapping[str, Sequence[tuple[float, float]]]


# --- tables -----------------------------------------------------------------------------------


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def keys_table() -> str:
    """Return what a key takes in each server."""
    rows = []
    for engine, formats in KEYS.items():
        for value, sizes in formats.items():
            cells = [f"{size.value:,.0f} / {size.memory:,.0f}" for size in sizes]
            rows.append([engine, value, *cells])
    items = [f"item of {size.item:,.0f}" for size in next(iter(KEYS["valkey-8.0"].values()))]
    return table(["server", "format", *items], rows)


def fences_table() -> str:
    """Return what a fence takes, and what an expiry adds."""
    rows = [
        [engine, f"{FENCE_BYTES[engine]:,.0f}", f"{EXPIRY_BYTES[engine]:,.0f}"] for engine in KEYS
    ]
    return table(["server", "a fence", "an expiry adds"], rows)


def examples_table() -> str:
    """Return the bill of some tables."""
    rows = []
    for work in EXAMPLES:
        bill = bill_of(work)
        usd = {part.part: part.usd for part in bill.parts}
        writes = plural(int(work.writes_per_s), "write")
        cache = bill.caches[0]
        name = f"{cache.nodes} x {cache.name}" if cache.nodes > 1 else cache.name
        rows.append(
            [
                f"{plural(work.items, 'item')}, {writes} per second",
                f"{bill.memory.total / 1e9:,.2f} GB",
                f"{name}: {usd['cache']:,.2f}",
                *(f"{usd[part]:,.2f}" for part in ("requests", "time", "logs", "monitoring")),
                f"{bill.usd:,.2f}",
            ]
        )
    head = ["table", "memory", "cache", "requests", "time", "logs", "monitoring", "total"]
    return table(head, rows)


def changes_table() -> str:
    """Return what one changed setting does to the example's bill."""
    rows = []
    for work in EXAMPLES[1:3]:
        for change in changes_of(bill_of(work)):
            megabytes = (
                f"{-change.saves_bytes / 1e6:+,.0f} MB" if change.saves_bytes else "the same"
            )
            rows.append(
                [
                    f"{work.items:,} items",
                    f"`{change.change}`",
                    figure_of(change),
                    megabytes,
                    change.note,
                ]
            )
    return table(["table", "one setting changed", "USD a month", "memory", "but"], rows)


def prices_table() -> str:
    """Return the prices of caches, and the room that each node has."""
    rows = [
        [
            node.name,
            f"{room_of(node) / prices.GIB:,.2f}",
            *(
                f"{node.usd_an_hour[engine] * prices.HOURS_A_MONTH:,.2f}"
                for engine in ("valkey", "redis")
            ),
        ]
        for node in prices.NODE_TYPES
    ]
    return table(["node", "room, GiB", "Valkey, USD a month", "Redis OSS, USD a month"], rows)


def sources_table() -> str:
    """Return when and where the prices were read."""
    rows = [[source.what, source.date, source.where] for source in prices.SOURCES]
    return table(["prices of", "as of", "source"], rows)


TABLES: Mapping[str, Callable[[], str]] = {
    "keys": keys_table,
    "fences": fences_table,
    "examples": examples_table,
    "changes": changes_table,
    "nodes": prices_table,
    "sources": sources_table,
}


def with_tables(page: str) -> str:
    """Return a page with each table between its marks."""
    for name, make in TABLES.items():
        begins, ends = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        before, rest = page.split(begins)
        page = f"{before}{begins}{make()}{ends}{rest.split(ends)[1]}"
    return page


# --- plots ------------------------------------------------------------------------------------


def memory_points() -> Points:
    """Return GB by items, for three item sizes, every item changed within a fence's life."""
    return {
        f"items of {size:,} bytes": [
            (items, memory_of(replace(EXAMPLE, items=items, item_bytes=size)).total / 1e9)
            for items in (10**exponent for exponent in range(4, 10))
        ]
        for size in (100, 1_000, 10_000)
    }


def dollars_points() -> Points:
    """Return USD a month by writes a second, without the cache, for three windows."""
    return {
        f"window of {window_s} s": [
            (writes_per_s, _function_usd(replace(EXAMPLE, window_s=window_s), writes_per_s))
            for writes_per_s in (1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000)
        ]
        for window_s in (0, 1, 5)
    }


def _function_usd(work: Workload, writes_per_s: float) -> float:
    parts = bill_of(replace(work, writes_per_s=writes_per_s)).parts
    return sum(part.usd for part in parts if part.part in ("requests", "time", "logs"))


PLOTS: Mapping[str, tuple[Callable[[], Points], str, str, str]] = {
    "cost-memory.svg": (
        memory_points,
        "items",
        "GB",
        "Memory of a copy in valkey-8.0, json, 50 writes per second",
    ),
    "cost-dollars.svg": (
        dollars_points,
        "writes per second",
        "USD a month",
        "Requests, time and log lines of the function, items of 1,000 bytes",
    ),
}


def digest(points: Points) -> str:
    """Return a short name of a plot's points."""
    rounded = {name: [[x, float(f"{y:.6g}")] for x, y in line] for name, line in points.items()}
    return hashlib.sha256(json.dumps(rounded, sort_keys=True).encode()).hexdigest()[:16]


def draw(folder: Path) -> None:
    """Draw both plots."""
    from matplotlib import pyplot

    from benchmarks.report import charts  # which sets matplotlib up

    for name, (points_of, x_label, y_label, title) in PLOTS.items():
        points = points_of()
        figure, axis = pyplot.subplots(figsize=(7, 3.6))
        styles = ((charts.THEIRS, "--"), (charts.OURS, "-"), (charts.OURS, ":"))
        for (label, line), (color, style) in zip(points.items(), styles, strict=True):
            axis.plot(*zip(*line, strict=True), style, marker="o", color=color, label=label)
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xlabel(x_label)
        axis.set_ylabel(y_label)
        axis.set_title(title, fontsize=9)
        axis.legend(fontsize=8, frameon=False)
        axis.spines[["top", "right"]].set_visible(False)
        figure.tight_layout()
        metadata = {"Date": None, "Identifier": digest(points)}
        figure.savefig(folder / name, metadata=metadata)
        pyplot.close(figure)


def main() -> int:
    """Write the page's tables and draw its plots."""
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    draw(DOCS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
