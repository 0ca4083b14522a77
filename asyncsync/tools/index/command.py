"""asyncsync index: prints the FT.CREATE of a searchable copy, checks it on a sample, makes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from asyncsync.aws.budget import ReadBudget
from asyncsync.aws.clients import AwsClients
from asyncsync.aws.tables import Table
from asyncsync.config import Config
from asyncsync.connection import ReplyError, refuse
from asyncsync.copy.entries import entries_of
from asyncsync.errors import StoreUnavailable
from asyncsync.keys import Template, bind, parse_template
from asyncsync.mirror import Mirror
from asyncsync.tools.errors import CommandFailed, CommandRefused
from asyncsync.tools.index.declaration import (
    KINDS,
    Index,
    command_line,
    create_command,
    fences_match,
    is_same,
    parse_fields,
    prefix_of,
)
from asyncsync.tools.index.sample import Sample
from asyncsync.tools.output import Output, plural
from asyncsync.tools.reach import reason_of
from asyncsync.tools.table_scan import TableScan
from asyncsync.transport import open_socket

PAGE_ITEMS = 1_000

_NO_SEARCH = (
    "has no Search: use a server that has it (Redis 8, Redis Stack, Valkey with its search "
    "module), or load the module"
)
_FENCES = (
    "fences begin with the index's prefix, too, because the key template has a hash tag. They are "
    "strings, and Search indexes no strings: none is in the index"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexOptions:
    """The command line's options."""

    declaration: Sequence[str]
    name: str | None = None  # None: from the table
    sample: int = 1_000
    create: bool = False
    as_json: bool = False


def refuse_unsearchable(mirror: Mirror) -> None:
    """Raise CommandRefused where no index can be over this copy."""
    config = mirror.config
    if config.value not in KINDS:
        raise CommandRefused(
            f"values {config.value} are strings, which cannot be searched: set "
            "ASYNCSYNC_VALUE=hash or redis-json (docs/search.md says how a copy changes)"
        )
    if config.mode == "invalidate":
        raise CommandRefused("mode invalidate writes no values, so there is nothing to search")
    if mirror.rules.key is not None:
        raise CommandRefused(
            "a key function names this copy, so its prefix is unknown: write FT.CREATE yourself"
        )


def plan_index(
    options: IndexOptions, config: Config, table: Table | None
) -> tuple[Index, Template]:
    """Return the index, and the template that names what it holds.

    Raises CommandRefused, or ConfigError where the template does not fit the table.
    """
    fields = parse_fields(options.declaration)
    template = parse_template(config.key)
    if table is not None:
        template = bind(template, table.name, tuple(sorted(table.key)))
    prefix = prefix_of(template)
    if not prefix:
        raise CommandRefused(
            f"keys {config.key} have no prefix, so the index would hold every "
            f"{KINDS[config.value].lower()} of the server: put a literal before the key"
        )
    name = options.name or f"idx:{table.name if table is not None else prefix.strip(':{}')}"
    return Index(name, KINDS[config.value], prefix, fields), template


async def index(
    clients: AwsClients | None,
    options: IndexOptions,
    mirror: Mirror,
    table: Table | None,
    output: Output,
) -> bool:
    """Print or make an index; return whether every sampled item can be in it, as declared.

    Raises CommandRefused, ConfigError, CommandFailed, AwsFailed, StoreRefused, StoreUnavailable.
    """
    planned, template = plan_index(options, mirror.config, table)
    sample = Sample(planned.fields)
    notes = [_FENCES] if fences_match(template) else []
    if clients is None or table is None:
        notes.append("not compared with any item: give --table or --function")
    else:
        await _take(sample, clients, table, mirror, options.sample)
        notes += _notes_of(sample)
    problems = sample.problems
    is_created = False
    if options.create and not problems:
        is_created, problem = await create_index(planned, mirror)
        problems = [problem] if problem else []
        if not (is_created or problem):
            notes.append(f"the index {planned.name} is there already, and the same")
    line = command_line(create_command(planned))
    _tell(output, options, planned.name, line, sample, notes, problems, is_created=is_created)
    return not problems


def _tell(
    output: Output,
    options: IndexOptions,
    name: str,
    line: str,
    sample: Sample,
    notes: Sequence[str],
    problems: Sequence[str],
    *,
    is_created: bool,
) -> None:
    if options.as_json:
        output.document(
            {
                "index": name,
                "command": None if problems else line,
                "created": is_created,
                "sampled": sample.values,
                "notes": notes,
                "problems": problems,
            }
        )
        return
    for note in notes:
        output.note(f"note: {note}")
    for problem in problems:
        output.line(f"fix: {problem}")
    if not problems:
        output.line(line)
    if is_created:
        output.note(f"made the index {name}: Search fills it now (FT.INFO {name})")


def _notes_of(sample: Sample) -> list[str]:
    notes = sample.notes
    if sample.left_out:
        notes.append(f"{plural(sample.left_out, 'item')} of the sample left out of the copy")
    if sample.faults:
        notes.append(f"{plural(sample.faults, 'item')} of the sample cannot be encoded")
    if not sample.values:
        notes.append("not compared with any item: the sample has no item that the copy holds")
    return notes


async def _take(
    sample: Sample, clients: AwsClients, table: Table, mirror: Mirror, count: int
) -> None:
    """Encode the first items of a scan as the handler does, and take their values."""
    scan = TableScan(clients, table, 1, ReadBudget(), page_items=min(count, PAGE_ITEMS))
    left = count
    async for page in scan.pages(0, None):
        now_ms = int(mirror.wall_clock() * 1_000)
        for each in entries_of(page.items[:left], table.name, mirror.rules, now_ms):
            if each.fault or each.entry is None:
                sample.faults += 1
            elif each.entry.value is None:
                sample.left_out += 1
            else:
                sample.add(each.entry.value)
        left -= len(page.items)
        if left <= 0:
            return


async def create_index(planned: Index, mirror: Mirror) -> tuple[bool, str]:
    """Make an index; return whether it was made, and what is wrong if another has its name.

    Raises CommandFailed, StoreRefused, StoreUnavailable.
    """
    server = mirror.config.server
    client = mirror.new_client(server, open_socket)

    async def ask(*command: str) -> object:
        reply = await client.ask(tuple(word.encode() for word in command), float("inf"))
        if not isinstance(reply, ReplyError) or "already exists" in str(reply):
            return reply
        refuse(reply, server, command[0])
        if "unknown command" in str(reply):
            raise CommandFailed(f"Redis at {server.address} {_NO_SEARCH}")
        raise CommandFailed(f"Redis at {server.address}: {command[0]}: {reply}")

    try:
        reply = await ask(*create_command(planned))
        if not isinstance(reply, ReplyError):
            return True, ""
        if is_same(planned, await ask("FT.INFO", planned.name)):
            return False, ""
    except StoreUnavailable as exc:
        raise StoreUnavailable(f"Redis at {server.address}", reason_of(exc)) from exc
    finally:
        client.close()
    return False, (
        f"another index has the name {planned.name}: choose one with --name, or look at it with "
        f"FT.INFO {planned.name} and drop it with FT.DROPINDEX"
    )
