"""Makes a redis-py client from the settings, for a reader to which none is given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider

from asyncsync.config import Config
from asyncsync.errors import ConfigError
from asyncsync.store import Clock

if TYPE_CHECKING:
    from asyncsync.connection import Password
    from asyncsync.reader.cache import RedisClient


def new_redis(config: Config, region: str | None, wall_clock: Clock) -> RedisClient:
    """Make a client; it connects on first use, and tries a dead connection once more."""
    server = config.server
    arguments: dict[str, Any] = {"retry": Retry(NoBackoff(), 1)}
    if config.redis_iam_cache is not None:
        arguments["credential_provider"] = _iam(config, region, wall_clock)
    elif server.password or server.username:
        arguments["username"] = server.username or None
        arguments["password"] = server.password or None
    if server.tls:
        arguments["ssl"] = True
        arguments["ssl_ca_certs"] = server.ca_file
    if server.path:
        return Redis(unix_socket_path=server.path, db=server.database, **arguments)
    if config.redis_cluster:
        return RedisCluster(host=server.host, port=server.port, **arguments)
    return Redis(host=server.host, port=server.port, db=server.database, **arguments)


def refuse_decoding(client: RedisClient) -> None:
    """Refuse a client that decodes replies: values are bytes. Raises ConfigError."""
    decodes = getattr(client.get_encoder(), "decode_responses", False)
    if decodes:
        raise ConfigError("redis decodes responses: give a client with decode_responses=False")


class _TokenProvider(CredentialProvider):
    """Signs in with a token that is new when a connection opens."""

    def __init__(self, user: str, password: Password) -> None:
        self._user = user
        self._password = password

    def get_credentials(self) -> tuple[str, str]:
        return self._user, self._password()


def _iam(config: Config, region: str | None, wall_clock: Clock) -> CredentialProvider:
    from asyncsync.aws.credentials import session_credentials
    from asyncsync.iam import token_password

    credentials = session_credentials({}, region=region)
    return _TokenProvider(config.server.user, token_password(config, credentials, wall_clock))
