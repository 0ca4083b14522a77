"""asyncsync audit: compare a table with its copy, key by key, while both change.

The table is scanned, whole or by parts drawn at random, and each page compared with the copy;
then the copy's names are scanned for orphans. What differs is looked at twice (looks.py). With
--repair each finding is repaired at once; a key that is not surely ours is never touched.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import ceil
from random import Random, SystemRandom
from typing import Any, TypeAlias

import anyio
from anyio.abc import TaskGroup

from asyncsync.mirror import Mirror
from asyncsync.model import Key
from asyncsync.operate.copy import Copy
from asyncsync.operate.dynamo import Dynamo, Table, describe_table, dynamo
from asyncsync.operate.entries import key_of
from asyncsync.operate.errors import first_error
from asyncsync.operate.items import consistent_reads, eventual_reads, image_of, scan_page
from asyncsync.operate.ledger import Ledger
from asyncsync.operate.looks import Comparer, Difference, Kind, settle, wait_s
from asyncsync.operate.names import Names
from asyncsync.operate.orphans import Suspects, suspects
from asyncsync.operate.pace import Pace
from asyncsync.operate.repair import Repaired, Repairer, Target

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

Say: TypeAlias = Callable[[str], None]


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
    as_json: bool = False
    chance: Random = field(default_factory=SystemRandom, compare=False)


async def audit(options: AuditOptions, mirror: Mirror, env: Mapping[str, str], say: Say) -> bool:
    """Compare table and copy; return whether there is no finding, or each was repaired.

    Raises CommandRefused where it may not begin, CommandFailed, ConfigError or StoreRefused
    where it cannot go on.
    """
    async with dynamo(options.endpoint_url, env) as clients:
        return await audit_with(clients, options, mirror, say)


async def audit_with(clients: Dynamo, options: AuditOptions, mirror: Mirror, say: Say) -> bool:
    """Audit through clients that are open already.

    Raises what audit raises.
    """
    table = await describe_table(clients, options.table)
    names = Names(table.name, table.keys, table.types, mirror.rules)
    looks_for_orphans = _looks_for_orphans(options, names)
    parts = draw_parts(table.items, options.sample, options.chance)
    pace = Pace(options.rcu, chance=options.chance)
    repairer = None
    if options.repair:
        reads = consistent_reads(clients, table.name, pace)
        repairer = Repairer(mirror, table.name, reads)
    ledger = Ledger(say, as_json=options.as_json, show=options.show, expected=parts.expected)
    auditor = Auditor(clients, mirror, table, pace, options.settle_s, ledger, repairer)
    ended = False
    try:
        with first_error():
            await auditor.scan(parts, _OF_ITEMS if looks_for_orphans else _ALL)
            if looks_for_orphans:
                await auditor.find_orphans(names)
        ended = True
    finally:
        auditor.close()
        ledger.end(
            is_whole=parts.is_whole,
            looked_for_orphans=looks_for_orphans,
            repair=options.repair,
            cut_short=not ended,
        )
    return ledger.is_good


# What a scan of the table finds; an orphan is found by its name, where names are scanned.
_OF_ITEMS: tuple[Kind, ...] = ("missing", "stale")
_OF_NAMES: tuple[Kind, ...] = ("orphan",)
_ALL = (*_OF_ITEMS, *_OF_NAMES)


def _looks_for_orphans(options: AuditOptions, names: Names) -> bool:
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


class Auditor:
    """Compares one table with its copy, in the order of the module's law."""

    def __init__(
        self,
        clients: Dynamo,
        mirror: Mirror,
        table: Table,
        pace: Pace,
        settle_s: float,
        ledger: Ledger,
        repairer: Repairer | None,
    ) -> None:
        self._clients = clients
        self._table = table
        self._pace = pace
        self._ledger = ledger
        self._repairer = repairer
        self._turn = anyio.Lock()  # the repairer's: one call at a time
        self._wait = wait_s(settle_s)
        self._copy = Copy(mirror)
        self._comparer = Comparer(mirror, table.name, self._copy)
        reads = consistent_reads(clients, table.name, pace)
        self._look = partial(self._comparer.look, read=reads)
        self._waiting = anyio.Semaphore(CHUNKS_WAITING_MAX)
        self._orphans: set[bytes] = set()  # SCAN may name one twice

    async def scan(self, parts: Parts, kinds: Collection[Kind]) -> None:
        """Scan the table's parts and compare each page.

        Raises what reading table and copy raises.
        """
        drawn = iter(parts.drawn)
        async with anyio.create_task_group() as tasks:
            for _ in range(min(WORKERS_MAX, len(parts.drawn))):
                tasks.start_soon(self._scan_parts, drawn, parts.segments, kinds, tasks)

    async def _scan_parts(
        self, drawn: Iterator[int], segments: int, kinds: Collection[Kind], tasks: TaskGroup
    ) -> None:
        key_names = sorted(self._table.keys)
        for segment in drawn:
            after: Any = None
            while True:
                ask = partial(scan_page, self._clients, self._table.name, segment, segments, after)
                page = await self._pace.take(ask)
                found = [(key_of(item, key_names), image_of(item)) for item in page.items]
                for first in range(0, len(found), CHUNK_KEYS):
                    chunk = found[first : first + CHUNK_KEYS]
                    differ = await self._comparer.compare(chunk)
                    self._ledger.count(len(chunk))
                    await self._begin([each.key for each in differ], kinds, tasks)
                after = page.rest
                if not after:
                    break

    async def _begin(self, keys: Sequence[Key], kinds: Collection[Kind], tasks: TaskGroup) -> None:
        """Look at what seems to differ, now and later, while the scan goes on."""
        if not keys:
            return
        self._ledger.suspect(len(keys), of_names=kinds is _OF_NAMES)
        await self._waiting.acquire()
        tasks.start_soon(self._settle, keys, kinds)

    async def _settle(self, keys: Sequence[Key], kinds: Collection[Kind]) -> None:
        of_names = kinds is _OF_NAMES
        try:
            settled = await settle(keys, kinds, self._look, self._wait)
        finally:
            self._waiting.release()
        findings = [each for each in settled.findings if each.name not in self._orphans]
        self._orphans |= {each.name for each in findings if each.kind == "orphan"}
        repaired = await self._repair(findings)
        self._ledger.suspect(-len(keys), of_names=of_names)
        self._ledger.settled(settled, findings, repaired, of_names=of_names)

    async def _repair(self, findings: Sequence[Difference]) -> list[Repaired]:
        if self._repairer is None or not findings:
            return []
        async with self._turn:
            return await self._repairer.repair([Target(each.key) for each in findings])

    async def find_orphans(self, names: Names) -> None:
        """Scan the copy's names for keys whose item is not there.

        Raises what reading table and copy raises.
        """
        reads = eventual_reads(self._clients, self._table.name, self._pace)
        async with anyio.create_task_group() as tasks:
            async for found in self._copy.names(names.pattern):
                few: Suspects = await suspects(found, names, self._copy, reads)
                self._ledger.named(few)
                await self._begin(few.keys, _OF_NAMES, tasks)

    def close(self) -> None:
        """Throw the connections away."""
        self._copy.close()
        if self._repairer is not None:
            self._repairer.close()
