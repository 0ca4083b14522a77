"""asyncsync backfill: load the items that a table had before its stream, while both change.

Segments are scanned in parallel. Each page is filled before the segment's cursor moves past it,
so a killed run repeats at most one page per segment. The counts of a segment are saved with its
cursor: what an earlier run had to leave still counts at the end.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random, SystemRandom
from typing import Any, Protocol

import anyio

from asyncsync.aws.budget import ReadBudget
from asyncsync.aws.clients import AwsClients
from asyncsync.aws.items import consistent_reads
from asyncsync.aws.tables import Table, describe_table
from asyncsync.mirror import Mirror
from asyncsync.tools.backfill.export import BrokenPart, ExportParts, read_manifests
from asyncsync.tools.backfill.filler import Filler, FillTally, TooLate, refuse_to_fill
from asyncsync.tools.backfill.preconditions import require_caught_up_mapping
from asyncsync.tools.cursors import counts
from asyncsync.tools.deadline import DeadlineReached, TimeLeft, unlimited
from asyncsync.tools.errors import CommandRefused, first_error
from asyncsync.tools.output import Output, plural, rate_and_left, share_of
from asyncsync.tools.state import (
    RUN,
    Document,
    SavedRun,
    identity_of,
    open_state,
    resume_hint,
    resume_or_begin,
)
from asyncsync.tools.table_scan import SourcePage, TableScan

# Segments worked on at once. One process encodes on one core: more only hold more pages.
WORKERS_MAX = 16

# Without --segments: one segment per so many bytes, so that cursors and progress move often.
SEGMENT_BYTES = 268_435_456
SEGMENTS_MIN, SEGMENTS_MAX = 4, 1_000

PROGRESS_INTERVAL_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillOptions:
    """The command line's options."""

    table: str
    function: str | None = None  # the mirror's, if it is known
    endpoint_url: str | None = None
    segments: int | None = None  # None: by the table's size
    only_segments: range | None = None  # or parts of an export; None: all
    page_items: int | None = None  # None: as many as DynamoDB gives
    max_rcu: float | None = None  # read capacity units per second; None: no limit
    state: str | None = None  # a path or an s3:// prefix
    from_export: str | None = None
    skip_mapping_check: bool = False
    as_json: bool = False
    chance: Random = field(default_factory=SystemRandom, compare=False)


class Source(Protocol):
    """The items to fill, in parts that are read independently: a table's scan or an export."""

    @property
    def parts(self) -> int:
        """Return the number of parts."""

    @property
    def items(self) -> int:
        """Return about how many items the parts have."""

    def pages(self, part: int, cursor: Any) -> AsyncGenerator[SourcePage, None]:
        """Yield a part's pages from a cursor; None begins at its first item."""


@dataclass(slots=True)
class Run:
    """One run: what it reads with, what it writes with, and how far it is."""

    options: BackfillOptions
    mirror: Mirror
    clients: AwsClients
    table: Table
    source: Source
    saved: SavedRun
    budget: ReadBudget
    output: Output
    time_left: TimeLeft
    tally: FillTally = field(default_factory=FillTally)
    read_before: int = 0  # items that earlier runs of the same state read
    broken: dict[int, str] = field(default_factory=dict)  # parts of an export

    @property
    def parts(self) -> Sequence[int]:
        """Return the parts that this run fills."""
        return self.options.only_segments or range(self.source.parts)

    def unfinished(self) -> list[int]:
        """Return this run's parts that are not done."""
        return [part for part in self.parts if not self.saved.document(_name(part)).get("ended")]


