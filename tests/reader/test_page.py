"""docs/read-through.md is true: its tables, its access string and its Python."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from msgspec import structs

from asyncsync import Config, Mirror
from asyncsync.fence import NONCE_DIGITS, version
from asyncsync.lab.servers import ServerProcess
from asyncsync.limits import SEQUENCE_NUMBER_DIGITS_MAX
from asyncsync.model import SequenceNumber
from asyncsync.reader import Reader
from asyncsync.reader.counters import ReaderCounters
from asyncsync.reader.limits import CIRCUIT_FAILURES, CIRCUIT_PAUSE_S, JITTER_MAX, MGET_KEYS_MAX
from asyncsync.reader.options import _RANGES, ReaderOptions
from asyncsync.reader.protocol import END_DIGITS
from tests.support.cluster import Cluster
from tests.support.project.package import ROOT
from tests.support.readers import EndlessTable

PAGE = (ROOT / "docs" / "read-through.md").read_text(encoding="utf-8")


def rows(title: str) -> list[list[str]]:
    """Return the cells of the first table after a line, without its head."""
    text = PAGE.split(title, 1)[1]
    table = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)[0].splitlines()
    return [[cell.strip(" `") for cell in line.strip("|").split(" | ")] for line in table[2:]]


def test_the_options_are_those_of_the_code() -> None:
    told = {row[0]: tuple(row[1:4]) for row in rows("## Options")}
    defaults = {each.name: each.default for each in structs.fields(ReaderOptions)}
    expected = {
        name: (f"{defaults[name]:,}", f"{low:,}", f"{high:,}")
        for name, (low, high) in _RANGES.items()
    }
    expected["jitter"] = (str(defaults["jitter"]), "0", str(JITTER_MAX))

    assert told == expected
    assert defaults.keys() == expected.keys()


def test_the_counters_are_those_of_the_code() -> None:
    names = {row[0] for row in rows("## Counters")}

    assert ReaderCounters().as_dict().keys() == names


def test_the_circuit_and_the_parts_of_a_fence_are_those_of_the_code() -> None:
    lengths = {row[0]: row[1] for row in rows("The parts of one with a lease:")}

    assert f"After {CIRCUIT_FAILURES} failures in a row" in PAGE
    assert f"one `MGET` for up to {MGET_KEYS_MAX:,} keys" in PAGE
    assert f"one probe every {CIRCUIT_PAUSE_S} s" in PAGE
    shortest = len(version(0, SequenceNumber(1)))
    assert lengths["version"] == f"{shortest} to {shortest + SEQUENCE_NUMBER_DIGITS_MAX - 1}"
    assert (lengths["end"], lengths["nonce"]) == (str(END_DIGITS), str(NONCE_DIGITS))


def test_the_python_is_python_and_uses_what_there_is() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)

    assert len(blocks) == 2
    for text in blocks:
        ast.parse(text)
        for name in re.findall(r"^from asyncsync import (.*)$", text, re.MULTILINE):
            exec(f"from asyncsync import {name}")


def access() -> list[str]:
    """Return the words of the page's access string."""
    text: str
    (text,) = re.findall(r"^on ~Players.*$", PAGE, re.MULTILINE)
    return [*text.split()]


@pytest.fixture
def reader_url(one_server: ServerProcess, one_client: redis.Redis) -> Iterator[str]:
    """Make the page's user; return the URL that signs in as that."""
    send: Any = one_client.execute_command
    send("ACL", "SETUSER", "reader", ">secret", *access())
    yield f"redis://reader:secret@127.0.0.1:{one_server.port}"
    one_client.acl_deluser("reader")


async def test_the_access_string_is_enough_and_allows_nothing_else(
    reader_url: str, one_client: redis.Redis
) -> None:
    table: Any = EndlessTable()

    mirror = Mirror(Config(redis_url=reader_url))
    async with Reader(mirror, "Players", dynamodb=table) as reader:
        for _ in range(2):
            assert await reader.get({"Number": 7})
            assert all(await reader.get_many([{"Number": 8}, {"Number": 9}]))
            await reader.finish_loads()

    counts = reader.counters
    assert (counts.cache_errors, counts.fills, counts.hits) == (0, 3, 3)
    with redis.Redis.from_url(reader_url) as user:
        for command in (("GET", "Other:7"), ("DEL", "Players:7"), ("KEYS", "*")):
            with pytest.raises(redis.exceptions.NoPermissionError):
                user.execute_command(*command)


async def test_a_cluster_wants_two_commands_more(cluster: Cluster) -> None:
    (more,) = re.findall(r"^With a cluster it also needs `(.*?)`", PAGE, re.MULTILINE)
    for node in cluster.alive:
        node.send("ACL", "SETUSER", "reader", ">secret", *access(), *more.split())
    table: Any = EndlessTable()
    url = f"redis://reader:secret@127.0.0.1:{cluster.alive[0].port}"
    config = Config(redis_url=url, redis_cluster=True)
    options = ReaderOptions(timeout_ms=10_000)
    async with Reader(config, "Players", dynamodb=table, options=options) as reader:
        for _ in range(2):
            assert all(await reader.get_many([{"Number": number} for number in range(20)]))
            await reader.finish_loads()
    for node in cluster.alive:
        node.send("ACL", "DELUSER", "reader")

        assert reader.last_cache_error == ""
    counts = reader.counters
    assert (counts.cache_errors, counts.fills, counts.hits) == (0, 20, 20)
