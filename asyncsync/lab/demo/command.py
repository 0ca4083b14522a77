"""asyncsync demo: the mirror and the usual loop beside it, on one stream, with one Redis.

Both get the same records through mappings of their own, lose Redis for the same seconds, and
are delivered one old batch again. Nothing here decides who is right: a scan of the table does.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from random import SystemRandom
from typing import Any

import anyio

from asyncsync.aws.clients import aws_errors, scan
from asyncsync.config import parse_url
from asyncsync.lab.compare import (
    Findings,
    compare,
    from_dynamodb_json,
    from_json,
    plain_item,
)
from asyncsync.lab.demo.changes import ItemChange, make_changes
from asyncsync.lab.demo.environment import DemoReader, Servers, servers
from asyncsync.lab.demo.output import Column, life_of, scoreboard, verdict
from asyncsync.lab.demo.stage import DemoOptions, Say, Side, Stage, staged
from asyncsync.tools.errors import first_error
from asyncsync.version import __version__

# Changes come at a steady pace that one slow core keeps up with: 3 000 in ten seconds.
CHANGES_PER_S = 300.0
WRITE_CHANGES_MAX = 25  # DynamoDB's limit for one BatchWriteItem

CUT_AT_SHARE = 0.45  # of the changes
CUT_FELT_WITHIN_S = 20.0  # on a slow machine nothing may be delivered for seconds

# A copy that is not right by then will not be: Redis is back, the stream is read.
DRAINED_WITHIN_S = 20.0

Hook = Callable[[DemoReader, str], Awaitable[None]]  # the reader of our copy, the table's name


def demo(
    options: DemoOptions,
    env: Mapping[str, str],
    say: Say,
    *,
    before_comparison: Hook | None = None,
) -> bool:
    """Run the demo and return whether every item of the table equals Redis.

    Raises ServerError or CommandFailed where it cannot run.
    """
    with servers(options.endpoint_url, options.redis_url) as found, first_error():
        passed: list[bool] = []
        try:
            anyio.run(_run, options, found, env, say, before_comparison, passed)
        except KeyboardInterrupt:
            if not passed:
                raise
        return passed[0]


async def _run(
    options: DemoOptions,
    found: Servers,
    env: Mapping[str, str],
    say: Say,
    before_comparison: Hook | None,
    passed: list[bool],
) -> None:
    seed = SystemRandom().randrange(1_000_000) if options.seed is None else options.seed
    async with staged(options, found, env, say) as stage:
        await _introduce(stage, found, seed)
        await _play(stage, make_changes(options.items, options.changes, seed))
        await _replay(stage)
        if before_comparison is not None:
            await before_comparison(stage.ours.reader, stage.table)
        stage.is_over = True
        ours, usual, sample = await _findings(stage)
        end_s = time.monotonic()
        for line in (
            *life_of(stage.journal, stage.ours.watcher, stage.table, stage.began_s),
            *scoreboard(
                _column("asyncsync", stage.ours, ours, end_s),
                _column("the loop", stage.usual, usual, end_s),
            ),
            *verdict(ours, usual, sample, found.redis_url, options, seed),
        ):
            say(line)
        passed.append(not ours.all)
        if options.keep:
            say("all is left up until Ctrl-C")
            await anyio.sleep_forever()


async def _introduce(stage: Stage, found: Servers, seed: int) -> None:
    options = stage.options
    redis_name = found.redis_name or await stage.ours.reader.server_name()
    stage.say(f"asyncsync {__version__} demo, seed {seed}")
    stage.say(f"  table     {stage.table}, {options.changes:,} changes to {options.items:,} items")
    stage.say(f"  DynamoDB  {found.dynamodb_name} at {found.endpoint_url}")
    stage.say(f"  Redis     {redis_name} at {parse_url(found.redis_url).address}, behind a proxy")
    stage.say("  the loop  one SET or DEL per record, answered before confirmed, no fence")


async def _play(stage: Stage, changes: list[ItemChange]) -> None:
    """Write the changes at their pace; cut Redis off on the way; wait until all has left."""
    async with anyio.create_task_group() as tasks:
        due_s = time.monotonic()
        cut_at = int(CUT_AT_SHARE * len(changes))
        at = 0
        while at < len(changes):
            taken = _take(changes, at)
            if at <= cut_at < at + len(taken):
                tasks.start_soon(_cut, stage)
            await _write(stage, taken)
            at += len(taken)
            due_s += len(taken) / CHANGES_PER_S
            await anyio.sleep(max(0, due_s - time.monotonic()))
        stage.show(f"all {len(changes):,} changes written")
    await _drained(stage, len(changes))


def _take(changes: list[ItemChange], at: int) -> list[ItemChange]:
    """Take the next changes for one write: an item's second change waits for the first."""
    taken: dict[int, ItemChange] = {}
    for change in changes[at : at + WRITE_CHANGES_MAX]:
        if change.number in taken:
            break
        taken[change.number] = change
    return list(taken.values())


