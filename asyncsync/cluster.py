"""Stage 5 for a cluster: the same calls, one round trip per node, nodes in parallel.

A call goes to the node that holds its slot, by the topology that any node gives. Where a node
sends it on (MOVED, ASK) it is followed; where a connection is dead the topology is read anew
and the call sent once more. Both are bounded. What one node does costs the entries of its own
slots and no others, and no topology outlives an invocation in which anything failed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from msgspec import Struct, field, structs

from asyncsync.config import Server
from asyncsync.connection import ReplyError, refuse
from asyncsync.errors import StoreRefused, StoreUnavailable
from asyncsync.limits import PORT_MAX, REDIRECTIONS_MAX, SLOTS, TOPOLOGY_ASKED_MAX
from asyncsync.model import Call, Outcome, Written
from asyncsync.store import UNSENT, Client, Job, OutOfTime, fail_calls, is_retryable


class ClusterStore:
    """The nodes of a cluster, each behind one connection."""

    def __init__(self, server: Server, new_client: Callable[[Server], Client]) -> None:
        self._seed_node = server  # a node, or a name that leads to one
        self._new_client = new_client
        self._clients: dict[Server, Client] = {}
        self._known: list[Server] = []  # nodes, replicas too; the one asked last is the last
        self._slot_owners: list[Server | None] = []  # by slot; empty where they are not known

    async def apply(self, calls: Iterable[Call], entry_count: int, end_s: float) -> Written:
        """Write a plan before end_s, on this store's clock; say what became of each entry.

        Raises StoreRefused where a node refuses the user, or is no part of a cluster.
        """
        if not entry_count:
            return Written([], 0.0)
        connected = {node for node, client in self._clients.items() if client.is_open}
        run = _Run(end_s, [UNSENT] * entry_count, connected)
        try:
            await self._write(list(calls), run)
        except BaseException:
            self.close()
            raise
        if any(outcome.kind == "failed" for outcome in run.outcomes):
            self._slot_owners = []
        return Written(run.outcomes, run.round_trip_s * 1_000, run.sent_again, run.out_of_time)

    async def _write(self, calls: Sequence[Call], run: _Run) -> None:
        try:
            if not self._slot_owners:
                await self._load_topology(run)
        except StoreUnavailable as exc:
            run.fail(calls, exc)
            return
        shares = _by_owner(calls, self._slot_owners, run)
        for _ in range(REDIRECTIONS_MAX + 1):
            if not shares:
                return
            attempts = await self._send(shares, run)
            shares = await self._follow(attempts, run)
        for left in shares.values():
            run.fail(left, StoreUnavailable("Redirected", "nodes sent the write on too often"))

    # --- one round trip per node ---------------------------------------------------------------

    async def _send(self, shares: Mapping[Server, list[Call]], run: _Run) -> list[_Attempt]:
        """Send each node its share, all at once; no task is left behind on any way out."""
        attempts = []
        for node, calls in shares.items():
            job = Job(run.end_s, calls, run.outcomes)
            reused = node in run.connected and node not in run.dead
            attempts.append(_Attempt(node, job, reused))
        try:
            async with asyncio.TaskGroup() as group:
                for attempt in attempts:
                    group.create_task(self._attempt(attempt))
        except BaseExceptionGroup as exc:
            raise exc.exceptions[0] from None  # StoreRefused, which one node's word is enough for
        run.round_trip_s = max(run.round_trip_s, *(each.job.round_trip_s for each in attempts))
        return attempts

    async def _attempt(self, attempt: _Attempt) -> None:
        attempt.error = await self._client(attempt.node).write(attempt.job)

    def _client(self, node: Server) -> Client:
        if node not in self._clients:
            self._clients[node] = self._new_client(node)
        return self._clients[node]

    # --- what is sent on, and what is sent again -----------------------------------------------

    async def _follow(self, attempts: Sequence[_Attempt], run: _Run) -> dict[Server, list[Call]]:
        """Return what is to be sent next, and where; fail what is not."""
        retryable = _give_up(attempts, run)
        redirections = _redirections(attempts)
        is_moved = any(each.word == "MOVED" for each in redirections)
        if retryable or (is_moved and not run.topology_reloaded):
            run.topology_reloaded = True
            with suppress(StoreUnavailable):  # then what was known has to do
                await self._load_topology(run)
        return _route(retryable, redirections, self._slot_owners, run)

    # --- the topology --------------------------------------------------------------------------

    async def _load_topology(self, run: _Run) -> None:
        """Read the topology from the first node that gives it.

        Raises StoreUnavailable, or StoreRefused where a node is no part of a cluster.
        """
        error = StoreUnavailable("Unassigned", "there is no node to ask for the topology")
        asked = self._topology_candidates(run.dead)
        # A connection from an earlier invocation may have died though its node has not: those
        # are asked once more, on a new one, where nobody else answers.
        again = [node for node in asked if node in run.connected and node not in run.dead]
        for node in [*asked, *again]:
            if node in self._known:
                self._known.remove(node)
                self._known.append(node)
            try:
                reply = await self._client(node).ask((b"CLUSTER", b"SLOTS"), run.end_s)
                owners, primaries, nodes = _topology(reply, node)
            except OutOfTime:
                raise
            except StoreUnavailable as exc:
                run.dead.add(node)
                error = exc
                continue
            self._slot_owners = owners
            self._known = [*(each for each in nodes if each != node), node]
            for gone in [each for each in self._clients if each not in primaries]:
                self._clients.pop(gone).close()
            return
        raise error

    def _topology_candidates(self, dead: set[Server]) -> list[Server]:
        """Order whom to ask: a node not asked of late, the setting's, the others; dead ones last.

        By turns, because a node that was taken out of the cluster may answer all the same.
        """
        candidates = dict.fromkeys([*self._known[:1], self._seed_node, *self._known[1:]])
        return sorted(candidates, key=dead.__contains__)[:TOPOLOGY_ASKED_MAX]

    def close(self) -> None:
        """Throw every connection away, and what is known of the nodes."""
        for client in self._clients.values():
            client.close()
        self._clients, self._known, self._slot_owners = {}, [], []


class _Run(Struct):
    """One apply under way."""

    end_s: float
    outcomes: list[Outcome]
    connected: set[Server]  # nodes with a connection from an earlier one
    dead: set[Server] = field(default_factory=set)
    topology_reloaded: bool = False
    sent_again: bool = False
    out_of_time: bool = False
    round_trip_s: float = 0.0

    def fail(self, calls: Sequence[Call], error: StoreUnavailable | None) -> None:
        assert error is not None, "what fails says why"
        self.out_of_time = self.out_of_time or isinstance(error, OutOfTime)
        fail_calls(self.outcomes, calls, error.error, error.reason)


class _Attempt(Struct, eq=False):
    """One node's share of one round: what it was, and why it could not be done."""

    node: Server
    job: Job
    reused: bool  # the connection is from an earlier apply
    error: StoreUnavailable | None = None

    @property
    def is_retryable(self) -> bool:
        return self.error is not None and is_retryable(self.error, self.job.pending)


