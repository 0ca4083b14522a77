"""asyncsync redrive: bring the keys of discarded batches up to date, whatever their age.

For the highest record of each key: nothing where the fence is past it, else a repair that
leaves the fence at that record's version. An image is never replayed. An object is moved only
after every key of it is confirmed, so it is safe to run twice, and two at once. What is kept is
the last name that was looked at: names that come before it later are for the next run.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random, SystemRandom
from typing import Any

import anyio
import orjson

from asyncsync.aws.budget import ReadBudget
from asyncsync.aws.clients import AwsClients, Table, describe_table, open_clients
from asyncsync.aws.items import consistent_reads
from asyncsync.copy.repair import Repaired, Repairer
from asyncsync.mirror import Mirror
from asyncsync.model import Key
from asyncsync.tools.cursors import add, counts
from asyncsync.tools.deadline import OutOfTime, TimeLeft, unlimited
from asyncsync.tools.errors import CommandFailed, first_error
from asyncsync.tools.output import Say, progress
from asyncsync.tools.redrive.discarded import Discarded, fitting, highest, read_discarded
from asyncsync.tools.redrive.objects import DONE, Objects, open_objects
from asyncsync.tools.state import Document, SavedRun, keep, open_state

# Objects read side by side, whose keys are then repaired together: Lambda's events end at
# 6 MB, so some 100 MB of them at most.
OBJECTS_MAX = 16

PROGRESS_INTERVAL_S = 5.0

# What was left and is named once more where a run goes on, beside its count.
NAMED_MAX = 20


_DONE = ("repaired", "past")


@dataclass(frozen=True, slots=True, kw_only=True)
class RedriveOptions:
    """What the command line says."""

    table: str
    places: Sequence[str]  # s3://bucket/prefix, folders, files
    endpoint_url: str | None = None
    dry_run: bool = False
    state: str | None = None  # a path or s3:// prefix
    as_json: bool = False
    chance: Random = field(default_factory=SystemRandom, compare=False)


@dataclass(slots=True)
class Tally:
    """What a run has done so far."""

    objects: int = 0  # of this table
    redriven: int = 0
    left: int = 0
    of_others: int = 0  # of other tables; not looked at
    repaired: int = 0
    past: int = 0  # keys whose fence was past the record


@dataclass(frozen=True, slots=True)
class Unresolved:
    """Why an object stays: one reason, with the Redis key where there is one."""

    object: str
    kind: str
    name: bytes
    reason: str


async def redrive(
    options: RedriveOptions,
    mirror: Mirror,
    env: Mapping[str, str],
    say: Say,
    left_s: TimeLeft = unlimited,
) -> bool:
    """Redrive every object of the places; return whether none was left.

    Raises CommandFailed, ConfigError or StoreRefused where it cannot go on, OutOfTime where no
    more is to be begun.
    """
    async with open_clients(options.endpoint_url, env) as clients:
        return await redrive_with(clients, options, mirror, say, left_s)


async def redrive_with(
    clients: AwsClients,
    options: RedriveOptions,
    mirror: Mirror,
    say: Say,
    left_s: TimeLeft = unlimited,
) -> bool:
    """Redrive through clients that are open already.

    Raises what redrive raises.
    """
    tally = Tally()
    table = await describe_table(clients, options.table)
    read = consistent_reads(clients, table.name, ReadBudget(chance=options.chance))
    repairer = Repairer(mirror, table.name, read, dry_run=options.dry_run)
    redriver = Redriver(repairer, table, tally, dry_run=options.dry_run)
    said = _Said(say, tally, options)
    ended = False
    try:
        async with open_state(options.state, clients) as state:
            kept = await keep(state, await state.load(), _identity(options, mirror, table))
            with first_error():
                await _places(clients, options, kept, redriver, said, left_s)
            await kept.remove()
        ended = True
    finally:
        repairer.close()
        if ended or tally.objects:  # what was done is said however it ends
            said.end()
    return not tally.left


def _identity(options: RedriveOptions, mirror: Mirror, table: Table) -> Document:
    """Return what a state belongs to: with anything else, it would leave objects out."""
    return {
        "command": "redrive",
        "table": table.arn or table.name,
        "places": [*options.places],
        "dry_run": options.dry_run,
        "redis": mirror.config.server.address,
        "key": mirror.config.key,
    }


async def _places(
    clients: AwsClients,
    options: RedriveOptions,
    kept: SavedRun,
    redriver: Redriver,
    said: _Said,
    left_s: TimeLeft,
) -> None:
    """Redrive place after place, from where it was, until all are or time is up."""
    held = kept.document("progress")
    at, after = held.get("place", 0), held.get("after", "")
    said.resume(held.get("tally", {}), held.get("named", ()))
    worked = False
    for number, place in enumerate(options.places[at:], at):
        async with open_objects(place, clients) as objects:
            async for names in _groups(objects, after):
                if worked and left_s() <= 0:
                    raise OutOfTime("time is up: not all objects were looked at")
                said.left(await redriver.few(objects, names))
                worked = True
                far = {"place": number, "after": names[-1], "named": said.named}
                await kept.save("progress", far | {"tally": counts(said.tally)})
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
    """Redrives a few objects at a time and counts what became of them."""

    def __init__(self, repairer: Repairer, table: Table, tally: Tally, *, dry_run: bool) -> None:
        self._repairer = repairer
        self._table = table
        self._tally = tally
        self._dry_run = dry_run

    async def few(self, objects: Objects, names: Sequence[str]) -> list[Unresolved]:
        """Redrive these objects; return why any of them stays.

        Raises CommandFailed where Redis confirmed not one key.
        """
        found = await self._read(objects, names)
        targets = highest(target for each in found.values() for target in each.targets)
        answers = {each.target.key: each for each in await self._repairer.repair(targets)}
        _refuse_to_go_on(list(answers.values()))

        left: list[Unresolved] = []
        done: list[str] = []
        for name, each in found.items():
            reasons = _reasons(name, each, answers)
            left += reasons
            if not reasons:
                done.append(name)
        if not self._dry_run:
            async with anyio.create_task_group() as tasks:
                for name in done:
                    tasks.start_soon(objects.move, name)
        self._tally.objects += len(found)
        self._tally.redriven += len(done)
        self._tally.left += len(found) - len(done)
        self._tally.repaired += sum(each.kind == "repaired" for each in answers.values())
        self._tally.past += sum(each.kind == "past" for each in answers.values())
        return left

    async def _read(self, objects: Objects, names: Sequence[str]) -> dict[str, Discarded]:
        """Read these objects; those of other tables, or that are gone, are left out."""
        found: dict[str, Discarded] = {}

        async def read(name: str) -> None:
            body = await objects.read(name)
            if body is not None:
                found[name] = read_discarded(body)

        async with anyio.create_task_group() as tasks:
            for name in names:
                tasks.start_soon(read, name)
        ours = {
            name: fitting(found[name], self._table.types)
            for name in names
            if name in found and found[name].table in (self._table.name, "")
        }
        self._tally.of_others += len(found) - len(ours)
        return ours


def _refuse_to_go_on(answers: Sequence[Repaired]) -> None:
    """Stop where Redis is away: each further object would wait for it in vain."""
    if answers and all(each.kind == "failed" for each in answers):
        raise CommandFailed(
            f"Redis did not confirm one of {len(answers):,} keys ({answers[0].reason}); their "
            "objects stay where they are: run it again once Redis is back"
        )


def _reasons(name: str, found: Discarded, answers: Mapping[Key, Repaired]) -> list[Unresolved]:
    reasons = [Unresolved(name, "unreadable", b"", fault) for fault in found.faults]
    for target in found.targets:
        answer = answers[target.key]
        if answer.kind not in _DONE:
            reasons.append(Unresolved(name, answer.kind, answer.name, answer.reason))
    return reasons


# --- what is said -----------------------------------------------------------------------------


class _Said:
    """Says what is left as it is found, how far the run is, and at its end what it has done."""

    def __init__(self, say: Say, tally: Tally, options: RedriveOptions) -> None:
        self.tally = tally
        self.named: list[str] = []  # the first that were left
        self._say = say
        self._before = 0  # objects of an earlier slice
        self._options = options
        self._began_s = self._said_s = time.monotonic()

    def resume(self, tally: Mapping[str, int], named: Sequence[str]) -> None:
        """Take what earlier slices have come to, and say once more what they left."""
        add(self.tally, tally)
        self._before = self.tally.objects
        self.named = [*named]
        for line in named:
            self._say(line)

    def left(self, found: Sequence[Unresolved]) -> None:
        for each in found:
            line = _left_json(each) if self._options.as_json else _left_line(each)
            self._say(line)
            if len(self.named) < NAMED_MAX:
                self.named.append(line)
        now_s = time.monotonic()
        if now_s - self._said_s > PROGRESS_INTERVAL_S and not self._options.as_json:
            self._said_s = now_s
            done, took_s = self.tally.objects - self._before, now_s - self._began_s
            self._say(progress(took_s, f"{self.tally.objects:,} objects, {done / took_s:,.0f}/s"))

    def end(self) -> None:
        summary = summary_json if self._options.as_json else summary_line
        self._say(summary(self.tally, dry_run=self._options.dry_run))


def _left_line(left: Unresolved) -> str:
    named = f"{_text(left.name)}: " if left.name else ""
    return f"left    {left.object}: {named}{left.reason}"


def _left_json(left: Unresolved) -> str:
    shown: dict[str, Any] = {
        "left": left.object,
        "kind": left.kind,
        "key": _text(left.name),
        "reason": left.reason,
    }
    return orjson.dumps(shown).decode()


def _text(name: bytes) -> str:
    return name.decode(errors="backslashreplace")


def summary_line(tally: Tally, *, dry_run: bool) -> str:
    """Write what a run has done for people."""
    moved = "would be redriven" if dry_run else f"redriven and moved to {DONE}/"
    repaired = "to be repaired" if dry_run else "repaired"
    others = f"; {tally.of_others:,} of other tables" if tally.of_others else ""
    return (
        f"{tally.redriven:,} of {tally.objects:,} objects {moved}: {tally.repaired:,} keys "
        f"{repaired}, {tally.past:,} already past it; {tally.left:,} objects left{others}"
    )


def summary_json(tally: Tally, *, dry_run: bool) -> str:
    """Write what a run has done as one JSON object."""
    shown: dict[str, Any] = {
        "objects": tally.objects,
        "redriven": tally.redriven,
        "left": tally.left,
        "of_other_tables": tally.of_others,
        "keys_repaired": tally.repaired,
        "keys_past": tally.past,
        "dry_run": dry_run,
    }
    return orjson.dumps(shown).decode()
