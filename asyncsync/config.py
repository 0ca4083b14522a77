"""The settings: frozen and checked, from arguments or from ASYNCSYNC_ names.

A wrong value, a combination that makes no sense, or an unknown name raises an error of one
line: the setting, the value, and what to set instead. It never holds a secret.
"""

# Without `from __future__ import annotations`: the checks read the annotations.

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, get_args, get_origin

from msgspec import Struct, StructMeta

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

    def __rich_repr__(self) -> list[tuple[str, Any]]:  # Struct's shows every field
        return [("address", self.address)]

    @property
    def user(self) -> str:
        """Return the user to sign in as."""
        return self.username or "default"

    @property
    def address(self) -> str:
        """Return the server's address, without credentials."""
        return self.path or f"{self.host}:{self.port}"


class _Settings(StructMeta):
    """Refuses an unknown argument as from_env does an unknown name, not by a TypeError."""

    if not TYPE_CHECKING:

        def __call__(cls, *values, **arguments):  # noqa: N805 # it is a class's class
            """Make the settings from named arguments. Raises ConfigError."""
            if values:
                raise ConfigError("give every setting by its name, such as Config(redis_url=...)")
            for name in arguments.keys() - {*cls.__struct_fields__}:
                nearest = _nearest(name.lower().removeprefix("asyncsync_"), cls.__struct_fields__)
                raise ConfigError(f"{name} is no setting{nearest}")
            if "redis_url" not in arguments:
                raise ConfigError(
                    f"{PREFIX}REDIS_URL is not set; it is required: redis://, rediss:// or unix://"
                )
            return super().__call__(**arguments)


class Config(Struct, frozen=True, kw_only=True, metaclass=_Settings):
    """Every setting; its name in the environment is ASYNCSYNC_ and the argument in capitals.

        Config(redis_url="rediss://cache.example:6379", key="prod:{@table}:{@key}")

    Args:
        redis_url: The server: redis://, rediss:// for TLS, or unix://.
        redis_password: Replaces the URL's, so that the URL can be shown.
        redis_ca_file: The file of a private certificate authority.
        redis_cluster: Whether the server is a cluster, or serverless.
        redis_iam_cache: Sign in by IAM to the cache of this name.
        key: The template of an item's Redis key.
        value: The format of values.
        fields: The attributes to copy beside the item's key, between commas; by default all.
        mode: Write each change, refresh only what is there, or remove what changes.
        fence: Whether an older change is kept from replacing a newer one.
        fence_ttl_s: How long a fence outlives its last write, in seconds.
        ttl_s: When each value expires, in seconds after its write.
        ttl_attribute: The attribute that says when an item expires, in epoch seconds.
        rejects: Report what no retry can help, or skip it.
        on_failure: Report failed records, or raise.
        timeout_ms: The longest wait for a round trip, and for connecting.
        metrics: When a metrics line is printed.
        raw_event: Take events as bytes where that is safe, or never.
        log_keys: Whether logs may name Redis keys.

    Raises:
        ConfigError: A value, a combination of values or an argument's name is wrong.
    """

    redis_url: str
    redis_password: str | None = None
    redis_ca_file: str | None = None
    redis_cluster: bool = False
    redis_iam_cache: str | None = None
    key: str = "{@table}:{@key}"
    value: Literal["json", "dynamodb-json", "hash", "redis-json"] = "json"
    fields: str | None = None
    mode: Literal["mirror", "refresh", "invalidate"] = "mirror"
    fence: Literal["on", "off"] = "on"
    fence_ttl_s: Annotated[int, range(FENCE_TTL_S_MIN, TTL_S_MAX + 1)] = 90_000
    ttl_s: Annotated[int | None, range(1, TTL_S_MAX + 1)] = None
    ttl_attribute: str | None = None
    rejects: Literal["report", "skip"] = "report"
    on_failure: Literal["report", "raise"] = "report"
    timeout_ms: Annotated[int, range(1, TIMEOUT_MS_MAX + 1)] = 2_000
    metrics: Literal["summary", "every", "trouble", "off"] = "summary"
    raw_event: Literal["auto", "false", False] = "auto"
    log_keys: bool = False

    @property
    def server(self) -> Server:
        """Return the server that the URL names."""
        return parse_url(self.redis_url, self.redis_password, self.redis_ca_file)

    @property
    def field_names(self) -> frozenset[str]:
        """Return the attributes to copy; none of them means all."""
        return frozenset(name.strip() for name in (self.fields or "").split(",")) - {""}

    def __repr__(self) -> str:
        shown = [f"{name}={getattr(self, name)!r}" for name in self.__struct_fields__[2:]]
        return f"Config({self.server.address!r}, {', '.join(shown)})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("server", self.server)]

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is not _DEFAULTS.get(name, ...):
                _check(name, value)
        parse_template(self.key)
        _check_combinations(self)

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:
        """Read the settings from ASYNCSYNC_ names; other names are ignored.

        An empty value counts as not set. Raises ConfigError.
        """
        known = {PREFIX + name.upper(): name for name in cls.__struct_fields__}
        arguments: dict[str, Any] = {}
        for name, text in env.items():
            if not name.startswith(PREFIX) or name.startswith(TEST_PREFIX):
                continue
            if name not in known:
                raise ConfigError(f"{name} is no setting{_nearest(name.upper(), known)}")
            if text:
                arguments[known[name]] = _parse(known[name], text)
        return cls(**arguments)


