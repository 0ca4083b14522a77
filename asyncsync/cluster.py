"""Stage 5 for a cluster: the same calls, one round trip per node, nodes in parallel.

A call goes to the node that owns its slot, by the topology that any node gives. A redirected
call (MOVED, ASK) follows. After a dead connection the store reads the topology again and sends
the calls once more. Both are bounded. One node's trouble costs the entries of its own slots and
no others, and no topology outlives an invocation in which anything failed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

from msgspec import Struct, field, structs

from asyncsync.config import Server
from asyncsync.connection import ReplyError, refuse
from asyncsync.errors import StoreRefused, StoreUnavailable
from asyncsync.limits import PORT_MAX, REDIRECTIONS_MAX, SLOTS, TOPOLOGY_ASKED_MAX
from asyncsync.model import Call, Outcome, Written
from asyncsync.store import UNSENT, Client, Job, OutOfTime, fail_calls, is_retryable

Shares: TypeAlias = dict[Server, list[Call]]  # what each node is sent in one round
SlotOwners: TypeAlias = list[Server | None]


class ClusterStore:
    """The nodes of a cluster, each behind one connection."""

    def __init__(self, server: Server, new_client: Callable[[Server], Client]) -> None:
        self._seed_node = server  # a node, or a name that leads to one
        self._new_client = new_client
        self._clients: dict[Server, Client] = {}
        self._known: list[Server] = []  # nodes and replicas; the one asked last is the last
        self._replicas: set[Server] = set()
        self._slot_owners: SlotOwners = []  # by slot; empty while they are unknown

    async def apply(self, calls: Iterable[Call], entry_count: int, end_s: float) -> Written:
        """Send calls, each to the owner of its slot; see Store.

        Raises StoreRefused also if a node is not part of a cluster.
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
        for share in shares.values():
            run.fail(share, StoreUnavailable("Redirected", "nodes sent the write on too often"))

    async def _send(self, shares: Shares, run: _Run) -> list[_Attempt]:
        """Send every node its share at the same time; leave no task behind on any way out."""
        attempts = []
        for node, calls in shares.items():
            reused = node in run.connected and node not in run.dead
            attempts.append(_Attempt(node, Job(run.end_s, calls, run.outcomes), reused))
        try:
            async with asyncio.TaskGroup() as group:
                for attempt in attempts:
                    group.create_task(self._attempt(attempt))
        except BaseExceptionGroup as exc:
            raise exc.exceptions[0] from None  # StoreRefused: one node refusing is enough
        run.round_trip_s = max(run.round_trip_s, *(each.job.round_trip_s for each in attempts))
        return attempts

    async def _attempt(self, attempt: _Attempt) -> None:
        attempt.error = await self._client(attempt.node).write(attempt.job)

    def _client(self, node: Server) -> Client:
        if node not in self._clients:
            self._clients[node] = self._new_client(node)
        return self._clients[node]

    async def _follow(self, attempts: Sequence[_Attempt], run: _Run) -> Shares:
        """Return what to send next; fail the rest of what is not done."""
        retryable = _give_up(attempts, run)
        redirections = _redirections(attempts)
        is_moved = any(word == "MOVED" for _, word, _ in redirections)
        if retryable or (is_moved and not run.topology_reloaded):
            run.topology_reloaded = True
            with suppress(StoreUnavailable):  # then the old topology has to do
                await self._load_topology(run)
        return _route(retryable, redirections, self._slot_owners, run)

    async def _load_topology(self, run: _Run) -> None:
        """Read the topology from the first node that gives it.

        Raises StoreUnavailable, or StoreRefused if a node is not part of a cluster.
        """
        error = StoreUnavailable("Unassigned", "there is no node to ask for the topology")
        candidates = self._topology_candidates(run.dead)
        # A connection of an earlier invocation may be dead while its node is not. If nobody else
        # answers, ask such nodes once more, on a new connection.
        again = [node for node in candidates if node in run.connected and node not in run.dead]
        for node in [*candidates, *again]:
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
            self._slot_owners, self._replicas = owners, {*nodes} - primaries - {self._seed_node}
            self._known = [*(each for each in nodes if each != node), node]
            for gone in [each for each in self._clients if each not in primaries]:
                self._clients.pop(gone).close()
            return
        raise error

    def _topology_candidates(self, dead: set[Server]) -> list[Server]:
        """Order the nodes to ask: the one asked longest ago, the seed, the others; dead ones last.

        They take turns, because a node that was taken out of the cluster may still answer. A
        replica comes after the primaries: nothing needs its port to be open.
        """
        candidates = dict.fromkeys([*self._known[:1], self._seed_node, *self._known[1:]])
        order = sorted(candidates, key=lambda node: (node in dead, node in self._replicas))
        return order[:TOPOLOGY_ASKED_MAX]

    def close(self) -> None:
        """Close every connection and forget the topology."""
        for client in self._clients.values():
            client.close()
        self._clients, self._known, self._slot_owners = {}, [], []


