"""asyncsync audit --retire: remove the names of an old template, once each item has its new one.

A name is removed only if the old template reads a complete key of the table's types out of it,
it holds a string, it is no name under the present settings, and the name that they give its
item is there. What is left over is counted, and stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import orjson
from msgspec import structs

from asyncsync.aws.clients import AwsClients, Table, describe_table, open_clients
from asyncsync.copy.names import KeyNames, is_fence
from asyncsync.copy.reader import Copy
from asyncsync.encode import EncodeRules
from asyncsync.errors import RecordError
from asyncsync.mirror import Mirror
from asyncsync.model import Key
from asyncsync.tools.audit.orphans import keys_of
from asyncsync.tools.audit.scan import names_of, naming
from asyncsync.tools.deadline import OutOfTime, TimeLeft, unlimited
from asyncsync.tools.errors import CommandRefused, first_error
from asyncsync.tools.output import Say
from asyncsync.tools.state import Document, autosave, keep, open_state

_STRING = b"string"


@dataclass(frozen=True, slots=True, kw_only=True)
class RetireOptions:
    """What the command line says."""

    table: str
    template: str  # the old one
    endpoint_url: str | None = None
    orphans: bool = False  # also where the old template has no prefix of its own
    state: str | None = None  # a path or s3:// prefix
    as_json: bool = False


@dataclass(slots=True)
class Tally:
    """What a run has done; every name of the old template's pattern is in one of these."""

    removed: int = 0
    kept: int = 0  # the item's new name is not there
    present: int = 0  # a name under the present settings, too
    foreign: int = 0


async def retire(
    options: RetireOptions,
    mirror: Mirror,
    env: Mapping[str, str],
    say: Say,
    left_s: TimeLeft = unlimited,
) -> bool:
    """Remove old names; return whether each item of theirs has its new one.

    Raises CommandRefused or ConfigError where it may not begin, CommandFailed or StoreRefused
    where it cannot go on, OutOfTime where no more is to be begun.
    """
    async with open_clients(options.endpoint_url, env) as clients:
        return await retire_with(clients, options, mirror, say, left_s)


async def retire_with(
    clients: AwsClients,
    options: RetireOptions,
    mirror: Mirror,
    say: Say,
    left_s: TimeLeft = unlimited,
) -> bool:
    """Retire through clients that are open already.

    Raises what retire raises.
    """
    config = mirror.config
    if mirror.rules.key is None and options.template == config.key:
        raise CommandRefused(f"--retire {options.template}: that is the template in use")
    table = await describe_table(clients, options.table)
    rules = EncodeRules(structs.replace(config, key=options.template))
    old = KeyNames(table.name, table.keys, table.types, rules)
    present = KeyNames(table.name, table.keys, table.types, mirror.rules)
    if not old.prefix and not options.orphans:
        raise CommandRefused(
            f"--retire {options.template}: its names begin with nothing of their own, so a key "
            "of somebody else's could be one; give --orphans where the server has none"
        )
    copy = Copy(mirror)
    tally = Tally()
    try:
        async with open_state(options.state, clients) as state:
            kept = await keep(state, await state.load(), _identity(options, mirror, table))
            held = kept.document("progress")
            found = await naming(copy, tally, held, kept=options.state is not None)
            with first_error():
                async with autosave(kept, "progress", found.document):
                    async for some, step in names_of(copy, old.pattern, found, Tally, left_s):
                        await _few(some, old, present, copy, step.tally)
                        found.trail.complete(step)
            if not found.trail.is_done:
                raise OutOfTime("time is up: not all names were looked at")
            await kept.remove()
    finally:
        copy.close()
        say(_summary_json(tally) if options.as_json else _summary(tally))
    return not tally.kept


def _identity(options: RetireOptions, mirror: Mirror, table: Table) -> Document:
    """Return what a state belongs to: with anything else, it would leave names in."""
    return {
        "command": "retire",
        "table": table.arn or table.name,
        "template": options.template,
        "redis": mirror.config.server.address,
        "key": mirror.config.key,
    }


async def _few(
    found: Sequence[bytes], old: KeyNames, present: KeyNames, copy: Copy, tally: Tally
) -> None:
    names = [name for name in dict.fromkeys(found) if not is_fence(name)]
    types = await copy.types(names)
    strings = [name for name, held in zip(names, types, strict=True) if held == _STRING]
    in_use = await keys_of(strings, present, copy)
    others = [name for name, key in zip(strings, in_use, strict=True) if key is None]
    keys = await keys_of(others, old, copy)
    successors = {
        name: _name_of(present, key)
        for name, key in zip(others, keys, strict=True)
        if key is not None
    }
    held = await copy.types([each for each in successors.values() if each])
    there = {
        each
        for each, kind in zip([s for s in successors.values() if s], held, strict=True)
        if kind == _STRING
    }
    removed = [name for name, successor in successors.items() if successor in there]
    await copy.remove(removed)
    tally.removed += len(removed)
    tally.kept += len(successors) - len(removed)
    tally.present += len(strings) - len(others)
    tally.foreign += len(names) - len(strings) + len(others) - len(successors)


def _name_of(names: KeyNames, key: Key) -> bytes:
    """Return an item's name; empty where the user's function gives none."""
    try:
        return names.name_of(key)
    except RecordError:
        return b""


def _summary(tally: Tally) -> str:
    return (
        f"{tally.removed:,} old names removed; {tally.kept:,} kept, whose items have no new name; "
        f"{tally.present:,} in use and {tally.foreign:,} foreign left alone"
    )


def _summary_json(tally: Tally) -> str:
    return orjson.dumps(asdict(tally)).decode()
