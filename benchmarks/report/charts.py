"""Draws a result: billed time by contestant, and the cost of a million changes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl

from benchmarks.harness.contestants import OWN, OWN_JSON, POWERTOOLS, SEED_AWAITED
from benchmarks.harness.cpu_share import ONE_VCPU_MB
from benchmarks.harness.servers import ZONE
from benchmarks.report.cost import measured_cost
from benchmarks.report.result import Result, Warm, billed_ms
from benchmarks.report.tables import MEMORIES_MB
from benchmarks.report.targets import is_ranked

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "asyncsync"  # the same result gives the same bytes
mpl.rcParams["svg.fonttype"] = "none"  # text stays text
mpl.rcParams["font.family"] = "sans-serif"
mpl.rcParams["font.size"] = 9

OURS, THEIRS, ASIDE = "#0b6e4f", "#8a8d91", "#d4d6d9"


def draw(result: Result, folder: Path) -> list[Path]:
    """Draw what was measured and return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    panels = [
        (warm, title)
        for batch, memory_mb, title in (
            ("1 000 distinct", ONE_VCPU_MB, "1 000 records of 1 000 items, 1 vCPU"),
            ("100 hot", ONE_VCPU_MB, "100 records of {distinct} items, 1 vCPU"),
            ("100 hot", 128, "100 records of {distinct} items, 128 MB"),
        )
        for warm in [result.find(batch, ZONE, memory_mb)]
        if warm is not None
    ]
    if panels:
        drawn.append(_billed(panels, folder / "billed.svg"))
    if any(measured_cost(result, OWN_JSON, "100 distinct", ZONE, m) for m in MEMORIES_MB):
        drawn.append(_cost(result, folder / "cost.svg"))
    return drawn


def _billed(panels: Sequence[tuple[Warm, str]], path: Path) -> Path:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(panels), figsize=(4.6 * len(panels), 4.2), squeeze=False)
    for axis, (warm, title) in zip(axes[0], panels, strict=True):
        _bars(axis, warm, title.format(distinct=warm.distinct))
    figure.suptitle("Billed ms of a warm invocation, Redis 0.5 ms away (log scale)")
    figure.tight_layout()
    return _saved(figure, path)


def _bars(axis: Any, warm: Warm, title: str) -> None:
    names = sorted(warm.samples_ms, key=lambda name: -median(warm.samples_ms[name]))
    billed = [billed_ms(warm, name) for name in names]
    bars = axis.barh(range(len(names)), billed, color=[_color(warm, name) for name in names])
    for bar, name in zip(bars, names, strict=True):
        if warm.verdicts[name] != "right":
            bar.set_hatch("////")
    axis.bar_label(bars, [f"{ms:g}" for ms in billed], padding=2, fontsize=8)
    axis.set_yticks(range(len(names)), [_label(warm, name) for name in names], fontsize=8)
    axis.set_xscale("log")
    axis.set_xlim(0.8, max(billed) * 3)
    axis.set_title(title, fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)


def _color(warm: Warm, name: str) -> str:
    if name.startswith("asyncsync"):
        return OURS
    return THEIRS if is_ranked(warm, name) else ASIDE


def _label(warm: Warm, name: str) -> str:
    verdict = warm.verdicts[name]
    return name if verdict == "right" else f"{name} ({verdict.split(':')[0]})"


def _cost(result: Result, path: Path) -> Path:
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(7, 3.6))
    shown = (
        (OWN, OURS, "-"), (OWN_JSON, OURS, "--"),
        (SEED_AWAITED, THEIRS, "-"), (POWERTOOLS, THEIRS, "--"),
    )  # fmt: skip
    for name, color, style in shown:
        points = [
            (memory_mb, total.usd)
            for memory_mb in MEMORIES_MB
            for total in [measured_cost(result, name, "100 distinct", ZONE, memory_mb)]
            if total is not None
        ]
        axis.plot(*zip(*points, strict=True), style, marker="o", color=color, label=name)
    axis.set_xscale("log", base=2)
    axis.set_xticks(MEMORIES_MB, [str(memory_mb) for memory_mb in MEMORIES_MB])
    axis.set_yscale("log")
    axis.set_xlabel("memory, MB")
    axis.set_ylabel("dollars")
    axis.set_title("A million changes in batches of 100: time, requests and log lines", fontsize=9)
    axis.legend(fontsize=8, frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    return _saved(figure, path)


def _saved(figure: Any, path: Path) -> Path:
    from matplotlib import pyplot

    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return path