async def _write(stage: Stage, changes: list[ItemChange]) -> None:
    for change in changes:
        stage.journal.begin(change)
    requests: dict[str, Any] = {
        stage.table: [
            {"DeleteRequest": {"Key": {"Number": {"N": str(change.number)}}}}
            if change.item is None
            else {"PutRequest": {"Item": change.item}}
            for change in changes
        ]
    }
    while requests:
        with aws_errors(f"writing to table {stage.table}"):
            answer = await stage.clients.items.batch_write_item(RequestItems=requests)
        requests = dict(answer.get("UnprocessedItems", {}))
    now_s = time.monotonic()
    for change in changes:
        stage.journal.confirm(change, now_s)


async def _cut(stage: Stage) -> None:
    stage.show("CUT: the proxy breaks every connection to Redis and refuses new ones")
    began_s = time.monotonic()
    failures, delivered = stage.progress.failures, stage.usual.delivered
    stage.acknowledged_before_cut = len(stage.acknowledged)
    for side in stage.sides:
        side.proxy.cut()
    await anyio.sleep(stage.options.cut_s)
    # One attempt of ours has to fail in it, or nobody sees what the cut is for.
    await stage.until(lambda: stage.progress.failures > failures, CUT_FELT_WITHIN_S)
    for side in stage.sides:
        side.proxy.heal()
    stage.healed_s = time.monotonic()
    stage.show(
        f"Redis is back after {stage.healed_s - began_s:.1f} s: "
        f"{stage.progress.failures - failures} attempts of ours failed; the loop"
    )
    stage.show(f"  said yes to {stage.usual.delivered - delivered} records meanwhile")


async def _drained(stage: Stage, expected: int) -> None:
    """Wait until so many records have left both and a reader has seen what became of them."""
    await stage.until(
        lambda: all(side.left >= expected and side.mapping.is_idle for side in stage.sides),
        DRAINED_WITHIN_S,
    )
    await stage.usual_handler.settled()
    await stage.look()


async def _replay(stage: Stage) -> None:
    """Deliver the last full batch acknowledged before the cut again, after all newer ones."""
    if not stage.acknowledged:
        return
    before_cut = stage.acknowledged[: stage.acknowledged_before_cut] or stage.acknowledged
    batch = max(reversed(before_cut), key=lambda each: len(each.records))
    before = stage.progress.fenced, [side.watcher.backward for side in stage.sides]
    stage.show(
        f"REPLAY: a batch of {len(batch.records)} records "
        f"({len({record.key for record in batch.records})} keys), acknowledged long ago,"
    )
    stage.show("  is delivered again to both, after everything newer")
    for consumer in stage.consumers:
        consumer.mapping.deliver_again(batch)
        consumer.wake()
    await _drained(stage, len(stage.journal.written_s) + len(batch.records))
    ours, usual = (
        side.watcher.backward - was for side, was in zip(stage.sides, before[1], strict=True)
    )
    fenced = stage.progress.fenced - before[0]
    stage.show(f"{fenced} fenced: {_moved(ours)}")
    stage.show(f"  in the loop's copy: {_moved(usual)}")


def _moved(backward: int) -> str:
    return f"{backward} keys moved backwards" if backward else "nothing moved backwards"


async def _findings(stage: Stage) -> tuple[Findings, Findings, str]:
    """Compare both copies with the table as a consistent scan has it; name a key to look at."""
    items: dict[int, Any] = {}
    async for item in scan(stage.clients, stage.table):
        items[int(item["Number"]["N"])] = plain_item(item)
    return (
        await _compared(stage.ours, items, from_json),
        await _compared(stage.usual, items, from_dynamodb_json),
        f"{stage.table}:{min(items, default=1)}",
    )


async def _compared(
    side: Side, items: Mapping[int, Any], decode: Callable[[bytes], Any]
) -> Findings:
    values = await side.reader.read(side.names)
    table = {name: items.get(number) for number, name in enumerate(side.names, start=1)}
    copy = {
        name: None if value is None else decode(value)
        for name, value in zip(side.names, values, strict=True)
    }
    return compare(table, copy)


def _column(name: str, side: Side, found: Findings, end_s: float) -> Column:
    return Column(
        name=name,
        delivered=side.delivered,
        round_trips=side.proxy.turns,
        found=found,
        backward=side.watcher.backward,
        lag_p50_ms=side.watcher.lag_ms(0.50, end_s),
        lag_p99_ms=side.watcher.lag_ms(0.99, end_s),
        commands=side.meter.commands,
    )
