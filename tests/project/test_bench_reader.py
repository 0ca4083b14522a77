"""The reader's benchmark runs, compares like with like, and fails where a target is missed."""

from __future__ import annotations

import pytest

from asyncsync.reader.values import read_item
from benchmarks import bench_reader
from benchmarks.bench_reader import TARGETS, decoded, main
from tests.support.servers import FOUND, WANTED, lacking, skip


def test_both_sides_decode_alike() -> None:
    value = b'{"a":1,"b":[1.50,true,null],"c":{"d":"x"}}'

    assert decoded(value) == read_item(value, "json")
    assert repr(decoded(value)) == repr(read_item(value, "json"))


@pytest.mark.parametrize(("target", "code"), [(1_000.0, 0), (0.0, 1)])
def test_it_prints_each_pair_and_its_exit_code_is_the_targets(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    target: float,
    code: int,
) -> None:
    if not FOUND:
        skip(lacking(*WANTED))
    monkeypatch.setattr(bench_reader, "TARGETS", dict.fromkeys(TARGETS, target))

    assert main(["--rounds", "2", "--repeats", "20"]) == code

    printed = capsys.readouterr().out
    for pair in ("hit, bytes", "hit, item", "100 hits, bytes", "100 hits, items", "miss"):
        assert pair in printed
    assert ("MISSED" in printed) == bool(code)
