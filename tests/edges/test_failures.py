"""The failures table of the design, row by row, and the rest of the batch in Redis.

`make mutants` takes each row's rule out of the code and sees these tests fail.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis

from asyncsync import BatchFailed, Config, ConfigError, EventError, Mirror, StoreRefused
from asyncsync.config import Server
from asyncsync.fence import version
from asyncsync.lab.proxy import Proxy, proxy_to
from asyncsync.lab.servers import ServerProcess, redis_process
from asyncsync.metrics import METRICS
from asyncsync.model import SequenceNumber
from tests.support.context import Context
from tests.support.events import FIRST, event, failed, record
from tests.support.history import MIRRORS

POISON = {"Number": {"N": "99"}, "Name": {"Q": "no such type"}}
GOOD = [record(at, FIRST + at) for at in range(99)]


@pytest.fixture(autouse=True, params=MIRRORS.values(), ids=list(MIRRORS))
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test in both ways: as Lambda calls a mirror, and on the caller's event loop."""
    monkeypatch.setattr(Handled, "made", request.param)


class Handled:
    """A mirror that keeps its printed lines; an answer is the reported sequence numbers."""

    made: type[Mirror] = Mirror

    def __init__(self, url: str, **options: Any) -> None:
        self.printed: list[dict[str, Any]] = []
        self.mirror = self.made(
            Config(redis_url=url, **options),
            emit=lambda line: self.printed.append(json.loads(line)),
        )

    async def __call__(
        self, *records: dict[str, Any], context: Context | None = None
    ) -> list[str]:
        return failed(await self.mirror.handle(event(records), context))

    @property
    def log(self) -> dict[str, Any]:
        return [line for line in self.printed if "_aws" not in line][-1]

    @property
    def counts(self) -> dict[str, Any]:
        """Return the last line's metrics, which leaves out counts of zero."""
        return dict.fromkeys(METRICS, 0) | [line for line in self.printed if "_aws" in line][-1]

    async def close(self) -> None:
        self.mirror.close()
        await asyncio.sleep(0)


@asynccontextmanager
async def handling(url: str, **options: Any) -> AsyncIterator[Handled]:
    handled = Handled(url, **options)
    try:
        yield handled
    finally:
        await handled.close()


def ninety_nine_are_there(client: redis.Redis) -> bool:
    return all(client.exists(f"Players:{at}") for at in range(99))


# --- surviving record cannot be decoded or encoded --------------------------------------------


@pytest.mark.parametrize(
    "poison",
    [
        record(99, FIRST + 500, image=POISON),
        record(99, FIRST + 500, image={"Points": {"N": "1e"}}),
        record(99, FIRST + 500, image={"Points": {"N": "+5"}}),
        record(99, FIRST + 500, NewImage=None),
        record(99, FIRST + 500) | {"eventName": "UPSERT"},
    ],
    ids=["unknown type", "malformed number", "plus sign", "no image", "event name"],
)
async def test_one_unencodable_survivor_is_removed_and_reported_and_99_are_written(
    any_server: ServerProcess, any_client: redis.Redis, poison: dict[str, Any]
) -> None:
    any_client.set("Players:99", "before")
    async with handling(any_server.url) as handle:
        assert await handle(*GOOD, poison) == [str(FIRST + 500)]

        assert ninety_nine_are_there(any_client)
        assert any_client.get("Players:99") is None  # readers miss rather than read an old value
        assert any_client.get("{Players:99}!f") == _fence(FIRST + 500, rank=b"0")
        assert handle.counts["Rejected"] == 1
        assert handle.log["event"] == "rejected"
        assert "no such type" not in json.dumps(handle.printed)

        # After a deployment that can read it, the same record is written.
        assert await handle(record(99, FIRST + 500)) == []
        assert any_client.get("Players:99") is not None


async def test_skip_removes_the_key_counts_and_goes_on(
    any_server: ServerProcess, any_client: redis.Redis
) -> None:
    any_client.set("Players:99", "before")
    async with handling(any_server.url, rejects="skip") as handle:
        assert await handle(*GOOD, record(99, FIRST + 500, image=POISON)) == []

        assert ninety_nine_are_there(any_client)
        assert any_client.get("Players:99") is None
        assert handle.counts["Rejected"] == 1
        assert handle.log["paths"] == ["Name"]


