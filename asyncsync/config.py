"""The settings: frozen, checked when made, from arguments or from ASYNCSYNC_ names.

A wrong value, a combination that makes no sense, or an unknown name is one line that names
the setting, the value and what is allowed. Secrets are never part of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal

from msgspec import Struct

from asyncsync.errors import ConfigError
from asyncsync.keys import parse_template
from asyncsync.limits import (
    DATABASE_DIGITS_MAX,
    FENCE_TTL_S_MIN,
    PORT_MAX,
    TIMEOUT_MS_MAX,
    TTL_S_MAX,
)

PREFIX = "ASYNCSYNC_"
TEST_PREFIX = "ASYNCSYNC_TEST_"

_CACHE = r"[A-Za-z][A-Za-z0-9-]*"

_CHOICES: Mapping[str, tuple[str, ...]] = {
    "value": ("json", "dynamodb-json"),
    "mode": ("mirror", "refresh", "invalidate"),
    "fence": ("on", "off"),
    "rejects": ("report", "skip"),
    "on_failure": ("report", "raise"),
    "metrics": ("all", "trouble", "off"),
    "raw_event": ("auto", "false"),
}
_RANGES: Mapping[str, tuple[int, int]] = {
    "fence_ttl_s": (FENCE_TTL_S_MIN, TTL_S_MAX),
    "ttl_s": (1, TTL_S_MAX),
    "timeout_ms": (1, TIMEOUT_MS_MAX),
}
_FLAGS = ("redis_cluster", "log_keys")
_TEXTS = (
    "redis_url",
    "redis_password",
    "redis_ca_file",
    "redis_iam_cache",
    "key",
    "ttl_attribute",
)


class Server(Struct, frozen=True):
    """One Redis or Valkey server, as its URL names it."""

    host: str
    port: int
    path: str  # of a unix socket; empty for TCP
    tls: bool
    database: int
    username: str
    password: str
    ca_file: str | None = None

    def __repr__(self) -> str:
        return f"Server({self.address!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:  # Struct's own shows every field
        return [("address", self.address)]

    @property
    def user(self) -> str:
        """Name the user that this URL signs in as."""
        return self.username or "default"

    @property
    def address(self) -> str:
        """Name the server without its credentials."""
        return self.path or f"{self.host}:{self.port}"


class Config(Struct, frozen=True, kw_only=True):
    """Every setting; the argument is the environment's word in lower case, without its prefix.

    Raises ConfigError.
    """

    redis_url: str
    redis_password: str | None = None
    redis_ca_file: str | None = None
    redis_cluster: bool = False
    redis_iam_cache: str | None = None
    key: str = "{@table}:{@key}"
    value: Literal["json", "dynamodb-json"] = "json"
    mode: Literal["mirror", "refresh", "invalidate"] = "mirror"
    fence: Literal["on", "off"] = "on"
    fence_ttl_s: int = 90_000
    ttl_s: int | None = None
    ttl_attribute: str | None = None
    rejects: Literal["report", "skip"] = "report"
    on_failure: Literal["report", "raise"] = "report"
    timeout_ms: int = 2_000
    metrics: Literal["all", "trouble", "off"] = "all"
    raw_event: Literal["auto", "false"] = "auto"
    log_keys: bool = False

    @property
    def server(self) -> Server:
        """Read the URL."""
        return parse_url(self.redis_url, self.redis_password, self.redis_ca_file)

    def __repr__(self) -> str:
        shown = [f"{name}={getattr(self, name)!r}" for name in self.__struct_fields__[2:]]
        return f"Config({self.server.address!r}, {', '.join(shown)})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("server", self.server)]

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            _check_choice(name, getattr(self, name), allowed)
        for name, (low, high) in _RANGES.items():
            _check_range(name, getattr(self, name), low, high)
        for name in _FLAGS:
            if not isinstance(getattr(self, name), bool):
                raise _refused(name, getattr(self, name), "true or false")
        for name in _TEXTS:
            _check_text(name, getattr(self, name))
        parse_template(self.key)
        server = self.server
        if self.redis_iam_cache is not None:
            _check_iam(self.redis_iam_cache, server)
        _check_combinations(self)

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Config:
        """Read the settings from ASYNCSYNC_ names; others are not looked at.

        Raises ConfigError; an empty value counts as one that is not set.
        """
        known = {PREFIX + name.upper(): name for name in cls.__struct_fields__}
        arguments: dict[str, Any] = {}
        for name, text in env.items():
            if not name.startswith(PREFIX) or name.startswith(TEST_PREFIX):
                continue
            if name not in known:
                raise ConfigError(f"{name} is no setting{_nearest(name.upper(), known)}")
            if text:
                arguments[known[name]] = _read(known[name], text)
        if "redis_url" not in arguments:
            raise ConfigError(
                f"{PREFIX}REDIS_URL is not set; it is required: redis://, rediss:// or unix://"
            )
        return cls(**arguments)


def _read(name: str, text: str) -> object:
    if name in _FLAGS:
        flag = {"true": True, "false": False}.get(text.lower())
        if flag is None:
            raise _refused(name, text, "true or false")
        return flag
    if name in _RANGES:
        low, high = _RANGES[name]
        if not (text.isascii() and text.isdigit() and len(text) <= len(str(high))):
            raise _refused(name, text, f"a whole number from {low:_} to {high:_}")
        return int(text)
    return text


def _check_choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise _refused(name, value, " or ".join(allowed) + _nearest(str(value), allowed))


def _check_range(name: str, value: object, low: int, high: int) -> None:
    if value is None and name == "ttl_s":
        return
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise _refused(name, value, f"a whole number from {low:_} to {high:_}")


def _check_text(name: str, value: object) -> None:
    if value is None and name not in ("redis_url", "key"):
        return
    if not isinstance(value, str) or not value:
        shown = "" if name in ("redis_url", "redis_password") else value
        raise _refused(name, shown, "a text of one character or more")


def _check_combinations(config: Config) -> None:
    if config.redis_cluster and config.server.path:
        raise _refused("redis_cluster", True, "false with a unix:// URL: nodes are reached by TCP")
    if config.redis_cluster and config.server.database:
        raise _refused(
            "redis_cluster",
            True,
            f"false with database {config.server.database}: a cluster has database 0 alone",
        )
    if config.mode == "invalidate":
        for name in ("ttl_s", "ttl_attribute"):
            if getattr(config, name) is not None:
                raise _refused(
                    name,
                    getattr(config, name),
                    "nothing with mode=invalidate, which writes no value",
                )


def _check_iam(cache: str, server: Server) -> None:
    """Make sure that a token can sign in: AWS takes it over TLS only, for a user that is named."""
    allowed = ""
    if not re.fullmatch(_CACHE, cache):
        allowed = "a cache's name, not its address: letters, digits and hyphens"
    elif not server.tls:
        allowed = "nothing without a rediss:// URL"
    elif not server.username:
        allowed = "nothing without a user in the URL: rediss://user@host"
    elif server.password:
        allowed = "nothing beside a password: a token stands in its place"
    if allowed:
        raise _refused("redis_iam_cache", cache, allowed)


def _refused(name: str, value: object, allowed: str) -> ConfigError:
    return ConfigError(f"{PREFIX}{name.upper()}={value!r} is not allowed; allowed is {allowed}")


def _nearest(word: str, known: Mapping[str, str] | tuple[str, ...]) -> str:
    from difflib import get_close_matches  # only where something is wrong

    close = get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


@lru_cache(maxsize=4)
def parse_url(url: str, password: str | None = None, ca_file: str | None = None) -> Server:
    """Read a Redis URL; an explicit password wins over the URL's.

    Raises ConfigError, which shows of the URL neither user and password nor options.
    """
    refused = _refused(
        "redis_url",
        re.split(r"[?#]", url.rsplit("@", 1)[-1], maxsplit=1)[0],
        "redis://[user:password@]host[:port][/database], rediss:// for TLS, or unix:///path[?db=1]"
        " (in a password, write / ? # [ ] @ and : percent-encoded)",
    )
    try:
        scheme, username, secret, host, port, path, options = _split_url(url)
    except ValueError:
        raise refused from None
    unix = scheme == "unix"
    database = options.removeprefix("db=") or ("0" if unix else path.strip("/") or "0")
    if (
        scheme not in ("redis", "rediss", "unix")
        or bool(host) == unix
        or bool(unix and not path)
        or (options and not options.startswith("db="))
        or options == "db="  # which is no database
        or not (database.isascii() and database.isdigit() and len(database) <= DATABASE_DIGITS_MAX)
    ):
        raise refused
    tls = scheme == "rediss"
    if ca_file and not tls:
        raise _refused("redis_ca_file", ca_file, "nothing without a rediss:// URL")
    return Server(
        host=host,
        port=port,
        path=_unquoted(path) if unix else "",
        tls=tls,
        database=int(database),
        username=_unquoted(username),
        password=password or _unquoted(secret),
        ca_file=ca_file,
    )


def _split_url(url: str) -> tuple[str, str, str, str, int, str, str]:
    """Split a URL: scheme, user, password, host, port, path, options.

    urllib.parse, which does as much, costs each cold start 4 ms. Raises ValueError.
    """
    if "#" in url or not url.isprintable() or " " in url:
        raise ValueError("no URL")
    scheme, _, rest = url.partition("://")
    rest, _, options = rest.partition("?")
    authority, slash, path = rest.partition("/")
    user, _, place = authority.rpartition("@")
    if "[" in user or "]" in user:
        raise ValueError("a password that is not encoded")
    username, _, password = user.partition(":")
    if place.startswith("["):
        host, bracket, port = place[1:].partition("]")
        if not bracket or port[:1] not in ("", ":"):
            raise ValueError("no address")
        port = port[1:]
    else:
        host, _, port = place.partition(":")
    port = port or "6379"
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) <= PORT_MAX):
        raise ValueError("no port")
    return scheme.lower(), username, password, host.lower(), int(port), slash + path, options


def _unquoted(text: str) -> str:
    """Decode what is percent-encoded, as few URLs are."""
    if "%" not in text:
        return text
    from urllib.parse import unquote

    return unquote(text)
