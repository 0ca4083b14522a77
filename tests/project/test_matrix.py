"""The table of what was run is the program's own; it hides no failure and nothing not run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.programs import matrix
from tests.programs.matrix import BEGIN, END, OUTCOMES, PAGE, RESULTS, WAYS
from tests.support.project.package import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def row(
    ways: dict[str, tuple[int, ...]], server: str = "Redis 8.0.6", python: str = "3.13.0"
) -> Any:
    counts = {way: dict.fromkeys(OUTCOMES, 0) for way in WAYS}
    for name, numbers in ways.items():
        counts[name] = dict(zip(OUTCOMES, numbers, strict=True))
    return {
        "server": server,
        "python": python,
        "date": "2026-11-29",
        "ways": counts,
        "fence_bytes": 200.4,
        "seconds": 9,
    }


def committed() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(RESULTS.read_text())
    return rows


def test_the_page_has_the_table_of_the_committed_results() -> None:
    page = PAGE.read_text(encoding="utf-8")

    assert matrix.with_table(page, matrix.table_of(committed())) == page


def test_nothing_failed_in_what_was_committed() -> None:
    for each in committed():
        assert sum(counts["failed"] for counts in each["ways"].values()) == 0, each["server"]
        assert all(each["ways"][way]["passed"] for way in ("single", "cluster")), each["server"]


def test_what_the_readme_says_to_be_supported_was_run() -> None:
    servers = {re.sub(r"(\d+\.\d+)\.\d+", r"\1", each["server"]) for each in committed()}
    (said,) = re.findall(r"^Redis .* of \[docs/support", README, re.MULTILINE)

    assert set(re.findall(r"(?:Redis|Valkey) \d+\.\d+", said)) == servers


def test_a_python_is_claimed_only_if_the_page_says_that_it_was_run() -> None:
    claimed = re.findall(r"Python :: (3\.\d+)", PROJECT)
    run = set(re.findall(r"^\| (3\.\d+)\.\d+ \|", PAGE.read_text(), re.MULTILINE))

    assert claimed
    assert set(claimed) == run


@pytest.mark.parametrize(
    ("ways", "cells"),
    [
        ({"single": (9, 0, 0)}, ["9 passed", "not run", "not run", "not run"]),
        ({"single": (9, 2, 1)}, ["**2 failed**, 9 passed", "not run", "not run", "not run"]),
        ({"single": (9, 0, 1)}, ["9 passed, 1 skipped", "not run", "not run", "not run"]),
        ({"TLS": (0, 0, 3)}, ["not run", "the build has no TLS", "not run", "not run"]),
        ({"TLS": (0, 3, 0)}, ["not run", "**3 failed**, 0 passed", "not run", "not run"]),
        ({"cluster": (0, 0, 3)}, ["not run", "not run", "not run", "not run"]),
        ({"DynamoDB Local": (7, 0, 0)}, ["not run", "not run", "not run", "7 passed"]),
    ],
)
def test_a_cell_never_calls_passed_what_failed_or_was_not_run(
    ways: dict[str, tuple[int, ...]], cells: list[str]
) -> None:
    line = matrix.table_of([row(ways)]).splitlines()[2]

    shown = [cell.strip() for cell in line.strip("|").split("|")]
    assert shown == ["Redis 8.0.6", "3.13.0", *cells, "200", "2026-11-29"]


def test_a_new_result_replaces_that_of_the_same_server_and_python() -> None:
    names = [("Valkey 8.0.1", "3.13.0"), ("Redis 8.0.6", "3.9.1"), ("Redis 8.0.6", "3.13.0")]
    rows: list[dict[str, Any]] = []
    for name in names:
        rows = matrix.merge(rows, row({}, *name))
    rows = matrix.merge(rows, row({"single": (1, 0, 0)}, *names[2]))

    assert [(each["server"], each["python"]) for each in rows] == [names[1], names[2], names[0]]
    assert rows[1]["ways"]["single"]["passed"] == 1


def test_only_what_is_between_the_marks_changes() -> None:
    page = f"before\n{BEGIN}old\n{END}\nafter\n"

    assert matrix.with_table(page, "new\n") == f"before\n{BEGIN}new\n{END}\nafter\n"


def server_in(folder: Path, name: str, version: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\necho 'Server v={version} sha=0:0'\n")
    (folder / name).chmod(0o755)


def test_a_folders_servers_are_named_by_what_they_say(tmp_path: Path) -> None:
    server_in(tmp_path, "valkey-server", "9.1.2")
    server_in(tmp_path, "redis-server", "6.2.14")

    assert sorted(matrix.versions(tmp_path)) == [
        ("redis-server", "Redis 6.2.14"),
        ("valkey-server", "Valkey 9.1.2"),
    ]


@pytest.mark.parametrize("servers", ["", "empty", "redis:empty", "redis:missing"])
def test_a_folder_without_a_server_is_refused_before_anything_runs(
    servers: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server_in(tmp_path / "redis", "redis-server", "7.0.15")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["matrix", servers])
    monkeypatch.setattr(matrix, "try_server", lambda *_: pytest.fail("it ran"))

    with pytest.raises(SystemExit) as ended:
        matrix.main()

    assert ended.value.code == 2
    assert "give SERVERS=folder[:folder...]" in capsys.readouterr().err


@pytest.mark.parametrize("failed", [0, 1])
def test_the_exit_code_says_whether_anything_failed(
    failed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server_in(tmp_path / "redis", "redis-server", "7.0.15")
    result = {**row({"single": (3, failed, 0)}), "failures": ["a test"] * failed}
    (tmp_path / "page.md").write_text(f"{BEGIN}{END}\n")
    monkeypatch.setattr(sys, "argv", ["matrix", str(tmp_path / "redis")])
    monkeypatch.setattr(matrix, "try_server", lambda *_: result)
    monkeypatch.setattr(matrix, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(matrix, "PAGE", tmp_path / "page.md")

    assert matrix.main() == failed

    assert "| Redis 7.0.15 |" in (tmp_path / "page.md").read_text()


SUITE = """
import pytest

