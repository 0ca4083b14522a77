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
from asyncsync.tools.output import Output, json_line, plural, rate_and_left
from asyncsync.tools.redrive.discarded import Discarded, highest, matching, read_discarded
from asyncsync.tools.redrive.objects import DONE, Listed, ObjectLeft, Objects, open_objects
from asyncsync.tools.state import SavedRun, identity_of, open_state, resume_hint, resume_or_begin

# Objects read in parallel, whose keys are then repaired together, and their bytes together: a
# group ends before it has more, unless it is one object.
OBJECTS_MAX = 16
GROUP_BYTES_MAX = 40_000_000

# Lines about objects that stay, beside their count. They are repeated when a run resumes.
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
    of_namesakes: int = 0  # of these, of a table of the same name in another account or Region
    skipped: int = 0  # cannot be Lambda's, by name or size
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
    """Redrive every object of the places; return whether all of this table were resolved.

    An object of a table of the same name, in another account or Region, counts as unresolved:
    most likely it is this table that was not meant.

    Raises CommandRefused or ConfigError if it may not begin, CommandFailed, AwsFailed or
    StoreRefused if it cannot continue, DeadlineReached if time is up.
    """
    tally = RedriveTally()
    table = await describe_table(clients, options.table)
    read = consistent_reads(clients, table, ReadBudget(chance=options.chance))
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
    return not tally.unresolved and not tally.of_namesakes


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
            async for group in _groups(objects, after):
                if has_worked:
                    if time_left() <= 0:
                        raise DeadlineReached("time is up: not all objects were redriven")
                    report.progress()
                report.write_unresolved(await redriver.redrive_group(objects, group))
                has_worked = True
                progress = {"place": number, "after": group[-1].name, "named": report.named}
                await saved.save("progress", progress | {"tally": counts(report.tally)})
        after = ""


async def _groups(objects: Objects, after: str) -> AsyncIterator[list[Listed]]:
    group: list[Listed] = []
    size = 0
    async for listed in objects.listed(after):
        read = listed.size if listed.may_be_ours else 0
        if len(group) == OBJECTS_MAX or (group and size + read > GROUP_BYTES_MAX):
            yield group
            group, size = [], 0
        group.append(listed)
        size += read
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

    async def redrive_group(self, objects: Objects, group: Sequence[Listed]) -> list[Unresolved]:
        """Redrive these objects; return why any of them stays.

        Raises CommandFailed if Redis confirmed none of their keys.
        """
        names = [listed.name for listed in group if listed.may_be_ours]
        self._tally.skipped += len(group) - len(names)
        batches, of_others = await self._read(objects, names)
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
        unmoved = [] if self._dry_run else await _move(objects, done)
        unresolved += [*unmoved, *of_others]
        kinds = Counter(answer.kind for answer in answers.values())
        self._tally.objects += len(batches)
        self._tally.redriven += len(done) - len(unmoved)
        self._tally.unresolved += len(batches) - len(done) + len(unmoved)
        self._tally.repaired += kinds["repaired"]
        self._tally.past += kinds["past"]
        return unresolved

    async def _read(
        self, objects: Objects, names: Sequence[str]
    ) -> tuple[dict[str, Discarded], list[Unresolved]]:
        """Read these objects but those that are gone; name those of other tables apart."""
        batches: dict[str, Discarded] = {}

        async def read(name: str) -> None:
            try:
                body = await objects.read(name)
            except ObjectLeft as exc:
                batches[name] = Discarded(faults=(str(exc),))
                return
            if body is not None:
                batches[name] = read_discarded(body)

        async with anyio.create_task_group() as tasks:
            for name in names:
                tasks.start_soon(read, name)
        ours: dict[str, Discarded] = {}
        others: list[Unresolved] = []
        for name in [name for name in names if name in batches]:
            table = batches[name].table
            if table is None or table == self._table.arn:
                ours[name] = matching(batches[name], self._table.key)
                continue
            others.append(Unresolved(name, "other table", b"", f"of another table, {table}"))
            self._tally.of_others += 1
            self._tally.of_namesakes += table.name == self._table.name
        return ours, others


async def _move(objects: Objects, names: Sequence[str]) -> list[Unresolved]:
    """Move these objects; return why any of them stays."""
    unmoved: list[Unresolved] = []

    async def move(name: str) -> None:
        try:
            await objects.move(name)
        except ObjectLeft as exc:
            reason = f"its keys are up to date, but {exc}"
            unmoved.append(Unresolved(name, "not moved", b"", reason))

    async with anyio.create_task_group() as tasks:
        for name in names:
            tasks.start_soon(move, name)
    return unmoved


def _require_redis(answers: Sequence[Repaired]) -> None:
    """Stop if Redis is away: each further object would wait for it in vain."""
    if answers and all(answer.kind == "failed" for answer in answers):
        keys = plural(len(answers), "key")
        raise CommandFailed(
            f"Redis confirmed none of {keys} ({answers[0].reason}). Their objects stay "
            "where they are: run redrive again when Redis is back"
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
        self._unnamed = 0  # lines beyond the named ones

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
            is_named = len(self.named) < NAMED_MAX
            if is_named:
                self.named.append(line)
            else:
                self._unnamed += 1
            if is_named or self._options.as_json:
                self._output.line(line)

    def progress(self) -> None:
        """Write how far the run is, if that is due."""
        done, objects = self.tally.objects - self._objects_before, self.tally.objects
        rate = rate_and_left(done, 0, self._output.elapsed_s)
        self._output.progress(f"{plural(objects, 'object')}, {rate}")

    def end(self, *, ended: bool) -> None:
        """Write the result, or what was done until the run was cut short."""
        options, output = self._options, self._output
        if options.as_json:
            output.document(summary_json(self.tally, dry_run=options.dry_run))
            return
        if self._unnamed:
            output.line(f"and {self._unnamed:,} more (--json has all)")
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
    return json_line(document)


def _text(name: bytes) -> str:
    return name.decode(errors="backslashreplace")


def summary_line(tally: RedriveTally, *, dry_run: bool) -> str:
    """Return a run's result for people."""
    moved = "would be redriven" if dry_run else f"redriven and moved to {DONE}/"
    repaired = "to be repaired" if dry_run else "repaired"
    were = "was" if tally.past == 1 else "were"
    others = f"; {tally.of_others:,} of other tables" if tally.of_others else ""
    skipped = f"; {tally.skipped:,} skipped, not Lambda's by name or size" if tally.skipped else ""
    return (
        f"{tally.redriven:,} of {plural(tally.objects, 'object')} {moved}: "
        f"{plural(tally.repaired, 'key')} {repaired}, {tally.past:,} {were} already newer; "
        f"{plural(tally.unresolved, 'object')} left{others}{skipped}"
    )


def summary_json(tally: RedriveTally, *, dry_run: bool) -> dict[str, Any]:
    """Return a run's result as JSON."""
    return {
        "objects": tally.objects,
        "redriven": tally.redriven,
        "left": tally.unresolved,
        "of_other_tables": tally.of_others,
        "skipped": tally.skipped,
        "keys_repaired": tally.repaired,
        "keys_past": tally.past,
        "dry_run": dry_run,
    }
