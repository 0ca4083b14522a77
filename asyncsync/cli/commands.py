"""What a command does to a table, from its arguments, wherever it runs.

The same for the command line and for the operations function: what is left to them is the
mirror, the environment, who is told, and how long it may take.
"""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Concatenate, TypeAlias

from asyncsync.mirror import Mirror
from asyncsync.tools.errors import CommandRefused
from asyncsync.tools.output import Output

# From a mirror, the environment and who is told, and until when it may begin anything, to
# whether all went well.
Work: TypeAlias = Callable[Concatenate[Mirror, Mapping[str, str], Output, ...], Awaitable[bool]]


def work_of(arguments: argparse.Namespace) -> Work:
    """Make of arguments what a command of a table does.

    Raises CommandRefused.
    """
    if arguments.command == "audit" and arguments.retire is not None:
        return _retire(arguments)
    return {"backfill": _backfill, "audit": _audit, "redrive": _redrive}[arguments.command](
        arguments
    )


def _backfill(arguments: argparse.Namespace) -> Work:
    from asyncsync.tools.backfill.command import BackfillOptions, backfill

    options = BackfillOptions(
        table=arguments.table,
        endpoint_url=arguments.endpoint_url,
        segments=arguments.segments,
        only=arguments.only,
        page_items=arguments.page_items,
        rcu=arguments.rcu,
        state=arguments.state,
        from_export=arguments.from_export,
        assume_following=arguments.assume_following,
        as_json=arguments.json,
    )
    return partial(backfill, options)


def _audit(arguments: argparse.Namespace) -> Work:
    from asyncsync.tools.audit.command import AuditOptions, audit

    options = AuditOptions(
        table=arguments.table,
        endpoint_url=arguments.endpoint_url,
        sample=arguments.sample,
        settle_s=arguments.settle,
        orphans=arguments.orphans,
        repair=arguments.repair,
        show=arguments.show,
        rcu=arguments.rcu,
        state=arguments.state,
        as_json=arguments.json,
    )
    return partial(audit, options)


def _retire(arguments: argparse.Namespace) -> Work:
    if arguments.repair or arguments.sample or arguments.show:
        raise CommandRefused("--retire removes old names and nothing else: give it by itself")
    from asyncsync.tools.retire.command import RetireOptions, retire

    options = RetireOptions(
        table=arguments.table,
        template=arguments.retire,
        endpoint_url=arguments.endpoint_url,
        orphans=bool(arguments.orphans),
        state=arguments.state,
        as_json=arguments.json,
    )
    return partial(retire, options)


def _redrive(arguments: argparse.Namespace) -> Work:
    from asyncsync.tools.redrive.command import RedriveOptions, redrive

    options = RedriveOptions(
        table=arguments.table,
        places=arguments.places,
        endpoint_url=arguments.endpoint_url,
        dry_run=arguments.dry_run,
        state=arguments.state,
        as_json=arguments.json,
    )
    return partial(redrive, options)
