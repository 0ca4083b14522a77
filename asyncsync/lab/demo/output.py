"""The lines at the end of the demo: one item's life, the two columns, the verdict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from asyncsync.config import parse_url
from asyncsync.lab.compare import Findings
from asyncsync.lab.demo.changes import ItemChange
from asyncsync.lab.demo.read_ways import ReadWay
from asyncsync.lab.demo.stage import DemoOptions
from asyncsync.lab.demo.watcher import CopyWatcher, Journal
from asyncsync.tools.output import Colour, Output, plural

_LABEL_WIDTH = 32
_COLUMN_WIDTH = 16
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


def scoreboard(columns: Sequence[Column]) -> Iterator[str]:
    """Yield the results of the handlers, side by side, the most telling first."""
    yield ""
    yield _row("", [column.name for column in columns])
    for label, *cells in zip(_LABELS, *map(_cells, columns), strict=True):
        yield _row(label, cells)
    yield ""


_LABELS = (
    "keys equal to the table",
    "  stale / missing / came back",
    "backward steps a reader saw",
    "lag until seen, p50 / p99, ms",
    "round trips, at the socket",
    "commands sent",
    "records, with retries and replay",
)


def _cells(column: Column) -> Iterator[str]:
    findings = column.findings
    yield f"{findings.equal:,} of {findings.equal + len(findings.all):,}"
    yield f"{len(findings.stale):,} / {len(findings.missing):,} / {len(findings.came_back):,}"
    yield f"{column.backward:,}"
    yield f"{column.lag_p50_ms:,} / {column.lag_p99_ms:,}"
    yield f"{column.round_trips:,}"
    yield f"{column.commands:,}"
    yield f"{column.delivered:,}"


def _row(label: str, cells: Iterable[str]) -> str:
    return f"{label:<{_LABEL_WIDTH}}" + "".join(f"{cell:>{_COLUMN_WIDTH}}" for cell in cells)


def document(column: Column) -> dict[str, object]:
    """Return a handler's results as JSON."""
    findings = column.findings
    return {
        "handler": column.name,
        "equal": findings.equal,
        "stale": len(findings.stale),
        "missing": len(findings.missing),
        "came_back": len(findings.came_back),
        "backward_steps": column.backward,
        "lag_p50_ms": column.lag_p50_ms,
        "lag_p99_ms": column.lag_p99_ms,
        "round_trips": column.round_trips,
        "commands": column.commands,
        "records": column.delivered,
    }


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
    passed = f"PASS: all {plural(ours.equal, 'item')} equal Redis, by consistent read"
    yield _judgement(ours, passed)
    name = ours.all[0].split(" (")[0] if ours.all else sample
    if not options.keep:
        yield f"look yourself: {options.program} demo --keep --seed {seed}"
        return
    yield f"look yourself: redis-cli {_place(redis_url)} GET {name}"
    yield "and its fence:"
    yield f"{options.program} get {name} --redis-url redis://{parse_url(redis_url).address}"


def _place(redis_url: str) -> str:
    server = parse_url(redis_url)
    place = f"-s {server.path}" if server.path else f"-h {server.host} -p {server.port}"
    return f"{place} -n {server.database}"


def painted(line: str, output: Output) -> str:
    """Return a verdict's line with its first word in colour."""
    colours: dict[str, Colour] = {"PASS": "green", "FAIL": "red"}
    colour = colours.get(line[:4])
    return line if colour is None else output.painted(line[:4], colour) + line[4:]


# --- readers ------------------------------------------------------------------------------------


def reader_scoreboard(ways: Sequence[ReadWay], findings: Sequence[Findings]) -> Iterator[str]:
    """Yield the results of the ways to read, side by side."""
    yield ""
    yield _row("", [way.name for way in ways])
    cells = [_reader_cells(*each) for each in zip(ways, findings, strict=True)]
    for label, *row in zip(_READER_LABELS, *cells, strict=True):
        yield _row(label, row)
    yield ""


_READER_LABELS = (
    "wrong answers at rest",
    "  stale / missing / came back",
    "answers equal to the table",
    "reads",
    "hits",
    "reads of the table",
    "read, p50 / p99, ms",
)


def _reader_cells(way: ReadWay, findings: Findings) -> Iterator[str]:
    yield f"{len(findings.all):,}"
    yield f"{len(findings.stale):,} / {len(findings.missing):,} / {len(findings.came_back):,}"
    yield f"{findings.equal:,} of {findings.equal + len(findings.all):,}"
    yield f"{len(way.latencies_s):,}"
    yield f"{100 * way.hits / max(1, len(way.latencies_s)):.0f} %"
    yield f"{way.slow_table.items:,}"
    yield f"{way.latency_ms(0.50):,} / {way.latency_ms(0.99):,}"


def reader_document(way: ReadWay, findings: Findings) -> dict[str, object]:
    """Return the results of a way to read as JSON."""
    return {
        "reader": way.name,
        "equal": findings.equal,
        "stale": len(findings.stale),
        "missing": len(findings.missing),
        "came_back": len(findings.came_back),
        "reads": len(way.latencies_s),
        "hits": way.hits,
        "table_reads": way.slow_table.items,
        "p50_ms": way.latency_ms(0.50),
        "p99_ms": way.latency_ms(0.99),
    }


def reader_verdict(
    ours: Findings,
    aside: Findings,
    redis_url: str,
    keys: tuple[str, str],
    options: DemoOptions,
    seed: int,
) -> Iterator[str]:
    """Yield PASS, or FAIL with the keys whose answers differ, and how to look at them yourself.

    `keys` are the names of our keys and of cache-aside's, without the item.
    """
    if not aside.all:
        yield "cache-aside was right too in this run"
    yield _judgement(ours, f"PASS: all {plural(ours.equal, 'answer')} equal the table")
    if not options.keep:
        yield f"look yourself: {options.program} demo --reader --keep --seed {seed}"
        return
    wrong = (ours.all or aside.all or [f"{keys[0]}:1 "])[0].split(" (")[0]
    item = wrong.rpartition(":")[2].strip()
    names = " ".join(f"{each}:{item}" for each in keys)
    yield f"look yourself: redis-cli {_place(redis_url)} MGET {names}"


def _judgement(ours: Findings, passed: str) -> str:
    if not ours.all:
        return passed
    more = len(ours.all) - _NAMED_MAX
    rest = f" and {more:,} more" if more > 0 else ""
    return f"FAIL: {', '.join(ours.all[:_NAMED_MAX])}{rest}"
