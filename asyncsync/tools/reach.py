"""Connects to the copy's server before any work: a server that is away is known at once."""

from __future__ import annotations

from asyncsync.connection import ReplyError, refuse
from asyncsync.errors import StoreUnavailable
from asyncsync.mirror import Mirror
from asyncsync.transport_asyncio import asyncio_transport, connect

# A user may not be allowed to PING, or the command may be renamed: then there is an answer, too.
_ANSWERS = ("NOPERM", "LOADING", "MASTERDOWN", "BUSY")


async def reach(mirror: Mirror) -> None:
    """Connect to the mirror's server and sign in, within the timeout setting.

    Raises StoreUnavailable, or StoreRefused if the server refuses the credentials.
    """
    server = mirror.config.server
    transport = asyncio_transport(mirror._connect or connect)  # noqa: SLF001 (the user's, if any)
    client = mirror.new_client(server, transport)
    try:
        reply = await client.ask((b"PING",), float("inf"))
    except StoreUnavailable as exc:
        raise StoreUnavailable(f"Redis at {server.address}", reason_of(exc)) from exc
    finally:
        client.close()
    if not isinstance(reply, ReplyError) or reply.word in _ANSWERS:
        return
    refuse(reply, server, "PING")
    if "unknown command" not in str(reply):
        raise StoreUnavailable(f"Redis at {server.address}", str(reply))


def reason_of(error: StoreUnavailable) -> str:
    """Return why a server cannot be reached, with the system's own words where there are some."""
    if error.timed_out:
        return "it does not answer: check the network path to it"
    cause = " ".join(str(error.__cause__ or "").split())
    return f"{error.reason}: {cause}" if cause else f"{error.error}: {error.reason}"
