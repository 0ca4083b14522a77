"""AWS as the tools see it in a simulation: a table's items and a bucket.

The clients answer as the SDK's do, late or in part, so the tools' own code reads and parses the
answers. They raise what aws/clients.py would raise instead of the SDK's errors, because only
aws/ knows those.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from io import BytesIO
from random import Random
from typing import Any, Protocol

from asyncsync.aws.clients import AwsClients, AwsFailed, ObjectGone, Throttled
from asyncsync.lab.simulation.faults import Fault, Faults
from asyncsync.lab.simulation.items import item_image
from asyncsync.lab.simulation.scenario import Scenario
from asyncsync.lab.simulation.table import TABLE, SimulatedTable
from asyncsync.lab.simulation.virtual_time import VirtualLoop

BUCKET = "simulated"
PAGE_ITEMS = 100  # of a scan without a limit
LISTED_MAX = 3  # objects in one answer, so that a list takes several

# An eventually consistent read may miss what was written in the last second.
EVENTUAL_MS = 1_000

# Less than the hour that a fill reserves for clocks that differ.
SKEW_S_MAX = 1_500.0

FENCE_LIFE_S = 90_000.0

PAUSE_GAPS = 30.0  # between changes; the longest pause of a reader

_CALM_S = 0.001


class Caller(Protocol):
    """A process that calls AWS, with its own clocks."""

    name: str
    skew_s: float  # of its wall clock
    slept_s: float  # what its monotonic clock is ahead by
    reads: int  # of the table so far
    held_read: int  # which of them is held until it is stale; 0: none

    def object_moved(self, name: str) -> None:
        """Note that this caller has copied an object, which is the first half of a move."""


class SimulatedAws:
    """One account with one table and one bucket; every caller opens its own clients."""

    def __init__(
        self,
        table: SimulatedTable,
        scenario: Scenario,
        faults: Faults,
        loop: VirtualLoop,
        say: Callable[..., None],
    ) -> None:
        self.objects: dict[str, bytes] = {}
        self.is_stale = asyncio.Event()  # answers that were held are stale now
        self.faults = faults
        self.chance: Random = faults.chance
        self.say = say
        self._table = table
        self._scenario = scenario
        self._loop = loop

    def clients(self, caller: Caller) -> AwsClients:
        """Return the clients of a caller."""
        items: Any = DynamoDbClient(self, caller)

        @asynccontextmanager
        async def opened(service: str) -> AsyncIterator[Any]:
            assert service == "s3", "the tools skip the check of the mapping"
            yield S3Client(self, caller)

        return AwsClients(items, items, opened)

    async def wait(self, caller: Caller) -> None:
        """Wait as long as half of a call takes."""
        strikes, chance = self.faults.strikes, self.chance
        if self.faults.is_calm:
            await asyncio.sleep(_CALM_S)
            return
        if strikes(Fault.TOOL_CLOCK_JUMPS):
            caller.skew_s = chance.uniform(-SKEW_S_MAX, SKEW_S_MAX)
            caller.slept_s += chance.uniform(0, 3_600)
        tools = self._scenario.tools
        is_slow = strikes(Fault.READ_SLOW)
        await asyncio.sleep(chance.uniform(0, tools.max_latency_s if is_slow else tools.read_s))

    async def pause(self) -> None:
        """Let a reader's process pause, while others change what it has read."""
        if self.faults.strikes(Fault.READER_PAUSES):
            await asyncio.sleep(self.chance.uniform(0, PAUSE_GAPS * self._scenario.gap_s))

    async def hold_until_stale(self, caller: Caller) -> None:
        """Hold the answer of a chosen read until fences have expired; the machine may sleep."""
        caller.reads += 1
        if caller.reads != caller.held_read:
            return
        self.say("  %s: an answer of the table is held", caller.name)
        began_s = self._loop.time()
        await self.is_stale.wait()
        if self._loop.time() - began_s > FENCE_LIFE_S:
            self.faults.count(Fault.READ_OUTLIVES_FENCE)
        if self.chance.random() < 0.5:  # the monotonic clock stops while a machine sleeps
            caller.slept_s -= self._loop.time() - began_s

    # --- items ---------------------------------------------------------------------------------

    @property
    def numbers(self) -> list[int]:
        """Return the numbers of all items that the table has or had."""
        return [*self._table.history]

    def item(self, number: int, *, consistent: bool) -> Mapping[str, Any] | None:
        """Read an item as it is now, or, if eventually consistent, as it was a moment ago."""
        now_ms = self._loop.wall_ms()
        if not consistent and self.faults.strikes(Fault.READ_BEHIND):
            now_ms -= self.chance.randint(0, EVENTUAL_MS)
        for change in reversed(self._table.history[number]):
            if change.written_ms <= now_ms:
                return change.item
        return item_image(number, 0, {}) if self._scenario.before else None


