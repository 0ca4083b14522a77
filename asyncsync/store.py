"""Stage 5, the only await: a plan's calls out in one round trip, an outcome per entry back.

Unsure is failed: an entry counts as written only when its own reply said so. One connection
lives as long as the process; a frozen or dead one costs a reconnect, not the batch. A Link is
one server; a store decides what to do about what its links say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from os.path import dirname, join
from threading import Lock
from typing import Protocol

from msgspec import Struct, field

from asyncsync.config import Server
from asyncsync.connection import (
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
from asyncsync.model import APPLIED, FENCED, STANDS, Call, Outcome, Written

with open(join(dirname(__file__), "fence.lua"), "rb") as _file:
    SCRIPT = _file.read()
_SCRIPT_DIGEST = b"f1026499b03a671c9afcc8e41d5a3d5c1a11e576"  # a test has the right one

FENCED_COMMAND = "EVALSHA (a script of MGET, SET and DEL)"

Clock = Callable[[], float]  # seconds, never back

REDIRECTIONS = ("MOVED", "ASK")
_CLUSTER = "the server is part of a cluster: set ASYNCSYNC_REDIS_CLUSTER=true"

UNSENT = Outcome("failed", "Unsent", "not sent")
OUT_OF_TIME = Outcome("failed", "Deadline", "the invocation had too little time left")


class Store(Protocol):
    """Where a plan goes."""

    async def apply(self, calls: Iterable[Call], entry_count: int, end_s: float) -> Written:
        """Write a plan before end_s, on this store's clock; say what became of each entry.

        Raises StoreRefused where a server refuses the user.
        """

    def close(self) -> None:
        """Throw every connection away; the next apply opens new ones."""


class RedisStore:
    """One server behind one connection."""

    def __init__(self, link: Client) -> None:
        self._link = link

    async def apply(self, calls: Iterable[Call], entry_count: int, end_s: float) -> Written:
        """Write a plan before end_s, on this store's clock; say what became of each entry.

        Sends it a second time where a connection from an earlier invocation was dead.
        Raises StoreRefused where the server refuses the user.
        """
        if not entry_count:
            return Written([], 0.0)
        job = Job(end_s, [], [UNSENT] * entry_count, iter(calls))
        reused = self._link.is_open
        error = await self._link.write(job)
        reconnected = error is not None and reused and is_retryable(error, job.pending)
        if reconnected:
            error = await self._link.write(job)
        if error is not None:
            failed = Outcome("failed", error.error, error.reason)
            job.outcomes = [failed if each is UNSENT else each for each in job.outcomes]
        for call, reply in job.redirected:
            job.fail([call], reply.word, _CLUSTER)
        out_of_time = isinstance(error, OutOfTime)
        return Written(job.outcomes, job.round_trip_s * 1_000, reconnected, out_of_time)

    def close(self) -> None:
        """Throw the connection away; the next apply opens a new one."""
        self._link.close()


class Job(Struct):
    """What one server is to write: what is still to be sent, and what became of the rest."""

    end_s: float
    pending: list[Call]
    outcomes: list[Outcome]
    coming: Iterator[Call] = field(default_factory=lambda: iter(()))  # not made yet
    redirected: list[tuple[Call, ReplyError]] = field(default_factory=list)
    round_trip_s: float = 0.0
    out_of_time: bool = False  # before the last of them was made

    def fail(self, calls: Sequence[Call], error: str, reason: str) -> None:
        """Count the entries of calls as failed."""
        failed = Outcome("failed", error, reason)
        for call in calls:
            for at in call.entries:
                self.outcomes[at] = failed


class Client:
    """One server and the connection to it, opened when it is needed."""

    def __init__(
        self,
        server: Server,
        timeout_ms: int,
        reach: OpenTransport,
        clock: Clock,
        password: Password,
        script: bytes = SCRIPT,
    ) -> None:
        self._server = server
        self._script, self._digest = script, digest_of(script)
        self._password = password
        self._timeout_s = timeout_ms / 1_000
        self._reach = reach
        self._clock = clock
        self._wire: Connection | None = None
        self._is_free = Lock()

    @property
    def is_open(self) -> bool:
        """Whether there is a connection, dead or alive."""
        return self._wire is not None

    async def write(self, job: Job) -> StoreUnavailable | None:
        """Send what is pending and return why it could not be done, None where it was.

        Calls that the server sends elsewhere are done here, and wait among the redirected.
        """
        try:
            with self._alone():
                wire = await self._opened(job.end_s)
                await self._exchange(wire, job, b"EVALSHA", self._digest)
                if job.pending:
                    # The script is not there (a restart, SCRIPT FLUSH): EVAL brings it.
                    self._check_time(job.end_s)
                    await self._exchange(wire, job, b"EVAL", self._script)
                if job.out_of_time:
                    raise OutOfTime
        except StoreUnavailable as exc:
            return exc
        return None

    async def ask(self, command: tuple[bytes, ...], end_s: float) -> object:
        """Send one command before end_s and return its reply.

        Raises StoreUnavailable, or StoreRefused where the server refuses the credentials.
        """
        replies: list[object] = []
        with self._alone():
            wire = await self._opened(end_s)
            with _in_time("waiting for the answer"):
                await wire.exchange([command], replies.append, self._left(end_s))
        return replies[0]

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let one at a time use the connection, and throw it away where that fails.

        Raises RuntimeError: two would read each other's replies.
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

    async def _opened(self, end_s: float) -> Connection:
        self._check_time(end_s)
        if self._wire is None:
            left = self._left(end_s)
            with _in_time("connecting"):
                self._wire = await open_connection(self._server, self._reach, self._password, left)
            self._check_time(end_s)
        return self._wire

    async def _exchange(self, wire: Connection, job: Job, command: bytes, script: bytes) -> None:
        """Make one round trip; a call without a reply, or without its script, stays pending."""
        # None stands for ASKING, which says of the next command only that it was sent here.
        sent: list[Call | None] = []
        unanswered = iter(sent)

        def settle(reply: object) -> None:
            call = next(unanswered)
            if call is None:
                return
            word = reply.word if isinstance(reply, ReplyError) else ""
            if word == "NOSCRIPT" and command == b"EVALSHA":
                job.pending.append(call)
            elif isinstance(reply, ReplyError) and word in REDIRECTIONS:
                job.redirected.append((call, reply))
            else:
                self._settle(call, reply, job.outcomes)

        def commands() -> Iterator[tuple[bytes, ...]]:
            for call in chain(waiting, self._coming(job)):
                if call.asking:
                    sent.append(None)
                    yield (b"ASKING",)
                sent.append(call)
                yield (command, script, *call.arguments) if call.fenced else call.arguments

        waiting, job.pending = iter(job.pending), []
        began_s = self._clock()
        try:
            count = await wire.send(commands())
            with _in_time("waiting for the answer"):
                await wire.receive(count, settle, self._left(job.end_s))
        finally:
            job.pending += [call for call in unanswered if call is not None]
            job.pending += waiting  # where the connection broke before they were packed
            job.round_trip_s = self._clock() - began_s

    def _coming(self, job: Job) -> Iterator[Call]:
        """Take calls that are made only now, as long as there is time to send them."""
        for call in job.coming:
            if self._is_late(job.end_s):
                job.out_of_time = True
                return
            yield call

    def _left(self, end_s: float) -> TimeLeft:
        """Say, from now on, what is left of the timeout or of the invocation, less the answer."""
        until_s = min(self._clock() + self._timeout_s, end_s - ANSWER_RESERVE_MS / 1_000)
        return lambda: until_s - self._clock()

    def _settle(self, call: Call, reply: object, outcomes: list[Outcome]) -> None:
        replies = reply if isinstance(reply, list) and call.fenced else [reply] * len(call.entries)
        assert len(replies) == len(call.entries), "the script answers once for each key"
        for at, each in zip(call.entries, replies, strict=True):
            outcomes[at] = self._outcome(call, each)

    def _outcome(self, call: Call, reply: object) -> Outcome:
        if isinstance(reply, bytes) and call.fenced:
            reply = ReplyError(reply.decode(errors="replace").lstrip("-"))
        if isinstance(reply, ReplyError):
            command = FENCED_COMMAND if call.fenced else call.arguments[0].decode()
            refuse(reply, self._server, command)
            reason = _CLUSTER if reply.word == "CROSSSLOT" else "refused by the server"
            return Outcome("failed", reply.word, reason)
        if call.fenced:
            assert reply in (0, 1, 2), "a script answers applied, fenced, stands or an error"
            return (FENCED, APPLIED, STANDS)[reply]
        return APPLIED if reply == b"OK" else Outcome("applied", reply=reply)

    def _check_time(self, end_s: float) -> None:
        """Make sure there is time to send; raise OutOfTime where there is not."""
        if self._is_late(end_s):
            raise OutOfTime

    def _is_late(self, end_s: float) -> bool:
        return (end_s - self._clock()) * 1_000 < SEND_LEFT_MS_MIN

    def close(self) -> None:
        """Throw the connection away; the next use opens a new one."""
        if self._wire is not None:
            self._wire.abandon()
            self._wire = None


@contextmanager
def _in_time(doing: str) -> Iterator[None]:
    try:
        yield
    except TimeoutError as exc:
        raise StoreUnavailable("TimeoutError", f"no answer {doing}", timed_out=True) from exc


class OutOfTime(StoreUnavailable):
    """The invocation ends too soon for another round trip; nothing is under way."""

    def __init__(self) -> None:
        super().__init__(OUT_OF_TIME.error, OUT_OF_TIME.reason)


def is_retryable(error: StoreUnavailable, pending: Sequence[Call]) -> bool:
    """Whether a dead connection's calls may go out once more.

    Without the fence a write that timed out may still be under way, and would then land on
    top of the newer one.
    """
    if isinstance(error, OutOfTime) or not pending:
        return False
    return pending[0].fenced or not error.timed_out


def digest_of(script: bytes) -> bytes:
    """Return what EVALSHA names a script by."""
    if script == SCRIPT:
        return _SCRIPT_DIGEST
    from hashlib import sha1  # 4 ms of a cold start, for tools' scripts alone

    return sha1(script, usedforsecurity=False).hexdigest().encode()
