"""asyncio's streams as transport: for the caller's event loop, the tools, and a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from socket import SHUT_RDWR
from typing import TypeAlias

from asyncsync.config import Server
from asyncsync.connection import READ_BYTES, OpenTransport, TimeLeft, Transport, tls_context

Streams: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect: TypeAlias = Callable[[Server], Awaitable[Streams]]


class StreamTransport:
    """A pair of streams; they belong to one event loop."""

    def __init__(self, streams: Streams) -> None:
        self._reader, self._writer = streams
        self._loop = asyncio.get_running_loop()

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
        if not self._loop.is_closed():
            self._writer.transport.abort()
            return
        connected = self._writer.get_extra_info("socket")  # which a closed loop cannot close
        if connected is not None:
            with suppress(OSError):
                connected.shutdown(SHUT_RDWR)


def asyncio_transport(connect: Connect) -> OpenTransport:
    """Return a function that opens transports over the streams of `connect`."""

    async def open_streams(server: Server, time_left: TimeLeft) -> Transport:
        async with asyncio.timeout(time_left()):
            return StreamTransport(await connect(server))

    return open_streams


async def connect(server: Server) -> Streams:
    """Open streams to a server: over a unix socket, TCP or TLS."""
    if server.path:
        return await asyncio.open_unix_connection(server.path)
    context = tls_context(server.ca_file) if server.tls else None
    return await asyncio.open_connection(server.host, server.port, ssl=context)