_ANNOTATIONS: Mapping[str, Any] = Config.__annotations__
_CHOICES: Mapping[str, tuple[str, ...]] = {
    name: tuple([choice for choice in get_args(hint) if choice is not False])
    for name, hint in _ANNOTATIONS.items()
    if get_origin(hint) is Literal
}
_RANGES: Mapping[str, tuple[int, int]] = {
    name: (hint.__metadata__[0][0], hint.__metadata__[0][-1])
    for name, hint in _ANNOTATIONS.items()
    if get_origin(hint) is Annotated
}
_DEFAULTS = dict(zip(Config.__struct_fields__[1:], Config.__struct_defaults__, strict=True))
_SECRET = ("redis_url", "redis_password")


def _parse(name: str, text: str) -> object:
    """Parse a setting's text to its type; what does not parse stays text, which _check refuses."""
    if _ANNOTATIONS[name] is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    if name in _RANGES and _is_number(text, len(str(_RANGES[name][1]))):
        return int(text)
    return text


def _is_number(text: str, digits_max: int) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= digits_max


def _check(name: str, value: object) -> None:
    if name in _CHOICES:
        choices = _CHOICES[name]
        is_allowed = value in choices or (name == "raw_event" and value is False)
        allowed = " or ".join(choices) + ("" if is_allowed else _nearest(str(value), choices))
    elif name in _RANGES:
        low, high = _RANGES[name]
        is_number = isinstance(value, int) and not isinstance(value, bool)
        is_allowed = is_number and low <= value <= high  # type: ignore[operator]
        allowed = f"a whole number from {low:,} to {high:,}"
    elif _ANNOTATIONS[name] is bool:
        is_allowed, allowed = isinstance(value, bool), "true or false"
    else:
        is_allowed, allowed = isinstance(value, str) and value != "", "a non-empty string"
    if not is_allowed:
        raise _refused(name, "" if name in _SECRET else value, allowed)


def _check_combinations(config: Config) -> None:
    server = config.server
    if config.redis_cluster and server.path:
        raise _conflict("redis_cluster", True, "needs a TCP URL, not unix://")
    if config.redis_cluster and server.database:
        raise _conflict("redis_cluster", True, f"needs database 0, not {server.database}")
    if config.redis_ca_file and not server.tls:
        raise _conflict("redis_ca_file", config.redis_ca_file, "needs a rediss:// URL")
    if config.redis_iam_cache is not None:
        _check_iam(config.redis_iam_cache, server)
    _check_values(config)


def _check_values(config: Config) -> None:
    if config.fence == "off" and config.value in ("hash", "redis-json"):
        raise _conflict("value", config.value, "needs fence=on: the fence's script writes it")
    if config.fields is not None and not all(map(str.strip, config.fields.split(","))):
        raise _refused("fields", config.fields, "attribute names between commas: Name,Score")
    for name in ("fields", "ttl_s", "ttl_attribute"):
        value = getattr(config, name)
        if config.mode == "invalidate" and value is not None:
            raise _conflict(name, value, "has no use with mode=invalidate, which writes no value")


