"""Repair: read the fence, then the item; write only where nothing changed meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any

import orjson
import pytest
import redis

from asyncsync import Config, Mirror
from asyncsync.copy.entries import KEYS_MAX, entries_of, version_in
from asyncsync.copy.fill import SCRIPT as FILL
from asyncsync.copy.fill import fill
from asyncsync.copy.repair import (
    ATTEMPTS_MAX,
    SCRIPT,
    SNAPSHOT_AGE_S_MAX,
    Repaired,
    Repairer,
    Target,
)
from asyncsync.errors import ConfigError
from asyncsync.fence import NO_VERSION, NONCE_DIGITS
from asyncsync.lab.servers import ServerProcess, free_port
from asyncsync.model import Key
from tests.support.aws.on_failure import at_version
from tests.support.cluster import Cluster
from tests.support.events import FIRST, TABLE, event, item, record


def target(number: int, at: bytes = b"") -> Target:
    return Target((("Number", "N", str(number)),), at)


Step = Callable[[], Awaitable[None]]


class Bench:
    """A dict as the table, its mirror and a repairer; `reading` runs during each read."""

    def __init__(self, url: str, transform: Any = None, **options: Any) -> None:
        self.table: dict[str, Any] = {}
        self.reads: list[int] = []  # how many keys each read was asked for
        self.reading: Iterator[Step] = iter(())
        self.late_s = self.asleep_s = 0.0  # the monotonic clock stops while the machine sleeps
        self.mirror = Mirror(
            Config(redis_url=url, **options),
            transform=transform,
            clock=lambda: time.monotonic() + self.late_s,
            wall_clock=lambda: time.time() + self.late_s + self.asleep_s,
            emit=lambda _: None,
        )
        self.repairer = Repairer(self.mirror, TABLE, self.read)

    async def read(self, keys: Sequence[Key]) -> list[bytes | None]:
        """Read the items, then run the next step before the answer arrives."""
        self.reads.append(len(keys))
        items = [self.table.get(number) for ((_, _, number),) in keys]
        images = [None if each is None else orjson.dumps(each) for each in items]
        step = next(self.reading, None)
        if step is not None:
            await step()
        return images

    async def handle(self, *records: Any) -> None:
        await self.mirror.handle(event(records), None)

    async def change(self, number: int, sequence_number: int, image: Any) -> None:
        """Change the table and deliver the record."""
        if image is None:
            self.table.pop(str(number), None)
        else:
            self.table[str(number)] = image
        await self.handle(record(number, sequence_number, image=image, removed=image is None))

    async def repair(self, *targets: Target) -> list[Repaired]:
        return await self.repairer.repair(targets)

    async def kinds(self, *targets: Target) -> list[str]:
        return [each.kind for each in await self.repair(*targets)]

    async def close(self) -> None:
        self.repairer.close()
        self.mirror.close()
        await asyncio.sleep(0)  # lets the sockets close


@pytest.fixture
async def make(
    any_server: ServerProcess, any_client: redis.Redis
) -> AsyncIterator[Callable[..., Bench]]:
    benches: list[Bench] = []

    def bench(**options: Any) -> Bench:
        benches.append(Bench(any_server.url, **options))
        return benches[-1]

    yield bench
    for each in benches:
        await each.close()


@pytest.fixture
def bench(make: Callable[..., Bench]) -> Bench:
    return make()


def bytes_of(reply: object) -> bytes | None:
    assert reply is None or isinstance(reply, bytes)
    return reply


def stored(client: redis.Redis, number: int) -> tuple[bytes | None, bytes, bytes]:
    """Return a key's value, and the version and rank of its fence."""
    value, fence = (
        bytes_of(each) for each in client.mget(f"Players:{number}", f"{{Players:{number}}}!f")
    )
    parts = version_in(fence)
    assert parts is not None
    return value, *parts


async def test_a_repair_writes_the_item_and_keeps_the_version_at_rank_2(
    bench: Bench, any_client: redis.Redis
) -> None:
    await bench.change(1, FIRST, item(1))
    await bench.change(2, FIRST + 1, item(2))
    any_client.set("Players:1", "damaged")
    any_client.delete("Players:2")
    any_client.expire("{Players:1}!f", 100)

    assert await bench.repair(target(1), target(2)) == [
        Repaired(target(1), "repaired", b"Players:1"),
        Repaired(target(2), "repaired", b"Players:2"),
    ]

    good = b'{"Number":1,"Name":"player 1"}'
    assert stored(any_client, 1) == (good, at_version(FIRST), b"2")
    assert stored(any_client, 2)[1:] == (at_version(FIRST + 1), b"2")
    fence = any_client.get("{Players:1}!f")
    assert isinstance(fence, bytes)
    assert len(fence) == len(at_version(FIRST)) + 1 + NONCE_DIGITS
    assert fence.isdigit()
    assert fence[-NONCE_DIGITS:] != any_client.get("{Players:2}!f")[-NONCE_DIGITS:]  # type: ignore[index]
    assert 89_990 <= any_client.ttl("{Players:1}!f") <= 90_000