def _slot(call: Call) -> int:
    assert call.slot is not None, "a plan for a cluster knows its slots"
    return call.slot


def _by_owner(
    calls: Sequence[Call], slot_owners: Sequence[Server | None], run: _Run
) -> dict[Server, list[Call]]:
    """Share calls out to the owners of their slots; fail those whose slot has none."""
    shares: dict[Server, list[Call]] = {}
    for call in calls:
        owner = slot_owners[_slot(call)]
        if owner is None:
            run.fail([call], StoreUnavailable("Unassigned", "no node holds the key's slot"))
        else:
            shares.setdefault(owner, []).append(call)
    return shares


class _Redirection(Struct):
    """A call that a node sent on: MOVED for good, or ASK for this once."""

    call: Call
    word: str
    target: Server | None  # None: the node did not say where to


def _give_up(attempts: Sequence[_Attempt], run: _Run) -> list[_Attempt]:
    """Return the attempts whose pending calls may be sent once more; fail those of the others."""
    broken = [each for each in attempts if each.error is not None and each.job.pending]
    retryable = [each for each in broken if each.is_retryable and not run.sent_again]
    for attempt in broken:
        run.dead.add(attempt.node)
        if attempt not in retryable:
            run.fail(attempt.job.pending, attempt.error)
    return retryable


