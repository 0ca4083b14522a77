"""IAM authentication of ElastiCache and MemoryDB: a connection's password is a token, signed here.

A token is a GET request to the cache's name as host, presigned with AWS Signature Version 4,
without its https://. Signing is pure. It uses the standard library, because importing
botocore would cost each cold start 140 ms.
"""

from __future__ import annotations

import hmac
import re
import time
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any, TypeAlias
from urllib.parse import quote

from msgspec import Struct

from asyncsync.config import Config, Server
from asyncsync.errors import ConfigError
from asyncsync.limits import IAM_TOKEN_AGE_S_MAX, IAM_TOKEN_S

_ALGORITHM = "AWS4-HMAC-SHA256"
_SERVERLESS = re.compile(r".+\.serverless\.[a-z0-9-]+\.cache\.amazonaws\.com(?:\.cn)?")


class AwsCredentials(Struct, frozen=True, kw_only=True):
    """Who signs, and the cache's Region, which is the only field ever shown."""

    access_key_id: str
    secret_access_key: str
    session_token: str = ""  # a role has one, a user has none
    region: str

    def __repr__(self) -> str:
        return f"AwsCredentials(region={self.region!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:  # Struct's own shows every field
        return [("region", self.region)]

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> AwsCredentials:
        """Read what Lambda puts into a function's environment. Raises ConfigError."""
        needed = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION")
        missing = [name for name in needed if not env.get(name)]
        if missing:
            raise ConfigError(
                f"ASYNCSYNC_REDIS_IAM_CACHE signs in with {', '.join(missing)}: not set"
            )
        return cls(
            access_key_id=env["AWS_ACCESS_KEY_ID"],
            secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
            session_token=env.get("AWS_SESSION_TOKEN", ""),
            region=env["AWS_REGION"],
        )


Credentials: TypeAlias = Callable[[], AwsCredentials]


def is_serverless(host: str) -> bool:
    """Whether a host is a serverless cache's, whose tokens name the resource type."""
    return _SERVERLESS.fullmatch(host) is not None


def sign_token(cache: str, server: Server, by: AwsCredentials, now_s: float) -> str:
    """Sign a token that the cache takes as the user's password for 15 minutes from now_s."""
    host = cache.lower()
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now_s))
    service = "memorydb" if ".memorydb." in server.host else "elasticache"
    scope = (moment[:8], by.region, service, "aws4_request")
    parameters = {"Action": "connect", "User": server.username}
    if is_serverless(server.host):
        parameters["ResourceType"] = "ServerlessCache"
    parameters |= {
        "X-Amz-Algorithm": _ALGORITHM,
        "X-Amz-Credential": "/".join((by.access_key_id, *scope)),
        "X-Amz-Date": moment,
        "X-Amz-Expires": str(IAM_TOKEN_S),
        "X-Amz-SignedHeaders": "host",
    }
    if by.session_token:
        parameters["X-Amz-Security-Token"] = by.session_token
    pairs = [f"{name}={quote(value, safe='')}" for name, value in parameters.items()]

    request = ("GET", "/", "&".join(sorted(pairs)), f"host:{host}", "", "host", _sha256(""))
    text = "\n".join((_ALGORITHM, moment, "/".join(scope), _sha256("\n".join(request))))
    key = f"AWS4{by.secret_access_key}".encode()
    for part in (*scope, text):
        key = hmac.digest(key, part.encode(), "sha256")
    return f"{host}/?{'&'.join(pairs)}&X-Amz-Signature={key.hex()}"


def _sha256(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def token_password(
    config: Config, credentials: Credentials | None, wall_clock: Callable[[], float]
) -> Callable[[], str]:
    """Return a function that gives each new connection a token, signed again when it is old.

    AWS looks at a token when a connection signs in, and never again: an open one needs no
    fresh token. After 12 hours AWS closes it; the next one signs in with a new token.
    Raises ConfigError if nothing can sign a token.
    """
    cache = config.redis_iam_cache
    assert cache is not None, "tokens are for caches that the settings name"
    if credentials is None:
        raise ConfigError(
            "ASYNCSYNC_REDIS_IAM_CACHE needs AWS credentials: give Mirror credentials="
            "lambda: asyncsync.iam.AwsCredentials.from_env(os.environ)"
        )
    credentials()  # at a cold start, not at the first connection
    token, signed_s = "", float("-inf")

    def password() -> str:
        nonlocal token, signed_s
        # By the wall clock, as AWS does: a monotonic one may stop while the sandbox is frozen.
        # A clock that was set back makes the age negative, and that signs again.
        now_s = wall_clock()
        if not 0 <= now_s - signed_s < IAM_TOKEN_AGE_S_MAX:
            # Ask for credentials each time: the ones of the last token may have expired.
            token, signed_s = sign_token(cache, config.server, credentials(), now_s), now_s
        return token

    return password
