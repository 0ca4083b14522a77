"""One suite for the fake server, Redis and Valkey; then a state machine that compares them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from hashlib import sha1
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from asyncsync.config import Config
from asyncsync.connection import OpenTransport, ReplyError
from asyncsync.errors import StoreRefused
from asyncsync.fence import version
from asyncsync.lab.proxy import proxy_to
from asyncsync.lab.servers import ServerProcess, redis_process
from asyncsync.model import Call, Entry, Outcome, SequenceNumber, Value
from asyncsync.plan import plan
from asyncsync.store import SCRIPT, Client, digest_of
from asyncsync.tools.run.meter import Meter, metered
from asyncsync.transport import open_socket, run_blocking
from asyncsync.transport_asyncio import Connect, asyncio_transport, connect
from tests.support.entries import LABEL_MS, entry
from tests.support.servers import LACKING, PACKAGES, major_version, skip, skip_without

NEVER = float("inf")


@pytest.fixture(autouse=True, params=["socket", "streams"])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test over both transports, unless it brings its own streams."""
    reach = open_socket if request.param == "socket" else asyncio_transport(connect)
    monkeypatch.setattr(Writer, "reach", reach)


class Writer:
    """A store and its settings; a call writes entries and returns the kinds of their outcomes."""

    reach: OpenTransport = open_socket

    def __init__(
        self,
        url: str,
        connect: Connect | None = None,
        clock: Callable[[], float] = time.monotonic,
        **options: Any,
    ) -> None:
        self.config = Config(redis_url=url, **options)
        server = self.config.server
        reach = asyncio_transport(connect) if connect else type(self).reach
        self.is_blocking = reach is open_socket
        self.store = Client(server, 2_000, reach, clock, lambda: server.password)

    async def outcomes(self, *entries: Entry) -> list[Outcome]:
        return await self.applied(list(plan(entries, self.config)))

    async def applied(self, calls: list[Call]) -> list[Outcome]:
        count = sum(len(call.entries) for call in calls)
        applying = self.store.apply(calls, count, NEVER)
        if self.is_blocking:
            return list((await asyncio.to_thread(run_blocking, applying)).outcomes)
        return list((await applying).outcomes)

    async def __call__(self, *entries: Entry) -> list[str]:
        return [outcome.kind for outcome in await self.outcomes(*entries)]


@pytest.fixture
async def writer(
    any_server: ServerProcess, any_client: redis.Redis
) -> AsyncIterator[Callable[..., Writer]]:
    """Make writers to an empty server and close them at the end."""
    made: list[Writer] = []

    def make(**options: Any) -> Writer:
        made.append(Writer(any_server.url, **options))
        return made[-1]

    yield make
    for each in made:
        each.store.close()
    await asyncio.sleep(0)


async def test_a_value_is_written_with_its_fence_beside_it(
    writer: Callable[..., Writer], any_client: redis.Redis
) -> None:
    assert await writer()(entry(b"a", 10**21, b"\x00 any bytes \r\n")) == ["applied"]

    assert any_client.get("a") == b"\x00 any bytes \r\n"
    assert any_client.ttl("a") == -1
    assert any_client.get("{a}!f") == b"1" + b"1767225600000" + b"22" + b"1" + b"0" * 21 + b"1"
    assert 89_990 <= any_client.ttl("{a}!f") <= 90_000


async def test_older_is_fenced_equal_and_newer_are_applied(
    writer: Callable[..., Writer], any_client: redis.Redis
) -> None:
    write = writer()

    assert await write(entry(b"a", 20, b"20")) == ["applied"]
    assert await write(entry(b"a", 19, b"19")) == ["fenced"]
    assert any_client.get("a") == b"20"
    assert await write(entry(b"a", 20, b"20 again")) == ["applied"]
    assert await write(entry(b"a", 21, b"21")) == ["applied"]
    assert any_client.get("a") == b"21"


async def test_order_is_by_number_where_text_order_is_wrong(
    writer: Callable[..., Writer], any_client: redis.Redis
) -> None:
    write = writer()
    nines, ten = 10**21 - 1, 10**21  # "999..." sorts after "1000..." as text

    assert await write(entry(b"a", ten, b"new")) == ["applied"]
    assert await write(entry(b"a", nines, b"old")) == ["fenced"]
    # They differ in the last of 22 digits, so as doubles they are equal.
    assert await write(entry(b"a", ten - 1, b"old")) == ["fenced"]
    assert await write(entry(b"a", ten + 1, b"newer")) == ["applied"]
    assert any_client.get("a") == b"newer"


