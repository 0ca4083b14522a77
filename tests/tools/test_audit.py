"""Audit finds and repairs every planted difference and no other, while the table changes."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import AsyncIterator, Callable
from random import Random
from typing import Any

import anyio
import pytest
import redis

from asyncsync import Config, ConfigError, Mirror
from asyncsync.aws.clients import AwsClients
from asyncsync.aws.items import scan_page
from asyncsync.copy.reader import PAUSES_S, CopyReader
from asyncsync.errors import StoreRefused, StoreUnavailable
from asyncsync.lab.compare import from_json, plain_item
from asyncsync.lab.demo.changes import make_changes
from asyncsync.lab.servers import ServerProcess, free_port
from asyncsync.tools import table_scan
from asyncsync.tools.audit import command as audit_module
from asyncsync.tools.audit.command import draw_parts
from asyncsync.tools.audit.report import AuditReport
from tests.support.cluster import Cluster
from tests.support.events import event
from tests.support.mirrored_table import MirroredTable, filled, mirrored_tables
from tests.support.planted import TYPES, look, plant_foreign
from tests.support.tables import Item, load, numbered, until


@pytest.fixture
def client(fake_client: redis.Redis) -> redis.Redis:
    return fake_client


@pytest.fixture
async def make(
    clients: AwsClients, endpoint: str, fake_server: ServerProcess, client: redis.Redis
) -> AsyncIterator[Callable[..., Any]]:
    async with mirrored_tables(clients, endpoint, fake_server.url) as make_one:
        yield make_one


def plant(client: redis.Redis, prefix: str = "Players:") -> dict[str, str]:
    """Differences of every kind in a copy of items 1 to 60."""
    client.delete(f"{prefix}3", f"{prefix}44")
    client.set(f"{prefix}7", b'{"Number":7,"Name":"another"}')
    client.set(f"{prefix}8", b"not JSON")
    client.set(f"{prefix}61", b'{"Number":61,"Name":"item 61"}')
    client.set(f"{prefix}-5", b'{"Number":-5}')
    return {
        f"{prefix}3": "missing",
        f"{prefix}44": "missing",
        f"{prefix}7": "stale",
        f"{prefix}8": "stale",
        f"{prefix}61": "orphan",
        f"{prefix}-5": "orphan",
    }


# --- what is found ----------------------------------------------------------------------------


async def test_a_copy_that_is_exact_has_no_finding(make: Callable[..., Any]) -> None:
    world = await filled(make)

    assert await world.audit()

    assert world.said == [
        "60 of 60 keys are the same in table and copy",
        "  0 missing, 0 stale, 0 orphans",
        "  60 names of the copy; 0 foreign, left alone",
        "  0 differed at first; 0 matched when checked again",
    ]


async def test_progress_is_told_with_rate_and_what_is_left(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await filled(make)

    assert await world.audit()

    form = r" +[0-9.]+ s  ([0-9 ]+ %  )?[0-9]+ keys?(, [0-9]+ names?)?, [0-9,]+/s"
    form += r"(, about [0-9]+ s left)?, 0 findings"
    assert all(re.fullmatch(form, line) for line in world.progress)
    assert world.progress[-1].endswith("/s, 0 findings")
    world.progress.clear()
    assert await world.found() == {}  # with --json
    assert all(re.fullmatch(form, line) for line in world.progress)
    assert world.progress


async def test_what_was_planted_is_found_and_nothing_else(
    make: Callable[..., Any], client: redis.Redis
) -> None:
    world = await filled(make)
    planted = plant(client)
    client.set("Players:1", b'{"Name": "item 1", "Number": 1.0}')  # in other words

    assert await world.found() == planted

    assert world.summary == {
        "format": 1,
        "keys": 60,
        "compared": 60,
        "not_compared": 0,
        "same": 56,
        "missing": 2,
        "stale": 2,
        "mistyped": 0,
        "orphans": 2,
        "names": 60,
        "foreign": 0,
        "differed_at_first": 6,
        "dropped": 0,
        "not_looked_at_again": 0,
        "changed_at_every_look": 0,
        "repaired": 0,
        "left": 0,
        "whole": True,
        "cut_short": False,
    }
    assert not await world.audit()
    assert sorted(world.said[:6]) == sorted(f"{how:<8} {key}" for key, how in planted.items())
    assert world.said[6] == "56 of 60 keys are the same in table and copy"


async def test_contents_are_shown_only_where_that_is_asked_for(
    make: Callable[..., Any], client: redis.Redis
) -> None:
    world = await filled(make, 3)
    client.set("Players:2", "secret")
    client.delete("Players:3")

    for as_json in (False, True):
        await world.audit(as_json=as_json)
        assert "item 2" not in "\n".join(world.said)
        assert "secret" not in "\n".join(world.said)
    await world.audit(show_values=True)
    text = "\n".join(world.said)
    assert '  table  {"Name":"item 2","Number":2}\n  copy   secret' in text.replace(
        '{"Number":2,"Name":"item 2"}', '{"Name":"item 2","Number":2}'
    )
    assert "\n  copy   none" in text
    await world.audit(show_values=True, as_json=True)
    assert {json.loads(line).get("copy") for line in world.said[:2]} == {"secret", None}


async def test_what_is_planted_while_it_runs_is_found(
    make: Callable[..., Any], client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await filled(make)
    planted: dict[str, str] = {}

    async def page(*arguments: Any) -> Any:
        answer = await scan_page(*arguments)
        planted.update(planted or plant(client))
        return answer

    monkeypatch.setattr(table_scan, "scan_page", page)

    assert await world.found() == planted
    assert len(planted) == 6


class Busy:
    """A writer and a mirror some records behind it, as long as an audit runs."""

    def __init__(self, world: MirroredTable, writes: int, items: int) -> None:
        self.world = world
        # An older DynamoDB Local takes no empty text.
        self.changes = [
            each
            for each in make_changes(items, writes, seed=11)
            if not each.item or each.item["Odd"] != {"S": ""}
        ]
        self.done = 0

    async def write(self) -> None:
        for change in self.changes:
            item: Any = change.item or {"Number": {"N": str(change.number)}}
            await self.world.change(item, removed=change.item is None)
            self.done += 1

    async def mirror(self) -> None:
        while True:
            await self.world.deliver(keep=3 if self.done < len(self.changes) else 0)
            await anyio.sleep(0.005)

    async def caught_up(self) -> None:
        """Wait until the mirror has handled every record that is in the stream now."""
        await self.world.release()
        sent = self.world.sent
        await until(lambda: self.world.handled >= sent or self.done == len(self.changes))
        if self.done == len(self.changes):
            await self.world.deliver()


async def test_a_busy_table_that_is_well_has_no_finding(
    make: Callable[..., Any], client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    world: MirroredTable = await make()
    items = 60
    busy = Busy(world, 720, items)
    monkeypatch.setattr(audit_module, "wait_s", lambda _: busy.caught_up)
    began: list[int] = []

    async def slow(*arguments: Any) -> Any:
        """Read a page, and return it only after 70 more writes; there are eight pages."""
        began.append(busy.done)
        answer = await scan_page(*arguments)
        await until(lambda: busy.done >= min(began[0] + 70 * len(began), len(busy.changes)), 120)
        return answer

    monkeypatch.setattr(table_scan, "scan_page", slow)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(busy.write)
        await until(lambda: busy.done >= items)
        tasks.start_soon(busy.mirror)
        await until(lambda: world.handled >= items // 2)
        # A change of an item nobody else changes, whose record is on its way at the first look.
        world.hold = {"Number": {"N": "1000"}}
        await world.change({"Number": {"N": "1000"}})

        assert await world.found() == {}
        landed = busy.done - began[0]
        tasks.cancel_scope.cancel()

    assert landed >= 500
    assert world.summary["dropped"] >= 1
    assert world.summary["differed_at_first"] >= world.summary["dropped"]


async def test_a_change_whose_record_never_comes_is_found_on_a_busy_table(
    make: Callable[..., Any], client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    world: MirroredTable = await make()
    busy = Busy(world, 300, 40)
    monkeypatch.setattr(audit_module, "wait_s", lambda _: busy.caught_up)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(busy.write)
        tasks.start_soon(busy.mirror)
        await until(lambda: busy.done >= 60)
        lost: Any = {"Number": {"N": "1000"}}
        await world.clients.items.put_item(TableName=world.table, Item=lost)

        assert await world.found() == {"Players:1000": "missing"}
        tasks.cancel_scope.cancel()


async def test_a_value_that_came_back_under_a_newer_fence_is_no_finding(
    make: Callable[..., Any], client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The value is the first check's, but the stream has changed the key in between."""
    world = await filled(make, 1)
    one, other, third = (numbered(1, Version={"N": str(n)})[0] for n in (1, 2, 3))
    await world.change(one)
    await world.deliver()
    await world.change(other)  # on its way at the first look
    first = iter([True])

    async def wait() -> None:
        if next(first, False):
            await world.change(one)
            await world.deliver()
            await world.change(third)  # on its way at the second
        else:
            await world.deliver()

    monkeypatch.setattr(audit_module, "wait_s", lambda _: wait)

    assert await world.found() == {}
    assert (world.summary["differed_at_first"], world.summary["dropped"]) == (1, 1)