async def test_skip_never_skips_a_failed_write(real_server: ServerProcess) -> None:
    """The removal of an unreadable record is a write like any other."""
    async with proxy_to(real_server.host, real_server.port) as proxy:
        proxy.cut()
        async with handling(_url(proxy), rejects="skip") as handle:
            assert await handle(record(99, FIRST, image=POISON)) == [str(FIRST)]


async def test_a_bad_record_that_a_later_one_supersedes_costs_nothing(
    any_server: ServerProcess, any_client: redis.Redis
) -> None:
    async with handling(any_server.url) as handle:
        poison, later = record(1, FIRST, image=POISON), record(1, FIRST + 1)

        assert await handle(later, poison) == []
        assert handle.counts["Rejected"] == 0


async def test_the_lowest_over_keys_of_the_highest_of_each_key_is_reported(
    any_server: ServerProcess, any_client: redis.Redis
) -> None:
    async with handling(any_server.url) as handle:
        answer = await handle(
            record(1, FIRST + 1, image=POISON),
            record(2, FIRST + 2, image=POISON),
            record(1, FIRST + 9, image=POISON),
            record(2, f"00{FIRST + 5}", image=POISON),
        )

        assert answer == [f"00{FIRST + 5}"]  # as the text that came


async def test_raise_fails_the_invocation_after_the_rest_is_written(
    any_server: ServerProcess, any_client: redis.Redis
) -> None:
    async with handling(any_server.url, on_failure="raise") as handle:
        with pytest.raises(BatchFailed, match=str(FIRST + 500)):
            await handle(*GOOD, record(99, FIRST + 500, image=POISON))

        assert ninety_nine_are_there(any_client)


# --- record without a usable key --------------------------------------------------------------


@pytest.mark.parametrize(
    "keys",
    [None, {}, {"Number": {"L": []}}, {"Number": {"N": "x"}}, {"Number": {"S": ""}}, "Number"],
    ids=str,
)
async def test_a_record_without_a_usable_key_is_reported_and_99_are_written(
    any_server: ServerProcess, any_client: redis.Redis, keys: object
) -> None:
    async with handling(any_server.url) as handle:
        assert await handle(*GOOD, record(99, FIRST + 500, Keys=keys)) == [str(FIRST + 500)]

        assert ninety_nine_are_there(any_client)
        assert not any_client.exists("Players:99")
        assert handle.counts["Rejected"] == 1


async def test_a_batch_with_nothing_to_write_does_not_wait_for_redis() -> None:
    """No server listens: the answer is about the record, not the network."""
    async with handling("redis://127.0.0.1:1") as handle:
        assert await handle(record(99, FIRST, Keys=None)) == [str(FIRST)]

        assert handle.log["event"] == "rejected"
        assert handle.counts["Failed"] == 0


# --- record without a usable sequence number --------------------------------------------------


@pytest.mark.parametrize("number", ["", "12a", "1" * 41, "-5", "٣", " 7"], ids=repr)
async def test_a_record_that_cannot_be_named_raises_after_the_rest_is_written(
    any_server: ServerProcess, any_client: redis.Redis, number: str
) -> None:
    async with handling(any_server.url) as handle:
        with pytest.raises(EventError, match="cannot be named"):
            await handle(*GOOD, record(99, number))

        assert ninety_nine_are_there(any_client)
        assert not any_client.exists("Players:99")


# --- stream view without new images -----------------------------------------------------------


@pytest.mark.parametrize("view", ["KEYS_ONLY", "OLD_IMAGE"])
@pytest.mark.parametrize("mode", ["mirror", "refresh"])
async def test_a_view_without_new_images_raises_and_names_both_remedies(
    any_server: ServerProcess, any_client: redis.Redis, view: str, mode: str
) -> None:
    async with handling(any_server.url, mode=mode) as handle:
        with pytest.raises(ConfigError, match=rf"{view}.*NEW_IMAGE.*ASYNCSYNC_MODE=invalidate"):
            await handle(record(1, FIRST, view=view))
        assert any_client.dbsize() == 0


@pytest.mark.parametrize("view", ["KEYS_ONLY", "OLD_IMAGE", "NEW_IMAGE"])
async def test_invalidate_needs_no_image(
    any_server: ServerProcess, any_client: redis.Redis, view: str
) -> None:
    any_client.set("Players:1", "filled by a reader")
    async with handling(any_server.url, mode="invalidate") as handle:
        assert await handle(record(1, FIRST, view=view, NewImage=None)) == []

        assert any_client.get("Players:1") is None
        assert any_client.get("{Players:1}!f") == _fence(FIRST)


