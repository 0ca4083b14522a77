"""Compares the simulator's model server with Redis and Valkey, reply by reply.

Both get the same bytes, and one parser reads the replies. Of an error only the first word
counts, because asyncsync reads no more. After each command every key is compared.
"""

from __future__ import annotations

import socket
import time
from typing import Any

import hiredis
import pytest
import redis
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from asyncsync.connection import ReplyError
from asyncsync.lab.servers import ServerProcess
from asyncsync.lab.simulation.model_server import ModelServer
from asyncsync.lab.simulation.model_values import KINDS, SHIPPED, STRING, one_string
from asyncsync.store import digest_of
from tests.support.formats import FormatServer

NAMES = (b"a", b"b", b"{t}c")
FENCES = (b"{a}!f", b"{b}!f", b"{t}c!f")
LATER_MS = b"%d" % ((int(time.time()) + 100_000) * 1_000)


def read(data: bytes) -> object:
    """Return the first reply in some bytes; an error is reduced to its first word."""
    reader = hiredis.Reader(replyError=ReplyError)
    reader.feed(data)
    reply = reader.gets()
    assert reply is not False, data
    return plain(reply)


def plain(reply: object) -> object:
    if isinstance(reply, ReplyError):
        return ("error", reply.word)
    if isinstance(reply, list) and len(reply) > 1 and isinstance(reply[1], list):
        first, parts, *rest = reply  # names and a hash's fields come in any order
        return [first, sorted(parts), *rest]
    if isinstance(reply, list):
        # An error of one key is a string in the list.
        return [
            ReplyError(part.decode()).word.encode() if isinstance(part, bytes) else part
            for part in reply
        ]
    return reply


class Both:
    """Sends the same commands to the real server and to the model."""

    def __init__(self, port: int, value_format: str) -> None:
        self.kind = KINDS.get(value_format, STRING)
        self.model = ModelServer()
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._reader = hiredis.Reader(replyError=ReplyError)

    def real(self, *command: bytes) -> object:
        """Return the reply of the real server."""
        packed = hiredis.pack_command(command)  # type: ignore[arg-type] # its stub only knows one word
        self._socket.sendall(packed)
        while (reply := self._reader.gets()) is False:
            self._reader.feed(self._socket.recv(65_536))
        return plain(reply)

    def equal(self, *command: bytes) -> object:
        """Run a command on both, compare replies and keys, and return the reply."""
        now_ms = int(time.time() * 1_000)
        modelled = read(self.model.execute(command, now_ms))
        assert self.real(*command) == modelled, command
        for name in (*NAMES, *FENCES):
            assert self._held(name) == self.model.get(name, now_ms), (command, name)
            stored = self.model.keys.get(name)
            if stored is not None and stored.expires_at_ms > now_ms:
                left_ms: Any = self.real(b"PTTL", name)
                assert abs(left_ms - (stored.expires_at_ms - now_ms)) < 10_000
        return modelled

    def witness(self, at: int, now_ms: int) -> tuple[bytes, tuple[bytes, bytes]]:
        """Return what a repair must have seen: the fence; whether there was a value, the value."""
        fence = self.model.get(FENCES[at], now_ms) or b""
        stored = self.model.stored(NAMES[at], now_ms)
        assert isinstance(fence, bytes), "a fence is a string"
        if stored is None or stored.kind != self.kind == STRING:
            return fence, (b"", b"")
        if stored.kind != self.kind:
            return fence, (stored.kind, b"")
        return fence, (b"1", one_string(stored.value))

    def _held(self, name: bytes) -> object:
        """Return what the real server holds, as the model stores it."""
        kind = self.real(b"TYPE", name)
        if kind == b"hash":
            fields: Any = self.real(b"HGETALL", name)
            pairs = sorted(zip(fields[::2], fields[1::2], strict=True))
            return tuple(part for pair in pairs for part in pair)
        return self.real(*((b"JSON.GET", name, b".") if kind == b"ReJSON-RL" else (b"GET", name)))

    def close(self) -> None:
        self._socket.close()


