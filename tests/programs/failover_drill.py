"""Kill a cluster's primaries, replay from the last checkpoint, compare with the table.

Run by `make failover`; CI runs it small. Each kill is a SIGKILL in the middle of a batch. Before
every second kill the drill cuts the replica's link, so that the failover certainly loses
acknowledged writes. asyncsync cannot keep what Redis loses; a replay from the last checkpoint
repairs it. The drill notes a checkpoint only when the replicas have every write before it.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count, islice
from typing import Any

from asyncsync import Config, Mirror
from asyncsync.keys import slot
from asyncsync.lab.compare import Findings, compare, from_json, plain_item
from asyncsync.mapping.answers import Returned
from asyncsync.mapping.event_source_mapping import (
    Batch,
    EventSourceMapping,
    MappingSettings,
    ShardRecord,
    shard_record,
)
from tests.support.cluster import Cluster, ClusterNode, redis_cluster
from tests.support.context import Context
from tests.support.events import FIRST, SEED, TABLE, arn, failed, record
from tests.support.servers import add_binary

SHARD = "shardId-00000000000000000000-00000000"
SETTINGS = MappingSettings(
    bisect=True, report_failures=True, backoff_first_ms=20, backoff_max_ms=200
)
INVOCATION_MS = 10_000
TIMEOUT_MS = 500
CHECKPOINT_EVERY = 5  # batches
BATCHES_UNREPLICATED = 3  # that the replica of every second victim never receives
RECOVERS_WITHIN_S = 60.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Kill:
    """What one kill did."""

    port: int
    cut: bool  # the replica's link was cut before
    failed: int  # batches whose answer was a failure
    redelivered: int  # batches with a record of an earlier batch
    recover_s: float  # from the kill to the first whole batch after the last failure
    lost: int  # keys that differed from the table when the stream had drained
    replayed: int  # records after the last checkpoint
    wrong: list[str]  # keys that differ after the replay

    @property
    def violations(self) -> list[str]:
        """Return what must not be."""
        violations = [f"after the replay: {key}" for key in self.wrong]
        if not self.failed:
            violations.append("no batch failed, so the kill had no effect")
        if not self.redelivered:
            violations.append("no batch was delivered again")
        return violations

    def __str__(self) -> str:
        return (
            f"node :{self.port} {'cut off, ' if self.cut else ''}killed; "
            f"{self.failed} batches failed, {self.redelivered} redelivered, recovered in "
            f"{self.recover_s:.1f} s; {self.lost} keys lost by the failover, "
            f"{len(self.wrong)} after a replay of {self.replayed:,} records"
        )


@dataclass(slots=True)
class Drill:
    """A table, its stream, its copy in a cluster, and counts."""

    cluster: Cluster
    mirror: Mirror
    chance: random.Random
    items: int
    table: dict[str, Any] = field(default_factory=dict)  # by Redis key; None: removed
    stream: list[ShardRecord] = field(default_factory=list)
    checkpoint: int = 0  # records of the stream that every replica has
    delivered: set[str] = field(default_factory=set)
    failed: int = 0
    redelivered: int = 0
    recovered_s: float | None = None  # time of the first whole batch after the last failure

    def change(self, count: int) -> None:
        """Change the table this often; the stream gets a record each time."""
        for at in range(len(self.stream), len(self.stream) + count):
            number = self.chance.randrange(self.items)
            removed = self.chance.random() < 0.15
            image = {"Number": {"N": str(number)}, "Change": {"N": str(at)}}
            change = record(number, FIRST + at, image=image, removed=removed)
            self.stream.append(shard_record(change))
            self.table[f"{TABLE}:{number}"] = None if removed else plain_item(image)

    def differences(self) -> Findings:
        """Compare the table with what the cluster's primaries hold."""
        copy = self.cluster.read([name.encode() for name in self.table])
        return compare(
            self.table, {k.decode(): None if v is None else from_json(v) for k, v in copy.items()}
        )

    async def invoke(self, mapping: EventSourceMapping, batch: Batch) -> None:
        """Deliver one batch and count its outcome."""
        identifiers = {each.item_identifier for each in batch.records}
        self.redelivered += bool(identifiers & self.delivered)
        self.delivered |= identifiers
        answer = await self.mirror.handle(batch.event, Context(INVOCATION_MS))
        mapping.answered(batch, Returned(answer), now_ms())
        if failed(answer):
            self.failed += 1
            self.recovered_s = None
        elif self.recovered_s is None:
            self.recovered_s = time.monotonic()

    async def next_batch(self, mapping: EventSourceMapping) -> Batch | None:
        """Wait for the mapping's next batch; None when it has delivered everything."""
        while not mapping.is_idle:
            due = mapping.due(now_ms())
            if due:
                return due[0]  # one shard, one lane
            wakes_ms = mapping.wakes_ms(now_ms())
            assert wakes_ms is not None, "a mapping that is not idle wakes again"
            await asyncio.sleep((wakes_ms - now_ms()) / 1_000)
        return None

    def mapping_from(self, first: int) -> EventSourceMapping:
        """Return a mapping that reads the stream from a checkpoint."""
        mapping = EventSourceMapping(SETTINGS, function="drill", stream_arn=arn())
        mapping.open(SHARD)
        mapping.add(SHARD, self.stream[first:], now_ms())
        return mapping

    async def drain(self, mapping: EventSourceMapping) -> None:
        """Deliver until nothing is left."""
        while (batch := await self.next_batch(mapping)) is not None:
            await self.invoke(mapping, batch)

    def note_checkpoint(self, mapping: EventSourceMapping) -> None:
        """Move the checkpoint to the mapping's if the replicas have every write."""
        reached = mapping.checkpoint(SHARD)
        if reached is not None and all(replicas_have_all(n) for n in self.cluster.holders()):
            self.checkpoint = int(reached) - FIRST + 1

    async def before_kill(self, mapping: EventSourceMapping, batches: int) -> Batch:
        """Deliver batches and note checkpoints; return an acknowledged batch."""
        acknowledged = None
        for at in range(batches):
            batch = await self.next_batch(mapping)
            assert batch is not None, "only half of the batches are delivered here"
            await self.invoke(mapping, batch)
            if at % CHECKPOINT_EVERY == 0:
                acknowledged = batch
                self.note_checkpoint(mapping)
        assert acknowledged is not None, "there was a first batch"
        return acknowledged

    async def kill(self, mapping: EventSourceMapping, victim: ClusterNode, *, cut: bool) -> float:
        """Kill a primary in the middle of a batch; return the time."""
        replicas = self.cluster.replicas_of(victim) if cut else []
        if cut:
            for replica in replicas:
                replica.client.config_set("masterauth", "wrong")  # else it reconnects at once
            victim.client.client_kill_filter(_type="replica")
            for _ in range(BATCHES_UNREPLICATED):
                batch = await self.next_batch(mapping)
                assert batch is not None, "half of the batches are left"
                await self.invoke(mapping, batch)
        batch = await self.next_batch(mapping)
        assert batch is not None, "half of the batches are left"
        async with asyncio.TaskGroup() as group:
            group.create_task(self.invoke(mapping, batch))
            await asyncio.sleep(self.chance.uniform(0, 0.01))  # anywhere in the batch
            victim.kill()
        killed_s = time.monotonic()
        for replica in replicas:
            replica.client.config_set("masterauth", "")
        return killed_s

    async def run(self, records: int, *, cut: bool) -> Kill:
        """Deliver changes with a kill halfway, replay, compare."""
        begins = len(self.stream)
        self.change(records)
        mapping = self.mapping_from(begins)
        victim = self.chance.choice(self.cluster.holders())
        acknowledged = await self.before_kill(mapping, records // SETTINGS.batch_size // 2)
        self.failed = self.redelivered = 0
        killed_s = await self.kill(mapping, victim, cut=cut)
        mapping.deliver_again(acknowledged)
        async with asyncio.timeout(RECOVERS_WITHIN_S):
            await self.drain(mapping)
        assert self.recovered_s is not None, "a drained stream ends with a whole batch"
        recover_s = max(0.0, self.recovered_s - killed_s)
        failed_count, redelivered = self.failed, self.redelivered

        victim.start(self.cluster.binary)
        self.cluster.wait_until_ready()
        lost = len(self.differences().all)
        replayed = len(self.stream) - self.checkpoint
        async with asyncio.timeout(RECOVERS_WITHIN_S):
            await self.drain(self.mapping_from(self.checkpoint))
        wrong = self.differences().all
        return Kill(victim.port, cut, failed_count, redelivered, recover_s, lost, replayed, wrong)


def replicas_have_all(primary: ClusterNode) -> bool:
    """Whether a replica has every write of a primary: it acknowledges one more."""
    ranges = [
        (first, last)
        for first, last, owner, *_ in primary.ask("SLOTS")
        if owner[1] == primary.port
    ]
    names = (b"drill:%d" % at for at in count())
    own = (n for n in names if any(first <= slot(n) <= last for first, last in ranges))
    pipeline = primary.client.pipeline(transaction=False)
    for name in islice(own, 1):
        pipeline.set(name, b"")
    pipeline.wait(1, 1_000)
    return bool(pipeline.execute()[-1] >= 1)


def now_ms() -> int:
    """Return the time of the mapping's clock."""
    return int(time.monotonic() * 1_000)


async def drill(cluster: Cluster, *, records: int, kills: int, seed: int, say: Say) -> list[Kill]:
    """Deliver this many records in as many parts as there are kills, with a kill in each."""
    mirror = Mirror(
        Config(redis_url=cluster.url, redis_cluster=True, timeout_ms=TIMEOUT_MS),
        emit=lambda line: None,
    )
    run = Drill(cluster, mirror, random.Random(seed), items=max(500, records // 5))
    results = []
    try:
        for at in range(kills):
            kill = await run.run(records // kills, cut=at % 2 == 0)
            say(f"kill {at + 1} of {kills}: {kill}")
            results.append(kill)
    finally:
        mirror.close()
        await asyncio.sleep(0)
    return results


def main() -> int:
    """Run the drill on its own cluster; return 1 at a violation."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=SEED)
    add_binary(parser)
    options = parser.parse_args()
    began_s = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - began_s:6.1f} s  {line}", flush=True)

    say(f"{options.binary}, {options.records:,} records, seed {options.seed}")
    with redis_cluster(options.binary) as cluster:
        kills = asyncio.run(
            drill(
                cluster,
                records=options.records,
                kills=options.kills,
                seed=options.seed,
                say=say,
            )
        )
    violations = [violation for kill in kills for violation in kill.violations]
    if not any(kill.lost for kill in kills):
        violations.append("no failover lost a key, so no replay had anything to repair")
    for violation in violations[:20]:
        say(f"VIOLATION {violation}")
    say("FAIL" if violations else "PASS: Redis equals the table after each replay")
    return 1 if violations else 0


if __name__ == "__main__":
    raise SystemExit(main())