@pytest.fixture(params=["redis-server", "valkey-server"])
def server(request): return request.param

@pytest.fixture
def authority(): pass

@pytest.fixture
def one_node(): pass

@pytest.fixture
def broken(): raise ValueError

def test_passes(server): pass
def test_fails(server): assert False
def test_is_skipped(server): pytest.skip("no")
def test_breaks_before_it_begins(server, broken): pass
def test_tls(server, authority): pass
def test_cluster(server, one_node): pass
def test_without_a_server(): assert False
def test_fence(server, record_property): record_property("fence_bytes", 123.4)

@pytest.mark.parametrize("way", ["ACL user", "TLS, private CA"])
def test_ways(server, way, authority): pass

@pytest.mark.parametrize("endpoint", ["moto", "other"])
def test_endpoints(server, endpoint): pass
"""


def test_outcomes_of_one_server_are_counted_by_the_way_it_is_reached(tmp_path: Path) -> None:
    (tmp_path / "test_suite.py").write_text(SUITE)
    into = tmp_path / "result.json"
    command = [sys.executable, "-m", "tests.programs.matrix", "--only", "redis-server"]

    done = subprocess.run(
        [*command, "--into", str(into), "--", str(tmp_path / "test_suite.py")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1, done.stderr
    result = json.loads(into.read_text())
    assert {way: tuple(counts.values()) for way, counts in result["ways"].items()} == {
        "single": (4, 2, 1),
        "TLS": (2, 0, 0),
        "cluster": (1, 0, 0),
        "DynamoDB Local": (1, 0, 0),
    }
    assert [each.split("::")[1] for each in result["failures"]] == [
        "test_fails[redis-server]",
        "test_breaks_before_it_begins[redis-server]",
    ]
    assert result["fence_bytes"] == 123.4
