"""Builds commands from parsed arguments, for the command line and the operations function."""

from __future__ import annotations

import argparse
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
)
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

from asyncsync.aws.clients import AwsClients, open_clients
from asyncsync.aws.functions import DeployedFunction, read_function
from asyncsync.aws.tables import describe_table
from asyncsync.cli.settings import copy_of, region_of_arguments, table_of
from asyncsync.tools.deadline import TimeLeft
from asyncsync.tools.output import Output
from asyncsync.tools.reach import reach

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Options = TypeVar("Options", bound="DataclassInstance")

# The commands that work on a whole table, here or in the operations function.
TABLE_COMMANDS = ("backfill", "audit", "redrive", "retire")


def options_of(options: type[Options], arguments: argparse.Namespace, **more: Any) -> Options:
    """Return a command's options: each field from the argument of the same name."""
    values = {**vars(arguments), **more}
    return options(**{f.name: values[f.name] for f in fields(options) if f.name in values})


def table_command(arguments: argparse.Namespace) -> tuple[Callable[..., Awaitable[bool]], Any]:
    """Return a command that needs a table, and its options; import only what it needs."""
    name = arguments.command
    if name == "backfill":
        from asyncsync.tools.backfill.command import BackfillOptions, backfill

        return backfill, options_of(BackfillOptions, arguments)
    if name == "audit":
        from asyncsync.tools.audit.command import AuditOptions, audit

        return audit, options_of(AuditOptions, arguments)
    if name == "redrive":
        from asyncsync.tools.redrive.command import RedriveOptions, redrive

        return redrive, options_of(RedriveOptions, arguments)
    if name == "retire":
        from asyncsync.tools.retire.command import RetireOptions, retire

        return retire, options_of(RetireOptions, arguments)
    from asyncsync.tools.run.command import RunOptions, run

    return run, options_of(RunOptions, arguments)


async def on_table(
    arguments: argparse.Namespace, env: Mapping[str, str], output: Output, *time_left: TimeLeft
) -> bool:
    """Say which copy a command acts on, connect to it, and run the command.

    Returns whether all went well. Raises what the command raises, and AwsFailed, StoreRefused or
    StoreUnavailable if it cannot begin.
    """
    copy = None
    if arguments.function is None:  # wrong settings are known without AWS
        copy = await copy_of(arguments, env, None, None, output)
    output.waits_for("AWS")
    async with opened(arguments, env) as (clients, function):
        copy = copy or await copy_of(arguments, env, clients, function, output)
        table = table_of(arguments, function)
        arguments = argparse.Namespace(**{**vars(arguments), "table": table})
        output.waits_for(f"table {table}")
        output.note(copy.line(str((await describe_table(clients, table)).arn)))
        output.waits_for(f"Redis at {copy.mirror.config.server.address}")
        # A person waits; a slice is tried again as a whole. An audit does this itself.
        if not time_left and arguments.command != "audit":
            await reach(copy.mirror)
        output.waits_for("the first answers")
        command, options = table_command(arguments)
        return await command(clients, options, copy.mirror, output, *time_left)


def clients_of(
    arguments: argparse.Namespace, env: Mapping[str, str]
) -> AbstractAsyncContextManager[AwsClients]:
    """Open AWS's clients as the arguments say."""
    region = region_of_arguments(arguments)
    return open_clients(arguments.endpoint_url, env, region=region, profile=arguments.profile)


@asynccontextmanager
async def opened(
    arguments: argparse.Namespace, env: Mapping[str, str]
) -> AsyncIterator[tuple[AwsClients, DeployedFunction | None]]:
    """Open AWS's clients as the arguments say, and read the function that they name."""
    async with clients_of(arguments, env) as clients:
        name = arguments.function
        yield clients, None if name is None else await read_function(clients, name)


async def get_key(arguments: argparse.Namespace, env: Mapping[str, str], output: Output) -> bool:
    """Say which copy is read, and show a key of it.

    Returns whether Redis holds it. Raises what on_table raises.
    """
    from asyncsync.tools.get import get

    async with AsyncExitStack() as stack:
        clients, function = None, None
        if arguments.function is not None:
            clients, function = await stack.enter_async_context(opened(arguments, env))
        copy = await copy_of(arguments, env, clients, function, output)
        output.note(copy.line())
        output.waits_for(f"Redis at {copy.mirror.config.server.address}")
        return await get(
            arguments.key,
            copy.mirror,
            output,
            as_json=arguments.as_json,
            show_values=arguments.show_values,
        )


@contextmanager
def without_aws_settings() -> Iterator[None]:
    """Hide this machine's AWS settings until the block ends: a DynamoDB of our own needs none."""
    before = {name: os.environ.pop(name) for name in [*os.environ] if name.startswith("AWS_")}
    ours = {
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            del os.environ[name]
        os.environ.update(before)


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
