"""asyncio's streams as transport: for the caller's event loop, the tools, and a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from typing import TypeAlias
from weakref import WeakSet

from asyncsync.config import Server
from asyncsync.connection import READ_BYTES, OpenTransport, TimeLeft, Transport, tls_context

Streams: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect: TypeAlias = Callable[[Server], Awaitable[Streams]]


class StreamTransport:
    """A pair of streams; they belong to one event loop."""

    def __init__(self, streams: Streams) -> None:
        self._reader, self._writer = streams

    async def write(self, data: bytes) -> None:
        """Send what goes at once; the event loop sends the rest."""
        if self._writer.transport.is_closing():
            raise ConnectionResetError
        self._writer.write(data)
        await asyncio.sleep(0)

    async def read(self, time_left: TimeLeft) -> bytes:
        """Wait for bytes for as long as there is time left."""
        async with asyncio.timeout(time_left()):
            return await self._reader.read(READ_BYTES)

    def abort(self) -> None:
        """Close the socket at once and drop unsent bytes."""
        with suppress(RuntimeError):  # the loop is closed: the garbage collector closes it
            self._writer.transport.abort()


# Of each event loop its open transports, and what closes them.
_OPEN: dict[
    asyncio.AbstractEventLoop, tuple[WeakSet[StreamTransport], AsyncGenerator[None, None]]
] = {}


async def _keep(transport: StreamTransport) -> None:
    """Close a transport when its event loop ends, unless it was closed before."""
    loop = asyncio.get_running_loop()
    if loop not in _OPEN:
        for other in [each for each in [*_OPEN] if each.is_closed()]:
            _OPEN.pop(other, None)
        transports = WeakSet[StreamTransport]()
        _OPEN[loop] = transports, _until_loop_ends(transports)
        await anext(_OPEN[loop][1])
    _OPEN[loop][0].add(transport)


async def _until_loop_ends(transports: WeakSet[StreamTransport]) -> AsyncGenerator[None, None]:
    """Wait: a loop that ends, as in asyncio.run, first closes its asynchronous generators."""
    try:
        yield
    finally:
        for transport in [*transports]:
            transport.abort()
        await asyncio.sleep(0)  # one turn, in which the sockets close


def asyncio_transport(connect: Connect) -> OpenTransport:
    """Return a function that opens transports over the streams of `connect`."""

    async def open_streams(server: Server, time_left: TimeLeft) -> Transport:
        async with asyncio.timeout(time_left()):
            transport = StreamTransport(await connect(server))
        await _keep(transport)
        return transport

    return open_streams


async def connect(server: Server) -> Streams:
    """Open streams to a server: over a unix socket, TCP or TLS."""
    if server.path:
        return await asyncio.open_unix_connection(server.path)
    context = tls_context(server.ca_file) if server.tls else None
    return await asyncio.open_connection(server.host, server.port, ssl=context)
