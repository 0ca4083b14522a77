"""Each option has a bound, and its edges are tested."""

from __future__ import annotations

import pytest
from msgspec import structs

from asyncsync import ConfigError
from asyncsync.reader.limits import CLAIM_MS
from asyncsync.reader.options import ReaderOptions

EDGES = [
    ("lease_ms", 100, 60_000),
    ("absent_ms", 0, 60_000),
    ("wait_ms", 0, 60_000),
    ("table_reads_per_s", 1, 1_000_000),
    ("timeout_ms", 1, 60_000),
]


@pytest.mark.parametrize(("name", "low", "high"), EDGES)
def test_an_option_is_taken_up_to_its_edges_and_refused_past_them(
    name: str, low: int, high: int
) -> None:
    for value in (low, high):
        assert getattr(ReaderOptions(**{name: value}), name) == value
    for wrong in (low - 1, high + 1, float(low), str(low), True, None):
        with pytest.raises(ConfigError, match=rf"{name}=.* allowed is a whole number from {low}"):
            ReaderOptions(**{name: wrong})  # type: ignore[arg-type]


@pytest.mark.parametrize("jitter", [0, 0.0, 0.5])
def test_a_jitter_is_taken(jitter: float) -> None:
    assert ReaderOptions(jitter=jitter).jitter == jitter


@pytest.mark.parametrize("jitter", [-0.1, 0.51, 1, float("nan"), "0.1", None, True])
def test_a_jitter_is_refused(jitter: float) -> None:
    with pytest.raises(ConfigError, match=r"jitter=.* allowed is a number from 0 to 0\.5"):
        ReaderOptions(jitter=jitter)


def test_every_option_has_an_edge_here_and_no_lease_outlives_a_claim() -> None:
    names = {each.name for each in structs.fields(ReaderOptions)}

    assert names == {name for name, _, _ in EDGES} | {"jitter"}
    assert all(high <= CLAIM_MS for name, _, high in EDGES if name in ("lease_ms", "absent_ms"))
