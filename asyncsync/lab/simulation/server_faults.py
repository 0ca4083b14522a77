"""The faults of the server and of the requests to it.

The oracle learns which keys a fault destroyed. Only the design's exceptions may destroy any: a
restart without data, a failover that loses the last writes, evicted fences.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random

from asyncsync.lab.simulation.faults import Fault, Faults
from asyncsync.lab.simulation.model_commands import Command, never
from asyncsync.lab.simulation.model_server import ModelServer
from asyncsync.lab.simulation.network import Fate, Network, SimulatedConnection
from asyncsync.lab.simulation.oracle import Oracle
from asyncsync.lab.simulation.sandbox import SimulatedProcess
from asyncsync.lab.simulation.virtual_time import VirtualLoop

_FENCE_SUFFIX = b"}!f"
SMALL_CACHE_EVICTS = 0.5  # the share of changes and reads at which it evicts a key
_SCRIPTS = (b"EVALSHA", b"EVAL")


class ServerFaults:
    """One server, the connections to it, and their faults."""

    def __init__(
        self,
        faults: Faults,
        loop: VirtualLoop,
        say: Callable[..., None],
        server: ModelServer,
        oracle: Oracle,
    ) -> None:
        self.network = Network(loop, self._execute, self._choose)
        self._server = server
        self._oracle = oracle
        self._faults = faults
        self._chance: Random = faults.chance
        self._loop = loop
        self._say = say
        self._effects: dict[Fault, Callable[[], None]] = {
            Fault.SCRIPTS_LOST: self._forget_scripts,
            Fault.RESTART: self._restart,
            Fault.RESTART_EMPTY: self._restart_empty,
            Fault.FAILOVER: self._fail_over,
            Fault.FENCES_EVICTED: partial(self._evict, are_fences=True),
            Fault.VALUES_EVICTED: partial(self._evict, are_fences=False),
            Fault.OOM: partial(self._refuse, "full", self._set_full),
            Fault.LOADING: partial(self._refuse, "loading", self._set_loading),
            Fault.READONLY: partial(self._refuse, "read-only", self._set_read_only),
            Fault.NAME_MOVES: self._move_name,
        }

    # --- requests ------------------------------------------------------------------------------

    def _execute(self, command: Command, connection: SimulatedConnection) -> bytes:
        is_read_only = self._server.read_only
        self._server.read_only = is_read_only or connection.is_demoted
        reply = self._server.execute(command, self._loop.wall_ms())
        self._server.read_only = is_read_only
        self._say("    server: %s %s", command[0].decode(), _short(reply))
        if self._server.changed:
            owner: SimulatedProcess = connection.owner
            self._oracle.ran(
                self._server.changed, connection.allowed, renews_fences=owner.renews_fences
            )
        return reply

    def _choose(self, data: bytes, connection: SimulatedConnection) -> Fate:
        process: SimulatedProcess = connection.owner
        process.sent += connection.answered  # a long request is sent in parts
        connection.answered = False
        process.check_send()
        connection.allowed = process.allowed
        if process.kill_when_sent:
            self._loop.call_soon(process.kill)
        is_exposed = self._chance.random() < process.exposure
        fate = self._fate(len(data)) if is_exposed else Fate()
        if fate == Fate():
            fate = Fate(late_s=process.extra_latency_s())
        if fate != Fate():
            self._say("    network: %s", fate)
        return fate

    def _fate(self, size: int) -> Fate:
        strikes, chance = self._faults.strikes, self._chance
        if strikes(Fault.REQUEST_CUT):
            return Fate(cut_request=chance.randrange(size))
        if strikes(Fault.REQUEST_LOST):
            return Fate(arrives=False)
        late_s = 0.0
        if strikes(Fault.REQUEST_LATE):
            late_s = chance.uniform(0.3, 30.0)
        elif strikes(Fault.CONNECTION_SLOW):
            late_s = chance.uniform(0.001, 1.5)
        pieces: tuple[int, ...] = ()
        if strikes(Fault.REQUEST_IN_PIECES):
            pieces = tuple(sorted(chance.randrange(size) for _ in range(chance.randint(1, 3))))
        if strikes(Fault.REPLY_LOST):
            return Fate(late_s, pieces=pieces, answered=False)
        if strikes(Fault.REPLY_CUT):
            return Fate(late_s, pieces=pieces, cut_reply=chance.randrange(1_000))
        return Fate(late_s, pieces=pieces)

    # --- faults of the server ------------------------------------------------------------------

    def strike(self) -> None:
        """Let each fault of the server strike if its chance comes up."""
        for fault, strike in self._effects.items():
            if self._faults.strikes(fault):
                strike()

    def _forget_scripts(self) -> None:
        self._say("SERVER  forgets its scripts")
        self._server.scripts.clear()

    def _restart(self) -> None:
        self.network.drop_all()
        self.network.is_up = False
        self._server.scripts.clear()
        down_s = self._chance.uniform(0.01, 6.0)
        self._say("SERVER  down for %.2f s", down_s)
        self._loop.call_later(down_s, self._up)

    def _restart_empty(self) -> None:
        self._restart()
        self._destroyed(self._server.lose_all())

    def _fail_over(self) -> None:
        self._restart()
        self._destroyed(self._server.lose_last(self._chance.randint(1, 8)), is_older=True)

    def _up(self) -> None:
        self.network.is_up = True
        self._say("SERVER  up")

    def _move_name(self) -> None:
        """Fail over to a node that lacks nothing; the old one stays up as its replica."""
        self._say("SERVER  its name moves to another node, the old one stays as a replica")
        self._server.scripts.clear()
        self.network.demote_all()

    def _evict(self, *, are_fences: bool) -> None:
        keys = [name for name in self._server.keys if name.endswith(_FENCE_SUFFIX) == are_fences]
        evicted = self._chance.sample(keys, min(len(keys), self._chance.randint(1, 3)))
        for name in evicted:
            self._server.evict(name)
        self._destroyed(evicted)

    def evict_any(self) -> None:
        """Evict a key of any kind, as a small cache does, if its chance comes up."""
        if self._server.keys and self._chance.random() < SMALL_CACHE_EVICTS:
            name = self._chance.choice(list(self._server.keys))
            self._server.evict(name)
            self._destroyed([name])

    def _destroyed(self, names: list[bytes], *, is_older: bool = False) -> None:
        items = self._oracle.damaged(names, is_older=is_older)
        self._say("SERVER  lost %d keys, of %d items", len(names), items)

    def _refuse(self, state: str, set_state: Callable[[bool], None]) -> None:
        """Put the server into a state in which it refuses commands, for a few seconds."""
        seconds = self._chance.uniform(0.1, 5.0)
        self._say("SERVER  %s for %.2f s", state, seconds)
        set_state(True)
        self._loop.call_later(seconds, set_state, False)

    def _set_full(self, is_full: bool) -> None:
        self._server.is_full = (lambda: self._chance.random() < 0.5) if is_full else never

    def _set_loading(self, is_loading: bool) -> None:
        self._server.loading = is_loading

    def _set_read_only(self, is_read_only: bool) -> None:
        self._server.read_only = is_read_only

    def heal(self) -> None:
        """End every state in which the server refuses commands; its data stays."""
        self.network.is_up = True
        self._set_full(False)
        self._set_loading(False)
        self._set_read_only(False)


def _short(reply: bytes) -> str:
    words = reply.decode(errors="replace").split("\r\n")
    text = " ".join([_without_nonce(word) for word in words])
    return text if len(text) <= 60 else f"{text[:60]}..."


def _without_nonce(word: str) -> str:
    """Leave out a repair's nonce: it differs each time and changes nothing."""
    is_fence = len(word) > 17 and word.isdigit() and word[0] == "1"
    return word[: 17 + int(word[14:16])] if is_fence else word