def _check_iam(cache: str, server: Server) -> None:
    """Refuse what cannot sign in: AWS takes a token over TLS only, from a named user."""
    reason = ""
    if not re.fullmatch(_CACHE, cache):
        reason = "is no cache's name: letters, digits and hyphens, not its address"
    elif not server.tls:
        reason = "needs a rediss:// URL"
    elif not server.username:
        reason = "needs a user in the URL: rediss://user@host"
    elif server.password:
        reason = "replaces the password: remove that from the URL and the settings"
    if reason:
        raise _conflict("redis_iam_cache", cache, reason)


def _conflict(name: str, value: object, reason: str) -> ConfigError:
    return ConfigError(f"{PREFIX}{name.upper()}={value!r} {reason}")


def _refused(name: str, value: object, allowed: str) -> ConfigError:
    return _conflict(name, value, f"is not allowed; allowed is {allowed}")


def _nearest(word: str, known: Iterable[str]) -> str:
    from difflib import get_close_matches  # only where something is wrong

    close = get_close_matches(word, [*known], n=1)
    return f"; did you mean {close[0]}?" if close else ""


_SCHEMES = {"redis": False, "rediss": True, "valkey": False, "valkeys": True, "unix": False}


@lru_cache(maxsize=4)
def parse_url(url: str, password: str | None = None, ca_file: str | None = None) -> Server:
    """Parse a Redis URL; a password that is given wins over the URL's.

    urllib.parse would cost each cold start 4 ms. Raises ConfigError, which names the part that is
    wrong and shows neither the URL's user and password nor an option's value.
    """
    scheme, _, rest = url.partition("://")
    location, _, options = rest.partition("?")
    authority, slash, path = location.partition("/")
    user, _, address = authority.rpartition("@")
    username, _, secret = user.partition(":")
    ipv6, _, address = address.rpartition("]")
    host, _, port = address.partition(":")
    scheme, port = scheme.lower(), port or "6379"
    is_unix = scheme == "unix"
    database = options.removeprefix("db=") or ("" if is_unix else path.strip("/")) or "0"
    is_host = not ipv6 or (ipv6.startswith("[") and not host)
    checks = (
        (url.isprintable() and not {*" #"} & {*url}, "a blank, a # or a control character in it"),
        ("@" not in path + options, "an @ behind a / or a ?"),
        (scheme in _SCHEMES, "its scheme"),
        (path or not is_unix, "without a path, a unix:// URL"),
        (not is_unix or not (host or ipv6), "a host beside a path"),
        (is_unix or host or ipv6, "without a host, its address"),
        (is_host and not {*"[]"} & {*user, *host}, "a [ or ] that is not an IPv6 address's"),
        (_is_number(port, 5) and 0 < int(port) <= PORT_MAX, "its port"),
        (options in ("", f"db={database}") and "&" not in options, "what follows its ?"),
        (_is_number(database, DATABASE_DIGITS_MAX), "its database"),
    )
    for is_right, part in checks:
        if not is_right:
            raise _refused_url(url, part, scheme, options)
    return Server(
        host=(ipv6[1:] or host).lower(),
        port=int(port),
        path=_unquote(slash + path) if is_unix else "",
        tls=_SCHEMES[scheme],
        database=int(database),
        username=_unquote(username),
        password=password or _unquote(secret),
        ca_file=ca_file,
    )


def _refused_url(url: str, part: str, scheme: str, options: str) -> ConfigError:
    """Name what is wrong with a URL, and show what of it is no secret.

    That is neither its user nor an option's value, nor, without an @, what stands where the port
    belongs and has more than five characters: it may be a password.
    """
    names = re.findall(r"(?:^|&)(?!db=)([a-z_]{1,30})=", options)
    if part == "its scheme" and re.fullmatch(r"[a-z+]{1,12}", scheme):
        part += f" {scheme!r}"
    elif part == "what follows its ?" and names:
        part = f"its option {names[0]}"
    text = re.split(r"[?#]", url.rsplit("@", 1)[-1], maxsplit=1)[0]
    shown = re.sub(r"^((?:\w+://)?(?:[^:/]+:(?=[^/]{6})|:)).*", r"\1...", text)
    return ConfigError(
        f"{PREFIX}REDIS_URL={shown!r}: {part} is not allowed; allowed is redis://[user:password@]"
        "host[:port][/database], rediss:// for TLS, valkey://, valkeys://, or "
        "unix:///path[?db=1] (in a password, write / ? # [ ] @ and : percent-encoded)"
    )


def _unquote(text: str) -> str:
    """Decode percent-encoded text, which few URLs hold."""
    if "%" not in text:
        return text
    from urllib.parse import unquote

    return unquote(text)
