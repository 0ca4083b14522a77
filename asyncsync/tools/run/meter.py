"""What a client sends, counted where it is written to the socket."""

from __future__ import annotations

from dataclasses import dataclass

import hiredis

from asyncsync.config import Server
from asyncsync.transport_asyncio import Connect, Streams


@dataclass(slots=True)
class Meter:
    """Counts since it was made."""

    turns: int = 0  # bytes that went out after a wait for an answer, or at first: a round trip
    commands: int = 0


def metered(connect: Connect, meter: Meter) -> Connect:
    """Count what goes through every connection that is opened from now on."""

    async def connect_metered(server: Server) -> Streams:
        reader, writer = await connect(server)
        read, write = reader.read, writer.write
        requests = hiredis.Reader()  # a request is an array, as some replies are
        has_waited = True

        def count(data: bytes | bytearray | memoryview) -> None:
            nonlocal has_waited
            meter.turns += has_waited
            has_waited = False
            requests.feed(bytes(data))
            while requests.gets() is not False:
                meter.commands += 1
            write(data)

        async def wait(n: int = -1) -> bytes:
            nonlocal has_waited
            has_waited = True
            return await read(n)

        # A subclass would need private parts.
        writer.write = count  # type: ignore[method-assign]
        reader.read = wait  # type: ignore[method-assign]
        return reader, writer

    return connect_metered