async def test_a_deleted_item_is_removed_and_leaves_a_tombstone_without_a_version(
    bench: Bench, any_client: redis.Redis
) -> None:
    any_client.set("Players:1", "orphan")

    assert await bench.kinds(target(1)) == ["repaired"]

    assert stored(any_client, 1) == (None, NO_VERSION, b"2")
    # The tombstone stops a fill whose item was read before the deletion.
    store = bench.mirror.new_store(FILL)
    (old,) = entries_of([(target(1).key, orjson.dumps(item(1)))], TABLE, bench.mirror.rules, 0)
    assert old.entry is not None
    (outcome,) = await fill(store, [old.entry], bench.mirror.config, float("inf"))
    assert outcome.kind == "fenced"
    assert any_client.get("Players:1") is None
    store.close()


async def test_a_record_delivered_again_never_undoes_a_repair_and_a_newer_one_wins(
    bench: Bench, any_client: redis.Redis
) -> None:
    await bench.change(1, FIRST, item(1, Version={"N": "1"}))
    bench.table["1"] = item(1, Version={"N": "2"})  # its record is still under way
    assert await bench.kinds(target(1)) == ["repaired"]

    await bench.handle(record(1, FIRST, image=item(1, Version={"N": "1"})))
    assert b'"Version":2' in (any_client.get("Players:1") or b"")
    await bench.handle(record(1, FIRST + 1, image=item(1, Version={"N": "2"})))
    assert stored(any_client, 1)[1:] == (at_version(FIRST + 1), b"1")


# --- what happens between its steps -----------------------------------------------------------


async def test_a_record_that_arrives_during_the_read_restarts_the_repair(
    bench: Bench, any_client: redis.Redis
) -> None:
    """The answer under way has the item as it was before the record."""
    await bench.change(1, FIRST, item(1, Version={"N": "1"}))
    bench.reading = iter([lambda: bench.change(1, FIRST + 1, item(1, Version={"N": "2"}))])

    assert await bench.kinds(target(1)) == ["repaired"]

    value, *fence = stored(any_client, 1)
    assert b'"Version":2' in (value or b"")
    assert fence == [at_version(FIRST + 1), b"2"]
    assert bench.reads == [1, 1]


async def test_a_deletion_that_arrives_during_the_read_stays(
    bench: Bench, any_client: redis.Redis
) -> None:
    bench.table["1"] = item(1)
    bench.reading = iter([lambda: bench.change(1, FIRST, None)])

    assert await bench.kinds(target(1)) == ["repaired"]
    assert stored(any_client, 1) == (None, at_version(FIRST), b"2")


@pytest.mark.parametrize("before", [None, "another"])
async def test_a_value_that_changes_without_its_fence_restarts_the_repair(
    bench: Bench, any_client: redis.Redis, before: str | None
) -> None:
    async def filled() -> None:
        any_client.set("Players:1", "filled")

    bench.table["1"] = item(1)
    if before is not None:
        any_client.set("Players:1", before)
    bench.reading = iter([filled])

    assert await bench.kinds(target(1)) == ["repaired"]
    assert bench.reads == [1, 1]


async def test_only_the_keys_that_changed_are_repaired_again(bench: Bench) -> None:
    bench.table |= {str(number): item(number) for number in range(5)}
    bench.reading = iter([lambda: bench.change(3, FIRST, item(3))])

    assert await bench.kinds(*(target(number) for number in range(5))) == ["repaired"] * 5
    assert bench.reads == [5, 1]


async def test_a_key_that_changes_on_every_attempt_is_not_repaired(
    bench: Bench, any_client: redis.Redis
) -> None:
    sequence_numbers = iter(range(FIRST, FIRST + 100))

    async def change() -> None:
        await bench.change(1, next(sequence_numbers), item(1))

    bench.reading = iter([change] * 100)

    assert await bench.repair(target(1)) == [
        Repaired(target(1), "changed", b"Players:1", "it changed on every attempt")
    ]
    assert len(bench.reads) == ATTEMPTS_MAX
    assert stored(any_client, 1)[2] == b"1"


