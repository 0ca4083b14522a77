"""What the tools ask of AWS in a simulation: a table's items and a bucket, late, or not at all.

It answers as the SDK's clients do, so the tools' own code reads and parses it. What a client
would raise is raised as dynamo.py turns it, because nothing else may know the SDK's errors.
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
from asyncsync.lab.simulation.oracle import item_image
from asyncsync.lab.simulation.scenario import Scenario
from asyncsync.lab.simulation.table import TABLE, SimulatedTable
from asyncsync.lab.simulation.virtual_time import VirtualLoop

BUCKET = "simulated"
PAGE_ITEMS = 100  # of a scan that asks for no limit
LISTED_MAX = 3  # objects in one answer, so that a list has several

# An eventually consistent read may miss what was written in the last second.
EVENTUAL_MS = 1_000

# Less than the hour that a fill keeps in reserve for clocks that differ.
SKEW_S_MAX = 1_500.0

OLD_S = 90_000.0  # a fence's life

_CALM_S = 0.001


class Caller(Protocol):
    """A process that asks; its clocks are its own."""

    name: str
    skew_s: float  # of its wall clock
    slept_s: float  # what its monotonic clock is ahead by
    reads: int  # of the table, so far
    held_read: int  # which of them is held until it is stale; 0: none

    def object_moved(self, name: str) -> None:
        """Take note that this caller has copied an object, as the first half of a move."""


class SimulatedAws:
    """One account: one table, one bucket; every caller has clients of its own."""

    def __init__(
        self,
        table: SimulatedTable,
        scenario: Scenario,
        faults: Faults,
        loop: VirtualLoop,
        say: Callable[..., None],
    ) -> None:
        self.objects: dict[str, bytes] = {}
        self.is_stale = asyncio.Event()  # what waits to be old is
        self.faults = faults
        self.chance: Random = faults.chance
        self.say = say
        self._table = table
        self._scenario = scenario
        self._loop = loop

    def clients(self, caller: Caller) -> AwsClients:
        """Open the clients of a caller."""
        items: Any = DynamoDbClient(self, caller)

        @asynccontextmanager
        async def opened(service: str) -> AsyncIterator[Any]:
            assert service == "s3", "the tools are told that the stream is followed"
            yield S3Client(self, caller)

        return AwsClients(items, items, opened)

    async def wait(self, caller: Caller) -> None:
        """Let half of a call's time pass."""
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

    async def hold_until_stale(self, caller: Caller) -> None:
        """Let an answer wait, in a machine that sleeps or not, until fences have ended."""
        caller.reads += 1
        if caller.reads != caller.held_read:
            return
        self.say("  %s: an answer of the table waits", caller.name)
        began_s = self._loop.time()
        await self.is_stale.wait()
        if self._loop.time() - began_s > OLD_S:
            self.faults.count(Fault.READ_OUTLIVES_FENCE)
        if self.chance.random() < 0.5:  # the one clock stands still in a machine that sleeps
            caller.slept_s -= self._loop.time() - began_s

    # --- items ---------------------------------------------------------------------------------

    @property
    def numbers(self) -> list[int]:
        """Return which items the table has or had."""
        return [*self._table.history]

    def item(self, number: int, *, consistent: bool) -> Mapping[str, Any] | None:
        """Read an item as it is now, or as it was a moment ago."""
        now_ms = self._loop.wall_ms()
        if not consistent and self.faults.strikes(Fault.READ_BEHIND):
            now_ms -= self.chance.randint(0, EVENTUAL_MS)
        for change in reversed(self._table.history[number]):
            if change.made_ms <= now_ms:
                return change.item
        return item_image(number, 0, {}) if self._scenario.before else None


