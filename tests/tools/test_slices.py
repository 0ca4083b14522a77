"""Commands in slices: cut at any page and gone on with, they come to what one run comes to."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import anyio
import orjson
import pytest
import redis

from asyncsync import Config, Mirror
from asyncsync.aws.clients import AwsClients
from asyncsync.aws.items import scan_page
from asyncsync.copy import reader as copy_module
from asyncsync.copy.reader import CopyReader
from asyncsync.lab.servers import ServerProcess
from asyncsync.model import Call
from asyncsync.tools import table_scan
from asyncsync.tools.audit import command as audit_module
from asyncsync.tools.audit.command import AuditOptions, audit
from asyncsync.tools.backfill.command import BackfillOptions, backfill
from asyncsync.tools.deadline import DeadlineReached
from asyncsync.tools.errors import CommandFailed, CommandRefused
from asyncsync.tools.output import Output
from asyncsync.tools.redrive.command import OBJECTS_MAX, RedriveOptions, redrive
from asyncsync.tools.retire.command import RetireOptions, retire
from asyncsync.tools.state import FORMAT, FileState, resume_or_begin
from tests.support.aws.on_failure import discarded
from tests.support.cluster import Cluster
from tests.support.events import FIRST, record
from tests.support.output import RecordedOutput
from tests.support.planted import ITEMS, plant_differences, result
from tests.support.tables import load, make_table, numbered, only_moto, stream_arn_of, until

pytestmark = only_moto  # how many items a segment has is of it


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state.json"


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """A segment's page has 5 items, an answer of SCAN some 20 names."""

    async def few(*arguments: Any) -> Any:
        clients, name, segment, segments, after, _ = arguments
        return await scan_page(clients, name, segment, segments, after, 5)

    monkeypatch.setattr(table_scan, "scan_page", few)
    monkeypatch.setattr(copy_module, "SCAN_COUNT", 20)


class Ticks:
    """Time that goes by with every look at it."""

    def __init__(self, looks: int) -> None:
        self._left = looks

    def __call__(self) -> float:
        self._left -= 1
        return float(self._left)


Slice = Callable[[Output, Ticks], Awaitable[bool]]


async def in_slices(one: Slice, looks: int) -> tuple[bool, list[list[str]]]:
    """Run slices of so many looks at the clock until one is done; what each has said."""
    said: list[list[str]] = []
    while len(said) < 200:
        output = RecordedOutput()
        said.append(output.lines)
        try:
            return await one(output, Ticks(looks)), said
        except DeadlineReached:
            continue
    raise AssertionError("no slice got anywhere")


def names_below(folder: Path, pattern: str) -> list[Path]:
    return list(folder.rglob(pattern))


def documents_in(state: Path) -> Any:
    return json.loads(state.read_bytes())


def mirror_of(url: str, **options: Any) -> Mirror:
    transform = options.pop("transform", None)
    return Mirror(Config(redis_url=url, **options), transform=transform, emit=lambda _: None)


# --- backfill ---------------------------------------------------------------------------------


def _odd_ones(item: dict[str, object]) -> dict[str, object] | None:
    number = int(str(item["Number"]))
    if number in (3, 150):
        raise LookupError
    return None if number % 10 == 0 else item


