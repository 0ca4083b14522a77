"""The arithmetic of an estimate, against values that are computed by hand here."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from asyncsync.config import Config
from asyncsync.metrics import METRICS
from asyncsync.tools.check import info
from asyncsync.tools.errors import CommandRefused
from asyncsync.tools.estimate import bill, measured, memory, prices
from asyncsync.tools.estimate.bill import bill_of, calls_of, line_bytes
from asyncsync.tools.estimate.cheaper import changes_of
from asyncsync.tools.estimate.measured import KeySize
from asyncsync.tools.estimate.memory import Memory, Workload, key_size, memory_of

SIZES = (KeySize(100, 150, 250), KeySize(1_000, 1_200, 1_400), KeySize(10_000, 12_000, 13_200))
LARGER = (KeySize(100, 200, 300), KeySize(1_000, 1_500, 1_700), KeySize(10_000, 15_000, 16_500))
TIMES = {
    128: ((1, 2.0), (10, 3.0), (100, 9.0), (1_000, 330.0)),
    512: ((1, 2.0), (10, 3.0), (100, 6.0), (1_000, 33.0)),
}

BASE = Workload(items=1_000_000, item_bytes=1_000.0, writes_per_s=10.0)


@pytest.fixture(autouse=True)
def plain_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Round numbers in the place of the measured ones, to compute with by hand."""
    keys = {"valkey-8.0": {"json": SIZES, "dynamodb-json": LARGER}}
    keys |= {"redis-7.0": {"json": LARGER, "dynamodb-json": LARGER}}
    for module in (measured, memory, bill, *_users("KEYS")):
        monkeypatch.setattr(module, "KEYS", keys, raising=False)
    monkeypatch.setattr(memory, "FENCE_BYTES", {"valkey-8.0": 160.0, "redis-7.0": 180.0})
    monkeypatch.setattr(memory, "EXPIRY_BYTES", {"valkey-8.0": 40.0, "redis-7.0": 40.0})
    monkeypatch.setattr(bill, "TIMES_MS", dict.fromkeys(("json", "dynamodb-json"), TIMES))


def _users(name: str) -> list[Any]:
    from asyncsync.tools.estimate import cheaper, command

    return [module for module in (cheaper, command) if hasattr(module, name)]


# --- memory -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("item_bytes", "value", "key"),
    [
        (100, 150, 250),  # as measured
        (550, 675, 825),  # halfway between two
        (10_000, 12_000, 13_200),
        (50, 75, 175),  # half of the smallest value; the server keeps 100 for a key as before
        (1, 1.5, 101.5),
        (20_000, 24_000, 26_400),  # twice the largest
        (409_600, 491_520, 540_672),  # 40.96 times: the largest item that DynamoDB stores
    ],
)
def test_a_key_between_and_beyond_the_measured_sizes(
    item_bytes: float, value: float, key: float
) -> None:
    size = key_size(SIZES, item_bytes)

    assert size == pytest.approx((item_bytes, value, key))


@pytest.mark.parametrize(
    ("changes", "values", "names", "fences"),
    [
        # A million values of 1,200 bytes; 200 for each key; 10 a second for 25 h are 900,000.
        ({}, 1_200_000_000, 200_000_000, 144_000_000),
        ({"writes_per_s": 0.0}, 1_200_000_000, 200_000_000, 0),
        ({"items": 1}, 1_200, 200, 160),  # one item has one fence, however often it changes
        ({"items": 1, "writes_per_s": 0.0}, 1_200, 200, 0),
        ({"writes_per_s": 1_000.0}, 1_200_000_000, 200_000_000, 160_000_000),
        ({"fence_ttl_s": 86_400}, 1_200_000_000, 200_000_000, 138_240_000),
        ({"name_bytes": 30}, 1_200_000_000, 210_000_000, 153_000_000),
        ({"value": "dynamodb-json"}, 1_500_000_000, 200_000_000, 144_000_000),
        ({"engine": "redis-7.0"}, 1_500_000_000, 200_000_000, 162_000_000),
        # With an expiry of 1,000 s at most 10,000 values, each with 40 bytes more.
        ({"ttl_s": 1_000}, 12_000_000, 2_400_000, 144_000_000),
        ({"ttl_s": 86_400}, 1_036_800_000, 207_360_000, 144_000_000),
    ],
)
def test_the_memory_of_a_copy(
    changes: dict[str, Any], values: int, names: int, fences: int
) -> None:
    work = replace(BASE, **changes)

    found = memory_of(work)

    assert (found.values, found.names, found.fences) == (values, names, fences)
    assert found.total == values + names + fences


