"""Stage 5, the only await: send a plan's calls in one round trip, return an outcome per entry.

Unsure is failed: an entry counts as written only when its own reply said so. One connection
lives as long as the process; a frozen or dead one costs a reconnect, not the batch. A client
is the store of one server; a cluster's store has a client per node.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from os.path import dirname, join
from threading import Lock
from typing import Protocol

from msgspec import Struct, field

from asyncsync.config import Server
from asyncsync.connection import (
    BROKEN,
    Connection,
    OpenTransport,
    Password,
    ReplyError,
    TimeLeft,
    open_connection,
    refuse,
)
from asyncsync.errors import StoreUnavailable
from asyncsync.limits import ANSWER_RESERVE_MS, SEND_LEFT_MS_MIN
from asyncsync.model import APPLIED, FENCED, NO_VALUE, Call, Outcome, Written

with open(join(dirname(__file__), "fence.lua"), "rb") as _file:
    SCRIPT = _file.read()
_SCRIPT_DIGEST = b"f1026499b03a671c9afcc8e41d5a3d5c1a11e576"  # a test has the right one

FENCED_COMMAND = "EVALSHA (a script of MGET, SET and DEL)"

Clock = Callable[[], float]  # seconds, never back

REDIRECTIONS = ("MOVED", "ASK")

# What a server says that is no primary, or not yet: its name may lead to another by now.
_DEMOTED = ("READONLY", "MASTERDOWN", "LOADING")
_CLUSTER = "the server is part of a cluster: set ASYNCSYNC_REDIS_CLUSTER=true"

UNSENT = Outcome("failed", "Unsent", "not sent")
_SCRIPT_OUTCOMES = {0: FENCED, 1: APPLIED, 2: NO_VALUE}


class Store(Protocol):
    """Writes plans, and runs any other commands for a tool."""

    async def apply(self, calls: Iterable[Call], entry_count: int, end_s: float) -> Written:
        """Send calls before end_s, on this store's clock; return an outcome per entry.

        The outcome of a plain command (`fenced=False`) carries its reply as it was read.
        Raises StoreRefused if a server refuses the user.
        """

    def close(self) -> None:
        """Close every connection; the next apply opens new ones."""


class Job(Struct):
    """What one server should write: the calls still to send, and the outcomes so far."""

    end_s: float
    pending: list[Call]
    outcomes: list[Outcome]
    upcoming: Iterator[Call] = iter(())  # encoded while earlier ones are on their way
    redirected: list[tuple[Call, ReplyError]] = field(default_factory=list)
    round_trip_s: float = 0.0
    out_of_time: bool = False  # an upcoming call came too late to be sent
    is_demoted: bool = False  # the server cannot write any more, or not yet

    def record_reply(self, call: Call, reply: object, server: Server) -> None:
        """Record the outcome of each of a call's entries. Raises StoreRefused."""
        replies = reply if isinstance(reply, list) and call.fenced else [reply] * len(call.entries)
        assert len(replies) == len(call.entries), "the script answers once for each key"
        outcomes = self.outcomes
        for at, entry_reply in zip(call.entries, replies, strict=True):
            outcomes[at] = self._outcome(call, entry_reply, server)

    def _outcome(self, call: Call, reply: object, server: Server) -> Outcome:
        if call.fenced:
            if isinstance(reply, int):
                return _SCRIPT_OUTCOMES[reply]
            if isinstance(reply, bytes):  # the server refused this key alone
                reply = ReplyError.in_script(reply.decode(errors="replace"))
            assert isinstance(reply, ReplyError), "a script answers an outcome or an error"
        if not isinstance(reply, ReplyError):
            return Outcome("applied", reply=reply)
        refuse(reply, server, _command_of(call))
        self.is_demoted = self.is_demoted or reply.word in _DEMOTED
        if reply.word == "CROSSSLOT":
            return Outcome("failed", reply.word, _CLUSTER)
        return Outcome("failed", reply.word, reply.reason(call.arguments[not call.fenced :]))


def _command_of(call: Call) -> str:
    return FENCED_COMMAND if call.fenced else call.arguments[0].decode()


def fail_calls(outcomes: list[Outcome], calls: Iterable[Call], error: str, reason: str) -> None:
    """Record every entry of calls as failed."""
    failed = Outcome("failed", error, reason)
    for at in chain.from_iterable(call.entries for call in calls):
        outcomes[at] = failed


