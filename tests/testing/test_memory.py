"""The copy in memory: it holds what a server would hold, without one."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import sys
from typing import Any, Literal

import pytest
import redis

from asyncsync import Config, Mirror
from asyncsync.iam import AwsCredentials
from asyncsync.lab.servers import ServerProcess
from asyncsync.testing import MakeCopy, insert, memory_copy, modify, remove, stream_event
from tests.support.events import SEED

pytest_plugins = ["asyncsync.testing.fixtures"]

SIGNER = AwsCredentials(access_key_id="id", secret_access_key="secret", region="us-east-1")


def mirror_of(**options: Any) -> Mirror:
    return Mirror(
        Config(redis_url="redis://unused", key="p:{Number}", metrics="off"),
        emit=lambda _: None,
        **options,
    )


@pytest.fixture
def no_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing open a connection."""

    def refuse(*_: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket.socket, "bind", refuse)


@pytest.mark.usefixtures("no_socket")
def test_a_mirror_of_any_server_writes_into_memory() -> None:
    mirror = Mirror(
        Config(
            redis_url="rediss://user@clustercfg.example.invalid:6380",
            redis_cluster=True,
            redis_iam_cache="cache",
            key="p:{Number}",
        ),
        credentials=lambda: SIGNER,
        transform=lambda item: None if item.get("Hidden") else item,
    )
    with memory_copy(mirror) as copy:
        answer = copy.mirror.lambda_handler(
            stream_event(
                insert({"Number": 1}, {"Name": "Ada"}),
                insert({"Number": 2}, {"Hidden": True}),
            )
        )

        assert answer == {"batchItemFailures": []}
        assert copy.redis.get("p:1") == b'{"Number":1,"Name":"Ada"}'
        assert not copy.redis.exists("p:2")
        assert copy.mirror.config.key == mirror.config.key
    assert mirror.config.redis_cluster  # the user's own is as it was


@pytest.mark.usefixtures("no_socket")
@pytest.mark.parametrize("value", ["hash", "redis-json"])
def test_a_copy_of_hashes_or_documents_holds_what_the_mirror_says(
    value: Literal["hash", "redis-json"],
) -> None:
    config = Config(redis_url="redis://unused", key="p:{Number}", value=value, fields="Name,Tags")
    with memory_copy(Mirror(config)) as copy:
        item = {"Number": 1, "Name": "Ada", "Tags": {"b", "a"}, "Secret": "x"}
        handle = copy.mirror.lambda_handler
        handle(stream_event(insert({"Number": 1}, {"Name": "Eve", "Old": 1})))
        handle(stream_event(modify({"Number": 1}, item)))
        handle(stream_event(insert({"Number": 2}, {}), remove({"Number": 2})))

        expected = copy.mirror.redis_value(item, key=["Number"])
        if value == "hash":
            assert copy.redis.hgetall("p:1") == expected
            assert expected == {b"Number": b"1", b"Name": b"Ada", b"Tags": b'["a","b"]'}
        else:
            assert isinstance(expected, bytes)
            assert copy.redis.json().get("p:1") == json.loads(expected)
            assert expected == b'{"Number":1,"Name":"Ada","Tags":["a","b"]}'
        assert not copy.redis.exists("p:2")


@pytest.mark.usefixtures("no_socket")
async def test_it_works_on_an_event_loop_too() -> None:
    async with memory_copy(mirror_of()) as copy:
        await copy.mirror.handle(stream_event(insert({"Number": 1}, {}), as_bytes=True), None)
        copy.mirror.lambda_handler(stream_event(modify({"Number": 1}, {"a": 1})))

        assert copy.redis.get("p:1") == b'{"Number":1,"a":1}'


def test_two_copies_share_nothing(asyncsync_copy: MakeCopy) -> None:
    first, second = asyncsync_copy(mirror_of()), asyncsync_copy(mirror_of())
    first.mirror.lambda_handler(stream_event(insert({"Number": 1}, {})))

    assert first.redis.exists("p:1")
    assert not second.redis.keys()