# --- the cache --------------------------------------------------------------------------------


def nodes_of(total: int, engine: str = "valkey-8.0") -> bill.CacheChoice:
    work = replace(BASE, engine=engine)
    caches = bill.caches_of(work, Memory(engine, total, 0, 0))
    return next(cache for cache in caches if cache.kind == "nodes")


@pytest.mark.parametrize(
    ("total", "name", "nodes", "usd"),
    [
        # Room is 60 % of maxmemory: AWS reserves a quarter, and 80 % of the rest is full.
        (1, "cache.t4g.micro", 1, 0.0128 * 730),
        (322_122_547, "cache.t4g.micro", 1, 9.344),
        (322_122_548, "cache.t4g.small", 1, 18.688),
        (1_990_717_341, "cache.t4g.medium", 1, 37.96),
        (1_990_717_342, "cache.m7g.large", 1, 92.272),
        (270_000_450_273, "cache.r7g.16xlarge", 1, 4_076.904),
        (270_000_450_274, "cache.r7g.16xlarge", 2, 8_153.808),
        (1_000_000_000_000, "cache.r7g.16xlarge", 4, 16_307.616),
    ],
)
def test_the_smallest_node_with_room_or_a_clusters_shards(
    total: int, name: str, nodes: int, usd: float
) -> None:
    found = nodes_of(total)

    assert (found.name, found.nodes) == (name, nodes)
    assert found.usd == pytest.approx(usd)
    assert ("a cluster of" in found.why) == (nodes > 1)
    if nodes > 1:
        assert f"a cluster of {nodes} shards, as the copy is larger than" in found.why


def test_redis_is_dearer_than_valkey() -> None:
    assert nodes_of(1, "redis-7.0").usd == pytest.approx(0.016 * 730)


def test_a_serverless_cache_has_a_least_size_and_a_price_for_each_write() -> None:
    def serverless(work: Workload, total: int) -> float:
        caches = bill.caches_of(work, Memory(work.engine, total, 0, 0))
        return next(cache.usd for cache in caches if cache.kind == "serverless")

    idle = replace(BASE, writes_per_s=0.0)

    assert serverless(idle, 1) == pytest.approx(0.1 * 0.084 * 730)  # 6.13
    assert serverless(idle, 10 << 30) == pytest.approx(10 * 0.084 * 730)
    assert serverless(replace(idle, engine="redis-7.0"), 1) == pytest.approx(0.125 * 730)
    # 10 writes a second of 1,200 bytes: 26,280,000 of 1.171875 units a month.
    assert serverless(BASE, 1) - serverless(idle, 1) == pytest.approx(
        26_280_000 * 1.171875 * 0.0023e-6
    )


def test_a_value_under_a_kilobyte_is_one_unit() -> None:
    small = replace(BASE, item_bytes=100.0)
    caches = bill.caches_of(small, Memory(small.engine, 1, 0, 0))

    usd = next(cache.usd for cache in caches if cache.kind == "serverless")

    assert usd == pytest.approx(0.1 * 0.084 * 730 + 26_280_000 * 0.0023e-6)


def test_what_no_serverless_cache_holds_is_a_cluster_and_what_nothing_holds_is_refused() -> None:
    huge = replace(BASE, items=100_000_000_000, item_bytes=1_000.0)  # 140 TB
    caches = bill_of(replace(huge, items=50_000_000_000)).caches  # 70 TB

    assert [cache.kind for cache in caches] == ["nodes"]
    assert caches[0].nodes == 260  # 70,000,144,000,000 / 270,000,450,273.6 is 259.3
    with pytest.raises(CommandRefused, match=r"no ElastiCache cache holds 140,000,144,000,000"):
        bill_of(huge)