# --- two items on one Redis key ---------------------------------------------------------------


async def test_two_items_on_one_redis_key_raise_and_nothing_is_written(
    any_server: ServerProcess, any_client: redis.Redis
) -> None:
    mirror = Mirror(Config(redis_url=any_server.url), key=lambda keys: "all the same")

    with pytest.raises(ConfigError, match=f"not injective.*{FIRST}.*{FIRST + 1}"):
        await mirror.handle(event([record(1, FIRST), record(2, FIRST + 1)]), None)

    assert any_client.dbsize() == 0
    mirror.close()


async def test_a_key_of_3_kb_of_colons_is_written_under_a_name_that_any_server_takes(
    any_server: ServerProcess, any_client: redis.Redis
) -> None:
    """Escaped it has 9 KB; serverless allows names of 4,096 bytes, so it ends in a hash."""
    colons = {"Number": {"S": ":" * 2_048}, "Sort": {"S": ":" * 1_024}}
    others = [
        record(at, FIRST + at, Keys={"Number": {"S": str(at)}, "Sort": {"S": "x"}})
        for at in range(99)
    ]
    async with handling(any_server.url) as handle:
        assert await handle(*others, record(99, FIRST + 99, Keys=colons)) == []

    names = [bytes(name) for name in any_client.scan_iter("*", count=1_000)]
    (long,) = [name for name in names if name.startswith(b"Players:%3A") and b"!f" not in name]
    assert len(names) == 200
    assert max(map(len, names)) <= 4_096
    assert any_client.get(long) is not None


# --- the server refuses for now ---------------------------------------------------------------


@pytest.mark.parametrize(
    "word", ["OOM", "LOADING", "READONLY", "CLUSTERDOWN", "TRYAGAIN", "MASTERDOWN", "BUSY"]
)
async def test_a_server_that_cannot_write_now_fails_the_batch_for_a_retry(word: str) -> None:
    async with _server_that_says(f"-{word} not now\r\n") as url, handling(url) as handle:
        assert await handle(record(2, FIRST + 2), record(1, FIRST + 1)) == [str(FIRST + 1)]

        assert handle.log["event"] == "write_failed"
        assert handle.log["error"] == word
        assert handle.counts["Failed"] == 2


@pytest.mark.parametrize(
    "reply", ["MOVED 3999 10.0.0.1:6379", "CROSSSLOT Keys in request don't hash to the same slot"]
)
async def test_a_server_of_a_cluster_fails_the_batch_and_is_named_as_one(reply: str) -> None:
    async with _server_that_says(f"-{reply}\r\n") as url, handling(url) as handle:
        assert await handle(record(1, FIRST)) == [str(FIRST)]

        assert handle.log["error"] == reply.split()[0]
        assert "cluster" in handle.log["reason"]


async def test_a_replica_refuses_and_the_primary_it_becomes_takes_all(
    real_server: ServerProcess,
) -> None:
    """A real replica answers READONLY, as after a failover that the mirror missed."""
    with (
        redis_process(real_server.name) as server,
        redis.Redis(port=server.port) as client,
    ):
        client.replicaof(real_server.host, real_server.port)
        async with handling(server.url) as handle:
            assert await handle(record(1, FIRST)) == [str(FIRST)]
            assert handle.log["error"] in ("READONLY", "MASTERDOWN", "LOADING")

            client.replicaof("NO", "ONE")
            assert await handle(record(1, FIRST)) == []


# --- the server refuses the user --------------------------------------------------------------


@pytest.mark.parametrize("word", ["NOAUTH", "WRONGPASS", "NOPERM"])
async def test_a_refused_user_raises_naming_user_and_command(word: str) -> None:
    async with _server_that_says(f"-{word} no\r\n") as url:
        async with handling(url.replace("//", "//mirror@")) as handle:
            with pytest.raises(StoreRefused, match=f"user 'mirror' the command EVALSHA .*{word}"):
                await handle(record(1, FIRST))


# --- connection dead on first use after a freeze ----------------------------------------------


async def test_a_dead_connection_costs_one_reconnect_and_no_record(
    real_server: ServerProcess, real_client: redis.Redis
) -> None:
    async with proxy_to(real_server.host, real_server.port) as proxy:
        async with handling(_url(proxy)) as handle:
            await handle(record(1, FIRST))
            proxy.drop()

            assert await handle(*GOOD) == []
            assert ninety_nine_are_there(real_client)
            assert proxy.connections == 2


