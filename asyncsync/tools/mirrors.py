"""The mirror that a command works for: the user's, or one made from the settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module

from asyncsync.config import Config
from asyncsync.iam import AwsCredentials
from asyncsync.mirror import Mirror
from asyncsync.tools.errors import CommandRefused
from asyncsync.transport_asyncio import Connect


def load_mirror(name: str) -> Mirror:
    """Import the user's mirror, named module:name.

    Raises CommandRefused.
    """
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise CommandRefused(f"--mirror {name} is not of the form module:name")
    try:
        mirror = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as exc:
        raise CommandRefused(f"--mirror {name} cannot be loaded: {exc}") from exc
    if not isinstance(mirror, Mirror):
        raise CommandRefused(
            f"--mirror {name} is {type(mirror).__name__}, not an asyncsync.Mirror"
        )
    return mirror


def make_mirror(
    config: Config,
    env: Mapping[str, str],
    *,
    connect: Connect | None = None,
    emit: Callable[[bytes], None] = lambda _: None,
) -> Mirror:
    """Make a mirror of the settings; for IAM, env holds the AWS credentials."""
    return Mirror(
        config, connect=connect, credentials=lambda: AwsCredentials.from_env(env), emit=emit
    )