async def test_a_removal_leaves_its_fence_as_a_tombstone(
    writer: Callable[..., Writer], any_client: redis.Redis
) -> None:
    write = writer()
    await write(entry(b"a", 5))

    assert await write(entry(b"a", 7, None)) == ["applied"]
    assert await write(entry(b"a", 6, b"ghost")) == ["fenced"]

    assert any_client.get("a") is None
    assert any_client.exists("{a}!f")


async def test_rank_decides_between_writers_of_one_version(
    writer: Callable[..., Writer], any_client: redis.Redis
) -> None:
    write = writer()

    assert await write(entry(b"a", 5, None, rank=b"0")) == ["applied"]
    assert await write(entry(b"a", 5, b"well")) == ["applied"]
    assert await write(entry(b"a", 5, None, rank=b"0")) == ["fenced"]  # a bad deployment
    assert await write(entry(b"a", 5, b"mended", rank=b"2778")) == ["applied"]
    assert await write(entry(b"a", 5, b"again")) == ["fenced"]  # delivered again
    assert await write(entry(b"a", 6, b"next")) == ["applied"]
    assert any_client.get("a") == b"next"


async def test_refresh_writes_only_over_a_value_and_moves_the_fence_all_the_same(
    writer: Callable[..., Writer], any_client: redis.Redis
) -> None:
    write = writer(mode="refresh")

    assert await write(entry(b"a", 5, b"absent")) == ["applied"]
    assert any_client.get("a") is None
    any_client.set("a", b"somebody's")
    assert await write(entry(b"a", 4, b"old")) == ["fenced"]
    assert await write(entry(b"a", 6, b"new", expires_at_ms=4_000_000_000_000)) == ["applied"]
    assert any_client.get("a") == b"new"
    assert any_client.pttl("a") > 0


async def test_expiry_is_the_entrys_own_and_ends_with_it(
    writer: Callable[..., Writer], any_client: redis.Redis
) -> None:
    write = writer()
    in_an_hour_ms = int(time.time() * 1_000) + 3_600_000

    await write(entry(b"a", 1, b"x", expires_at_ms=in_an_hour_ms))
    assert 3_590_000 < any_client.pttl("a") <= 3_600_000
    await write(entry(b"a", 2, b"y"))
    assert any_client.pttl("a") == -1


async def test_a_name_with_a_hash_tag_keeps_its_fence_in_its_slot(
    writer: Callable[..., Writer], any_client: redis.Redis
) -> None:
    await writer()(entry(b"{user:1}:order:9", 1))

    assert any_client.exists("{user:1}:order:9!f")


async def test_outcomes_come_in_the_order_of_the_entries(
    writer: Callable[..., Writer], any_client: redis.Redis
) -> None:
    write = writer()
    await write(*(entry(b"k%d" % at, 50) for at in range(0, 1_000, 3)))

    kinds = await write(*(entry(b"k%d" % at, 40, b"%d" % at) for at in range(1_000)))

    assert kinds == ["applied" if at % 3 else "fenced" for at in range(1_000)]
    assert any_client.get("k998") == b"998"
    assert any_client.get("k999") == b"v"


async def test_a_refusal_fails_its_key_alone_and_leaves_its_fence(
    writer: Callable[..., Writer], any_client: redis.Redis
) -> None:
    write = writer()
    await write(entry(b"b", 1, b"before"))

    outcomes = await write.outcomes(
        entry(b"a", 2), entry(b"b", 2, b"bad", expires_at_ms=-5), entry(b"c", 2)
    )

    assert [outcome.kind for outcome in outcomes] == ["applied", "failed", "applied"]
    assert outcomes[1].error == "ERR"
    assert any_client.get("b") == b"before"
    assert any_client.get("{b}!f") == version(LABEL_MS, SequenceNumber(1)) + b"1"
    assert await write(entry(b"b", 2, b"mended")) == ["applied"]


async def test_a_server_without_the_script_gets_it_and_nothing_is_lost(
    writer: Callable[..., Writer], any_client: redis.Redis
) -> None:
    write = writer()
    await write(entry(b"a", 1))
    any_client.script_flush()

    assert await write(*(entry(b"k%d" % at, 2) for at in range(400))) == ["applied"] * 400
    assert any_client.get("k399") == b"v"


async def test_without_the_fence_plain_commands_are_sent(
    writer: Callable[..., Writer], any_client: redis.Redis
) -> None:
    write = writer(fence="off")

    assert await write(entry(b"a", 5, b"5"), entry(b"b", 5, None)) == ["applied", "applied"]
    assert await write(entry(b"a", 4, b"4")) == ["applied"]
    assert any_client.get("a") == b"4"
    assert any_client.keys() == [b"a"]


