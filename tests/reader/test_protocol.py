"""The reader's scripts and pure functions: vectors, and each race with the stream."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest
import redis

from asyncsync.copy import fill
from asyncsync.fence import CLAIM_FORMAT, RANK_RECORD, RANK_REJECT, read_fence
from asyncsync.reader.limits import CLAIM_MS
from asyncsync.reader.protocol import (
    LEASE_SCRIPT,
    LOAD_SCRIPT,
    Absent,
    Busy,
    Foreign,
    Hit,
    Lease,
    LeaseReply,
    fence_after_load,
    fence_after_release,
    fence_of_absent,
    lease_arguments,
    load_arguments,
    nonce_of,
    read_lease,
    read_load,
)
from asyncsync.store import SCRIPT as FENCE_SCRIPT
from tests.support.project.package import ROOT

VECTORS: list[dict[str, Any]] = json.loads(
    (ROOT / "docs" / "read-through-vectors.json").read_text()
)["vectors"]
SCRIPTS = {"lease.lua": LEASE_SCRIPT, "load.lua": LOAD_SCRIPT}
TOLERANCE_MS = 2_000  # a server may be as slow as that

NAME, FENCE = b"Players:7", b"{Players:7}!f"
VERSION = b"1176722560000003123"  # a sequence number of 123
NEXT = b"1176722560000003124"
LEASE_MS, ABSENT_MS = 3_000, 5_000
LIFE_S = 90_000
LIVED_S = 40_000  # what is left of an older fence's life


# --- vectors ----------------------------------------------------------------------------------


def at(text: str, now_ms: int) -> str:
    """Put the server's time into a vector's string."""
    return re.sub(r"<now([+-]\d+)>", lambda found: f"{now_ms + int(found[1]):013}", text)


def alike(text: str | None, expected: str | None, now_ms: int) -> bool:
    """Compare a fence with a vector's: what it says of time may be late by the tolerance."""
    if text is None or expected is None:
        return text == expected
    pattern = re.sub(
        r"<now[+-]\d+>", r"(\\d{13})", re.escape(expected).replace(r"\+", "+").replace(r"\-", "-")
    )
    match = re.fullmatch(pattern, text)
    times = [now_ms + int(shift) for shift in re.findall(r"<now([+-]\d+)>", expected)]
    return match is not None and all(
        0 <= int(found) - time_ms <= TOLERANCE_MS
        for found, time_ms in zip(match.groups(), times, strict=True)
    )


def text(value: object) -> str | None:
    return value.decode() if isinstance(value, bytes) else None


@pytest.mark.parametrize("vector", VECTORS, ids=lambda each: f"{each['script']}: {each['name']}")
def test_a_vector_holds(any_client: redis.Redis, vector: dict[str, Any]) -> None:
    seconds, micros = any_client.time()
    now_ms = seconds * 1_000 + micros // 1_000
    before, after = vector["before"], vector["after"]
    if before["value"] is not None:
        any_client.set(NAME, before["value"])
    if before["fence"] is not None:
        life_ms = before["fence_life_ms"]
        any_client.set(FENCE, at(before["fence"], now_ms), px=None if life_ms < 0 else life_ms)

    arguments = [at(each, now_ms) for each in vector["arguments"]]
    reply: Any = any_client.eval(
        SCRIPTS[vector["script"]].decode(),
        2,
        NAME,
        FENCE,
        *arguments,
    )

    if isinstance(vector["reply"], list):
        kind, detail = vector["reply"]
        assert reply[0] == kind
        if isinstance(reply[1], bytes):
            assert alike(text(reply[1]), detail, now_ms)
        elif isinstance(detail, str):
            assert 0 <= int(detail.strip("<>")) - reply[1] <= TOLERANCE_MS
        else:
            assert reply[1] == detail
    else:
        assert reply == vector["reply"]
    assert text(any_client.get(NAME)) == after["value"]
    assert alike(text(any_client.get(FENCE)), after["fence"], now_ms)
    life_ms = after["fence_life_ms"]
    left_ms: Any = any_client.pttl(FENCE)
    if life_ms is None or life_ms < 0:
        assert left_ms == (-2 if life_ms is None else -1)
    else:
        assert 0 <= life_ms - left_ms <= TOLERANCE_MS
    if "<now+3600000>" in vector["arguments"]:
        assert 0 < any_client.pttl(NAME) <= 3_600_000


