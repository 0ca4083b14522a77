"""What a copy costs a month: the cache, Lambda, logs and the rest, one part at a time.

Pure arithmetic. A month has 730 hours. Not in it: what reads the copy, traffic between zones,
cold starts, retries, the first backfill, and the table itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from asyncsync.limits import METRICS_PERIOD_MS, METRICS_SAMPLES_MAX
from asyncsync.metrics import METRICS, Metrics, emf
from asyncsync.tools.errors import CommandRefused
from asyncsync.tools.estimate import prices
from asyncsync.tools.estimate.measured import KEYS, TIMES_ITEM_BYTES, TIMES_MS
from asyncsync.tools.estimate.memory import Memory, Workload, key_size, memory_of, value_bytes
from asyncsync.tools.output import plural

# Lambda asks a shard for records four times a second, so even a window of 0 gathers some.
POLLS_PER_S = 4
EVENT_BYTES_MAX = 6_000_000  # Lambda cuts a batch there
RECORD_BYTES = 500  # of a record in an event, beside its image

# A partition of a table, which has one open shard.
PARTITION_BYTES = 10_000_000_000
PARTITION_UNITS_PER_S = 1_000
UNIT_BYTES = 1_024  # of an item, that one write capacity unit pays for

ALARMS, DASHBOARDS = 12, 1  # the template's

CacheKind = Literal["serverless", "nodes"]


@dataclass(frozen=True, slots=True)
class CacheChoice:
    """A cache that has room for the copy."""

    kind: CacheKind
    name: str
    nodes: int  # 0: serverless
    usd: float
    why: str


@dataclass(frozen=True, slots=True)
class BillPart:
    """A line of the bill."""

    part: str
    usd: float
    why: str


@dataclass(frozen=True, slots=True)
class Calls:
    """The function's calls a month."""

    shards: int
    records: float  # of a call
    count: float
    ms: float  # of a call
    keeps_up: bool  # a shard's changes can be written as fast as they come


@dataclass(frozen=True, slots=True)
class Bill:
    """An estimate: the memory by engine, the caches that fit, and the parts of the bill."""

    work: Workload
    memory: Memory
    caches: Sequence[CacheChoice]  # the cheapest first
    calls: Calls
    parts: Sequence[BillPart]

    @property
    def usd(self) -> float:
        """Return the total a month."""
        return sum(part.usd for part in self.parts)


def bill_of(work: Workload) -> Bill:
    """Return the bill of a workload.

    Raises CommandRefused where no cache of ElastiCache holds the copy.
    """
    memory = memory_of(work)
    calls = calls_of(work)
    caches = caches_of(work, memory)
    parts = [
        BillPart("cache", caches[0].usd, f"{caches[0].name}: {caches[0].why}"),
        BillPart(
            "requests",
            calls.count * prices.REQUEST_USD,
            f"{calls.count:,.0f} calls of {calls.records:,.1f} records, "
            f"{plural(calls.shards, 'shard')}",
        ),
        BillPart(
            "time",
            calls.count * calls.ms / 1_000 * work.memory_mb / 1_024 * prices.GB_SECOND_USD,
            f"{calls.ms:,.1f} ms a call at {work.memory_mb:,} MB",
        ),
        _logs(calls),
        BillPart("stream", 0.0, "Lambda reads it free of charge"),
        BillPart(
            "monitoring",
            len(METRICS) * prices.METRIC_USD
            + ALARMS * prices.ALARM_USD
            + DASHBOARDS * prices.DASHBOARD_USD,
            f"the template's {len(METRICS)} metrics, {ALARMS} alarms and dashboard",
        ),
    ]
    return Bill(work, memory, caches, calls, parts)


# --- the cache --------------------------------------------------------------------------------


def caches_of(work: Workload, memory: Memory) -> list[CacheChoice]:
    """Return the caches that have room, the cheapest first.

    Raises CommandRefused where there is none.
    """
    engine = family_of(work.engine)
    found = [each for each in (_serverless(work, memory, engine), _nodes(memory, engine)) if each]
    if not found:
        raise CommandRefused(
            f"no ElastiCache cache holds {memory.total:,} bytes: more than "
            f"{prices.CLUSTER_NODES_MAX} nodes of {prices.NODE_TYPES[-1].name} have room for. "
            "Give fewer --items or a smaller --item-bytes"
        )
    return sorted(found, key=lambda cache: cache.usd)


def family_of(engine: str) -> prices.Engine:
    """Return what AWS prices a measured server as."""
    return "redis" if engine.startswith("redis") else "valkey"


def room_of(node: prices.NodeType) -> float:
    """Return the bytes that a node has for the copy."""
    return node.maxmemory * (1 - prices.RESERVED_SHARE) * prices.FULL_SHARE