@pytest.mark.parametrize(
    ("late_s", "asleep_s", "kind"),
    [
        (SNAPSHOT_AGE_S_MAX - 5, 0, "repaired"),
        (SNAPSHOT_AGE_S_MAX, 0, "failed"),
        (0, SNAPSHOT_AGE_S_MAX, "failed"),
    ],
)
async def test_nothing_is_written_later_than_a_minute_after_the_snapshot(
    bench: Bench, any_client: redis.Redis, late_s: float, asleep_s: float, kind: str
) -> None:
    async def dawdle() -> None:
        bench.late_s += late_s
        bench.asleep_s += asleep_s

    bench.table["1"] = item(1)
    bench.reading = iter([dawdle])

    assert await bench.kinds(target(1)) == [kind]
    assert (any_client.get("Players:1") is None) == (kind == "failed")


async def test_an_unavailable_server_fails_every_key_with_the_reason() -> None:
    bench = Bench(f"redis://127.0.0.1:{free_port()}")

    (answer,) = await bench.repair(target(1))

    assert (answer.kind, answer.reason) == ("failed", "ConnectionRefusedError: cannot connect")
    assert bench.reads == []


async def test_a_refused_write_leaves_the_fence_as_it_was(
    real_server: ServerProcess, real_client: redis.Redis
) -> None:
    bench = Bench(real_server.url)
    await bench.change(1, FIRST, item(1))
    real_client.set("Players:1", "damaged")
    real_client.config_set("maxmemory", 1)
    try:
        (answer,) = await bench.repair(target(1))
    finally:
        real_client.config_set("maxmemory", "0")

    assert (answer.kind, answer.reason) == ("failed", "OOM: refused by the server")
    assert stored(real_client, 1) == (b"damaged", at_version(FIRST), b"1")
    await bench.close()


def test_the_script_leaves_the_fence_where_the_server_refuses_only_the_value(
    any_client: redis.Redis,
) -> None:
    any_client.mset({"a": "before", "{a}!f": "fence"})

    refused = any_client.eval(
        SCRIPT.decode(), 2, "a", "{a}!f", "100", "", "fence", "1", "before", "1230", "-5", "new"
    )

    assert isinstance(refused, list)
    assert b"expire" in refused[0]
    assert any_client.mget("a", "{a}!f") == [b"before", b"fence"]


# --- modes ------------------------------------------------------------------------------------


async def test_refresh_writes_only_over_a_value_and_invalidate_removes(
    make: Callable[..., Bench], any_client: redis.Redis
) -> None:
    refresh, invalidate = make(mode="refresh"), make(mode="invalidate")
    for bench in (refresh, invalidate):
        bench.table |= {str(number): item(number) for number in (1, 2, 3)}
    any_client.set("Players:2", "old")
    any_client.set("Players:3", "old")

    assert await refresh.kinds(target(1), target(2)) == ["repaired", "repaired"]
    assert await invalidate.kinds(target(3)) == ["repaired"]

    assert stored(any_client, 1) == (None, NO_VERSION, b"2")
    assert stored(any_client, 2) == (b'{"Number":2,"Name":"player 2"}', NO_VERSION, b"2")
    assert stored(any_client, 3) == (None, NO_VERSION, b"2")


async def test_a_repair_sets_the_items_own_expiry(
    make: Callable[..., Bench], any_client: redis.Redis
) -> None:
    bench = make(ttl_attribute="Until")
    in_an_hour = int(time.time()) + 3_600
    bench.table = {
        "1": item(1, Until={"N": str(in_an_hour)}),
        "2": item(2, Until={"N": str(in_an_hour - 7_200)}),
        "3": item(3, Until={"N": "1"}),  # DynamoDB leaves what is more than five years past
        "4": item(4, Until={"N": "0"}),
    }
    any_client.set("Players:2", "over")

    assert await bench.kinds(*map(target, (1, 2, 3, 4))) == ["repaired"] * 4
    assert 3_590 < any_client.ttl("Players:1") <= 3_600
    assert any_client.get("Players:2") is None
    assert (any_client.ttl("Players:3"), any_client.ttl("Players:4")) == (-1, -1)


# --- a version to leave the fence at ----------------------------------------------------------


async def test_a_fence_that_is_past_the_version_is_left_alone(
    bench: Bench, any_client: redis.Redis
) -> None:
    await bench.change(1, FIRST, item(1))
    await bench.change(2, FIRST + 9, item(2))
    await bench.repair(target(3, at_version(FIRST)))
    fences = any_client.mget("{Players:1}!f", "{Players:2}!f", "{Players:3}!f")

    assert (
        await bench.kinds(*(target(number, at_version(FIRST)) for number in (1, 2, 3)))
        == ["past"] * 3
    )
    assert any_client.mget("{Players:1}!f", "{Players:2}!f", "{Players:3}!f") == fences
    assert bench.reads == [1]


