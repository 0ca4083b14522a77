"""docs/cost.md says what the code of `asyncsync estimate` computes, and so do its plots."""

from __future__ import annotations

import re

import pytest

from asyncsync.tools.estimate import prices
from asyncsync.tools.estimate.bill import EVENT_BYTES_MAX, PARTITION_BYTES, PARTITION_UNITS_PER_S
from benchmarks.bench_memory import KEYS
from benchmarks.report.cost_page import DOCS, PAGE, PLOTS, TABLES, digest, with_tables

TEXT = PAGE.read_text(encoding="utf-8")


def test_the_tables_are_those_of_the_code() -> None:
    assert with_tables(TEXT) == TEXT, "run make cost-page"
    assert re.findall(r"^<!-- (\w+) -->$", TEXT, re.M) != []
    assert {*re.findall(r"^<!-- (\w+) -->$", TEXT, re.M)} == {*TABLES}


def test_a_table_that_was_changed_by_hand_is_seen() -> None:
    figure = re.findall(r"\d+\.\d\d", TEXT.split("<!-- examples -->")[1])[0]

    assert with_tables(TEXT.replace(figure, "0.01")) == TEXT
    assert TEXT.replace(figure, "0.01") != TEXT


@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_has_the_points_of_the_code(name: str) -> None:
    drawing = (DOCS / name).read_text(encoding="utf-8")
    points = PLOTS[name][0]()

    assert f"]({name})" in TEXT
    assert digest(points) in drawing, "run make cost-page"
    for label in points:
        assert label in drawing
    moved = {label: [(x, y * 1.01) for x, y in line] for label, line in points.items()}
    assert digest(moved) != digest(points)


def test_the_sentences_have_the_numbers_of_the_code() -> None:
    valkey = prices.SERVERLESS["valkey"]
    room = (1 - prices.RESERVED_SHARE) * prices.FULL_SHARE

    assert f"room for {room:.0%} of its memory".replace("%", " %") in TEXT
    assert (
        f"costs {valkey.gib_hour_usd} an hour for each GiB, at least {valkey.gib_min} GiB" in TEXT
    )
    assert f"{valkey.ecpu_usd * prices.MILLION:.4f} a million processing units" in TEXT
    assert f"at its size or at {EVENT_BYTES_MAX // 1_000_000} MB" in TEXT
    assert f"size ({PARTITION_BYTES // 10**9} GB)" in TEXT
    assert f"writes ({PARTITION_UNITS_PER_S:,} units a second)" in TEXT
    assert f"A month has {prices.HOURS_A_MONTH} hours" in TEXT
    assert f"{KEYS:,} keys that the product itself wrote" in TEXT
