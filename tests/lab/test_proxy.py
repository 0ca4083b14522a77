"""Tests the proxy's faults with a plain client of an echo server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from asyncsync.lab.proxy import proxy_to


@pytest.fixture
async def echo_port() -> AsyncIterator[int]:
    """Run a server that sends every line back."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def ask(port: int, *lines: bytes) -> list[bytes]:
    """Send lines one after the other; an empty answer means that the connection ended."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answers = []
    try:
        for line in lines:
            writer.write(line)
            answers.append(await reader.readline())
    except ConnectionError:
        answers.append(b"")
    finally:
        writer.transport.abort()
    return answers


async def test_bytes_pass_and_each_question_and_answer_is_one_turn(echo_port: int) -> None:
    async with proxy_to("127.0.0.1", echo_port) as proxy:
        assert await ask(proxy.port, b"one\n", b"two\n", b"three\n") == [
            b"one\n",
            b"two\n",
            b"three\n",
        ]
        assert proxy.turns == 3
        assert proxy.connections == 1
        assert proxy.request_bytes == proxy.reply_bytes == 14


async def test_a_cut_breaks_open_connections_and_refuses_new_ones_until_healed(
    echo_port: int,
) -> None:
    async with proxy_to("127.0.0.1", echo_port) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"hello\n")
        assert await reader.readline() == b"hello\n"

        proxy.cut()
        with pytest.raises((ConnectionResetError, EOFError)):
            await reader.readexactly(1)
        assert await ask(proxy.port, b"anyone\n") == [b""]

        proxy.heal()
        assert await ask(proxy.port, b"again\n") == [b"again\n"]
        writer.transport.abort()


async def test_swallowed_replies_are_heard_by_nobody_but_the_server(echo_port: int) -> None:
    async with proxy_to("127.0.0.1", echo_port) as proxy:
        proxy.swallows_replies = True
        asking = asyncio.create_task(ask(proxy.port, b"hello\n"))
        while proxy.reply_bytes == 0:  # noqa: ASYNC110 - a count is no event
            await asyncio.sleep(0)
        assert not asking.done()
        proxy.drop()
        assert await asking == [b""]


@pytest.mark.parametrize("allowed", [0, 1, 5])
async def test_a_request_or_a_reply_ends_after_the_bytes_that_are_allowed(
    echo_port: int, allowed: int
) -> None:
    async with proxy_to("127.0.0.1", echo_port) as proxy:
        proxy.cut_after_request_bytes = allowed
        assert await ask(proxy.port, b"hello\n") == [b""]
        proxy.cut_after_request_bytes = None
        proxy.cut_after_reply_bytes = allowed
        assert (await ask(proxy.port, b"hello\n"))[-1] in (b"", b"hello\n"[:allowed])
