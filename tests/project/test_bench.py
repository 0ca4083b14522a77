"""The benchmark measures what it says, marks who is wrong, and its documents are its result's."""

from __future__ import annotations

import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis

from asyncsync.lab.servers import ServerProcess, redis_process
from benchmarks import bench
from benchmarks.events import Batch, batch, image
from benchmarks.harness import bundles, contestants, cpu_share, delay_proxy, measure
from benchmarks.harness.contestants import Contestant, Endpoint
from benchmarks.harness.measure import Network, Running, is_plain, verdict
from benchmarks.harness.plan import Case
from benchmarks.harness.servers import write_commands
from benchmarks.report import cost
from benchmarks.report.publish import full_document, with_lines
from benchmarks.report.result import Result, Warm, billed_ms, load
from benchmarks.report.statistics import Summary
from benchmarks.report.tables import report
from benchmarks.report.targets import format_ratio, targets
from tests.support.servers import ONE_SERVER

ROOT = Path(__file__).parents[2]
HOT: Batch = batch(100, "hot", "NEW_AND_OLD_IMAGES", 1)

# Handlers that are wrong each in its own way; they write through a Redis they open themselves.
PRELUDE = """
import json, os, socket, threading, time
def send(*words):
    packed = b"*%d\\r\\n" % len(words)
    packed += b"".join(b"$%d\\r\\n%b\\r\\n" % (len(w), w) for w in words)
    with socket.create_connection((os.environ["REDIS_HOST"], int(os.environ["REDIS_PORT"]))) as s:
        s.sendall(b"SELECT %b\\r\\n" % os.environ["REDIS_DATABASE"].encode() + packed)
        s.recv(100)
def write(records):
    for record in records:
        change = record["dynamodb"]
        name = b"Players:" + change["Keys"]["Number"]["N"].encode()
        if "NewImage" in change:
            send(b"SET", name, json.dumps(change["NewImage"]).encode())
        else:
            send(b"DEL", name)
"""
RIGHT = "def lambda_handler(event, context):\n    write(event['Records'])\n"
LATE = """
def lambda_handler(event, context):
    threading.Thread(target=lambda: (time.sleep(0.2), write(event['Records']))).start()
"""
BACKWARDS = "def lambda_handler(event, context):\n    write(event['Records'][::-1])\n"
FAILING = "def lambda_handler(event, context):\n    raise ValueError('no')\n"


@pytest.fixture(scope="module", params=ONE_SERVER)
def network(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Network]:
    folder = tmp_path_factory.mktemp("commands")
    write_commands([HOT], folder)
    with redis_process(request.param, "--databases", "20") as server:
        endpoint = Endpoint(server.port, server.port, folder)
        yield Network("loopback", 0.0, endpoint, endpoint)


def test_a_function_runs_its_bundle_and_not_the_source_tree() -> None:
    command, env, folder = contestants.launch_of(contestants.by_name(contestants.OWN))
    program = "import asyncsync; print(asyncsync.__cached__)"
    done = subprocess.run(
        [command[0], "-c", program], env=env, cwd=folder, capture_output=True, text=True
    )

    bytecode = Path(done.stdout.strip())
    assert bytecode.is_relative_to(bundles.BUILT), done.stderr
    assert bytecode.exists()


def run(
    contestant: Contestant, network: Network, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> Running:
    """Start one contestant in this environment's Python, without its bundle."""

    def launch_of(each: Contestant) -> tuple[list[str], dict[str, str], None]:
        client = [sys.executable, "-m", "awslambdaric", each.handler]
        env = {"PYTHONPATH": str(bundles.CONTESTANTS), "_HANDLER": each.handler}
        return client, env | dict(each.settings), None

    monkeypatch.setattr(measure, "launch_of", launch_of)
    running, absent = measure.start([contestant], network, stack)
    assert not absent
    return running[contestant.name]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (RIGHT, r"right"),
        (LATE, r"loses writes: \d of \d+ were there when it answered"),
        (BACKWARDS, r"wrong: \d+ of \d+ keys differ"),
        (FAILING, r"fails: ValueError: no"),
    ],
    ids=["right", "late", "backwards", "failing"],
)
def test_a_contestant_is_judged_by_what_is_there_when_it_answers(
    source: str,
    said: str,
    network: Network,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "mine.py").write_text(PRELUDE + source)
    mine = replace(
        contestants.by_name(contestants.LIMIT),
        handler="mine.lambda_handler",
        settings={"PYTHONPATH": str(tmp_path)},
    )
    with ExitStack() as stack:
        running = run(mine, network, stack, monkeypatch)

        assert re.fullmatch(said, verdict(running, HOT))


