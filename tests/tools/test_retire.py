"""Retire: an old template's names are removed once their items have new ones."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import redis

from asyncsync import Config, ConfigError, Mirror
from asyncsync.aws.clients import AwsClients
from asyncsync.aws.items import json_attributes
from asyncsync.lab.servers import ServerProcess
from asyncsync.tools.errors import CommandRefused
from asyncsync.tools.retire.command import RetireOptions, retire
from tests.support.events import FIRST, arn, event, record
from tests.support.mirrored_table import MirroredTable, filled, mirrored_tables
from tests.support.output import RecordedOutput
from tests.support.tables import Item


@pytest.fixture
def client(fake_client: redis.Redis) -> redis.Redis:
    return fake_client


@pytest.fixture
async def make(
    clients: AwsClients, endpoint: str, fake_server: ServerProcess, client: redis.Redis
) -> AsyncIterator[Callable[..., Any]]:
    async with mirrored_tables(clients, endpoint, fake_server.url) as make_one:
        yield make_one


async def retired(world: MirroredTable, template: str, **options: Any) -> dict[str, int]:
    output = RecordedOutput()
    wanted = RetireOptions(table=world.table, template=template, as_json=True, **options)
    is_done = await retire(world.clients, wanted, world.mirror, output)
    counts: dict[str, int] = output.documents[-1]
    assert is_done == (counts["kept"] == 0)
    return counts


async def test_old_names_are_removed_once_their_items_have_new_ones(
    make: Callable[..., Any], client: redis.Redis
) -> None:
    world = await filled(make, 20, key="v2:{@table}:{@key}")
    for number in range(1, 23):  # of these, 21 and 22 have no new name
        client.set(f"Players:{number}", "old")
    client.set("Players:lock", "not ours")
    client.set("Players:07", "not ours")
    client.rpush("Players:7000", "not ours")
    client.rpush("v2:Players:7000", "not ours")

    assert await retired(world, "{@table}:{@key}") == {
        "format": 1,
        "removed": 20,
        "kept": 2,
        "present": 0,
        "foreign": 3,
    }
    assert set(client.scan_iter(match="Players:*")) == {
        *(b"Players:21", b"Players:22", b"Players:lock", b"Players:07", b"Players:7000")
    }
    assert len([*client.scan_iter(match="v2:Players:*")]) == 21
    assert await world.found() == {}
    client.delete("Players:21", "Players:22")
    assert (await retired(world, "{@table}:{@key}"))["removed"] == 0


async def test_a_name_that_is_in_use_is_never_taken_for_an_old_one(
    make: Callable[..., Any], client: redis.Redis
) -> None:
    """Both templates read x:y, and each reads another item out of it."""
    world: MirroredTable = await make(keys={"A": "S", "B": "S"}, key="{@table}:{B}:{A}")
    for one, other in (("x", "y"), ("y", "x")):
        await world.change({"A": {"S": one}, "B": {"S": other}})
    await world.deliver()
    before = {name: client.get(name) for name in client.scan_iter()}

    counts = await retired(world, "{@table}:{A}:{B}")

    assert counts == {"format": 1, "removed": 0, "kept": 0, "present": 2, "foreign": 0}
    assert {name: client.get(name) for name in client.scan_iter()} == before


async def test_old_names_that_end_in_a_hash_are_matched_through_their_values(
    make: Callable[..., Any], client: redis.Redis
) -> None:
    world: MirroredTable = await make(keys={"Who": "S"}, key="v2:{Who}")
    item: Item = {"Who": {"S": "%" * 2_000}}
    await world.change(item)
    await world.deliver()
    old = Mirror(Config(redis_url=world.mirror.config.redis_url), emit=lambda _: None)
    await old.handle(event([made for _, made in [_record(world, item)]]), None)
    old.close()
    assert len([*client.scan_iter(match="Players:*")]) == 1

    assert (await retired(world, "{@table}:{@key}"))["removed"] == 1
    assert [*client.scan_iter(match="Players:*")] == []


def _record(world: MirroredTable, item: Item) -> tuple[Any, Any]:
    made = record(
        0,
        FIRST,
        image=json_attributes(item),
        stream_arn=arn(table=world.table),
        Keys=json_attributes(item),
    )
    return item, made


async def test_a_template_that_could_name_a_strangers_key_is_refused(
    make: Callable[..., Any], client: redis.Redis
) -> None:
    world = await filled(make, 3)
    client.set("2", "whose?")

    with pytest.raises(CommandRefused, match="pass --scan-all-keys"):
        await retired(world, "{Number}")
    with pytest.raises(CommandRefused, match="the template in use"):
        await retired(world, "{@table}:{@key}")
    with pytest.raises(ConfigError, match="must use exactly these"):
        await retired(world, "{@table}:{Name}")
    assert client.get("2") == b"whose?"
    assert (await retired(world, "{Number}", scan_all_keys=True))["removed"] == 1
