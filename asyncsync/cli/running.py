"""What stands around a command: its settings, the mirror it works for, its end by Ctrl-C."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from asyncsync.config import Config
from asyncsync.mirror import Mirror
from asyncsync.tools.errors import CommandRefused


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
