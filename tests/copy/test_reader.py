"""A tool reads what Redis holds, whatever the value looks like."""

from __future__ import annotations

import asyncio

import pytest
import redis

from asyncsync import Config, Mirror
from asyncsync.copy.reader import CopyReader
from asyncsync.lab.servers import ServerProcess
from asyncsync.model import Entry, SequenceNumber
from asyncsync.tools.get import read_key


@pytest.mark.parametrize(
    "value", [b"OK", b"", b"0", b"1", b"-1", b"null", b"ERR no", b"QUEUED", b"PONG", b"+OK\r\n"]
)
def test_a_read_hands_back_what_was_read(
    fake_server: ServerProcess, fake_client: redis.Redis, value: bytes
) -> None:
    fake_client.set("a", value)
    fake_client.set("{a}!f", value)
    config = Config(redis_url=fake_server.url)
    mirror = Mirror(config, emit=lambda _: None)
    copy = CopyReader(mirror)
    entry = Entry(b"a", b"{a}!f", b"", None, 0, SequenceNumber(0), "0")

    async def read() -> None:
        assert await copy.values([b"a", b"absent"]) == [value, None]
        (pair,) = await copy.read_pairs([entry])
        assert (pair.value, pair.fence) == (value, value)
        copy.close()
        contents = await read_key("a", mirror)
        assert (contents.content.value, contents.fence.value) == (value, value)

    asyncio.run(read())


def test_a_key_of_another_type_has_no_value_and_says_its_type(
    real_server: ServerProcess, real_client: redis.Redis
) -> None:
    real_client.lpush("list", "x")
    real_client.hset("hash", "a", "x")
    copy = CopyReader(Mirror(Config(redis_url=real_server.url), emit=lambda _: None))

    async def read() -> None:
        names = [b"list", b"hash", b"absent"]
        assert await copy.values(names) == [None, None, None]
        assert await copy.types(names) == [b"list", b"hash", b"none"]
        copy.close()

    asyncio.run(read())