async def test_without_the_fence_refresh_and_expiry_still_hold(
    writer: Callable[..., Writer], any_client: redis.Redis
) -> None:
    write = writer(fence="off", mode="refresh")
    any_client.set("b", "somebody's")

    soon_ms = int(time.time() * 1_000) + 3_600_000
    await write(entry(b"a", 1, b"a"), entry(b"b", 1, b"b", expires_at_ms=soon_ms))

    assert any_client.get("a") is None
    assert any_client.get("b") == b"b"
    assert any_client.pttl("b") > 0


async def test_a_plain_read_hands_back_what_was_read(
    writer: Callable[..., Writer], any_client: redis.Redis
) -> None:
    """The value OK is a value, and so is one that looks like an error or a number."""
    write = writer()
    values: list[bytes | None] = [b"OK", b"", b"-ERR no", b"1", None]
    any_client.mset({b"k%d" % at: value for at, value in enumerate(values) if value is not None})
    calls = [Call((b"GET", b"k%d" % at), (at,), fenced=False) for at in range(len(values))]
    calls.append(Call((b"MGET", b"k0", b"k4"), (5,), fenced=False))
    calls.append(Call((b"SET", b"new", b"OK"), (6,), fenced=False))
    calls.append(Call((b"NOSUCH", b"k0"), (7,), fenced=False))

    *outcomes, refused = await write.applied(calls)

    assert [outcome.kind for outcome in outcomes] == ["applied"] * 7
    assert [outcome.reply for outcome in outcomes] == [*values, [b"OK", None], b"OK"]
    assert (refused.kind, refused.error, refused.reply) == ("failed", "ERR", None)


async def test_a_batch_is_one_round_trip_counted_at_the_socket(real_server: ServerProcess) -> None:
    """1,000 keys of 1 KB are six script calls: six writes without a wait between them."""
    meter = Meter()
    write = Writer(real_server.url, connect=metered(connect, meter))
    await write(entry(b"first", 1))  # connects and loads the script
    meter.turns = meter.commands = 0

    await write(*(entry(b"k%d" % at, 2, b"x" * 1_000) for at in range(1_000)))

    assert (meter.turns, meter.commands) == (1, 6)
    write.store.close()


async def test_a_call_is_on_its_way_before_the_next_is_made(real_server: ServerProcess) -> None:
    """The server writes the first ones while later values are still being encoded."""
    meter = Meter()
    write = Writer(real_server.url, connect=metered(connect, meter))
    await write(entry(b"first", 1))
    meter.commands = 0
    seen = []

    def slowly() -> Iterator[Call]:
        made = [entry(b"k%d" % at, 2, b"x" * 1_000) for at in range(500)]
        for call in plan(made, write.config):
            seen.append(meter.commands)
            yield call

    written = await write.store.apply(slowly(), 500, NEVER)

    assert seen == [0, 1, 2]
    assert {outcome.kind for outcome in written.outcomes} == {"applied"}
    write.store.close()


async def test_calls_that_are_made_too_late_are_not_sent_and_the_connection_lives_on(
    real_server: ServerProcess, real_client: redis.Redis
) -> None:
    """Encoding took so long that less than 500 ms are left after the first call."""
    now_s = 0.0
    write = Writer(real_server.url, clock=lambda: now_s)

    def slowly() -> Iterator[Call]:
        nonlocal now_s
        for call in plan([entry(b"k%d" % at, 2) for at in range(361)], write.config):
            yield call
            now_s = 9.501

    written = await write.store.apply(slowly(), 361, 10.0)

    kinds = [(outcome.kind, outcome.error) for outcome in written.outcomes]
    assert kinds == [("applied", "")] * 180 + [("failed", "Deadline")] * 181
    assert written.out_of_time
    assert real_client.dbsize() == 360  # the values and fences that were sent
    now_s = 0.0
    assert await write(entry(b"k0", 3)) == ["applied"]
    write.store.close()


async def test_calls_that_are_made_in_time_to_the_last_are_not_late(
    real_server: ServerProcess,
) -> None:
    now_s = 0.0
    write = Writer(real_server.url, clock=lambda: now_s)

    def slowly() -> Iterator[Call]:
        nonlocal now_s
        yield from plan([entry(b"a", 2)], write.config)
        now_s = 9.501

    written = await write.store.apply(slowly(), 1, 10.0)

    assert [outcome.kind for outcome in written.outcomes] == ["applied"]
    assert not written.out_of_time
    write.store.close()