async def backfill(
    clients: AwsClients,
    options: BackfillOptions,
    mirror: Mirror,
    output: Output,
    time_left: TimeLeft = unlimited,
) -> bool:
    """Fill the copy; return whether nothing was rejected or left.

    Raises CommandRefused or ConfigError if it may not begin, CommandFailed, AwsFailed or
    StoreRefused if it cannot continue, DeadlineReached if time is up.
    """
    refuse_to_fill(mirror)
    _refuse_part_of_unknown(options)
    with first_error():
        async with AsyncExitStack() as stack:
            table = await describe_table(clients, options.table)
            export, s3 = None, None
            if options.from_export is not None:
                s3 = await stack.enter_async_context(clients.open("s3"))
                export = await read_manifests(s3, options.from_export, table)
            if not options.skip_mapping_check:
                made_at = None if export is None else export.made_at
                now = datetime.now(UTC)
                await require_caught_up_mapping(clients, table, now, made_at, options.function)
            state = await stack.enter_async_context(open_state(options.state, clients))
            documents = await state.load()
            budget = ReadBudget(options.max_rcu, chance=options.chance)
            if export is None:
                segments = _segments(options, table, documents)
                source: Source = TableScan(
                    clients, table, segments, budget, mirror.wall_clock, options.page_items
                )
            else:
                source = ExportParts(s3, export, table)
            _refuse_beyond(options.only_segments, source.parts)
            identity = _identity(options, mirror, table, source.parts)
            saved = await resume_or_begin(state, documents, identity)
            return await _fill(
                Run(options, mirror, clients, table, source, saved, budget, output, time_left)
            )


def _refuse_part_of_unknown(options: BackfillOptions) -> None:
    if options.only_segments and options.segments is None and options.from_export is None:
        raise CommandRefused("--only-segments needs --segments: give both")


def _refuse_beyond(only_segments: range | None, parts: int) -> None:
    if only_segments and only_segments[-1] >= parts:
        last = f"0 to {parts - 1}" if parts > 1 else "number 0"
        are = "is" if parts == 1 else "are"
        raise CommandRefused(f"--only-segments: there {are} {plural(parts, 'part')}, {last}")


