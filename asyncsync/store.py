"""Stage 5, the only await: a plan's calls out in one round trip, an outcome per entry back.

Unsure is failed: an entry counts as written only when its own reply said so. One connection
lives as long as the process; a frozen or dead one costs a reconnect, not the batch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha1
from pathlib import Path
from typing import Protocol, TypeVar

from asyncsync.config import Server
from asyncsync.errors import StoreUnavailable
from asyncsync.limits import ANSWER_RESERVE_MS, SEND_LEFT_MS_MIN
from asyncsync.model import APPLIED, FENCED, Call, Outcome, Written
from asyncsync.wire import Connect, ReplyError, Wire, open_wire, refuse

SCRIPT = Path(__file__).with_name("fence.lua").read_bytes()
DIGEST = sha1(SCRIPT, usedforsecurity=False).hexdigest().encode()

T = TypeVar("T")
Clock = Callable[[], float]  # seconds, never back

UNSENT = Outcome("failed", "Unsent", "not sent")
OUT_OF_TIME = Outcome("failed", "Deadline", "the invocation had too little time left")


class Store(Protocol):
    """Where a plan is written."""

    async def apply(self, calls: Sequence[Call], entry_count: int, end_s: float) -> Written:
        """Write a plan before end_s (on the store's clock) and say what became of each entry."""

    def close(self) -> None:
        """Give the connection up."""


class RedisStore:
    """One server behind one connection."""

    def __init__(self, server: Server, timeout_ms: int, connect: Connect, clock: Clock) -> None:
        self._server = server
        self._timeout_s = timeout_ms / 1_000
        self._connect = connect
        self._clock = clock
        self._wire: Wire | None = None

    async def apply(self, calls: Sequence[Call], entry_count: int, end_s: float) -> Written:
        """Write a plan; send it a second time where a connection from before was dead.

        Raises StoreRefused where the server refuses the user.
        """
        outcomes = [UNSENT] * entry_count
        pending = list(calls)
        began_s = self._clock()
        reused = self._wire is not None
        error = await self._attempt(pending, outcomes, end_s)
        reconnected = error is not None and reused and _may_send_again(error, pending)
        if reconnected:
            error = await self._attempt(pending, outcomes, end_s)
        if error is not None:
            _fail(pending, outcomes, error)
        round_trip_ms = (self._clock() - began_s) * 1_000
        return Written(outcomes, round_trip_ms, reconnected, isinstance(error, _OutOfTime))

    async def _attempt(
        self, pending: list[Call], outcomes: list[Outcome], end_s: float
    ) -> StoreUnavailable | None:
        """Send what is pending; a call that got its reply is taken off, whatever comes later."""
        try:
            wire = await self._opened(end_s)
            await self._exchange(wire, pending, outcomes, end_s, b"EVALSHA", DIGEST)
            if pending:
                # The server does not hold the script (a restart, SCRIPT FLUSH): EVAL brings it.
                self._check_time(end_s)
                await self._exchange(wire, pending, outcomes, end_s, b"EVAL", SCRIPT)
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
            opening = open_wire(self._server, self._connect)
            self._wire = await self._within(end_s, "connecting", opening)
            self._check_time(end_s)
        return self._wire

    async def _exchange(
        self,
        wire: Wire,
        pending: list[Call],
        outcomes: list[Outcome],
        end_s: float,
        *script: bytes,
    ) -> None:
        calls = list(pending)
        pending.clear()
        unanswered = iter(calls)

        def settle(reply: object) -> None:
            call = next(unanswered)
            if (
                script[0] == b"EVALSHA"
                and isinstance(reply, ReplyError)
                and reply.word == "NOSCRIPT"
            ):
                pending.append(call)
            else:
                self._settle(call, reply, outcomes)

        commands = [(*script, *c.arguments) if c.fenced else c.arguments for c in calls]
        try:
            await self._within(end_s, "waiting for the answer", wire.exchange(commands, settle))
        finally:
            pending += unanswered

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
            refuse(reply, self._server, "EVALSHA" if call.fenced else call.arguments[0].decode())
            return Outcome("failed", reply.word, "refused by the server")
        if call.fenced:
            assert reply in (0, 1), "the script answers applied, fenced or an error"
            return APPLIED if reply == 1 else FENCED
        return APPLIED

    def _check_time(self, end_s: float) -> None:
        if (end_s - self._clock()) * 1_000 < SEND_LEFT_MS_MIN:
            raise _OutOfTime

    def close(self) -> None:
        """Throw the connection away; the next apply opens a new one."""
        if self._wire is not None:
            self._wire.abandon()
            self._wire = None


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


def _fail(pending: Sequence[Call], outcomes: list[Outcome], error: StoreUnavailable) -> None:
    failed = Outcome("failed", error.error, error.reason)
    for call in pending:
        for at in call.entries:
            outcomes[at] = failed
