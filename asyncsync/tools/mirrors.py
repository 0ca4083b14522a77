"""The mirror that a command works for: one of the user's own, or one made from the settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module

from asyncsync.config import Config
from asyncsync.iam import AwsCredentials
from asyncsync.mirror import Mirror
from asyncsync.tools.errors import CommandRefused
from asyncsync.transport_asyncio import Connect


def load_mirror(name: str) -> Mirror:
    """Import the user's own mirror, named module:name.

    Raises CommandRefused.
    """
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise CommandRefused(f"--mirror {name} is not of the form module:name")
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as exc:
        raise CommandRefused(f"--mirror {name} cannot be loaded: {exc}") from exc
    if not isinstance(found, Mirror):
        raise CommandRefused(f"--mirror {name} is {type(found).__name__}, not an asyncsync.Mirror")
    return found


def make_mirror(
    config: Config,
    env: Mapping[str, str],
    *,
    connect: Connect | None = None,
    emit: Callable[[bytes], None] = lambda _: None,
) -> Mirror:
    """Make a mirror of the settings; whoever signs, where IAM is asked for, is in env."""
    return Mirror(
        config, connect=connect, credentials=lambda: AwsCredentials.from_env(env), emit=emit
    )
