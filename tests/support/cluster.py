"""Starts a real cluster on loopback, whose nodes a test can kill, freeze and start again.

The cluster is ready when every node reports that it is, every replica is linked, and every node
shows all replicas to clients. "cluster_state:ok" alone comes earlier; a primary that is killed
then may have no replica to take over.
"""

from __future__ import annotations

import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from subprocess import Popen
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from asyncsync.keys import slot
from asyncsync.lab.servers import ServerError, free_port, running
from asyncsync.limits import SLOTS
from tests.support.servers import major_version

READY_WITHIN_S = 30.0  # 2 s alone on this kind of machine, several times that on a busy one
NODE_TIMEOUT_MS = 1_000
ANSWER_WITHIN_S = 2.0
LOOK_EVERY_S = 0.02
BUS_ABOVE = 10_000


@dataclass(slots=True)
class ClusterNode:
    """One node: its ports, and its process while it runs."""

    port: int
    bus_port: int
    folder: str
    client: redis.Redis
    process: Popen[bytes] | None = None
    stack: ExitStack = field(default_factory=ExitStack)

    def start(self, binary: str) -> None:
        """Start the node with the state that it had when it ended.

        Raises ServerError where it does not listen in time.
        """
        options = {
            "port": self.port,
            "bind": "127.0.0.1",
            "dir": self.folder,
            "save": "",
            "appendonly": "no",
            "cluster-enabled": "yes",
            "cluster-node-timeout": NODE_TIMEOUT_MS,
            "cluster-replica-validity-factor": 0,  # a replica may be elected however stale
            "repl-diskless-sync-delay": 0,  # stock: waits 5 s for more replicas
            "repl-ping-replica-period": 1,  # a replica is shown once it has heard something
        }
        if major_version(binary) >= 7:
            options["cluster-port"] = self.bus_port
        command = [binary, *(word for k, v in options.items() for word in (f"--{k}", str(v)))]
        self.process = self.stack.enter_context(running(command, self.port))

    def kill(self) -> None:
        """Kill the node by SIGKILL, stopped or not."""
        self.stack.close()
        self.process = None

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Freeze the node by SIGSTOP until the block ends."""
        assert self.process is not None, "only a running node can be stopped"
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def ask(self, *words: str | int | bytes) -> Any:
        """Send a CLUSTER command and return its raw reply."""
        return self.send("CLUSTER", *words)

    def send(self, *words: str | int | bytes) -> Any:
        """Send a command and return its raw reply."""
        send: Callable[..., Any] = self.client.execute_command
        return send(*words)

    @property
    def id(self) -> str:
        """Return the node's ID."""
        return str(self.ask("MYID").decode())

    def info(self, section: str) -> dict[str, Any]:
        """Return a section of INFO."""
        fields: dict[str, Any] = self.client.info(section)
        return fields

    def is_ready(self, replicas: int, alive: int) -> bool:
        """Whether the node serves, is linked if a replica, and shows all living nodes."""
        if b"cluster_state:ok" not in self.ask("INFO"):
            return False
        replication = self.info("replication")
        if replication["role"] == "slave" and replication["master_link_status"] != "up":
            return False
        shards = self.ask("SLOTS")
        shown = {(node[1], at > 0) for _, _, *nodes in shards for at, node in enumerate(nodes)}
        covered = sum(last - first + 1 for first, last, *_ in shards)
        return (
            covered == SLOTS
            and len(shown) == alive
            and sum(is_replica for _, is_replica in shown) == replicas
        )


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running cluster."""

    binary: str
    nodes: list[ClusterNode]
    primaries: int

    @property
    def url(self) -> str:
        """Return the URL of the first running node."""
        return f"redis://127.0.0.1:{self.alive[0].port}"

    @property
    def alive(self) -> list[ClusterNode]:
        """Return the running nodes."""
        return [node for node in self.nodes if node.process is not None]

    def holder(self, name: bytes) -> ClusterNode:
        """Return the primary that holds a key's slot, as the running nodes see it."""
        return self.holder_of(slot(name))

    def holder_of(self, number: int) -> ClusterNode:
        """Return the primary that holds a slot, by its own report."""
        for node in self.alive:
            for first, last, primary, *_ in node.ask("SLOTS"):
                if first <= number <= last and primary[1] == node.port:
                    return node
        raise ServerError(f"no node of the cluster reports slot {number} as its own")

    def holders(self) -> list[ClusterNode]:
        """Return the primaries that hold slots."""
        return [
            node
            for node in self.alive
            if any(primary[1] == node.port for _, _, primary, *_ in node.ask("SLOTS"))
        ]

    def replicas_of(self, primary: ClusterNode) -> list[ClusterNode]:
        """Return the replicas that a primary shows."""
        ports = {
            node[1]
            for _, _, first, *others in primary.ask("SLOTS")
            if first[1] == primary.port
            for node in others
        }
        return [node for node in self.alive if node.port in ports]

    def get(self, name: bytes) -> bytes | None:
        """Read a key from the node that holds it."""
        value = self.holder(name).client.get(name)
        assert value is None or isinstance(value, bytes)
        return value

    def read(self, names: list[bytes]) -> dict[bytes, bytes | None]:
        """Read many keys, each from the node that holds it, in one pipeline a node."""
        holders = [(part[0], part[1], part[2][1]) for part in self.alive[0].ask("SLOTS")]
        by_port: dict[int, list[bytes]] = {}
        for name in names:
            port = next(p for first, last, p in holders if first <= slot(name) <= last)
            by_port.setdefault(port, []).append(name)
        values: dict[bytes, bytes | None] = {}
        for node in self.nodes:
            own = by_port.get(node.port, [])
            pipeline = node.client.pipeline(transaction=False)
            for name in own:
                pipeline.get(name)
            values |= dict(zip(own, pipeline.execute(), strict=True))
        return values

    def flush(self) -> None:
        """Empty every node."""
        for node in self.holders():
            node.client.flushall()

    def wait_until_ready(self) -> None:
        """Wait until every running node is ready and sees all others.

        Raises ServerError where that takes too long.
        """
        alive = self.alive
        replicas = len(alive) - self.primaries
        wait_until(
            lambda: all(node.is_ready(replicas, len(alive)) for node in alive),
            f"the cluster of {self.binary} to be ready",
        )

    def begin_to_move(self, number: int, target: ClusterNode) -> ClusterNode:
        """Mark a slot as moving to another primary; return the primary that holds it."""
        source = self.holder_of(number)
        target.ask("SETSLOT", number, "IMPORTING", source.id)
        source.ask("SETSLOT", number, "MIGRATING", target.id)
        return source

    def move(self, number: int, target: ClusterNode) -> None:
        """Move a slot with its keys to another primary."""
        source = self.begin_to_move(number, target)
        while names := source.ask("GETKEYSINSLOT", number, 100):
            source.client.migrate("127.0.0.1", target.port, names, 0, 2_000)
        for node in (target, source, *self.holders()):
            node.ask("SETSLOT", number, "NODE", target.id)


