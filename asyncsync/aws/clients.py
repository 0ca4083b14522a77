"""Opens clients of AWS's services and turns their errors into ours, one line each.

Only this room imports aioboto3, and nothing outside it sees the SDK's errors.
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
from urllib.parse import urlsplit

from asyncsync.aws.raw_items import keep_raw_items
from asyncsync.errors import AsyncsyncError, ConfigError

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb import DynamoDBClient
    from types_aiobotocore_dynamodbstreams import DynamoDBStreamsClient

# For an endpoint that checks neither, such as DynamoDB Local; used only where there are none.
_LOCAL_KEYS = {"aws_access_key_id": "local", "aws_secret_access_key": "local"}
_LOCAL_REGION = "us-east-1"

_THIS_MACHINE = ("localhost", "::1")
_CONNECTIONS_MAX = 32

# Connecting takes milliseconds. A network without a route to AWS is an error, not a long wait.
_CONNECT_TIMEOUT_S = 10


class AwsFailed(AsyncsyncError):
    """AWS could not be reached or refused a request; the message says which service and what."""


class IteratorGone(AwsFailed):
    """A shard iterator is older than 15 minutes, or its records are older than 24 hours."""


class ObjectGone(AwsFailed):
    """An object is not in S3, or no longer."""


class ObjectRefused(AwsFailed):
    """S3 does not hand out one object: it is archived, or its key or policy forbids it."""


class Throttled(AwsFailed):
    """A service asks to try again later."""


_FAILURES: Mapping[str, type[AwsFailed]] = {
    "ExpiredIteratorException": IteratorGone,
    "TrimmedDataAccessException": IteratorGone,
    "NoSuchKey": ObjectGone,
    "404": ObjectGone,
    "InvalidObjectState": ObjectRefused,
    "ObjectNotInActiveTierError": ObjectRefused,
    "AccessDenied": ObjectRefused,
    "403": ObjectRefused,
    "KMS.DisabledException": ObjectRefused,
    "KMS.NotFoundException": ObjectRefused,
    "KMS.KMSInvalidStateException": ObjectRefused,
    "ProvisionedThroughputExceededException": Throttled,
    "RequestLimitExceeded": Throttled,
    "ThrottlingException": Throttled,
    "SlowDown": Throttled,
}


@dataclass(frozen=True, slots=True)
class AwsClients:
    """DynamoDB's two clients for one account and Region; `open` opens another service's.

    `open` takes the SDK's name of the service, such as "s3" or "lambda".
    """

    items: DynamoDBClient
    streams: DynamoDBStreamsClient
    open: Callable[[str], AbstractAsyncContextManager[Any]]


@asynccontextmanager
async def open_clients(
    endpoint_url: str | None,
    env: Mapping[str, str],
    *,
    region: str | None = None,
    profile: str | None = None,
) -> AsyncIterator[AwsClients]:
    """Open DynamoDB's clients; every client uses the endpoint, where one is given.

    The Region comes from `region`, else from the environment, else from the profile. An endpoint
    needs no Region and no credentials: both are made up where there are none.
    Raises AwsFailed, or ConfigError for an unknown profile.
    """
    import aioboto3  # 0.9 s
    from aiobotocore.config import AioConfig

    with aws_errors("opening the clients", "AWS"):
        session = aioboto3.Session(profile_name=profile)
        region = region_of(env, region, session.region_name)
        credentials: Any = session.get_credentials()  # a coroutine, which the stubs do not know
        has_keys = await credentials is not None
    if region is None and endpoint_url is None:
        raise AwsFailed(NO_REGION)
    config = AioConfig(
        max_pool_connections=_CONNECTIONS_MAX,
        connect_timeout=_CONNECT_TIMEOUT_S,
        retries={"mode": "standard", "max_attempts": 3},
        proxies=None if has_keys and not _is_here(endpoint_url) else {},
    )
    arguments: Any = {
        "endpoint_url": endpoint_url,
        "region_name": region or _LOCAL_REGION,
        "config": config,
        **({} if has_keys else _LOCAL_KEYS),
    }
    async with AsyncExitStack() as stack:
        with aws_errors("opening the clients", "AWS"):
            open_ = partial(session.client, **arguments)
            items = await stack.enter_async_context(open_("dynamodb"))
            keep_raw_items(items.meta.events)
            streams = await stack.enter_async_context(open_("dynamodbstreams"))
        yield AwsClients(items, streams, open_)


NO_REGION = "no AWS Region is set: pass --region, or set AWS_REGION"


def region_of(env: Mapping[str, str], region: str | None, of_profile: str | None) -> str | None:
    """Return the first Region that is set: `region`, the environment's, the profile's."""
    return region or env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION") or of_profile


def _is_here(endpoint_url: str | None) -> bool:
    """Return whether an endpoint is on this machine, to which a web proxy has no route."""
    host = urlsplit(endpoint_url or "").hostname or ""
    return host in _THIS_MACHINE or host.startswith("127.")


def member(answer: Mapping[str, Any], name: str, work: str, service: str = "DynamoDB") -> Any:
    """Return a member that an answer must have: without it, nothing can be said of the work.

    Raises AwsFailed.
    """
    if name not in answer:
        raise AwsFailed(f"{service} failed at {work}: its answer has no {name}")
    return answer[name]


@contextmanager
def aws_errors(work: str, service: str = "DynamoDB") -> Iterator[None]:
    """Turn the SDK's errors into one line that names the service and the work.

    `work` completes "DynamoDB refused ...", such as "reading the stream". Raises AwsFailed, or
    its subclass IteratorGone, ObjectGone or Throttled; ConfigError for an unknown profile.
    """
    from botocore.exceptions import BotoCoreError, ClientError, ProfileNotFound
    from botocore.parsers import ResponseParserError

    try:
        yield
    except ClientError as exc:
        error = exc.response.get("Error", {})
        code = error.get("Code", "error")
        reason = f"{code}: {error.get('Message', '')}".rstrip(": ")
        failure = _FAILURES.get(code, AwsFailed)
        raise failure(f"{service} refused {work}: {reason}") from exc
    except ProfileNotFound as exc:
        raise ConfigError(f"{exc}: pass --profile, or set AWS_PROFILE") from exc
    except ResponseParserError as exc:  # its message has the whole answer
        raise AwsFailed(
            f"{service} failed at {work}: the answer is not AWS's. Check endpoint and proxy"
        ) from exc
    except (BotoCoreError, ValueError) as exc:
        reason = " ".join(str(exc).split())
        raise AwsFailed(f"{service} failed at {work}: {reason}") from exc
