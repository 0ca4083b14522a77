"""Tests the demo: it passes, and it fails when the copy differs from a scan of the table."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
import redis

from asyncsync.aws.items import json_attributes
from asyncsync.cli.main import main
from asyncsync.lab.compare import compare, from_dynamodb_json, from_json, plain_item
from asyncsync.lab.demo.changes import ItemChange, make_changes
from asyncsync.lab.demo.command import Hook, demo
from asyncsync.lab.demo.environment import DemoReader
from asyncsync.lab.demo.stage import DemoOptions
from asyncsync.lab.demo.watcher import CopyWatcher, Journal
from asyncsync.lab.servers import ServerProcess
from asyncsync.values import to_json
from tests.support.output import RecordedOutput
from tests.support.servers import SERVERS
from tests.support.tables import table_names

SMALL = {"items": 20, "changes": 150, "seed": 4711, "cut_s": 0.5}


def run(
    monkeypatch: pytest.MonkeyPatch,
    server: str = "",
    *,
    hook: Hook | None = None,
    **options: float,
) -> tuple[bool, list[str]]:
    """Run a small demo on one kind of server; return its verdict and its lines."""
    wanted = [server] if server else []
    monkeypatch.setattr("asyncsync.lab.demo.environment.binaries", lambda: wanted)
    output = RecordedOutput()
    small = DemoOptions(**SMALL | options)  # type: ignore[arg-type]
    return demo(small, {}, output, before_comparison=hook), output.lines


def cut_of(lines: list[str]) -> tuple[float, int]:
    """Return how long the cut lasted, and how many attempts failed in it."""
    match = re.search(r"Redis is back after (\d+\.\d) s: (\d+) attempts?", "\n".join(lines))
    assert match, lines
    return float(match[1]), int(match[2])


@pytest.mark.parametrize("server", ["", *SERVERS])
def test_a_run_passes_tells_all_and_its_table_fits_eighty_columns(
    monkeypatch: pytest.MonkeyPatch, server: str
) -> None:
    passed, lines = run(monkeypatch, server)

    text = "\n".join(lines)
    assert passed, text
    table = lines[next(at for at, line in enumerate(lines) if "usual handler  " in line) :]
    assert max(map(len, table)) <= 80, max(table, key=len)
    name = {"": "fakeredis", "redis-server": "redis", "valkey-server": "valkey"}[server]
    in_order = [
        "demo, seed 4711",
        "Players, 150 changes to 20 items",
        r"DynamoDB  moto \d",
        rf"Redis     {name} \d",
        "CUT: the proxy breaks",
        r"reported \d{21,}: (split,|again) in 100 ms",  # again: a batch of one record
        r"Redis is back after \d+\.\d s: [1-9]\d* attempts?",
        r"RECOVERED: .* s after Redis came back",
        r"REPLAY: a batch of \d+ records?",
        r"asyncsync: \d+ fenced: nothing moved backwards",
        r"awaited loop: .* moved backwards",
        "one item's life: Players:",
        r"asyncsync +usual handler +awaited loop",
        r"keys equal to the table +20 of 20 ",
        r"stale / missing / came back +0 / 0 / 0 ",
        r"backward steps a reader saw +0 ",
        "lag until seen",
        "round trips",
        "commands sent",
        "records, with retries",
        "PASS: all 20 items equal Redis",
        "look yourself: ",
    ]
    assert re.search(".*".join(in_order), text, re.DOTALL), text
    assert cut_of(lines)[0] >= SMALL["cut_s"]


def test_a_cut_lasts_until_an_attempt_of_ours_has_failed_in_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    passed, lines = run(monkeypatch, cut_s=0.0)

    assert passed, lines
    assert cut_of(lines)[1] > 0


def test_a_key_altered_behind_its_back_fails_and_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    async def alter(reader: DemoReader, table: str) -> None:
        await reader.write(f"{table}:7", b'{"Number":7,"Version":1}')

    passed, lines = run(monkeypatch, hook=alter)

    assert not passed
    (line,) = [line for line in lines if line.startswith("FAIL")]
    assert re.fullmatch(r"FAIL: Players:7 \((stale|came back)\)", line)
    assert not any(line.startswith("PASS") for line in lines)


def test_in_a_server_of_the_users_no_key_is_left_and_no_other_touched(
    any_server: ServerProcess, any_client: redis.Redis
) -> None:
    any_client.set("Players:1", "mine")
    output = RecordedOutput()
    seen: list[set[str]] = []

    async def look(reader: DemoReader, table: str) -> None:
        seen.append({str(key).split(":")[0] for key in any_client.scan_iter()})

    options = DemoOptions(**SMALL, redis_url=any_server.url)  # type: ignore[arg-type]
    assert demo(options, {}, output, before_comparison=look), output.lines

    assert any_client.keys() == [b"Players:1"]
    assert any_client.get("Players:1") == b"mine"
    (families,) = seen
    assert len(families) == 5  # mine, ours, its fences, the usual handler's, the loop's


def test_on_a_dynamodb_of_the_users_the_table_has_a_random_name_and_is_deleted(moto: str) -> None:
    options = DemoOptions(**SMALL, endpoint_url=moto)  # type: ignore[arg-type]
    output = RecordedOutput()
    assert demo(options, {}, output), output.lines
    assert re.search(r"table     Players-[0-9a-f]{8}, ", "\n".join(output.lines))
    assert asyncio.run(table_names(moto)) == set()


BROKEN = {
    "AWS_PROFILE": "nonsense",
    "AWS_DEFAULT_PROFILE": "nonsense",
    "AWS_CONFIG_FILE": "/no/such/file",
    "AWS_REGION": "not a region",
    "AWS_DEFAULT_REGION": "xx",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
    "AWS_ENDPOINT_URL_DYNAMODB": "http://127.0.0.1:1",
    "AWS_CA_BUNDLE": "/no/such/file",
    "AWS_ACCESS_KEY_ID": "half of a pair",
    "AWS_WEB_IDENTITY_TOKEN_FILE": "/no/such/file",
    "AWS_ROLE_ARN": "arn:aws:iam::1:role/r",
    "AWS_MAX_ATTEMPTS": "many",
    "AWS_RETRY_MODE": "nonsense",
}


def test_this_machines_aws_settings_do_not_matter_to_a_demo_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A profile that is gone ended the demo, whose DynamoDB is on this machine."""
    for name, text in BROKEN.items():
        monkeypatch.setenv(name, text)

    code = main(["demo", "--items", "5", "--changes", "20", "--quiet"])

    assert code == 0, capsys.readouterr().err
    assert {name: os.environ.get(name) for name in BROKEN} == BROKEN
    assert "AWS_SHARED_CREDENTIALS_FILE" not in os.environ


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_takes_its_servers_down_and_prints_no_traceback(
    number: signal.Signals,
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "asyncsync", "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    )
    with process:
        assert process.stdout is not None
        line = ""
        while "DynamoDB" not in line:
            line = process.stdout.readline()
            assert line, "the demo ended by itself"
        port = int(line.rsplit(":", 1)[1])
        process.send_signal(number)
        _, errors = process.communicate(timeout=20)

    assert errors == "asyncsync: interrupted\n"
    assert process.returncode == 130
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


EXITS = "#!/bin/sh\necho cannot bind; exit 3\n"
HANGS = "#!/bin/sh\nexec sleep 60\n"
NO_INTERPRETER = "#!/no/such/interpreter\n"


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (EXITS, r"did not start on port \d+: it exited with 3; it printed: cannot bind"),
        (HANGS, r"did not start on port \d+: it does not listen; it printed: nothing"),
        (NO_INTERPRETER, r"did not start: .*No such file or directory.*"),
    ],
)
@pytest.mark.parametrize("server", ["my-redis", "moto"])
def test_a_server_that_does_not_start_ends_the_demo_with_one_line(
    server: str,
    program: str,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "my-redis"
    path.write_text(program)
    path.chmod(0o755)
    arguments = ["demo"]
    if server == "moto":
        monkeypatch.setattr("sys.executable", str(path))
    else:
        monkeypatch.setattr("asyncsync.lab.demo.environment.binaries", lambda: [str(path)])
        arguments += ["--endpoint-url", "http://127.0.0.1:1"]  # not asked before Redis is up
    monkeypatch.setattr("asyncsync.lab.servers.STARTED_WITHIN_S", 0.3)

    assert main(arguments) == 3

    printed = capsys.readouterr()
    assert printed.out == ""
    assert re.fullmatch(rf"asyncsync: \S*{server} {reason}\n", printed.err), printed.err


@pytest.mark.parametrize(
    ("option", "url", "name"),
    [
        ("--redis-url", "redis://127.0.0.1:1", "Redis at 127.0.0.1:1: "),
        ("--redis-url", "unix:///no/such/socket", "Redis at /no/such/socket: "),
        ("--endpoint-url", "http://127.0.0.1:1", "DynamoDB failed at creating table Players-"),
    ],
)
def test_a_server_of_the_users_that_is_not_there_ends_the_demo_with_one_line(
    option: str,
    url: str,
    name: str,
    moto: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("asyncsync.lab.demo.environment.binaries", list)
    arguments = [] if option == "--endpoint-url" else ["--endpoint-url", moto]

    assert main(["demo", option, url, *arguments]) == 3

    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"asyncsync: {name}")
    assert printed.err.count("\n") == 1


# --- the parts that judge -----------------------------------------------------------------------


def test_changes_repeat_by_seed_and_follow_each_items_life() -> None:
    changes = make_changes(30, 600, 5)

    assert changes == make_changes(30, 600, 5) != make_changes(30, 600, 6)
    assert len(changes) == 600
    present: dict[int, int] = {}
    removed = came_again = 0
    for change in changes:
        assert change.version == present.get(change.number, 0) + 1
        if change.item is None:
            removed += 1
        else:
            came_again += change.version > 1
            assert change.item["Version"] == {"N": str(change.version)}
        present[change.number] = change.version
    assert len(present) == 30
    assert removed > 20
    assert came_again > 20
    assert max(present.values()) > 3 * 600 / 30  # a hot one


def test_a_value_equals_its_item_whatever_its_types_and_unequal_ones_do_not() -> None:
    items = [
        json_attributes(change.item)
        for change in make_changes(60, 60, 1)
        if change.item is not None
    ]
    for item in items:
        assert from_json(to_json(item)) == plain_item(item)
        assert from_dynamodb_json(orjson.dumps(item)) == plain_item(item)
    assert from_json(b"[1]") != from_json(b"[true]")
    assert from_json(b"12345678901234567890.1") != from_json(b"12345678901234567890.2")


def test_findings_name_what_is_stale_missing_and_came_back() -> None:
    findings = compare(
        {"same": 1, "gone": None, "stale": 2, "missing": 3, "back": None},
        {"same": 1, "gone": None, "stale": 1, "missing": None, "back": 4},
    )

    assert findings.equal == 2
    assert findings.all == ["stale (stale)", "missing (missing)", "back (came back)"]


def watched_life(shape: str) -> CopyWatcher:
    """Watch item 1, whose versions are written at 10 s, 20 s, ...; x is a removal."""
    journal = Journal()
    for at, letter in enumerate(shape, start=1):
        change = ItemChange(1, at, None if letter == "x" else {"Version": {"N": str(at)}})
        journal.begin(change)
        journal.confirm(change, at * 10.0)
    return CopyWatcher(journal, int)


@pytest.mark.parametrize(
    ("shape", "reads", "steps"),
    [
        ("ooo", ["1", "2", "3"], 0),
        ("ooo", ["1", "3", "3"], 0),
        ("ooo", ["3", "2", "3"], 1),
        ("ooo", ["1", None], 1),  # it was never removed
        ("oxo", ["1", None, "3"], 0),
        ("oxo", ["3", None], 1),  # removed once, before
        ("oxo", [None, "1", None, "1"], 1),
        ("oxoxo", ["1", None, "3", None, "5"], 0),
        ("oxoxo", ["1", None, "1"], 1),  # came back
    ],
)
def test_a_reader_counts_steps_backwards_and_no_other(
    shape: str, reads: list[str | None], steps: int
) -> None:
    watched = watched_life(shape)

    for read in reads:
        watched.see(1, None if read is None else read.encode(), 0.0)

    assert watched.backward == steps


def test_lag_runs_until_a_version_or_a_newer_one_is_seen_and_else_on() -> None:
    watched = watched_life("oooo")

    watched.see(1, b"1", 11.0)
    watched.see(1, b"3", 35.0)

    assert watched.lag_ms(0.0, 60.0) == 1_000
    assert watched.lag_ms(0.3, 60.0) == 5_000
    assert watched.lag_ms(0.5, 60.0) == 15_000
    assert watched.lag_ms(0.99, 60.0) == 20_000  # version 4, never seen
    assert watched.behind_s(60.0) == 20.0
