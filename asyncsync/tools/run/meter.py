"""Counts what a client sends, where it is written to the socket."""

from __future__ import annotations

from dataclasses import dataclass

import hiredis

from asyncsync.config import Server
from asyncsync.transport_asyncio import Connect, Streams


@dataclass(slots=True)
class Meter:
    """Counts over every metered connection."""

    turns: int = 0  # round trips: the first write, and each write after a read
    commands: int = 0


def metered(connect: Connect, meter: Meter) -> Connect:
    """Return a connect that counts what its connections send."""

    async def connect_metered(server: Server) -> Streams:
        reader, writer = await connect(server)
        read, write = reader.read, writer.write
        requests = hiredis.Reader()  # a request is an array, as some replies are
        has_read = True

        def count(data: bytes | bytearray | memoryview) -> None:
            nonlocal has_read
            meter.turns += has_read
            has_read = False
            requests.feed(bytes(data))
            while requests.gets() is not False:
                meter.commands += 1
            write(data)

        async def wait(n: int = -1) -> bytes:
            nonlocal has_read
            has_read = True
            return await read(n)

        # A subclass would need private parts.
        writer.write = count  # type: ignore[method-assign]
        reader.read = wait  # type: ignore[method-assign]
        return reader, writer

    return connect_metered
