"""Stage 4: every entry is in exactly one call, and no call exceeds a server's limits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asyncsync.config import Config
from asyncsync.keys import redis_names, slot
from asyncsync.limits import CALL_ARGUMENTS_MAX, CALL_BYTES_MAX, CALL_KEYS_MAX
from asyncsync.model import Call, Entry, SequenceNumber
from asyncsync.plan import plan as coming

VERSION = b"11767225600000031111"


def config(**options: Any) -> Config:
    return Config(redis_url="redis://h", **options)


def entry(name: bytes, value: bytes | None = b"v", expires_at_ms: int = 0) -> Entry:
    fence = b"{%b}!f" % name
    return Entry(name, fence, VERSION, value, expires_at_ms, SequenceNumber(111), "111")


def entries(count: int, value: bytes | None = b"v") -> list[Entry]:
    return [entry(b"%05d" % at, value) for at in range(count)]


def plan(entries: Sequence[Entry], config: Config) -> list[Call]:
    return list(coming(entries, config))


def sent(call: Call) -> int:
    """Count a script call's arguments as the server does, EVALSHA and its digest too."""
    return 2 + len(call.arguments)


def payload(entry: Entry) -> int:
    return len(entry.value or b"") + len(entry.name) + len(entry.fence)


def read_back(call: Call) -> list[tuple[bytes, ...]]:
    """Read a script call as the script does: per key its names, version, expiry, value."""
    count = int(call.arguments[0])
    names, rest = call.arguments[1 : 1 + count], call.arguments[1 + count :]
    return [
        (names[at], names[at + 1], *rest[2 + 3 * at // 2 : 5 + 3 * at // 2])
        for at in range(0, count, 2)
    ]


def filled_in_turn(batch: list[Entry]) -> list[list[int]]:
    """Put each entry into the last chunk if it fits, else into a new one."""
    chunks: list[list[int]] = []
    for at, each in enumerate(batch):
        fits = chunks and len(chunks[-1]) < CALL_KEYS_MAX
        if fits and sum(payload(batch[n]) for n in chunks[-1]) + payload(each) <= CALL_BYTES_MAX:
            chunks[-1].append(at)
        else:
            chunks.append([at])
    return chunks


# --- with the fence -----------------------------------------------------------------------------

SIZES = st.lists(
    st.one_of(
        st.none(),
        st.integers(0, 2_000),
        st.sampled_from([CALL_BYTES_MAX // 2, CALL_BYTES_MAX - 13, CALL_BYTES_MAX + 1]),
    ),
    max_size=12,
)


@settings(deadline=None)
@given(SIZES, st.sampled_from([0, 1, 178, 179, 180, 181, 361]))
@example([], 0)
@example([CALL_BYTES_MAX + 1] * 3, 0)
def test_every_entry_is_in_exactly_one_call_within_the_limits(
    sizes: list[int | None], more: int
) -> None:
    blob = bytes(CALL_BYTES_MAX + 1)
    batch = entries(more)
    batch += [entry(b"x%d" % at, n if n is None else blob[:n]) for at, n in enumerate(sizes)]

    calls = plan(batch, config())

    assert [list(call.entries) for call in calls] == filled_in_turn(batch)
    assert [at for call in calls for at in call.entries] == list(range(len(batch)))
    for call in calls:
        assert call.fenced
        assert 1 <= len(call.entries) <= CALL_KEYS_MAX
        assert sent(call) <= CALL_ARGUMENTS_MAX
        assert len(call.entries) == 1 or sum(payload(batch[at]) for at in call.entries) <= (
            CALL_BYTES_MAX
        )
        assert read_back(call) == [
            (
                batch[at].name,
                batch[at].fence,
                VERSION,
                b"-" if batch[at].value is None else b"",
                batch[at].value or b"",
            )
            for at in call.entries
        ]


@settings(deadline=None)
@given(st.integers(0, 800))
@example(180)
@example(181)
def test_no_more_calls_are_made_than_the_keys_need(count: int) -> None:
    assert len(plan(entries(count), config())) == -(-count // CALL_KEYS_MAX)


def test_a_full_call_of_180_keys_has_905_arguments() -> None:
    call, rest = plan(entries(181), config())

    assert (len(call.entries), sent(call)) == (180, 905)
    assert len(rest.entries) == 1


def test_values_of_exactly_the_limit_are_one_call_and_a_byte_more_are_two() -> None:
    first = entry(b"a", bytes(CALL_BYTES_MAX - 20))
    room = CALL_BYTES_MAX - payload(first) - payload(entry(b"b", b""))

    assert len(plan([first, entry(b"b", bytes(room))], config())) == 1
    assert len(plan([first, entry(b"b", bytes(room + 1))], config())) == 2


def test_an_entry_past_the_limit_goes_alone_and_its_neighbours_together() -> None:
    large = entry(b"large", bytes(CALL_BYTES_MAX + 1))

    calls = plan([*entries(3), large, *entries(3)], config())

    assert [list(call.entries) for call in calls] == [[0, 1, 2], [3], [4, 5, 6]]


def test_a_script_calls_arguments_are_pinned() -> None:
    batch = [entry(b"a", b"1", 1_700_000_000_000), entry(b"b", b"2"), entry(b"c", None)]

    (call,) = plan(batch, config(fence_ttl_s=86_400))

    assert call.arguments == (
        b"6",
        *(b"a", b"{a}!f", b"b", b"{b}!f", b"c", b"{c}!f"),
        *(b"86400", b""),
        *(VERSION, b"1700000000000", b"1"),
        *(VERSION, b"", b"2"),
        *(VERSION, b"-", b""),
    )


def test_an_empty_value_is_a_value_and_no_removal() -> None:
    (call,) = plan([entry(b"a", b"")], config())

    assert read_back(call) == [(b"a", b"{a}!f", VERSION, b"", b"")]


@pytest.mark.parametrize(("mode", "only"), [("mirror", b""), ("refresh", b"XX")])
def test_refresh_writes_only_where_a_value_is(mode: str, only: bytes) -> None:
    (call,) = plan([entry(b"a")], config(mode=mode))

    assert call.arguments[4] == only


def test_nothing_to_write_is_no_call() -> None:
    assert plan([], config()) == []
    assert plan([], config(fence="off")) == []


# --- without ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first_entry", "mode", "command"),
    [
        (entry(b"a"), "mirror", (b"SET", b"a", b"v")),
        (entry(b"a", b""), "mirror", (b"SET", b"a", b"")),
        (entry(b"a"), "refresh", (b"SET", b"a", b"v", b"XX")),
        (entry(b"a", b"v", 5), "mirror", (b"SET", b"a", b"v", b"PXAT", b"5")),
        (entry(b"a", b"v", 5), "refresh", (b"SET", b"a", b"v", b"PXAT", b"5", b"XX")),
        (entry(b"a", None), "mirror", (b"DEL", b"a")),
        (entry(b"a", None), "refresh", (b"DEL", b"a")),
        (entry(b"a", None), "invalidate", (b"DEL", b"a")),
    ],
)
def test_without_the_fence_each_entry_is_one_plain_command(
    first_entry: Entry, mode: str, command: tuple[bytes, ...]
) -> None:
    other = entry(b"other", None)

    first, second = plan([first_entry, other], config(fence="off", mode=mode))

    assert first == Call(command, (0,), fenced=False)
    assert second == Call((b"DEL", b"other"), (1,), fenced=False)


# --- for a cluster ------------------------------------------------------------------------------

NAMES = st.lists(
    st.one_of(
        st.binary(min_size=1, max_size=8),
        st.builds(
            lambda tag, rest: b"{%b}%b" % (tag, rest), st.sampled_from([b"a", b"b"]), st.binary()
        ),
    ),
    unique_by=lambda name: redis_names(name)[0],
    max_size=40,
)


def named(name: bytes) -> Entry:
    return Entry(*redis_names(name), VERSION, b"v", 0, SequenceNumber(111), "111")


@given(NAMES, st.sampled_from(["on", "off"]))
def test_for_a_cluster_a_call_has_keys_of_one_slot_and_every_entry_is_in_one(
    names: list[bytes], fence: str
) -> None:
    batch = [named(name) for name in names]

    calls = plan(batch, config(redis_cluster=True, fence=fence))

    assert sorted(at for call in calls for at in call.entries) == list(range(len(batch)))
    for call in calls:
        assert {slot(batch[at].name) for at in call.entries} == {call.slot}
        assert {slot(batch[at].fence) for at in call.entries} == {call.slot}
        assert not call.asking
    if fence == "on":
        assert len(calls) == len({slot(each.name) for each in batch})
        for call in calls:
            assert [(n, f) for n, f, *_ in read_back(call)] == [
                (batch[at].name, batch[at].fence) for at in call.entries
            ]


@given(st.integers(0, 400), st.integers(0, 5))
@settings(deadline=None)
def test_for_a_cluster_one_tag_gets_many_keys_a_call_within_the_limits(
    count: int, large: int
) -> None:
    batch = [named(b"{t}%d" % at) for at in range(count)]
    batch += [entry(b"{t}x%d" % at, bytes(CALL_BYTES_MAX // 2)) for at in range(large)]

    calls = plan(batch, config(redis_cluster=True))

    alone = plan(batch, config())
    assert [call.arguments for call in calls] == [call.arguments for call in alone]
    assert [list(call.entries) for call in calls] == [list(call.entries) for call in alone]
    assert {call.slot for call in alone} <= {None}


def test_for_a_cluster_without_the_fence_the_commands_are_the_same() -> None:
    batch = [entry(b"a"), entry(b"b", None)]

    calls = plan(batch, config(redis_cluster=True, fence="off"))

    assert calls == [
        Call((b"SET", b"a", b"v"), (0,), fenced=False, slot=slot(b"a")),
        Call((b"DEL", b"b"), (1,), fenced=False, slot=slot(b"b")),
    ]


def test_a_call_is_there_as_soon_as_its_last_entry_is() -> None:
    taken: list[Entry] = []

    def one_by_one() -> Iterator[Entry]:
        for each in entries(181):
            taken.append(each)
            yield each

    calls = coming(one_by_one(), config())

    assert not taken
    assert len(next(calls).entries) == CALL_KEYS_MAX
    assert len(taken) == CALL_KEYS_MAX + 1  # the one that did not fit
    assert [len(call.entries) for call in calls] == [1]