async def test_connecting_without_password_or_database_is_no_round_trip(
    real_server: ServerProcess, real_client: redis.Redis
) -> None:
    async with proxy_to(real_server.host, real_server.port) as proxy:
        warm = Writer(real_server.url)
        await warm(entry(b"first", 1))
        write = Writer(f"redis://127.0.0.1:{proxy.port}")

        await write(entry(b"a", 1))

        assert proxy.turns == 1
        write.store.close()
        warm.store.close()


async def test_a_full_server_fails_what_it_refuses_and_writes_the_rest_later(
    real_server: ServerProcess, real_client: redis.Redis
) -> None:
    """At maxmemory a SET fails with OOM; with room again the same entries are written."""
    write = Writer(real_server.url)
    await write(entry(b"a", 1, b"before"))
    real_client.config_set("maxmemory", 1)
    try:
        outcomes = await write.outcomes(entry(b"a", 2, b"x" * 1_000), entry(b"b", 2))
    finally:
        real_client.config_set("maxmemory", "0")

    assert [(each.kind, each.error) for each in outcomes] == [("failed", "OOM")] * 2
    assert real_client.get("a") == b"before"
    assert real_client.get("{a}!f") == version(LABEL_MS, SequenceNumber(1)) + b"1"
    assert await write(entry(b"a", 2), entry(b"b", 2)) == ["applied"] * 2
    write.store.close()


IN_SCRIPT = "(The user executing the script can't|ACL failure in script)"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("OOM command not allowed when used memory > 'maxmemory'.", "OOM"),
        ("LOADING", "LOADING"),
        # A script's on Redis 6.2
        ("@user_script: 1: -OOM command not allowed when used memory > 'maxmemory'.", "OOM"),
        ("@user_script: 29: -READONLY You can't write against a read only replica.", "READONLY"),
        ("@user_script: 29: The user executing the script can't run this command", "ERR"),
        # A key may be called so.
        ("WRONGTYPE @user_script: 1: -OOM", "WRONGTYPE"),
    ],
)
def test_the_code_of_an_error_is_its_first_word_past_the_place_in_a_script(
    text: str, word: str
) -> None:
    assert ReplyError(text).word == word


@pytest.mark.parametrize(
    ("rules", "word"),
    [
        ({"keys": ["*"], "categories": ["+@all"], "commands": ["-set"]}, IN_SCRIPT),
        ({"keys": ["*"], "categories": ["+@all"], "commands": ["-mget"]}, IN_SCRIPT),
        ({"keys": ["Other:*"], "categories": ["+@all"]}, "NOPERM"),
        ({"keys": ["*"], "categories": ["+@all"], "commands": ["-evalsha"]}, "NOPERM"),
    ],
)
async def test_a_user_without_permission_is_named_and_its_password_is_not(
    real_server: ServerProcess, real_client: redis.Redis, rules: dict[str, Any], word: str
) -> None:
    real_client.acl_setuser("mirror", enabled=True, passwords=["+hush-hush"], **rules)
    url = f"redis://mirror:hush-hush@{real_server.host}:{real_server.port}"
    write = Writer(url)

    with pytest.raises(StoreRefused, match=rf"'mirror' the command EVALSHA .*: {word}") as caught:
        await write(entry(b"a", 1))

    assert "hush" not in str(caught.value)
    real_client.acl_deluser("mirror")


def test_the_scripts_digest_is_the_one_that_is_written_down() -> None:
    assert digest_of(SCRIPT) == sha1(SCRIPT).hexdigest().encode()
    assert digest_of(SCRIPT + b"\n") == sha1(SCRIPT + b"\n").hexdigest().encode()


# Bytes of used_memory that a fence takes at most, by engine and major version: a few more than
# were measured (docs/support.md).
FENCE_BYTES_MAX = {"redis": {6: 190, 7: 190, 8: 202}, "valkey": {8: 190, 9: 131}}


async def test_a_fence_takes_at_most_what_its_engine_is_known_to_take(
    real_server: ServerProcess, record_property: Callable[[str, object], None]
) -> None:
    """Measures used_memory over 20,000 fences: 20-byte names, 25-digit sequence numbers."""
    engine = real_server.name.removesuffix("-server")
    at_most = FENCE_BYTES_MAX[engine][major_version(real_server.name)]
    with redis_process(real_server.name) as server, redis.Redis(port=server.port) as client:
        write = Writer(server.url)
        await write(entry(b"first", 1, None))
        before = _used_memory(client)

        for first in range(0, 20_000, 1_000):
            await write(*(entry(b"%020d" % (first + at), 10**24, None) for at in range(1_000)))

        assert client.dbsize() == 20_001
        client.client_kill_filter(_type="normal", skipme=True)  # its buffers are no fences
        fence_bytes = (_used_memory(client) - before) / 20_000
        record_property("fence_bytes", round(fence_bytes, 1))
        # Close it first: what a failed test leaves open fails the tests that follow.
        write.store.close()
        assert fence_bytes <= at_most