def _segments(options: BackfillOptions, table: Table, documents: Mapping[str, Document]) -> int:
    """Return the number of segments: as asked, as before, or by the table's size."""
    by_size = max(SEGMENTS_MIN, min(SEGMENTS_MAX, table.size_bytes // SEGMENT_BYTES))
    return options.segments or documents.get(RUN, {}).get("segments", by_size)


def _identity(options: BackfillOptions, mirror: Mirror, table: Table, parts: int) -> Document:
    only = options.only_segments
    return identity_of(
        "backfill",
        table,
        mirror,
        stream=table.stream_arn,
        export=options.from_export,
        segments=parts,
        only=None if only is None else [only[0], only[-1]],
    )


# --- the parts of a run -----------------------------------------------------------------------


async def _fill(run: Run) -> bool:
    for part in run.parts:
        run.tally.add(run.saved.document(_name(part)).get("tally", {}))
    run.read_before = run.tally.read
    if not run.options.as_json:
        for line in _head(run):
            run.output.line(line)
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_show_progress, run)
            await _fill_parts(run)
            tasks.cancel_scope.cancel()
        unfinished = [part for part in run.unfinished() if part not in run.broken]
        if unfinished:
            done = len(run.parts) - len(unfinished)
            parts = plural(len(run.parts), "part")
            raise DeadlineReached(f"time is up: {done:,} of {parts} done")
    except BaseException:
        _write_end(run, "cut short")
        raise
    if not run.broken:
        await run.saved.remove()  # a new run finds what was left; no cursor may hide it
    _write_end(run, "done")
    return run.tally.is_whole and not run.broken


async def _fill_parts(run: Run) -> None:
    unfinished = run.unfinished()
    parts = iter(unfinished)

    async def worker() -> None:
        reads = consistent_reads(run.clients, run.table, run.budget)
        filler = Filler(run.mirror, run.table.name, reads, run.tally)
        try:
            for part in parts:
                await _fill_part(run, part, filler)
                if run.time_left() <= 0:
                    return
        finally:
            filler.close()

    async with anyio.create_task_group() as workers:
        for _ in range(min(WORKERS_MAX, len(unfinished))):
            workers.start_soon(worker)


async def _fill_part(run: Run, part: int, filler: Filler) -> None:
    """Fill a part from its saved cursor until it is done or time is up."""
    while True:
        try:
            await _fill_pages(run, part, filler)
        except TooLate:
            if run.options.from_export is not None:
                raise
            continue  # Redis was down so long that the page is stale: read it again
        except BrokenPart as exc:
            run.broken[part] = str(exc)
        return


async def _fill_pages(run: Run, part: int, filler: Filler) -> None:
    document = run.saved.document(_name(part))
    tally = FillTally()
    tally.add(document.get("tally", {}))
    async with aclosing(run.source.pages(part, document.get("after"))) as pages:
        async for page in pages:
            filled = await filler.page(page.items, page.read_s)
            tally.add(filled.document())
            ended = page.cursor is None
            document = {"after": page.cursor, "ended": ended, "tally": tally.document()}
            await run.saved.save(_name(part), document)
            if ended or run.time_left() <= 0:
                return


def _name(part: int) -> str:
    return f"segment-{part:06}"


# --- its output -------------------------------------------------------------------------------


def _head(run: Run) -> Sequence[str]:
    config, only = run.mirror.config, run.options.only_segments
    parts = plural(run.source.parts, "part" if run.options.from_export else "segment")
    parts += " of an export" if run.options.from_export else ""
    here = "" if only is None else f", {only[0]} to {only[-1]} here"
    done = len(run.parts) - len(run.unfinished())
    resumed = f", {done} of them done before" if run.saved.is_resumed else ""
    parts += here + resumed
    return [
        f"table   {run.table.name}, about {plural(run.source.items, 'item')}, {parts}",
        f"redis   {config.server.address}, keys {config.key}",
    ]


async def _show_progress(run: Run) -> None:
    shown: object = None
    while True:
        await anyio.sleep(PROGRESS_INTERVAL_S)
        now = run.tally.read, run.tally.paused, run.budget.throttled
        share = share_of(run.tally.read, run.source.items)
        if now != shown and run.output.progress(_progress(run), share):
            shown = now


def _progress(run: Run) -> str:
    tally = run.tally
    left = tally.rejected + tally.left + len(run.broken)
    parts = [
        f"{tally.read:,} read",
        f"{tally.filled:,} filled",
        f"{tally.repaired:,} repaired",
        _rate(run, run.source.items),
        f"{left:,} LEFT" if left else "",
        _throttled(run),
        f"paused: {tally.paused}" if tally.paused else "",
    ]
    return ", ".join(part for part in parts if part)


def _rate(run: Run, expected: int) -> str:
    before = run.read_before
    return rate_and_left(run.tally.read - before, expected - before, run.output.elapsed_s)


def _throttled(run: Run) -> str:
    times = run.budget.throttled
    return f"throttled {plural(times, 'time')}" if times else ""


def _write_end(run: Run, how: str) -> None:
    tally, output = run.tally, run.output
    if run.budget.note:
        output.note(run.budget.note)
    if run.options.as_json:
        output.document(
            {
                "table": run.table.name,
                "how": how,
                **counts(tally),
                "broken": [*run.broken.values()],
                "named": tally.named,
                "units": run.budget.units,
                "units_are_estimated": run.budget.is_estimated,
                "seconds": round(output.elapsed_s, 3),
                "throttled": run.budget.throttled,
            }
        )
        return
    done = [f"{n:,} {name.replace('_', ' ')}" for name, n in counts(tally).items() if n]
    done += filter(None, [_throttled(run)])
    estimated = " (an estimate)" if run.budget.is_estimated else ""
    rate = f"{_rate(run, run.read_before)}, {run.budget.units:,.1f} units{estimated}"
    output.line(output.timed(f"{how}: {', '.join(done) or 'nothing read'}; {rate}"))
    for line in [*run.broken.values(), *tally.named]:
        output.line(f"  left: {line}")
    if run.options.state and (how != "done" or run.broken):
        output.line(resume_hint(run.options.state))
