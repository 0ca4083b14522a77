"""Lambda's entry point: asyncsync.handler.lambda_handler.

Importing it is the cold start: it reads the settings from the environment, refuses wrong ones,
and prints one line that describes the copy.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import orjson

from asyncsync.config import Config
from asyncsync.errors import ConfigError
from asyncsync.mirror import Mirror, print_line
from asyncsync.report import timestamp
from asyncsync.runtime import ENTRY_POINT
from asyncsync.version import __version__

if TYPE_CHECKING:
    from asyncsync.iam import AwsCredentials


def cold_start_line(config: Config, raw_event: bool, now_ms: int) -> bytes:
    """Describe, once per process, how this copy is kept; the line holds no secret."""
    address, tls = config.server.address, config.server.tls
    line = {
        "timestamp": timestamp(now_ms),
        "level": "INFO",
        "event": "cold_start",
        "version": __version__,
        "mode": config.mode,
        "server": {"address": address, "tls": tls, "cluster": config.redis_cluster},
        "key": config.key,
        "value": config.value,
        "fence": config.fence,
        "fence_ttl_s": config.fence_ttl_s,
        "raw_event": raw_event,
    }
    return orjson.dumps(line)


def credentials() -> AwsCredentials:
    """Read the function's credentials; called only where the settings ask for IAM."""
    from asyncsync.iam import AwsCredentials

    return AwsCredentials.from_env(os.environ)


if not __debug__:
    raise ConfigError("python -O (or PYTHONOPTIMIZE) removes the checks that keep a copy exact")

mirror = Mirror(
    Config.from_env(os.environ),
    # Where another function is the handler, that one reads the events.
    raw_event=os.environ.get("_HANDLER") == ENTRY_POINT,
    credentials=credentials,
)
lambda_handler = mirror.lambda_handler
print_line(cold_start_line(mirror.config, mirror.raw_event, int(time.time() * 1_000)))