# --- repair -----------------------------------------------------------------------------------


async def test_a_repair_mends_every_finding(make: Callable[..., Any], client: redis.Redis) -> None:
    world = await filled(make)
    planted = plant(client)

    assert await world.found(repair=True) == planted

    assert (world.summary["repaired"], world.summary["left"]) == (6, 0)
    assert client.get("Players:-5") is None
    assert client.get("Players:61") is None
    assert await world.found() == {}
    for number in range(1, 61):
        value = client.get(f"Players:{number}")
        assert isinstance(value, bytes)
        assert from_json(value) == plain_item(numbered(number)[-1])
    await world.audit(repair=True)
    assert world.said[-1] == "  0 repaired, 0 left"


async def test_foreign_keys_of_every_type_survive_a_repair(
    real_server: ServerProcess, real_client: redis.Redis, make: Callable[..., Any]
) -> None:
    world = await filled(make, 20, redis_url=real_server.url)
    before = plant_foreign(real_client, first_free=7_000)
    assert len(before) > 200
    assert {kind for kind, _ in before.values()} == TYPES
    real_client.set("Players:61", "an orphan")

    assert await world.found(repair=True) == {"Players:61": "orphan"}

    assert look(real_client, before) == before
    assert (world.summary["foreign"], world.summary["names"]) == (len(before), 21)


