"""Which copy a command acts on, and where its settings come from.

They come from the environment, from a deployed function (--function) or from the user's mirror
(--mirror). A command must act on the copy that the function writes, or say that it does not.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from getpass import getpass
from pathlib import Path

from msgspec import structs

from asyncsync.aws.clients import AwsClients, AwsFailed
from asyncsync.aws.credentials import session_credentials
from asyncsync.aws.functions import DeployedFunction, is_reference, resolve_reference
from asyncsync.aws.tables import parse_table_arn
from asyncsync.config import PREFIX, TEST_PREFIX, Config
from asyncsync.errors import ConfigError
from asyncsync.mirror import Mirror
from asyncsync.tools.errors import CommandRefused
from asyncsync.tools.mirrors import load_mirror, make_mirror, name_rule, server_name, value_rule
from asyncsync.tools.output import Output

REDIS_URL = f"{PREFIX}REDIS_URL"
REDIS_CA_FILE = f"{PREFIX}REDIS_CA_FILE"

# Handlers that make their mirror from the function's environment alone.
OUR_HANDLERS = ("asyncsync.handler.lambda_handler", "asyncsync.cli.operations.lambda_handler")

Ask = Callable[[str], str]  # takes a prompt, returns what was typed


@dataclass(frozen=True, slots=True)
class Copy:
    """The copy that a command acts on, and the words that say where this is known from."""

    mirror: Mirror
    origin: str

    def line(self, table_arn: str = "") -> str:
        """Return the line that every command begins with."""
        config = self.mirror.config
        kinds = ("TLS", config.server.tls), ("cluster", config.redis_cluster)
        kind = ", ".join(name for name, is_so in kinds if is_so)
        parts = [
            f"table {table_arn}" if table_arn else "",
            f"Redis {server_name(self.mirror)}{f' ({kind})' if kind else ''}",
            f"keys {name_rule(self.mirror)}",
            f"values {value_rule(self.mirror)}",
            f"mode {config.mode}",
            "fence off" if config.fence == "off" else "",
        ]
        return f"{', '.join(part for part in parts if part)}; settings from {self.origin}"


async def copy_of(
    arguments: argparse.Namespace,
    env: Mapping[str, str],
    clients: AwsClients | None,
    function: DeployedFunction | None,
    output: Output,
) -> Copy:
    """Return the copy that the arguments name; the clients read a function's secrets.

    Raises CommandRefused, ConfigError, AwsFailed, or UserCodeFailed.
    """
    credentials = session_credentials(env, region=arguments.region, profile=arguments.profile)
    url = arguments.redis_url
    suffix = ", server from --redis-url" if url else ""
    if arguments.mirror is not None:
        sys.path.insert(0, os.getcwd())  # as python -m does
        mirror = load_mirror(arguments.mirror)
        if url:
            config = structs.replace(mirror.config, redis_url=url)
            rules = mirror.rules
            mirror = Mirror(
                config, key=rules.key, transform=rules.transform, credentials=credentials
            )
        origin = f"--mirror {arguments.mirror}"
    elif function is not None:
        assert clients is not None, "a function was read with them"
        settings, notes = await function_settings(function, clients, env, url, _ask())
        mirror = make_mirror(Config.from_env(settings), credentials)
        origin = f"function {function.arn}{notes}"
        _warn_of_handler(function, output)
    else:
        override = {REDIS_URL: url} if url else {}
        mirror = make_mirror(Config.from_env({**env, **override}), credentials)
        return Copy(mirror, f"the environment{suffix}")
    _note_unused(env, origin, output)
    return Copy(mirror, origin + suffix)


def _warn_of_handler(function: DeployedFunction, output: Output) -> None:
    if function.handler not in OUR_HANDLERS:
        output.warn(
            f"asyncsync: function {function.name} runs {function.handler or 'an image'}: if that "
            "makes a Mirror of its own, pass --mirror module:name"
        )


def _note_unused(env: Mapping[str, str], origin: str, output: Output) -> None:
    names = [n for n in sorted(env) if n.startswith(PREFIX) and not n.startswith(TEST_PREFIX)]
    if names:
        output.note(f"not used: {', '.join(names)} of this environment (settings: {origin})")


# --- a function's settings --------------------------------------------------------------------


def _ask() -> Ask | None:
    return getpass if sys.stdin is not None and sys.stdin.isatty() else None


async def function_settings(
    function: DeployedFunction,
    clients: AwsClients,
    env: Mapping[str, str],
    url: str | None,
    ask: Ask | None,
) -> tuple[dict[str, str], str]:
    """Return the function's settings as this machine can use them, and what is from elsewhere.

    A secret that the function names by reference is read; where that fails, it comes from the
    environment's setting of the same name, or from the user. Raises ConfigError.
    """
    settings: dict[str, str] = {}
    notes = ""
    for name, value in function.settings.items():
        if not is_reference(value):
            settings[name] = value
            continue
        name = name.removesuffix("_ARN")
        if name == REDIS_URL and url:
            continue
        settings[name], note = await _secret(name, value, function, clients, env, ask)
        notes += note
    if url:
        settings[REDIS_URL] = url
    if REDIS_URL not in settings:
        raise ConfigError(
            f"function {function.name} does not set {REDIS_URL}: pass --redis-url, or --mirror "
            "for a Mirror in its code"
        )
    return settings, notes + _use_own_authority(settings, function, env)


def _use_own_authority(
    settings: dict[str, str], function: DeployedFunction, env: Mapping[str, str]
) -> str:
    """Replace a path in the function's bundle by the environment's; return what to say of it."""
    path = settings.get(REDIS_CA_FILE)
    if not path or Path(path).is_file():
        return ""
    if not env.get(REDIS_CA_FILE):
        raise ConfigError(
            f"{REDIS_CA_FILE}={path} of function {function.name} is not on this machine: set "
            f"{REDIS_CA_FILE} to a copy of that file"
        )
    settings[REDIS_CA_FILE] = env[REDIS_CA_FILE]
    return f", {REDIS_CA_FILE} from the environment"


async def _secret(
    name: str,
    reference: str,
    function: DeployedFunction,
    clients: AwsClients,
    env: Mapping[str, str],
    ask: Ask | None,
) -> tuple[str, str]:
    """Return a secret, and where it came from if that is not the function's reference."""
    try:
        return await resolve_reference(clients, reference), ""
    except AwsFailed as exc:
        if env.get(name):
            return env[name], f", {name} from the environment"
        if ask is not None:
            return ask(f"{name} of function {function.name}: "), f", {name} as typed"
        raise ConfigError(
            f"{name} of function {function.name} is a reference that cannot be read here ({exc}): "
            f"set {name}"
        ) from exc


