"""A table, its stream as a queue, the mirror that reads it, and audits of the copy."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio

from asyncsync import Config, Mirror
from asyncsync.aws.clients import AwsClients
from asyncsync.aws.items import json_attributes
from asyncsync.tools.audit.command import AuditOptions, audit
from tests.support.events import FIRST, arn, event, record
from tests.support.output import RecordedOutput
from tests.support.tables import Item, make_table, numbered


class MirroredTable:
    """A table, its stream as a queue, and the mirror that reads the queue."""

    def __init__(
        self, clients: AwsClients, endpoint: str, table: str, mirror: Mirror, **keys: str
    ) -> None:
        self.clients, self.endpoint, self.table, self.mirror = clients, endpoint, table, mirror
        self.keys = keys or {"Number": "N"}
        self.said: list[str] = []
        self.progress: list[str] = []
        self.queue: deque[tuple[Any, Any]] = deque()  # the key, its record
        self.held: deque[Any] = deque()
        self.hold: Any = None  # the key whose records wait
        self.sent = self.handled = 0
        self.turn = anyio.Lock()  # the mirror's: one call at a time

    async def change(self, item: Item, *, removed: bool = False) -> None:
        """Write to the table; the record waits in the stream."""
        key: Any = {name: item[name] for name in self.keys}
        if removed:
            await self.clients.items.delete_item(TableName=self.table, Key=key)
        else:
            await self.clients.items.put_item(TableName=self.table, Item=item)
        self.sent += 1
        made = record(
            0,
            FIRST + self.sent,
            image=json_attributes(item),
            removed=removed,
            stream_arn=arn(table=self.table),
            Keys=json_attributes(key),
        )
        self.queue.append((key, made))

    async def deliver(self, *, keep: int = 0) -> None:
        """Let the mirror handle the stream's records but for the newest `keep`."""
        async with self.turn:
            batch: list[Any] = []
            while len(self.queue) > keep:
                key, made = self.queue.popleft()
                (self.held if key == self.hold else batch).append(made)
            await self._handle(batch)

    async def release(self) -> None:
        """Deliver what was held."""
        async with self.turn:
            self.hold = None
            await self._handle([*self.held])
            self.held.clear()

    async def _handle(self, batch: list[Any]) -> None:
        if batch:
            answer = await self.mirror.handle(event(batch), None)
            assert answer == {"batchItemFailures": []}
        self.handled += len(batch)

    async def audit(self, **options: Any) -> bool:
        given = {"recheck_after_s": 0.01, **options}
        wanted = AuditOptions(table=self.table, endpoint_url=self.endpoint, **given)
        output = RecordedOutput()
        try:
            return await audit(self.clients, wanted, self.mirror, output)
        finally:
            self.said, self.progress = output.lines, output.progress_lines

    async def found(self, **options: Any) -> dict[str, str]:
        """Audit; return the findings by key."""
        is_good = await self.audit(as_json=True, **options)
        *findings, self.summary = (json.loads(line) for line in self.said)
        assert is_good == all(each.get("repaired") for each in findings)
        return {each["key"]: each["finding"] for each in findings}


@asynccontextmanager
async def mirrored_tables(
    clients: AwsClients, endpoint: str, redis_url: str
) -> AsyncIterator[Callable[..., Any]]:
    """Yield a function that makes a MirroredTable; remove all of them at the end."""
    made: list[MirroredTable] = []

    async def world(
        table: str = "Players", keys: dict[str, str] | None = None, **settings: Any
    ) -> MirroredTable:
        await make_table(clients, table, **(keys or {}))
        rules = {
            name: settings.pop(name) for name in ("key_function", "transform") if name in settings
        }
        mirror = Mirror(
            Config(**({"redis_url": redis_url} | settings)),
            key=rules.get("key_function"),
            transform=rules.get("transform"),
            emit=lambda _: None,
        )
        made.append(MirroredTable(clients, endpoint, table, mirror, **(keys or {})))
        return made[-1]

    yield world
    for each in made:
        each.mirror.close()
        await clients.items.delete_table(TableName=each.table)
    await asyncio.sleep(0)  # lets the sockets go


async def filled(make: Callable[..., Any], count: int = 60, **settings: Any) -> MirroredTable:
    """Make a table of so many items that are all in the copy."""
    world: MirroredTable = await make(**settings)
    for item in numbered(count):
        await world.change(item)
    await world.deliver()
    return world