def wait_until(
    condition: Callable[[], bool], what: str, within_s: float = READY_WITHIN_S
) -> float:
    """Wait until a condition is true; return the seconds that took.

    An error of a server counts as false. Raises ServerError where it takes too long.
    """
    began_s = time.monotonic()
    reason: object = "it stayed false"
    while time.monotonic() - began_s < within_s:
        try:
            if condition():
                return time.monotonic() - began_s
        except (RedisError, OSError) as exc:
            reason = exc
        time.sleep(LOOK_EVERY_S)
    raise ServerError(f"waited {within_s:g} s for {what}: {reason}")


@contextmanager
def redis_cluster(binary: str, nodes: int = 6, replicas: int = 1) -> Iterator[Cluster]:
    """Run a cluster with this many nodes, and replicas per primary, until the block ends.

    Raises ServerError where it is not ready in time.
    """
    with ExitStack() as stack:
        started: list[ClusterNode] = []
        for _ in range(nodes):
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="asyncsync-"))
            port, bus_port = _free_ports(binary)
            node = ClusterNode(port, bus_port, folder, stack.enter_context(_client(port)))
            stack.callback(node.kill)
            node.start(binary)
            started.append(node)
        cluster = Cluster(binary, started, nodes // (replicas + 1))
        _join(cluster)
        cluster.wait_until_ready()
        yield cluster


def _free_ports(binary: str) -> tuple[int, int]:
    """Return a port for commands and one for the bus, which before 7.0 is 10,000 above it."""
    if major_version(binary) >= 7:
        return free_port(), free_port()
    while True:
        port = free_port() - BUS_ABOVE
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port, port + BUS_ABOVE


@contextmanager
def _client(port: int) -> Iterator[redis.Redis]:
    client = redis.Redis(
        port=port,
        socket_timeout=ANSWER_WITHIN_S,
        socket_connect_timeout=ANSWER_WITHIN_S,
        retry=Retry(NoBackoff(), 1),  # a connection from before the node was killed
    )
    with client:
        yield client


def _join(cluster: Cluster) -> None:
    """Join separate nodes into one cluster: slots, then replicas."""
    nodes, primaries = cluster.nodes, cluster.primaries
    edges = [SLOTS * at // primaries for at in range(primaries + 1)]
    for at, node in enumerate(nodes):
        node.ask("SET-CONFIG-EPOCH", at + 1)
        if at < primaries:
            node.ask("ADDSLOTS", *range(edges[at], edges[at + 1]))  # 6.2 has no range
        if at:
            nodes[0].ask("MEET", "127.0.0.1", node.port, node.bus_port)
    known = b"cluster_known_nodes:%d\r" % len(nodes)
    wait_until(lambda: all(known in node.ask("INFO") for node in nodes), "the nodes to meet")
    for at, node in enumerate(nodes[primaries:]):
        node.ask("REPLICATE", nodes[at % primaries].id)