class Client:
    """One server and the connection to it, opened on first use: the store of a single server."""

    def __init__(
        self,
        server: Server,
        timeout_ms: int,
        open_transport: OpenTransport,
        clock: Clock,
        password: Password,
        script: bytes = SCRIPT,
    ) -> None:
        self._server = server
        self._script, self._digest = script, digest_of(script)
        self._password = password
        self._timeout_s = timeout_ms / 1_000
        self._open_transport = open_transport
        self._clock = clock
        self._connection: Connection | None = None
        self._is_free = Lock()

    @property
    def is_open(self) -> bool:
        """Whether there is a connection, dead or alive."""
        return self._connection is not None

    async def apply(self, calls: Iterable[Call], entry_count: int, end_s: float) -> Written:
        """Send calls, and again if a connection of an earlier invocation was dead; see Store."""
        if not entry_count:
            return Written([], 0.0)
        job = Job(end_s, [], [UNSENT] * entry_count, iter(calls))
        reused = self.is_open
        error = await self.write(job)
        reconnected = error is not None and reused and is_retryable(error, job.pending)
        if reconnected:
            error = await self.write(job)
        if error is not None:
            failed = Outcome("failed", error.error, error.reason)
            job.outcomes = [failed if each is UNSENT else each for each in job.outcomes]
        for call, reply in job.redirected:
            fail_calls(job.outcomes, [call], reply.word, _CLUSTER)
        out_of_time = isinstance(error, OutOfTime)
        return Written(job.outcomes, job.round_trip_s * 1_000, reconnected, out_of_time)

    async def write(self, job: Job) -> StoreUnavailable | None:
        """Send a job's calls; return the error that left some of them pending, or None.

        A call that the server redirects counts as done here: it joins the job's redirected.
        """
        is_new = not self.is_open
        try:
            with self._exclusive():
                connection = await self._connect(job.end_s)
                await self._exchange(connection, job, b"EVALSHA", self._digest)
                if job.pending:
                    # The server lost the script (a restart, SCRIPT FLUSH): EVAL brings it.
                    self._check_time(job.end_s)
                    await self._exchange(connection, job, b"EVAL", self._script)
                if job.is_demoted:
                    self.close()
                if job.out_of_time:
                    raise OutOfTime
        except StoreUnavailable as exc:
            return await self._explain(exc, job) if is_new and exc.reason == BROKEN else exc
        return None

    async def _explain(self, error: StoreUnavailable, job: Job) -> StoreUnavailable:
        """Ask on another connection why a server broke off a new one: it may have said nothing.

        To a large command before sign-in it answers an error, and closes while we still send.
        Raises StoreRefused.
        """
        try:
            reply = await self.ask((b"PING",), job.end_s)
        except StoreUnavailable:
            return error
        if not isinstance(reply, ReplyError) or reply.word == "NOPERM":  # to send PING
            return error
        refuse(reply, self._server, _command_of(job.pending[0]) if job.pending else "PING")
        return StoreUnavailable(reply.word, reply.reason())

    async def ask(self, command: tuple[bytes, ...], end_s: float) -> object:
        """Return the reply to one command, perhaps a ReplyError.

        Raises StoreUnavailable, or StoreRefused if the server refuses the credentials.
        """
        with self._exclusive():
            connection = await self._connect(end_s)
            reply = (await connection.exchange([command], self._time_left(end_s)))[0]
            if isinstance(reply, ReplyError) and reply.word in _DEMOTED:
                self.close()
            return reply

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Hold the connection exclusively; close it on any error.

        Raises RuntimeError if it is in use: two users would read each other's replies.
        """
        if not self._is_free.acquire(blocking=False):
            raise RuntimeError("one batch at a time: a second needs a mirror of its own")
        try:
            yield
        except OutOfTime:
            raise  # nothing is under way
        except BaseException:
            self.close()
            raise
        finally:
            self._is_free.release()

    async def _connect(self, end_s: float) -> Connection:
        self._check_time(end_s)
        if self._connection is None:
            time_left = self._time_left(end_s)
            self._connection = await open_connection(
                self._server, self._open_transport, self._password, time_left
            )
            self._check_time(end_s)
        return self._connection

    async def _exchange(
        self, connection: Connection, job: Job, command: bytes, script: bytes
    ) -> None:
        """Make one round trip; a call without a reply, or without its script, stays pending."""
        trip = _RoundTrip(job, self._server, command, script)
        began_s = self._clock()
        try:
            count = await connection.send(trip.commands(self._upcoming(job)))
            await connection.receive(count, trip.take, self._time_left(job.end_s))
        finally:
            job.pending = trip.unanswered()
            job.round_trip_s = self._clock() - began_s

    def _upcoming(self, job: Job) -> Iterator[Call]:
        """Yield upcoming calls for as long as there is time to send them."""
        for call in job.upcoming:
            if self._is_late(job.end_s):
                job.out_of_time = True
                return
            yield call

    def _time_left(self, end_s: float) -> TimeLeft:
        """Return a countdown: the timeout, or the time to end_s minus the answer reserve."""
        until_s = min(self._clock() + self._timeout_s, end_s - ANSWER_RESERVE_MS / 1_000)
        return lambda: until_s - self._clock()

    def _check_time(self, end_s: float) -> None:
        """Raise OutOfTime if there is too little time to send."""
        if self._is_late(end_s):
            raise OutOfTime

    def _is_late(self, end_s: float) -> bool:
        return (end_s - self._clock()) * 1_000 < SEND_LEFT_MS_MIN

    def close(self) -> None:
        """Close the connection; the next use opens a new one."""
        if self._connection is not None:
            self._connection.abandon()
            self._connection = None


class _RoundTrip:
    """The commands of one round trip and their replies, in the same order.

    It loses no call: each one waits, was sent without a reply yet, lacks its script, or is done
    (recorded in the job, or one of the job's redirected).
    """

    def __init__(self, job: Job, server: Server, command: bytes, script: bytes) -> None:
        self._job, self._server = job, server
        self._command, self._script = command, script
        self._waiting = iter(job.pending)
        self._sent: deque[Call | None] = deque()  # None: ASKING, whose reply means nothing
        self._without_script: list[Call] = []

    def commands(self, upcoming: Iterator[Call]) -> Iterator[tuple[bytes, ...]]:
        """Yield the commands of the pending calls, then of the upcoming ones."""
        for call in chain(self._waiting, upcoming):
            # Note the call before ASKING: the connection may break there already.
            if call.asking:
                self._sent += (None, call)
                yield (b"ASKING",)
            else:
                self._sent.append(call)
            yield (self._command, self._script, *call.arguments) if call.fenced else call.arguments

    def take(self, reply: object) -> None:
        """Match the next reply to the oldest command without one. Raises StoreRefused."""
        call = self._sent[0]
        word = reply.word if isinstance(reply, ReplyError) else ""
        if call is None:
            pass  # ASKING
        elif word == "NOSCRIPT" and self._command == b"EVALSHA":
            self._without_script.append(call)
        elif isinstance(reply, ReplyError) and word in REDIRECTIONS:
            self._job.redirected.append((call, reply))
        else:
            self._job.record_reply(call, reply, self._server)
        self._sent.popleft()

    def unanswered(self) -> list[Call]:
        """Return the calls to send again: nobody knows whether the server ran them."""
        sent = (call for call in self._sent if call is not None)
        return [*self._without_script, *sent, *self._waiting]


class OutOfTime(StoreUnavailable):
    """The invocation ends too soon for another round trip; nothing is under way."""

    def __init__(self) -> None:
        super().__init__("Deadline", "the invocation had too little time left")


def is_retryable(error: StoreUnavailable, pending: Sequence[Call]) -> bool:
    """Whether a dead connection's calls may go out once more.

    Without the fence they may not after a timeout: the old write may still arrive, and would
    then replace a newer one.
    """
    if isinstance(error, OutOfTime) or not pending:
        return False
    return pending[0].fenced or not error.timed_out


def digest_of(script: bytes) -> bytes:
    """Return the digest that EVALSHA knows a script by."""
    if script == SCRIPT:
        return _SCRIPT_DIGEST
    from hashlib import sha1  # 4 ms of a cold start, for the tools' scripts only

    return sha1(script, usedforsecurity=False).hexdigest().encode()
