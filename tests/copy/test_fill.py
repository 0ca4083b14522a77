"""Fill: it writes only where there is no value and no fence, so any record wins."""

from __future__ import annotations

import asyncio
import base64
import itertools
import time
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
import redis

from asyncsync import Config, Mirror
from asyncsync.aws.items import image_of, key_of
from asyncsync.copy.entries import entries_of, version_in
from asyncsync.copy.fill import RESERVE_S, SCRIPT, fill, fill_within_s
from asyncsync.fence import NO_VERSION
from asyncsync.lab.demo.changes import make_changes
from asyncsync.lab.proxy import proxy_to
from asyncsync.lab.servers import ServerProcess
from asyncsync.model import APPLIED, FENCED, NO_VALUE, Entry, Key, Outcome
from tests.support.cluster import Cluster
from tests.support.events import FIRST, TABLE, event, item, record

NEVER = float("inf")


def key(number: int) -> Key:
    return (("Number", "N", str(number)),)


class CopyFiller:
    """A mirror, and a store for fills."""

    def __init__(self, url: str, **options: Any) -> None:
        self.mirror = Mirror(Config(redis_url=url, **options), emit=lambda _: None)
        self.store = self.mirror.new_store(SCRIPT)

    def entries(self, *items: Any) -> list[Entry]:
        """Make the entries of items in DynamoDB JSON."""
        pairs = [(key_of(each, ["Number"]), image_of(each)) for each in items]
        now_ms = int(time.time() * 1_000)
        entries = entries_of(pairs, TABLE, self.mirror.rules, now_ms)
        return [each.entry for each in entries if each.entry is not None]

    async def fill(self, *items: Any) -> list[Outcome]:
        return list(await fill(self.store, self.entries(*items), self.mirror.config, NEVER))

    async def handle(self, *records: Any) -> None:
        await self.mirror.handle(event(records), None)

    async def close(self) -> None:
        self.store.close()
        self.mirror.close()
        await asyncio.sleep(0)  # lets the sockets close


@pytest.fixture
async def copy(any_server: ServerProcess, any_client: redis.Redis) -> AsyncIterator[CopyFiller]:
    filled = CopyFiller(any_server.url)
    yield filled
    await filled.close()


async def test_an_absent_key_is_filled_without_a_version(
    copy: CopyFiller, any_client: redis.Redis
) -> None:
    assert await copy.fill(item(1), item(2)) == [APPLIED, APPLIED]

    assert any_client.get("Players:1") == b'{"Number":1,"Name":"player 1"}'
    assert sorted(any_client.keys()) == [b"Players:1", b"Players:2"]
    assert any_client.ttl("Players:1") == -1


async def test_a_key_of_another_type_needs_a_repair(
    copy: CopyFiller, any_client: redis.Redis
) -> None:
    any_client.rpush("Players:1", "no value")
    any_client.hset("Players:2", "no", "value")
    await copy.handle(record(2, FIRST, removed=True))
    any_client.hset("Players:2", "no", "value")

    assert await copy.fill(item(1), item(2), item(3)) == [NO_VALUE, NO_VALUE, APPLIED]

    assert any_client.lrange("Players:1", 0, -1) == [b"no value"]
    assert any_client.hgetall("Players:2") == {b"no": b"value"}


async def test_a_value_or_a_fence_stops_a_fill(copy: CopyFiller, any_client: redis.Redis) -> None:
    any_client.set("Players:1", "a value alone")
    await copy.handle(record(2, FIRST), record(3, FIRST + 1, removed=True))
    before = {name: any_client.get(name) for name in any_client.scan_iter()}

    outcomes = await copy.fill(item(1), item(2), item(3), item(4))

    assert outcomes == [FENCED, FENCED, NO_VALUE, APPLIED]
    assert {name: any_client.get(name) for name in before} == before
    assert any_client.get("Players:3") is None


async def test_a_readers_claim_does_not_stop_a_fill(
    copy: CopyFiller, any_client: redis.Redis
) -> None:
    any_client.set("{Players:1}!f", "0123456789012", ex=60)

    assert await copy.fill(item(1)) == [APPLIED]
    assert any_client.get("{Players:1}!f") == b"0123456789012"


@pytest.mark.parametrize("order", list(itertools.permutations(["set", "removal", "fill"])))
async def test_a_record_wins_whenever_it_arrives(
    copy: CopyFiller, any_client: redis.Redis, order: tuple[str, ...]
) -> None:
    """The fill has the item as it was before both records."""
    for step in order:
        if step == "fill":
            await copy.fill(item(1, Version={"N": "1"}))
        elif step == "set":
            await copy.handle(record(1, FIRST, image=item(1, Version={"N": "2"})))
        else:
            await copy.handle(record(1, FIRST + 1, removed=True))

    assert any_client.get("Players:1") is None


async def test_a_refusal_fails_its_key_alone(copy: CopyFiller, any_client: redis.Redis) -> None:
    good, bad = copy.entries(item(1), item(2))
    bad = Entry(bad.name, bad.fence, b"1", b"x", -5, bad.sequence_number, "")

    outcomes = await fill(copy.store, [bad, good], copy.mirror.config, NEVER)

    assert [each.kind for each in outcomes] == ["failed", "applied"]
    assert any_client.get(bad.name) is None