def _serverless(work: Workload, memory: Memory, engine: prices.Engine) -> CacheChoice | None:
    price = prices.SERVERLESS[engine]
    gib = memory.total / prices.GIB
    if gib > prices.SERVERLESS_GIB_MAX:
        return None
    units = max(1.0, value_bytes(work) / prices.ECPU_BYTES)
    writes = work.writes_per_s * prices.SECONDS_A_MONTH
    stored = max(gib, price.gib_min)
    return CacheChoice(
        "serverless",
        f"serverless {engine.capitalize()}",
        0,
        stored * price.gib_hour_usd * prices.HOURS_A_MONTH + writes * units * price.ecpu_usd,
        f"{stored:,.2f} GiB, and at least {units:,.1f} processing units a write; a script takes "
        "more, and AWS does not say how much",
    )


def _nodes(memory: Memory, engine: prices.Engine) -> CacheChoice | None:
    for node in prices.NODE_TYPES:
        if memory.total <= room_of(node):
            usd = node.usd_an_hour[engine] * prices.HOURS_A_MONTH
            why = f"one node with room for {room_of(node) / prices.GIB:,.2f} GiB; a replica "
            return CacheChoice("nodes", node.name, 1, usd, f"{why}doubles it")
    largest = prices.NODE_TYPES[-1]
    shards = math.ceil(memory.total / room_of(largest))
    if shards > prices.CLUSTER_NODES_MAX:
        return None
    usd = shards * largest.usd_an_hour[engine] * prices.HOURS_A_MONTH
    why = f"a cluster of {shards} shards, as the copy is larger than the largest node has room for"
    return CacheChoice("nodes", largest.name, shards, usd, f"{why}; replicas double it")


# --- Lambda -----------------------------------------------------------------------------------


def calls_of(work: Workload) -> Calls:
    """Return the function's calls: how many, of how many records, how long, on how many shards."""
    shards = work.shards or shards_for(work)
    per_s = work.writes_per_s / shards
    image = key_size(KEYS[work.engine]["dynamodb-json"], work.item_bytes).value
    most = max(1, min(work.batch_size, int(EVENT_BYTES_MAX / (image + RECORD_BYTES))))
    records = min(most, max(1.0, per_s * max(work.window_s, 1 / POLLS_PER_S)))
    slowest_ms = call_ms(work, most)
    return Calls(
        shards,
        records,
        work.writes_per_s * prices.SECONDS_A_MONTH / records,
        call_ms(work, records),
        per_s * slowest_ms / 1_000 <= most,
    )


def shards_for(work: Workload) -> int:
    """Return the partitions that the table's size and its writes ask DynamoDB for."""
    units_per_s = work.writes_per_s * units_of(work.item_bytes)
    size = work.items * work.item_bytes
    return max(
        1, math.ceil(size / PARTITION_BYTES), math.ceil(units_per_s / PARTITION_UNITS_PER_S)
    )


def units_of(item_bytes: float) -> int:
    """Return the write capacity units of one write."""
    return max(1, math.ceil(item_bytes / UNIT_BYTES))


def call_ms(work: Workload, records: float) -> float:
    """Return the billed time of a call, interpolated between the measured ones.

    A larger item than the measured ones counts as several, a smaller one as one.
    """
    measured = TIMES_MS[work.value][work.memory_mb]
    size = records * max(1.0, work.item_bytes / TIMES_ITEM_BYTES)
    at = next((at for at in range(1, len(measured)) if measured[at][0] >= size), -1)
    low, high = measured[at - 1], measured[at]
    return low[1] + (size - low[0]) / (high[0] - low[0]) * (high[1] - low[1])


# --- logs -------------------------------------------------------------------------------------


def _logs(calls: Calls) -> BillPart:
    """Return the lines of ASYNCSYNC_METRICS=summary, with one sandbox for each shard.

    A line speaks for a minute, or for as many calls as fit into one.
    """
    minutes = prices.SECONDS_A_MONTH * 1_000 / METRICS_PERIOD_MS
    of_one = calls.count / calls.shards
    lines = min(of_one, max(minutes, of_one / METRICS_SAMPLES_MAX)) * calls.shards
    speaks_for = math.ceil(calls.count / lines) if lines else 1
    size = line_bytes(min(speaks_for, METRICS_SAMPLES_MAX)) + prices.LOG_EVENT_BYTES
    return BillPart(
        "logs",
        lines * size / prices.GIB * prices.LOG_GB_USD,
        f"{lines:,.0f} lines of {size:,} bytes: at most one a minute and shard, or one for "
        f"{METRICS_SAMPLES_MAX} calls",
    )


def line_bytes(calls: int) -> int:
    """Return the bytes of a metrics line that speaks for some calls without trouble."""
    counts = dict.fromkeys(("Invocations", "Records", "Superseded", "Applied", "RawEvent"), 10_000)
    times: dict[str, list[float]] = {"LagMs": [250] * calls, "RoundTripMs": [0.95] * calls}
    return len(emf(Metrics(counts, times), "Players", 1_767_225_600_000))
