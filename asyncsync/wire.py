"""The connection: open, sign in, exchange; bytes out, replies in.

Streams of asyncio with hiredis for the protocol. redis-py is not imported here: it doubles
what a cold start imports, and Lambda bills that. No method waits longer than it is let: the
caller holds the deadline and cancels.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

import hiredis

from asyncsync.config import Server
from asyncsync.errors import StoreRefused, StoreUnavailable

if TYPE_CHECKING:
    from ssl import SSLContext

Streams: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect: TypeAlias = Callable[[Server], Awaitable[Streams]]
Password: TypeAlias = Callable[[], str]

_READ_BYTES = 65_536

# What is packed goes out in pieces of this much or more: small commands share a system call.
_WRITE_BYTES = 65_536
_REFUSAL_WORDS = ("NOAUTH", "WRONGPASS", "NOPERM")

# Where they say it in words: a script's command that is not the user's to run (Redis 7, then
# Valkey 8), and a password where none or another is wanted.
_REFUSAL_SIGNS = ("executing the script can't", "ACL failure in script", "password")


class ReplyError(Exception):
    """The server's error reply to one command."""

    @property
    def word(self) -> str:
        """Return the first word, which is the error's code."""
        return str(self).split(" ", 1)[0]


class ProtocolError(Exception):
    """The other side does not speak Redis's protocol."""


class Wire:
    """One open connection; after any exception it is of no further use."""

    def __init__(self, streams: Streams) -> None:
        self._reader, self._writer = streams
        self._loop = asyncio.get_running_loop()
        self._parser = hiredis.Reader(
            protocolError=ProtocolError, replyError=ReplyError, notEnoughData=self
        )

    async def exchange(
        self, commands: Iterable[tuple[bytes | str, ...]], settle: Callable[[object], None]
    ) -> None:
        """Send commands and hand over each reply, in order, as it comes.

        Raises StoreUnavailable as soon as the connection is of no use.
        """
        await self.receive(await self.send(commands), settle)

    async def send(self, commands: Iterable[tuple[bytes | str, ...]]) -> int:
        """Send commands and return how many; waits for nobody.

        What has been packed is on its way while later commands are still being made.
        Raises StoreUnavailable as soon as the connection is of no use.
        """
        count = size = 0
        packed: list[bytes] = []
        with _told():
            for command in commands:
                count += 1
                # hiredis's stub knows tuples of one element only.
                packed.append(hiredis.pack_command(command))  # type: ignore[arg-type]
                size += len(packed[-1])
                if size >= _WRITE_BYTES:
                    self._write(packed)
                    packed, size = [], 0
                    await asyncio.sleep(0)  # one turn of the loop, for what did not go out at once
            if packed:
                self._write(packed)
        return count

    def _write(self, packed: list[bytes]) -> None:
        if self._writer.transport.is_closing():
            raise ConnectionResetError
        self._writer.write(b"".join(packed))

    async def receive(self, count: int, settle: Callable[[object], None]) -> None:
        """Hand over so many replies, in order, each as it comes.

        Raises StoreUnavailable as soon as the connection is of no use.
        """
        with _told():
            for _ in range(count):
                settle(await self._reply())

    async def _reply(self) -> object:
        reply: object = self._parser.gets()
        while reply is self:
            received = await self._reader.read(_READ_BYTES)
            if not received:
                raise ConnectionResetError
            self._parser.feed(received)
            reply = self._parser.gets()
        return reply

    def abandon(self) -> None:
        """Throw the socket away; what is unsent in it is dropped."""
        if not self._loop.is_closed():
            self._writer.transport.abort()


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise StoreUnavailable(type(exc).__name__, "the connection broke") from exc
    except ProtocolError as exc:
        reason = "the server does not speak Redis's protocol"
        raise StoreUnavailable("ProtocolError", reason) from exc


async def open_wire(server: Server, connect: Connect, password: Password) -> Wire:
    """Connect and sign in with the password of this moment.

    Raises StoreUnavailable, or StoreRefused where the server refuses the credentials.
    """
    secret = password()
    try:
        wire = Wire(await connect(server))
    except OSError as exc:
        raise StoreUnavailable(type(exc).__name__, "cannot connect") from exc
    commands: list[tuple[bytes | str, ...]] = []
    if secret:
        user = (server.username,) if server.username else ()
        commands.append(("AUTH", *user, secret))
    if server.database:
        commands.append(("SELECT", str(server.database)))
    if not commands:
        return wire
    replies: list[object] = []
    try:
        await wire.exchange(commands, replies.append)
        for command, reply in zip(commands, replies, strict=True):
            if isinstance(reply, ReplyError):
                refuse(reply, server, str(command[0]))
                raise StoreUnavailable(reply.word, f"the server refused {command[0]!r}")
    except BaseException:
        wire.abandon()
        raise
    return wire


def refuse(reply: ReplyError, server: Server, command: str) -> None:
    """Raise StoreRefused where a reply is about credentials or permissions."""
    if reply.word in _REFUSAL_WORDS or any(sign in str(reply) for sign in _REFUSAL_SIGNS):
        raise StoreRefused(
            f"{server.address} refused user {server.user!r} the command {command}: {reply.word}; "
            "see ASYNCSYNC_REDIS_URL, ASYNCSYNC_REDIS_PASSWORD or ASYNCSYNC_REDIS_IAM_CACHE, "
            "or the user's permissions"
        )


async def connect(server: Server) -> Streams:
    """Open the streams of a server: unix socket, TCP or TLS."""
    if server.path:
        return await asyncio.open_unix_connection(server.path)
    context = tls_context(server.ca_file) if server.tls else None
    return await asyncio.open_connection(server.host, server.port, ssl=context)


@lru_cache(maxsize=4)
def tls_context(ca_file: str | None) -> SSLContext:
    """Trust the system's authorities, or a private one only."""
    import ssl  # 12 ms that only TLS pays

    return ssl.create_default_context(cafile=ca_file)