class Equal(RuleBasedStateMachine):
    """Runs commands and changes states in any order."""

    port: int
    value_format = "json"

    def __init__(self) -> None:
        super().__init__()
        self.both = Both(self.port, self.value_format)
        self.scripts = {
            work: text for work, name, text in SHIPPED.values() if name == self.value_format
        }
        self.both.real(b"FLUSHALL")
        self.both.real(b"SCRIPT", b"FLUSH")

    entries = st.lists(
        st.tuples(
            st.integers(0, 2),
            st.sampled_from([b"10", b"11", b"12", b"2"]),
            st.sampled_from([b"-", b"", b"", LATER_MS, b"1", b"0", b"-5"]),
            st.sampled_from([b"x", b"yy", b""]),
        ),
        min_size=1,
        max_size=4,
    )

    @rule(
        chosen=entries,
        word=st.sampled_from([b"EVALSHA", b"EVALSHA", b"EVALSHA", b"EVAL"]),
        only=st.sampled_from([b"", b"", b"XX"]),
        life_s=st.sampled_from([b"60", b"90000"]),
    )
    def run_the_script(
        self,
        chosen: list[tuple[int, bytes, bytes, bytes]],
        word: bytes,
        only: bytes,
        life_s: bytes,
    ) -> None:
        names = [part for at, *_ in chosen for part in (NAMES[at], FENCES[at])]
        parts = [(version, expiry, value) for _, version, expiry, value in chosen]
        rest = self.arguments(parts, 2)
        self.both.equal(*self.call(word, "fence"), b"%d" % len(names), *names, life_s, only, *rest)

    @rule(
        chosen=st.lists(
            st.tuples(
                st.integers(0, 2),
                st.sampled_from([b"", b"", LATER_MS, b"1", b"0", b"-5"]),
                st.sampled_from([b"filled", b""]),
            ),
            min_size=1,
            max_size=4,
        ),
        word=st.sampled_from([b"EVALSHA", b"EVAL", b"EVAL"]),
    )
    def fill(self, chosen: list[tuple[int, bytes, bytes]], word: bytes) -> None:
        names = [part for at, *_ in chosen for part in (NAMES[at], FENCES[at])]
        rest = self.arguments([(b"no version", expiry, value) for _, expiry, value in chosen], 2)
        self.both.equal(*self.call(word, "fill"), b"%d" % len(names), *names, b"60", b"", *rest)

    @rule(
        at=st.integers(0, 2),
        is_witness=st.booleans(),
        was=st.sampled_from([b"", b"10", b"12"]),
        before=st.sampled_from([(b"", b""), (b"1", b""), (b"1", b"x")]),
        expiry=st.sampled_from([b"-", b"", b"", LATER_MS, b"1", b"0", b"-5"]),
        only=st.sampled_from([b"", b"", b"XX"]),
        word=st.sampled_from([b"EVALSHA", b"EVAL", b"EVAL"]),
    )
    def repair(
        self,
        at: int,
        is_witness: bool,
        was: bytes,
        before: tuple[bytes, bytes],
        expiry: bytes,
        only: bytes,
        word: bytes,
    ) -> None:
        """Repair with what both servers have as its witness, or with another one."""
        if is_witness:
            now_ms = int(time.time() * 1_000)
            was, before = self.both.witness(at, now_ms)
        elif self.value_format == "hash" and before[0]:
            before = (before[0], one_string((b"f", before[1])))
        rest = self.arguments([(b"13", expiry, b"repaired")], 5)
        call = self.call(word, "repair")
        self.both.equal(*call, b"2", NAMES[at], FENCES[at], b"90000", only, was, *before, *rest)

    def call(self, word: bytes, work: str) -> tuple[bytes, bytes]:
        """Return a script's command and its digest or text."""
        text = self.scripts[work]
        return word, digest_of(text) if word == b"EVALSHA" else text

    def arguments(self, parts: list[tuple[bytes, bytes, bytes]], before: int) -> list[bytes]:
        """Return three arguments for each key, and the values' fields where those are hashes."""
        arguments: list[bytes] = []
        fields: list[bytes] = []
        for version, expiry, value in parts:
            if expiry == b"-" and self.value_format != "json":
                value = b""
            elif self.value_format == "hash":
                place = before + 3 * len(parts) + len(fields) + 1
                pairs = (b"name", value, value, b"other")
                fields += (b"%d" % len(pairs), *pairs)
                value = b"%d" % place
            elif self.value_format == "redis-json":
                value = b'{"v":"%b"}' % value
            arguments += (version, expiry, value)
        return arguments + fields

    @rule(at=st.integers(0, 2), is_fence_read=st.booleans())
    def read_by_script(self, at: int, is_fence_read: bool) -> None:
        if "read" in self.scripts:
            names = (NAMES[at], FENCES[at]) if is_fence_read else (NAMES[at],)
            self.both.equal(b"EVAL", self.scripts["read"], b"%d" % len(names), *names)

    @rule(at=st.integers(0, 2), fence=st.sampled_from([b"0123", b"10"]))
    def write_a_lease(self, at: int, fence: bytes) -> None:
        """Write a fence without a value: a reader's lease, or one with a version."""
        self.both.equal(b"SET", FENCES[at], fence, b"EX", b"60")

    @rule(at=st.integers(0, 2))
    def read(self, at: int) -> None:
        for word in (b"EXISTS", b"TYPE", *([b"GET"] if self.value_format == "json" else [])):
            self.both.equal(word, NAMES[at])
        self.both.equal(b"MGET", *NAMES, *FENCES)

    @rule(pattern=st.sampled_from([b"*", b"a*", b"\\{*", b"{t}*", b"nothing*"]))
    def name_the_keys(self, pattern: bytes) -> None:
        scan = (b"SCAN", b"0", b"MATCH", pattern, b"COUNT", b"1000")
        modelled: Any = read(self.both.model.execute(scan, int(time.time() * 1_000)))
        real: Any = self.both.real(*scan)

        assert real[0] == modelled[0] == b"0"
        assert sorted(real[1]) == sorted(modelled[1])

    @rule(
        at=st.integers(0, 2),
        expiry=st.sampled_from([(), (b"PXAT", LATER_MS), (b"PXAT", b"1"), (b"PXAT", b"-5")]),
        only=st.sampled_from([(), (b"XX",), (b"NX",)]),
    )
    def set_plainly(self, at: int, expiry: tuple[bytes, ...], only: tuple[bytes, ...]) -> None:
        self.both.equal(b"SET", NAMES[at], b"plain", *expiry, *only)

    @rule(at=st.integers(0, 2))
    def delete(self, at: int) -> None:
        self.both.equal(b"DEL", NAMES[at])

    @rule(at=st.integers(0, 2))
    def evict_a_fence(self, at: int) -> None:
        if self.both.model.read_only:
            return  # a replica refuses the DEL that plays the eviction
        self.both.real(b"DEL", FENCES[at])
        self.both.model.evict(FENCES[at])

    @rule()
    def forget_scripts(self) -> None:
        self.both.real(b"SCRIPT", b"FLUSH")
        self.both.model.scripts.clear()

    @rule(full=st.booleans())
    def fill_or_empty(self, full: bool) -> None:
        self.both.real(b"CONFIG", b"SET", b"maxmemory", b"1" if full else b"0")
        self.both.model.is_full = lambda: full

    @rule(read_only=st.booleans())
    def become_a_replica_or_not(self, read_only: bool) -> None:
        master = (b"127.0.0.1", b"1") if read_only else (b"NO", b"ONE")
        self.both.real(b"REPLICAOF", *master)
        self.both.model.read_only = read_only

    @rule()
    def an_unknown_word_is_an_error(self) -> None:
        assert self.both.equal(b"NONSENSE") == ("error", "ERR")

    def teardown(self) -> None:
        self.both.real(b"REPLICAOF", b"NO", b"ONE")
        self.both.real(b"CONFIG", b"SET", b"maxmemory", b"0")
        self.both.close()


