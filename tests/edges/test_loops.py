"""A mirror works on every event loop, also a new one each time, and without Lambda's context."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from collections.abc import Mapping
from threading import Thread
from typing import Any

import pytest
import redis

from asyncsync import Config, ConfigError, Mirror, Response
from asyncsync.lab.servers import ServerProcess
from asyncsync.mirror import Event
from tests.support.context import Context
from tests.support.events import FIRST, event, record
from tests.support.project.package import ROOT

ALL_WELL: Response = {"batchItemFailures": []}


def nothing(_: bytes) -> None:
    """Drop a line."""


def mirror_of(server: ServerProcess) -> Mirror:
    return Mirror(Config(redis_url=server.url, metrics="off"), emit=nothing)


def batch(number: int) -> bytes:
    return event([record(number, FIRST + number)])


@pytest.mark.filterwarnings("error")
def test_a_new_loop_for_each_event_works(
    any_server: ServerProcess, any_client: redis.Redis
) -> None:
    mirror = mirror_of(any_server)

    for number in range(3):
        assert asyncio.run(mirror.handle(batch(number), None)) == ALL_WELL

    assert len(mirror._loop_stores) == 1  # those of closed loops are let go
    assert [any_client.exists(f"Players:{number}") for number in range(3)] == [1, 1, 1]
    mirror.close()
    gc.collect()


def test_no_loop_warns_of_a_socket_and_none_is_kept(any_server: ServerProcess) -> None:
    """asyncio.run twice with one mirror printed "unclosed transport"."""
    program = """
import asyncio, gc, sys, weakref
from asyncsync import Config, Mirror
from tests.support.events import FIRST, event, record
from tests.support.project.package import ROOT

async def main(mirror, number):
    loops.append(weakref.ref(asyncio.get_running_loop()))
    return await mirror.handle(event([record(number, FIRST + number)]))

loops = []
mirror = Mirror(Config(redis_url=sys.argv[1], metrics="off"))
for number in range(5):
    print(asyncio.run(main(mirror, number)))
loop = asyncio.new_event_loop()
print(loop.run_until_complete(main(mirror, 9)))
loop.run_until_complete(loop.shutdown_asyncgens())
loop.close()
del mirror, loop
gc.collect()
print(len([ref for ref in loops if ref() is not None]))
"""
    command = [sys.executable, "-X", "dev", "-c", program, any_server.url]

    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    *answers, kept = ended.stdout.splitlines()
    assert ended.stderr == ""
    assert answers == [str(ALL_WELL)] * 6
    assert int(kept) <= 1  # the last one, until the next one opens a connection


def test_leaving_the_block_closes_the_connections(
    any_server: ServerProcess, any_client: redis.Redis
) -> None:
    async def main(number: int) -> None:
        async with mirror as entered:
            assert entered is mirror
            assert await mirror.handle(batch(number)) == ALL_WELL
            assert mirror._loop_stores
        assert not mirror._loop_stores

    mirror = mirror_of(any_server)
    for number in range(2):
        asyncio.run(main(number))

    assert any_client.exists("Players:0", "Players:1") == 2


def test_two_loops_at_once_have_a_connection_each(any_server: ServerProcess) -> None:
    answers: list[Mapping[str, Any]] = []

    async def main(first: int) -> None:
        answers.extend([await mirror.handle(batch(first + at)) for at in range(10)])
        mirror._loop_stores[asyncio.get_running_loop()].close()
        await asyncio.sleep(0)

    mirror = mirror_of(any_server)
    threads = [Thread(target=asyncio.run, args=(main(100 * at),)) for at in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert answers == [ALL_WELL] * 30
    mirror.close()


@pytest.mark.parametrize("form", [lambda body: body, lambda body: {"Records": [record(1, FIRST)]}])
def test_lambda_handler_and_handle_may_be_mixed(any_server: ServerProcess, form: Any) -> None:
    async def main() -> None:
        async with mirror:
            assert await mirror.handle(parsed, Context(1_000)) == ALL_WELL
            assert mirror.lambda_handler(parsed) == ALL_WELL  # it blocks this loop meanwhile

    mirror = mirror_of(any_server)
    parsed: Event = form(batch(1))
    assert mirror.lambda_handler(parsed, None) == ALL_WELL
    asyncio.run(main())


# --- what cannot be a mirror --------------------------------------------------------------------


@pytest.mark.parametrize("config", ["redis://:secret@h", None, {"redis_url": "redis://h"}, Config])
def test_a_mirror_of_no_settings_is_refused_in_words(config: Any) -> None:
    with pytest.raises(ConfigError) as refused:
        Mirror(config)

    assert str(refused.value) == (
        f"a mirror needs a Config, not {type(config).__name__}: Mirror(Config(redis_url=...))"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"key": "prod:{@key}"}, "key must be a function; a template is a setting: Config(key="),
        ({"key": 5}, "key must be a function"),
        ({"transform": "public"}, "transform must be a function, not str"),
        ({"transform": {}}, "transform must be a function, not dict"),
    ],
)
def test_what_is_no_function_is_refused_by_its_argument(
    arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        Mirror(Config(redis_url="redis://h"), **arguments)

    assert str(refused.value).startswith(message)