async def test_a_backfill_in_slices_comes_to_what_one_run_comes_to(
    clients: AwsClients,
    endpoint: str,
    table: str,
    state: Path,
    real_server: ServerProcess,
    real_client: redis.Redis,
) -> None:
    await make_table(clients, table)
    await load(clients, table, numbered(ITEMS))
    mirror = mirror_of(real_server.url, transform=_odd_ones)

    def run(**given: Any) -> Slice:
        options = BackfillOptions(
            table=table,
            endpoint_url=endpoint,
            segments=4,
            page_items=5,
            skip_mapping_check=True,
            as_json=True,
            **given,
        )
        return partial(backfill, clients, options, mirror)

    whole, (once,) = await in_slices(run(), 10**6)
    copied = {name: real_client.get(name) for name in real_client.scan_iter()}
    real_client.flushall()
    good, said = await in_slices(run(state=str(state)), 5)

    assert len(said) >= 5
    assert not whole
    assert not good  # a reject of an early slice counts at the end
    one, many = json.loads(once[-1]), json.loads(said[-1][-1])
    for each in (one, many):
        del each["seconds"], each["units"]
        each["named"].sort()
    assert many == one
    assert (one["read"], one["rejected"], len(one["named"])) == (ITEMS, 2, 2)
    assert {json.loads(lines[-1])["how"] for lines in said[:-1]} == {"cut short"}
    assert {name: real_client.get(name) for name in real_client.scan_iter()} == copied
    assert not names_below(state.parent, state.name)


async def test_segments_can_be_done_apart_and_make_the_whole(
    clients: AwsClients,
    endpoint: str,
    table: str,
    fake_server: ServerProcess,
) -> None:
    await make_table(clients, table)
    await load(clients, table, numbered(ITEMS))
    mirror = mirror_of(fake_server.url)
    read = 0
    with redis.Redis(port=fake_server.port) as client:
        client.flushall()
        for only in (range(2), range(2, 3), range(3, 6)):
            output = RecordedOutput()
            options = BackfillOptions(
                table=table,
                endpoint_url=endpoint,
                segments=6,
                only_segments=only,
                skip_mapping_check=True,
            )
            assert await backfill(clients, options, mirror, output)
            assert f"6 segments, {only[0]} to {only[-1]} here" in output.lines[0]
            read += int(output.lines[-1].split("done: ")[1].split(" read")[0])
        assert client.dbsize() == ITEMS
    assert read == ITEMS

    for segments, why in ((3, "there are 3 parts, 0 to 2"), (None, "give both")):
        options = BackfillOptions(
            table=table,
            endpoint_url=endpoint,
            segments=segments,
            only_segments=range(3, 6),
            skip_mapping_check=True,
        )
        with pytest.raises(CommandRefused, match=why):
            await backfill(clients, options, mirror, RecordedOutput())


# --- audit ------------------------------------------------------------------------------------


@pytest.mark.parametrize("sample", [None, 120])
async def test_an_audit_in_slices_comes_to_what_one_run_comes_to(
    clients: AwsClients,
    endpoint: str,
    table: str,
    state: Path,
    real_server: ServerProcess,
    real_client: redis.Redis,
    sample: int | None,
) -> None:
    await make_table(clients, table)
    await load(clients, table, numbered(ITEMS))
    planted = plant_differences(real_client, table)
    mirror = mirror_of(real_server.url)

    def run(**given: Any) -> Slice:
        options = AuditOptions(
            table=table,
            endpoint_url=endpoint,
            recheck_after_s=0.001,
            orphans=True,
            sample=sample,
            as_json=True,
            chance=Random(3),
            **given,
        )
        return partial(audit, clients, options, mirror)

    whole, (once,) = await in_slices(run(), 10**6)
    good, said = await in_slices(run(state=str(state)), 9 if sample is None else 5)

    assert len(said) >= 5
    assert not whole
    assert not good
    findings, one = result(once)
    _, many = result(said[-1])
    assert many == one
    # Each finding is said by the slice that makes it; the last says the first of them again.
    assert {k: v for lines in said for k, v in result(lines)[0].items()} == findings
    assert len(result(said[-1])[0]) >= min(20, len(findings) - 3)
    if sample is None:
        assert findings == planted
        assert one["foreign"] == 1
    else:
        assert findings.items() <= planted.items()
        assert 60 < one["keys"] < 200
    assert not names_below(state.parent, state.name)