def _used_memory(client: redis.Redis) -> int:
    return int(client.info("memory")["used_memory"])


@contextlib.contextmanager
def _locale(folder: Path) -> Iterator[dict[str, str]]:
    """Build the locale en_US.UTF-8, whose order of punctuation and case is not byte order."""
    skip_without("localedef")
    made = subprocess.run(
        ["localedef", "-i", "en_US", "-f", "UTF-8", str(folder / "en_US.UTF-8")],
        capture_output=True,
        check=False,
    )
    if made.returncode:
        skip(f"{LACKING}sources of locales ({PACKAGES['localedef']}): {made.stderr.decode()}")
    yield {**os.environ, "LOCPATH": str(folder), "LC_ALL": "en_US.UTF-8"}


async def test_versions_sort_alike_in_a_server_of_another_locale(tmp_path: Path) -> None:
    skip_without("redis-server")
    with _locale(tmp_path) as env, redis_process("redis-server", env=env) as server:
        with redis.Redis(port=server.port) as client:
            # The locale is in force: in the C locale "B" < "a".
            assert client.eval("return {tostring('B' < 'a')}", 0) == [b"false"]
        write = Writer(server.url)
        numbers = [1, 9, 10, 99, 10**20, 10**21 - 1, 10**21, 10**21 + 1, 10**39, 10**40 - 1]
        for low, high in pairwise(numbers):
            name = b"k%d" % low
            assert await write(entry(name, high)) == ["applied"]
            assert await write(entry(name, low)) == ["fenced"]
            assert await write(entry(name, high, rank=b"2123")) == ["applied"]
            assert await write(entry(name, high)) == ["fenced"]
        write.store.close()


# --- the fake, the real and a dict agree ------------------------------------------------------


class Agreement(RuleBasedStateMachine):
    """Send the same entries to a real server, the fake one and a small model."""

    urls: tuple[str, str]
    clients: tuple[redis.Redis, redis.Redis]

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.values: dict[bytes, Value] = {}
        self.fences: dict[bytes, bytes] = {}
        for client in self.clients:
            client.flushall()
        self.writers = {
            mode: [Writer(url, mode=mode) for url in self.urls] for mode in ("mirror", "refresh")
        }

    entries = st.dictionaries(
        st.sampled_from([b"a", b"b", b"{t}c"]),
        st.tuples(
            st.sampled_from([1, 2, 9, 10, 10**21 - 1, 10**21]),
            st.sampled_from([b"0", b"1", b"25"]),
            st.sampled_from([None, b"x", b"yy"]),
        ),
        min_size=1,
    )

    @rule(mode=st.sampled_from(["mirror", "refresh"]), chosen=entries)
    def write(self, mode: str, chosen: dict[bytes, tuple[int, bytes, bytes | None]]) -> None:
        batch = [entry(k, number, value, rank=rank) for k, (number, rank, value) in chosen.items()]

        kinds = [self.loop.run_until_complete(writer(*batch)) for writer in self.writers[mode]]

        assert kinds[0] == kinds[1] == [self._modelled(each, mode) for each in batch]
        for client in self.clients:
            for each in batch:
                assert client.get(each.name) == self.values.get(each.name)
                assert client.get(each.fence) == self.fences.get(each.name)

    @rule()
    def forget_the_script(self) -> None:
        for client in self.clients:
            client.script_flush()

    def _modelled(self, each: Entry, mode: str) -> str:
        if each.version < self.fences.get(each.name, b""):
            return "fenced"
        self.fences[each.name] = each.version
        if each.value is None:
            self.values.pop(each.name, None)
        elif mode == "mirror" or each.name in self.values:
            self.values[each.name] = each.value
        return "applied"

    def teardown(self) -> None:
        for writers in self.writers.values():
            for writer in writers:
                writer.store.close()
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()


def test_the_fake_and_the_real_server_agree(
    real_server: ServerProcess, real_client: redis.Redis, fake_server: ServerProcess
) -> None:
    with redis.Redis(port=fake_server.port) as fake_client:

        class Machine(Agreement):
            urls = (real_server.url, fake_server.url)
            clients = (real_client, fake_client)

        run_state_machine_as_test(
            Machine, settings=settings(max_examples=40, stateful_step_count=20, deadline=None)
        )
