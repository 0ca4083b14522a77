"""asyncsync check: one line for each thing that must be right, ok or what to change.

It looks at what it is shown: the server where there is a URL, the table and the function where
they are named. It changes nothing but scratch keys of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from asyncsync.aws.clients import AwsFailed, Table, describe_table, open_clients
from asyncsync.config import PREFIX, Config
from asyncsync.tools.check.aws import (
    Function,
    check_mappings,
    check_table,
    read_function,
    settings_of,
)
from asyncsync.tools.check.redis import check_redis, scratch
from asyncsync.tools.check.verdict import Verdict
from asyncsync.tools.errors import CommandFailed, CommandRefused
from asyncsync.tools.output import Output

Tell: TypeAlias = Callable[..., None]  # any number of verdicts


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckOptions:
    """What the command line says; the nonces make scratch keys nobody else's."""

    function: str | None = None
    table: str | None = None
    endpoint_url: str | None = None
    redis_url: str | None = None
    nonces: tuple[str, str]


async def check(options: CheckOptions, env: Mapping[str, str], output: Output) -> bool:
    """Look at everything that is named and say it line by line; return whether all is right.

    Raises ConfigError for wrong settings, CommandRefused where nothing is named to look at.
    """
    if options.function is None and not _url(options, env):
        raise CommandRefused("nothing to look at: give --redis-url, or --function")
    told: list[Verdict] = []

    def tell(*found: Verdict) -> None:
        told.extend(found)
        for each in found:
            output.line(str(each))

    function = await _function(options.function, tell)
    config = _settings(options, function, env)
    table = await _table(options, env, tell)
    _judge_aws(function, table, config, tell)
    if config is None:
        tell(Verdict("note", "redis", f"not looked at: no --redis-url and no {PREFIX}REDIS_URL"))
    elif not any(each.subject == "key" and each.state == "fix" for each in told):
        keys = sorted(table.keys) if table else ()
        one, other = (scratch(config, options.table, keys, nonce) for nonce in options.nonces)
        tell(*await check_redis(config, (one, other), env))
    return not any(each.state == "fix" for each in told)


def _url(options: CheckOptions, env: Mapping[str, str]) -> str | None:
    return options.redis_url or env.get(f"{PREFIX}REDIS_URL")


def _judge_aws(
    function: Function | None, table: Table | None, config: Config | None, tell: Tell
) -> None:
    """Judge table and mapping by the function's settings, or else by those of here."""
    if function is not None:
        theirs, settings = settings_of(function)
        tell(settings)
        config = theirs or config
    if config is not None and table is not None:
        tell(*check_table(table, config))
    if config is not None and function is not None:
        tell(*check_mappings(function, table.stream_arn if table else None, config))


def _settings(
    options: CheckOptions, function: Function | None, env: Mapping[str, str]
) -> Config | None:
    """Read this environment's settings over the function's; None where no server is named here.

    The function's own server is in its network, and seldom in ours.
    """
    url = _url(options, env)
    if not url:
        return None
    theirs = function.settings if function else {}
    return Config.from_env({**theirs, **env, f"{PREFIX}REDIS_URL": url})


async def _function(name: str | None, tell: Tell) -> Function | None:
    if name is None:
        return None
    try:
        function = await read_function(name)
    except (CommandFailed, AwsFailed) as exc:
        tell(Verdict("fix", "function", str(exc)))
        return None
    tell(Verdict("ok", "function", f"{name} is there"))
    return function


async def _table(options: CheckOptions, env: Mapping[str, str], tell: Tell) -> Table | None:
    if options.table is None:
        return None
    try:
        async with open_clients(options.endpoint_url, env) as clients:
            return await describe_table(clients, options.table)
    except (CommandFailed, AwsFailed) as exc:
        tell(Verdict("fix", "table", str(exc)))
        return None