# --- the calls --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "shards", "records", "calls", "ms"),
    [
        # A month has 2,628,000 s. Lambda looks four times a second: 10 a second are 2.5 a call.
        ({}, 1, 2.5, 10_512_000, 2 + 1.5 / 9),
        ({"writes_per_s": 0.0}, 1, 1, 0, 2),
        ({"writes_per_s": 1.0}, 1, 1, 2_628_000, 2),
        ({"window_s": 1}, 1, 10, 2_628_000, 3),
        ({"window_s": 5}, 1, 50, 525_600, 3 + 40 / 90 * 3),
        ({"window_s": 300}, 1, 1_000, 26_280, 33),  # 3,000 came, a batch takes 1,000
        ({"window_s": 300, "batch_size": 10}, 1, 10, 2_628_000, 3),
        ({"shards": 5}, 5, 1, 26_280_000, 2),  # 2 a second on each: half a record a look
        # A thousand writes a second of 1,000 bytes are a partition's units.
        ({"writes_per_s": 1_000.0}, 1, 250, 10_512_000, 6 + 150 / 900 * 27),
        ({"writes_per_s": 1_001.0}, 2, 125.125, 21_024_000, 6 + 25.125 / 900 * 27),
        # 30 GB take three partitions of 10 GB.
        ({"items": 30_000_000}, 3, 1, 26_280_000, 2),
        ({"items": 30_000_001}, 4, 1, 26_280_000, 2),
        # A call takes 6 MB: nine items of 400 KB, each 614,400 bytes and 500 in a record. Each
        # takes the time of 409.6 of the measured items, past 1,000 as between 100 and 1,000.
        (
            {"item_bytes": 409_600.0, "items": 1, "window_s": 300},
            4,
            9,
            2_920_000,
            33 + (9 * 409.6 - 1_000) / 900 * 27,
        ),
    ],
)
def test_the_calls_of_a_month(
    changes: dict[str, Any], shards: int, records: float, calls: float, ms: float
) -> None:
    found = calls_of(replace(BASE, **changes))

    assert found.shards == shards
    assert found.records == pytest.approx(records)
    assert found.count == pytest.approx(calls)
    assert found.ms == pytest.approx(ms)
    assert found.keeps_up


def test_a_shard_that_changes_faster_than_a_call_writes_does_not_keep_up() -> None:
    # 1,000 records in 33 ms are 30,303 a second.
    just = replace(BASE, writes_per_s=30_303.0, shards=1)

    assert calls_of(just).keeps_up
    assert not calls_of(replace(just, writes_per_s=30_304.0)).keeps_up


# --- the bill ---------------------------------------------------------------------------------


def usd_of(found: bill.Bill) -> dict[str, float]:
    return {part.part: part.usd for part in found.parts}


def test_each_part_of_a_bill() -> None:
    found = bill_of(BASE)
    line = line_bytes(100) + 26  # 240 calls a minute: each line speaks for 100

    assert usd_of(found) == pytest.approx(
        {
            "cache": 0.052 * 730,  # 1.544 GB: cache.t4g.medium
            "requests": 2.1024,  # 10,512,000 at 0.20 a million
            "time": 10_512_000 * (2 + 1.5 / 9) / 1_000 * 0.5 * 0.0000133334,
            "logs": 105_120 * line / 2**30 * 0.50,
            "stream": 0.0,
            "monitoring": 11 * 0.30 + 12 * 0.10 + 3.00,
        }
    )
    assert found.usd == pytest.approx(sum(usd_of(found).values()))
    assert [cache.kind for cache in found.caches] == ["nodes", "serverless"]


