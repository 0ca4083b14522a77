"""Hashes and JSON documents in the store: the promises of strings, on every server."""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Iterator
from typing import Any, Literal

import pytest
import redis

from asyncsync.config import Config
from asyncsync.errors import StoreRefused
from asyncsync.lab.servers import ServerProcess
from asyncsync.limits import CALL_ARGUMENTS_MAX, HASH_FIELDS_MAX
from asyncsync.model import Entry, Outcome
from asyncsync.plan import plan
from asyncsync.store import SCRIPT, Client, script_for
from asyncsync.transport import open_socket, run_blocking
from tests.support.entries import entry
from tests.support.events import SEED
from tests.support.formats import FormatServer
from tests.support.planted import KINDS
from tests.support.template.cache_users import set_user
from tests.support.template.cloudformation import ROOT

NEVER = float("inf")


class Writer:
    """A client and its settings; a call writes entries and returns the kinds of their outcomes."""

    def __init__(self, server: FormatServer, url: str = "", **options: Any) -> None:
        self.config = Config(redis_url=url or server.url, value=server.value, **options)
        redis_server = self.config.server
        script = script_for(SCRIPT, server.value)
        self.client = Client(
            redis_server, 2_000, open_socket, time.monotonic, lambda: redis_server.password, script
        )

    def outcomes(self, *entries: Entry) -> list[Outcome]:
        calls = list(plan(entries, self.config))
        assert all(len(call.arguments) + 2 <= CALL_ARGUMENTS_MAX for call in calls)
        return list(run_blocking(self.client.apply(calls, len(entries), NEVER)).outcomes)

    def __call__(self, *entries: Entry) -> list[str]:
        return [outcome.kind for outcome in self.outcomes(*entries)]


@pytest.fixture
def write(any_format: FormatServer) -> Iterator[Writer]:
    made = Writer(any_format)
    yield made
    made.client.close()


@pytest.fixture
def write_real(real_format: FormatServer) -> Iterator[Writer]:
    made = Writer(real_format)
    yield made
    made.client.close()


def test_a_value_is_written_with_its_fence_beside_it(
    any_format: FormatServer, write: Writer
) -> None:
    assert write(entry(b"a", 10**21, any_format.make(x="1", y="zwei ü"))) == ["applied"]

    assert any_format.read("a") == {"x": "1", "y": "zwei ü"}
    assert any_format.client.ttl("a") == -1
    fence = any_format.client.get("{a}!f")
    assert fence == b"1" + b"1767225600000" + b"22" + b"1" + b"0" * 21 + b"1"
    assert 89_990 <= any_format.client.ttl("{a}!f") <= 90_000


def test_older_is_fenced_equal_and_newer_are_applied(
    any_format: FormatServer, write: Writer
) -> None:
    make = any_format.make
    assert write(entry(b"a", 20, make(v="20"))) == ["applied"]
    assert write(entry(b"a", 19, make(v="19", old="1"))) == ["fenced"]
    assert any_format.read("a") == {"v": "20"}
    assert write(entry(b"a", 20, make(v="20 again"))) == ["applied"]
    assert write(entry(b"a", 21, make(w="21"))) == ["applied"]
    assert any_format.read("a") == {"w": "21"}


def test_a_removal_leaves_its_fence_as_a_tombstone(
    any_format: FormatServer, write: Writer
) -> None:
    write(entry(b"a", 5, any_format.make(v="5")))

    assert write(entry(b"a", 7, None)) == ["applied"]
    assert write(entry(b"a", 6, any_format.make(v="ghost"))) == ["fenced"]

    assert any_format.read("a") is None
    assert any_format.client.exists("{a}!f")


def test_no_field_of_an_older_image_stays(any_format: FormatServer, write: Writer) -> None:
    chance = random.Random(SEED)
    for number in range(200):
        names = chance.sample("abcdefghij", chance.randint(1, 10))
        fields = {name: f"{number} {name}" for name in names}

        assert write(entry(b"k", number + 1, any_format.make(**fields))) == ["applied"]
        assert any_format.read("k") == fields


