"""The backfill's benchmark compares the same values, and says so where a target is missed."""

from __future__ import annotations

import random
import subprocess

import orjson
import pytest
import redis

from asyncsync.aws.items import image_of
from asyncsync.lab.servers import ServerProcess
from benchmarks import bench_backfill
from benchmarks.bench_backfill import (
    PROGRAM,
    _printed,
    fill_ratios,
    pages_of,
    read_ratios,
    sdk_item,
)
from benchmarks.events import image


def test_an_item_of_the_sdks_has_the_image_it_was_made_from() -> None:
    each = image(7, random.Random(1))

    assert isinstance(sdk_item(each)["Avatar"]["B"], bytes)
    assert orjson.loads(image_of(sdk_item(each))) == each


def test_pages_hold_every_item_and_are_as_large_as_a_scans() -> None:
    pages = pages_of(2_000, random.Random(1))

    assert [item["Number"]["N"] for page in pages for item in page] == [
        str(number) for number in range(2_000)
    ]
    assert 0.9e6 < sum(len(image_of(item)) for item in pages[0]) < 1.2e6


def test_fills_and_sets_leave_the_same_values(
    real_server: ServerProcess, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_backfill, "FILL_TARGET", 0.0)

    assert fill_ratios(real_server, 100, 2, random.Random(1)) == 0

    assert "of SET, target 0.0\n" in capsys.readouterr().out


def test_a_page_is_read_and_parsed_to_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert read_ratios(100, 2, random.Random(1)) == 0

    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said[:2]] == ["read", "parsed"]
    assert said[2].endswith(" times")


def test_the_process_that_is_weighed_backfills_and_prints_its_peak(
    real_server: ServerProcess, real_client: redis.Redis
) -> None:
    command = [*PROGRAM, "--peak-of", "400", "--redis-url", real_server.url]
    process = subprocess.run(command, capture_output=True, text=True, check=False)

    assert process.returncode == 0, process.stderr
    assert int(process.stdout) > 10_000  # KB
    assert sum(1 for _ in real_client.scan_iter("Players:*")) == 400


def test_a_missed_target_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    times_ms = {"fill": [10.0, 10.0], "SET": [5.0, 5.0]}

    assert _printed("fill", "SET", times_ms, 100, 0.6) == 1
    assert "0.50 (0.50 to 0.50) of SET, target 0.6  MISSED" in capsys.readouterr().out
    assert _printed("fill", "SET", times_ms, 100, 0.5) == 0
