"""The reads of DynamoDB that the tools need, through aioboto3; what is read, in Lambda's shape.

Nothing outside this module imports aioboto3 or sees its errors: each becomes one line.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
)
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from asyncsync.aws.raw_items import leave_items
from asyncsync.errors import AsyncsyncError

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
        with aws_errors("opening the clients", "AWS"):
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
