"""asyncsync audit: compare a table with its copy, key by key, while both change.

The table is scanned, whole or by parts drawn at random, and each page compared with the copy;
then the copy's names are scanned for orphans. What differs is looked at twice (looks.py). With
--repair each finding is repaired at once; a key that is not surely ours is never touched. What
is kept of it is of one moment: places in table and copy, and what all before them has come to.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import ceil
from random import Random, SystemRandom
from typing import Any
from zlib import crc32

import anyio
from anyio.abc import TaskGroup

from asyncsync.aws.budget import ReadBudget
from asyncsync.aws.clients import AwsClients, Table, describe_table, json_attributes, open_clients
from asyncsync.aws.items import (
    consistent_reads,
    eventual_reads,
    image_of,
    scan_page,
    sdk_attributes,
)
from asyncsync.copy.entries import Item, key_of
from asyncsync.copy.names import KeyNames
from asyncsync.copy.reader import Copy
from asyncsync.copy.repair import Repaired, Repairer, Target
from asyncsync.mirror import Mirror
from asyncsync.model import Key
from asyncsync.tools.audit.confirm import Comparer, Difference, Kind, settle, wait_s
from asyncsync.tools.audit.orphans import suspects
from asyncsync.tools.audit.report import AuditReport, Tally
from asyncsync.tools.audit.scan import KeyScan, names_of, naming
from asyncsync.tools.cursors import Cursors, Page, add, counts
from asyncsync.tools.deadline import OutOfTime, TimeLeft, unlimited
from asyncsync.tools.errors import CommandRefused, first_error
from asyncsync.tools.output import Say
from asyncsync.tools.state import Document, SavedRun, autosave, keep, open_state

# Segments of a whole scan, and parts of a sample, read side by side: one process compares on
# one core, and more would only hold more pages.
WORKERS_MAX = 8

# A part of a sample has about so many items: the fewer, the less they have in common.
PART_ITEMS = 10
PARTS_MAX = 1_000_000  # DynamoDB's most (API_Scan, TotalSegments)

# Keys compared in one round trip to the copy.
CHUNK_KEYS = 1_000

# Chunks that wait for their second look at once, so that memory stays bounded where all differs.
CHUNKS_WAITING_MAX = 32

# Before a slice ends, what differed last is given its time for a second look, and some more.
SETTLES_LEFT = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditOptions:
    """What the command line says."""

    table: str
    endpoint_url: str | None = None
    sample: int | None = None  # about so many keys; None: the whole table
    settle_s: float = 10.0
    orphans: bool | None = None  # None: where the names have a prefix and the table is whole
    repair: bool = False
    show: bool = False
    rcu: float | None = None
    state: str | None = None  # a path or s3:// prefix
    as_json: bool = False
    chance: Random = field(default_factory=SystemRandom, compare=False)


async def audit(
    options: AuditOptions,
    mirror: Mirror,
    env: Mapping[str, str],
    say: Say,
    left_s: TimeLeft = unlimited,
) -> bool:
    """Compare table and copy; return whether there is no finding, or each was repaired.

    Raises CommandRefused where it may not begin, CommandFailed, ConfigError or StoreRefused
    where it cannot go on, OutOfTime where no more is to be begun.
    """
    async with open_clients(options.endpoint_url, env) as clients:
        return await audit_with(clients, options, mirror, say, left_s)


async def audit_with(
    clients: AwsClients,
    options: AuditOptions,
    mirror: Mirror,
    say: Say,
    left_s: TimeLeft = unlimited,
) -> bool:
    """Audit through clients that are open already.

    Raises what audit raises.
    """
    table = await describe_table(clients, options.table)
    names = KeyNames(table.name, table.keys, table.types, mirror.rules)
    looks_for_orphans = _looks_for_orphans(options, names)
    async with open_state(options.state, clients) as state:
        kept = await keep(state, await state.load(), _identity(options, mirror, table))
        parts = await _parts(kept, table, options)
        ledger = AuditReport(
            say, as_json=options.as_json, show=options.show, expected=parts.expected
        )
        auditor = Auditor(clients, mirror, table, options, ledger, left_s)
        ended = False
        try:
            with first_error():
                await auditor.run(parts, kept, names if looks_for_orphans else None)
            ended = True
        finally:
            auditor.close()
            ledger.end(
                is_whole=parts.is_whole,
                looked_for_orphans=looks_for_orphans,
                repair=options.repair,
                cut_short=not ended,
            )
            if options.state and not ended and not options.as_json:
                say(f"  goes on with the same arguments, --state {options.state} included")
        await kept.remove()
    return ledger.is_good


def _identity(options: AuditOptions, mirror: Mirror, table: Table) -> Document:
    """Return what a state belongs to: with anything else, its counts would be wrong."""
    return {
        "command": "audit",
        "table": table.arn or table.name,
        "sample": options.sample,
        "orphans": options.orphans,
        "repair": options.repair,
        "redis": mirror.config.server.address,
        "key": mirror.config.key,
        "value": mirror.config.value,
        "mode": mirror.config.mode,
    }


# What a scan of the table finds; an orphan is found by its name, where names are scanned.
_OF_ITEMS: tuple[Kind, ...] = ("missing", "stale")
_OF_NAMES: tuple[Kind, ...] = ("orphan",)
_ALL = (*_OF_ITEMS, *_OF_NAMES)


def _looks_for_orphans(options: AuditOptions, names: KeyNames) -> bool:
    if options.orphans is None:
        return options.sample is None and bool(names.prefix)
    return options.orphans


# --- what is scanned --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Parts:
    """Which segments of how many are read, and about how many keys they have."""

    segments: int
    drawn: Sequence[int]
    expected: int

    @property
    def is_whole(self) -> bool:
        """Whether that is the whole table."""
        return len(self.drawn) == self.segments


def draw_parts(items: int, sample: int | None, chance: Random) -> Parts:
    """Choose what to scan: all, or whole parts at random until they hold about a sample.

    How many parts is settled before any is read, and every part is as likely as another: so is
    every key, whatever the parts' sizes are.
    """
    if sample is None or sample >= items:
        return Parts(WORKERS_MAX, range(WORKERS_MAX), items)
    segments = max(1, min(PARTS_MAX, items // PART_ITEMS))
    count = ceil(sample * segments / items)
    return Parts(segments, chance.sample(range(segments), count), sample)


async def _parts(kept: SavedRun, table: Table, options: AuditOptions) -> Parts:
    """Return the parts that were drawn before, or draw them and keep how.

    Raises CommandRefused where they cannot be drawn again: by another Python, or version.
    """
    held = kept.document("parts")
    how = held or {"items": table.items, "seed": options.chance.getrandbits(64)}
    parts = draw_parts(how["items"], options.sample, Random(how["seed"]))
    check = crc32(repr((parts.segments, *parts.drawn)).encode())
    if not held:
        await kept.save("parts", {**how, "check": check})
    elif held["check"] != check:
        raise CommandRefused("--state was kept where other parts are drawn: begin with another")
    return parts


@dataclass(frozen=True, slots=True)
class Phase:
    """What is looked for in the items, or in the names; and how far that is."""

    kinds: Collection[Kind]
    trail: Cursors[Tally]
    of_names: bool


class Auditor:
    """Compares one table with its copy, in the order of the module's law."""

    def __init__(
        self,
        clients: AwsClients,
        mirror: Mirror,
        table: Table,
        options: AuditOptions,
        ledger: AuditReport,
        left_s: TimeLeft,
    ) -> None:
        self._clients = clients
        self._table = table
        self._keeps = options.state is not None
        self._ledger = ledger
        self._left_s: TimeLeft = lambda: left_s() - SETTLES_LEFT * options.settle_s
        self._pace = ReadBudget(options.rcu, chance=options.chance)
        reads = consistent_reads(clients, table.name, self._pace)
        self._repairer = Repairer(mirror, table.name, reads) if options.repair else None
        self._turn = anyio.Lock()  # the repairer's: one call at a time
        self._wait = wait_s(options.settle_s)
        self._copy = Copy(mirror)
        self._comparer = Comparer(mirror, table.name, self._copy)
        self._look = partial(self._comparer.look, read=reads)
        self._waiting = anyio.Semaphore(CHUNKS_WAITING_MAX)
        self._orphans: set[bytes] = set()  # SCAN may name one twice

    async def run(self, parts: Parts, kept: SavedRun, names: KeyNames | None) -> None:
        """Scan the table's parts, then the copy's names where there are any to be looked for.

        Raises what reading table and copy raises, and OutOfTime.
        """
        held = kept.document("progress")
        items = Cursors(len(parts.drawn), Tally(), held.get("items"))
        found: KeyScan[Tally] | None = None
        if names is not None:
            found = await naming(self._copy, Tally(), held.get("names", {}), kept=self._keeps)
        if held:
            before = Tally()
            for trail in [items] if found is None else [items, found.trail]:
                add(before, counts(trail.tally))
            self._ledger.resume(counts(before), held["named"])

        def document() -> Document:
            made: Document = {"items": items.document(), "named": self._ledger.named}
            return made | ({} if found is None else {"names": found.document()})

        async with autosave(kept, "progress", document):
            await self._scan(parts, Phase(_ALL if names is None else _OF_ITEMS, items, False))
            _refuse_to_go_on(items, "of the table")
            if names is not None and found is not None:
                await self._find_orphans(names, found)
                _refuse_to_go_on(found.trail, "of the copy's names")

    async def _scan(self, parts: Parts, phase: Phase) -> None:
        todo = phase.trail.todo()
        async with anyio.create_task_group() as tasks:
            for _ in range(min(WORKERS_MAX, len(parts.drawn))):
                tasks.start_soon(self._scan_parts, parts, todo, phase, tasks)

    async def _scan_parts(
        self, parts: Parts, todo: Iterator[tuple[int, Any]], phase: Phase, tasks: TaskGroup
    ) -> None:
        for at, place in todo:
            after = sdk_attributes(place) if place else None
            while True:
                segment = parts.drawn[at], parts.segments
                ask = partial(scan_page, self._clients, self._table.name, *segment, after)
                page = await self._pace.take(ask)
                after = page.rest
                held = json_attributes(after) if after else None
                step = phase.trail.add_page(at, held, Tally())
                await self._compare(page.items, phase, step, tasks)
                if self._left_s() <= 0:
                    return
                if not after:
                    break

    async def _compare(
        self, items: Sequence[Item], phase: Phase, step: Page[Tally], tasks: TaskGroup
    ) -> None:
        key_names = sorted(self._table.keys)
        found = [(key_of(item, key_names), image_of(item)) for item in items]
        for first in range(0, len(found), CHUNK_KEYS):
            chunk = found[first : first + CHUNK_KEYS]
            differ = await self._comparer.compare(chunk)
            step.tally.keys += len(chunk)
            self._ledger.count(len(chunk))
            await self._begin([each.key for each in differ], phase, step, tasks)
        phase.trail.complete(step)

    async def _begin(
        self, keys: Sequence[Key], phase: Phase, step: Page[Tally], tasks: TaskGroup
    ) -> None:
        """Look at what seems to differ, now and later, while the scan goes on."""
        if not keys:
            return
        step.waits_for += 1
        self._ledger.suspect(len(keys), of_names=phase.of_names)
        await self._waiting.acquire()
        tasks.start_soon(self._settle, keys, phase, step)

    async def _settle(self, keys: Sequence[Key], phase: Phase, step: Page[Tally]) -> None:
        try:
            settled = await settle(keys, phase.kinds, self._look, self._wait)
        finally:
            self._waiting.release()
        findings = [each for each in settled.findings if each.name not in self._orphans]
        self._orphans |= {each.name for each in findings if each.kind == "orphan"}
        repaired = await self._repair(findings)
        self._ledger.suspect(-len(keys), of_names=phase.of_names)
        more = self._ledger.settled(settled, findings, repaired, of_names=phase.of_names)
        add(step.tally, counts(more))
        phase.trail.complete(step)

    async def _repair(self, findings: Sequence[Difference]) -> list[Repaired]:
        if self._repairer is None or not findings:
            return []
        async with self._turn:
            return await self._repairer.repair([Target(each.key) for each in findings])

    async def _find_orphans(self, names: KeyNames, found: KeyScan[Tally]) -> None:
        """Scan the copy's names for keys whose item is not there."""
        reads = eventual_reads(self._clients, self._table.name, self._pace)
        phase = Phase(_OF_NAMES, found.trail, True)
        async with anyio.create_task_group() as tasks:
            few = names_of(self._copy, names.pattern, found, Tally, self._left_s)
            async for some, step in few:
                what = await suspects(some, names, self._copy, reads)
                step.tally.names, step.tally.foreign = what.ours, what.foreign
                self._ledger.names(what)
                await self._begin(what.keys, phase, step, tasks)
                found.trail.complete(step)

    def close(self) -> None:
        """Throw the connections away."""
        self._copy.close()
        if self._repairer is not None:
            self._repairer.close()


def _refuse_to_go_on(trail: Cursors[Tally], of: str) -> None:
    if not trail.is_done:
        raise OutOfTime(f"time is up: not all {of} was looked at")