@pytest.mark.parametrize("kind", ["string", "list", "set", "zset", "hash", "stream"])
def test_a_key_of_another_type_is_replaced(
    any_format: FormatServer, write: Writer, kind: str
) -> None:
    KINDS[kind](any_format.client, "a")
    any_format.client.expire("a", 1_000)

    assert write(entry(b"a", 5, any_format.make(v="5"))) == ["applied"]
    assert any_format.read("a") == {"v": "5"}
    assert any_format.client.ttl("a") == -1
    assert write(entry(b"a", 6, None)) == ["applied"]
    assert not any_format.client.exists("a")


def test_an_expiry_is_set_moved_and_cleared(any_format: FormatServer, write: Writer) -> None:
    now_ms = int(time.time() * 1_000)
    value = any_format.make(v="1")

    write(entry(b"a", 1, value, expires_at_ms=now_ms + 50_000))
    assert 40_000 < any_format.client.pttl("a") <= 50_000
    write(entry(b"a", 2, value, expires_at_ms=now_ms + 90_000))
    assert 80_000 < any_format.client.pttl("a") <= 90_000
    write(entry(b"a", 3, value))
    assert any_format.client.pttl("a") == -1
    write(entry(b"a", 4, value, expires_at_ms=now_ms - 1_000))
    assert any_format.read("a") is None


def test_refresh_writes_only_where_a_key_is_and_moves_the_fence(any_format: FormatServer) -> None:
    write = Writer(any_format, mode="refresh")
    any_format.client.set("old", "an older format's")

    assert write(
        entry(b"a", 5, any_format.make(v="5")), entry(b"old", 5, any_format.make(v="5"))
    ) == ["applied", "applied"]

    assert any_format.read("a") is None
    assert any_format.client.exists("{a}!f")
    assert any_format.read("old") == {"v": "5"}
    write(entry(b"old", 6, any_format.make(w="6")))
    assert any_format.read("old") == {"w": "6"}
    write.client.close()


def test_many_keys_of_many_sizes_each_get_their_own_fields(
    any_format: FormatServer, write: Writer
) -> None:
    chance = random.Random(SEED)
    fields = {
        f"k{number}": {f"f{at}": f"{number}-{at}" for at in range(chance.choice((1, 3, 40, 300)))}
        for number in range(300)
    }
    removed = {f"k{number}" for number in range(0, 300, 7)}
    entries = [
        entry(name.encode(), 9, None if name in removed else any_format.make(**fields[name]))
        for name in fields
    ]
    entries[5] = entry(b"k5", 3, any_format.make(f0="old"))
    write(entry(b"k5", 4, any_format.make(f0="newer")))

    kinds = write(*entries)

    assert kinds == ["fenced" if at == 5 else "applied" for at in range(300)]
    for name, expected in fields.items():
        expected = {"f0": "newer"} if name == "k5" else expected
        assert any_format.read(name) == (None if name in removed else expected)


@pytest.mark.parametrize("count", [1, HASH_FIELDS_MAX - 1, HASH_FIELDS_MAX])
def test_the_largest_value_is_written_and_replaced(
    any_format: FormatServer, write: Writer, count: int
) -> None:
    fields = {f"f{at}": str(at) for at in range(count)}

    assert write(entry(b"a", 1, any_format.make(**fields))) == ["applied"]
    assert any_format.read("a") == fields
    assert write(entry(b"a", 2, any_format.make(only="one"))) == ["applied"]
    assert any_format.read("a") == {"only": "one"}


def test_a_hash_holds_any_bytes(any_format: FormatServer, write: Writer) -> None:
    if any_format.value != "hash":
        return  # a document is JSON
    vector = bytes(range(256)) * 6 + b"\r\n7:x"

    assert write(entry(b"a", 1, (b"vector", vector, b"empty", b"", b"\xff", b"1"))) == ["applied"]

    fields = any_format.client.hgetall("a")
    assert fields == {b"vector": vector, b"empty": b"", b"\xff": b"1"}


def test_the_script_that_a_server_lost_is_sent_again(
    any_format: FormatServer, write: Writer
) -> None:
    write(entry(b"a", 1, any_format.make(v="1")))
    any_format.client.script_flush()

    assert write(entry(b"a", 2, any_format.make(v="2"))) == ["applied"]
    assert any_format.read("a") == {"v": "2"}


# --- real servers -----------------------------------------------------------------------------


