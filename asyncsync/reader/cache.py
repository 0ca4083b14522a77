"""Asks Redis for a reader, through redis-py: bounded in time, behind a circuit, never raising.

Whatever goes wrong is a NoAnswer, because a cache's trouble must not be its reader's. Only a
server that does not answer moves the circuit: one that refuses a command is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha1
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from redis.exceptions import (
    ClusterError,
    MaxConnectionsError,
    NoScriptError,
    RedisClusterException,
    RedisError,
    ResponseError,
)

from asyncsync.keys import slot
from asyncsync.reader.circuit import Circuit
from asyncsync.reader.counters import ReaderCounters
from asyncsync.reader.limits import CONNECTIONS_MAX, MGET_KEYS_MAX
from asyncsync.reader.protocol import Arguments
from asyncsync.store import Clock

if TYPE_CHECKING:
    from redis.asyncio import Redis, RedisCluster

    RedisClient: TypeAlias = Redis | RedisCluster

T = TypeVar("T")


class NoAnswer:
    """Stands for a reply that did not come, or was an error."""


NO_ANSWER: Final = NoAnswer()

# TimeoutError is an OSError.
_FAILURES = (RedisError, RedisClusterException, OSError)


class Script:
    """A Lua script and the digest that EVALSHA knows it by."""

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.digest = sha1(text, usedforsecurity=False).hexdigest()


class Cache:
    """One Redis server or cluster, as far as a reader uses it."""

    def __init__(
        self,
        client: RedisClient,
        timeout_s: float,
        counters: ReaderCounters,
        clock: Clock,
    ) -> None:
        self.circuit = Circuit()
        self.last_error = ""
        self._client: Any = client
        self._is_cluster = hasattr(client, "nodes_manager")
        self._timeout_s = timeout_s
        self._counters = counters
        self._clock = clock
        # A pool that is full raises, so more requests than that wait here.
        self._turns = asyncio.Semaphore(min(CONNECTIONS_MAX, _connections_max(client)))

    async def get(self, name: bytes) -> bytes | NoAnswer | None:
        """Read one value with a plain GET."""
        value: bytes | NoAnswer | None = await self._ask(self._client.get, name)
        return value

    async def get_many(self, names: Sequence[bytes]) -> Sequence[bytes | NoAnswer | None]:
        """Read values: one MGET, or on a cluster one pipeline per node with an MGET per slot."""
        values: list[bytes | NoAnswer | None] = []
        for first in range(0, len(names), MGET_KEYS_MAX):
            values += await self._get_some(names[first : first + MGET_KEYS_MAX])
        return values

    async def _get_some(self, names: Sequence[bytes]) -> Sequence[bytes | NoAnswer | None]:
        if not self._is_cluster:
            values = await self._ask(self._client.mget, names)
            return [NO_ANSWER] * len(names) if isinstance(values, NoAnswer) else values
        by_slot: dict[int, list[int]] = {}
        for at, name in enumerate(names):
            by_slot.setdefault(slot(name), []).append(at)
        places = list(by_slot.values())
        replies = await self._pipeline([("MGET", *[names[at] for at in each]) for each in places])
        results: list[bytes | NoAnswer | None] = [NO_ANSWER] * len(names)
        for each, reply in zip(places, replies, strict=True):
            if isinstance(reply, list):
                for at, value in zip(each, reply, strict=True):
                    results[at] = value
        return results

    async def run(self, script: Script, calls: Sequence[Arguments]) -> Sequence[Any]:
        """Run a script once for each of the arguments, in one round trip (per node)."""
        commands = [("EVALSHA", script.digest, *arguments) for arguments in calls]
        replies = list(await self._pipeline(commands))
        again = [at for at, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if again:
            retried = await self._pipeline([("EVAL", script.text, *calls[at]) for at in again])
            for at, reply in zip(again, retried, strict=True):
                replies[at] = reply
        return [NO_ANSWER if isinstance(reply, Exception) else reply for reply in replies]

    async def _pipeline(self, commands: Sequence[tuple[Any, ...]]) -> Sequence[Any]:
        """Send commands; a reply may be an exception."""
        if len(commands) == 1:
            reply = await self._ask(self._client.execute_command, *commands[0], keep=NoScriptError)
            return [reply]
        pipeline = self._pipeline_of_client()
        for command in commands:
            pipeline.execute_command(*command)
        replies: list[Any] | NoAnswer = await self._ask(pipeline.execute, raise_on_error=False)
        if isinstance(replies, NoAnswer):
            return [NO_ANSWER] * len(commands)
        for error in [each for each in replies if isinstance(each, Exception)]:
            if not isinstance(error, NoScriptError):
                self._note(error)
        if any(map(_is_away, replies)):
            self._fail()
        return replies

    def _pipeline_of_client(self) -> Any:
        return self._client.pipeline(**({} if self._is_cluster else {"transaction": False}))

    async def _ask(
        self,
        command: Callable[..., Awaitable[Any]],
        *arguments: object,
        keep: type[Exception] | tuple[()] = (),
        **options: object,
    ) -> Any:
        """Send one request; return an error of the kind to keep, NO_ANSWER for any other."""
        async with self._turns:
            if not self.circuit.allows(self._clock()):
                return NO_ANSWER
            try:
                async with asyncio.timeout(self._timeout_s):
                    reply = await command(*arguments, **options)
            except keep as exc:
                self.circuit.succeed()
                return exc
            except _FAILURES as exc:
                self._note(exc)
                if _is_away(exc):
                    self._fail()
                elif isinstance(exc, ResponseError):
                    self.circuit.succeed()
                return NO_ANSWER
            self.circuit.succeed()
            return reply

    def _note(self, error: Exception) -> None:
        self._counters.count("cache_errors")
        self.last_error = f"{type(error).__name__}: {error}".removesuffix(": ")

    def _fail(self) -> None:
        self.circuit.fail(self._clock())


def _is_away(reply: object) -> bool:
    """Return whether an error says that the server is not there, or cannot answer anybody."""
    if isinstance(reply, ResponseError | MaxConnectionsError):
        return isinstance(reply, ClusterError)
    return isinstance(reply, Exception)


def _connections_max(client: RedisClient) -> int:
    """Return how many connections a client's pool allows, on a cluster to each node."""
    allowed = getattr(getattr(client, "connection_pool", client), "max_connections", None)
    kwargs: Any = client.get_connection_kwargs()
    return int(allowed or kwargs.get("max_connections") or CONNECTIONS_MAX)
