"""asyncsync audit: compare a table with its copy, key by key, while both change.

The table is scanned, as a whole or in parts drawn at random, and each page is compared with the
copy; then the copy's key names are scanned for orphans. A difference is checked again later
(confirm.py). With --repair each finding is repaired at once; a key that is not surely ours is
never touched. The saved state is of one moment: cursors, and the counts of all before them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from math import ceil
from random import Random, SystemRandom
from typing import Any
from zlib import crc32

import anyio
from anyio.abc import TaskGroup

from asyncsync.aws.budget import ReadBudget
from asyncsync.aws.clients import AwsClients
from asyncsync.aws.items import consistent_reads, eventual_reads
from asyncsync.aws.tables import Table, describe_table
from asyncsync.copy.names import KeyNames
from asyncsync.copy.reader import CopyReader
from asyncsync.copy.repair import Repairer
from asyncsync.mirror import Mirror
from asyncsync.model import Key
from asyncsync.tools.audit.checks import Checker, Phase
from asyncsync.tools.audit.confirm import Comparer, Kind, wait_s
from asyncsync.tools.audit.orphans import suspects
from asyncsync.tools.audit.report import AuditReport, AuditTally
from asyncsync.tools.cursors import Cursors, Page
from asyncsync.tools.deadline import DeadlineReached, TimeLeft, unlimited
from asyncsync.tools.errors import CommandRefused, first_error
from asyncsync.tools.key_scan import KeyScan, open_scan, scan_keys
from asyncsync.tools.output import Output
from asyncsync.tools.reach import reach
from asyncsync.tools.state import (
    Document,
    SavedRun,
    autosave,
    identity_of,
    open_state,
    resume_hint,
    resume_or_begin,
)
from asyncsync.tools.table_scan import TableScan

# Segments of a whole scan, or parts of a sample, that are read in parallel: one process compares
# on one core, and more would only hold more pages.
WORKERS_MAX = 8

# Items in a part of a sample, about: the fewer, the less they have in common.
PART_ITEMS = 10
PARTS_MAX = 1_000_000  # DynamoDB's most (API_Scan, TotalSegments)

# Keys compared in one round trip to the copy.
CHUNK_KEYS = 1_000

# Before its time is up, a run stops scanning early enough for so many rechecks of what differs.
RECHECKS_LEFT = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditOptions:
    """The command line's options."""

    table: str
    endpoint_url: str | None = None
    sample: int | None = None  # about so many keys; None: the whole table
    recheck_after_s: float = 10.0
    orphans: bool | None = None  # None: if names have a prefix and the whole table is read
    repair: bool = False
    show_values: bool = False
    max_rcu: float | None = None  # read capacity units per second; None: no limit
    state: str | None = None  # a path or an s3:// prefix
    as_json: bool = False
    chance: Random = field(default_factory=SystemRandom, compare=False)


async def audit(
    clients: AwsClients,
    options: AuditOptions,
    mirror: Mirror,
    output: Output,
    time_left: TimeLeft = unlimited,
) -> bool:
    """Compare table and copy; return whether there is no finding, or each was repaired.

    Raises CommandRefused or ConfigError if it may not begin, CommandFailed, AwsFailed,
    StoreRefused or StoreUnavailable if it cannot continue, DeadlineReached if time is up.
    """
    table = await describe_table(clients, options.table)
    names = KeyNames(table.name, table.key, mirror.rules)
    scans_names = _scans_names(options, names)
    await reach(mirror)  # a server that is away must not cost a scan of the table
    async with open_state(options.state, clients) as state:
        saved = await resume_or_begin(state, await state.load(), _identity(options, mirror, table))
        parts = await _parts(saved, table, options)
        report = AuditReport(
            output,
            as_json=options.as_json,
            show_values=options.show_values,
            expected=parts.expected,
            mode=mirror.config.mode,
            named_by=mirror.config.key if mirror.rules.key is None else "its key function",
        )
        auditor = Auditor(clients, mirror, table, options, parts, report, time_left)
        ended = False
        try:
            with first_error():
                await auditor.run(saved, names if scans_names else None)
            ended = True
        finally:
            auditor.close()
            if auditor.budget.note:
                output.note(auditor.budget.note)
            report.end(
                is_whole=parts.is_whole,
                has_names=scans_names,
                repair=options.repair,
                cut_short=not ended,
            )
            if options.state and not ended and not options.as_json:
                output.line(resume_hint(options.state))
        await saved.remove()
    return report.is_good


def _identity(options: AuditOptions, mirror: Mirror, table: Table) -> Document:
    return identity_of(
        "audit",
        table,
        mirror,
        sample=options.sample,
        orphans=options.orphans,
        repair=options.repair,
    )


# A scan of the table finds these. It also finds an orphan whose item was removed meanwhile; that
# is left to the scan of the names, where there is one.
_OF_ITEMS: tuple[Kind, ...] = ("missing", "stale", "mistyped")
_OF_NAMES: tuple[Kind, ...] = ("orphan",)


def _scans_names(options: AuditOptions, names: KeyNames) -> bool:
    if options.orphans is None:
        return options.sample is None and bool(names.prefix)
    return options.orphans


# --- what is scanned --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Parts:
    """The segments to read, of how many, and about how many keys they have."""

    segments: int
    drawn: Sequence[int]
    expected: int

    @property
    def is_whole(self) -> bool:
        """Whether they are the whole table."""
        return len(self.drawn) == self.segments


