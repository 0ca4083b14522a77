"""--json on every command: what it prints is what docs/command-line.md says, and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import anyio
import pytest
import redis

from asyncsync import Config, Mirror
from asyncsync.aws.clients import AwsClients
from asyncsync.cli.main import COMMANDS, main
from asyncsync.lab.servers import ServerProcess
from asyncsync.tools.output import FORMAT
from tests.support.aws.on_failure import discarded
from tests.support.events import FIRST, arn, event, record
from tests.support.project.package import ROOT
from tests.support.tables import begin_stream, load, make_table, numbered, only_moto

pytestmark = only_moto

PAGE = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `(\w+)( --\w+)?` \| [^|]+ \| (.+) \|$", PAGE, re.M)


def documented(command: str, option: str = "") -> list[tuple[set[str], set[str]]]:
    """Return the fields of each object that a command prints: those of all, and those of some."""
    shapes = []
    for name, with_option, text in ROWS:
        if (name, with_option.strip()) == (command, option):
            fields = re.findall(r"`(\w+\??)`", re.sub(r"\(each with [^)]+\)", "", text))
            always = {field for field in fields if not field.endswith("?")}
            shapes.append((always, {field.rstrip("?") for field in fields}))
    return shapes


def nested(command: str, field: str) -> set[str]:
    """Return the fields of the objects in a list."""
    text = "".join(text for name, option, text in ROWS if (name, option) == (command, ""))
    (found,) = re.findall(rf"`{field}` \(each with ([^)]+)\)", text)
    return set(re.findall(r"`(\w+)`", found))


@pytest.fixture(autouse=True)
def in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncsync.cli.commands.interruptible", nullcontext)


async def printed(
    capsys: pytest.CaptureFixture[str], *words: str, option: str = ""
) -> list[Mapping[str, Any]]:
    """Run a command with --json; check each object against the page, and return them."""
    await anyio.to_thread.run_sync(lambda: main([*words, "--json"]))
    captured = capsys.readouterr()
    objects = [json.loads(line) for line in captured.out.splitlines()]
    assert objects, captured.err
    shapes = documented(words[0], option)
    for each in objects:
        assert each["format"] == FORMAT
        names = {*each} - {"format"}
        assert any(always <= names <= most for always, most in shapes), (words[0], names)
    return objects


def test_every_command_is_on_the_page() -> None:
    assert {name for name, *_ in ROWS} == {*COMMANDS} - {"completion"}
    assert f'"format": {FORMAT}`' in PAGE


def test_the_exit_codes_are_those_of_the_help() -> None:
    from asyncsync.cli.exit_codes import EXIT_CODES

    listed = re.findall(r"^  (\d+) ", EXIT_CODES, re.M)
    assert re.findall(r"^\| (\d+) \|", PAGE, re.M) == listed


async def test_the_commands_on_a_table(
    clients: AwsClients,
    endpoint: str,
    table: str,
    fake_server: ServerProcess,
    fake_client: redis.Redis,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    await make_table(clients, table)
    await load(clients, table, numbered(20))
    await begin_stream(clients, table)
    at = ["--table", table, "--endpoint-url", endpoint, "--redis-url", fake_server.url]

    (filled,) = await printed(capsys, "backfill", *at, "--skip-mapping-check")
    assert (filled["read"], filled["filled"]) == (20, 20)

    fake_client.delete(f"{table}:3")
    fake_client.set(f"{table}:4", "{}")
    fake_client.set(f"{table}:44", "{}")
    audit = ["audit", *at, "--recheck-after", "0.01"]
    *findings, summary = await printed(capsys, *audit, "--show-values")
    assert {each["finding"] for each in findings} == {"missing", "stale", "orphan"}
    assert summary["orphans"] == 1
    await printed(capsys, *audit, "--sample", "5")
    *findings, summary = await printed(capsys, *audit, "--repair")
    assert (len(findings), summary["repaired"]) == (3, 3)

    body = discarded([record(2, FIRST, stream_arn=arn(table=table))], table=table)
    (tmp_path / "good").write_bytes(body)
    (tmp_path / "bad").write_bytes(b'{"version": "1.0"}')
    objects = await printed(capsys, "redrive", str(tmp_path), *at)
    assert "objects" in objects[-1]

    fake_client.set("old:1", "{}")
    (retired,) = await printed(capsys, "retire", "old:{@key}", *at)
    assert (retired["removed"], retired["kept"]) == (1, 0)

    (ran,) = await printed(capsys, "run", *at, "--exit-when-idle", "0.1")
    assert (ran["records"], ran["caught_up"]) == (0, True)

    (checked,) = await printed(capsys, "check", *at)
    assert {*checked["verdicts"][0]} == nested("check", "verdicts")


async def test_the_estimate(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--items", "1000", "--item-bytes", "500.5", "--writes-per-s", "0"]

    (estimated,) = await printed(capsys, "estimate", *sizes)

    for field in ("memory", "caches", "parts", "cheaper", "prices"):
        for each in estimated[field]:
            assert {*each} == nested("estimate", field)
    assert (estimated["table"], estimated["items"], estimated["item_bytes"]) == (None, 1000, 500.5)
    assert estimated["total_usd"] == pytest.approx(
        sum(part["usd"] for part in estimated["parts"]), abs=0.001
    )


async def test_get(
    fake_server: ServerProcess, fake_client: redis.Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    mirror = Mirror(Config(redis_url=fake_server.url, metrics="off"))
    await mirror.handle(event([record(7, FIRST)]), None)
    mirror.close()

    for key in ("Players:7", "Players:8"):
        await printed(capsys, "get", key, "--redis-url", fake_server.url)


async def test_the_demo(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asyncsync.lab.demo.environment.binaries", list)
    monkeypatch.setattr("asyncsync.lab.demo.command.CUT_FELT_WITHIN_S", 5.0)

    (told,) = await printed(capsys, "demo", "--items", "20", "--changes", "150")

    assert told["passed"]
    assert {*told["handlers"][0]} == nested("demo", "handlers")
    assert [each["handler"] for each in told["handlers"]] == [
        "asyncsync",
        "usual handler",
        "awaited loop",
    ]


async def test_the_simulator(capsys: pytest.CaptureFixture[str]) -> None:
    (many,) = await printed(capsys, "simulate", "--seeds", "2", "--jobs", "1")
    assert (many["seeds"], many["violations"]) == (2, [])
    (one,) = await printed(capsys, "simulate", "--seed", "1", "--trace", option="--seed")
    assert one["violation"] is None
    (scope,) = await printed(capsys, "simulate", "--scope", "1", option="--scope")
    assert scope["violations"] == 0


async def test_the_index(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASYNCSYNC_VALUE", "hash")
    monkeypatch.setenv("ASYNCSYNC_KEY", "p:{Number}")

    (made,) = await printed(capsys, "index", "a:tag", "--redis-url", "redis://127.0.0.1:1")

    assert made["command"] == "FT.CREATE idx:p ON HASH PREFIX 1 p: SCHEMA a TAG"