class DynamoDbClient:
    """The client of DynamoDB, as far as the tools use it."""

    def __init__(self, aws: SimulatedAws, caller: Caller) -> None:
        self._aws = aws
        self._caller = caller

    async def describe_table(self, **_: Any) -> dict[str, Any]:
        """Describe the one table."""
        await self._aws.wait(self._caller)
        described = {
            "TableName": TABLE,
            "TableArn": f"arn:aws:dynamodb:us-east-1:111122223333:table/{TABLE}",
            "KeySchema": [{"AttributeName": "Number", "KeyType": "HASH"}],
            "AttributeDefinitions": [{"AttributeName": "Number", "AttributeType": "N"}],
            "ItemCount": len(self._aws.numbers),
        }
        return {"Table": described}

    async def scan(self, **request: Any) -> dict[str, Any]:
        """Answer a page of a segment; each of its items was read at one moment of many."""
        await self._ask()
        aws = self._aws
        segment, segments = request.get("Segment", 0), request.get("TotalSegments", 1)
        start = request.get("ExclusiveStartKey")
        after = int(start["Number"]["N"]) if start else 0
        limit = request.get("Limit", PAGE_ITEMS)
        if aws.faults.strikes(Fault.READ_PARTIAL):
            limit = 1
        consistent = request.get("ConsistentRead", False)
        found: list[Mapping[str, Any]] = []
        rest: Any = None
        for number in sorted(aws.numbers):
            if number <= after or number % segments != segment:
                continue
            if len(found) == limit:
                rest = {"Number": {"N": found[-1]["Number"]["N"]}}
                break
            item = aws.item(number, consistent=consistent)
            if item is not None:
                found.append(item)
        await aws.wait(self._caller)
        await aws.hold_until_stale(self._caller)
        answer: dict[str, Any] = {"Items": found, "ConsumedCapacity": {"CapacityUnits": 0.5}}
        return answer | ({"LastEvaluatedKey": rest} if rest else {})

    async def batch_get_item(self, **request: Any) -> dict[str, Any]:
        """Answer some keys' items, in an order of its own."""
        await self._ask()
        aws, wanted = self._aws, request["RequestItems"][TABLE]
        keys = list(wanted["Keys"])
        aws.chance.shuffle(keys)
        unread: list[Any] = []
        if aws.faults.strikes(Fault.READ_PARTIAL):
            unread = [keys.pop() for _ in range(aws.chance.randint(0, len(keys)))]
        consistent = wanted.get("ConsistentRead", False)
        read = [aws.item(int(key["Number"]["N"]), consistent=consistent) for key in keys]
        await aws.wait(self._caller)
        await aws.hold_until_stale(self._caller)
        return {
            "Responses": {TABLE: [each for each in read if each is not None]},
            "UnprocessedKeys": {TABLE: {**wanted, "Keys": unread}} if unread else {},
            "ConsumedCapacity": [{"TableName": TABLE, "CapacityUnits": 0.5}],
        }

    async def _ask(self) -> None:
        await self._aws.wait(self._caller)
        if self._aws.faults.strikes(Fault.READ_THROTTLED):
            raise Throttled("DynamoDB refused a read: ThrottlingException")


class S3Client:
    """The client of S3, as far as the tools use it; a bucket is as good as another."""

    def __init__(self, aws: SimulatedAws, caller: Caller) -> None:
        self._aws = aws
        self._caller = caller

    async def get_object(self, **request: Any) -> dict[str, Any]:
        """Answer an object's content."""
        await self._ask()
        held = self._held(request["Key"])
        await self._aws.wait(self._caller)
        return {"Body": _Body(held)}

    async def put_object(self, **request: Any) -> None:
        """Write an object whole."""
        await self._ask()
        self._aws.objects[request["Key"]] = request["Body"]
        await self._aws.wait(self._caller)

    async def copy_object(self, **request: Any) -> None:
        """Copy an object, as the first half of a move."""
        await self._ask()
        source = request["CopySource"]["Key"]
        self._aws.objects[request["Key"]] = self._held(source)
        self._caller.object_moved(source)
        await self._aws.wait(self._caller)

    async def delete_object(self, **request: Any) -> None:
        """Remove an object, there or not."""
        await self._ask()
        self._aws.objects.pop(request["Key"], None)
        await self._aws.wait(self._caller)

    async def list_objects_v2(self, **request: Any) -> dict[str, Any]:
        """Name a few objects, in order of their names."""
        await self._ask()
        after = request.get("ContinuationToken", "")
        prefix = request["Prefix"]
        found = sorted(n for n in self._aws.objects if n.startswith(prefix) and n > after)
        answer: dict[str, Any] = {"Contents": [{"Key": name} for name in found[:LISTED_MAX]]}
        if len(found) > LISTED_MAX:
            answer |= {"IsTruncated": True, "NextContinuationToken": found[LISTED_MAX - 1]}
        return answer

    def get_paginator(self, _: str) -> _Pages:
        """Give what lists objects page by page."""
        return _Pages(self)

    def _held(self, key: str) -> bytes:
        held = self._aws.objects.get(key)
        if held is None:
            raise ObjectGone(f"S3 refused {key}: NoSuchKey")
        return held

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
    def __init__(self, held: bytes) -> None:
        self._file = BytesIO(held)

    async def read(self) -> bytes:
        return self._file.read()
