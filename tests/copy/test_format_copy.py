"""Hashes and JSON documents beside the stream: read, filled and repaired as strings are."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import orjson
import pytest
import redis

from asyncsync import Config, Mirror
from asyncsync.aws.items import image_of, key_of
from asyncsync.copy.entries import entries_of
from asyncsync.copy.equality import fields_of
from asyncsync.copy.fill import fill
from asyncsync.copy.fill import script_of as fill_script
from asyncsync.copy.names import KeyNames
from asyncsync.copy.reader import CopyReader
from asyncsync.copy.repair import Repaired, Repairer, Target
from asyncsync.encode import EncodeRules
from asyncsync.lab.servers import ServerProcess
from asyncsync.limits import HASH_FIELDS_MAX
from asyncsync.model import APPLIED, FENCED, NO_VALUE, Entry, Key, Outcome
from tests.support.cluster import Cluster
from tests.support.events import FIRST, TABLE, event, record
from tests.support.formats import FormatServer
from tests.support.planted import KINDS

NEVER = float("inf")
FENCE = "{Players:1}!f"


def image(number: int, **attributes: Any) -> dict[str, Any]:
    return {"Number": {"N": str(number)}, **attributes}


class Copy:
    """A dict as the table, its mirror, and all that reads or writes the copy beside it."""

    def __init__(self, server: FormatServer, url: str = "", **options: Any) -> None:
        self.server = server
        self.table: dict[int, Any] = {}
        self.reads = 0
        self.reading: Callable[[], Awaitable[None]] | None = None  # runs during each read
        config = Config(redis_url=url or server.url, value=server.value, **options)
        self.mirror = Mirror(config, emit=lambda _: None)
        self.repairer = Repairer(self.mirror, TABLE, self._read)
        self.reader = CopyReader(self.mirror)
        self.fills = self.mirror.new_store(fill_script(config))

    async def _read(self, keys: Sequence[Key]) -> list[bytes | None]:
        self.reads += 1
        items = [self.table.get(int(number)) for ((_, _, number),) in keys]
        if self.reading is not None:
            await self.reading()
        return [None if each is None else orjson.dumps(each) for each in items]

    def entries(self, *items: Any) -> list[Entry]:
        pairs = [(key_of(each, ["Number"]), image_of(each)) for each in items]
        made = entries_of(pairs, TABLE, self.mirror.rules, int(time.time() * 1_000))
        return [each.entry for each in made if each.entry is not None]

    async def fill(self, *items: Any) -> list[Outcome]:
        config = self.mirror.config
        return list(await fill(self.fills, self.entries(*items), config, NEVER))

    async def repair(self, *numbers: int) -> list[Repaired]:
        targets = [Target((("Number", "N", str(number)),)) for number in numbers]
        return await self.repairer.repair(targets)

    async def change(self, at: int, item: Any) -> None:
        """Change the table and deliver the record."""
        number = int(item["Number"]["N"])
        self.table[number] = item
        await self.mirror.handle(event([record(number, FIRST + at, image=item)]))

    def read(self, number: int) -> dict[str, Any] | None:
        value = self.server.read(f"Players:{number}")
        return value and {name: str(field) for name, field in value.items()}

    async def close(self) -> None:
        for each in (self.repairer, self.reader, self.fills, self.mirror):
            each.close()
        await asyncio.sleep(0)


@pytest.fixture
async def copy(any_format: FormatServer) -> AsyncIterator[Copy]:
    made = Copy(any_format)
    yield made
    await made.close()


# --- read -------------------------------------------------------------------------------------


async def test_a_value_and_its_fence_are_read_as_they_were_written(copy: Copy) -> None:
    await copy.change(1, image(1, Name={"S": "ada"}, Points={"N": "1.5"}))
    entries = copy.entries(image(1, Points={"N": "1.5"}, Name={"S": "ada"}), image(2))

    present, absent = await copy.reader.read_pairs(entries)

    assert present.fence == copy.server.client.get(FENCE)
    assert (present.other_type, present.error) == ("", "")
    if copy.server.value == "hash":
        assert present.value == (b"Name", b"ada", b"Number", b"1", b"Points", b"1.5")
    assert (absent.value, absent.fence, absent.other_type) == (None, None, "")
    values = await copy.reader.values([entry.name for entry in entries])
    assert values == [present.value, None]


async def test_a_key_of_another_type_is_named_and_breaks_no_batch(copy: Copy) -> None:
    if copy.server.value == "redis-json" and not copy.server.is_real:
        return  # fakeredis reads any key as a document
    await copy.change(1, image(1, Name={"S": "ada"}))
    for number, kind in enumerate(("string", "list", "set", "zset", "stream"), 2):
        KINDS[kind](copy.server.client, f"Players:{number}")
    if copy.server.value == "redis-json":
        KINDS["hash"](copy.server.client, "Players:7")

    snapshots = await copy.reader.read_pairs(copy.entries(*(image(n) for n in range(1, 8))))

    types = ["", "string", "list", "set", "zset", "stream"]
    types.append("hash" if copy.server.value == "redis-json" else "")
    assert [each.other_type for each in snapshots] == types
    assert [each.value is not None for each in snapshots] == [True, *[False] * 6]


def test_an_items_key_is_read_out_of_its_value(any_format: FormatServer) -> None:
    key = (("Id", "B", "AAE="), ("Number", "N", "10.5"))
    names = KeyNames(
        TABLE,
        {"Number": "N", "Id": "B"},
        EncodeRules(
            Config(redis_url=any_format.url, value=any_format.value),
            key=lambda keys: f"player-{keys['Number']['N']}",
        ),
    )
    fields = {"Number": "10.5", "Id": "AAE=", "Name": "ada"}
    value: Any = any_format.make(**fields)
    assert names.read_by_value(b"player-10.5", value) == key
    if any_format.value == "redis-json":
        for number in (b"10.5", b"1.05e1", b"10.50"):
            assert (
                names.read_by_value(b"player-10.5", b'{"Id":"AAE=","Number":%b}' % number) == key
            )
    assert names.read_by_value(b"player-11", value) is None
    assert names.read_by_value(b"player-10.5", any_format.make(Number="x", Id="AAE=")) is None
    assert names.read_by_value(b"player-10.5", any_format.make(Number="10.5")) is None


# --- fill -------------------------------------------------------------------------------------


async def test_a_fill_writes_only_where_nothing_is(copy: Copy) -> None:
    client = copy.server.client
    await copy.change(1, image(1, Name={"S": "stream"}))
    await copy.change(2, image(2, Name={"S": "gone"}))
    client.delete("Players:2")
    await copy.change(3, image(3, Name={"S": "no fence"}))
    client.delete("{Players:3}!f")
    client.set("{Players:4}!f", b"0" + b"7" * 12)  # a reader's claim

    outcomes = await copy.fill(*(image(number, Name={"S": "table"}) for number in range(1, 6)))

    assert outcomes == [FENCED, NO_VALUE, FENCED, APPLIED, APPLIED]
    assert copy.read(1) == {"Number": "1", "Name": "stream"}
    assert copy.read(2) is None
    assert copy.read(3) == {"Number": "3", "Name": "no fence"}
    assert copy.read(4) == {"Number": "4", "Name": "table"}
    assert copy.read(5) == {"Number": "5", "Name": "table"}
    assert not client.exists("{Players:5}!f")


async def test_a_key_of_another_type_is_left_to_a_repair(copy: Copy) -> None:
    if copy.server.value == "redis-json" and not copy.server.is_real:
        return  # fakeredis reads any key as a document
    copy.server.client.set("Players:1", '{"Number":1}')
    item = copy.table[1] = image(1, Name={"S": "ada"})

    assert await copy.fill(item) == [NO_VALUE]
    assert [each.kind for each in await copy.repair(1)] == ["repaired"]
    assert copy.read(1) == {"Number": "1", "Name": "ada"}


# --- repair -----------------------------------------------------------------------------------


async def test_a_repair_writes_what_the_table_holds(copy: Copy) -> None:
    await copy.change(1, image(1, Name={"S": "ada"}))
    copy.table[1] = image(1, Other={"S": "one"})
    await copy.change(2, image(2, Name={"S": "ada"}))
    del copy.table[2]
    fence = copy.server.client.get(FENCE)
    assert isinstance(fence, bytes)

    assert [each.kind for each in await copy.repair(1, 2)] == ["repaired", "repaired"]

    assert copy.read(1) == {"Number": "1", "Other": "one"}
    assert copy.read(2) is None
    after = copy.server.client.get(FENCE)
    assert isinstance(after, bytes)
    assert after.startswith(fence[:-1] + b"2")
    await copy.change(1, image(1, Name={"S": "ada"}))  # delivered again
    assert copy.read(1) == {"Number": "1", "Other": "one"}


@pytest.mark.parametrize("change", ["a field more", "a field less", "another value", "gone"])
async def test_a_value_that_changes_meanwhile_is_not_taken_for_repaired(
    copy: Copy, change: str
) -> None:
    client = copy.server.client
    await copy.change(1, image(1, Name={"S": "ada"}, Other={"S": "7:x"}))
    copy.table[1] = image(1, Name={"S": "new"})

    async def meddle() -> None:
        """Change the value and not the fence, as no stream record does."""
        fields = {"Number": "1", "Name": "ada", "Other": "7:x"}
        if change == "gone":
            client.delete("Players:1")
            return
        match change:
            case "a field more":
                fields["More"] = ""
            case "a field less":
                del fields["Other"]
            case _:
                fields["Other"] = "7:y"
        client.delete("Players:1")
        if copy.server.value == "hash":
            client.hset("Players:1", mapping=fields)  # type: ignore[arg-type]
        else:
            text = orjson.dumps({**fields, "Number": 1})
            client.execute_command("JSON.SET", "Players:1", "$", text)  # type: ignore[no-untyped-call]

    async def once() -> None:
        copy.reading = None
        await meddle()

    fence = client.get(FENCE)
    copy.reading = once

    assert [each.kind for each in await copy.repair(1)] == ["repaired"]

    assert copy.reading is None
    assert copy.reads == 2
    assert copy.read(1) == {"Number": "1", "Name": "new"}
    assert client.get(FENCE) != fence


async def test_a_key_that_always_changes_is_left(copy: Copy) -> None:
    client = copy.server.client
    await copy.change(1, image(1, Name={"S": "ada"}))
    count = 0

    async def meddle() -> None:
        nonlocal count
        count += 1
        if copy.server.value == "hash":
            client.hset("Players:1", "Meddled", str(count))
        else:
            client.execute_command("JSON.SET", "Players:1", "$.Meddled", str(count))  # type: ignore[no-untyped-call]

    copy.reading = meddle

    (result,) = await copy.repair(1)

    assert (result.kind, result.reason) == ("changed", "it changed on every attempt")
    assert copy.read(1) == {"Number": "1", "Name": "ada", "Meddled": "5"}


async def test_the_largest_hash_is_repaired_from_one_that_is_larger(copy: Copy) -> None:
    attributes = {f"f{at}": {"S": f"{at}:"} for at in range(HASH_FIELDS_MAX - 1)}
    copy.table[1] = image(1, **attributes)
    await copy.change(1, copy.table[1])
    if copy.server.value == "hash":
        extra = {f"x{at}": "\r\n1:" for at in range(5_000)}
        copy.server.client.hset("Players:1", mapping=extra)  # type: ignore[arg-type]

    assert [each.kind for each in await copy.repair(1)] == ["repaired"]

    assert copy.read(1) == {
        "Number": "1",
        **{name: each["S"] for name, each in attributes.items()},
    }


async def test_a_key_of_another_type_is_repaired_in_each_mode(any_format: FormatServer) -> None:
    if any_format.value == "redis-json" and not any_format.is_real:
        return  # fakeredis reads any key as a document
    for mode, expected in (
        ("mirror", {"Number": "1", "Name": "ada"}),
        ("refresh", {"Number": "1", "Name": "ada"}),
        ("invalidate", None),
    ):
        copy = Copy(any_format, mode=mode)
        copy.table[1] = image(1, Name={"S": "ada"})
        any_format.client.delete("Players:1", FENCE)
        any_format.client.set("Players:1", '{"Number":1,"Name":"ada"}')

        assert [each.kind for each in await copy.repair(1)] == ["repaired"]
        assert copy.read(1) == expected
        await copy.close()


async def test_a_refused_repair_leaves_value_and_fence(real_format: FormatServer) -> None:
    copy = Copy(real_format)
    await copy.change(1, image(1, Name={"S": "ada"}))
    copy.table[1] = image(1, Other={"S": "x"})
    fence = real_format.client.get(FENCE)
    real_format.client.config_set("maxmemory", "1")
    try:
        (result,) = await copy.repair(1)
    finally:
        real_format.client.config_set("maxmemory", "0")
    await copy.close()

    assert (result.kind, result.reason) == ("failed", "OOM: refused by the server")
    assert copy.read(1) == {"Number": "1", "Name": "ada"}
    assert real_format.client.get(FENCE) == fence


async def test_hashes_of_all_nodes_of_a_cluster_are_written_read_filled_and_repaired(
    cluster: Cluster,
) -> None:
    server = FormatServer("hash", ServerProcess("", "127.0.0.1", 0, None), redis.Redis())
    copy = Copy(server, url=cluster.url, redis_cluster=True)
    items = [image(number, Name={"S": f"player {number}"}) for number in range(60)]
    await copy.mirror.handle(event([record(at, FIRST + at, image=items[at]) for at in range(20)]))
    copy.table = dict(enumerate(items))

    assert await copy.fill(*items[:40]) == [FENCED] * 20 + [APPLIED] * 20
    assert {each.kind for each in await copy.repair(*range(60))} == {"repaired"}

    entries = copy.entries(*items)
    snapshots = await copy.reader.read_pairs(entries)
    assert [each.value and fields_of(each.value) for each in snapshots] == [  # type: ignore[arg-type]
        {b"Number": b"%d" % at, b"Name": b"player %d" % at} for at in range(60)
    ]
    await copy.close()
