"""The two handlers that are usually deployed, for comparison.

Both send one SET or DEL per record, in order of arrival, with the raw image as the value, and
have no fence. One answers before Redis confirms and ignores every error; the other, the awaited
loop, waits for each reply and raises at the first error. They are better than most in one thing:
they keep their connection from one invocation to the next.
"""

from __future__ import annotations

import asyncio
from typing import Any

import hiredis
import orjson

from asyncsync.config import Server
from asyncsync.connection import ReplyError
from asyncsync.transport_asyncio import Connect, Streams


class UsualHandler:
    """The handler, and the connection that carries its writes after it has answered."""

    def __init__(self, connect: Connect, server: Server, table: str) -> None:
        self._connect = connect
        self._server = server
        self._table = table
        self._queue: asyncio.Queue[list[tuple[str | bytes, ...]]] = asyncio.Queue()
        self._streams: Streams | None = None
        self._listener: asyncio.Task[None] | None = None
        self._unanswered = 0
        self._quiet = asyncio.Event()

    def handle(self, event: bytes) -> str:
        """Queue the writes of an event and claim success."""
        records = orjson.loads(event)["Records"]
        self._queue.put_nowait([_command(record, self._table) for record in records])
        return f"Successfully processed {len(records)} records."

    async def run(self) -> None:
        """Send the queued writes, in order, until cancelled."""
        try:
            while True:
                commands = await self._queue.get()
                try:
                    await self._send(commands)
                except OSError:
                    self._drop()  # the writes are lost, and nobody learns of it
                self._queue.task_done()
        finally:
            self._drop()

    async def _send(self, commands: list[tuple[str | bytes, ...]]) -> None:
        if self._streams is None:
            reader, writer = self._streams = await self._connect(self._server)
            self._listener = asyncio.create_task(self._listen(reader))
            if self._server.database:
                commands = [("SELECT", str(self._server.database)), *commands]
        writer = self._streams[1]
        self._quiet.clear()
        self._unanswered += len(commands)
        for command in commands:
            # hiredis's type stub only knows tuples of one element.
            writer.write(hiredis.pack_command(command))  # type: ignore[arg-type]
        await writer.drain()

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        """Read the replies and ignore them."""
        replies = hiredis.Reader(replyError=ReplyError)
        try:
            while data := await reader.read(65_536):
                replies.feed(data)
                while replies.gets() is not False:
                    self._unanswered -= 1
                if self._unanswered == 0:
                    self._quiet.set()
        except OSError:
            pass
        self._drop()

    def _drop(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()
        if self._listener is not None and self._listener is not asyncio.current_task():
            self._listener.cancel()
        self._streams = self._listener = None
        self._unanswered = 0
        self._quiet.set()

    async def drain(self) -> None:
        """Wait until every queued write has been sent and answered, or lost."""
        await self._queue.join()
        await self._quiet.wait()


class AwaitedHandler:
    """The loop that waits for each reply: one round trip per record."""

    def __init__(self, connect: Connect, server: Server, table: str) -> None:
        self._connect = connect
        self._server = server
        self._table = table
        self._streams: Streams | None = None
        self._replies = hiredis.Reader(replyError=ReplyError)

    async def handle(self, event: bytes) -> None:
        """Write the records of an event, one after another. Raises OSError or ReplyError."""
        try:
            if self._streams is None:
                self._replies = hiredis.Reader(replyError=ReplyError)
                self._streams = await self._connect(self._server)
                if self._server.database:
                    await self._ask(("SELECT", str(self._server.database)))
            for record in orjson.loads(event)["Records"]:
                await self._ask(_command(record, self._table))
        except BaseException:
            self.close()
            raise

    async def _ask(self, command: tuple[str | bytes, ...]) -> None:
        assert self._streams is not None, "handle connects"
        reader, writer = self._streams
        # hiredis's type stub only knows tuples of one element.
        writer.write(hiredis.pack_command(command))  # type: ignore[arg-type]
        while (reply := self._replies.gets()) is False:
            data = await reader.read(65_536)
            if not data:
                raise ConnectionResetError("the connection broke")
            self._replies.feed(data)
        if isinstance(reply, ReplyError):
            raise reply

    def close(self) -> None:
        """Close the connection."""
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None


def _command(record: dict[str, Any], table: str) -> tuple[str | bytes, ...]:
    change = record["dynamodb"]
    name = f"{table}:{change['Keys']['Number']['N']}"
    if record["eventName"] == "REMOVE":
        return ("DEL", name)
    return ("SET", name, orjson.dumps(change["NewImage"]))
