"""asyncsync backfill: what a table held before its stream, into the copy, while both change.

Segments are scanned side by side; each page is filled before the segment's cursor moves past
it, so a run that is killed repeats at most one page a segment. What became of the items is
kept beside the cursor: what an earlier slice had to leave counts at the end.
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

from asyncsync.aws.budget import ReadBudget
from asyncsync.aws.clients import AwsClients, Table, describe_table, json_attributes, open_clients
from asyncsync.aws.items import consistent_reads, image_of, scan_page, sdk_attributes
from asyncsync.copy.entries import key_of
from asyncsync.mirror import Mirror
from asyncsync.tools.backfill.export import BrokenPart, Export, open_part, pages, read_manifests
from asyncsync.tools.backfill.filler import Filler, Tally, TooLate, refuse_to_fill
from asyncsync.tools.backfill.preconditions import require_caught_up_mapping
from asyncsync.tools.cursors import counts
from asyncsync.tools.deadline import OutOfTime, TimeLeft, unlimited
from asyncsync.tools.errors import CommandRefused, first_error
from asyncsync.tools.output import Say, progress, rate_and_left
from asyncsync.tools.state import RUN, Document, SavedRun, keep, open_state

# Segments worked on at once. One process encodes on one core: more only hold more pages.
WORKERS_MAX = 16

# Without --segments: one for each so many bytes, so that a cursor is saved and shown often.
SEGMENT_BYTES = 268_435_456
SEGMENTS_MIN, SEGMENTS_MAX = 4, 1_000

PROGRESS_INTERVAL_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillOptions:
    """What the command line says."""

    table: str
    endpoint_url: str | None = None
    segments: int | None = None  # None: from the table's size
    only: range | None = None  # of the segments, or of an export's parts; None: all
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
    clients: AwsClients
    table: Table
    kept: SavedRun
    parts: int
    pace: ReadBudget
    expected: int  # items, about
    left_s: TimeLeft
    began_s: float
    tally: Tally = field(default_factory=Tally)
    before: int = 0  # items that an earlier slice has read
    broken: dict[int, str] = field(default_factory=dict)  # parts of an export

    @property
    def names(self) -> list[str]:
        """Return the key attributes as records have them: in order of their names."""
        return sorted(self.table.keys)

    def todo(self) -> list[int]:
        """Return the parts that are not done, as far as they are this run's."""
        parts = self.options.only or range(self.parts)
        return [part for part in parts if not self.kept.document(_name(part)).get("ended")]


async def backfill(
    options: BackfillOptions,
    mirror: Mirror,
    env: Mapping[str, str],
    say: Say,
    left_s: TimeLeft = unlimited,
) -> bool:
    """Fill the copy; return whether nothing was rejected or left.

    Raises CommandRefused where it may not begin, CommandFailed or StoreRefused where it cannot
    go on, OutOfTime where no more is to be begun.
    """
    refuse_to_fill(mirror)
    _refuse_some_of_unknown(options)
    async with open_clients(options.endpoint_url, env) as clients:
        return await backfill_with(clients, options, mirror, say, left_s)


