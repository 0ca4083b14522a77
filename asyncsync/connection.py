"""One connection: open, sign in, send commands, receive replies.

hiredis speaks the protocol, over any transport: a blocking socket (transport.py) or asyncio's
streams (transport_asyncio.py). redis-py stays out: it doubles what a cold start imports, and
Lambda bills that. No method waits past the time its caller allows.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol, TypeAlias

import hiredis

from asyncsync.config import Server
from asyncsync.errors import StoreRefused, StoreUnavailable

if TYPE_CHECKING:
    from ssl import SSLContext

TimeLeft: TypeAlias = Callable[[], float]  # seconds left before the caller must give up
Password: TypeAlias = Callable[[], str]
Commands: TypeAlias = Iterable[tuple[bytes | str, ...]]
Take: TypeAlias = Callable[[object], None]  # what to do with each reply

READ_BYTES = 65_536  # most that any transport reads at once

# Packed commands go out in pieces of at least this size: small ones share a system call.
_WRITE_BYTES = 65_536
_REASON_CHARACTERS = 200
_REFUSAL_WORDS = ("NOAUTH", "WRONGPASS", "NOPERM")

# Refusals that only the words of an error show: a script's command that the user may not run
# (Redis 7, then Valkey 8), a password that nobody wants, and a large command before sign-in.
_REFUSAL_SIGNS = re.compile(
    r"ERR (?:Error running script .*: )?(?:The user executing the script can't"
    r"|ACL failure in script|AUTH <password>|Client sent AUTH|Protocol error: unauthenticated)"
)

BROKEN = "the connection broke"
REFUSED = "refused by the server"

# Redis 6.2 puts a place before an error in a script: "@user_script: 25: -OOM command not ...".
_PLACE = re.compile(r"@user_script: \d+: (?:-(\w+))?")


class ReplyError(Exception):
    """The server's error reply to one command."""

    @classmethod
    def in_script(cls, text: str) -> ReplyError:
        """Return the error that a script caught; Redis 6.2 puts the script's line before it."""
        text = re.sub(r"^(?:@user_script: ?\d+: )?-?", "", text)
        return cls(text if text.split(" ", 1)[0].isupper() else f"ERR {text}")

    @property
    def word(self) -> str:
        """Return the error's code: its first word, or, before Redis 7, that after the place."""
        place = _PLACE.match(str(self))
        return str(self).split(" ", 1)[0] if place is None else place[1] or "ERR"

    def reason(self, arguments: Iterable[bytes] = ()) -> str:
        """Return what the server said after a mere ERR, without any of the command's arguments."""
        if self.word != "ERR":
            return REFUSED
        text = str(self)[4:].partition(", with args")[0]
        for argument in arguments:
            if len(argument) > 2:
                text = text.replace(argument.decode(errors="replace"), "...")
        # What is quoted and no plain word, such as a command's, may be part of an argument.
        return re.sub(r"(['\"`])(?![A-Za-z]+\1).*?\1", "...", text)[:_REASON_CHARACTERS] or REFUSED


class Transport(Protocol):
    """An open connection that carries bytes; each method raises OSError if it broke."""

    async def write(self, data: bytes) -> None:
        """Send what goes at once; keep the rest for the next write or read."""

    async def read(self, time_left: TimeLeft) -> bytes:
        """Wait for bytes; return none at the end of the stream. Raises TimeoutError."""

    def abort(self) -> None:
        """Close the connection at once and drop unsent bytes."""


# Raises OSError or TimeoutError.
OpenTransport: TypeAlias = Callable[[Server, TimeLeft], Awaitable[Transport]]


class Connection:
    """One open connection; do not use it again after an exception.

    Its methods raise StoreUnavailable as soon as the connection broke or time is over.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.abandon = transport.abort
        self._parser = hiredis.Reader(replyError=ReplyError, notEnoughData=self)

    async def exchange(self, commands: Commands, time_left: TimeLeft) -> list[object]:
        """Send commands and return their replies."""
        replies: list[object] = []
        await self.receive(await self.send(commands), replies.append, time_left)
        return replies

    async def send(self, commands: Commands) -> int:
        """Send commands without waiting; return how many.

        The first ones are on their way while `commands` still makes the later ones.
        """
        count = size = 0
        packed: list[bytes] = []
        with _map_errors(BROKEN, "no answer in time"):
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

    async def receive(self, count: int, take: Take, time_left: TimeLeft) -> None:
        """Pass so many replies to `take`, in order, each as it comes."""
        with _map_errors(BROKEN, "no answer in time"):
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
def _map_errors(broken: str, silent: str) -> Iterator[None]:
    try:
        yield
    except TimeoutError as exc:
        raise StoreUnavailable("TimeoutError", silent, timed_out=True) from exc
    except OSError as exc:
        raise StoreUnavailable(type(exc).__name__, broken) from exc
    except hiredis.ProtocolError as exc:
        reason = "the server does not speak Redis's protocol"
        raise StoreUnavailable("ProtocolError", reason) from exc


async def open_connection(
    server: Server, open_transport: OpenTransport, password: Password, time_left: TimeLeft
) -> Connection:
    """Connect, and sign in with the password of this moment.

    Raises StoreUnavailable, or StoreRefused if the server refuses the credentials.
    """
    secret = password()
    with _map_errors("cannot connect", "no connection in time"):
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
    replies = await connection.exchange(commands, time_left)
    for (command, *arguments), reply in zip(commands, replies, strict=True):
        if isinstance(reply, ReplyError):
            refuse(reply, server, command)
            raise StoreUnavailable(reply.word, reply.reason([each.encode() for each in arguments]))


def refuse(reply: ReplyError, server: Server, command: str) -> None:
    """Raise StoreRefused if a reply is about credentials or permissions."""
    if reply.word in _REFUSAL_WORDS or _REFUSAL_SIGNS.match(str(reply)):
        shown = reply.reason() if reply.word == "ERR" else reply.word
        raise StoreRefused(
            f"{server.address} refused user {server.user!r} the command {command}: {shown}; "
            "see ASYNCSYNC_REDIS_URL, ASYNCSYNC_REDIS_PASSWORD or ASYNCSYNC_REDIS_IAM_CACHE, "
            "or the user's permissions"
        )


@lru_cache(maxsize=4)
def tls_context(ca_file: str | None) -> SSLContext:
    """Trust the system's authorities, or only a private one."""
    import ssl  # 12 ms that only TLS pays

    return ssl.create_default_context(cafile=ca_file)
