"""What the demo says in the end: one item's life, the two columns, the verdict; just lines."""

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
    """One side's results."""

    name: str
    delivered: int
    round_trips: int
    found: Findings
    backward: int
    lag_p50_ms: int
    lag_p99_ms: int
    commands: int


def scoreboard(ours: Column, usual: Column) -> Iterator[str]:
    """Write both sides next to each other."""
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


def _cells(side: Column) -> Iterator[str]:
    found = side.found
    yield f"{side.delivered:,}"
    yield f"{side.round_trips:,}"
    yield f"{side.commands:,}"
    yield f"{found.equal} of {found.equal + len(found.all)}"
    yield f"{len(found.stale)} / {len(found.missing)} / {len(found.came_back)}"
    yield f"{side.backward:,}"
    yield f"{side.lag_p50_ms:,} / {side.lag_p99_ms:,}"


def _row(label: str, left: str, right: str) -> str:
    return f"{label:<{_LABEL_WIDTH}}{left:>{_COLUMN_WIDTH}}{right:>{_COLUMN_WIDTH}}"


def life_of(journal: Journal, watcher: CopyWatcher, table: str, began_s: float) -> Iterator[str]:
    """Tell one item's life: what was written when, and when a reader saw it."""
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
            then = f"{became} Redis after {max(0, watcher.lags_s[at] * 1_000):.0f} ms"
        else:
            then = "superseded before a reader looked"
        yield f"  version {change.version:<3} {name}  written at {written_s:5.1f} s, {then}"


def _telling_item(journal: Journal) -> int:
    """Choose an item that was removed and inserted again, with few changes else."""

    def telling(number: int) -> tuple[bool, bool, int]:
        changes = journal.changes[number]
        return (not _came_again(changes), len(changes) > _LIFE_CHANGES_MAX, -len(changes))

    return min(journal.changes, key=telling)


def _came_again(changes: list[ItemChange]) -> bool:
    return any(change.item is None for change in changes[:-1])


def verdict(
    ours: Findings, usual: Findings, sample: str, redis_url: str, options: DemoOptions, seed: int
) -> Iterator[str]:
    """Say PASS or FAIL, naming keys, and how to look for oneself."""
    if not usual.all:
        yield "the loop was right too in this run"
    if ours.all:
        named = ", ".join(ours.all[:_NAMED_MAX])
        more = len(ours.all) - _NAMED_MAX
        said = f"FAIL: {named}" + (f" and {more} more" if more > 0 else "")
        yield from wrap(said, 80, subsequent_indent="  ", break_on_hyphens=False)
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
