"""asyncsync backfill: what a table held before its stream, into the copy, while both change.

Segments are scanned side by side; each page is filled before the segment's cursor moves past
it, so a run that is killed repeats at most one page a segment.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from random import Random, SystemRandom
from typing import Any, TypeAlias

import anyio
import orjson

from asyncsync.mirror import Mirror
from asyncsync.operate.dynamo import Dynamo, Table, describe_table, dynamo, json_attributes
from asyncsync.operate.entries import key_of
from asyncsync.operate.errors import first_error
from asyncsync.operate.export import BrokenPart, Export, open_part, pages, read_manifests
from asyncsync.operate.filling import Filler, Tally, TooLate, refuse_to_fill
from asyncsync.operate.following import refuse_unless_followed
from asyncsync.operate.items import consistent_reads, image_of, scan_page, sdk_attributes
from asyncsync.operate.pace import Pace
from asyncsync.operate.progress import rate_and_left
from asyncsync.operate.state import RUN, Document, State, open_state, refuse_another_run

# Segments worked on at once. One process encodes on one core: more only hold more pages.
WORKERS_MAX = 16

# Without --segments: one for each so many bytes, so that a cursor is saved and shown often.
SEGMENT_BYTES = 268_435_456
SEGMENTS_MIN, SEGMENTS_MAX = 4, 1_000

PROGRESS_INTERVAL_S = 1.0

Say: TypeAlias = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillOptions:
    """What the command line says."""

    table: str
    endpoint_url: str | None = None
    segments: int | None = None  # None: from the table's size
    page_items: int | None = None  # items a page at most; None: as DynamoDB gives them
    rcu: float | None = None  # read capacity units a second; None: no budget
    state: str | None = None  # a path or s3:// prefix
    from_export: str | None = None
    assume_following: bool = False
    as_json: bool = False
    chance: Random = field(default_factory=SystemRandom, compare=False)


@dataclass(slots=True)
class Run:
    """One run: what it reads with, what it writes with, how far it is."""

    options: BackfillOptions
    mirror: Mirror
    clients: Dynamo
    table: Table
    state: State
    documents: dict[str, Document]  # of an earlier run
    pace: Pace
    expected: int  # items, about
    began_s: float
    tally: Tally = field(default_factory=Tally)
    broken: list[str] = field(default_factory=list)  # parts of an export

    @property
    def names(self) -> list[str]:
        """Return the key attributes as records have them: in order of their names."""
        return sorted(self.table.keys)


async def backfill(
    options: BackfillOptions, mirror: Mirror, env: Mapping[str, str], say: Say
) -> bool:
    """Fill the copy; return whether nothing was rejected or left.

    Raises CommandRefused where it may not begin, CommandFailed or StoreRefused where it cannot
    go on.
    """
    refuse_to_fill(mirror)
    async with dynamo(options.endpoint_url, env) as clients:
        return await backfill_with(clients, options, mirror, say)


async def backfill_with(
    clients: Dynamo, options: BackfillOptions, mirror: Mirror, say: Say
) -> bool:
    """Fill the copy through clients that are open already.

    Raises what backfill raises.
    """
    with first_error():
        async with AsyncExitStack() as stack:
            table = await describe_table(clients, options.table)
            export, s3 = None, None
            if options.from_export is not None:
                s3 = await stack.enter_async_context(clients.open("s3"))
                export = await read_manifests(s3, options.from_export, table)
            if not options.assume_following:
                made_at = None if export is None else export.made_at
                await refuse_unless_followed(clients, table, datetime.now(UTC), made_at)
            state = await stack.enter_async_context(open_state(options.state, clients))
            run = Run(
                options=options,
                mirror=mirror,
                clients=clients,
                table=table,
                state=state,
                documents=await state.load(),
                pace=Pace(options.rcu, chance=options.chance),
                expected=table.items if export is None else export.items,
                began_s=time.monotonic(),
            )
            if export is None:
                return await _run(run, _segments(run), _scan, say)
            return await _run(run, len(export.parts), _exported(s3, export), say)


# --- the parts of a run -----------------------------------------------------------------------

# Does one part from where its document says, saving a new one after each page.
Work: TypeAlias = Callable[[Run, int, Document, Filler], Awaitable[None]]


async def _run(run: Run, parts: int, work: Work, say: Say) -> bool:
    this = _identity(run, parts)
    refuse_another_run(this, run.documents)
    await run.state.save(RUN, this)
    todo = [part for part in range(parts) if not _document(run, part).get("ended")]
    if not run.options.as_json:
        for line in _head(run, parts, len(todo)):
            say(line)
    left = iter(todo)

    async def worker() -> None:
        reads = consistent_reads(run.clients, run.table.name, run.pace)
        filler = Filler(run.mirror, run.table.name, reads, run.tally)
        try:
            for part in left:
                await work(run, part, _document(run, part), filler)
        finally:
            filler.close()

    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_show_progress, run, say)
            async with anyio.create_task_group() as workers:
                for _ in range(min(WORKERS_MAX, len(todo))):
                    workers.start_soon(worker)
            tasks.cancel_scope.cancel()
    except BaseException:
        _say_end(run, say, "cut short")
        raise
    if not run.broken:
        await run.state.remove()  # what was left is found by a new run, not behind a cursor
    _say_end(run, say, "done")
    return run.tally.is_whole and not run.broken


def _identity(run: Run, parts: int) -> Document:
    """Return what a state belongs to: with anything else, its cursors would leave items out."""
    config = run.mirror.config
    return {
        "format": 1,
        "command": "backfill",
        "table": run.table.arn or run.table.name,
        "stream": run.table.stream_arn,
        "export": run.options.from_export,
        "segments": parts,
        "redis": config.server.address,
        "key": config.key,
        "value": config.value,
    }


def _segments(run: Run) -> int:
    """Return how many segments: as asked, as before, or by the table's size."""
    by_size = max(SEGMENTS_MIN, min(SEGMENTS_MAX, run.table.size_bytes // SEGMENT_BYTES))
    return run.options.segments or run.documents.get(RUN, {}).get("segments", by_size)


def _document(run: Run, part: int) -> Document:
    return run.documents.get(_name(part), {})


def _name(part: int) -> str:
    return f"segment-{part:06}"


async def _scan(run: Run, segment: int, document: Document, filler: Filler) -> None:
    after = sdk_attributes(document["after"]) if document.get("after") else None
    segments, name = _segments(run), run.table.name
    while True:
        read_s = run.mirror.wall_clock()
        ask = partial(scan_page, run.clients, name, segment, segments, after)
        page = await run.pace.take(partial(ask, run.options.page_items))
        found = [(key_of(item, run.names), image_of(item)) for item in page.items]
        try:
            await filler.page(found, read_s)
        except TooLate:
            continue  # Redis was away for a day: what was read then is read anew
        after = page.rest
        held = json_attributes(after) if after else None
        await run.state.save(_name(segment), {"after": held, "ended": not after})
        if not after:
            return


def _exported(s3: Any, export: Export) -> Work:
    made_s = export.made_at.timestamp()

    async def work(run: Run, part: int, document: Document, filler: Filler) -> None:
        described = export.parts[part]
        done = int(document.get("items", 0))
        try:
            async with open_part(s3, export.bucket, described) as file:
                for page in pages(file, described, run.names, done):
                    await filler.page(page, made_s)
                    done += len(page)
                    await run.state.save(_name(part), {"items": done, "ended": False})
        except BrokenPart as exc:
            run.broken.append(str(exc))
            return
        await run.state.save(_name(part), {"items": done, "ended": True})

    return work


# --- what it says -----------------------------------------------------------------------------


def _head(run: Run, parts: int, todo: int) -> Sequence[str]:
    config = run.mirror.config
    of = "parts of an export" if run.options.from_export else "segments"
    goes_on = f", {parts - todo} of them done before" if run.documents else ""
    return [
        f"table   {run.table.name}, about {run.expected:,} items, {parts} {of}{goes_on}",
        f"redis   {config.server.address}, keys {config.key}",
    ]


async def _show_progress(run: Run, say: Say) -> None:
    """Say once a second how far it is, where that has changed."""
    shown: object = None
    while not run.options.as_json:
        await anyio.sleep(PROGRESS_INTERVAL_S)
        now = run.tally.read, run.tally.paused, run.pace.throttled
        if now != shown:
            shown = now
            _show(run, say, _progress(run))


def _show(run: Run, say: Say, text: str) -> None:
    say(f"{time.monotonic() - run.began_s:7.1f} s  {text}")


def _progress(run: Run) -> str:
    tally = run.tally
    took_s = time.monotonic() - run.began_s
    left = tally.rejected + tally.left + len(run.broken)
    parts = [
        f"{tally.read:,} read",
        f"{tally.filled:,} filled",
        f"{tally.repaired:,} repaired",
        rate_and_left(tally.read, run.expected, took_s),
        f"{left:,} LEFT" if left else "",
        f"throttled {run.pace.throttled:,} times" if run.pace.throttled else "",
        f"paused: {tally.paused}" if tally.paused else "",
    ]
    return ", ".join(each for each in parts if each)


def _say_end(run: Run, say: Say, how: str) -> None:
    tally = run.tally
    took_s = time.monotonic() - run.began_s
    counts = tally.counts()
    if run.options.as_json:
        said = {"table": run.table.name, "how": how, **counts, "broken": run.broken}
        said |= {"named": tally.named, "units": run.pace.units, "seconds": round(took_s, 3)}
        say(orjson.dumps(said).decode())
        return
    told = ", ".join(
        f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items() if count
    )
    rate = rate_and_left(tally.read, 0, took_s)
    _show(run, say, f"{how}: {told or 'nothing read'}; {rate}, {run.pace.units:,.1f} units")
    for what in [*run.broken, *tally.named]:
        say(f"  left: {what}")
    if run.options.state and (how != "done" or run.broken):
        say(f"  goes on with the same arguments, --state {run.options.state} included")
