"""The reads of DynamoDB that the tools need, through aioboto3; what is read, in Lambda's shape.

Nothing outside this module imports aioboto3 or sees its errors: each becomes one line.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
)
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from asyncsync.aws.raw_items import leave_items
from asyncsync.errors import AsyncsyncError, ConfigError

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb import DynamoDBClient
    from types_aiobotocore_dynamodbstreams import DynamoDBStreamsClient

_THROTTLED = (
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "ThrottlingException",
    "SlowDown",
)
_ITERATOR_GONE = ("ExpiredIteratorException", "TrimmedDataAccessException")
_OBJECT_GONE = ("NoSuchKey", "404")

Attributes: TypeAlias = dict[str, dict[str, Any]]  # an item in DynamoDB JSON, B as base64 text

# Any will do for a server of one's own, and Lambda's default Region is as good as another.
_LOCAL = {
    "aws_access_key_id": "local",
    "aws_secret_access_key": "local",
    "region_name": "us-east-1",
}
_CONNECTIONS_MAX = 32

# To connect takes milliseconds; in a network without a way there it is found out, not waited for.
_CONNECT_WITHIN_S = 10


class AwsFailed(AsyncsyncError):
    """AWS could not be used, or said no; the message says at what."""


class IteratorGone(AwsFailed):
    """A shard iterator is older than 15 minutes, or what it points to than 24 hours."""


class ObjectGone(AwsFailed):
    """An object of S3 is not there, or no longer."""


class Throttled(AwsFailed):
    """DynamoDB asks to come again later."""


@dataclass(frozen=True, slots=True)
class AwsClients:
    """The two clients of one account and Region, and how another service's is opened."""

    items: DynamoDBClient
    streams: DynamoDBStreamsClient
    open: Callable[[str], AbstractAsyncContextManager[Any]]


@dataclass(frozen=True, slots=True)
class Table:
    """What the tools need to know of a table."""

    name: str
    keys: tuple[str, ...]
    stream_arn: str | None
    view_type: str | None
    arn: str = ""
    types: Mapping[str, str] = field(default_factory=dict)  # of the key attributes: S, N or B
    items: int = 0  # about: DynamoDB counts every six hours
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard of a stream; its parent may be trimmed already."""

    shard_id: str
    parent: str | None


@dataclass(frozen=True, slots=True)
class RecordPage:
    """Records in Lambda's shape, and where to go on: None at the end of a closed shard."""

    records: list[dict[str, Any]]
    iterator: str | None


@asynccontextmanager
async def open_clients(
    endpoint_url: str | None, env: Mapping[str, str]
) -> AsyncIterator[AwsClients]:
    """Open the clients; an endpoint of one's own needs no credentials.

    Raises AwsFailed, as every function here does, where DynamoDB cannot be used.
    """
    import aioboto3  # 0.9 s
    from aiobotocore.config import AioConfig

    own = endpoint_url is not None and not any(
        name in env for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_ROLE_ARN")
    )
    # A proxy for the web does not lead to an endpoint on this machine.
    config = AioConfig(
        max_pool_connections=_CONNECTIONS_MAX,
        connect_timeout=_CONNECT_WITHIN_S,
        retries={"mode": "standard", "max_attempts": 3},
        proxies={} if own else None,
    )
    async with AsyncExitStack() as clients:
        with aws_errors("opening the client"):
            session = aioboto3.Session(**(_LOCAL if own else {}))  # type: ignore[arg-type]
            open_ = partial(session.client, endpoint_url=endpoint_url, config=config)
            items = await clients.enter_async_context(open_("dynamodb"))
            leave_items(items.meta.events)
            streams = await clients.enter_async_context(open_("dynamodbstreams"))
        yield AwsClients(items, streams, open_)


@contextmanager
def aws_errors(doing: str, service: str = "DynamoDB") -> Iterator[None]:
    """Turn a foreign error into one line that says what was being done.

    Raises AwsFailed, or its children IteratorGone, ObjectGone and Throttled.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as exc:
        error = exc.response.get("Error", {})
        code = error.get("Code", "error")
        said = f"{code}: {error.get('Message', '')}".rstrip(": ")
        failed = IteratorGone if code in _ITERATOR_GONE else AwsFailed
        failed = Throttled if code in _THROTTLED else failed
        failed = ObjectGone if code in _OBJECT_GONE else failed
        raise failed(f"{service} refused {doing}: {said}") from exc
    except (BotoCoreError, ValueError) as exc:
        said = " ".join(str(exc).split())
        raise AwsFailed(f"{service} failed at {doing}: {said}") from exc


async def describe_table(dynamo: AwsClients, name: str) -> Table:
    """Return a table's key and stream."""
    with aws_errors(f"describing table {name}"):
        answer = await dynamo.items.describe_table(TableName=name)
    table = answer["Table"]
    stream = table.get("StreamSpecification", {})
    return Table(
        name,
        tuple(each["AttributeName"] for each in table["KeySchema"]),
        table.get("LatestStreamArn") if stream.get("StreamEnabled") else None,
        stream.get("StreamViewType"),
        table.get("TableArn", ""),
        {each["AttributeName"]: each["AttributeType"] for each in table["AttributeDefinitions"]},
        table.get("ItemCount", 0),
        table.get("TableSizeBytes", 0),
    )


