"""asyncsync estimate: what a copy costs a month, part by part, and what would change that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from asyncsync.tools.estimate import prices
from asyncsync.tools.estimate.bill import Bill, family_of
from asyncsync.tools.estimate.cheaper import SettingChange, changes_of
from asyncsync.tools.estimate.measured import KEYS
from asyncsync.tools.estimate.memory import memory_of, value_bytes
from asyncsync.tools.output import Output, plural

MB = 1_000_000


def tell(bill: Bill, output: Output, *, table: str | None, as_json: bool) -> None:
    """Write an estimate, as lines or as one JSON object."""
    if as_json:
        output.document(document_of(bill, table))
        return
    for line in lines_of(bill):
        output.line(line)


def document_of(bill: Bill, table: str | None) -> dict[str, Any]:
    """Return an estimate as a JSON object (docs/command-line.md)."""
    work = bill.work
    return {
        "table": table,
        "items": work.items,
        "item_bytes": work.item_bytes,
        "writes_per_s": work.writes_per_s,
        "engine": work.engine,
        "value": work.value,
        "value_bytes": round(value_bytes(work), 1),
        "values": work.values,
        "fences": work.fences,
        "memory": [
            {
                "engine": each.engine,
                "values_bytes": each.values,
                "names_bytes": each.names,
                "fences_bytes": each.fences,
                "total_bytes": each.total,
            }
            for each in (memory_of(work, engine) for engine in KEYS)
        ],
        "caches": [
            {"kind": each.kind, "name": each.name, "nodes": each.nodes, "usd": _cents(each.usd)}
            for each in bill.caches
        ],
        "calls": round(bill.calls.count),
        "records_per_call": round(bill.calls.records, 2),
        "ms_per_call": round(bill.calls.ms, 2),
        "shards": bill.calls.shards,
        "keeps_up": bill.calls.keeps_up,
        "parts": [
            {"part": each.part, "usd": _cents(each.usd), "why": each.why} for each in bill.parts
        ],
        "total_usd": _cents(bill.usd),
        "cheaper": [
            {**asdict(each), "saves_usd": _cents(each.saves_usd)} for each in changes_of(bill)
        ],
        "region": prices.REGION,
        "prices": [asdict(each) for each in prices.SOURCES],
    }


def lines_of(bill: Bill) -> Iterator[str]:
    """Yield an estimate's lines."""
    work = bill.work
    yield (
        f"{plural(work.items, 'item')} of {work.item_bytes:,.0f} bytes, "
        f"{work.writes_per_s:,.6g} writes per second; values {work.value}"
    )
    yield ""
    yield from _memory_lines(bill)
    yield ""
    yield f"a month in {prices.REGION}, USD"
    for part in bill.parts:
        yield f"  {part.part:12} {part.usd:>12,.2f}  {part.why}"
    yield f"  {'total':12} {bill.usd:>12,.2f}"
    for cache in bill.caches[1:]:
        yield f"  or as cache  {cache.usd:>12,.2f}  {cache.name}: {cache.why}"
    yield ""
    yield "one setting changed, USD a month"
    for change in changes_of(bill):
        yield _change_line(change)
    yield ""
    for line in assumptions_of(bill):
        yield f"assumed: {line}"


def _memory_lines(bill: Bill) -> Iterator[str]:
    columns = ("values", "names", "fences", "total")
    yield f"{'memory, MB':14}" + "".join(f"{column:>15}" for column in columns)
    for engine in KEYS:
        memory = memory_of(bill.work, engine)
        sizes = (memory.values, memory.names, memory.fences, memory.total)
        name = f"{engine}{' *' if engine == bill.work.engine else ''}"
        yield f"  {name:12}" + "".join(f"{size / MB:>15,.1f}" for size in sizes)


def figure_of(change: SettingChange) -> str:
    """Return what a change does to a month's bill: "2.10 less", "0.30 more" or "the same"."""
    figure = f"{abs(change.saves_usd):,.2f}"
    if figure == "0.00":
        return "the same"
    return f"{figure} {'less' if change.saves_usd > 0 else 'more'}"


def _change_line(change: SettingChange) -> str:
    size = f"{abs(change.saves_bytes) / MB:,.1f} MB"
    memory = f"{size} {'less' if change.saves_bytes > 0 else 'more'}; " if size != "0.0 MB" else ""
    return f"  {change.change:24} {figure_of(change):>16}  {memory}{change.note}"


def assumptions_of(bill: Bill) -> Sequence[str]:
    """Return what an estimate takes for granted, a sentence each."""
    work, calls = bill.work, bill.calls
    hours = work.fence_ttl_s / 3_600
    lines = [
        f"every write changes another item, so {plural(work.fences, 'fence')} at once, those of "
        f"{hours:g} hours and at most one an item",
        f"names of {work.name_bytes} bytes; items with many kinds of attribute, as measured",
        f"{plural(calls.shards, 'shard')}, evenly used, and one sandbox for each"
        + ("" if work.shards else " (give --shards)"),
        f"the * cache has room if at most {prices.FULL_SHARE:.0%} of what AWS leaves is used; AWS "
        f"reserves {prices.RESERVED_SHARE:.0%} of a node",
        "not counted: reads of the copy, traffic between zones, cold starts, retries, the first "
        "backfill, and what your account has free",
    ]
    lines += [f"{each.what}: as of {each.date}, {each.where}" for each in prices.SOURCES]
    if work.engine in prices.NOT_OFFERED:
        lines.insert(
            0, f"{work.engine} costs what {family_of(work.engine)} does; ElastiCache lacks it"
        )
    if not calls.keeps_up:
        lines.insert(
            0,
            "ParallelizationFactor is raised: one call at a time on each of "
            f"{plural(calls.shards, 'shard')} does not keep up",
        )
    return lines


def _cents(usd: float) -> float:
    return round(usd, 4)