def draw_parts(items: int, sample: int | None, chance: Random) -> Parts:
    """Choose the parts to scan: all, or as many at random as about hold a sample.

    How many parts is fixed before any is read, and every part is equally likely: so is every
    key, whatever the parts' sizes.
    """
    if sample is None or sample >= items:
        return Parts(WORKERS_MAX, range(WORKERS_MAX), items)
    segments = max(1, min(PARTS_MAX, items // PART_ITEMS))
    count = ceil(sample * segments / items)
    return Parts(segments, chance.sample(range(segments), count), sample)


async def _parts(saved: SavedRun, table: Table, options: AuditOptions) -> Parts:
    """Draw the parts as they were drawn before, or draw them and save how.

    Raises CommandRefused if the same parts cannot be drawn: with another Python, or version.
    """
    document = saved.document("parts")
    how = document or {"items": table.items, "seed": options.chance.getrandbits(64)}
    parts = draw_parts(how["items"], options.sample, Random(how["seed"]))
    check = crc32(repr((parts.segments, *parts.drawn)).encode())
    if not document:
        await saved.save("parts", {**how, "check": check})
    elif document["check"] != check:
        raise CommandRefused(
            "cannot resume this sample: here other parts are drawn. Begin again with another "
            "--state, or resume where it began"
        )
    return parts


class NamePhase(Phase):
    """The scan of the copy's names."""

    def __init__(self, key_names: KeyNames, scan: KeyScan[AuditTally], tally: AuditTally) -> None:
        super().__init__(_OF_NAMES, scan.cursors, tally)
        self.key_names = key_names
        self.scan = scan

    def document(self) -> Document:
        """Return the state to resume from, as JSON."""
        return self.scan.document()


class Auditor:
    """Compares one table with its copy: first the table's items, then the copy's names."""

    def __init__(
        self,
        clients: AwsClients,
        mirror: Mirror,
        table: Table,
        options: AuditOptions,
        parts: Parts,
        report: AuditReport,
        time_left: TimeLeft,
    ) -> None:
        self.budget = budget = ReadBudget(options.max_rcu, chance=options.chance)
        reads = consistent_reads(clients, table, budget)
        repairer = Repairer(mirror, table.name, reads) if options.repair else None
        self._parts = parts
        self._is_saved = options.state is not None
        self._report = report
        self._time_left: TimeLeft = lambda: time_left() - RECHECKS_LEFT * options.recheck_after_s
        self._scan = TableScan(clients, table, parts.segments, budget)
        self._read_eventually = eventual_reads(clients, table, budget)
        self._copy = CopyReader(mirror)
        self._comparer = Comparer(mirror, table.name, self._copy, reads)
        self._checker = Checker(self._comparer, repairer, wait_s(options.recheck_after_s), report)

    async def run(self, saved: SavedRun, key_names: KeyNames | None) -> None:
        """Scan the table's parts, then the copy's names if they are given.

        Raises what reading table and copy raises, and DeadlineReached.
        """
        document = saved.document("progress")
        kinds = _OF_ITEMS if key_names else (*_OF_ITEMS, *_OF_NAMES)
        cursors = Cursors(len(self._parts.drawn), AuditTally(), document.get("items"))
        items = Phase(kinds, cursors, self._report.items)
        names: NamePhase | None = None
        if key_names is not None:
            scan = await open_scan(
                self._copy, AuditTally(), document.get("names", {}), is_saved=self._is_saved
            )
            names = NamePhase(key_names, scan, self._report.names)
        if document:
            self._report.resume(document["named"])

        def progress() -> Document:
            scans = {"items": items.document()}
            if names is not None:
                scans["names"] = names.document()
            return {**scans, "named": self._report.named}

        async with autosave(saved, "progress", progress):
            await self._scan_items(items)
            if names is not None:
                await self._scan_names(names)

    async def _scan_items(self, phase: Phase) -> None:
        todo = phase.cursors.todo()
        async with anyio.create_task_group() as tasks:
            for _ in range(min(WORKERS_MAX, len(self._parts.drawn))):
                tasks.start_soon(self._scan_parts, todo, phase, tasks)
        _require_done(phase, "items of the table")

    async def _scan_parts(
        self, todo: Iterator[tuple[int, Any]], phase: Phase, tasks: TaskGroup
    ) -> None:
        for part, cursor in todo:
            async with aclosing(self._scan.pages(self._parts.drawn[part], cursor)) as pages:
                async for read in pages:
                    page = phase.cursors.add_page(part, read.cursor, AuditTally())
                    await self._compare(read.items, phase, page, tasks)
                    if self._time_left() <= 0:
                        return

    async def _compare(
        self,
        items: Sequence[tuple[Key, bytes]],
        phase: Phase,
        page: Page[AuditTally],
        tasks: TaskGroup,
    ) -> None:
        for first in range(0, len(items), CHUNK_KEYS):
            chunk = items[first : first + CHUNK_KEYS]
            found = await self._comparer.compare_items(chunk)
            phase.count(page, AuditTally(keys=len(chunk), uncompared=found.uncompared))
            self._report.progress()
            await self._checker.start([each.key for each in found.differences], phase, page, tasks)
        phase.cursors.complete(page)

    async def _scan_names(self, phase: NamePhase) -> None:
        """Scan the copy's names for keys whose item does not exist."""
        pattern = phase.key_names.pattern
        async with anyio.create_task_group() as tasks:
            pages = scan_keys(self._copy, pattern, phase.scan, AuditTally, self._time_left)
            async for names, page in pages:
                group = await suspects(names, phase.key_names, self._copy, self._read_eventually)
                phase.count(page, AuditTally(keys=group.ours, foreign=group.foreign))
                self._report.progress()
                await self._checker.start(group.keys, phase, page, tasks)
                phase.cursors.complete(page)
        _require_done(phase, "names of the copy")

    def close(self) -> None:
        """Close the connections."""
        self._copy.close()
        self._checker.close()


def _require_done(phase: Phase, noun: str) -> None:
    if not phase.cursors.is_done:
        raise DeadlineReached(f"time is up: not all {noun} were compared")