def stream_of(table: Table) -> str:
    """Return the ARN of a table's stream.

    Raises ConfigError where it has none.
    """
    if table.stream_arn is None:
        raise ConfigError(f"table {table.name} has no stream: enable one with view type NEW_IMAGE")
    return table.stream_arn


async def shards(dynamo: AwsClients, stream_arn: str) -> list[Shard]:
    """List a stream's shards, parents before their children."""
    found: list[Shard] = []
    request: dict[str, Any] = {"StreamArn": stream_arn}
    while True:
        with aws_errors("describing the stream"):
            answer = await dynamo.streams.describe_stream(**request)
        stream = answer["StreamDescription"]
        found += [
            Shard(each["ShardId"], each.get("ParentShardId")) for each in stream.get("Shards", [])
        ]
        last = stream.get("LastEvaluatedShardId")
        if not last:
            return found
        request["ExclusiveStartShardId"] = last


async def shard_iterator(
    dynamo: AwsClients, stream_arn: str, shard_id: str, after: str | None = None
) -> str:
    """Begin to read a shard at its oldest record, or after a sequence number."""
    place: dict[str, Any] = {"ShardIteratorType": "TRIM_HORIZON"}
    if after is not None:
        place = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": after}
    with aws_errors(f"opening shard {shard_id}"):
        answer = await dynamo.streams.get_shard_iterator(
            StreamArn=stream_arn, ShardId=shard_id, **place
        )
    return answer["ShardIterator"]


async def read_page(dynamo: AwsClients, stream_arn: str, iterator: str) -> RecordPage:
    """Read the next records of a shard, at most 1 000."""
    with aws_errors("reading the stream"):
        answer = await dynamo.streams.get_records(ShardIterator=iterator)
    records = [lambda_record(each, stream_arn) for each in answer["Records"]]
    return RecordPage(records, answer.get("NextShardIterator"))


async def scan(dynamo: AwsClients, table: str) -> AsyncIterator[Attributes]:
    """Read every item consistently, in DynamoDB JSON."""
    request: dict[str, Any] = {"TableName": table, "ConsistentRead": True}
    while True:
        with aws_errors(f"scanning table {table}"):
            answer = await dynamo.items.scan(**request)
        for item in answer["Items"]:
            yield json_attributes(item)
        last = answer.get("LastEvaluatedKey")
        if not last:
            return
        request["ExclusiveStartKey"] = last


async def get_item(dynamo: AwsClients, table: str, key: Attributes) -> Attributes | None:
    """Read one item consistently, in DynamoDB JSON; None where there is none."""
    with aws_errors(f"reading an item of table {table}"):
        answer = await dynamo.items.get_item(TableName=table, Key=key, ConsistentRead=True)
    item = answer.get("Item")
    return None if item is None else json_attributes(item)


# --- from the SDK's shape to Lambda's ---------------------------------------------------------


def lambda_record(record: Mapping[str, Any], stream_arn: str) -> dict[str, Any]:
    """Write an SDK's stream record as Lambda's events have it."""
    change = dict(record["dynamodb"])
    created = change.get("ApproximateCreationDateTime")
    if isinstance(created, datetime):
        change["ApproximateCreationDateTime"] = created.timestamp()
    for name in ("Keys", "NewImage", "OldImage"):
        if name in change:
            change[name] = json_attributes(change[name])
    made = {**record, "dynamodb": change, "eventSourceARN": stream_arn}
    identity = record.get("userIdentity")
    if identity:
        made["userIdentity"] = {
            "type": identity.get("Type"),
            "principalId": identity.get("PrincipalId"),
        }
    return made


def json_attributes(item: Mapping[str, Any]) -> Attributes:
    """Write binary values as base64 text, as DynamoDB's own JSON has them."""
    return {name: _json_value(value) for name, value in item.items()}


def _json_value(value: Any) -> Any:
    ((tag, held),) = value.items()
    if tag == "B":
        held = b64encode(held).decode()
    elif tag == "BS":
        held = [b64encode(each).decode() for each in held]
    elif tag == "L":
        held = [_json_value(each) for each in held]
    elif tag == "M":
        held = json_attributes(held)
    return {tag: held}