class _Run(Struct):
    """The state of one apply."""

    end_s: float
    outcomes: list[Outcome]
    connected: set[Server]  # nodes with a connection of an earlier apply
    dead: set[Server] = field(default_factory=set)
    topology_reloaded: bool = False
    sent_again: bool = False
    out_of_time: bool = False
    round_trip_s: float = 0.0

    def fail(self, calls: Sequence[Call], error: StoreUnavailable | None) -> None:
        assert error is not None, "what fails has an error"
        self.out_of_time = self.out_of_time or isinstance(error, OutOfTime)
        fail_calls(self.outcomes, calls, error.error, error.reason)


class _Attempt(Struct, eq=False):
    """One node's share of one round, and the error that ended it."""

    node: Server
    job: Job
    reused: bool  # the connection is from an earlier apply
    error: StoreUnavailable | None = None


# A call that a node sent on, its word (MOVED: for good, ASK: this once), and the target, which is
# None if the node named none.
_Redirection: TypeAlias = tuple[Call, str, Server | None]


def _slot(call: Call) -> int:
    assert call.slot is not None, "a plan for a cluster knows its slots"
    return call.slot


def _by_owner(calls: Iterable[Call], owners: SlotOwners, run: _Run) -> Shares:
    """Share calls out to the owners of their slots; fail those whose slot has none."""
    shares: Shares = {}
    for call in calls:
        owner = owners[_slot(call)]
        if owner is None:
            run.fail([call], StoreUnavailable("Unassigned", "no node holds the key's slot"))
        else:
            shares.setdefault(owner, []).append(call)
    return shares


def _give_up(attempts: Sequence[_Attempt], run: _Run) -> list[_Attempt]:
    """Return the attempts whose pending calls may be sent once more; fail the others' calls."""
    retryable = []
    for attempt in attempts:
        error, pending = attempt.error, attempt.job.pending
        if error is None or not pending:
            continue
        run.dead.add(attempt.node)
        if is_retryable(error, pending) and not run.sent_again:
            retryable.append(attempt)
        else:
            run.fail(pending, error)
    return retryable


def _redirections(attempts: Sequence[_Attempt]) -> list[_Redirection]:
    return [
        (call, reply.word, _target(reply, attempt.node))
        for attempt in attempts
        for call, reply in attempt.job.redirected
    ]


def _target(reply: ReplyError, node: Server) -> Server | None:
    """Read the node that a redirection such as MOVED 3999 10.0.0.1:6381 names."""
    words = str(reply).split(" ")
    host, colon, port = words[-1].rpartition(":")
    try:
        return _node_from(host, int(port), node) if len(words) == 3 and colon else None
    except ValueError:
        return None


def _route(
    retryable: list[_Attempt], redirections: list[_Redirection], owners: SlotOwners, run: _Run
) -> Shares:
    """Return what to send next; fail calls that have nowhere to go.

    A pending call goes to the present owner of its slot. That may be the node that did not
    answer, if its connection was from an earlier invocation. MOVED changes a slot's owner.
    """
    shares: Shares = {}
    for attempt in retryable:
        for call in attempt.job.pending:
            owner = owners[_slot(call)]
            if owner is None or (owner == attempt.node and not attempt.reused):
                run.fail([call], attempt.error)
            else:
                run.sent_again = True
                shares.setdefault(owner, []).append(structs.replace(call, asking=False))
    for call, word, target in redirections:
        if target is None:
            run.fail([call], StoreUnavailable(word, "the node did not say where to"))
            continue
        if word == "MOVED":
            owners[_slot(call)] = target
        shares.setdefault(target, []).append(structs.replace(call, asking=word == "ASK"))
    return shares


def _node_from(host: str, port: int, by: Server) -> Server:
    """Return the server that a node names; without a host it is at that node's own.

    Raises ValueError if the port is none.
    """
    if not 0 < port <= PORT_MAX:
        raise ValueError("no port")
    return structs.replace(by, host=host or by.host, port=port)


def _topology(reply: Any, node: Server) -> tuple[SlotOwners, set[Server], list[Server]]:
    """Read the owner of each slot, all owners, and all nodes from a reply to CLUSTER SLOTS.

    Raises StoreUnavailable if it holds no topology, StoreRefused if there is no cluster.
    """
    if isinstance(reply, ReplyError):
        refuse(reply, node, "CLUSTER SLOTS")
        if "cluster" in str(reply).lower():  # a single server: "cluster support disabled"
            raise StoreRefused(
                f"{node.address} is no node of a cluster ({reply}), "
                "but ASYNCSYNC_REDIS_CLUSTER is true"
            )
        raise StoreUnavailable(reply.word, reply.reason())
    owners: SlotOwners = [None] * SLOTS
    primaries: set[Server] = set()
    nodes: dict[Server, None] = {}
    try:
        for first, last, *servers in reply:
            named = [_node_from((host or b"").decode(), port, node) for host, port, *_ in servers]
            owners[first : last + 1] = [named[0]] * (last + 1 - first)
            primaries.add(named[0])
            nodes |= dict.fromkeys(named)
        if len(owners) != SLOTS:
            raise ValueError("slots past the last")
    except (AttributeError, IndexError, TypeError, ValueError) as exc:
        raise StoreUnavailable("ProtocolError", "the node gave a malformed topology") from exc
    return owners, primaries, list(nodes)