def test_a_copy_may_be_emptied_and_hold_what_is_no_string() -> None:
    """FLUSHALL with SCRIPT FLUSH costs the script, as a restarted server does."""
    with memory_copy(mirror_of()) as copy:
        handle = copy.mirror.lambda_handler
        handle(stream_event(insert({"Number": 1}, {})))
        copy.redis.flushall()
        copy.redis.script_flush()
        copy.redis.lpush("p:1", "x")  # another program's value
        copy.redis.lpush("{p:2}!f", "x")  # no fence

        answer = handle(stream_event(insert({"Number": 1}, {}), insert({"Number": 2}, {})))

        assert answer == {"batchItemFailures": []}
        assert copy.redis.get("p:1") == b'{"Number":1}'
        assert copy.redis.get("p:2") == b'{"Number":2}'


def test_a_reject_is_answered_and_printed(capsys: pytest.CaptureFixture[str]) -> None:
    def transform(item: dict[str, object]) -> dict[str, object]:
        return {"x": item["Nmae"]}

    with memory_copy(mirror_of(transform=transform)) as copy:
        event = stream_event(insert({"Number": 1}, {}), first_sequence_number=500)
        answer = copy.mirror.lambda_handler(event)

    assert answer == {"batchItemFailures": [{"itemIdentifier": "500"}]}
    assert "the transform raised KeyError" in capsys.readouterr().out


def test_clocks_that_a_mirror_was_given_stay() -> None:
    now = 1_700_000_000.0
    mirror = Mirror(
        Config(redis_url="redis://unused", key="p:{Number}", ttl_attribute="Ends"),
        wall_clock=lambda: now,
    )
    with memory_copy(mirror) as copy:
        copy.mirror.lambda_handler(stream_event(insert({"Number": 1}, {"Ends": int(now)})))

        assert copy.mirror.redis_value({"Number": 1, "Ends": int(now)}) is None
        assert copy.mirror.redis_value({"Number": 1, "Ends": int(now) + 1}) is not None
        assert not copy.redis.exists("p:1")


@pytest.mark.parametrize("missing", ["fakeredis", "lupa"])
def test_without_the_extra_the_error_names_it(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)

    with pytest.raises(ImportError, match=r'pip install "asyncsync\[testing\]"'):
        memory_copy(mirror_of())


def test_a_copy_is_what_each_real_server_holds_of_the_same_events(
    real_server: ServerProcess,
) -> None:
    """Random histories with duplicates and disorder: values, fences and answers are the same."""
    chance = random.Random(SEED)
    real = Mirror(Config(redis_url=real_server.url, key="p:{Number}", metrics="off"))
    with (
        redis.Redis(host=real_server.host, port=real_server.port) as client,
        memory_copy(mirror_of()) as copy,
    ):
        client.flushall()
        changes = []
        for at in range(1, 1_001):
            keys = {"Number": chance.randrange(30)}
            change = insert(keys, {"at": at}, sequence_number=at)
            changes.append(chance.choice([change, remove(keys, sequence_number=at)]))
        for _ in range(60):
            event = stream_event(*chance.choices(changes, k=40))
            assert real.lambda_handler(event) == copy.mirror.lambda_handler(event)
        real.close()

        assert contents(client) == contents(copy.redis)
        assert len(contents(client)) > 30


def contents(client: redis.Redis) -> dict[bytes, bytes]:
    names: Any = client.keys()
    return {name: client.get(name) for name in names}  # type: ignore[misc]


def test_the_errors_of_a_fake_server_keep_their_code() -> None:
    with memory_copy(mirror_of()) as copy:

        async def ask(*command: bytes) -> str:
            client = copy.mirror.new_store(b"return 1")
            assert hasattr(client, "ask")
            try:
                return str(await client.ask(command, float("inf")))
            finally:
                client.close()

        copy.redis.lpush("list", "x")
        copy.redis.hset("hash", "a", "1")

        assert asyncio.run(ask(b"GET", b"list")).startswith("WRONGTYPE ")
        assert asyncio.run(ask(b"EVALSHA", b"f" * 40, b"0")).startswith("NOSCRIPT ")
        assert asyncio.run(ask(b"NOPE")).startswith("ERR ")
        assert asyncio.run(ask(b"MGET", b"none", b"list")) == "[None, None]"
        assert asyncio.run(ask(b"HGETALL", b"hash")) == "[b'a', b'1']"
        assert asyncio.run(ask(b"SET", b"x", b"\r\n")) == "b'OK'"
        assert asyncio.run(ask(b"GET", b"x")) == "b'\\r\\n'"
