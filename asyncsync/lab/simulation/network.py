"""Simulated connections: bytes arrive late, in part, or never.

The code under test sees asyncio's streams. A request that was sent cannot be taken back: it may
still arrive after its sender gave up, and then the server runs it. So a write that timed out
comes back as a zombie.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import hiredis

from asyncsync.lab.simulation.model_commands import Command
from asyncsync.lab.simulation.virtual_time import VirtualLoop
from asyncsync.transport_asyncio import Streams

ONE_WAY_S = 0.000_25  # within one availability zone


@dataclass(frozen=True, slots=True)
class Fate:
    """What happens to one request and its reply; delays are seconds beyond the usual latency."""

    late_s: float = 0.0
    cut_request: int | None = None  # this many bytes arrive, then the connection breaks
    arrives: bool = True
    pieces: tuple[int, ...] = ()  # where it is divided into pieces that arrive apart
    cut_reply: int | None = None
    answered: bool = True


Execute = Callable[[Command, "SimulatedConnection"], bytes]
Choose = Callable[[bytes, "SimulatedConnection"], Fate]


class SimulatedConnection:
    """One connection with both ends."""

    def __init__(self, loop: VirtualLoop, network: Network, owner: Any) -> None:
        self.owner = owner  # the process that opened it
        self.allowed: Mapping[bytes, object] | None = None  # names its last request may touch
        self.answered = True  # since the last request: the next one begins a round trip
        self.silent = False  # loses everything that is sent, without an error
        self.is_open = True  # at the server's end
        self.is_demoted = False  # it leads to a node that has become a replica
        self._loop = loop
        self._network = network
        self._is_mute = False
        self._arrives_s = 0.0  # when the last byte so far reaches the server
        self._requests = hiredis.Reader()
        self.reader = asyncio.StreamReader(loop=loop)
        self._protocol = asyncio.StreamReaderProtocol(self.reader, loop=loop)
        self._transport = _Transport(self)
        self.writer = asyncio.StreamWriter(self._transport, self._protocol, self.reader, loop)

    # --- the client's end ----------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Take bytes from the client and apply their fate."""
        fate = self._network.choose(data, self)
        # Bytes behind lost ones are lost, too: a stream has no holes.
        self.silent = self.silent or not fate.arrives
        if self.silent:
            return
        if fate.cut_request is not None:
            self._arrive(data[: fate.cut_request], fate, breaks=True)
            return
        edges = [0, *fate.pieces, len(data)]
        for at, first in enumerate(edges[:-1]):
            self._arrive(data[first : edges[at + 1]], fate, breaks=False)

    def _arrive(self, data: bytes, fate: Fate, *, breaks: bool) -> None:
        due_s = max(self._loop.time() + ONE_WAY_S + fate.late_s, self._arrives_s + ONE_WAY_S)
        self._arrives_s = due_s
        self._network.under_way += 1
        self._loop.call_at(due_s, self._arrived, data, fate, breaks)

    # --- the server's end ----------------------------------------------------------------------

    def _arrived(self, data: bytes, fate: Fate, breaks: bool) -> None:
        self._network.under_way -= 1
        if not self.is_open:
            return
        self._requests.feed(data)
        replies = []
        while (command := self._requests.gets()) is not False:
            replies.append(self._network.execute(command, self))
        reply = b"".join(replies)
        if reply and not fate.answered:
            self._is_mute = True
        if reply and not self._is_mute:
            cut = fate.cut_reply
            self._is_mute = cut is not None  # nothing arrives behind the cut
            part = reply if cut is None else reply[: cut % len(reply)]
            self._loop.call_later(ONE_WAY_S + fate.late_s, self._receive, part, cut is not None)
        if breaks:
            self.drop()

    def _receive(self, data: bytes, breaks: bool) -> None:
        """Deliver a reply to the client, unless the client has closed its end meanwhile."""
        self.answered = True
        if not self._transport.is_closing():
            self.reader.feed_data(data)
        if breaks:
            self.drop()

    def drop(self) -> None:
        """Break the connection at the server's end; the client notices one latency later."""
        if self.is_open:
            self.is_open = False
            self._loop.call_later(ONE_WAY_S, self._broken)

    def _broken(self) -> None:
        if self._transport.is_closing():
            return
        self._transport.abort()
        # Every second break is an orderly close: a read then finds the end of the stream.
        self._network.broken += 1
        if self._network.broken % 2:
            self.reader.set_exception(ConnectionResetError())
        else:
            self.reader.feed_eof()


class _Transport(asyncio.Transport):
    """asyncio's transport of a connection."""

    def __init__(self, connection: SimulatedConnection) -> None:
        super().__init__()
        self._connection = connection
        self._closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if data and not self._closing:
            self._connection.send(bytes(data))

    def is_closing(self) -> bool:
        return self._closing

    def abort(self) -> None:
        self._closing = True

    close = abort


class Network:
    """All connections; `choose` decides fates, `execute` is the server."""

    def __init__(self, loop: VirtualLoop, execute: Execute, choose: Choose) -> None:
        self.execute = execute
        self.choose = choose
        self.is_up = True  # accepts connections
        self.under_way = 0  # pieces that have not arrived
        self.broken = 0  # connections that broke while their client held them
        self.connections: list[SimulatedConnection] = []
        self._loop = loop

    def open(self, owner: Any) -> SimulatedConnection:
        """Open a connection at once; the caller has waited."""
        connection = SimulatedConnection(self._loop, self, owner)
        self.connections.append(connection)
        return connection

    def close(self) -> None:
        """Close every client's end, as when its process ends."""
        for connection in self.connections:
            connection.writer.transport.abort()

    def demote_all(self) -> None:
        """Let every connection lead to a replica; only new ones lead to the primary."""
        for connection in self.connections:
            connection.is_demoted = True

    def drop_all(self) -> None:
        """Break every connection; bytes on their way are lost."""
        for connection in self.connections:
            connection.drop()


def streams(connection: SimulatedConnection) -> Streams:
    """Return a connection as asyncio's streams."""
    return connection.reader, connection.writer