async def test_a_connection_that_dies_twice_is_reported(real_server: ServerProcess) -> None:
    async with proxy_to(real_server.host, real_server.port) as proxy:
        async with handling(_url(proxy)) as handle:
            await handle(record(1, FIRST))
            proxy.cut()

            assert await handle(record(2, FIRST + 2), record(3, FIRST + 1)) == [str(FIRST + 1)]
            assert handle.log["event"] == "reconnected"


# --- no answer in time ------------------------------------------------------------------------


async def test_no_answer_in_time_is_reported_and_the_socket_thrown_away(
    real_server: ServerProcess, real_client: redis.Redis
) -> None:
    """Requests arrive and replies do not: nobody knows what was written, so it failed."""
    async with proxy_to(real_server.host, real_server.port) as proxy:
        async with handling(_url(proxy), timeout_ms=300) as handle:
            proxy.swallows_replies = True
            assert await handle(record(1, FIRST)) == [str(FIRST)]
            assert handle.log["error"] == "TimeoutError"

            proxy.swallows_replies = False
            assert await handle(record(1, FIRST)) == []
            assert proxy.connections == 2


async def test_a_silent_connection_from_before_is_tried_once_more_on_a_new_one(
    real_server: ServerProcess, real_client: redis.Redis
) -> None:
    async with proxy_to(real_server.host, real_server.port) as proxy:
        async with handling(_url(proxy), timeout_ms=300) as handle:
            await handle(record(1, FIRST))
            proxy.swallows_replies = True

            assert await handle(record(1, FIRST + 1)) == [str(FIRST + 1)]
            assert proxy.connections == 2
            assert real_client.get("{Players:1}!f") == _fence(FIRST + 1)


async def test_without_the_fence_a_timed_out_write_is_not_sent_again(
    real_server: ServerProcess, real_client: redis.Redis
) -> None:
    async with proxy_to(real_server.host, real_server.port) as proxy:
        async with handling(_url(proxy), timeout_ms=300, fence="off") as handle:
            await handle(record(1, FIRST))
            proxy.swallows_replies = True

            assert await handle(record(1, FIRST + 1)) == [str(FIRST + 1)]
            assert proxy.connections == 1


async def test_without_the_fence_a_broken_connection_is_still_mended(
    real_server: ServerProcess, real_client: redis.Redis
) -> None:
    async with proxy_to(real_server.host, real_server.port) as proxy:
        async with handling(_url(proxy), fence="off") as handle:
            await handle(record(1, FIRST))
            proxy.drop()

            assert await handle(record(2, FIRST + 1)) == []
            assert real_client.exists("Players:2")


# --- two at once ------------------------------------------------------------------------------


async def test_a_second_batch_at_the_same_time_is_refused_and_the_first_is_not_disturbed(
    real_server: ServerProcess, real_client: redis.Redis
) -> None:
    """A second thread or task would read the replies of the first."""
    async with proxy_to(real_server.host, real_server.port) as proxy:
        async with handling(_url(proxy)) as handle:
            await handle(record(1, FIRST))
            proxy.delay_s = 0.2
            first = asyncio.create_task(handle(record(1, FIRST + 1)))
            await asyncio.sleep(0.1)

            with pytest.raises(RuntimeError, match="one batch at a time"):
                await handle(record(2, FIRST + 2))

            assert await first == []
            assert proxy.connections == 1
            assert real_client.get("{Players:1}!f") == _fence(FIRST + 1)
            assert not real_client.exists("Players:2")


# --- too little time left ---------------------------------------------------------------------


class Hand:
    """A clock that the test moves, and a context that reads it."""

    aws_request_id = "r"

    def __init__(self, remaining_ms: int) -> None:
        self.now_s = 0.0
        self._end_ms = remaining_ms

    def __call__(self) -> float:
        return self.now_s

    def get_remaining_time_in_millis(self) -> int:
        return round(self._end_ms - self.now_s * 1_000)


