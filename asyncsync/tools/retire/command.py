"""asyncsync retire: delete an old template's keys once each item has its new key.

A key is deleted only if the old template reads a complete key of the table's types out of its
name, it holds a value (no list, say), its name is not in use under the present settings, and the
item's new key exists. Every other key is counted and left alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from msgspec import structs

from asyncsync.aws.clients import AwsClients
from asyncsync.aws.tables import describe_table
from asyncsync.copy.names import KeyNames, is_fence
from asyncsync.copy.reader import CopyReader
from asyncsync.encode import EncodeRules
from asyncsync.errors import RecordError
from asyncsync.mirror import Mirror
from asyncsync.model import Key
from asyncsync.tools.cursors import add, counts
from asyncsync.tools.deadline import DeadlineReached, TimeLeft, unlimited
from asyncsync.tools.errors import CommandRefused, first_error
from asyncsync.tools.key_scan import keys_of, open_scan, scan_keys
from asyncsync.tools.output import Output, plural, rate_and_left
from asyncsync.tools.state import autosave, identity_of, open_state, resume_hint, resume_or_begin


@dataclass(frozen=True, slots=True, kw_only=True)
class RetireOptions:
    """The command line's options."""

    table: str
    template: str  # the old one
    endpoint_url: str | None = None
    scan_all_keys: bool = False  # also if the old template has no prefix
    state: str | None = None  # a path or an s3:// prefix
    as_json: bool = False


@dataclass(slots=True)
class RetireTally:
    """What a run has done; every key name that was scanned is in one of these."""

    removed: int = 0
    kept: int = 0  # the item has no new key
    present: int = 0  # in use under the present settings, too
    foreign: int = 0


Fate: TypeAlias = Literal["removed", "kept", "present", "foreign"]


@dataclass(frozen=True, slots=True)
class OldName:
    """A key name that the old template may have made."""

    name: bytes
    is_value: bool  # of a type that asyncsync writes
    is_present: bool  # the present settings read an item's key out of it, too
    key: Key | None  # what the old template reads out of it
    has_successor: bool  # the name that the item has now exists


def classify(old: OldName) -> Fate:
    """Return what becomes of a key name."""
    if not old.is_value:
        return "foreign"
    if old.is_present:
        return "present"
    if old.key is None:
        return "foreign"
    return "removed" if old.has_successor else "kept"


async def retire(
    clients: AwsClients,
    options: RetireOptions,
    mirror: Mirror,
    output: Output,
    time_left: TimeLeft = unlimited,
) -> bool:
    """Delete old keys; return whether each of their items has its new key.

    Raises CommandRefused or ConfigError if it may not begin, CommandFailed, AwsFailed,
    StoreRefused or StoreUnavailable if it cannot continue, DeadlineReached if time is up.
    """
    if mirror.rules.key is None and options.template == mirror.config.key:
        raise CommandRefused(f"cannot retire {options.template}: it is the template in use")
    table = await describe_table(clients, options.table)
    rules = EncodeRules(structs.replace(mirror.config, key=options.template))
    old = KeyNames(table.name, table.key, rules)
    present = KeyNames(table.name, table.key, mirror.rules)
    if not old.prefix and not options.scan_all_keys:
        raise CommandRefused(
            f"cannot retire {options.template}: its names have no prefix, so another "
            "application's key may look like one. If only asyncsync writes to this server, "
            "pass --scan-all-keys"
        )
    copy = CopyReader(mirror)
    tally = RetireTally()
    ended = False
    try:
        async with open_state(options.state, clients) as state:
            identity = identity_of("retire", table, mirror, template=options.template)
            saved = await resume_or_begin(state, await state.load(), identity)
            document = saved.document("progress")
            scan = await open_scan(copy, tally, document, is_saved=options.state is not None)
            with first_error():
                async with autosave(saved, "progress", scan.document):
                    pages = scan_keys(copy, old.pattern, scan, RetireTally, time_left)
                    async for names, page in pages:
                        add(page.tally, await _retire_batch(names, old, present, copy))
                        scan.cursors.complete(page)
                        output.progress(_progress(tally, output))
            if not scan.cursors.is_done:
                raise DeadlineReached("time is up: not all names were scanned")
            await saved.remove()
        ended = True
    finally:
        copy.close()
        _write_summary(tally, options, output, ended=ended)
    return not tally.kept


async def _retire_batch(
    names: Sequence[bytes], old: KeyNames, present: KeyNames, copy: CopyReader
) -> Counter[str]:
    """Delete the keys that may be deleted; return how many names have which fate."""
    fates = {each.name: classify(each) for each in await _read(names, old, present, copy)}
    await copy.remove([name for name, fate in fates.items() if fate == "removed"])
    return Counter(fates.values())


async def _read(
    names: Sequence[bytes], old: KeyNames, present: KeyNames, copy: CopyReader
) -> list[OldName]:
    """Look key names up in the copy; leave fences out."""
    names = [name for name in dict.fromkeys(names) if not is_fence(name)]
    types = await copy.types(names)
    present_keys = await keys_of(names, present, copy)
    old_keys = await keys_of(names, old, copy)
    successors = [b"" if key is None else _name_of(present, key) for key in old_keys]
    named = [name for name in successors if name]
    successor_types = dict(zip(named, await copy.types(named), strict=True))
    return [
        OldName(
            name,
            is_value=kind in copy.our_types,
            is_present=present_key is not None,
            key=old_key,
            has_successor=successor_types.get(successor) == copy.our_types[0],
        )
        for name, kind, present_key, old_key, successor in zip(
            names, types, present_keys, old_keys, successors, strict=True
        )
    ]


def _name_of(names: KeyNames, key: Key) -> bytes:
    """Return an item's name; empty if the user's function makes none."""
    try:
        return names.name_of(key)
    except RecordError:
        return b""


def _progress(tally: RetireTally, output: Output) -> str:
    names = sum(counts(tally).values())
    rate = rate_and_left(names, 0, output.elapsed_s)
    return f"{plural(names, 'name')}, {rate}, {tally.removed:,} removed"


def _write_summary(
    tally: RetireTally, options: RetireOptions, output: Output, *, ended: bool
) -> None:
    if options.as_json:
        output.document(counts(tally))
        return
    output.line(
        f"{plural(tally.removed, 'old name')} removed; {tally.kept:,} kept, without a new name; "
        f"{tally.present:,} in use and {tally.foreign:,} foreign left alone"
    )
    if options.state and not ended:
        output.line(resume_hint(options.state))
