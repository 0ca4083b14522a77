"""Stage 5, the only await: a plan's calls out in one round trip, an outcome per entry back.

Unsure is failed: an entry counts as written only when its own reply said so. One connection
lives as long as the process; a frozen or dead one costs a reconnect, not the batch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from hashlib import sha1
from pathlib import Path
from typing import TypeVar

from asyncsync.config import Server
from asyncsync.errors import StoreUnavailable
from asyncsync.limits import ANSWER_RESERVE_MS, SEND_LEFT_MS_MIN
from asyncsync.model import APPLIED, FENCED, Call, Outcome, Written
from asyncsync.wire import Connect, Password, ReplyError, Wire, open_wire, refuse

SCRIPT = Path(__file__).with_name("fence.lua").read_bytes()
DIGEST = sha1(SCRIPT, usedforsecurity=False).hexdigest().encode()

FENCED_COMMAND = "EVALSHA (a script of MGET, SET and DEL)"

T = TypeVar("T")
Clock = Callable[[], float]  # seconds, never back

_CLUSTER_WORDS = ("MOVED", "ASK", "CROSSSLOT")
_CLUSTER = "the server is part of a cluster, and this version writes to one server"

UNSENT = Outcome("failed", "Unsent", "not sent")
OUT_OF_TIME = Outcome("failed", "Deadline", "the invocation had too little time left")


class RedisStore:
    """One server behind one connection."""

    def __init__(
        self,
        server: Server,
        timeout_ms: int,
        connect: Connect,
        clock: Clock,
        password: Password,
    ) -> None:
        self._server = server
        self._password = password
        self._timeout_s = timeout_ms / 1_000
        self._connect = connect
        self._clock = clock
        self._wire: Wire | None = None

    async def apply(self, calls: Sequence[Call], entry_count: int, end_s: float) -> Written:
        """Write a plan before end_s, on this store's clock; say what became of each entry.

        Sends it a second time where a connection from an earlier invocation was dead.
        Raises StoreRefused where the server refuses the user.
        """
        if not calls:
            return Written([], 0.0)
        job = _Job(end_s, list(calls), [UNSENT] * entry_count)
        reused = self._wire is not None
        error = await self._attempt(job)
        reconnected = error is not None and reused and _may_send_again(error, job.pending)
        if reconnected:
            error = await self._attempt(job)
        if error is not None:
            job.fail(error)
        out_of_time = isinstance(error, _OutOfTime)
        return Written(job.outcomes, job.round_trip_s * 1_000, reconnected, out_of_time)

    async def _attempt(self, job: _Job) -> StoreUnavailable | None:
        """Send what is pending and return why it could not be done, None where it was."""
        try:
            wire = await self._opened(job.end_s)
            await self._exchange(wire, job, b"EVALSHA", DIGEST)
            if job.pending:
                # The server does not hold the script (a restart, SCRIPT FLUSH): EVAL brings it.
                self._check_time(job.end_s)
                await self._exchange(wire, job, b"EVAL", SCRIPT)
        except _OutOfTime as exc:
            return exc
        except StoreUnavailable as exc:
            self.close()
            return exc
        except BaseException:
            self.close()
            raise
        return None

    async def _opened(self, end_s: float) -> Wire:
        self._check_time(end_s)
        if self._wire is None:
            opening = open_wire(self._server, self._connect, self._password)
            self._wire = await self._within(end_s, "connecting", opening)
            self._check_time(end_s)
        return self._wire

    async def _exchange(self, wire: Wire, job: _Job, command: bytes, script: bytes) -> None:
        """Make one round trip; a call without a reply, or without its script, stays pending."""
        calls = job.pending
        job.pending = []
        unanswered = iter(calls)

        def settle(reply: object) -> None:
            call = next(unanswered)
            if isinstance(reply, ReplyError) and reply.word == "NOSCRIPT" and script == DIGEST:
                job.pending.append(call)
            else:
                self._settle(call, reply, job.outcomes)

        began_s = self._clock()
        commands = [(command, script, *c.arguments) if c.fenced else c.arguments for c in calls]
        try:
            exchange = wire.exchange(commands, settle)
            await self._within(job.end_s, "waiting for the answer", exchange)
        finally:
            job.pending += unanswered
            job.round_trip_s = self._clock() - began_s

    async def _within(self, end_s: float, doing: str, work: Awaitable[T]) -> T:
        """Wait for work as long as the timeout allows and the invocation has, less the answer."""
        left_s = end_s - self._clock() - ANSWER_RESERVE_MS / 1_000
        try:
            async with asyncio.timeout(min(self._timeout_s, left_s)):
                return await work
        except TimeoutError as exc:
            raise StoreUnavailable("TimeoutError", f"no answer {doing}", timed_out=True) from exc

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
            reason = _CLUSTER if reply.word in _CLUSTER_WORDS else "refused by the server"
            return Outcome("failed", reply.word, reason)
        if call.fenced:
            assert reply in (0, 1), "the script answers applied, fenced or an error"
            return APPLIED if reply == 1 else FENCED
        return APPLIED

    def _check_time(self, end_s: float) -> None:
        """Make sure there is time to send; raise _OutOfTime where there is not."""
        if (end_s - self._clock()) * 1_000 < SEND_LEFT_MS_MIN:
            raise _OutOfTime

    def close(self) -> None:
        """Throw the connection away; the next apply opens a new one."""
        if self._wire is not None:
            self._wire.abandon()
            self._wire = None


@dataclass(slots=True)
class _Job:
    """One apply under way: what is still to be sent, and what became of the rest."""

    end_s: float
    pending: list[Call]
    outcomes: list[Outcome]
    round_trip_s: float = 0.0

    def fail(self, error: StoreUnavailable) -> None:
        failed = Outcome("failed", error.error, error.reason)
        for call in self.pending:
            for at in call.entries:
                self.outcomes[at] = failed


class _OutOfTime(StoreUnavailable):
    def __init__(self) -> None:
        super().__init__(OUT_OF_TIME.error, OUT_OF_TIME.reason)


def _may_send_again(error: StoreUnavailable, pending: Sequence[Call]) -> bool:
    """Whether a dead connection's calls may go out once more.

    Without the fence a write that timed out may still be under way, and would then land on
    top of the newer one.
    """
    if isinstance(error, _OutOfTime) or not pending:
        return False
    return pending[0].fenced or not error.timed_out