def test_a_write_that_is_refused_for_want_of_memory_leaves_value_and_fence(
    real_format: FormatServer, write_real: Writer
) -> None:
    client, make = real_format.client, real_format.make
    write_real(entry(b"a", 1, make(v="1", w="1")), entry(b"b", 1, make(v="1")))
    fences = client.mget("{a}!f", "{b}!f")
    client.config_set("maxmemory", "1")
    try:
        outcomes = write_real.outcomes(entry(b"a", 2, make(v="2")), entry(b"c", 2, make(v="2")))
        removal = write_real(entry(b"b", 2, None))
    finally:
        client.config_set("maxmemory", "0")

    assert [outcome.error for outcome in outcomes] == ["OOM", "OOM"]
    assert real_format.read("a") == {"v": "1", "w": "1"}
    assert client.get("{a}!f") == fences[0]
    assert real_format.read("c") is None
    assert not client.exists("{c}!f")
    assert removal == ["applied"]
    assert write_real(entry(b"a", 2, make(v="2"))) == ["applied"]
    assert real_format.read("a") == {"v": "2"}


def test_a_reader_never_sees_two_images_mixed(
    real_format: FormatServer, write_real: Writer
) -> None:
    images = [{f"f{at}": str(number) for at in range(number, number + 30)} for number in range(12)]
    read: list[dict[str, Any] | None] = []
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            read.append(real_format.read("a"))

    reader = threading.Thread(target=look)
    reader.start()
    for number in range(600):
        write_real(entry(b"a", number + 1, real_format.make(**images[number % 12])))
    ended.set()
    reader.join()

    seen = [value for value in read if value is not None]
    assert len(seen) > 50
    assert all(value in images for value in seen)
    assert None not in read[read.index(seen[0]) :]


@pytest.mark.parametrize("denied", ["write", "del", "evalsha", "exists", "persist"])
def test_a_user_who_may_not_write_is_refused(real_format: FormatServer, denied: str) -> None:
    client = real_format.client
    word = {"write": "hset" if real_format.value == "hash" else "json.set"}.get(denied, denied)
    client.acl_setuser(
        "limited",
        enabled=True,
        passwords=["+pw"],
        keys=["*"],
        categories=["+@all"],
        commands=[f"-{word}"],
    )
    url = real_format.url.replace("redis://", "redis://limited:pw@")
    client.set("a", "old")
    write = Writer(real_format, url, mode="refresh")

    with pytest.raises(StoreRefused, match="refused user 'limited' the command EVALSHA"):
        write(entry(b"a", 1, real_format.make(v="1")))

    assert denied == "persist" or client.get("a") == b"old"
    assert not client.exists("{a}!f")
    write.client.close()


def test_a_server_without_the_module_fails_each_key_with_its_reason(
    real_server: ServerProcess, real_client: redis.Redis
) -> None:
    bare = FormatServer("redis-json", real_server, real_client)
    write = Writer(bare)
    outcomes = write.outcomes(entry(b"a", 1, bare.make(v="1")), entry(b"b", 1, None))
    write.client.close()

    assert [outcome.kind for outcome in outcomes] == ["failed", "applied"]
    assert "nknown" in outcomes[0].reason
    assert not real_client.exists("{a}!f")


@pytest.mark.parametrize("mode", ["mirror", "refresh"])
def test_a_user_with_the_documented_commands_may_write(
    real_format: FormatServer, mode: Literal["mirror", "refresh"]
) -> None:
    page = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    rules = re.findall(r"^on ~Players:.* -@all (.*)$", page, re.MULTILINE)[0].split()
    by_format = re.findall(
        r"`((?:\+[a-z.]+ ?)+)`", page.partition("With `hash` the user also needs")[2]
    )
    more = dict(zip(("hash", "redis-json", "refresh"), by_format, strict=False))
    rules += more[real_format.value].split()
    rules += more["refresh"].split() if mode == "refresh" else []
    set_user(real_format.client, "limited", ["on", "~*", "-@all", *rules])
    write = Writer(
        real_format, real_format.url.replace("redis://", "redis://limited:pw@"), mode=mode
    )
    real_format.client.set("a", "another type")

    later_ms = int(time.time() * 1_000) + 60_000
    assert (
        write(
            entry(b"a", 1, real_format.make(v="1")),
            entry(b"b", 1, real_format.make(v="1"), expires_at_ms=later_ms),
            entry(b"c", 1, None),
        )
        == ["applied"] * 3
    )
    assert write(entry(b"a", 2, real_format.make(w="2"))) == ["applied"]
    assert real_format.read("a") == {"w": "2"}
    write.client.close()
