"""What a client sends, counted where it is written to the socket."""

from __future__ import annotations

from dataclasses import dataclass

import hiredis

from asyncsync.config import Server
from asyncsync.wire import Connect, Streams


@dataclass(slots=True)
class Meter:
    """Counts since it was made."""

    writes: int = 0  # each exchange of asyncsync's own wire is one
    commands: int = 0


def metered(connect: Connect, meter: Meter) -> Connect:
    """Count what goes through every connection that is opened from now on."""

    async def connect_metered(server: Server) -> Streams:
        reader, writer = await connect(server)
        write = writer.write
        requests = hiredis.Reader()  # a request is an array, as some replies are

        def count(data: bytes | bytearray | memoryview) -> None:
            meter.writes += bool(data)  # signing in with no password writes nothing
            requests.feed(bytes(data))
            while requests.gets() is not False:
                meter.commands += 1
            write(data)

        writer.write = count  # type: ignore[method-assign] # a subclass needs private parts
        return reader, writer

    return connect_metered
