"""Reads single items of a table consistently, for readers of the copy."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

import anyio

from asyncsync.aws.clients import AwsFailed, aws_errors, member
from asyncsync.aws.items import image_of, in_order, sdk_key
from asyncsync.aws.tables import parse_table_arn
from asyncsync.copy.delays import delays
from asyncsync.model import Key

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb import DynamoDBClient

# DynamoDB leaves keys of a batch unread where it throttles. After these waits, some two seconds
# in all, the reader's caller should know.
UNREAD_PAUSES_S = (*islice(delays(0.05, 1.0), 6),)

# A reader answers a program that waits: it must not wait as long as a tool.
_CONNECT_TIMEOUT_S = 2
_READ_TIMEOUT_S = 5

_NO_REGION = "no AWS Region is set: give region=, or the table's ARN, or set AWS_DEFAULT_REGION"


class TableReads:
    """Consistent reads of one table's items, over one client of DynamoDB."""

    def __init__(self, client: DynamoDBClient, table: str) -> None:
        self._client = client
        self._table = table
        self._work = f"reading items of table {table}"

    async def read(self, keys: Sequence[Key]) -> Sequence[bytes | None]:
        """Read up to 100 items; return their images in the keys' order, None for no item.

        Raises AwsFailed.
        """
        if len(keys) == 1:
            return [await self._read_one(keys[0])]
        items: list[Any] = []
        unread: list[Any] = [sdk_key(key) for key in keys]
        for pause_s in (*UNREAD_PAUSES_S, None):
            answered, unread = await self._read_batch(unread)
            items += answered
            if not unread:
                return in_order(keys, items)
            if pause_s is not None:
                await anyio.sleep(pause_s)
        raise AwsFailed(f"DynamoDB throttles {self._work}: try again later")

    async def _read_one(self, key: Key) -> bytes | None:
        with aws_errors(self._work):
            answer = await self._client.get_item(
                TableName=self._table, Key=sdk_key(key), ConsistentRead=True
            )
        item: Any = answer.get("Item")
        return None if item is None else image_of(item)

    async def _read_batch(self, keys: list[Any]) -> tuple[list[Any], list[Any]]:
        """Return the items of one read, and the keys that DynamoDB did not read."""
        request: Any = {self._table: {"Keys": keys, "ConsistentRead": True}}
        with aws_errors(self._work):
            answer = await self._client.batch_get_item(RequestItems=request)
        responses: Any = member(answer, "Responses", self._work)
        unread: Any = member(answer, "UnprocessedKeys", self._work)
        rest = member(self._of_table(unread), "Keys", self._work) if unread else []
        if not responses and len(rest) == len(keys):
            return [], rest  # nothing was read
        return self._of_table(responses), rest

    def _of_table(self, by_table: Any) -> Any:
        """Return an answer's member for this table: silence about it must not mean no items."""
        arn = parse_table_arn(self._table)
        for called in (self._table, arn.name if arn else ""):
            if called in by_table:
                return by_table[called]
        raise AwsFailed(f"DynamoDB failed at {self._work}: its answer does not speak of it")


@asynccontextmanager
async def open_dynamodb(
    region: str | None, endpoint_url: str | None
) -> AsyncIterator[DynamoDBClient]:
    """Open a client of DynamoDB; without a Region, the SDK looks for one.

    Raises AwsFailed.
    """
    from aiobotocore.config import AioConfig
    from aiobotocore.session import get_session
    from botocore.exceptions import NoRegionError

    config = AioConfig(
        connect_timeout=_CONNECT_TIMEOUT_S,
        read_timeout=_READ_TIMEOUT_S,
        retries={"mode": "standard", "max_attempts": 3},
    )
    arguments: Any = {"endpoint_url": endpoint_url, "region_name": region, "config": config}
    async with AsyncExitStack() as stack:
        try:
            with aws_errors("opening the client", "AWS"):
                created = get_session().create_client("dynamodb", **arguments)
                client = await stack.enter_async_context(created)
        except AwsFailed as exc:
            if isinstance(exc.__cause__, NoRegionError):
                raise AwsFailed(_NO_REGION) from exc
            raise
        yield client
