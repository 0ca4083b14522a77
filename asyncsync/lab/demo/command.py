"""asyncsync demo: the mirror and two usual handlers beside it, on one stream and one Redis.

Each gets the same records through its own mapping, loses Redis for the same seconds, and gets
one old batch again. The demo does not judge: a scan of the table at the end does.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from random import SystemRandom
from typing import Any

import anyio

from asyncsync.aws.items import scan
from asyncsync.config import parse_url
from asyncsync.lab.compare import (
    Findings,
    compare,
    from_dynamodb_json,
    from_json,
    plain_item,
)
from asyncsync.lab.demo.changes import ItemChange, make_changes
from asyncsync.lab.demo.environment import DemoReader, Servers, open_servers
from asyncsync.lab.demo.output import Column, document, life_of, painted, scoreboard, verdict
from asyncsync.lab.demo.reader_demo import show_readers
from asyncsync.lab.demo.stage import DemoOptions, Side, Stage, staged
from asyncsync.lab.demo.writes import CHANGES_PER_S, next_write, write
from asyncsync.tools.errors import first_error
from asyncsync.tools.output import Output, plural
from asyncsync.version import __version__

CUT_AT_SHARE = 0.45  # of the changes
CUT_FELT_WITHIN_S = 20.0  # on a slow machine no batch may be delivered for seconds

# A copy that is not right by then never will be: Redis is back and the stream is read.
DRAINED_WITHIN_S = 20.0

Hook = Callable[[DemoReader, str], Awaitable[None]]  # the reader of our copy, the table's name


def demo(
    options: DemoOptions,
    env: Mapping[str, str],
    output: Output,
    *,
    before_comparison: Hook | None = None,
) -> bool:
    """Run the demo and return whether Redis equals the table in every item.

    Raises ServerError, CommandFailed or AwsFailed where it cannot run.
    """
    output.waits_for("a local DynamoDB and Redis")
    with open_servers(options.endpoint_url, options.redis_url) as servers, first_error():
        verdicts: list[bool] = []
        try:
            run = show_readers if options.reader else _run
            anyio.run(run, options, servers, env, output, before_comparison, verdicts)
        except KeyboardInterrupt:
            if not verdicts:
                raise
        return verdicts[0]


async def _run(
    options: DemoOptions,
    servers: Servers,
    env: Mapping[str, str],
    output: Output,
    before_comparison: Hook | None,
    verdicts: list[bool],
) -> None:
    seed = SystemRandom().randrange(1_000_000) if options.seed is None else options.seed
    async with staged(options, servers, env, output) as stage:
        await _introduce(stage, servers, seed)
        await _play(stage, make_changes(options.items, options.changes, seed))
        await _replay(stage)
        if before_comparison is not None:
            await before_comparison(stage.ours.reader, stage.table)
        stage.is_over = True
        findings, sample = await _findings(stage)
        end_s = time.monotonic()
        columns = [
            _column(name, side, each, end_s)
            for name, side, each in zip(_NAMES, stage.sides, findings, strict=True)
        ]
        ours, usual, _ = findings
        if options.as_json:
            output.document(_document(stage, seed, columns, ours))
        else:
            began_s = end_s - output.elapsed_s
            life = life_of(stage.journal, stage.ours.watcher, stage.table, began_s)
            for line in (*life, *scoreboard(columns)):
                output.line(line)
            for line in verdict(ours, usual, sample, servers.redis_url, options, seed):
                output.paragraph(painted(line, output), 2)
        verdicts.append(not ours.all)
        if options.keep:
            output.note("everything stays up until Ctrl-C")
            await anyio.sleep_forever()


_NAMES = ("asyncsync", "usual handler", "awaited loop")


def _document(
    stage: Stage, seed: int, columns: Sequence[Column], ours: Findings
) -> dict[str, object]:
    return {
        "table": stage.table,
        "items": stage.options.items,
        "changes": stage.options.changes,
        "seed": seed,
        "passed": not ours.all,
        "differences": ours.all,
        "handlers": [document(column) for column in columns],
    }


async def _introduce(stage: Stage, servers: Servers, seed: int) -> None:
    options, line = stage.options, stage.tell
    redis_name = servers.redis_name or await stage.ours.reader.server_name()
    line(f"asyncsync {__version__} demo, seed {seed}")
    size = f"{plural(options.changes, 'change')} to {plural(options.items, 'item')}"
    line(f"  table     {stage.table}, {size}")
    line(f"  DynamoDB  {servers.dynamodb_name} at {servers.endpoint_url}")
    line(f"  Redis     {redis_name} at {parse_url(servers.redis_url).address}, behind a proxy")
    line("  usual     one SET or DEL per record, answers before Redis confirms, no fence")
    line("  awaited   one SET or DEL per record, waits for each reply, no fence")


async def _play(stage: Stage, changes: list[ItemChange]) -> None:
    """Write the changes at their pace, cut Redis off on the way, wait until all are done."""
    async with anyio.create_task_group() as tasks:
        due_s = time.monotonic()
        cut_at = int(CUT_AT_SHARE * len(changes))
        at = 0
        while at < len(changes):
            batch = next_write(changes, at)
            if at <= cut_at < at + len(batch):
                tasks.start_soon(_cut, stage)
            await _write(stage, batch)
            at += len(batch)
            due_s += len(batch) / CHANGES_PER_S
            await anyio.sleep(max(0, due_s - time.monotonic()))
        stage.show(f"all {plural(len(changes), 'change')} written")
    await _drain(stage, len(changes))


async def _write(stage: Stage, changes: list[ItemChange]) -> None:
    for change in changes:
        stage.journal.begin(change)
    await write(stage.clients, stage.table, changes)
    now_s = time.monotonic()
    for change in changes:
        stage.journal.confirm(change, now_s)


async def _cut(stage: Stage) -> None:
    stage.show("CUT: the proxy breaks every connection to Redis and refuses new ones")
    began_s = time.monotonic()
    failures, delivered = stage.progress.failures, stage.usual.delivered
    stage.batches_before_cut = len(stage.batches)
    for side in stage.sides:
        side.proxy.cut()
    await anyio.sleep(stage.options.cut_s)
    # The cut shows nothing unless one of our attempts fails in it.
    await stage.wait_until(lambda: stage.progress.failures > failures, CUT_FELT_WITHIN_S)
    for side in stage.sides:
        side.proxy.heal()
    stage.healed_s = time.monotonic()
    acknowledged = stage.usual.delivered - delivered
    stage.show(
        f"Redis is back after {stage.healed_s - began_s:.1f} s: "
        f"{plural(stage.progress.failures - failures, 'attempt')} by asyncsync failed, the usual "
        f"handler acknowledged {plural(acknowledged, 'record')}"
    )


async def _drain(stage: Stage, expected: int) -> None:
    """Wait until every mapping has acknowledged so many records, and read the copies."""
    await stage.wait_until(
        lambda: all(
            side.acknowledged >= expected and side.mapping.is_idle for side in stage.sides
        ),
        DRAINED_WITHIN_S,
    )
    await stage.usual_handler.drain()
    await stage.read_copies()


async def _replay(stage: Stage) -> None:
    """Deliver the last full batch acknowledged before the cut again, after all newer ones."""
    if not stage.batches:
        return
    before_cut = stage.batches[: stage.batches_before_cut] or stage.batches
    batch = max(reversed(before_cut), key=lambda batch: len(batch.records))
    fenced = stage.progress.fenced
    backward = [side.watcher.backward for side in stage.sides]
    keys = len({record.key for record in batch.records})
    stage.show(
        f"REPLAY: a batch of {plural(len(batch.records), 'record')} ({plural(keys, 'key')}), "
        "acknowledged earlier, is delivered again to all, after everything newer"
    )
    for consumer in stage.consumers:
        consumer.mapping.deliver_again(batch)
        consumer.wake()
    await _drain(stage, len(stage.journal.written_s) + len(batch.records))
    for name, side, before in zip(_NAMES, stage.sides, backward, strict=True):
        is_ours = side is stage.ours
        held_off = f"{stage.progress.fenced - fenced:,} fenced: " if is_ours else ""
        stage.show(f"{name}: {held_off}{_moved(side.watcher.backward - before)}")


def _moved(backward: int) -> str:
    return f"{plural(backward, 'key')} moved backwards" if backward else "nothing moved backwards"


async def _findings(stage: Stage) -> tuple[tuple[Findings, Findings, Findings], str]:
    """Compare the copies with a consistent scan of the table; also name a key to look at."""
    items: dict[int, Any] = {}
    async for item in scan(stage.clients, stage.table):
        items[int(item["Number"]["N"])] = plain_item(item)
    findings = (
        await _compare(stage.ours, items, from_json),
        await _compare(stage.usual, items, from_dynamodb_json),
        await _compare(stage.awaited, items, from_dynamodb_json),
    )
    return findings, f"{stage.table}:{min(items, default=1)}"


async def _compare(
    side: Side, items: Mapping[int, Any], decode: Callable[[bytes], Any]
) -> Findings:
    values = await side.reader.read(side.names)
    table = {name: items.get(number) for number, name in enumerate(side.names, start=1)}
    copy = {
        name: None if value is None else decode(value)
        for name, value in zip(side.names, values, strict=True)
    }
    return compare(table, copy)


def _column(name: str, side: Side, findings: Findings, end_s: float) -> Column:
    return Column(
        name=name,
        delivered=side.delivered,
        round_trips=side.proxy.turns,
        findings=findings,
        backward=side.watcher.backward,
        lag_p50_ms=side.watcher.lag_ms(0.50, end_s),
        lag_p99_ms=side.watcher.lag_ms(0.99, end_s),
        commands=side.meter.commands,
    )