async def test_a_repair_in_slices_mends_what_one_run_mends(
    clients: AwsClients,
    endpoint: str,
    table: str,
    state: Path,
    real_server: ServerProcess,
    real_client: redis.Redis,
) -> None:
    await make_table(clients, table)
    await load(clients, table, numbered(ITEMS))
    planted = plant_differences(real_client, table)
    mirror = mirror_of(real_server.url)
    options = AuditOptions(
        table=table,
        endpoint_url=endpoint,
        recheck_after_s=0.001,
        repair=True,
        as_json=True,
        state=str(state),
    )

    good, said = await in_slices(partial(audit, clients, options, mirror), 9)

    assert len(said) >= 5
    assert good
    summary = result(said[-1])[1]
    assert (summary["repaired"], summary["keys"]) == (len(planted), ITEMS)
    again = AuditOptions(table=table, endpoint_url=endpoint, recheck_after_s=0.001)
    assert await audit(clients, again, mirror, RecordedOutput())


async def test_an_audit_that_is_cut_short_goes_on_and_counts_nothing_twice(
    clients: AwsClients,
    endpoint: str,
    table: str,
    state: Path,
    real_server: ServerProcess,
    real_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ctrl-C comes while what differs waits for its second look: it is looked at anew."""
    await make_table(clients, table)
    await load(clients, table, numbered(ITEMS))
    planted = plant_differences(real_client, table)
    mirror = mirror_of(real_server.url)
    options = AuditOptions(
        table=table, endpoint_url=endpoint, recheck_after_s=0.001, state=str(state), as_json=True
    )
    output = RecordedOutput()
    compared = 0
    compare = audit_module.Auditor._compare

    async def counted(*arguments: Any) -> None:
        nonlocal compared
        await compare(*arguments)
        compared += 1

    monkeypatch.setattr(audit_module.Auditor, "_compare", counted)
    with monkeypatch.context() as patched:
        patched.setattr(audit_module, "wait_s", lambda _: anyio.sleep_forever)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(audit, clients, options, mirror, output)
            await until(lambda: compared >= 20)
            tasks.cancel_scope.cancel()
    cut = output.documents[-1]
    assert (cut["cut_short"], cut["missing"]) == (True, 0)
    assert cut["not_looked_at_again"] > 0
    kept = documents_in(state)["progress"]["items"]["tally"]
    assert 0 < kept["keys"] < 100 <= cut["keys"] + cut["not_looked_at_again"]

    output = RecordedOutput()
    assert not await audit(clients, options, mirror, output)
    findings, summary = result(output.lines)
    assert findings == planted
    assert (summary["keys"], summary["names"]) == (ITEMS, ITEMS)


async def test_after_ctrl_c_the_command_line_goes_on_with_the_same_state(
    clients: AwsClients,
    endpoint: str,
    table: str,
    state: Path,
    real_server: ServerProcess,
    real_client: redis.Redis,
) -> None:
    await make_table(clients, table)
    await load(clients, table, numbered(ITEMS))
    planted = plant_differences(real_client, table)
    program = [sys.executable, "-m", "asyncsync", "audit", "--table", table, "--no-orphans"]
    program += ["--endpoint-url", endpoint, "--redis-url", real_server.url, "--state", str(state)]

    process = await anyio.open_process([*program, "--recheck-after", "3600"])
    async with process:
        assert process.stdout is not None
        assert process.stderr is not None
        await until(lambda: names_below(state.parent, state.name))
        process.send_signal(signal.SIGINT)
        said = "".join([each.decode() async for each in process.stdout])
        errors = "".join([each.decode() async for each in process.stderr])
    assert process.returncode == 130
    resume = f"asyncsync: interrupted: resume with the same arguments and --state {state}"
    assert errors.splitlines()[-1] == resume
    assert f"resume with the same arguments and --state {state}" in said
    seed = documents_in(state)["parts"]["seed"]
    ended = await anyio.run_process([*program, "--recheck-after", "0.01", "--json"], check=False)

    findings, summary = result(ended.stdout.decode().splitlines())
    assert findings == {key: how for key, how in planted.items() if how != "orphan"}
    assert (summary["keys"], ended.returncode) == (ITEMS, 1)
    assert isinstance(seed, int)
    assert not names_below(state.parent, state.name)


async def test_on_a_cluster_every_nodes_names_are_scanned_in_slices(
    clients: AwsClients, endpoint: str, table: str, state: Path, cluster: Cluster
) -> None:
    await make_table(clients, table)
    await load(clients, table, numbered(5))
    planted = {f"{table}:{number}": "orphan" for number in range(100, 400)}
    with redis.RedisCluster.from_url(cluster.url) as opened:
        for name in planted:
            opened.set(name, "{}")
    mirror = mirror_of(cluster.url, redis_cluster=True)
    options = AuditOptions(
        table=table, endpoint_url=endpoint, recheck_after_s=0.001, state=str(state), as_json=True
    )

    _, said = await in_slices(partial(audit, clients, options, mirror), 3)

    assert len(said) >= 5
    summary = result(said[-1])[1]
    assert (summary["names"], summary["orphans"], summary["missing"]) == (300, 300, 5)
    found: dict[str, str] = {}
    for lines in said:
        found |= result(lines)[0]
    assert {key for key, how in found.items() if how == "orphan"} == set(planted)


async def test_names_are_scanned_anew_where_the_server_is_another(
    clients: AwsClients,
    endpoint: str,
    table: str,
    state: Path,
    real_server: ServerProcess,
    real_client: redis.Redis,
) -> None:
    """Its cursors are not those of before: names would be left out."""
    await make_table(clients, table)
    await load(clients, table, numbered(ITEMS))
    planted = plant_differences(real_client, table)
    mirror = mirror_of(real_server.url)
    options = AuditOptions(
        table=table, endpoint_url=endpoint, recheck_after_s=0.001, state=str(state), as_json=True
    )
    run = partial(audit, clients, options, mirror)

    while True:
        with pytest.raises(DeadlineReached):
            await run(RecordedOutput(), Ticks(6))
        documents = documents_in(state)
        if documents["progress"]["names"]["cursors"]["tally"]["keys"] > 60:
            break
    (server,) = documents["progress"]["names"]["servers"]
    assert server.split()[1] == real_client.info("server")["run_id"]
    documents["progress"]["names"] = {
        "servers": ["None 0123456789abcdef"],
        "cursors": {"next": 1, "open": [], "tally": {}},  # all done, and nothing found
    }
    await anyio.Path(state).write_bytes(orjson.dumps(documents))
    output = RecordedOutput()
    assert not await run(output, Ticks(10**6))

    _, summary = result(output.lines)
    assert (summary["keys"], summary["names"]) == (ITEMS, ITEMS)
    assert summary["orphans"] == sum(kind == "orphan" for kind in planted.values())


@pytest.mark.parametrize("says", ["nothing", "another", "an error"])
async def test_names_of_a_server_that_does_not_say_who_it_is_are_scanned_in_one_slice_or_given_up(
    clients: AwsClients,
    endpoint: str,
    table: str,
    state: Path,
    real_server: ServerProcess,
    real_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    says: str,
) -> None:
    await make_table(clients, table)
    await load(clients, table, numbered(ITEMS))
    planted = plant_differences(real_client, table)
    starts = iter(range(10**6))

    async def servers(_: CopyReader, nodes: Any) -> list[str]:
        return [f"None {next(starts)}" if says == "another" else "" for _ in nodes]

    if says == "an error":
        monkeypatch.setattr(copy_module, "Call", _asking_for_what_is_not_there)
    else:
        monkeypatch.setattr(CopyReader, "servers", servers)
    mirror = mirror_of(real_server.url)
    options = AuditOptions(
        table=table, endpoint_url=endpoint, recheck_after_s=0.001, state=str(state), as_json=True
    )
    run = partial(audit, clients, options, mirror)

    with pytest.raises(CommandFailed, match="never came to its end"):
        await in_slices(run, 9)
    seen = documents_in(state)["progress"]["items"]["tally"]["keys"]
    assert seen == ITEMS  # what could be gone on with was
    await FileState(state).remove()
    _, said = await in_slices(run, 60)
    assert len(said) > 1
    summary = result(said[-1])[1]
    assert (summary["keys"], summary["names"]) == (ITEMS, ITEMS)
    assert summary["missing"] + summary["stale"] + summary["orphans"] == len(planted)


def _asking_for_what_is_not_there(arguments: Any, *rest: Any, **more: Any) -> Call:
    return Call((b"INFORM",) if arguments[0] == b"INFO" else arguments, *rest, **more)


async def test_a_sample_of_other_parts_is_not_gone_on_with(
    clients: AwsClients,
    endpoint: str,
    table: str,
    state: Path,
    fake_server: ServerProcess,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another Python may draw otherwise from the same seed."""
    await make_table(clients, table)
    await load(clients, table, numbered(ITEMS))
    mirror = mirror_of(fake_server.url)
    options = AuditOptions(
        table=table, endpoint_url=endpoint, recheck_after_s=0.001, state=str(state), sample=100
    )
    run = partial(audit, clients, options, mirror)
    with pytest.raises(DeadlineReached):
        await run(RecordedOutput(), Ticks(1))
    draw = audit_module.draw_parts
    monkeypatch.setattr(
        audit_module, "draw_parts", lambda items, sample, _: draw(items, sample, Random(1))
    )

    with pytest.raises(CommandRefused, match="other parts are drawn"):
        await run(RecordedOutput(), Ticks(10**6))
    await asyncio.sleep(0)


async def test_what_was_found_before_is_said_again_to_people(
    clients: AwsClients,
    endpoint: str,
    table: str,
    state: Path,
    real_server: ServerProcess,
    real_client: redis.Redis,
) -> None:
    await make_table(clients, table)
    await load(clients, table, numbered(ITEMS))
    plant_differences(real_client, table)
    mirror = mirror_of(real_server.url)
    options = AuditOptions(
        table=table, endpoint_url=endpoint, recheck_after_s=0.001, state=str(state)
    )

    _, said = await in_slices(partial(audit, clients, options, mirror), 9)

    assert f"  resume with the same arguments and --state {state}" == said[0][-1]
    assert said[1][0].startswith("resumed: ")
    first = [line for line in said[0] if line.startswith(("missing ", "stale "))]
    assert first
    assert said[1][1 : 1 + len(first)] == first
    assert not any("another" in line for line in said[1])  # what items hold is never kept


# --- redrive and retire -----------------------------------------------------------------------


@pytest.mark.parametrize("dry_run", [False, True])
async def test_a_redrive_in_slices_comes_to_what_one_run_comes_to(
    clients: AwsClients,
    endpoint: str,
    table: str,
    tmp_path: Path,
    state: Path,
    fake_server: ServerProcess,
    dry_run: bool,
) -> None:
    stream_arn = stream_arn_of(await make_table(clients, table))
    await load(clients, table, numbered(90))
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    for number in range(1, 91):
        made = record(number, FIRST + number, stream_arn=stream_arn)
        body = b"{" if number in (2, 88) else discarded([made], table=table)
        (folders[number % 2] / f"{number:03}").write_bytes(body)
    mirror = mirror_of(fake_server.url)
    options = RedriveOptions(
        table=table,
        places=[str(each) for each in folders],
        endpoint_url=endpoint,
        dry_run=dry_run,
        state=str(state),
        as_json=True,
    )
    with redis.Redis(port=fake_server.port) as client:
        client.flushall()

    good, said = await in_slices(partial(redrive, clients, options, mirror), 1)

    assert len(said) == 90 // OBJECTS_MAX + 1
    assert not good  # one was left in the first slice
    *left, summary = (json.loads(line) for line in said[-1])
    assert {each["left"][-3:] for each in left} == {"002", "088"}
    assert (summary["objects"], summary["redriven"], summary["left"]) == (90, 88, 2)
    assert summary["keys_repaired"] == 88
    assert len(names_below(tmp_path, "redriven/*")) == (0 if dry_run else 88)
    assert not names_below(state.parent, state.name)


async def test_old_names_are_removed_in_slices(
    clients: AwsClients,
    endpoint: str,
    table: str,
    state: Path,
    real_server: ServerProcess,
    real_client: redis.Redis,
) -> None:
    await make_table(clients, table)
    for number in range(1, ITEMS + 1):
        real_client.set(f"old:{number}", "{}")
        if number % 40:
            real_client.set(f"new:{number}", "{}")
    mirror = mirror_of(real_server.url, key="new:{Number}")
    options = RetireOptions(
        table=table,
        template="old:{Number}",
        endpoint_url=endpoint,
        state=str(state),
        as_json=True,
    )

    good, said = await in_slices(partial(retire, clients, options, mirror), 3)

    assert len(said) >= 5
    assert not good
    assert json.loads(said[-1][-1]) == {
        "format": 1,
        "removed": 234,
        "kept": 6,
        "present": 0,
        "foreign": 0,
    }
    assert len(real_client.keys("old:*")) == 6
    assert not names_below(state.parent, state.name)


# --- what is kept -----------------------------------------------------------------------------


async def test_what_a_run_that_has_ended_left_is_passed_over(state: Path) -> None:
    """It saved once more after another of the same arguments had removed all."""
    first = await resume_or_begin(FileState(state), {}, {"command": "a"}, lambda: "one")
    await first.save("segment-000000", {"ended": True})
    await first.remove()
    await first.save("segment-000001", {"ended": True})

    kept = FileState(state)
    second = await resume_or_begin(kept, await kept.load(), {"command": "a"}, lambda: "two")

    assert not second.is_resumed
    assert second.document("segment-000001") == {}
    await second.save("segment-000001", {"ended": False})
    third = await resume_or_begin(FileState(state), await kept.load(), {"command": "a"})
    assert third.document("segment-000001") == {"ended": False, "run_id": "two"}


async def test_two_runs_that_began_at_once_leave_nothing_out(state: Path) -> None:
    one = await resume_or_begin(FileState(state), {}, {"command": "a"}, lambda: "one")
    two = await resume_or_begin(FileState(state), {}, {"command": "a"}, lambda: "two")
    await two.save("segment-000001", {"ended": True})
    await one.save("segment-000000", {"ended": True})

    documents = await FileState(state).load()
    assert documents["run"] == {"format": FORMAT, "command": "a", "run_id": "one"}
    kept = await resume_or_begin(FileState(state), documents, {"command": "a"})
    assert kept.document("segment-000000")["ended"]
    assert kept.document("segment-000001") == {}  # done again: safe, and twice the work


async def test_two_audits_of_one_state_at_once_come_to_the_same(
    clients: AwsClients,
    endpoint: str,
    table: str,
    state: Path,
    real_server: ServerProcess,
    real_client: redis.Redis,
) -> None:
    await make_table(clients, table)
    await load(clients, table, numbered(ITEMS))
    planted = plant_differences(real_client, table)
    mirrors = [mirror_of(real_server.url) for _ in range(2)]
    options = AuditOptions(
        table=table, endpoint_url=endpoint, recheck_after_s=0.001, state=str(state), as_json=True
    )
    ended: list[list[str]] = []

    async def run(mirror: Mirror) -> None:
        _, said = await in_slices(partial(audit, clients, options, mirror), 9)
        ended.append(said[-1])

    async with anyio.create_task_group() as tasks:
        for mirror in mirrors:
            tasks.start_soon(run, mirror)

    for said in ended:
        summary = result(said)[1]
        assert (summary["keys"], summary["names"]) == (ITEMS, ITEMS)
        assert summary["missing"] + summary["stale"] + summary["orphans"] == len(planted)
