"""The reader beside a real server, a mirror and a table."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from random import Random
from typing import Any, Literal

import pytest
import redis
from botocore.exceptions import ClientError

import asyncsync
from asyncsync import Config, ConfigError, Mirror, RecordError
from asyncsync.aws.clients import AwsClients, AwsFailed
from asyncsync.formats import ARMS, FORMATS
from asyncsync.lab.proxy import proxy_to
from asyncsync.lab.servers import ServerProcess, free_port
from asyncsync.reader import Reader, ReaderOptions, TableBudgetExceeded
from asyncsync.reader.values import ITEM_READERS
from tests.support.mirrored_table import MirroredTable, mirrored_tables
from tests.support.readers import WatchedTable, reading, redis_client
from tests.support.tables import until

ITEM: dict[str, dict[str, Any]] = {
    "Number": {"N": "7"},
    "Name": {"S": "Zoë"},
    "Score": {"N": "1.50"},
    "Id": {"B": b"\xff"},
}
PLAYER = {"Number": Decimal(7), "Name": "Zoë", "Score": Decimal("1.5"), "Id": "/w=="}
KEY = {"Number": 7}
NAME, FENCE = "Players:7", "{Players:7}!f"


@pytest.fixture
async def world(
    clients: AwsClients, endpoint: str, one_server: ServerProcess, one_client: redis.Redis
) -> AsyncIterator[Callable[..., Any]]:
    async with mirrored_tables(clients, endpoint, one_server.url) as make:
        yield make


def options(**values: Any) -> dict[str, Any]:
    return {"options": values}


# --- get --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["mirror", "refresh", "invalidate"])
async def test_a_miss_reads_the_table_once_and_the_next_read_is_a_hit(
    world: Callable[..., Any], one_server: ServerProcess, one_client: redis.Redis, mode: str
) -> None:
    players: MirroredTable = await world(mode=mode)
    await players.change(ITEM)
    await players.deliver()
    one_client.delete(NAME)
    async with reading(players.clients, one_server, players.mirror, "Players") as (reader, table):
        assert await reader.get(KEY) == PLAYER
        await reader.finish_loads()
        assert await reader.get(KEY) == PLAYER
        assert json.loads(await reader.get(KEY, as_bytes=True) or b"") == {
            "Number": 7,
            "Name": "Zoë",
            "Score": 1.5,
            "Id": "/w==",
        }

    assert table.requests == ["GetItem"]
    counts = reader.counters.as_dict()
    assert {name: count for name, count in counts.items() if count} == {
        "hits": 2,
        "misses": 1,
        "table_reads": 1,
        "fills": 1,
    }


async def test_a_hit_is_one_get_and_nothing_else(
    clients: AwsClients, one_server: ServerProcess, one_client: redis.Redis
) -> None:
    one_client.set(NAME, b'{"Number":7}')
    mirror = Mirror(Config(redis_url=one_server.url))
    async with reading(clients, one_server, mirror, "Players") as (reader, table):
        await reader.get(KEY)  # connects
        client: Any = redis.Redis(port=one_server.port)
        with client.monitor() as monitor:
            await reader.get(KEY)
            await reader.get_many([KEY, KEY])
            one_client.echo("end")
            commands = []
            for each in monitor.listen():
                if each["command"] == "ECHO end":
                    break
                commands.append(each["command"])
        client.close()

    assert commands == [f"GET {NAME}", f"MGET {NAME} {NAME}"]
    assert table.requests == []


async def test_a_miss_is_two_round_trips_and_a_read_until_its_answer(
    world: Callable[..., Any], one_server: ServerProcess, one_client: redis.Redis
) -> None:
    players: MirroredTable = await world()
    for number in (1, 2):
        await players.change({**ITEM, "Number": {"N": str(number)}})
    async with proxy_to(one_server.host, one_server.port) as proxy:
        near = ServerProcess("proxy", "127.0.0.1", proxy.port, None)
        async with reading(players.clients, near, players.mirror, "Players") as (reader, table):
            await reader.get({"Number": 1})  # the server gets both scripts
            await reader.finish_loads()
            before = proxy.turns

            assert await reader.get({"Number": 2}) is not None
            until_answer = proxy.turns - before
            await reader.finish_loads()

    assert until_answer == 2
    assert proxy.turns - before == 3  # and the load
    assert table.requests == ["GetItem"] * 2


async def test_a_miss_that_a_record_overtakes_answers_and_does_not_fill(
    world: Callable[..., Any], one_server: ServerProcess, one_client: redis.Redis
) -> None:
    players: MirroredTable = await world(mode="invalidate")
    await players.change(ITEM)
    async with reading(players.clients, one_server, players.mirror, "Players") as (reader, table):
        table.during = players.deliver

        assert await reader.get(KEY) == PLAYER
        await reader.finish_loads()

    assert one_client.get(NAME) is None
    assert (reader.counters.fills, reader.counters.refused_fills) == (0, 1)


async def test_a_deletion_during_the_read_stays_a_deletion(
    world: Callable[..., Any], one_server: ServerProcess, one_client: redis.Redis
) -> None:
    players: MirroredTable = await world()
    await players.change(ITEM)
    await players.deliver()
    one_client.delete(NAME)

    async def remove() -> None:
        await players.change(ITEM, removed=True)
        await players.deliver()

    async with reading(players.clients, one_server, players.mirror, "Players") as (reader, table):
        table.during = remove
        assert await reader.get(KEY) == PLAYER  # what it read
        await reader.finish_loads()
        assert one_client.get(NAME) is None
        assert await reader.get(KEY) is None


@pytest.mark.parametrize("end", ["deleted", "flushed"])
async def test_an_absent_fence_proves_nothing(
    world: Callable[..., Any], one_server: ServerProcess, one_client: redis.Redis, end: str
) -> None:
    players: MirroredTable = await world()
    await players.change(ITEM)

    async def forget() -> None:
        one_client.delete(FENCE) if end == "deleted" else one_client.flushall()

    async with reading(players.clients, one_server, players.mirror, "Players") as (reader, table):
        table.during = forget
        assert await reader.get(KEY) == PLAYER
        await reader.finish_loads()

    assert one_client.get(NAME) is None
    assert reader.counters.refused_fills == 1


async def test_what_does_not_exist_is_remembered_until_the_stream_inserts_it(
    world: Callable[..., Any], one_server: ServerProcess, one_client: redis.Redis
) -> None:
    players: MirroredTable = await world(mode="refresh")
    async with reading(players.clients, one_server, players.mirror, "Players") as (reader, table):
        assert await reader.get(KEY) is None
        await reader.finish_loads()
        assert await reader.get(KEY) is None
        assert (table.items, reader.counters.absent_hits) == (1, 1)

        await players.change(ITEM)
        assert await reader.get(KEY) is None  # the stream is behind: at most absent_ms
        await players.deliver()

        assert await reader.get(KEY) == PLAYER
        assert table.items == 2


async def test_absent_ms_0_remembers_nothing(
    world: Callable[..., Any], one_server: ServerProcess
) -> None:
    players: MirroredTable = await world()
    given = options(absent_ms=0)
    async with reading(players.clients, one_server, players.mirror, "Players", **given) as (
        reader,
        table,
    ):
        for _ in range(3):
            assert await reader.get(KEY) is None
            await reader.finish_loads()

    assert (table.items, reader.counters.waits) == (3, 0)


async def test_one_process_loads_a_key_once(
    world: Callable[..., Any], one_server: ServerProcess
) -> None:
    players: MirroredTable = await world()
    await players.change(ITEM)
    async with reading(players.clients, one_server, players.mirror, "Players") as (reader, table):
        found = await asyncio.gather(*(reader.get(KEY) for _ in range(200)))

    assert found == [PLAYER] * 200
    assert table.items == 1
    assert reader.counters.waits == 0  # one flight: nobody met a lease
    assert reader.counters.cache_errors == 0  # a full pool is no failure


async def test_a_caller_that_comes_after_the_read_does_not_get_what_it_read(
    world: Callable[..., Any], one_server: ServerProcess
) -> None:
    players: MirroredTable = await world(mode="invalidate")
    await players.change(ITEM)
    async with reading(players.clients, one_server, players.mirror, "Players") as (reader, table):
        later: list[asyncio.Task[Any]] = []

        async def change_and_read_again() -> None:
            await players.change({**ITEM, "Name": {"S": "Ada"}})
            await players.deliver()
            later.append(asyncio.create_task(reader.get(KEY)))
            await asyncio.sleep(0.05)

        table.during = change_and_read_again

        assert await reader.get(KEY) == PLAYER
        assert await later[0] == {**PLAYER, "Name": "Ada"}


async def test_a_caller_that_gives_up_does_not_end_the_load_of_the_others(
    world: Callable[..., Any], one_server: ServerProcess, one_client: redis.Redis
) -> None:
    players: MirroredTable = await world()
    await players.change(ITEM)
    async with reading(players.clients, one_server, players.mirror, "Players") as (reader, table):
        first = asyncio.create_task(reader.get(KEY))
        second: list[asyncio.Task[Any]] = []

        async def give_up() -> None:
            second.append(asyncio.create_task(reader.get(KEY)))
            await until(lambda: reader.counters.misses == 2)
            first.cancel()
            await until(first.done)

        table.during = give_up
        await until(lambda: second)

        assert await second[0] == PLAYER
        assert first.cancelled()
        await reader.finish_loads()

    assert table.items == 1
    assert one_client.get(NAME) is not None


async def test_a_batch_that_takes_long_does_not_keep_an_answer_that_was_overtaken(
    world: Callable[..., Any], one_server: ServerProcess
) -> None:
    players: MirroredTable = await world(mode="invalidate")
    await players.change(ITEM)
    given = options(table_reads_per_s=1, wait_ms=10_000)  # a second for each key
    async with reading(players.clients, one_server, players.mirror, "Players", **given) as (
        reader,
        table,
    ):

        async def overtake() -> None:
            await players.change({**ITEM, "Name": {"S": "Ada"}})
            await players.deliver()

        table.during = overtake
        many = asyncio.create_task(reader.get_many([KEY, {"Number": 8}, {"Number": 9}]))
        await until(lambda: reader.counters.refused_fills)

        item = await reader.get(KEY)

        assert item is not None
        assert item["Name"] == "Ada"
        assert [each and each["Name"] for each in await many] == ["Zoë", None, None]


async def test_two_readers_share_one_load(
    world: Callable[..., Any], one_server: ServerProcess
) -> None:
    players: MirroredTable = await world()
    await players.change(ITEM)
    given = options(wait_ms=10_000)
    async with (
        reading(players.clients, one_server, players.mirror, "Players", **given) as (one, table),
        reading(players.clients, one_server, players.mirror, "Players", **given) as (two, other),
    ):
        second: list[asyncio.Task[Any]] = []

        async def join() -> None:
            second.append(asyncio.create_task(two.get(KEY)))
            await until(lambda: two.counters.waits)

        table.during = join
        assert await one.get(KEY) == PLAYER
        assert await second[0] == PLAYER

    assert (table.items, other.items, two.counters.waits) == (1, 0, 1)


async def test_a_reader_that_waited_in_vain_reads_the_table_and_fills_nothing(
    world: Callable[..., Any], one_server: ServerProcess, one_client: redis.Redis
) -> None:
    players: MirroredTable = await world()
    await players.change(ITEM)
    given = options(wait_ms=30)
    async with (
        reading(players.clients, one_server, players.mirror, "Players") as (one, table),
        reading(players.clients, one_server, players.mirror, "Players", **given) as (two, other),
    ):

        async def overtake() -> None:
            assert await two.get(KEY) == PLAYER
            await two.finish_loads()
            assert one_client.get(NAME) is None

        table.during = overtake
        assert await one.get(KEY) == PLAYER
        await one.finish_loads()

    assert (other.items, two.counters.waits, two.counters.fills) == (1, 1, 0)
    assert one.counters.fills == 1


async def test_a_load_that_fails_lets_the_next_reader_load_at_once(
    world: Callable[..., Any], one_server: ServerProcess
) -> None:
    players: MirroredTable = await world()
    await players.change(ITEM)
    async with (
        reading(players.clients, one_server, players.mirror, "Players") as (one, table),
        reading(players.clients, one_server, players.mirror, "Players") as (two, _),
    ):
        table.error = ClientError({"Error": {"Code": "InternalServerError"}}, "GetItem")
        with pytest.raises(AwsFailed, match="InternalServerError"):
            await one.get(KEY)
        await one.finish_loads()

        assert await two.get(KEY) == PLAYER

    assert two.counters.waits == 0


async def test_the_table_away_is_an_error_unless_the_copy_alone_is_asked(
    world: Callable[..., Any], one_server: ServerProcess
) -> None:
    players: MirroredTable = await world()
    await players.change(ITEM)
    await players.deliver()
    async with reading(players.clients, one_server, players.mirror, "Players") as (reader, table):
        table.error = ClientError({"Error": {"Code": "InternalServerError"}}, "GetItem")

        assert await reader.get(KEY) == PLAYER
        with pytest.raises(AwsFailed):
            await reader.get({"Number": 8})
        with pytest.raises(AwsFailed):
            await reader.get_many([KEY, {"Number": 8}, {"Number": 9}])
        assert await reader.get({"Number": 8}, copy_only=True) is None
        assert await reader.get_many([KEY, {"Number": 8}], copy_only=True) == [PLAYER, None]
        assert table.items == 3


# --- values -----------------------------------------------------------------------------------


def test_every_format_has_a_reader() -> None:
    assert ITEM_READERS.keys() == FORMATS.keys() - ARMS.keys()  # those are refused


@pytest.mark.parametrize("source", ["stream", "reader"])
async def test_dynamodb_json_keeps_every_type(
    world: Callable[..., Any], one_server: ServerProcess, source: str
) -> None:
    players: MirroredTable = await world(value="dynamodb-json")
    whole: Any = {
        **ITEM,
        "Tags": {"SS": ["a", "b"]},
        "Scores": {"NS": ["1", "2.5"]},
        "Parts": {"L": [{"NULL": True}, {"BOOL": False}, {"M": {"x": {"N": "1E100"}}}]},
    }
    await players.change(whole)
    if source == "stream":
        await players.deliver()
    async with reading(players.clients, one_server, players.mirror, "Players") as (reader, table):
        found = await reader.get(KEY)

    assert found == {
        "Number": Decimal(7),
        "Name": "Zoë",
        "Score": Decimal("1.5"),
        "Id": b"\xff",
        "Tags": {"a", "b"},
        "Scores": {Decimal(1), Decimal("2.5")},
        "Parts": [None, False, {"x": Decimal("1E100")}],
    }
    assert isinstance(found["Number"], Decimal)
    assert table.items == (source == "reader")


@pytest.mark.parametrize("source", ["stream", "reader"])
async def test_a_transforms_value_is_read_as_it_made_it(
    world: Callable[..., Any], one_server: ServerProcess, source: str
) -> None:
    def transform(item: dict[str, Any]) -> dict[str, object] | bytes | None:
        made: dict[int, Any] = {
            7: {"upper": str(item["Name"]).upper()},
            8: b"\x00\xffbytes",
            9: None,
        }
        value: dict[str, object] | bytes | None = made[int(item["Number"])]
        return value

    players: MirroredTable = await world(transform=transform)
    for number in (7, 8, 9):
        await players.change({**ITEM, "Number": {"N": str(number)}})
    if source == "stream":
        await players.deliver()
    async with reading(players.clients, one_server, players.mirror, "Players") as (reader, _):
        assert await reader.get(KEY) == {"upper": "ZOË"}
        assert await reader.get(KEY, as_bytes=True) == b'{"upper":"ZO\xc3\x8b"}'
        assert await reader.get({"Number": 8}, as_bytes=True) == b"\x00\xffbytes"
        with pytest.raises(RecordError, match="as_bytes=True"):
            await reader.get({"Number": 8})
        assert await reader.get({"Number": 9}) is None
        await reader.finish_loads()
        assert await reader.get({"Number": 9}) is None
        assert reader.counters.absent_hits == 1  # left out is known absent too


async def test_a_transform_that_fails_is_an_error_of_that_item_alone(
    world: Callable[..., Any], one_server: ServerProcess
) -> None:
    def transform(item: dict[str, Any]) -> dict[str, object]:
        return {"inverse": 1 / (item["Number"] - 7)}

    players: MirroredTable = await world(transform=transform)
    for number in (7, 8):
        await players.change({**ITEM, "Number": {"N": str(number)}})
    async with reading(players.clients, one_server, players.mirror, "Players") as (reader, _):
        with pytest.raises(RecordError, match="the transform raised DivisionByZero"):
            await reader.get(KEY)
        assert await reader.get({"Number": 8}) == {"inverse": 1}


@pytest.mark.parametrize("content", [b"not JSON", b"[1]", b'"x"', b"\xff", b"[" * 100_000])
async def test_another_programs_value_is_passed_over(
    world: Callable[..., Any], one_server: ServerProcess, one_client: redis.Redis, content: bytes
) -> None:
    players: MirroredTable = await world()
    await players.change(ITEM)
    one_client.set(NAME, content)
    async with reading(players.clients, one_server, players.mirror, "Players") as (reader, _):
        assert await reader.get(KEY) == PLAYER
        assert await reader.get_many([KEY]) == [PLAYER]
        assert await reader.get(KEY, copy_only=True) is None


async def test_a_key_of_another_type_is_a_miss_and_stays(
    world: Callable[..., Any], one_server: ServerProcess, one_client: redis.Redis
) -> None:
    """The server refuses GET, ten times in a row: it is not away."""
    players: MirroredTable = await world()
    keys = [{"Number": number} for number in range(10)]
    for number in range(10):
        await players.change({**ITEM, "Number": {"N": str(number)}})
        one_client.lpush(f"Players:{number}", "1")
    async with reading(players.clients, one_server, players.mirror, "Players") as (reader, _):
        states: set[str] = set()

        async def get(key: dict[str, int]) -> Any:
            item = await reader.get(key)
            states.add(reader.circuit)
            return item

        assert all(await asyncio.gather(*map(get, keys)))
        assert all(await reader.get_many(keys))
        assert states == {"closed"}
        assert "WRONGTYPE" in reader.last_cache_error

    assert one_client.type(NAME) == b"list"


async def test_an_expiry_is_the_mirrors_less_the_jitter(
    world: Callable[..., Any], one_server: ServerProcess, one_client: redis.Redis
) -> None:
    players: MirroredTable = await world(ttl_s=10_000)
    for number in range(60):
        await players.change({**ITEM, "Number": {"N": str(number)}})
    given: Any = {**options(jitter=0.5), "chance": Random(1)}
    async with reading(players.clients, one_server, players.mirror, "Players", **given) as (
        reader,
        _,
    ):
        await reader.prefetch({"Number": number} for number in range(60))
        await reader.finish_loads()

    lives: Any = [one_client.ttl(f"Players:{number}") for number in range(60)]
    assert all(4_990 <= life <= 10_000 for life in lives)
    assert max(lives) - min(lives) > 3_000


@pytest.mark.parametrize(("ends_in_s", "life_s"), [(1_000, 1_000), (50_000, 10_000), (-60, None)])
async def test_an_item_that_expires_sooner_does_so_without_jitter(
    world: Callable[..., Any],
    one_server: ServerProcess,
    one_client: redis.Redis,
    ends_in_s: int,
    life_s: int | None,
) -> None:
    players: MirroredTable = await world(ttl_s=10_000, ttl_attribute="Ends")
    await players.change({**ITEM, "Ends": {"N": str(int(time.time()) + ends_in_s)}})
    given = options(jitter=0)
    async with reading(players.clients, one_server, players.mirror, "Players", **given) as (
        reader,
        _,
    ):
        found = await reader.get(KEY)
        await reader.finish_loads()

    assert (found is None) == (life_s is None)
    if life_s is not None:
        assert life_s - 10 <= one_client.ttl(NAME) <= life_s


# --- get_many and prefetch --------------------------------------------------------------------


async def test_many_are_returned_in_order_from_one_mget_and_batches(
    world: Callable[..., Any], one_server: ServerProcess, one_client: redis.Redis
) -> None:
    players: MirroredTable = await world()
    for number in range(0, 250, 2):
        await players.change({**ITEM, "Number": {"N": str(number)}})
    await players.deliver()
    for number in range(0, 250, 4):
        one_client.delete(f"Players:{number}")
    keys = [{"Number": number} for number in (*range(250), 0, 1, 2)]
    async with reading(players.clients, one_server, players.mirror, "Players") as (reader, table):
        found = await reader.get_many(keys)
        await reader.finish_loads()
        again = await reader.get_many(keys)
        assert await reader.get_many([]) == []

    numbers = [None if each is None else each["Number"] for each in found]
    assert numbers == [None if key["Number"] % 2 else key["Number"] for key in keys]
    assert again == found
    assert table.requests == ["BatchGetItem"] * 2  # 63 evicted, 125 that do not exist
    assert table.items == 188
    assert reader.counters.absent_hits == 125
    assert reader.counters.fills == 63


async def test_keys_that_dynamodb_leaves_unread_are_read_again(
    world: Callable[..., Any], one_server: ServerProcess
) -> None:
    players: MirroredTable = await world()
    for number in range(4):
        await players.change({**ITEM, "Number": {"N": str(number)}})
    async with reading(players.clients, one_server, players.mirror, "Players") as (reader, table):
        table.unread = 2
        found = await reader.get_many([{"Number": number} for number in range(5)])

    assert [each and each["Number"] for each in found] == [0, 1, 2, 3, None]
    assert table.requests == ["BatchGetItem"] * 3


async def test_a_table_that_stays_throttled_is_an_error(
    world: Callable[..., Any], one_server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asyncsync.aws.table_reads.UNREAD_PAUSES_S", (0.0, 0.0))
    players: MirroredTable = await world()
    async with reading(players.clients, one_server, players.mirror, "Players") as (reader, table):
        table.unread = 3

        with pytest.raises(AwsFailed, match="throttles"):
            await reader.get_many([{"Number": number} for number in range(6)])


async def test_an_answer_that_is_silent_about_the_table_is_an_error(
    world: Callable[..., Any], one_server: ServerProcess
) -> None:
    """Else every item that was asked for would be taken for absent."""
    players: MirroredTable = await world()
    async with reading(players.clients, one_server, players.mirror, "Players") as (reader, table):

        async def silent(**_: Any) -> Any:
            return {"Responses": {}, "UnprocessedKeys": {}}

        table.batch_get_item = silent  # type: ignore[method-assign]
        with pytest.raises(AwsFailed, match="does not speak of it"):
            await reader.get_many([{"Number": 1}, {"Number": 2}])


async def test_prefetch_keeps_to_the_budget_and_loads_all(
    world: Callable[..., Any], one_server: ServerProcess, one_client: redis.Redis
) -> None:
    players: MirroredTable = await world()
    for number in range(90):
        await players.change({**ITEM, "Number": {"N": str(number)}})
    given = options(table_reads_per_s=60, wait_ms=0)
    async with reading(players.clients, one_server, players.mirror, "Players", **given) as (
        reader,
        table,
    ):
        began_s = time.monotonic()
        await reader.prefetch({"Number": number} for number in range(90))
        took_s = time.monotonic() - began_s
        await reader.finish_loads()
        assert all(await reader.get_many([{"Number": n} for n in range(90)], copy_only=True))

    assert table.items == 90
    assert took_s >= 0.5


# --- Redis away -------------------------------------------------------------------------------


async def test_without_redis_the_table_answers_until_the_budget_is_used_up(
    world: Callable[..., Any], clients: AwsClients
) -> None:
    players: MirroredTable = await world()
    await players.change(ITEM)
    nowhere = ServerProcess("none", "127.0.0.1", free_port(), None)
    given = options(table_reads_per_s=5, wait_ms=0)
    async with reading(clients, nowhere, players.mirror, "Players", **given) as (reader, table):
        for _ in range(5):
            assert await reader.get(KEY) == PLAYER
        assert reader.circuit == "open"
        assert reader.last_cache_error.startswith("ConnectionError: ")
        with pytest.raises(TableBudgetExceeded, match=r"table_reads_per_s.*copy_only=True"):
            await reader.get(KEY)
        assert await reader.get(KEY, copy_only=True) is None
        with pytest.raises(TableBudgetExceeded):
            await reader.get_many([KEY, {"Number": 8}])

    assert table.items == 5
    assert reader.counters.over_budget == 3
    assert 3 <= reader.counters.cache_errors < 10  # an open circuit does not ask


async def test_a_budget_that_comes_back_in_time_is_waited_for(
    world: Callable[..., Any], clients: AwsClients
) -> None:
    players: MirroredTable = await world()
    await players.change(ITEM)
    nowhere = ServerProcess("none", "127.0.0.1", free_port(), None)
    given = options(table_reads_per_s=10, wait_ms=1_000)
    async with reading(clients, nowhere, players.mirror, "Players", **given) as (reader, table):
        began_s = time.monotonic()
        for _ in range(25):
            assert await reader.get(KEY) == PLAYER

    assert time.monotonic() - began_s >= 1.5
    assert table.items == 25


# --- its clients and settings -----------------------------------------------------------------


async def test_a_reader_makes_its_own_clients(
    world: Callable[..., Any], endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "local")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "local")
    players: MirroredTable = await world()
    await players.change(ITEM)
    made = Reader(players.mirror, "Players", region="us-east-1", endpoint_url=endpoint)
    async with made as reader:
        assert await reader.get(KEY) == PLAYER
        await reader.finish_loads()
        assert await reader.get(KEY, copy_only=True) == PLAYER
    await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="open the reader first"):
        await reader.get(KEY)


async def test_the_region_is_the_arguments_or_the_arns(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    config = Config(redis_url="redis://unused")
    arn = "arn:aws:dynamodb:eu-west-1:123456789012:table/Players"

    async def region_of(table: str, **arguments: Any) -> str:
        async with Reader(config, table, **arguments) as reader:
            read: Any = reader._opened()[1]._read
            return str(read.__self__._client.meta.region_name)

    assert await region_of(arn) == "eu-west-1"
    assert await region_of(arn, region="us-east-1") == "us-east-1"
    with pytest.raises(AwsFailed, match="give region="):
        await region_of("Players")


def test_a_program_without_an_event_loop_has_the_same_reader(
    one_server: ServerProcess,
    one_client: redis.Redis,
    moto: str,
    one_loader: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "local")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "local")
    one_client.set(NAME, b'{"Number":7}')
    one_client.set("Players:8", b'{"Number":8}')
    config = Config(redis_url=one_server.url)
    arguments: Any = {"region": "us-east-1", "endpoint_url": moto}
    with Reader.sync(config, "Players", **arguments) as blocking:
        assert blocking.get(KEY) == {"Number": 7}
        assert blocking.get(KEY, as_bytes=True) == b'{"Number":7}'
        assert blocking.get_many([KEY, {"Number": 8}]) == [{"Number": 7}, {"Number": 8}]
        assert blocking.get_many([KEY], as_bytes=True) == [b'{"Number":7}']
        blocking.prefetch([KEY])
        assert blocking.reader.counters.hits == 6

    with pytest.raises(RuntimeError, match="open the reader first"):
        blocking.get(KEY)


async def test_a_config_alone_is_enough(
    one_server: ServerProcess, one_client: redis.Redis, clients: AwsClients
) -> None:
    one_client.set("mine:7", b'{"Number":7}')
    client = redis_client(one_server)
    config = Config(redis_url=one_server.url, key="mine:{Number}")
    watched: Any = WatchedTable(clients.items)
    arn = "arn:aws:dynamodb:us-east-1:123456789012:table/Players"
    async with Reader(config, arn, redis=client, dynamodb=watched) as reader:
        assert await reader.get(KEY) == {"Number": 7}
    await client.aclose()


def test_without_fences_no_reader_starts() -> None:
    with pytest.raises(ConfigError, match="ASYNCSYNC_FENCE=on"):
        Reader(Config(redis_url="redis://unused", fence="off"), "Players")


@pytest.mark.parametrize(("value", "word"), [("hash", "HGETALL"), ("redis-json", "JSON.GET")])
def test_a_format_that_a_reader_cannot_read_is_refused(
    value: Literal["hash", "redis-json"], word: str
) -> None:
    with pytest.raises(ConfigError, match=f"cannot read ASYNCSYNC_VALUE={value} yet: send {word}"):
        Reader(Config(redis_url="redis://unused", value=value), "Players")


async def test_a_client_that_decodes_is_refused(one_server: ServerProcess) -> None:
    client = redis.asyncio.Redis(port=one_server.port, decode_responses=True)
    with pytest.raises(ConfigError, match="decode_responses=False"):
        Reader(Config(redis_url="redis://unused"), "Players", redis=client)
    await client.aclose()


async def test_the_callback_hears_what_the_counters_count(
    world: Callable[..., Any], one_server: ServerProcess
) -> None:
    heard: dict[str, int] = {}

    def on_count(name: str, by: int) -> None:
        heard[name] = heard.get(name, 0) + by

    players: MirroredTable = await world()
    await players.change(ITEM)
    given: Any = {"on_count": on_count}
    async with reading(players.clients, one_server, players.mirror, "Players", **given) as (
        reader,
        _,
    ):
        await reader.get(KEY)
        await reader.finish_loads()
        await reader.get_many([KEY, {"Number": 8}])

    counts = reader.counters.as_dict()
    assert heard == {name: count for name, count in counts.items() if count}
    assert heard["hits"] == 1


@pytest.mark.parametrize(
    ("key", "error"),
    [
        ({}, RecordError),
        ({"Number": ""}, RecordError),
        ({"Number": None}, RecordError),
        ({"Number": True}, RecordError),
        ({"Number": 10**38 + 1}, ValueError),
        ({"Number": 1j}, TypeError),
        ({"Number": [1]}, RecordError),
        ({"Number": {"N": "x"}}, RecordError),
        ({"Number": 1, "Name": "x"}, ConfigError),
        ({"Name": "x"}, ConfigError),
    ],
)
def test_what_is_no_key_is_refused(key: dict[str, Any], error: type[Exception]) -> None:
    namer = Reader(Config(redis_url="redis://unused", key="p:{Number}"), "Players")._namer

    for _ in range(2):
        with pytest.raises(error):
            namer.names(key)


def test_the_package_exports_the_reader_when_it_is_asked_for() -> None:
    assert asyncsync.Reader is Reader
    assert asyncsync.ReaderOptions is ReaderOptions
    assert asyncsync.TableBudgetExceeded is TableBudgetExceeded
    with pytest.raises(AttributeError, match="Writer"):
        asyncsync.Writer  # noqa: B018


def test_names_are_the_mirrors() -> None:
    names = Reader(
        Mirror(Config(redis_url="redis://unused", key="{@table}:{Id}:{At}")), "Players"
    )._namer
    mirror = Mirror(Config(redis_url="redis://unused", key="{@table}:{Id}:{At}"))
    keys: list[dict[str, Any]] = [
        {"Id": "x", "At": 7},
        {"At": 7, "Id": "x"},
        {"Id": "x", "At": Decimal("7.0")},
        {"Id": "ä:{}!%", "At": -12},
        {"Id": b"\xff", "At": 10**37},
        {"Id": bytearray(b"\xff"), "At": 1e20},
        {"Id": {"S": "x"}, "At": {"N": "7"}},
    ]

    for _ in range(2):  # made, then from memory
        for key in keys:
            assert names.names(key).name.decode() == mirror.redis_key(key, table="Players")
