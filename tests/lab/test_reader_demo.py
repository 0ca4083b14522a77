"""Tests `asyncsync demo --reader`: it passes, and it fails when an answer is not the table's."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import redis

from asyncsync.cli.main import main
from asyncsync.lab.demo.command import Hook, demo
from asyncsync.lab.demo.environment import DemoReader
from asyncsync.lab.demo.stage import DemoOptions
from asyncsync.lab.servers import ServerProcess
from asyncsync.tools.errors import CommandFailed
from tests.support.output import RecordedOutput
from tests.support.servers import SERVERS

SMALL: Mapping[str, Any] = {
    "items": 20,
    "changes": 200,
    "seed": 4711,
    "cut_s": 0.5,
    "reader": True,
}


def run(
    monkeypatch: pytest.MonkeyPatch, server: str = "", *, hook: Hook | None = None, **options: Any
) -> tuple[bool, RecordedOutput]:
    """Run a small demo on one kind of server; return its verdict and its output."""
    wanted = [server] if server else []
    monkeypatch.setattr("asyncsync.lab.demo.environment.binaries", lambda: wanted)
    output = RecordedOutput()
    return demo(DemoOptions(**{**SMALL, **options}), {}, output, before_comparison=hook), output


@pytest.mark.parametrize("server", ["", *SERVERS])
def test_a_run_passes_and_shows_both_side_by_side(
    monkeypatch: pytest.MonkeyPatch, server: str
) -> None:
    passed, output = run(monkeypatch, server)

    text = "\n".join(output.lines)
    assert passed, text
    in_order = [
        "demo of readers, seed 4711",
        "Players, 200 changes to 20 items",
        "CUT: the proxy breaks",
        r"Redis is back after 0\.5 s: cache-aside lost [1-9]\d* deletes?",
        "all 200 changes written",
        "at rest: ",
        r"asyncsync +cache-aside",
        r"wrong answers at rest +0 +\d+",
        r"stale / missing / came back +0 / 0 / 0 ",
        r"answers equal to the table +20 of 20 ",
        r"hits +\d+ % +\d+ %",
        "PASS: all 20 answers equal the table",
        r"look yourself: .* demo --reader --keep --seed 4711",
    ]
    assert re.search(".*".join(in_order), text, re.DOTALL), text
    table = output.lines[
        next(at for at, line in enumerate(output.lines) if "cache-aside  " in line) :
    ]
    assert max(len(line) for line in table if not line.startswith(" ")) <= 80


@pytest.mark.parametrize("server", SERVERS[:1])
def test_a_key_altered_behind_its_back_fails_and_is_named(
    monkeypatch: pytest.MonkeyPatch, server: str
) -> None:
    async def alter(copy: DemoReader, table: str) -> None:
        await copy.write(f"{table}:7", b'{"Number":7,"Version":1}')

    passed, output = run(monkeypatch, server, hook=alter)

    assert not passed
    (line,) = [line for line in output.lines if line.startswith("FAIL")]
    assert re.fullmatch(r"FAIL: Players:7 \((stale|came back)\)", line)
    assert not any(line.startswith("PASS") for line in output.lines)


def test_in_a_server_of_the_users_no_key_is_left_and_no_other_touched(
    any_server: ServerProcess, any_client: redis.Redis
) -> None:
    any_client.set("Players:1", "mine")
    output = RecordedOutput()
    families: set[str] = set()

    async def look(copy: DemoReader, table: str) -> None:
        families.update(str(key).split(":")[0] for key in any_client.scan_iter())

    options = DemoOptions(**SMALL, redis_url=any_server.url)
    assert demo(options, {}, output, before_comparison=look), output.lines

    assert any_client.keys() == [b"Players:1"]
    assert any_client.get("Players:1") == b"mine"
    assert len(families) >= 3  # mine, our fences, cache-aside's; values of ours if any were loaded


def test_a_tls_server_is_refused_before_anything_is_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(CommandFailed, match="--reader cannot cut a TLS connection; give a redis"):
        run(monkeypatch, redis_url="rediss://127.0.0.1:1", endpoint_url="http://127.0.0.1:1")


def test_the_command_line_prints_one_json_object(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("asyncsync.lab.demo.environment.binaries", list)

    assert main(["demo", "--reader", "--items", "5", "--changes", "20", "--json"]) == 0

    told = json.loads(capsys.readouterr().out)
    assert told["passed"]
    assert [each["reader"] for each in told["readers"]] == ["asyncsync", "cache-aside"]
    page = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text()
    (row,) = re.findall(r"^\| `demo --reader` .*$", page, re.MULTILINE)
    fields = {"reader", *told["readers"][0], *told} - {"format"}
    assert {f"`{field}`" for field in fields} <= set(re.findall(r"`\w+`", row))