async def backfill_with(
    clients: AwsClients,
    options: BackfillOptions,
    mirror: Mirror,
    say: Say,
    left_s: TimeLeft = unlimited,
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
                await require_caught_up_mapping(clients, table, datetime.now(UTC), made_at)
            state = await stack.enter_async_context(open_state(options.state, clients))
            held = await state.load()
            parts = _segments(options, table, held) if export is None else len(export.parts)
            _refuse_beyond(options.only, parts)
            run = Run(
                options=options,
                mirror=mirror,
                clients=clients,
                table=table,
                kept=await keep(state, held, _identity(options, mirror, table, parts)),
                parts=parts,
                pace=ReadBudget(options.rcu, chance=options.chance),
                expected=table.items if export is None else export.items,
                left_s=left_s,
                began_s=time.monotonic(),
            )
            return await _run(run, _scan if export is None else _exported(s3, export), say)


def _refuse_some_of_unknown(options: BackfillOptions) -> None:
    if options.only and options.segments is None and options.from_export is None:
        raise CommandRefused("--only counts the segments of --segments: give both")


def _refuse_beyond(only: range | None, parts: int) -> None:
    if only and only[-1] >= parts:
        raise CommandRefused(f"--only: there are {parts} parts, 0 to {parts - 1}")


def _segments(options: BackfillOptions, table: Table, held: Mapping[str, Document]) -> int:
    """Return how many segments: as asked, as before, or by the table's size."""
    by_size = max(SEGMENTS_MIN, min(SEGMENTS_MAX, table.size_bytes // SEGMENT_BYTES))
    return options.segments or held.get(RUN, {}).get("segments", by_size)


def _identity(options: BackfillOptions, mirror: Mirror, table: Table, parts: int) -> Document:
    """Return what a state belongs to: with anything else, its cursors would leave items out."""
    return {
        "command": "backfill",
        "table": table.arn or table.name,
        "stream": table.stream_arn,
        "export": options.from_export,
        "segments": parts,
        "only": None if options.only is None else [options.only[0], options.only[-1]],
        "redis": mirror.config.server.address,
        "key": mirror.config.key,
        "value": mirror.config.value,
    }


# --- the parts of a run -----------------------------------------------------------------------

# Does one part from where its document says, saving a new one after each page, until it is
# done or time is up.
Work: TypeAlias = Callable[[Run, int, Filler], Awaitable[None]]


async def _run(run: Run, work: Work, say: Say) -> bool:
    todo = run.todo()
    for part in run.options.only or range(run.parts):
        run.tally.add(run.kept.document(_name(part)).get("tally", {}))
    run.before = run.tally.read
    if not run.options.as_json:
        for line in _head(run, len(todo)):
            say(line)
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_show_progress, run, say)
            await _work(run, todo, work)
            tasks.cancel_scope.cancel()
        left = [part for part in run.todo() if part not in run.broken]
        if left:
            raise OutOfTime(f"time is up: {len(left):,} of {run.parts:,} parts are not done")
    except BaseException:
        _say_end(run, say, "cut short")
        raise
    if not run.broken:
        await run.kept.remove()  # what was left is found by a new run, not behind a cursor
    _say_end(run, say, "done")
    return run.tally.is_whole and not run.broken


async def _work(run: Run, todo: Sequence[int], work: Work) -> None:
    left = iter(todo)

    async def worker() -> None:
        reads = consistent_reads(run.clients, run.table.name, run.pace)
        filler = Filler(run.mirror, run.table.name, reads, run.tally)
        try:
            for part in left:
                await work(run, part, filler)
                if run.left_s() <= 0:
                    return
        finally:
            filler.close()

    async with anyio.create_task_group() as workers:
        for _ in range(min(WORKERS_MAX, len(todo))):
            workers.start_soon(worker)


def _name(part: int) -> str:
    return f"segment-{part:06}"


def _tally(document: Document) -> Tally:
    tally = Tally()
    tally.add(document.get("tally", {}))
    return tally


async def _scan(run: Run, segment: int, filler: Filler) -> None:
    document = run.kept.document(_name(segment))
    after = sdk_attributes(document["after"]) if document.get("after") else None
    tally = _tally(document)
    while True:
        read_s = run.mirror.wall_clock()
        ask = partial(scan_page, run.clients, run.table.name, segment, run.parts, after)
        page = await run.pace.take(partial(ask, run.options.page_items))
        found = [(key_of(item, run.names), image_of(item)) for item in page.items]
        try:
            done = await filler.page(found, read_s)
        except TooLate:
            continue  # Redis was away for a day: what was read then is read anew
        tally.add(done.document())
        after = page.rest
        held = json_attributes(after) if after else None
        kept = {"after": held, "ended": not after, "tally": tally.document()}
        await run.kept.save(_name(segment), kept)
        if not after or run.left_s() <= 0:
            return


def _exported(s3: Any, export: Export) -> Work:
    made_s = export.made_at.timestamp()

    async def work(run: Run, part: int, filler: Filler) -> None:
        described = export.parts[part]
        document = run.kept.document(_name(part))
        done, tally = int(document.get("items", 0)), _tally(document)

        async def save(*, ended: bool) -> None:
            kept = {"items": done, "ended": ended, "tally": tally.document()}
            await run.kept.save(_name(part), kept)

        try:
            async with open_part(s3, export.bucket, described) as file:
                for page in pages(file, described, run.names, done):
                    tally.add((await filler.page(page, made_s)).document())
                    done += len(page)
                    await save(ended=False)
                    if run.left_s() <= 0:
                        return
        except BrokenPart as exc:
            run.broken[part] = str(exc)
            return
        await save(ended=True)

    return work


# --- what it says -----------------------------------------------------------------------------


def _head(run: Run, todo: int) -> Sequence[str]:
    config, only = run.mirror.config, run.options.only
    of = "parts of an export" if run.options.from_export else "segments"
    here = "" if only is None else f", {only[0]} to {only[-1]} here"
    is_resumed = f", {len(only or range(run.parts)) - todo} of them done before"
    of_them = f"{run.parts} {of}{here}{is_resumed if run.kept.is_resumed else ''}"
    return [
        f"table   {run.table.name}, about {run.expected:,} items, {of_them}",
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
    say(progress(time.monotonic() - run.began_s, text))


def _progress(run: Run) -> str:
    tally = run.tally
    took_s = time.monotonic() - run.began_s
    left = tally.rejected + tally.left + len(run.broken)
    parts = [
        f"{tally.read:,} read",
        f"{tally.filled:,} filled",
        f"{tally.repaired:,} repaired",
        rate_and_left(tally.read - run.before, run.expected - run.before, took_s),
        f"{left:,} LEFT" if left else "",
        _throttled(run),
        f"paused: {tally.paused}" if tally.paused else "",
    ]
    return ", ".join(each for each in parts if each)


def _throttled(run: Run) -> str:
    return f"throttled {run.pace.throttled:,} times" if run.pace.throttled else ""


def _say_end(run: Run, say: Say, how: str) -> None:
    tally = run.tally
    took_s = time.monotonic() - run.began_s
    numbers = counts(tally)
    if run.options.as_json:
        said = {"table": run.table.name, "how": how, **numbers, "broken": [*run.broken.values()]}
        said |= {"named": tally.named, "units": run.pace.units, "seconds": round(took_s, 3)}
        said["throttled"] = run.pace.throttled
        say(orjson.dumps(said).decode())
        return
    told = [f"{count:,} {name.replace('_', ' ')}" for name, count in numbers.items() if count]
    told += filter(None, [_throttled(run)])
    rate = rate_and_left(tally.read - run.before, 0, took_s)
    _show(
        run,
        say,
        f"{how}: {', '.join(told) or 'nothing read'}; {rate}, {run.pace.units:,.1f} units",
    )
    for what in [*run.broken.values(), *tally.named]:
        say(f"  left: {what}")
    if run.options.state and (how != "done" or run.broken):
        say(f"  goes on with the same arguments, --state {run.options.state} included")
