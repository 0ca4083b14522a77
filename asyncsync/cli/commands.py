"""Builds commands from parsed arguments, for the command line and the operations function."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Any, Concatenate, TypeAlias, TypeVar

from asyncsync.config import Config
from asyncsync.mirror import Mirror
from asyncsync.tools.deadline import TimeLeft
from asyncsync.tools.errors import CommandRefused
from asyncsync.tools.output import Output

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Options = TypeVar("Options", bound="DataclassInstance")

# Takes the mirror, the environment, the output, and optionally a TimeLeft; returns whether all
# went well.
TableCommand: TypeAlias = Callable[
    Concatenate[Mirror, Mapping[str, str], Output, ...], Awaitable[bool]
]

# The commands that work on a whole table, here or in the operations function.
TABLE_COMMANDS = ("backfill", "audit", "redrive", "retire")


def options_of(options: type[Options], arguments: argparse.Namespace, **more: Any) -> Options:
    """Return a command's options: each field from the argument of the same name."""
    values = {**vars(arguments), **more}
    return options(**{f.name: values[f.name] for f in fields(options) if f.name in values})


def table_command(arguments: argparse.Namespace) -> TableCommand:
    """Return one of TABLE_COMMANDS with its options; import only what it needs."""
    if arguments.command == "backfill":
        from asyncsync.tools.backfill.command import BackfillOptions, backfill

        return partial(_with_clients, backfill, options_of(BackfillOptions, arguments))
    if arguments.command == "audit":
        from asyncsync.tools.audit.command import AuditOptions, audit

        return partial(_with_clients, audit, options_of(AuditOptions, arguments))
    if arguments.command == "redrive":
        from asyncsync.tools.redrive.command import RedriveOptions, redrive

        return partial(_with_clients, redrive, options_of(RedriveOptions, arguments))
    from asyncsync.tools.retire.command import RetireOptions, retire

    return partial(_with_clients, retire, options_of(RetireOptions, arguments))


async def _with_clients(
    command: Callable[..., Awaitable[bool]],
    options: Any,
    mirror: Mirror,
    env: Mapping[str, str],
    output: Output,
    *time_left: TimeLeft,
) -> bool:
    from asyncsync.aws.clients import open_clients

    async with open_clients(options.endpoint_url, env) as clients:
        return await command(clients, options, mirror, output, *time_left)


# --- the settings and the mirror --------------------------------------------------------------


def config_of(arguments: argparse.Namespace) -> Config:
    """Read the settings from the environment; --redis-url wins.

    Raises ConfigError.
    """
    override = {"ASYNCSYNC_REDIS_URL": arguments.redis_url} if arguments.redis_url else {}
    return Config.from_env({**os.environ, **override})


def has_own_mirror(arguments: argparse.Namespace) -> bool:
    """Return whether --mirror is given; make its module importable.

    Raises CommandRefused where --redis-url is given, too.
    """
    if arguments.mirror is None:
        return False
    if arguments.redis_url is not None:
        raise CommandRefused("--mirror has its own Redis URL: leave --redis-url out")
    sys.path.insert(0, os.getcwd())  # as python -m does
    return True


def mirror_of(arguments: argparse.Namespace) -> Mirror:
    """Load the mirror that --mirror names, or make one from the settings.

    Raises CommandRefused or ConfigError.
    """
    from asyncsync.tools.mirrors import load_mirror, make_mirror

    if has_own_mirror(arguments):
        return load_mirror(arguments.mirror)
    return make_mirror(config_of(arguments), os.environ)


@contextmanager
def interruptible() -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C until the block ends, so that every server is stopped."""
    handlers = {
        signal.SIGINT: signal.default_int_handler,  # a shell's background job ignores it
        signal.SIGTERM: lambda *_: signal.raise_signal(signal.SIGINT),
    }
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