@pytest.mark.parametrize(
    "name",
    [
        contestants.OWN,
        contestants.OWN_JSON,
        contestants.OWN_UNFENCED,
        contestants.LIMIT,
        contestants.REDIS_ASYNCIO,
    ],
)
def test_those_who_do_the_job_are_found_right_and_are_timed_every_round(
    name: str, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as stack:
        running = run(contestants.by_name(name), network, stack, monkeypatch)

        assert verdict(running, HOT) == "right"
        samples = measure.timed([running], HOT, 3, random.Random(1), pausing=True)
        assert [len(each) for each in samples.values()] == [3]
        assert all(0 < ms < 5_000 for ms in samples[name])


def test_plain_values_are_compared_by_their_types() -> None:
    one = image(1, random.Random(1))
    plain: dict[str, Any] = {"N": 10, "S": ["b", "a"], "L": [1, 2]}

    assert is_plain(
        plain,
        {"M": {"N": {"N": "1E1"}, "S": {"SS": ["a", "b"]}, "L": {"L": [{"N": "1"}, {"N": "2"}]}}},
    )
    assert not is_plain(plain["L"], {"L": [{"N": "2"}, {"N": "1"}]})
    assert not is_plain(plain, {"M": {"N": {"N": "10"}}})
    assert not is_plain({}, {"M": one})


def test_the_commands_of_the_limit_leave_what_the_batch_leaves(network: Network) -> None:
    sent = (network.one.commands / f"{len(HOT.event)}.resp").read_bytes()

    assert sent.count(b"SET") == sum(each is not None for each in HOT.left.values())
    assert sent.startswith(b"*")


# --- the machine ------------------------------------------------------------------------------


def test_the_proxy_makes_a_round_trip_longer_by_what_it_is_told(
    real_server: ServerProcess, real_client: redis.Redis
) -> None:
    with delay_proxy.proxy(real_server.port, 20_000) as port:
        taken_us = delay_proxy.ping_us(port, 5)
        with redis.Redis(port=port) as client:
            client.set("x", b"y" * 3_000_000)
            assert client.get("x") == b"y" * 3_000_000

    assert 40_000 <= taken_us < 80_000
    assert real_client.get("x") is not None


def test_a_share_holds_a_process_to_its_part_of_a_processor() -> None:
    program = "import time\nwhile True: pass"
    try:
        used = share_used(177, program)
    except cpu_share.NoShares:
        used = 0.0  # the benchmark marks those rows
    assert used < 0.25  # a tenth, and what the first slices gave


def share_used(memory_mb: int, program: str) -> float:
    with cpu_share.cpu_share(memory_mb) as share:
        process = subprocess.Popen([sys.executable, "-c", program])
        try:
            share.add(process.pid)
            before_s, began_s = used_s(process.pid), time.monotonic()
            time.sleep(1)
            return (used_s(process.pid) - before_s) / (time.monotonic() - began_s)
        finally:
            process.kill()
            process.wait()


def used_s(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(words[11]) + int(words[12])) / 100


# --- the whole --------------------------------------------------------------------------------


@pytest.mark.parametrize("binary", ONE_SERVER)  # it picks one itself
def test_a_run_from_end_to_end_says_what_it_found_and_what_it_left_out(
    binary: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    case = Case("0.5 ms", cpu_share.ONE_VCPU_MB, "NEW_AND_OLD_IMAGES", 10, "distinct", 2)
    large = replace(case, records=1_000, contestants=(contestants.OWN,))
    monkeypatch.setattr(bench, "quick_cases", lambda: [case, large])
    monkeypatch.setattr(bundles, "has_node_bundle", lambda: False)
    monkeypatch.setattr(bench, "cluster_of_six", lambda run, rounds, binary: None)
    monkeypatch.setattr(bench, "leave_one_free", lambda: None)  # for good, in this process
    into = tmp_path / "result.json"

    names = f"{contestants.OWN}; {contestants.EMPTY}; {contestants.SEED_AWAITED}"
    assert bench.main(["--only", names, "--rounds", "2", "--into", str(into)]) == 0

    result = load(into)
    assert [warm.batch for warm in result.warm] == ["10 distinct", "1 000 distinct"]
    assert result.warm[0].verdicts == {contestants.OWN: "right", contestants.EMPTY: "right"}
    assert [len(each) for each in result.warm[0].samples_ms.values()] == [2, 2]
    assert set(result.cold) == {contestants.OWN, contestants.EMPTY, contestants.OWN_REDIS_PY}
    assert 0 < result.server["script_us_per_key"] < 1_000
    assert "make bench-full" in result.absent[contestants.SEED_AWAITED]
    assert result.log_bytes[contestants.OWN] > 200 > result.log_bytes[contestants.EMPTY]
    printed = capsys.readouterr().out
    assert printed == f"{report(result)}\n"
    assert f"- {contestants.SEED_AWAITED}: make bench-full" in printed
    assert "not measured" in printed


# --- what is made of it -----------------------------------------------------------------------


def test_a_cost_is_time_requests_and_lines() -> None:
    found = cost.cost(memory_mb=1_024, records=100, billed_ms=10, log_bytes=474)

    assert found.time_usd == pytest.approx(10_000 * 0.010 * cost.GB_SECOND_USD)
    assert found.requests_usd == pytest.approx(10_000 * cost.REQUEST_USD)
    assert found.metrics_usd == pytest.approx(10_000 * 500 / (1 << 30) * cost.LOG_GB_USD)
    assert found.usd == found.time_usd + found.requests_usd + found.metrics_usd
    assert cost.cost(128, 1, 1, 0).metrics_usd == 0


@pytest.mark.parametrize(
    ("per_s", "window_s", "records"),
    [(0.1, 0, 1), (8, 0, 2), (8, 5, 40), (1_000, 0, 250), (10_000, 60, 1_000)],
)
def test_a_batch_is_as_full_as_rate_and_window_make_it(
    per_s: float, window_s: float, records: float
) -> None:
    assert cost.records_per_invocation(per_s, window_s, 1_000) == records


@pytest.mark.parametrize(("records", "ms"), [(1, 2), (5.5, 3), (10, 4), (55, 9), (2_000, 14)])
def test_a_time_between_two_batches_is_on_the_line_between_them(records: float, ms: float) -> None:
    assert cost.billed_for(records, [(1, 2), (10, 4), (100, 14)]) == pytest.approx(ms)


# --- what is published --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published() -> Result:
    return load(bench.FULL)


def test_the_readmes_numbers_are_those_of_the_committed_run(published: Result) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")

    assert with_lines(readme, published) == readme
    assert published.origin["command"] == "make bench-full"
    assert not published.origin["commit"].endswith("+")  # of a commit without changes


def test_the_tables_are_those_of_the_committed_run(published: Result) -> None:
    written = bench.FULL.with_suffix(".md").read_text(encoding="utf-8")

    assert written == full_document(published)


def test_the_charts_show_the_committed_run(published: Result) -> None:
    chart = bench.FULL.with_name("billed.svg").read_text(encoding="utf-8")
    warm = published.find("1 000 distinct", "0.5 ms", cpu_share.ONE_VCPU_MB)
    assert warm is not None

    for name in warm.samples_ms:
        assert f">{name}" in chart
        assert f">{billed_ms(warm, name):g}<" in chart


def test_the_committed_run_took_every_contestant_and_found_us_right(published: Result) -> None:
    for warm in published.warm:
        ours = {name: said for name, said in warm.verdicts.items() if name.startswith("asyncsync")}
        assert set(ours.values()) == {"right"}
    measured = {name for warm in published.warm for name in warm.samples_ms}
    assert measured >= {each.name for each in contestants.CONTESTANTS} - {*contestants.ASIDE}
    assert published.warm[0].verdicts[contestants.SEED_PUBLISHED].startswith("loses writes: 0 of")


def test_a_ratio_is_written_as_people_say_it() -> None:
    assert format_ratio(Summary(1.5, 2.0, 2.5)) == "2.00x (1.50 to 2.50)"
    assert format_ratio(Summary(0.1, 0.2, 0.5)) == "1/5.0 (1/2.0 to 1/10.0)"


def test_a_target_is_met_at_its_bound_and_says_where_it_was_not_measured() -> None:
    own, limit, empty = contestants.OWN, contestants.LIMIT, contestants.EMPTY
    warm = Warm(
        "0.5 ms", cpu_share.ONE_VCPU_MB, "NEW_AND_OLD_IMAGES", "1 000 distinct", 1_000, 1_000, 1,
        dict.fromkeys((own, limit, empty), "right"),
        {own: [2.2, 2.2], limit: [1.0, 1.0], empty: [8.0, 8.0]},
    )  # fmt: skip
    found = list(targets(Result({}, {}, {}, {}, [warm])))

    assert [each.met for each in found[:3]] == [True, False, None]
    assert found[1].reached == "1/3.6 (1/3.6 to 1/3.6)"
    assert all(each.met is None for each in found[3:])
