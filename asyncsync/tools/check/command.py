"""asyncsync check: one line per thing that must be right: ok, or what to change.

It checks the server where there is a URL, and the table and the function that are named. It
writes only scratch keys, which it removes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from asyncsync.aws.clients import AwsFailed, open_clients
from asyncsync.aws.tables import Table, describe_table
from asyncsync.config import PREFIX, Config
from asyncsync.errors import ConfigError
from asyncsync.tools.check.aws import (
    DeployedFunction,
    check_mappings,
    check_settings,
    check_table,
    read_function,
)
from asyncsync.tools.check.redis import check_redis, scratch_key
from asyncsync.tools.check.verdict import Verdict
from asyncsync.tools.errors import CommandRefused
from asyncsync.tools.output import Output

Report: TypeAlias = Callable[..., None]  # takes verdicts


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckOptions:
    """The command line's options; the nonces make unique scratch keys."""

    function: str | None = None
    table: str | None = None
    endpoint_url: str | None = None
    redis_url: str | None = None
    nonces: tuple[str, str]


async def check(options: CheckOptions, env: Mapping[str, str], output: Output) -> bool:
    """Check what the options name, a line per verdict; return whether nothing is to be fixed.

    Raises ConfigError for wrong settings, CommandRefused where the options name nothing.
    """
    if options.function is None and not _redis_url(options, env):
        raise CommandRefused("nothing to check: give --redis-url or --function")
    verdicts: list[Verdict] = []

    def report(*more: Verdict) -> None:
        verdicts.extend(more)
        for verdict in more:
            output.line(str(verdict))

    function = await _check_function(options, env, report)
    config = _settings(options, function, env)
    table = await _describe_table(options, env, report)
    _check_aws(function, table, config, report)
    if config is None:
        message = f"not checked: give --redis-url or set {PREFIX}REDIS_URL"
        report(Verdict("note", "redis", message))
    elif not any(v.subject == "key" and v.state == "fix" for v in verdicts):
        attributes = sorted(table.key) if table else ()
        first, second = (
            scratch_key(config, table.name if table else options.table, attributes, nonce)
            for nonce in options.nonces
        )
        report(*await check_redis(config, (first, second), env))
    return not any(verdict.state == "fix" for verdict in verdicts)


def _redis_url(options: CheckOptions, env: Mapping[str, str]) -> str | None:
    return options.redis_url or env.get(f"{PREFIX}REDIS_URL")


def _check_aws(
    function: DeployedFunction | None, table: Table | None, config: Config | None, report: Report
) -> None:
    """Check table and mapping against the function's settings, else against ours."""
    if function is not None:
        function_config, verdict = check_settings(function)
        report(verdict)
        config = function_config or config
    if config is not None and table is not None:
        report(*check_table(table, config))
    if config is not None and function is not None:
        report(*check_mappings(function, table.stream_arn if table else None, config))


def _settings(
    options: CheckOptions, function: DeployedFunction | None, env: Mapping[str, str]
) -> Config | None:
    """Read this environment's settings over the function's; None where no URL is given here.

    The function's own server is in the function's network, which we are seldom in.
    """
    url = _redis_url(options, env)
    if not url:
        return None
    function_settings = function.settings if function else {}
    return Config.from_env({**function_settings, **env, f"{PREFIX}REDIS_URL": url})


async def _check_function(
    options: CheckOptions, env: Mapping[str, str], report: Report
) -> DeployedFunction | None:
    if options.function is None:
        return None
    try:
        async with open_clients(options.endpoint_url, env) as clients:
            function = await read_function(clients, options.function)
    except AwsFailed as exc:
        report(Verdict("fix", "function", str(exc)))
        return None
    report(Verdict("ok", "function", f"{options.function} exists"))
    return function


async def _describe_table(
    options: CheckOptions, env: Mapping[str, str], report: Report
) -> Table | None:
    if options.table is None:
        return None
    try:
        async with open_clients(options.endpoint_url, env) as clients:
            return await describe_table(clients, options.table)
    except (AwsFailed, ConfigError) as exc:
        report(Verdict("fix", "table", str(exc)))
        return None
