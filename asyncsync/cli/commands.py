"""What a command does to a table, from its arguments, wherever it runs.

The same for the command line and for the operations function: what is left to them is the
mirror, the environment, who is told, and how long it may take.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Concatenate, TypeAlias

from asyncsync.config import Config
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
    from asyncsync.tools.audit.retire import RetireOptions, retire

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


# --- the settings and the mirror ---------------------------------------------------------------


def config_of(arguments: argparse.Namespace) -> Config:
    """Read the settings from the environment; a URL on the command line wins.

    Raises ConfigError.
    """
    given = {"ASYNCSYNC_REDIS_URL": arguments.redis_url} if arguments.redis_url else {}
    return Config.from_env({**os.environ, **given})


def has_own_mirror(arguments: argparse.Namespace) -> bool:
    """Whether a command works for a mirror of the user's own, whose module is then in reach.

    Raises CommandRefused.
    """
    if arguments.mirror is None:
        return False
    if arguments.redis_url is not None:
        raise CommandRefused("--mirror brings its own Redis: leave --redis-url out")
    sys.path.insert(0, os.getcwd())  # as python -m does
    return True


def mirror_of(arguments: argparse.Namespace) -> Mirror:
    """Make the mirror that a command works for: the user's own, or one of the settings.

    Raises CommandRefused or ConfigError.
    """
    from asyncsync.tools.mirrors import load_mirror, make_mirror

    if has_own_mirror(arguments):
        return load_mirror(arguments.mirror)
    return make_mirror(config_of(arguments), os.environ)


@contextmanager
def interruptible() -> Iterator[None]:
    """Take a SIGTERM for a Ctrl-C, so that what was started is taken down."""
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
