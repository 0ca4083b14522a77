"""Audit of hashes and JSON documents: it finds what was planted, field by field, and mends it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from typing import Any

import orjson
import pytest
import redis

from asyncsync.aws.clients import AwsClients
from asyncsync.tools.backfill.command import BackfillOptions, backfill
from asyncsync.tools.get import Content, document, lines, read_key
from asyncsync.tools.retire.command import RetireOptions, retire
from tests.support.formats import FormatServer, read
from tests.support.mirrored_table import MirroredTable, filled, mirrored_tables
from tests.support.output import RecordedOutput
from tests.support.tables import load, numbered


@pytest.fixture
async def make(
    clients: AwsClients, endpoint: str, real_format: FormatServer
) -> AsyncIterator[Callable[..., Any]]:
    async with mirrored_tables(clients, endpoint, real_format.url) as make_one:
        yield make_one


def write(client: redis.Redis, value_format: str, key: str, **fields: Any) -> None:
    """Write a whole value behind the mirror's back."""
    client.delete(key)
    if value_format == "hash":
        client.hset(key, mapping=fields)  # type: ignore[arg-type]
    elif value_format == "redis-json":
        client.execute_command("JSON.SET", key, "$", orjson.dumps(fields))  # type: ignore[no-untyped-call]
    else:
        client.set(key, orjson.dumps(fields))


async def test_what_was_planted_is_found_field_by_field_and_mended(
    make: Callable[..., Any], real_format: FormatServer
) -> None:
    world = await filled(make, 30, value=real_format.value)
    client, kind = real_format.client, real_format.value
    good = {number: real_format.read(f"Players:{number}") for number in range(1, 31)}
    assert await world.found() == {}

    client.delete("Players:1")
    write(client, kind, "Players:2", Number=2, Name="another")
    write(client, kind, "Players:3", Number=3, Name="item 3", More="")
    write(client, kind, "Players:4", Number=4)
    write(client, kind, "Players:5", Number=5, Name="item 5")  # the same
    write(client, kind, "Players:6", Number="6", Name="item 6")  # a document's string
    write(client, kind, "Players:7", Number=7, name="item 7")
    client.set("Players:8", '{"Number":8,"Name":"item 8"}')
    client.delete("Players:9")
    client.rpush("Players:9", "x")
    write(client, kind, "Players:31", Number=31, Name="gone")
    client.set("Players:32", '{"Number":32}')  # an older format's
    client.rpush("Players:33", "x")  # another program's
    planted = {
        "Players:1": "missing",
        "Players:2": "stale",
        "Players:3": "stale",
        "Players:4": "stale",
        "Players:7": "stale",
        "Players:8": "mistyped",
        "Players:9": "mistyped",
        "Players:31": "orphan",
        "Players:32": "orphan",
    }
    if kind == "redis-json":
        planted["Players:6"] = "stale"

    assert await world.found() == planted
    assert await world.found(repair=True) == planted

    assert {n: real_format.read(f"Players:{n}") for n in range(1, 31)} == good
    assert client.exists("Players:31", "Players:32") == 0
    assert client.exists("Players:33") == 1
    assert await world.found() == {}


async def test_a_difference_is_shown_in_both_its_forms(
    make: Callable[..., Any], real_format: FormatServer
) -> None:
    world = await filled(make, 2, value=real_format.value)
    write(real_format.client, real_format.value, "Players:2", Number=2, Name="another")

    await world.audit(show_values=True)

    number = '"2"' if real_format.value == "hash" else "2"
    shown = {line.split()[0]: orjson.loads(line.split(maxsplit=1)[1]) for line in world.said[1:3]}
    assert world.said[0] == "stale    Players:2"
    assert shown["table"]["Name"] == "item 2"
    assert shown["copy"] == {"Number": orjson.loads(number), "Name": "another"}


async def test_a_copy_that_changes_its_format_is_mended_and_breaks_no_batch(
    make: Callable[..., Any], real_format: FormatServer
) -> None:
    """From each format to the next: half of the items by their records, all by an audit."""
    value = real_format.value
    client = real_format.client
    for old, new in pairwise(("json", value, "dynamodb-json", value, "json")):
        world: MirroredTable = await filled(make, 20, table=f"{old}-{new}", value=old)
        next_world = MirroredTable(
            world.clients, world.endpoint, world.table, mirror_of(world, new)
        )
        next_world.sent = world.sent
        for item in numbered(10):
            await next_world.change({**item, "Name": {"S": "changed"}})
        await next_world.deliver()

        found = await next_world.found(repair=True)

        assert set(found) == {f"{world.table}:{number}" for number in range(11, 21)}
        assert set(found.values()) <= {"stale", "mistyped"}
        assert await next_world.found() == {}
        for number in range(1, 21):
            name = f"{world.table}:{number}"
            shown = read(client, new, name) if new == value else None
            expected = "changed" if number <= 10 else f"item {number}"
            assert shown is None or shown["Name"] == expected
        next_world.mirror.close()


def mirror_of(world: MirroredTable, value: str) -> Any:
    from msgspec.structs import replace

    from asyncsync import Mirror

    config: Any = world.mirror.config
    return Mirror(replace(config, value=value), emit=lambda _: None)


async def test_a_backfill_and_a_retire_know_the_format(
    make: Callable[..., Any], real_format: FormatServer
) -> None:
    client = real_format.client
    world: MirroredTable = await make(value=real_format.value, key="v2:{Number}")
    await load(world.clients, "Players", numbered(3))
    output = RecordedOutput()
    options = BackfillOptions(table="Players", skip_mapping_check=True, as_json=True)
    client.set("v2:3", "an older format's")

    assert await backfill(world.clients, options, world.mirror, output)

    counts = {name: output.documents[0][name] for name in ("filled", "present", "repaired")}
    assert counts == {"filled": 2, "present": 0, "repaired": 1}
    assert [real_format.read(f"v2:{number}")["Name"] for number in (1, 2, 3)] == [  # type: ignore[index]
        "item 1",
        "item 2",
        "item 3",
    ]
    write(client, real_format.value, "Players:1", Number=1)
    client.set("Players:2", "{}")
    write(client, real_format.value, "Players:4", Number=4)
    client.rpush("Players:3", "x")

    retiring = RetireOptions(table="Players", template="{@table}:{@key}", as_json=True)
    assert not await retire(world.clients, retiring, world.mirror, output)

    fates = {name: output.documents[1][name] for name in ("removed", "kept", "foreign")}
    assert fates == {"removed": 2, "kept": 1, "foreign": 1}
    assert client.exists("Players:1", "Players:2") == 0


async def test_get_shows_a_hash_and_a_document(
    make: Callable[..., Any], real_format: FormatServer
) -> None:
    world = await filled(make, 1, value=real_format.value)
    contents = await read_key("Players:1", world.mirror)

    value = orjson.loads(str(document(contents)["value"]))
    number: Any = "1" if real_format.value == "hash" else 1
    assert value == {"Number": number, "Name": "item 1"}
    assert "expires never" in lines(contents)[2]
    fence = await read_key("{Players:1}!f", world.mirror)
    assert fence.content.value == contents.fence.value
    absent = await read_key("Players:2", world.mirror)
    assert (absent.content, absent.fence) == (Content(), Content())
    real_format.client.rpush("Players:3", "x")
    assert "the key holds a list" in lines(await read_key("Players:3", world.mirror))[1]