class DynamoDbClient:
    """DynamoDB's client, as far as the tools use it."""

    def __init__(self, aws: SimulatedAws, caller: Caller) -> None:
        self._aws = aws
        self._caller = caller

    async def describe_table(self, **_: Any) -> dict[str, Any]:
        """Describe the one table."""
        await self._aws.wait(self._caller)
        table = {
            "TableName": TABLE,
            "TableArn": f"arn:aws:dynamodb:us-east-1:111122223333:table/{TABLE}",
            "KeySchema": [{"AttributeName": "Number", "KeyType": "HASH"}],
            "AttributeDefinitions": [{"AttributeName": "Number", "AttributeType": "N"}],
            "ItemCount": len(self._aws.numbers),
        }
        return {"Table": table}

    async def scan(self, **request: Any) -> dict[str, Any]:
        """Return a page of a segment, whose items are all read at one moment."""
        await self._ask()
        aws = self._aws
        segment, segments = request.get("Segment", 0), request.get("TotalSegments", 1)
        start = request.get("ExclusiveStartKey")
        after = int(start["Number"]["N"]) if start else 0
        limit = request.get("Limit", PAGE_ITEMS)
        if aws.faults.strikes(Fault.READ_PARTIAL):
            limit = 1
        consistent = request.get("ConsistentRead", False)
        items: list[Mapping[str, Any]] = []
        next_key: Any = None
        for number in sorted(aws.numbers):
            if number <= after or number % segments != segment:
                continue
            if len(items) == limit:
                next_key = {"Number": {"N": items[-1]["Number"]["N"]}}
                break
            item = aws.item(number, consistent=consistent)
            if item is not None:
                items.append(item)
        await aws.wait(self._caller)
        await aws.hold_until_stale(self._caller)
        answer: dict[str, Any] = {"Items": items, "ConsumedCapacity": {"CapacityUnits": 0.5}}
        return answer | ({"LastEvaluatedKey": next_key} if next_key else {})

    async def get_item(self, **request: Any) -> dict[str, Any]:
        """Return one item."""
        await self._ask()
        number = int(request["Key"]["Number"]["N"])
        item = self._aws.item(number, consistent=request.get("ConsistentRead", False))
        await self._aws.wait(self._caller)
        await self._aws.pause()
        return {} if item is None else {"Item": item}

    async def batch_get_item(self, **request: Any) -> dict[str, Any]:
        """Return the items of some keys, in any order."""
        await self._ask()
        aws, wanted = self._aws, request["RequestItems"][TABLE]
        keys = list(wanted["Keys"])
        aws.chance.shuffle(keys)
        unread: list[Any] = []
        if aws.faults.strikes(Fault.READ_PARTIAL):
            unread = [keys.pop() for _ in range(aws.chance.randint(0, len(keys)))]
        consistent = wanted.get("ConsistentRead", False)
        items = [aws.item(int(key["Number"]["N"]), consistent=consistent) for key in keys]
        await aws.wait(self._caller)
        await aws.hold_until_stale(self._caller)
        return {
            "Responses": {TABLE: [item for item in items if item is not None]},
            "UnprocessedKeys": {TABLE: {**wanted, "Keys": unread}} if unread else {},
            "ConsumedCapacity": [{"TableName": TABLE, "CapacityUnits": 0.5}],
        }

    async def _ask(self) -> None:
        await self._aws.wait(self._caller)
        if self._aws.faults.strikes(Fault.READ_THROTTLED):
            raise Throttled("DynamoDB refused a read: ThrottlingException")


class S3Client:
    """S3's client, as far as the tools use it; there is one bucket under every name."""

    def __init__(self, aws: SimulatedAws, caller: Caller) -> None:
        self._aws = aws
        self._caller = caller

    async def get_object(self, **request: Any) -> dict[str, Any]:
        """Return an object's content."""
        await self._ask()
        content = self._content(request["Key"])
        await self._aws.wait(self._caller)
        return {"Body": _Body(content)}

    async def put_object(self, **request: Any) -> None:
        """Write an object."""
        await self._ask()
        self._aws.objects[request["Key"]] = request["Body"]
        await self._aws.wait(self._caller)

    async def copy_object(self, **request: Any) -> None:
        """Copy an object: the first half of a move."""
        await self._ask()
        source = request["CopySource"]["Key"]
        self._aws.objects[request["Key"]] = self._content(source)
        self._caller.object_moved(source)
        await self._aws.wait(self._caller)

    async def delete_object(self, **request: Any) -> None:
        """Remove an object if it exists."""
        await self._ask()
        self._aws.objects.pop(request["Key"], None)
        await self._aws.wait(self._caller)

    async def list_objects_v2(self, **request: Any) -> dict[str, Any]:
        """List a few objects, in order of their names."""
        await self._ask()
        after = request.get("ContinuationToken", "")
        prefix = request["Prefix"]
        names = sorted(n for n in self._aws.objects if n.startswith(prefix) and n > after)
        answer: dict[str, Any] = {
            "Contents": [
                {"Key": name, "Size": len(self._aws.objects[name])} for name in names[:LISTED_MAX]
            ]
        }
        if len(names) > LISTED_MAX:
            answer |= {"IsTruncated": True, "NextContinuationToken": names[LISTED_MAX - 1]}
        return answer

    def get_paginator(self, _: str) -> _Pages:
        """Return a paginator of objects."""
        return _Pages(self)

    def _content(self, key: str) -> bytes:
        content = self._aws.objects.get(key)
        if content is None:
            raise ObjectGone(f"S3 refused {key}: NoSuchKey")
        return content

    async def _ask(self) -> None:
        await self._aws.wait(self._caller)
        if self._aws.faults.strikes(Fault.S3_FAILS):
            raise AwsFailed("S3 refused a call: InternalError")


class _Pages:
    def __init__(self, client: S3Client) -> None:
        self._client = client

    async def paginate(self, **request: Any) -> AsyncIterator[dict[str, Any]]:
        while True:
            page = await self._client.list_objects_v2(**request)
            yield page
            if not page.get("IsTruncated"):
                return
            request["ContinuationToken"] = page["NextContinuationToken"]


class _Body:
    def __init__(self, content: bytes) -> None:
        self._file = BytesIO(content)

    async def read(self) -> bytes:
        return self._file.read()
