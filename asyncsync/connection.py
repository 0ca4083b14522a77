"""The connection: open, sign in, exchange; commands out, replies in.

hiredis for the protocol, over any transport: a socket of its own (transport.py) or asyncio's
streams (transport_asyncio.py). redis-py is not imported here: it doubles what a cold start
imports, and Lambda bills that. No method waits longer than it is let: the caller says what time
is left.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol, TypeAlias

import hiredis

from asyncsync.config import Server
from asyncsync.errors import StoreRefused, StoreUnavailable

if TYPE_CHECKING:
    from ssl import SSLContext

TimeLeft: TypeAlias = Callable[[], float]  # seconds until whoever waits must have given up
Password: TypeAlias = Callable[[], str]

READ_BYTES = 65_536  # at once, by every transport

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


class Transport(Protocol):
    """An open connection that carries bytes; each method raises OSError where it broke."""

    async def write(self, data: bytes) -> None:
        """Send what goes at once and keep the rest, which goes while others wait or write."""

    async def read(self, time_left: TimeLeft) -> bytes:
        """Wait for bytes as long as there is time left; none where the other side has ended.

        Raises TimeoutError.
        """

    def abort(self) -> None:
        """Throw the connection away; what is unsent is dropped."""


OpenTransport: TypeAlias = Callable[
    [Server, TimeLeft], Awaitable[Transport]
]  # raises OSError, TimeoutError


class Connection:
    """One open connection; after any exception it is of no further use."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.abandon = transport.abort
        self._parser = hiredis.Reader(
            protocolError=ProtocolError, replyError=ReplyError, notEnoughData=self
        )

    async def exchange(
        self,
        commands: Iterable[tuple[bytes | str, ...]],
        take: Callable[[object], None],
        time_left: TimeLeft,
    ) -> None:
        """Send commands and hand over each reply, in order, as it comes.

        Raises StoreUnavailable as soon as the connection is of no use, and TimeoutError.
        """
        await self.receive(await self.send(commands), take, time_left)

    async def send(self, commands: Iterable[tuple[bytes | str, ...]]) -> int:
        """Send commands and return how many; waits for nobody.

        What has been packed is on its way while later commands are still being made.
        Raises StoreUnavailable as soon as the connection is of no use.
        """
        count = size = 0
        packed: list[bytes] = []
        with _map_errors("the connection broke", "no answer waiting for the answer"):
            for command in commands:
                count += 1
                # hiredis's stub knows tuples of one element only.
                packed.append(hiredis.pack_command(command))  # type: ignore[arg-type]
                size += len(packed[-1])
                if size >= _WRITE_BYTES:
                    await self._transport.write(b"".join(packed))
                    packed, size = [], 0
            if packed:
                await self._transport.write(b"".join(packed))
        return count

    async def receive(
        self, count: int, take: Callable[[object], None], time_left: TimeLeft
    ) -> None:
        """Hand over so many replies, in order, each as it comes.

        Raises StoreUnavailable as soon as the connection is of no use, and TimeoutError.
        """
        with _map_errors("the connection broke", "no answer waiting for the answer"):
            for _ in range(count):
                take(await self._reply(time_left))

    async def _reply(self, time_left: TimeLeft) -> object:
        reply: object = self._parser.gets()
        while reply is self:
            received = await self._transport.read(time_left)
            if not received:
                raise ConnectionResetError
            self._parser.feed(received)
            reply = self._parser.gets()
        return reply


@contextmanager
def _map_errors(broke: str, silent: str) -> Iterator[None]:
    try:
        yield
    except TimeoutError as exc:
        raise StoreUnavailable("TimeoutError", silent, timed_out=True) from exc
    except OSError as exc:
        raise StoreUnavailable(type(exc).__name__, broke) from exc
    except ProtocolError as exc:
        reason = "the server does not speak Redis's protocol"
        raise StoreUnavailable("ProtocolError", reason) from exc


async def open_connection(
    server: Server, open_transport: OpenTransport, password: Password, time_left: TimeLeft
) -> Connection:
    """Connect and sign in with the password of this moment.

    Raises StoreUnavailable, or StoreRefused where the server refuses the credentials.
    """
    secret = password()
    with _map_errors("cannot connect", "no answer connecting"):
        connection = Connection(await open_transport(server, time_left))
    try:
        await _sign_in(connection, server, secret, time_left)
    except BaseException:
        connection.abandon()
        raise
    return connection


async def _sign_in(
    connection: Connection, server: Server, secret: str, time_left: TimeLeft
) -> None:
    commands: list[tuple[str, ...]] = []
    if secret:
        user = (server.username,) if server.username else ()
        commands.append(("AUTH", *user, secret))
    if server.database:
        commands.append(("SELECT", str(server.database)))
    replies: list[object] = []
    await connection.exchange(commands, replies.append, time_left)
    for (command, *_), reply in zip(commands, replies, strict=True):
        if isinstance(reply, ReplyError):
            refuse(reply, server, command)
            raise StoreUnavailable(reply.word, f"the server refused {command!r}")


def refuse(reply: ReplyError, server: Server, command: str) -> None:
    """Raise StoreRefused where a reply is about credentials or permissions."""
    if reply.word in _REFUSAL_WORDS or any(sign in str(reply) for sign in _REFUSAL_SIGNS):
        raise StoreRefused(
            f"{server.address} refused user {server.user!r} the command {command}: {reply.word}; "
            "see ASYNCSYNC_REDIS_URL, ASYNCSYNC_REDIS_PASSWORD or ASYNCSYNC_REDIS_IAM_CACHE, "
            "or the user's permissions"
        )


@lru_cache(maxsize=4)
def tls_context(ca_file: str | None) -> SSLContext:
    """Trust the system's authorities, or a private one only."""
    import ssl  # 12 ms that only TLS pays

    return ssl.create_default_context(cafile=ca_file)