async def test_an_item_that_cannot_be_encoded_is_missing_with_its_reason_and_left(
    make: Callable[..., Any], client: redis.Redis
) -> None:
    world: MirroredTable = await make(transform=lambda item: {"Name": item["Name"]})
    await world.change({"Number": {"N": "1"}})
    await world.change({"Number": {"N": "2"}, "Name": {"S": "ada"}})
    await world.mirror.handle(event([made for _, made in world.queue]), None)
    client.set("Players:2", "damaged")

    assert not await world.audit(repair=True)

    reason = "the transform raised KeyError"
    assert sorted(world.said[:2]) == [
        f"missing  Players:1: {reason}: not repaired, {reason}",
        "stale    Players:2: repaired",
    ]
    assert world.said[-1] == "  1 repaired, 1 left"


async def test_values_of_another_format_are_stale_and_repaired(
    make: Callable[..., Any], client: redis.Redis
) -> None:
    """So audit --repair completes a change of ASYNCSYNC_VALUE."""
    world = await filled(make, 5)
    world.mirror.close()
    world.mirror = Mirror(
        Config(redis_url=world.mirror.config.redis_url, value="dynamodb-json"),
        emit=lambda _: None,
    )

    assert await world.found(repair=True) == {f"Players:{n}": "stale" for n in range(1, 6)}

    assert json.loads(client.get("Players:5") or b"") == {
        "Number": {"N": "5"},
        "Name": {"S": "item 5"},
    }
    assert await world.found() == {}


async def test_without_the_fence_it_audits_and_refuses_to_repair(
    make: Callable[..., Any], client: redis.Redis
) -> None:
    world = await filled(make, fence="off")
    planted = plant(client)

    assert await world.found() == planted
    with pytest.raises(ConfigError, match="ASYNCSYNC_FENCE=on"):
        await world.audit(repair=True)
    assert client.exists("Players:61")


# --- names ------------------------------------------------------------------------------------


def _own_name(keys: Any) -> str:
    return f"own-{keys['Number']['N']}"


def _own_value(item: dict[str, object]) -> dict[str, object] | None:
    if item.get("Hidden"):
        return None
    return {"Number": item["Number"], "Called": item["Name"]}