def _redirections(attempts: Sequence[_Attempt]) -> list[_Redirection]:
    """Read where each call is sent on to, as in MOVED 3999 10.0.0.1:6381."""
    return [
        _Redirection(call, reply.word, _target(reply, attempt.node))
        for attempt in attempts
        for call, reply in attempt.job.redirected
    ]


def _target(reply: ReplyError, node: Server) -> Server | None:
    words = str(reply).split(" ")
    host, colon, port = words[-1].rpartition(":")
    try:
        return _node_from(host, int(port), node) if len(words) == 3 and colon else None
    except ValueError:
        return None


def _route(
    retryable: Sequence[_Attempt],
    redirections: Sequence[_Redirection],
    slot_owners: list[Server | None],
    run: _Run,
) -> dict[Server, list[Call]]:
    """Return the calls to send next, by node; fail those that can go nowhere.

    A pending call goes to who owns its slot now. That may be the node that did not answer, if
    its connection was from an earlier invocation. A slot that has moved changes its owner.
    """
    shares: dict[Server, list[Call]] = {}
    for attempt in retryable:
        for call in attempt.job.pending:
            owner = slot_owners[_slot(call)]
            if owner is None or (owner == attempt.node and not attempt.reused):
                run.fail([call], attempt.error)
            else:
                run.sent_again = True
                shares.setdefault(owner, []).append(structs.replace(call, asking=False))
    for each in redirections:
        if each.target is None:
            error = StoreUnavailable(each.word, "the node did not say where to")
            run.fail([each.call], error)
            continue
        is_ask = each.word == "ASK"
        if not is_ask:
            slot_owners[_slot(each.call)] = each.target
        shares.setdefault(each.target, []).append(structs.replace(each.call, asking=is_ask))
    return shares


def _node_from(host: str, port: int, by: Server) -> Server:
    """Return the server that a node names; without a host it is that of the node itself.

    Raises ValueError where it can be none.
    """
    if not 0 < port <= PORT_MAX:
        raise ValueError("no port")
    return structs.replace(by, host=host or by.host, port=port)


def _topology(reply: Any, asked: Server) -> tuple[list[Server | None], set[Server], list[Server]]:
    """Read the owner of each slot, all owners, and every node out of an answer to CLUSTER SLOTS.

    Raises StoreUnavailable where there is none, StoreRefused where there is no cluster.
    """
    if isinstance(reply, ReplyError):
        refuse(reply, asked, "CLUSTER SLOTS")
        if reply.word == "ERR":  # a single server: "cluster support disabled"
            raise StoreRefused(
                f"{asked.address} is no node of a cluster ({reply}), "
                "but ASYNCSYNC_REDIS_CLUSTER is true"
            )
        raise StoreUnavailable(reply.word, "the node gave no topology")
    owners: list[Server | None] = [None] * SLOTS
    primaries: set[Server] = set()
    nodes: dict[Server, None] = {}
    try:
        for first, last, *servers in reply:
            named = [_node_from((host or b"").decode(), port, asked) for host, port, *_ in servers]
            owners[first : last + 1] = [named[0]] * (last + 1 - first)
            primaries.add(named[0])
            nodes |= dict.fromkeys(named)
        if len(owners) != SLOTS:
            raise ValueError("slots past the last")
    except (AttributeError, IndexError, TypeError, ValueError) as exc:
        raise StoreUnavailable("ProtocolError", "the node gave a topology unlike any") from exc
    return owners, primaries, list(nodes)
