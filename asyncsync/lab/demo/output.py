"""The lines at the end of the demo: one item's life, the two columns, the verdict."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from textwrap import wrap

from asyncsync.config import parse_url
from asyncsync.lab.compare import Findings
from asyncsync.lab.demo.changes import ItemChange
from asyncsync.lab.demo.stage import DemoOptions
from asyncsync.lab.demo.watcher import CopyWatcher, Journal

_LABEL_WIDTH = 44
_COLUMN_WIDTH = 17
_LIFE_CHANGES_MAX = 8
_NAMED_MAX = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """The results of one handler."""

    name: str
    delivered: int
    round_trips: int
    findings: Findings
    backward: int
    lag_p50_ms: int
    lag_p99_ms: int
    commands: int


def scoreboard(ours: Column, usual: Column) -> Iterator[str]:
    """Yield the results of both handlers, side by side."""
    yield ""
    yield _row("", ours.name, usual.name)
    for label, left, right in zip(_LABELS, _cells(ours), _cells(usual), strict=True):
        yield _row(label, left, right)
    yield ""


_LABELS = (
    "records delivered, retries and replay included",
    "round trips, counted at the socket",
    "commands sent",
    "keys equal to the table",
    "  stale / missing / came back",
    "backward steps a reader saw",
    "lag until a reader saw it, p50 / p99, ms",
)


def _cells(column: Column) -> Iterator[str]:
    findings = column.findings
    yield f"{column.delivered:,}"
    yield f"{column.round_trips:,}"
    yield f"{column.commands:,}"
    yield f"{findings.equal} of {findings.equal + len(findings.all)}"
    yield f"{len(findings.stale)} / {len(findings.missing)} / {len(findings.came_back)}"
    yield f"{column.backward:,}"
    yield f"{column.lag_p50_ms:,} / {column.lag_p99_ms:,}"


def _row(label: str, left: str, right: str) -> str:
    return f"{label:<{_LABEL_WIDTH}}{left:>{_COLUMN_WIDTH}}{right:>{_COLUMN_WIDTH}}"


def life_of(journal: Journal, watcher: CopyWatcher, table: str, began_s: float) -> Iterator[str]:
    """Yield one item's life: when each version was written, and when a reader saw it."""
    number = _telling_item(journal)
    yield ""
    yield f"one item's life: {table}:{number}"
    present = False
    for change in journal.changes[number][:_LIFE_CHANGES_MAX]:
        name = "REMOVE" if change.item is None else "MODIFY" if present else "INSERT"
        present = change.item is not None
        at = (number, change.version)
        written_s = journal.written_s[at] - began_s
        if at in watcher.shown:
            became = "gone from" if change.item is None else "seen in"
            then = f"{became} Redis after {max(0, watcher.lags_s[at] * 1_000):,.0f} ms"
        else:
            then = "superseded before a reader looked"
        yield f"  version {change.version:<3} {name}  written at {written_s:5.1f} s, {then}"


def _telling_item(journal: Journal) -> int:
    """Choose an item that was removed and inserted again, with few other changes."""

    def rank(number: int) -> tuple[bool, bool, int]:
        changes = journal.changes[number]
        return (not _came_again(changes), len(changes) > _LIFE_CHANGES_MAX, -len(changes))

    return min(journal.changes, key=rank)


def _came_again(changes: list[ItemChange]) -> bool:
    return any(change.item is None for change in changes[:-1])


def verdict(
    ours: Findings, usual: Findings, sample: str, redis_url: str, options: DemoOptions, seed: int
) -> Iterator[str]:
    """Yield PASS, or FAIL with the keys that differ, and how to look at them yourself."""
    if not usual.all:
        yield "the usual handler was right too in this run"
    if ours.all:
        text = f"FAIL: {', '.join(ours.all[:_NAMED_MAX])}"
        more = len(ours.all) - _NAMED_MAX
        if more > 0:
            text += f" and {more} more"
        yield from wrap(text, 80, subsequent_indent="  ", break_on_hyphens=False)
    else:
        yield f"PASS: all {ours.equal} items equal Redis, by consistent read"
    name = ours.all[0].split(" (")[0] if ours.all else sample
    if not options.keep:
        yield f"look yourself: {options.program} demo --keep --seed {seed}"
        return
    server = parse_url(redis_url)
    place = f"-s {server.path}" if server.path else f"-h {server.host} -p {server.port}"
    yield f"look yourself: redis-cli {place} -n {server.database} GET {name}"
    yield "and its fence:"
    yield f"{options.program} get {name} --redis-url redis://{server.address}"