async def test_otherwise_the_fence_gets_the_version_and_never_a_lower_one(
    bench: Bench, any_client: redis.Redis
) -> None:
    await bench.handle(record(1, FIRST, image={"Odd": {"N": "none"}}))  # removed at rank 0
    await bench.change(2, FIRST - 1, item(2))
    bench.table |= {str(number): item(number) for number in (1, 2, 3)}

    wanted = [target(number, at_version(FIRST)) for number in (1, 2, 3)]
    assert await bench.kinds(*wanted) == ["repaired"] * 3

    for number in (1, 2, 3):
        value, *fence = stored(any_client, number)
        assert value is not None
        assert fence == [at_version(FIRST), b"2"]
    await bench.change(1, FIRST + 5, item(1))
    assert await bench.kinds(target(1)) == ["repaired"]
    assert stored(any_client, 1)[1] == at_version(FIRST + 5)


# --- what cannot be encoded -------------------------------------------------------------------


async def test_an_item_that_cannot_be_encoded_is_removed_and_claims_no_version(
    make: Callable[..., Bench], any_client: redis.Redis
) -> None:
    """So a deployment that can encode the item still writes the same record."""

    def strict(item: dict[str, object]) -> dict[str, object]:
        return {"Name": item["Name"]}

    bench = make(transform=strict)
    await bench.handle(record(1, FIRST, image={"Number": {"N": "1"}}))
    any_client.set("Players:1", "old")
    any_client.set("Players:2", "old")
    bench.table |= {"1": {"Number": {"N": "1"}}, "2": {"Number": {"N": "2"}}}

    answers = await bench.repair(target(1, at_version(FIRST + 1)), target(2))

    reason = "the transform raised KeyError"
    assert answers == [
        Repaired(target(1, at_version(FIRST + 1)), "rejected", b"Players:1", reason),
        Repaired(target(2), "rejected", b"Players:2", reason),
    ]
    assert stored(any_client, 1) == (None, at_version(FIRST), b"0")
    assert stored(any_client, 2) == (None, NO_VERSION, b"0")
    await bench.handle(record(1, FIRST, image=item(1)))
    assert any_client.get("Players:1") == b'{"Name":"player 1"}'


async def test_a_key_without_a_name_is_rejected_and_the_others_are_repaired(
    any_server: ServerProcess, any_client: redis.Redis
) -> None:
    bench = Bench(any_server.url)
    mirror = Mirror(bench.mirror.config, key=lambda keys: f"n{12 / int(keys['Number']['N']):g}")
    repairer = Repairer(mirror, TABLE, bench.read)
    bench.table = {"0": item(0), "1": item(1)}

    answers = await repairer.repair([target(0), target(1)])

    assert [(each.kind, each.name) for each in answers] == [
        ("rejected", b""),
        ("repaired", b"n12"),
    ]
    assert any_client.get("n12") is not None
    repairer.close()
    await bench.close()


async def test_a_fence_of_an_unknown_format_is_left_alone(
    bench: Bench, any_client: redis.Redis
) -> None:
    any_client.set("{Players:1}!f", "9" * 40)
    bench.table["1"] = item(1)

    (answer,) = await bench.repair(target(1))

    assert (answer.kind, answer.reason) == (
        "foreign",
        "its fence has an unknown format",
    )
    assert any_client.get("{Players:1}!f") == b"9" * 40
    assert any_client.get("Players:1") is None


# --- many, clusters, refusals -----------------------------------------------------------------


async def test_many_keys_are_read_a_hundred_at_a_time(
    bench: Bench, any_client: redis.Redis
) -> None:
    bench.table = {str(number): item(number) for number in range(250)}
    wanted = [target(number) for number in range(250)]

    answers = await bench.repair(*wanted)

    assert [each.target for each in answers] == wanted
    assert {each.kind for each in answers} == {"repaired"}
    assert bench.reads == [KEYS_MAX, KEYS_MAX, 50]
    assert await bench.repair() == []


async def test_on_a_cluster_keys_of_all_nodes_are_repaired(cluster: Cluster) -> None:
    bench = Bench(cluster.url, redis_cluster=True)
    bench.table = {str(number): item(number) for number in range(50)}

    assert await bench.kinds(*(target(number) for number in range(60))) == ["repaired"] * 60
    values = cluster.read([b"Players:%d" % number for number in range(60)])
    assert {name for name, value in values.items() if value is None} == {
        b"Players:%d" % number for number in range(50, 60)
    }
    await bench.close()


def test_a_repair_is_refused_where_the_fence_is_off() -> None:
    with pytest.raises(ConfigError, match="ASYNCSYNC_FENCE=on"):
        Bench("redis://unused", fence="off")