def test_the_functions_make_the_vectors_fences() -> None:
    lease = Lease(VERSION + RANK_RECORD + b"1" + b"1767225603000" + b"123456789012")
    claim = Lease(CLAIM_FORMAT + b"1" + b"1767225603000" + b"123456789012")

    assert (lease.head, lease.ends_ms, lease.nonce) == (
        VERSION + b"1",
        1_767_225_603_000,
        b"123456789012",
    )
    assert fence_after_load(lease) == VERSION + b"2" + b"123456789012"
    assert fence_after_load(claim) == b"0" + b"123456789012"
    assert fence_after_release(lease) == VERSION + b"1" + b"123456789012"
    assert fence_of_absent(lease, 3_000, 5_000) == (
        VERSION + b"1" + b"2" + b"1767225605000" + b"123456789012"
    )
    assert fence_of_absent(claim, 3_000, 5_000) == b"02" + b"1767225605000" + b"123456789012"
    assert nonce_of(7) == b"000000000007"


@pytest.mark.parametrize(
    ("reply", "meaning"),
    [
        ([0, b"{}"], Hit(b"{}")),
        ([1, b"01"], Lease(b"01")),
        ([2, 17], Absent(17)),
        ([3, 17], Busy(17)),
        ([4, 0], Foreign()),
    ],
)
def test_a_reply_is_read(reply: list[object], meaning: LeaseReply) -> None:
    assert read_lease(reply) == meaning


# --- the protocol beside the stream -----------------------------------------------------------


