"""asyncsync check on the command line: finds what is checked, the function's settings first."""

from __future__ import annotations

import argparse
import secrets
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass

from asyncsync.aws.clients import AwsClients, AwsFailed
from asyncsync.aws.functions import DeployedFunction, read_function
from asyncsync.cli.commands import clients_of
from asyncsync.cli.settings import REDIS_URL, Copy, copy_of
from asyncsync.config import Config
from asyncsync.errors import ConfigError
from asyncsync.tools.check.aws import check_same_copy, check_settings
from asyncsync.tools.check.command import CheckReport, CheckTarget, check
from asyncsync.tools.check.verdict import Verdict, unknown
from asyncsync.tools.errors import CommandRefused
from asyncsync.tools.output import Output

# Stands for the server of a table that is checked alone; nothing connects to it.
_UNKNOWN_SERVER = "redis://unknown"


@dataclass(frozen=True, slots=True)
class Inside:
    """Where the operations function checks from: the copy's network, with its own settings."""

    function: str | None  # the one that writes the copy
    sees_aws: bool  # false: of AWS only DynamoDB and S3 can be reached


async def check_setup(
    arguments: argparse.Namespace,
    env: Mapping[str, str],
    output: Output,
    inside: Inside | None = None,
) -> bool:
    """Check what the arguments name; return whether nothing is to be fixed.

    Raises CommandRefused where they name nothing, ConfigError, or AwsFailed.
    """
    if not (arguments.function or arguments.table or _has_server(arguments, env)):
        raise CommandRefused("nothing to check: give --function, --table or --redis-url")
    report = CheckReport(output, as_json=arguments.as_json)
    name = _function_name(arguments, inside, report)
    async with AsyncExitStack() as stack:
        clients, function = None, None
        if name is not None or arguments.table is not None:
            output.waits_for("AWS")
            clients = await stack.enter_async_context(clients_of(arguments, env))
        if clients is not None and name is not None:
            function = await _checked_function(clients, name, report, inside)
        if inside is None:
            config, copy = await _settings(arguments, env, clients, function, report, output)
        else:
            config, copy = await _settings_inside(arguments, env, function, report, output)
        table = arguments.table
        if table is None and function is not None and len(function.tables) == 1:
            table = str(function.tables[0])
        if copy is not None:
            output.note(copy.line(table or ""))
        is_far = inside is None and function is not None and not arguments.redis_url
        target = CheckTarget(
            config=config,
            mirror=None if copy is None else copy.mirror,
            table=table,
            function=function,
            unreachable="note" if is_far else "fix",
            sees_aws=inside is None or inside.sees_aws,
            nonces=(secrets.token_hex(8), secrets.token_hex(8)),
        )
        output.waits_for("the answers")
        return await check(target, clients, report)


def _function_name(
    arguments: argparse.Namespace, inside: Inside | None, report: CheckReport
) -> str | None:
    if inside is None:
        return str(arguments.function) if arguments.function else None
    if inside.sees_aws and inside.function is None:
        report.add(unknown("mapping", "OPERATIONS_FUNCTION is not set: deploy the template again"))
    return inside.function if inside.sees_aws else None


def _has_server(arguments: argparse.Namespace, env: Mapping[str, str]) -> bool:
    return bool(arguments.redis_url or arguments.mirror or env.get(REDIS_URL))


async def _settings(
    arguments: argparse.Namespace,
    env: Mapping[str, str],
    clients: AwsClients | None,
    function: DeployedFunction | None,
    report: CheckReport,
    output: Output,
) -> tuple[Config | None, Copy | None]:
    """Return the settings to check by, and the copy if there is a server to check."""
    if function is not None:
        return await _checked_settings(arguments, env, clients, function, report, output)
    if arguments.function is not None:
        return None, None  # it cannot be read, and no other settings will do
    if _has_server(arguments, env):
        copy = await copy_of(arguments, env, clients, None, output)
        return copy.mirror.config, copy
    return Config.from_env({**env, REDIS_URL: _UNKNOWN_SERVER}), None


async def _settings_inside(
    arguments: argparse.Namespace,
    env: Mapping[str, str],
    function: DeployedFunction | None,
    report: CheckReport,
    output: Output,
) -> tuple[Config | None, Copy | None]:
    """Return the function's settings to check by, and the copy as this function reaches it."""
    copy = await copy_of(arguments, env, None, None, output)
    own = copy.mirror.config
    if function is None:
        return own, copy
    config, verdict = check_settings(function)
    report.add(verdict)
    if config is not None:
        report.add(check_same_copy(config, own))
    return config or own, copy


async def _checked_function(
    clients: AwsClients, name: str, report: CheckReport, inside: Inside | None
) -> DeployedFunction | None:
    try:
        function = await read_function(clients, name)
    except AwsFailed as exc:
        no_way = unknown("function", str(exc))  # there may be no route to Lambda
        report.add(Verdict("fix", "function", str(exc)) if inside is None else no_way)
        return None
    report.add(Verdict("ok", "function", f"{name} exists"))
    return function


async def _checked_settings(
    arguments: argparse.Namespace,
    env: Mapping[str, str],
    clients: AwsClients | None,
    function: DeployedFunction,
    report: CheckReport,
    output: Output,
) -> tuple[Config | None, Copy | None]:
    """Check the function's settings; return them, and the copy if this machine can use them."""
    config, verdict = check_settings(function)
    report.add(verdict)
    if config is None and arguments.mirror is None:
        return None, None
    try:
        copy = await copy_of(arguments, env, clients, function, output)
    except ConfigError as exc:
        report.add(Verdict("note", "redis", f"not checked: {exc}"))
        return config, None
    return copy.mirror.config, copy
