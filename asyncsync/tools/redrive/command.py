"""asyncsync redrive: bring the keys of failed batches up to date, whatever their age.

For the highest record of each key, nothing happens if the fence is past it; else a repair leaves
the fence at that record's version. No image is replayed. An object is moved only after each of
its keys is confirmed: so redrive is safe to run twice, or two at once. The saved state is the
last object name that was looked at: a name that comes before it later is for the next run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random, SystemRandom
from typing import Any

import anyio
import orjson

from asyncsync.aws.budget import ReadBudget
from asyncsync.aws.clients import AwsClients
from asyncsync.aws.items import consistent_reads
from asyncsync.aws.tables import Table, describe_table
from asyncsync.copy.repair import Repaired, Repairer
from asyncsync.mirror import Mirror
from asyncsync.model import Key
from asyncsync.tools.cursors import add, counts
from asyncsync.tools.deadline import DeadlineReached, TimeLeft, unlimited
from asyncsync.tools.errors import CommandFailed, first_error
from asyncsync.tools.output import Output, rate_and_left
from asyncsync.tools.redrive.discarded import Discarded, highest, matching, read_discarded
from asyncsync.tools.redrive.objects import DONE, Objects, open_objects
from asyncsync.tools.state import SavedRun, identity_of, open_state, resume_hint, resume_or_begin

# Objects read in parallel, whose keys are then repaired together. An event of Lambda's has at
# most 6 MB: 100 MB at most.
OBJECTS_MAX = 16

# Lines about unresolved objects that are repeated when a run resumes, beside their count.
NAMED_MAX = 20

_RESOLVED = ("repaired", "past")


@dataclass(frozen=True, slots=True, kw_only=True)
class RedriveOptions:
    """The command line's options."""

    table: str
    places: Sequence[str]  # s3://bucket/prefix, folders, files
    endpoint_url: str | None = None
    dry_run: bool = False
    state: str | None = None  # a path or an s3:// prefix
    as_json: bool = False
    chance: Random = field(default_factory=SystemRandom, compare=False)


@dataclass(slots=True)
class RedriveTally:
    """What a run has done so far."""

    objects: int = 0  # of this table
    redriven: int = 0
    unresolved: int = 0
    of_others: int = 0  # of other tables, left alone
    repaired: int = 0
    past: int = 0  # keys whose fence was past the record


@dataclass(frozen=True, slots=True)
class Unresolved:
    """One reason why an object stays, with the Redis key if there is one."""

    object: str
    kind: str
    name: bytes
    reason: str


async def redrive(
    clients: AwsClients,
    options: RedriveOptions,
    mirror: Mirror,
    output: Output,
    time_left: TimeLeft = unlimited,
) -> bool:
    """Redrive every object of the places; return whether all were resolved.

    Raises CommandRefused or ConfigError if it may not begin, CommandFailed, AwsFailed or
    StoreRefused if it cannot continue, DeadlineReached if time is up.
    """
    tally = RedriveTally()
    table = await describe_table(clients, options.table)
    read = consistent_reads(clients, table.name, ReadBudget(chance=options.chance))
    repairer = Repairer(mirror, table.name, read, dry_run=options.dry_run)
    redriver = Redriver(repairer, table, tally, dry_run=options.dry_run)
    report = RedriveReport(output, tally, options)
    ended = False
    try:
        async with open_state(options.state, clients) as state:
            places, dry_run = [*options.places], options.dry_run
            identity = identity_of("redrive", table, mirror, places=places, dry_run=dry_run)
            saved = await resume_or_begin(state, await state.load(), identity)
            with first_error():
                await _redrive_places(clients, options, saved, redriver, report, time_left)
            await saved.remove()
        ended = True
    finally:
        repairer.close()
        if ended or tally.objects:
            report.end(ended=ended)
    return not tally.unresolved


async def _redrive_places(
    clients: AwsClients,
    options: RedriveOptions,
    saved: SavedRun,
    redriver: Redriver,
    report: RedriveReport,
    time_left: TimeLeft,
) -> None:
    """Redrive place after place from the saved one, until all are done or time is up."""
    document = saved.document("progress")
    first, after = document.get("place", 0), document.get("after", "")
    report.resume(document.get("tally", {}), document.get("named", ()))
    has_worked = False
    for number, place in enumerate(options.places[first:], first):
        async with open_objects(place, clients) as objects:
            async for names in _groups(objects, after):
                if has_worked:
                    if time_left() <= 0:
                        raise DeadlineReached("time is up: not all objects were redriven")
                    report.progress()
                report.write_unresolved(await redriver.redrive_group(objects, names))
                has_worked = True
                progress = {"place": number, "after": names[-1], "named": report.named}
                await saved.save("progress", progress | {"tally": counts(report.tally)})
        after = ""


async def _groups(objects: Objects, after: str) -> AsyncIterator[list[str]]:
    group: list[str] = []
    async for name in objects.names(after):
        group.append(name)
        if len(group) == OBJECTS_MAX:
            yield group
            group = []
    if group:
        yield group