class Stage:
    """One item's value and fence, its stream and its readers."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self._nonces = 0

    def _eval(self, script: bytes, arguments: tuple[bytes, ...]) -> Any:
        return self.client.eval(script.decode(), int(arguments[0]), *arguments[1:])

    def record(self, version: bytes, value: bytes | None, rank: bytes = RANK_RECORD) -> int:
        """Deliver a record, in mirror mode; return 1 if it was applied."""
        expiry = b"-" if value is None else b""
        life = b"%d" % LIFE_S
        arguments = (b"2", NAME, FENCE, life, b"", version + rank, expiry, value or b"")
        (reply,) = self._eval(FENCE_SCRIPT, arguments)
        assert isinstance(reply, int)
        return reply

    def fill(self, value: bytes) -> int:
        """Fill the key, as a backfill does."""
        arguments = (b"2", NAME, FENCE, b"90000", b"", b"", b"", value)
        (reply,) = self._eval(fill.SCRIPT, arguments)
        assert isinstance(reply, int)
        return reply

    def ask(self) -> LeaseReply:
        self._nonces += 1
        nonce = nonce_of(self._nonces)
        return read_lease(self._eval(LEASE_SCRIPT, lease_arguments(NAME, FENCE, nonce, LEASE_MS)))

    def lease(self) -> Lease:
        reply = self.ask()
        assert isinstance(reply, Lease)
        return reply

    def load(self, lease: Lease, value: bytes) -> bool:
        arguments = load_arguments(NAME, FENCE, lease, fence_after_load(lease), value)
        return read_load(self._eval(LOAD_SCRIPT, arguments))

    def mark(self, lease: Lease) -> bool:
        fence = fence_of_absent(lease, LEASE_MS, ABSENT_MS)
        return read_load(self._eval(LOAD_SCRIPT, load_arguments(NAME, FENCE, lease, fence)))

    @property
    def value(self) -> bytes | None:
        value = self.client.get(NAME)
        assert value is None or isinstance(value, bytes)
        return value

    @property
    def fence(self) -> bytes | None:
        fence = self.client.get(FENCE)
        assert fence is None or isinstance(fence, bytes)
        return fence

    def miss(self) -> None:
        """Evict the value."""
        self.client.delete(NAME)


@pytest.fixture
def stage(any_client: redis.Redis) -> Stage:
    return Stage(any_client)


@pytest.mark.parametrize("fence", ["none", "record"])
def test_a_record_between_read_and_load_refuses_the_load(stage: Stage, fence: str) -> None:
    if fence == "record":
        stage.record(VERSION, b"1")
        stage.miss()
    lease = stage.lease()

    assert stage.record(NEXT, b"2") == 1
    stage.miss()  # the load finds no value, only the fence

    assert not stage.load(lease, b"1")
    assert (stage.value, stage.fence) == (None, NEXT + RANK_RECORD)


@pytest.mark.parametrize("fence", ["none", "record"])
@pytest.mark.parametrize("end", ["evicted", "expired", "flushed"])
def test_an_absent_fence_refuses_the_load(stage: Stage, fence: str, end: str) -> None:
    if fence == "record":
        stage.record(VERSION, b"1")
        stage.miss()
    lease = stage.lease()

    if end == "flushed":
        stage.client.flushall()
    elif end == "evicted":
        stage.client.delete(FENCE)
    else:
        stage.client.pexpire(FENCE, 1)
        while stage.fence is not None:
            time.sleep(0.001)

    assert not stage.load(lease, b"1")
    assert (stage.value, stage.fence) == (None, None)


def test_of_two_readers_one_loads_and_the_other_waits(stage: Stage) -> None:
    lease = stage.lease()

    assert isinstance(stage.ask(), Busy)
    assert stage.load(lease, b"1")
    assert stage.ask() == Hit(b"1")


def test_a_lease_that_another_took_over_is_refused(stage: Stage) -> None:
    slow = stage.lease()
    head = slow.head + b"1" + b"%013d" % (slow.ends_ms - LEASE_MS - 1) + slow.nonce
    stage.client.set(FENCE, head, keepttl=True)  # its time is over
    quick = stage.lease()

    assert not stage.load(slow, b"1")
    assert stage.load(quick, b"2")
    assert not stage.load(slow, b"1")
    assert stage.value == b"2"


def test_an_insert_ends_known_absent_at_once(stage: Stage) -> None:
    assert stage.mark(stage.lease())
    assert isinstance(stage.ask(), Absent)

    stage.record(VERSION, b"1")

    assert stage.ask() == Hit(b"1")
    stage.miss()  # the mark is gone, not only hidden by a value
    assert isinstance(stage.ask(), Lease)


def test_known_absent_is_in_the_fence_alone(stage: Stage) -> None:
    stage.mark(stage.lease())

    assert stage.value is None
    assert stage.client.exists(NAME) == 0


@pytest.mark.parametrize("step", ["lease", "mark", "load"])
def test_no_step_shortens_a_fences_life(stage: Stage, step: str) -> None:
    stage.record(VERSION, None)
    stage.client.expire(FENCE, LIVED_S)

    lease = stage.lease()
    if step == "mark":
        assert stage.mark(lease)
    elif step == "load":
        assert stage.load(lease, b"1")

    assert LIVED_S - 2 <= stage.client.ttl(FENCE) <= LIVED_S


def test_a_claim_lives_a_minute(stage: Stage) -> None:
    stage.lease()

    assert CLAIM_MS - TOLERANCE_MS <= stage.client.pttl(FENCE) <= CLAIM_MS


def test_a_deletion_refuses_a_slow_load_of_the_older_item(stage: Stage) -> None:
    stage.record(VERSION, b"1")
    stage.miss()
    lease = stage.lease()

    stage.record(NEXT, None)

    assert not stage.load(lease, b"1")
    assert stage.value is None


def test_an_older_record_leaves_a_lease_alone(stage: Stage) -> None:
    stage.record(NEXT, b"2")
    stage.miss()
    lease = stage.lease()

    assert stage.record(VERSION, b"1") == 0
    assert stage.load(lease, b"2")


def test_a_record_delivered_again_leaves_a_loaded_value_alone(stage: Stage) -> None:
    """The table was ahead of the stream when the item was read."""
    stage.record(VERSION, b"1")
    stage.miss()
    stage.load(stage.lease(), b"3")

    assert stage.record(VERSION, b"1") == 0
    assert stage.value == b"3"
    assert stage.record(NEXT, b"2") == 1  # then the changes between pass, in order


def test_a_mark_keeps_the_rank_so_a_record_written_well_is_applied(stage: Stage) -> None:
    stage.record(VERSION, None, RANK_REJECT)
    stage.mark(stage.lease())

    assert stage.record(VERSION, b"1") == 1
    assert stage.value == b"1"


@pytest.mark.parametrize("moment", ["leased", "loaded", "marked"])
def test_a_claim_does_not_stop_a_backfill(stage: Stage, moment: str) -> None:
    lease = stage.lease()
    if moment == "loaded":
        stage.load(lease, b"1")
        stage.miss()
    elif moment == "marked":
        stage.mark(lease)

    assert stage.fill(b"2") == 1
    assert stage.value == b"2"
    if moment == "leased":
        assert not stage.load(lease, b"1")
        assert stage.value == b"2"


def test_a_key_of_another_type_is_never_overwritten(stage: Stage) -> None:
    stage.client.lpush(NAME, "1")

    assert not stage.load(stage.lease(), b"1")
    assert stage.client.type(NAME) == b"list"


def test_every_fence_a_reader_leaves_is_read(stage: Stage) -> None:
    """So audit, repair and redrive go on beside readers."""
    for record in (None, VERSION):
        stage.client.flushall()
        if record:
            stage.record(record, None)
        lease = stage.lease()
        fences = [
            lease.fence,
            fence_after_load(lease),
            fence_after_release(lease),
            fence_of_absent(lease, LEASE_MS, ABSENT_MS),
        ]
        for content in fences:
            fence = read_fence(content)
            assert fence is not None
            assert fence.version == (record or fence.version)
            assert content < NEXT


def test_a_full_server_grants_no_lease_and_leaves_the_fence(real_client: redis.Redis) -> None:
    stage = Stage(real_client)
    stage.record(VERSION, None)
    real_client.config_set("maxmemory", "1")
    try:
        with pytest.raises(redis.ResponseError, match=r"maxmemory|OOM"):
            stage.ask()
    finally:
        real_client.config_set("maxmemory", "0")

    assert stage.fence == VERSION + RANK_RECORD
