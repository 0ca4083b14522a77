"""What an estimate stands on is what was measured and committed, and nothing older."""

from __future__ import annotations

import json

import pytest

from asyncsync.formats import FORMATS
from asyncsync.tools.estimate import measured, prices
from asyncsync.tools.estimate.measured import KEYS, TIMES_MS, KeySize
from benchmarks import bench_memory
from benchmarks.harness.contestants import OWN, OWN_JSON
from benchmarks.harness.servers import ZONE
from benchmarks.report import cost
from benchmarks.report.result import billed_ms, load
from tests.support.project.package import ROOT

RESULT = json.loads(bench_memory.RESULTS.read_text())
CONTESTANTS = {"json": OWN_JSON, "dynamodb-json": OWN}


def short(server: str) -> str:
    """Name a server as --engine does: "Valkey 8.0.1" is valkey-8.0."""
    name, version = server.lower().split()
    return f"{name}-{'.'.join(version.split('.')[:2])}"


SERVERS = {short(server): row for server, row in RESULT["servers"].items()}


def test_the_bytes_are_those_of_the_committed_result() -> None:
    assert RESULT["name_bytes"] == measured.NAME_BYTES
    assert {name: row["fence"] for name, row in SERVERS.items()} == measured.FENCE_BYTES
    assert {name: row["expiry"] for name, row in SERVERS.items()} == measured.EXPIRY_BYTES
    assert [*KEYS] == [*SERVERS]
    for name, row in SERVERS.items():
        sizes = {
            each: tuple(KeySize(**size) for size in row["formats"][each].values())
            for each in row["formats"]
        }
        assert sizes == KEYS[name]


def test_the_result_is_of_many_keys_and_sizes_on_four_servers() -> None:
    assert RESULT["keys"] == 100_000
    assert [*SERVERS] == ["redis-7.0", "redis-8.0", "valkey-8.0", "valkey-9.1"]
    for row in SERVERS.values():
        assert [*row["formats"]] == [*bench_memory.FORMATS]
        for sizes in row["formats"].values():
            assert [*sizes] == ["100", "1000", "10000"]
            # A key is larger than its value, and sizes grow: else interpolation means nothing.
            assert all(size["memory"] > size["value"] for size in sizes.values())
            memory = [size["memory"] for size in sizes.values()]
            assert memory == sorted(memory)


def test_a_format_that_was_measured_has_its_bytes_and_its_times() -> None:
    assert {*bench_memory.FORMATS} <= {*FORMATS}
    assert all([*sizes] == [*bench_memory.FORMATS] for sizes in KEYS.values())
    assert [*TIMES_MS] == [*bench_memory.FORMATS]


def test_the_times_are_those_of_the_committed_result() -> None:
    result = load(ROOT / "benchmarks" / "results" / "full.json")

    for value, by_memory in TIMES_MS.items():
        for memory_mb, times in by_memory.items():
            for records, ms in times:
                batch = f"{records:_} distinct".replace("_", " ")
                warm = result.find(batch, ZONE, memory_mb)
                assert warm is not None
                assert billed_ms(warm, CONTESTANTS[value]) == ms


def test_the_prices_are_those_of_the_benchmark() -> None:
    assert prices.GB_SECOND_USD == cost.GB_SECOND_USD
    assert prices.REQUEST_USD == cost.REQUEST_USD
    assert (prices.LOG_GB_USD, prices.LOG_EVENT_BYTES) == (cost.LOG_GB_USD, cost.LOG_EVENT_BYTES)
    assert {source.date for source in prices.SOURCES if source.what in ("Lambda", "logs")} == {
        cost.PRICES_DATED
    }


@pytest.mark.parametrize(
    ("row", "usd"),
    [
        ("serverless Valkey, the least there is (100 MB)", 0.1 * 0.084 * 730),
        ("or a node, cache.t4g.micro", prices.NODE_TYPES[0].usd_an_hour["valkey"] * 730),
        ("12 alarms (the first 10 of an account are free)", 12 * prices.ALARM_USD),
        ("11 metrics of asyncsync (the first 10 are free)", 11 * prices.METRIC_USD),
        ("dashboard (the first 3 are free)", prices.DASHBOARD_USD),
    ],
)
def test_the_deployments_page_has_the_same_prices(row: str, usd: float) -> None:
    text = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")

    assert f"| {row} | {usd:.2f} |" in text


def test_the_defaults_are_those_of_the_template() -> None:
    from asyncsync.tools.estimate.memory import Workload

    text = (ROOT / "template.yaml").read_text(encoding="utf-8")
    work = Workload(items=1, item_bytes=1.0, writes_per_s=0.0)

    for name, value in {
        "MemorySize": work.memory_mb,
        "BatchSize": work.batch_size,
        "BatchWindowSeconds": work.window_s,
    }.items():
        parameter = text.split(f"\n  {name}:\n")[1].split("\n    Description:")[0]
        assert f"Default: {value}" in parameter
    assert work.engine == "valkey-8.0"
    assert '"8.0"]' in text.split("EngineVersion: !If")[1].splitlines()[0]