async def test_a_mirror_with_a_key_and_a_transform_of_its_own_is_compared_as_the_handler_writes(
    make: Callable[..., Any], client: redis.Redis
) -> None:
    world = await filled(make, key_function=_own_name, transform=_own_value)
    await world.change({"Number": {"N": "99"}, "Name": {"S": "hidden"}, "Hidden": {"BOOL": True}})
    await world.deliver()
    client.set("not-ours", b'{"Number":61}')
    assert await world.found(orphans=True) == {}
    assert (world.summary["keys"], world.summary["names"], world.summary["foreign"]) == (61, 60, 1)

    client.delete("own-3")
    client.set("own-7", b'{"Number":7,"Called":"another"}')
    client.set("own-61", b'{"Number":61,"Called":"item 61"}')
    client.set("own-99", b'{"Number":99,"Called":"hidden"}')
    planted = {"own-3": "missing", "own-7": "stale", "own-61": "orphan", "own-99": "stale"}

    found = await world.found()
    assert found == {key: how for key, how in planted.items() if how != "orphan"}
    assert await world.found(orphans=True, repair=True) == planted
    assert await world.found(orphans=True) == {}
    assert client.get("own-7") == b'{"Number":7,"Called":"item 7"}'
    assert client.get("not-ours") == b'{"Number":61}'


async def test_a_template_without_a_prefix_has_no_orphan_scan_unless_asked(
    make: Callable[..., Any], client: redis.Redis
) -> None:
    world = await filled(make, 5, key="{Number}")
    client.set("6", b"{}")

    assert await world.found() == {}
    assert (world.summary["names"], world.summary["foreign"]) == (0, 0)
    assert await world.found(orphans=True) == {"6": "orphan"}
    assert await world.found(orphans=False) == {}


async def test_composite_binary_and_hashed_names_are_told_apart(
    make: Callable[..., Any], client: redis.Redis
) -> None:
    world: MirroredTable = await make(keys={"Who": "S", "At": "B"})
    long = "%" * 2_000  # its name is longer than names may be
    items: list[Item] = [
        {"Who": {"S": who}, "At": {"B": at}, "Version": {"N": "1"}}
        for who in ("ada", "a:b{c}", long)
        for at in (b"\xff", b"\x00\x01")
    ]
    for item in items:
        await world.change(item)
    await world.deliver()
    assert await world.found() == {}
    assert world.summary["names"] == 6

    hashed = [name.decode() for name in client.scan_iter(match="Players:*!*") if b"!f" not in name]
    assert len(hashed) == 2
    # Removed from the table, and the records are lost.
    for item in (items[0], items[4]):
        key: Any = {"Who": item["Who"], "At": item["At"]}
        await world.clients.items.delete_item(TableName=world.table, Key=key)
    client.set(hashed[0][:-1] + "0", b'{"Who":"ada","At":"/w=="}')  # a hash of nobody's

    found = await world.found(repair=True)
    assert set(found.values()) == {"orphan"}
    assert len(found) == 2
    assert "Players:/w==:ada" in found
    assert world.summary["foreign"] == 1
    assert await world.found() == {}


async def test_on_a_cluster_every_nodes_names_are_scanned(
    cluster: Cluster, make: Callable[..., Any]
) -> None:
    world = await filled(make, redis_url=cluster.url, redis_cluster=True)
    planted = {f"Players:{number}": "orphan" for number in range(61, 81)}
    with redis.RedisCluster.from_url(cluster.url) as opened:
        for name in planted:
            opened.set(name, b"{}")
        opened.rpush("Players:list", "not ours")

        assert await world.found(repair=True) == planted
        assert await world.found() == {}
        assert world.summary["foreign"] == 1


# --- samples ----------------------------------------------------------------------------------


async def test_a_sample_says_a_share_and_its_bound(
    make: Callable[..., Any], client: redis.Redis
) -> None:
    world: MirroredTable = await make()
    await load(world.clients, world.table, numbered(200))
    for number in range(1, 201):
        client.set(f"Players:{number}", json.dumps({"Number": number, "Name": f"item {number}"}))
    client.set("Players:999", "an orphan")

    assert await world.audit(sample=50, chance=Random(5))

    assert world.said[0].startswith("100 % of ")
    assert world.said[0].endswith(" % with 95 % confidence")
    assert await world.found(sample=50, chance=Random(5)) == {}
    assert 20 <= world.summary["keys"] <= 100
    assert world.summary["whole"] is False
    assert world.summary["share"] == 1.0
    assert 0.85 < world.summary["share_at_least"] < 1.0
    assert world.summary["names"] == 0
    assert await world.found(sample=50, chance=Random(5), orphans=True) == {
        "Players:999": "orphan"
    }
    # A sample of more than there is is the whole.
    assert await world.audit(sample=201, orphans=False)
    assert world.said[0] == "200 of 200 keys are the same in table and copy"