def test_a_table_that_nobody_changes_costs_its_cache_and_its_monitoring() -> None:
    found = usd_of(bill_of(replace(BASE, writes_per_s=0.0, items=1)))

    assert {part for part, usd in found.items() if usd} == {"cache", "monitoring"}
    assert found["cache"] == pytest.approx(6.132)  # serverless, its least


@pytest.mark.parametrize(
    ("writes_per_s", "lines"),
    [
        (0.001, 2_628),  # less than a call a minute: a line for each
        (0.1, 43_800),  # a line a minute
        (1.0, 43_800),
        (4.0, 105_120),  # 240 calls a minute: a line for 100 of them
    ],
)
def test_lines_of_a_summary(writes_per_s: float, lines: int) -> None:
    found = bill_of(replace(BASE, writes_per_s=writes_per_s))

    (logs,) = [part for part in found.parts if part.part == "logs"]
    assert logs.why.startswith(f"{lines:,} lines of ")


def test_every_shard_writes_its_own_lines() -> None:
    found = bill_of(replace(BASE, writes_per_s=10.0, shards=10))

    (logs,) = [part for part in found.parts if part.part == "logs"]
    assert logs.why.startswith("438,000 lines of ")


def test_a_line_is_longer_the_more_calls_it_speaks_for() -> None:
    assert line_bytes(2) - line_bytes(1) > len("250,") + len("0.95,") - 1
    assert line_bytes(3) - line_bytes(2) == len("250,") + len("0.95,")


# --- what would be cheaper --------------------------------------------------------------------


def test_each_change_has_the_difference_of_two_bills() -> None:
    found = bill_of(BASE)
    changes = {change.change: change for change in changes_of(found)}

    for option, changed in {
        "--window-s 5": replace(BASE, window_s=5),
        "--value dynamodb-json": replace(BASE, value="dynamodb-json"),
        "--ttl-s 86400": replace(BASE, ttl_s=86_400),
        "--fence-ttl-s 86400": replace(BASE, fence_ttl_s=86_400),
    }.items():
        other = bill_of(changed)
        assert changes[option].saves_usd == pytest.approx(found.usd - other.usd)
        assert changes[option].saves_bytes == found.memory.total - other.memory.total
    assert changes["--fence-ttl-s 86400"].saves_bytes == 36_000 * 160
    assert changes["--window-s 5"].saves_usd > 1
    assert [*changes.values()] == sorted(changes.values(), key=lambda each: -each.saves_usd)


def test_a_change_is_offered_only_where_it_is_one() -> None:
    lean = replace(BASE, window_s=5, ttl_s=60, fence_ttl_s=86_400, memory_mb=512)

    assert {each.change.split()[0] for each in changes_of(bill_of(lean))} <= {
        "--value",
        "--engine",
        "--memory-mb",
    }


def test_a_change_that_no_cache_holds_is_left_out() -> None:
    full = replace(BASE, items=90_000_000_000)  # 126 TB; in dynamodb-json more than 135

    assert "--value dynamodb-json" not in {each.change for each in changes_of(bill_of(full))}


# --- what it stands on ------------------------------------------------------------------------


def test_a_workloads_defaults_are_those_of_the_settings() -> None:
    config = Config(redis_url="redis://unused")

    assert BASE.fence_ttl_s == config.fence_ttl_s
    assert BASE.value == config.value
    assert BASE.ttl_s == config.ttl_s
    assert config.metrics == "summary"


def test_full_is_what_check_calls_full() -> None:
    assert prices.FULL_SHARE * 100 == info._FULL_PERCENT


def test_nodes_grow_in_size_and_price() -> None:
    sizes = [node.maxmemory for node in prices.NODE_TYPES]

    assert sizes == sorted(sizes)
    for engine in ("valkey", "redis"):
        usd = [node.usd_an_hour[engine] for node in prices.NODE_TYPES]
        assert usd == sorted(usd)
    for node in prices.NODE_TYPES:  # a fifth less
        assert node.usd_an_hour["valkey"] == pytest.approx(node.usd_an_hour["redis"] * 0.8)


def test_there_are_eleven_metrics() -> None:
    assert len(METRICS) == 11
