"""examples/search: its answers are those of a scan of the table, whatever the stream does."""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import anyio
import pytest
import redis

from asyncsync.aws.clients import AwsClients
from asyncsync.aws.items import json_attributes, scan
from asyncsync.lab.servers import ServerProcess
from tests.support.events import FIRST, arn, event, record
from tests.support.project.command_line import ended
from tests.support.project.package import ROOT
from tests.support.search import search_server
from tests.support.tables import make_table

TABLE = "Pictures"
OWNERS = ("ada", "bob@example.com", "Cy-Young", "d e")
TAGS = ("sea", "sunset", "black & white", "a-b", "50%")
WORDS = ("sun", "hill", "bridge", "river", "snow")


@pytest.fixture(scope="module")
def searching() -> Iterator[ServerProcess]:
    with search_server() as server:
        yield server


@pytest.fixture
def example(searching: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The example's module, with the test's server."""
    monkeypatch.setenv("ASYNCSYNC_REDIS_URL", searching.url)
    monkeypatch.setenv("ASYNCSYNC_VALUE", "hash")
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "search"))
    monkeypatch.setattr("asyncsync.cli.commands.interruptible", nullcontext)
    import gallery  # type: ignore[import-not-found]

    yield gallery
    gallery.mirror.close()
    del sys.modules["gallery"]


def picture(chance: random.Random, number: int) -> Any:
    item = {
        "Id": {"S": f"p:{number}"},
        "owner": {"S": chance.choice(OWNERS)},
        "title": {"S": " ".join(chance.sample(WORDS, 2))},
        "created": {"N": str(chance.randrange(1_000_000))},
    }
    tags = chance.sample(TAGS, chance.randrange(3))
    return {**item, "tags": {"SS": tags}} if tags else item


async def change_table(clients: AwsClients, chance: random.Random) -> list[Any]:
    """Put and delete items of the table; return the stream's records."""
    records = []
    for at in range(300):
        item = picture(chance, chance.randrange(60))
        removed = chance.random() < 0.2
        key = {"Id": item["Id"]}
        if removed:
            await clients.items.delete_item(TableName=TABLE, Key=key)
        else:
            await clients.items.put_item(TableName=TABLE, Item=item)
        records.append(
            record(
                0,
                FIRST + at,
                image=json_attributes(item),
                removed=removed,
                stream_arn=arn(table=TABLE),
                Keys=json_attributes(key),
            )
        )
    return records


def disordered(records: list[Any], chance: random.Random) -> Iterator[list[Any]]:
    """Yield batches in any order, some twice, and old ones again at the end."""
    batches = [records[at : at + 10] for at in range(0, len(records), 10)]
    batches += chance.sample(batches, 10)
    chance.shuffle(batches)
    yield from batches
    yield from chance.sample(batches, 5)


@pytest.mark.parametrize("seed", range(3))
async def test_each_answer_is_that_of_a_scan(
    clients: AwsClients,
    endpoint: str,
    searching: ServerProcess,
    example: Any,
    capsys: pytest.CaptureFixture[str],
    seed: int,
) -> None:
    chance = random.Random(seed)
    options: Any = {"protocol": 2, "decode_responses": True}
    await make_table(clients, TABLE, Id="S")
    with redis.Redis.from_url(searching.url, **options) as client:
        client.flushall()
        try:
            records = await change_table(clients, chance)
            half = len(records) // 2
            await example.mirror.handle(event(records[:10]))
            declaration = example.__doc__.split("asyncsync index ")[1].replace("\\\n", " ").split()
            words = ["index", *declaration, "--endpoint-url", endpoint]
            code, _, err = await anyio.to_thread.run_sync(lambda: ended(capsys, *words))
            assert code == 0, err
            for part in (records[:half], records):
                for batch in disordered(part, chance):
                    answer = await example.mirror.handle(event(batch))
                    assert answer == {"batchItemFailures": []}
            assert_answers(example.Gallery(client), [each async for each in scan(clients, TABLE)])
        finally:
            await clients.items.delete_table(TableName=TABLE)


def assert_answers(gallery: Any, items: list[Any]) -> None:
    """Compare every answer with the table's items."""
    pictures = {item["Id"]["S"]: item for item in items}
    assert len(pictures) > 20

    def ids(matches: Any) -> set[str]:
        return {name for name, item in pictures.items() if matches(item)}

    def created(name: str) -> int:
        return int(pictures[name]["created"]["N"])

    for tag in TAGS:
        wanted = ids(lambda item, tag=tag: tag in item.get("tags", {"SS": []})["SS"])
        assert gallery.with_tag(tag) == wanted
        counts = Counter(pictures[name]["owner"]["S"] for name in wanted)
        busiest = gallery.busiest_owners(tag, 3)
        assert [count for _, count in busiest] == sorted(counts.values(), reverse=True)[:3]
        assert all(counts[owner] == count for owner, count in busiest)
    for owner in OWNERS:
        names = sorted(ids(lambda item, o=owner: item["owner"]["S"] == o), key=created)
        assert gallery.newest_of(owner, 5) == names[::-1][:5]
    for word in WORDS:
        assert gallery.titled(word) == ids(lambda item, w=word: w in item["title"]["S"].split())
    first, last = sorted(map(created, pictures))[5:15:9]
    assert gallery.made_between(first, last) == {
        name for name in pictures if first <= created(name) <= last
    }
