"""No round trip loses a call: on every way out it is answered, redirected or pending."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncsync.config import Server, parse_url
from asyncsync.connection import TimeLeft, Transport
from asyncsync.errors import StoreRefused
from asyncsync.model import Call
from asyncsync.store import UNSENT, Client, Clock, Job, OutOfTime
from asyncsync.transport import run_blocking

SERVER = parse_url("redis://unused")
NEVER = float("inf")

# Almost fills a write, so that a write can break in the middle.
LONG = b"x" * 65_500

REPLIES = {
    "ok": b"+OK\r\n",
    "value": b"$2\r\nOK\r\n",
    "NOSCRIPT": b"-NOSCRIPT No matching script\r\n",
    "MOVED": b"-MOVED 1 127.0.0.1:1\r\n",
    "ASK": b"-ASK 1 127.0.0.1:1\r\n",
    "OOM": b"-OOM not now\r\n",
    "NOPERM": b"-NOPERM no\r\n",
}


class Cancelled(BaseException):
    """A cancellation from outside: not an Exception, and not one of the store's errors."""


@dataclass
class Script:
    """A transport that answers from a list and fails at a given write or read."""

    replies: list[bytes]
    breaks_at: int  # the write or read that fails
    error: BaseException
    steps: int = 0
    written: list[bytes] = field(default_factory=list)

    async def write(self, data: bytes) -> None:
        self._step()
        self.written.append(data)

    async def read(self, time_left: TimeLeft) -> bytes:
        self._step()
        return self.replies.pop(0) if self.replies else b""

    def abort(self) -> None:
        """Nothing is open."""

    def _step(self) -> None:
        self.steps += 1
        if self.steps > self.breaks_at:
            raise self.error


def client_over(transport: Script, clock: Clock = lambda: 0.0) -> Client:
    async def open_transport(server: Server, time_left: TimeLeft) -> Transport:
        return transport

    return Client(SERVER, 2_000, open_transport, clock, lambda: "")


calls = st.lists(
    st.builds(
        lambda fenced, asking, size: (fenced, asking, LONG[:size]),
        fenced=st.booleans(),
        asking=st.booleans(),
        size=st.sampled_from([1, 20_000, 65_500]),
    ),
    min_size=1,
    max_size=8,
)
errors = st.sampled_from([OSError(), TimeoutError(), Cancelled(), asyncio.CancelledError()])


@settings(max_examples=500, deadline=None)
@given(
    kinds=calls,
    pending_count=st.integers(0, 8),
    words=st.lists(st.sampled_from(sorted(REPLIES)), max_size=16),
    breaks_at=st.integers(0, 24),
    error=errors,
)
def test_a_call_is_answered_redirected_pending_or_still_to_come(
    kinds: list[tuple[bool, bool, bytes]],
    pending_count: int,
    words: list[str],
    breaks_at: int,
    error: BaseException,
) -> None:
    made = [
        Call((b"1", value) if fenced else (b"GET", value), (at,), fenced, slot=1, asking=asking)
        for at, (fenced, asking, value) in enumerate(kinds)
    ]
    upcoming = iter(made[pending_count:])
    job = Job(NEVER, made[:pending_count], [UNSENT] * len(made), upcoming)
    replies = [
        b":1\r\n" if word == "ok" and at % 2 else REPLIES[word] for at, word in enumerate(words)
    ]

    with contextlib.suppress(StoreRefused, Cancelled, asyncio.CancelledError, AssertionError):
        run_blocking(client_over(Script(replies, breaks_at, error)).write(job))

    places = Counter(call.entries[0] for call in job.pending)
    places.update(call.entries[0] for call, _ in job.redirected)
    places.update(at for at, outcome in enumerate(job.outcomes) if outcome is not UNSENT)
    places.update(call.entries[0] for call in upcoming)
    assert places == Counter(range(len(made)))


def test_a_call_whose_asking_broke_the_connection_is_pending() -> None:
    """The first write ends with ASKING and fails before the call is packed."""
    first = Call((b"SET", b"a", b"x" * 65_500), (0,), fenced=False)
    second = Call((b"GET", b"b"), (1,), fenced=False, asking=True)
    job = Job(NEVER, [first, second], [UNSENT] * 2)

    error = run_blocking(client_over(Script([], 0, OSError())).write(job))

    assert error is not None
    assert job.pending == [first, second]


def test_a_batch_whose_values_cannot_be_made_leaves_what_was_sent_pending() -> None:
    first = Call((b"GET", b"a"), (0,), fenced=False)

    def upcoming() -> Iterator[Call]:
        yield first
        raise ZeroDivisionError

    job = Job(NEVER, [], [UNSENT] * 2, upcoming())

    with pytest.raises(ZeroDivisionError):
        run_blocking(client_over(Script([], 9, OSError())).write(job))

    assert job.pending == [first]


async def test_a_send_that_the_kernel_ends_with_a_timeout_is_an_error_of_the_connection() -> None:
    """In Python a dead peer's ETIMEDOUT is a TimeoutError, also in a write."""
    job = Job(NEVER, [Call((b"GET", b"a"), (0,), fenced=False)], [UNSENT])

    error = run_blocking(client_over(Script([], 0, TimeoutError())).write(job))

    assert error is not None
    assert error.timed_out


def test_the_script_is_not_sent_with_too_little_time_left() -> None:
    """The server answers NOSCRIPT so late that less than 500 ms are left for EVAL."""
    now_s = 0.0

    class Late(Script):
        async def read(self, time_left: TimeLeft) -> bytes:
            nonlocal now_s
            now_s = 9.501
            return await super().read(time_left)

    transport = Late([REPLIES["NOSCRIPT"]], 9, OSError())
    call = Call((b"2", b"a", b"{a}!f"), (0,), fenced=True)
    job = Job(10.0, [call], [UNSENT])

    error = run_blocking(client_over(transport, lambda: now_s).write(job))

    assert isinstance(error, OutOfTime)
    assert job.pending == [call]
    assert len(transport.written) == 1