def test_parts_are_drawn_so_that_every_key_is_as_likely_whatever_the_parts_sizes() -> None:
    chance = Random(2)
    drawn = [0] * 100
    rounds = 3_000
    for _ in range(rounds):
        parts = draw_parts(1_000, 100, chance)
        assert (parts.segments, len(parts.drawn), parts.is_whole) == (100, 10, False)
        for part in parts.drawn:
            drawn[part] += 1

    expected = rounds / 10
    chi_squared = sum((count - expected) ** 2 / expected for count in drawn)
    assert 55 < chi_squared < 150  # 99 degrees of freedom: one in ten thousand is outside


@pytest.mark.parametrize(
    ("items", "sample", "segments", "drawn"),
    [
        (0, 10, 8, 8),
        (10, None, 8, 8),
        (10, 10, 8, 8),
        (9, 5, 1, 1),
        (100, 1, 10, 1),
        (100, 99, 10, 10),
        (10**9, 10**5, 10**6, 100),
    ],
)
def test_parts_are_no_more_than_dynamodb_takes(
    items: int, sample: int | None, segments: int, drawn: int
) -> None:
    parts = draw_parts(items, sample, Random(1))

    assert (parts.segments, len(parts.drawn)) == (segments, drawn)
    assert len(set(parts.drawn)) == drawn


# --- what goes wrong --------------------------------------------------------------------------


async def test_while_redis_is_away_it_asks_again_for_a_minute(client: redis.Redis) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    mirror = Mirror(Config(redis_url=f"redis://127.0.0.1:{free_port()}"))
    copy = CopyReader(mirror, sleep)

    with pytest.raises(StoreUnavailable, match=r"Redis at 127.0.0.1:\d+: ConnectionRefusedError"):
        await copy.types([b"a"])
    assert slept == [*PAUSES_S]
    assert 45 < sum(PAUSES_S) < 70


async def test_cut_short_it_takes_nothing_for_the_same_that_seemed_to_differ(
    make: Callable[..., Any], client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await filled(make, 5)
    client.delete("Players:3", "Players:4")
    reports: list[AuditReport] = []
    monkeypatch.setattr(AuditReport, "progress", lambda report: reports.append(report))
    monkeypatch.setattr(audit_module, "wait_s", lambda _: anyio.sleep_forever)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(world.audit)
        await until(lambda: reports and reports[0].items.keys == 5)
        tasks.cancel_scope.cancel()

    assert world.said == [
        "cut short; until then:",
        "3 of 3 keys are the same in table and copy",
        "  0 missing, 0 stale, 0 orphans",
        "  0 names of the copy; 0 foreign, left alone",
        "  0 differed at first; 0 matched when checked again",
        "  2 seemed to differ and were not checked again",
    ]


async def test_the_command_line_ends_with_1_where_there_is_a_finding(
    make: Callable[..., Any], client: redis.Redis
) -> None:
    world = await filled(make, 5)
    program = [sys.executable, "-m", "asyncsync", "audit", "--table", world.table]
    program += ["--endpoint-url", world.endpoint, "--recheck-after", "0.01"]
    program += ["--redis-url", world.mirror.config.redis_url]

    ended = await anyio.run_process(program, check=False)
    assert ended.stdout.startswith(b"5 of 5 keys are the same")
    assert ended.returncode == 0

    client.delete("Players:2")
    ended = await anyio.run_process([*program, "--json"], check=False)
    finding, summary = (json.loads(line) for line in ended.stdout.splitlines())
    assert (finding["key"], summary["missing"], ended.returncode) == ("Players:2", 1, 1)


async def test_a_user_needs_four_commands_more_to_audit_than_to_mirror(
    real_server: ServerProcess, real_client: redis.Redis, make: Callable[..., Any]
) -> None:
    world = await filled(make, 5, redis_url=real_server.url)
    world.mirror.close()
    real_client.set("Players:6", "an orphan")
    allowed = ["+scan", "+type", "+get", "+mget"]
    address = real_server.url.removeprefix("redis://")
    for without in ("", "+scan", "+type", "+mget"):
        given = [each for each in allowed if each != without]
        real_client.acl_setuser(
            "auditor", enabled=True, passwords=["+secret"], keys=["*"], commands=given, reset=True
        )
        world.mirror = Mirror(
            Config(redis_url=f"redis://auditor:secret@{address}"), emit=lambda _: None
        )
        if not without:
            assert await world.found() == {"Players:6": "orphan"}
            continue
        with pytest.raises(StoreRefused, match=f"the command {without[1:].upper()}: NOPERM"):
            await world.audit()
    real_client.acl_deluser("auditor")