def test_the_model_and_the_real_server_reply_alike(
    real_server: ServerProcess, real_client: redis.Redis
) -> None:
    class Machine(Equal):
        port = real_server.port

    run_state_machine_as_test(
        Machine, settings=settings(max_examples=80, stateful_step_count=25, deadline=None)
    )


def test_the_model_and_the_real_server_reply_alike_of_hashes_and_documents(
    real_format: FormatServer,
) -> None:
    class Machine(Equal):
        port = real_format.server.port
        value_format = real_format.value

    run_state_machine_as_test(
        Machine, settings=settings(max_examples=60, stateful_step_count=25, deadline=None)
    )


def test_loading_refuses_every_command() -> None:
    model = ModelServer()
    model.loading = True

    assert read(model.execute((b"DEL", b"a"), 0)) == ("error", "LOADING")


def test_a_failover_takes_back_the_last_writes_in_order() -> None:
    model = ModelServer()
    for value in (b"1", b"2", b"3"):
        model.execute((b"SET", b"a", value), 0)
    model.execute((b"SET", b"b", b"1"), 0)

    assert sorted(model.lose_last(3)) == [b"a", b"b"]
    assert model.get(b"a", 0) == b"1"
    assert model.get(b"b", 0) is None
    assert model.lose_last(9) == [b"a"]
    assert model.keys == {}


def test_a_server_that_lost_all_has_nothing_left_to_take_back() -> None:
    model = ModelServer()
    model.execute((b"SET", b"a", b"1"), 0)

    assert model.lose_all() == [b"a"]
    assert model.lose_last(5) == []


@pytest.mark.parametrize(("now_ms", "value"), [(4_999, b"x"), (5_000, None)])
def test_a_value_is_there_until_its_expiry(now_ms: int, value: bytes | None) -> None:
    model = ModelServer()
    model.execute((b"SET", b"a", b"x", b"PXAT", b"5000"), 0)

    assert model.get(b"a", now_ms) == value
