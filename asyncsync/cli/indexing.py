"""asyncsync index on the command line: finds the copy and, if one is named, the table."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from contextlib import AsyncExitStack

from asyncsync.aws.tables import describe_table
from asyncsync.cli.commands import opened, options_of
from asyncsync.cli.settings import copy_of, table_of
from asyncsync.tools.index.command import IndexOptions, index, refuse_unsearchable
from asyncsync.tools.output import Output


async def make_index(
    arguments: argparse.Namespace, env: Mapping[str, str], output: Output
) -> bool:
    """Say which copy is searched, and print or make its index.

    Returns whether nothing is wrong with it. Raises what index raises.
    """
    copy = None
    if arguments.function is None:  # wrong settings are known without AWS
        copy = await copy_of(arguments, env, None, None, output)
        refuse_unsearchable(copy.mirror)
    async with AsyncExitStack() as stack:
        clients = function = table = None
        if arguments.function is not None or arguments.table is not None:
            output.waits_for("AWS")
            clients, function = await stack.enter_async_context(opened(arguments, env))
            copy = copy or await copy_of(arguments, env, clients, function, output)
            table = await describe_table(clients, table_of(arguments, function))
        assert copy is not None, "the settings or the function told it"
        output.note(copy.line("" if table is None else str(table.arn)))
        refuse_unsearchable(copy.mirror)
        output.waits_for("the sample" if table is not None else "Redis")
        options = options_of(IndexOptions, arguments)
        return await index(clients, options, copy.mirror, table, output)