@pytest.mark.parametrize(("remaining_ms", "sends"), [(499, False), (500, True)])
async def test_with_less_than_500_ms_left_nothing_is_sent(
    real_server: ServerProcess, real_client: redis.Redis, remaining_ms: int, sends: bool
) -> None:
    hand = Hand(remaining_ms)
    lines: list[dict[str, Any]] = []
    async with proxy_to(real_server.host, real_server.port) as proxy:
        mirror = Mirror(
            Config(redis_url=_url(proxy)), clock=hand, emit=lambda x: lines.append(json.loads(x))
        )

        answer = failed(await mirror.handle(event([record(1, FIRST)]), hand))

        assert answer == ([] if sends else [str(FIRST)])
        assert proxy.connections == sends
        assert bool(real_client.exists("Players:1")) == sends
        assert sends or lines[-1]["event"] == "deadline"
        mirror.close()
        await asyncio.sleep(0)


async def test_connecting_that_leaves_too_little_time_ends_before_sending(
    real_server: ServerProcess, real_client: redis.Redis
) -> None:
    hand = Hand(10_000)

    async def slow(_: Server) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        hand.now_s = 9.501
        return await asyncio.open_connection(real_server.host, real_server.port)

    mirror = Mirror(Config(redis_url=real_server.url), clock=hand, connect=slow, emit=_nowhere)

    assert failed(await mirror.handle(event([record(1, FIRST)]), hand)) == [str(FIRST)]
    assert real_client.dbsize() == 0

    hand.now_s = 0.0  # the next invocation finds the connection ready
    assert failed(await mirror.handle(event([record(1, FIRST)]), hand)) == []
    mirror.close()
    await asyncio.sleep(0)


@pytest.mark.parametrize("late_at", [1, 2], ids=["as it dies", "as the next is opened"])
async def test_nothing_is_sent_again_with_less_than_500_ms_left(
    real_server: ServerProcess, real_client: redis.Redis, late_at: int
) -> None:
    """The connection is dead, and it is too late then, or once a new one is open."""
    hand = Hand(10_000)
    opened = 0

    async def connect(_: Server) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        nonlocal opened
        opened += 1
        reader, writer = await asyncio.open_connection(real_server.host, real_server.port)
        if opened == 1:
            reader = Dying(reader)
        elif late_at == 2:
            hand.now_s = 9.501
        return reader, writer

    class Dying(asyncio.StreamReader):
        """Answers the first invocation, then ends, and time passes."""

        def __init__(self, real: asyncio.StreamReader) -> None:
            super().__init__()
            self.real = real

        async def read(self, n: int = -1) -> bytes:
            if not hand.now_s:
                return await self.real.read(n)
            if late_at == 1:
                hand.now_s = 9.501
            return b""

    mirror = Mirror(Config(redis_url=real_server.url), clock=hand, connect=connect, emit=_nowhere)
    assert failed(await mirror.handle(event([record(1, FIRST)]), hand)) == []
    hand.now_s = 5.0
    before = _writes(real_client)

    assert failed(await mirror.handle(event([record(1, FIRST + 1)]), hand)) == [str(FIRST + 1)]
    assert opened == late_at
    assert _writes(real_client) - before <= 1  # sent before the connection died
    mirror.close()
    await asyncio.sleep(0)


# --- what the answer may cost -----------------------------------------------------------------


async def test_no_wait_is_longer_than_what_is_left_less_200_ms(real_server: ServerProcess) -> None:
    """The timeout is 30 s, the invocation has 700 ms: the answer comes with about 200 left."""
    async with proxy_to(real_server.host, real_server.port) as proxy:
        proxy.swallows_replies = True
        async with handling(_url(proxy), timeout_ms=30_000) as handle:
            context = Context(700)

            assert await handle(record(1, FIRST), context=context) == [str(FIRST)]
            assert context.get_remaining_time_in_millis() > 0


def _writes(client: redis.Redis) -> int:
    return int(client.info("commandstats")["cmdstat_evalsha"]["calls"])


def _url(proxy: Proxy) -> str:
    return f"redis://127.0.0.1:{proxy.port}"


def _fence(number: int, rank: bytes = b"1") -> bytes:
    return version(1_767_225_600_000, SequenceNumber(number)) + rank


def _nowhere(line: bytes) -> None:
    """Drop a line."""


@asynccontextmanager
async def _server_that_says(reply: str) -> AsyncIterator[str]:
    """A server with one answer to whatever it receives."""

    open_ones: set[asyncio.Task[Any] | None] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_ones.add(asyncio.current_task())
        with contextlib.suppress(ConnectionResetError):
            while await reader.read(65_536):
                writer.write(reply.encode())
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await asyncio.gather(*(task for task in open_ones if task is not None))