class Redriver:
    """Redrives groups of objects and counts the results."""

    def __init__(
        self, repairer: Repairer, table: Table, tally: RedriveTally, *, dry_run: bool
    ) -> None:
        self._repairer = repairer
        self._table = table
        self._tally = tally
        self._dry_run = dry_run

    async def redrive_group(self, objects: Objects, names: Sequence[str]) -> list[Unresolved]:
        """Redrive these objects; return why any of them stays.

        Raises CommandFailed if Redis confirmed none of their keys.
        """
        batches = await self._read(objects, names)
        targets = highest(target for batch in batches.values() for target in batch.targets)
        answers = {answer.target.key: answer for answer in await self._repairer.repair(targets)}
        _require_redis([*answers.values()])

        unresolved: list[Unresolved] = []
        done: list[str] = []
        for name, batch in batches.items():
            reasons = _reasons(name, batch, answers)
            unresolved += reasons
            if not reasons:
                done.append(name)
        if not self._dry_run:
            async with anyio.create_task_group() as tasks:
                for name in done:
                    tasks.start_soon(objects.move, name)
        kinds = Counter(answer.kind for answer in answers.values())
        self._tally.objects += len(batches)
        self._tally.redriven += len(done)
        self._tally.unresolved += len(batches) - len(done)
        self._tally.repaired += kinds["repaired"]
        self._tally.past += kinds["past"]
        return unresolved

    async def _read(self, objects: Objects, names: Sequence[str]) -> dict[str, Discarded]:
        """Read these objects; leave out those of other tables, and those that are gone."""
        batches: dict[str, Discarded] = {}

        async def read(name: str) -> None:
            body = await objects.read(name)
            if body is not None:
                batches[name] = read_discarded(body)

        async with anyio.create_task_group() as tasks:
            for name in names:
                tasks.start_soon(read, name)
        ours = {
            name: matching(batches[name], self._table.types)
            for name in names
            if name in batches and batches[name].table in (self._table.name, "")
        }
        self._tally.of_others += len(batches) - len(ours)
        return ours


def _require_redis(answers: Sequence[Repaired]) -> None:
    """Stop if Redis is away: each further object would wait for it in vain."""
    if answers and all(answer.kind == "failed" for answer in answers):
        raise CommandFailed(
            f"Redis confirmed none of {len(answers):,} keys ({answers[0].reason}). Their objects "
            "stay where they are: run redrive again when Redis is back"
        )


def _reasons(name: str, batch: Discarded, answers: Mapping[Key, Repaired]) -> list[Unresolved]:
    reasons = [Unresolved(name, "unreadable", b"", fault) for fault in batch.faults]
    for target in batch.targets:
        answer = answers[target.key]
        if answer.kind not in _RESOLVED:
            reasons.append(Unresolved(name, answer.kind, answer.name, answer.reason))
    return reasons


# --- its output -------------------------------------------------------------------------------


class RedriveReport:
    """Writes why objects stay, progress, and the result."""

    def __init__(self, output: Output, tally: RedriveTally, options: RedriveOptions) -> None:
        self.tally = tally
        self.named: list[str] = []  # the lines about the first unresolved objects
        self._output = output
        self._options = options
        self._objects_before = 0  # of earlier runs of the same state

    def resume(self, tally: Mapping[str, int], lines: Sequence[str]) -> None:
        """Add the counts of earlier runs, and repeat what they left unresolved."""
        add(self.tally, tally)
        self._objects_before = self.tally.objects
        self.named = [*lines]
        for line in lines:
            self._output.line(line)

    def write_unresolved(self, unresolved: Sequence[Unresolved]) -> None:
        """Write why objects of a group stay."""
        for each in unresolved:
            line = _unresolved_json(each) if self._options.as_json else _unresolved_line(each)
            self._output.line(line)
            if len(self.named) < NAMED_MAX:
                self.named.append(line)

    def progress(self) -> None:
        """Write how far the run is, if that is due."""
        if not self._options.as_json:
            done, objects = self.tally.objects - self._objects_before, self.tally.objects
            rate = rate_and_left(done, 0, self._output.elapsed_s)
            self._output.progress(f"{objects:,} objects, {rate}")

    def end(self, *, ended: bool) -> None:
        """Write the result, or what was done until the run was cut short."""
        options, output = self._options, self._output
        if options.as_json:
            output.document(summary_json(self.tally, dry_run=options.dry_run))
            return
        output.line(summary_line(self.tally, dry_run=options.dry_run))
        if options.state and not ended:
            output.line(resume_hint(options.state))


def _unresolved_line(unresolved: Unresolved) -> str:
    name = f"{_text(unresolved.name)}: " if unresolved.name else ""
    return f"left    {unresolved.object}: {name}{unresolved.reason}"


def _unresolved_json(unresolved: Unresolved) -> str:
    document: dict[str, Any] = {
        "left": unresolved.object,
        "kind": unresolved.kind,
        "key": _text(unresolved.name),
        "reason": unresolved.reason,
    }
    return orjson.dumps(document).decode()


def _text(name: bytes) -> str:
    return name.decode(errors="backslashreplace")


def summary_line(tally: RedriveTally, *, dry_run: bool) -> str:
    """Return a run's result for people."""
    moved = "would be redriven" if dry_run else f"redriven and moved to {DONE}/"
    repaired = "to be repaired" if dry_run else "repaired"
    others = f"; {tally.of_others:,} of other tables" if tally.of_others else ""
    return (
        f"{tally.redriven:,} of {tally.objects:,} objects {moved}: {tally.repaired:,} keys "
        f"{repaired}, {tally.past:,} were already newer; {tally.unresolved:,} objects left{others}"
    )


def summary_json(tally: RedriveTally, *, dry_run: bool) -> dict[str, Any]:
    """Return a run's result as JSON."""
    return {
        "objects": tally.objects,
        "redriven": tally.redriven,
        "left": tally.unresolved,
        "of_other_tables": tally.of_others,
        "keys_repaired": tally.repaired,
        "keys_past": tally.past,
        "dry_run": dry_run,
    }
