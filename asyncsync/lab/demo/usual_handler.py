"""The handler that is usually deployed, for comparison.

It sends one SET or DEL per record, in order of arrival, with the raw image as the value. It
answers before Redis confirms, ignores every error, and has no fence. It is better than most in
one thing: it keeps its connection from one invocation to the next.
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
        self._queue.put_nowait([self._command(record) for record in records])
        return f"Successfully processed {len(records)} records."

    def _command(self, record: dict[str, Any]) -> tuple[str | bytes, ...]:
        change = record["dynamodb"]
        name = f"{self._table}:{change['Keys']['Number']['N']}"
        if record["eventName"] == "REMOVE":
            return ("DEL", name)
        return ("SET", name, orjson.dumps(change["NewImage"]))

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