# --- the table and the Region -----------------------------------------------------------------


def region_of_arguments(arguments: argparse.Namespace) -> str | None:
    """Return --region, or the Region of an ARN among the arguments; None where there is none.

    Raises CommandRefused if they name different Regions.
    """
    regions: dict[str, str] = {}
    table = parse_table_arn(getattr(arguments, "table", None) or "")
    if table is not None:
        regions[table.region] = str(table)
    function = re.match(r"arn:[^:]+:lambda:([^:]+):", arguments.function or "")
    if function is not None:
        regions[function[1]] = arguments.function
    if arguments.region:
        regions[arguments.region] = f"--region {arguments.region}"
    if len(regions) > 1:
        raise CommandRefused(f"these name different Regions: {' and '.join(regions.values())}")
    return next(iter(regions), None)


def table_of(arguments: argparse.Namespace, function: DeployedFunction | None) -> str:
    """Return the table: --table, or the one whose stream is mapped to the function.

    Raises CommandRefused if it cannot be told, or if the function mirrors another table.
    """
    table: str | None = arguments.table
    if function is None:
        assert table is not None, "the parser asks for --table or --function"
        return table
    arns = ", ".join(map(str, function.tables)) or "no table's stream"
    if table is None:
        if len(function.tables) != 1:
            raise CommandRefused(f"function {function.name} reads {arns}: pass --table")
        return str(function.tables[0])
    of_name = [arn for arn in function.tables if table in (arn.name, str(arn))]
    if function.tables and not of_name:
        raise CommandRefused(f"function {function.name} reads {arns}, not table {table}")
    return str(of_name[0]) if of_name else table
