"""A TCP proxy between a client and its server that delays, cuts, stalls and counts.

It knows nothing about Redis. It counts a turn whenever bytes go to the server for the first
time after bytes came from it, or at the start: that is a round trip at the socket.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class Proxy:
    """A running proxy; set its fields to inject faults."""

    port: int = 0
    refuses: bool = False  # closes new connections at once
    delay_s: float = 0.0  # each way
    cut_after_request_bytes: int | None = None  # breaks each connection within a request
    cut_after_reply_bytes: int | None = None  # breaks each connection within a reply
    swallows_replies: bool = False  # requests arrive, replies do not
    connections: int = 0
    turns: int = 0
    request_bytes: int = 0
    reply_bytes: int = 0
    open: set[asyncio.StreamWriter] = field(default_factory=set)

    def cut(self) -> None:
        """Break every connection and refuse new ones until `heal`."""
        self.refuses = True
        self.drop()

    def heal(self) -> None:
        """Accept connections again."""
        self.refuses = False

    def drop(self) -> None:
        """Break every open connection."""
        for writer in list(self.open):
            writer.transport.abort()


@asynccontextmanager
async def proxy_to(
    host: str, port: int = 0, *, path: str = "", listen_port: int = 0
) -> AsyncIterator[Proxy]:
    """Forward a loopback port to a server or a unix socket until the block ends."""
    proxy = Proxy()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        if proxy.refuses:
            writer.transport.abort()
            return
        proxy.connections += 1
        try:
            up_reader, up_writer = await (
                asyncio.open_unix_connection(path) if path else asyncio.open_connection(host, port)
            )
        except OSError:
            writer.transport.abort()
            return
        writers = {writer, up_writer}
        proxy.open |= writers
        try:
            await _pass_both_ways(proxy, (reader, writer), (up_reader, up_writer))
        finally:
            proxy.open -= writers
            for open_writer in writers:
                open_writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", listen_port)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        proxy.drop()  # ends the tasks; cancelling them makes Python 3.11 log an error
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pass_both_ways(
    proxy: Proxy,
    down: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    up: tuple[asyncio.StreamReader, asyncio.StreamWriter],
) -> None:
    was_reply = True
    sent = received = 0

    async def requests() -> None:
        nonlocal was_reply, sent
        async for data in _read(down[0]):
            proxy.turns += was_reply
            was_reply = False
            proxy.request_bytes += len(data)
            await _pass(proxy, up[1], data, _remaining(proxy.cut_after_request_bytes, sent))
            sent += len(data)

    async def replies() -> None:
        nonlocal was_reply, received
        async for data in _read(up[0]):
            was_reply = True
            proxy.reply_bytes += len(data)
            if not proxy.swallows_replies:
                await _pass(
                    proxy, down[1], data, _remaining(proxy.cut_after_reply_bytes, received)
                )
            received += len(data)

    tasks = [asyncio.create_task(requests()), asyncio.create_task(replies())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _remaining(cut_after: int | None, passed: int) -> int | None:
    return None if cut_after is None else cut_after - passed


async def _read(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while data := await reader.read(65_536):
        yield data


async def _pass(
    proxy: Proxy, writer: asyncio.StreamWriter, data: bytes, allowed: int | None
) -> None:
    if proxy.delay_s:
        await asyncio.sleep(proxy.delay_s)
    writer.write(data if allowed is None else data[:allowed])
    await writer.drain()
    if allowed is not None and len(data) > allowed:
        raise ConnectionResetError("cut on purpose")
