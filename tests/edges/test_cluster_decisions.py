"""What a cluster store decides after a round: which calls fail, follow, or go out again."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from asyncsync.cluster import (
    ClusterStore,
    _Attempt,
    _give_up,
    _redirections,
    _route,
    _Run,
)
from asyncsync.config import Server, parse_url
from asyncsync.connection import ReplyError
from asyncsync.errors import StoreUnavailable
from asyncsync.limits import SLOTS
from asyncsync.model import Call, Outcome
from asyncsync.store import UNSENT, Client, Job, OutOfTime

SEED_NODE = parse_url("redis://seed:1")
NODES = [replace(SEED_NODE, host="node", port=port) for port in (1, 2, 3)]
FIRST, SECOND, THIRD = NODES
NEVER = float("inf")

BROKEN = StoreUnavailable("ConnectionResetError", "the connection broke")
TIMED_OUT = StoreUnavailable("TimeoutError", "no answer", timed_out=True)


def run_of(count: int = 1) -> _Run:
    return _Run(NEVER, [UNSENT] * count, set())


def call(at: int, *, fenced: bool = True, asking: bool = False) -> Call:
    return Call((b"x",), (at,), fenced, slot=at, asking=asking)


def attempt(
    run: _Run,
    *pending: Call,
    node: Server = FIRST,
    reused: bool = True,
    error: StoreUnavailable | None = BROKEN,
    redirected: tuple[tuple[Call, str], ...] = (),
) -> _Attempt:
    job = Job(NEVER, list(pending), run.outcomes)
    job.redirected = [(each, ReplyError(words)) for each, words in redirected]
    return _Attempt(node, job, reused, error)


# --- who is given up ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "fenced", "retried"),
    [
        (BROKEN, True, True),
        (BROKEN, False, True),
        (TIMED_OUT, True, True),
        (TIMED_OUT, False, False),  # it may still be under way
        (OutOfTime(), True, False),
    ],
    ids=["broken", "broken, no fence", "silent", "silent, no fence", "too late"],
)
def test_pending_calls_may_go_out_once_more_where_no_write_of_theirs_can_land_later(
    error: StoreUnavailable, fenced: bool, retried: bool
) -> None:
    run = run_of()
    broken = attempt(run, call(0, fenced=fenced), error=error)

    assert _give_up([broken], run) == ([broken] if retried else [])

    assert run.outcomes == [UNSENT if retried else Outcome("failed", error.error, error.reason)]
    assert run.dead == {FIRST}
    assert run.out_of_time == isinstance(error, OutOfTime)


def test_nothing_is_sent_once_more_a_second_time() -> None:
    run = run_of()
    run.sent_again = True

    assert _give_up([attempt(run, call(0))], run) == []
    assert run.outcomes[0].error == "ConnectionResetError"


def test_a_node_that_answered_all_it_was_sent_is_not_given_up() -> None:
    run = run_of()

    assert _give_up([attempt(run), attempt(run, node=SECOND, error=None)], run) == []
    assert run.dead == set()


# --- where a call is sent on to -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "target"),
    [
        ("MOVED 1 node:2", SECOND),
        ("ASK 1 node:3", THIRD),
        ("MOVED 1 :2", replace(FIRST, port=2)),  # of the node that says it
        ("MOVED 1 ::1:2", replace(FIRST, host="::1", port=2)),
        ("MOVED", None),
        ("MOVED 1", None),
        ("MOVED 1 node", None),
        ("ASK 1 node:0", None),
        ("ASK 1 node:65536", None),
        ("ASK 1 node:port", None),
    ],
)
def test_a_redirection_names_its_target_or_none(words: str, target: Server | None) -> None:
    run = run_of()
    sent_on = attempt(run, error=None, redirected=((call(0), words),))

    assert _redirections([sent_on]) == [(call(0), words.split()[0], target)]


# --- what goes where ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("owner", "reused", "goes"),
    [(SECOND, True, True), (SECOND, False, True), (FIRST, True, True), (FIRST, False, False)],
)
def test_a_node_is_sent_to_again_only_where_its_connection_was_old(
    owner: Server, reused: bool, goes: bool
) -> None:
    run = run_of()
    broken = attempt(run, call(0, asking=True), reused=reused)

    shares = _route([broken], [], [owner], run)

    assert shares == ({owner: [call(0)]} if goes else {})  # and ASKING is not asked again
    assert run.sent_again == goes
    assert (run.outcomes[0] is UNSENT) == goes


def test_a_slot_without_an_owner_fails_its_call_with_what_broke() -> None:
    run = run_of()

    assert _route([attempt(run, call(0))], [], [None], run) == {}
    assert run.outcomes[0].error == "ConnectionResetError"
    assert not run.sent_again


def test_a_moved_slot_changes_its_owner_and_an_asked_one_does_not() -> None:
    run = run_of(2)
    owners: list[Server | None] = [FIRST, FIRST]
    moved, asked = (call(0), "MOVED", SECOND), (call(1), "ASK", SECOND)

    shares = _route([], [moved, asked], owners, run)

    assert shares == {SECOND: [call(0), call(1, asking=True)]}
    assert owners == [SECOND, FIRST]


# --- conservation -------------------------------------------------------------------------------


def no_client(_: Server) -> Client:
    raise AssertionError("nobody is asked")


class Blind(ClusterStore):
    """A cluster whose topology can be read, or not."""

    is_readable = False

    async def _load_topology(self, run: _Run) -> None:
        if not self.is_readable:
            raise StoreUnavailable("Unassigned", "nobody answers")


errors = st.sampled_from([None, BROKEN, TIMED_OUT, OutOfTime()])
words = st.sampled_from(["MOVED 1 node:2", "ASK 1 node:3", "MOVED 1 :9", "MOVED", "ASK 1 node"])
places = st.one_of(st.none(), words)  # pending, or sent on


@settings(max_examples=300, deadline=None)
@given(
    rounds=st.lists(
        st.tuples(
            st.sampled_from(NODES),
            st.booleans(),
            errors,
            st.lists(st.tuples(places, st.booleans())),
        ),
        max_size=4,
    ),
    owners=st.lists(st.sampled_from([None, *NODES]), min_size=8, max_size=8),
    sent_again=st.booleans(),
    is_readable=st.booleans(),
)
def test_every_call_of_a_round_is_sent_next_or_failed(
    rounds: list[tuple[Server, bool, StoreUnavailable | None, list[tuple[str | None, bool]]]],
    owners: list[Server | None],
    sent_again: bool,
    is_readable: bool,
) -> None:
    run = run_of(sum(len(calls) for *_, calls in rounds))
    run.sent_again = sent_again
    store = Blind(SEED_NODE, no_client)
    store.is_readable = is_readable
    store._slot_owners = (owners * SLOTS)[:SLOTS]
    at = 0
    attempts = []
    for node, reused, error, calls in rounds:
        pending, redirected = [], []
        for place, fenced in calls:
            if place is not None:
                redirected.append((call(at, fenced=fenced), place))
            elif error is not None:
                pending.append(call(at, fenced=fenced))
            else:
                run.outcomes[at] = Outcome("applied")
            at += 1
        attempts.append(
            attempt(
                run, *pending, node=node, reused=reused, error=error, redirected=tuple(redirected)
            )
        )

    shares = asyncio.run(store._follow(attempts, run))

    found = Counter(each.entries[0] for calls in shares.values() for each in calls)
    found.update(at for at, outcome in enumerate(run.outcomes) if outcome is not UNSENT)
    assert found == Counter(range(at))