async def test_a_server_without_the_script_gets_it_and_a_fill_sets_the_expiry(
    copy: CopyFiller, any_server: ServerProcess, any_client: redis.Redis
) -> None:
    expiring = CopyFiller(any_server.url, ttl_s=3_600)
    await copy.fill(item(1))
    any_client.script_flush()

    assert await expiring.fill(*(item(number) for number in range(2, 402))) == [APPLIED] * 400
    assert 3_590 < any_client.ttl("Players:401") <= 3_600
    await expiring.close()


async def test_a_page_is_one_round_trip(
    real_server: ServerProcess, real_client: redis.Redis
) -> None:
    async with proxy_to(real_server.host, real_server.port) as proxy:
        copy = CopyFiller(f"redis://127.0.0.1:{proxy.port}")
        await copy.fill(item(0))
        before = proxy.turns

        await copy.fill(*(item(number) for number in range(1, 1_001)))

        assert proxy.turns - before == 1
        await copy.close()


async def test_on_a_cluster_each_key_goes_to_its_node(cluster: Cluster) -> None:
    copy = CopyFiller(cluster.url, redis_cluster=True)
    await copy.handle(record(7, FIRST, removed=True))

    outcomes = await copy.fill(*(item(number) for number in range(100)))

    assert outcomes == [NO_VALUE if number == 7 else APPLIED for number in range(100)]
    assert cluster.get(b"Players:99") == b'{"Number":99,"Name":"player 99"}'
    await copy.close()


def test_a_fill_is_too_late_an_hour_before_a_fence_expires() -> None:
    assert fill_within_s(Config(redis_url="redis://a", fence_ttl_s=90_000)) == 90_000 - RESERVE_S


# --- entries ----------------------------------------------------------------------------------


def _as_lambda(value: Any) -> Any:
    """Convert bytes to base64 strings, without the package's own code."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {name: _as_lambda(each) for name, each in value.items()}
    return [_as_lambda(each) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"value": "dynamodb-json"},
        {"ttl_s": 3_600},
        {"ttl_attribute": "Points"},
        {"key": "{{players}}:{Number}"},
    ],
    ids=str,
)
async def test_a_filled_value_equals_the_handlers_to_the_byte(
    fake_server: ServerProcess, options: dict[str, Any]
) -> None:
    with redis.Redis(port=fake_server.port) as client:
        client.flushall()
        copy = CopyFiller(fake_server.url, **options)
        items = [each.item for each in make_changes(150, 150, 3) if each.item is not None]
        ends = ("1", str(int(time.time()) - 60), "99999999999")  # one in three has expired
        for at, each in enumerate(items):
            each["Points"] = {"N": ends[at % 3]}
        await copy.handle(
            *(
                record(0, FIRST + at, image=_as_lambda(each), Keys={"Number": each["Number"]})
                for at, each in enumerate(items)
            )
        )
        handled = {name: client.get(name) for name in client.scan_iter() if name[-2:] != b"!f"}
        client.flushall()

        entries = [each for each in copy.entries(*items) if each.value is not None]
        await fill(copy.store, entries, copy.mirror.config, NEVER)

        assert {name: client.get(name) for name in client.scan_iter()} == handled
        assert len(handled) == (100 if "ttl_attribute" in options else 150)
        await copy.close()


def test_a_key_function_and_a_transform_are_used_and_an_exception_is_a_fault() -> None:
    def own(item: dict[str, Any]) -> dict[str, object] | None:
        return None if item["Number"] == 2 else {"is": 1 / (item["Number"] - 3)}

    mirror = Mirror(
        Config(redis_url="redis://unused"),
        key=lambda keys: "mine:" + keys["Number"]["N"],
        transform=own,
    )
    pairs = [(key(number), orjson.dumps(item(number))) for number in (1, 2, 3)]

    entries = entries_of([*pairs, (key(4), None)], TABLE, mirror.rules, 0)

    assert [(each.entry.name, each.entry.value) for each in entries if each.entry] == [
        (b"mine:1", b'{"is":-0.5}'),
        (b"mine:2", None),
        (b"mine:3", None),
        (b"mine:4", None),
    ]
    assert [each.key for each in entries] == [key(number) for number in (1, 2, 3, 4)]
    assert [each.fault for each in entries] == ["", "", "the transform raised DivisionByZero", ""]


def test_an_items_key_is_what_a_record_has() -> None:
    item_key = key_of({"B": {"B": b"\xff"}, "A": {"S": "x"}, "Other": {"N": "1"}}, ["A", "B"])

    assert item_key == (("A", "S", "x"), ("B", "B", "/w=="))


@pytest.mark.parametrize(
    ("fence", "parts"),
    [
        (None, (NO_VERSION, b"0")),
        (b"0123", (NO_VERSION, b"0")),
        (NO_VERSION + b"2" + b"7" * 12, (NO_VERSION, b"2")),
        (b"1" + b"1767225600000" + b"03" + b"123" + b"1", (b"1176722560000003123", b"1")),
        (b"1" + b"1767225600000" + b"03" + b"123", None),
        (b"1" + b"1767225600000" + b"03" + b"123" + b"3", None),
        (b"2" + b"1767225600000" + b"03" + b"123" + b"1", None),
        (b"1" + b"1767225600000" + b"00" + b"1", None),
        (b"", None),
        (b"somebody's", None),
    ],
)
def test_a_fence_is_parsed_or_unknown(
    fence: bytes | None, parts: tuple[bytes, bytes] | None
) -> None:
    assert version_in(fence) == parts


def test_no_version_is_lower_than_any_records() -> None:
    assert NO_VERSION + b"2" + b"9" * 12 < b"1" + b"0" * 12 + b"1" + b"01" + b"0" + b"0"
