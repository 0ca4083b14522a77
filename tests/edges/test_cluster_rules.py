"""The bounds of the cluster store, against nodes that answer as no real one would for long."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import hiredis
import pytest
from msgspec.structs import replace

from asyncsync.cluster import ClusterStore
from asyncsync.config import Config, Server
from asyncsync.errors import StoreRefused
from asyncsync.keys import slot
from asyncsync.limits import REDIRECTIONS_MAX, SEND_LEFT_MS_MIN, SLOTS, TOPOLOGY_ASKED_MAX
from asyncsync.model import Entry, Outcome, Written
from asyncsync.plan import plan
from asyncsync.store import Client
from asyncsync.transport_asyncio import Connect, Streams, asyncio_transport, connect
from tests.support.entries import entry

NEVER = float("inf")
REPLICA_PORT = 6_380  # which nobody opens
Answer: TypeAlias = bytes | Callable[[], bytes]

OK = b"+OK\r\n"
SILENT = b""


@dataclass
class Node:
    """A listening node: its answer to each command, and the commands it received."""

    port: int = 0
    says: dict[bytes, Answer] = field(default_factory=dict)
    heard: list[bytes] = field(default_factory=list)
    open: int = 0

    def reply(self, command: list[bytes]) -> bytes:
        word = command[0]
        self.heard.append(word)
        said = self.says.get(word)
        if said is not None:
            return said() if callable(said) else said
        if word in (b"EVALSHA", b"EVAL"):
            keys = int(command[2]) // 2
            return b"*%d\r\n" % keys + b":1\r\n" * keys
        return topology((0, SLOTS - 1, self.port)) if word == b"CLUSTER" else OK

    def count(self, word: bytes) -> int:
        return self.heard.count(word)


def topology(*ranges: tuple[int, int, int]) -> bytes:
    """Encode a reply to CLUSTER SLOTS with primaries on loopback."""
    parts = [
        b"*3\r\n:%d\r\n:%d\r\n*3\r\n$9\r\n127.0.0.1\r\n:%d\r\n$1\r\nx\r\n" % each
        for each in ranges
    ]
    return b"*%d\r\n" % len(parts) + b"".join(parts)


@asynccontextmanager
async def nodes(count: int) -> AsyncIterator[list[Node]]:
    """Run `count` nodes until the block ends."""
    made = []
    servers = []
    tasks: set[asyncio.Task[None] | None] = set()
    for _ in range(count):
        node = Node()

        async def serve(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter, node: Node = node
        ) -> None:
            tasks.add(asyncio.current_task())
            node.open += 1
            parser = hiredis.Reader()
            with contextlib.suppress(ConnectionError):
                while data := await reader.read(65_536):
                    parser.feed(data)
                    while (command := parser.gets()) is not False:
                        writer.write(node.reply(command))
            node.open -= 1
            writer.close()

        servers.append(await asyncio.start_server(serve, "127.0.0.1", 0))
        node.port = servers[-1].sockets[0].getsockname()[1]
        made.append(node)
    try:
        yield made
    finally:
        for server in servers:
            server.close()
        await asyncio.gather(*(task for task in tasks if task is not None))


class Writer:
    """A cluster store and the settings of its plans."""

    def __init__(
        self,
        entrance: Node,
        *,
        connect: Connect = connect,
        clock: Callable[[], float] = time.monotonic,
        **options: Any,
    ) -> None:
        self.config = Config(
            redis_url=f"redis://127.0.0.1:{entrance.port}", redis_cluster=True, **options
        )
        self.store = ClusterStore(
            self.config.server,
            lambda server: Client(
                server, self.config.timeout_ms, asyncio_transport(connect), clock, lambda: ""
            ),
        )

    async def written(self, *entries: Entry, end_s: float = NEVER) -> Written:
        return await self.store.apply(plan(entries, self.config), len(entries), end_s)

    async def __call__(self, *entries: Entry) -> list[Outcome]:
        return list((await self.written(*entries)).outcomes)


@asynccontextmanager
async def writing(entrance: Node, **options: Any) -> AsyncIterator[Writer]:
    writer = Writer(entrance, **options)
    try:
        yield writer
    finally:
        writer.store.close()
        await asyncio.sleep(0)


def times(count: int, first: bytes, then: bytes) -> Callable[[], bytes]:
    """Answer `first` that many times, then `then`."""
    left = iter([first] * count)
    return lambda: next(left, then)


WRITTEN = b"*1\r\n:1\r\n"


def low_and_high(low: Node, high: Node) -> tuple[bytes, list[Entry]]:
    """Return a topology of two halves, and an entry of each half."""
    middle = SLOTS // 2
    names = [b"k%d" % at for at in range(50)]
    first = next(name for name in names if slot(name) < middle)
    second = next(name for name in names if slot(name) >= middle)
    return topology((0, middle - 1, low.port), (middle, SLOTS - 1, high.port)), [
        entry(first, 1),
        entry(second, 1),
    ]


# --- redirections -------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["MOVED", "ASK"])
@pytest.mark.parametrize(
    ("redirections", "kind"), [(REDIRECTIONS_MAX, "applied"), (REDIRECTIONS_MAX + 1, "failed")]
)
async def test_a_call_is_sent_on_so_often_and_no_more(
    word: str, redirections: int, kind: str
) -> None:
    async with nodes(1) as (node,), writing(node) as write:
        onwards = f"-{word} 1 127.0.0.1:{node.port}\r\n".encode()
        node.says[b"EVALSHA"] = times(redirections, onwards, WRITTEN)

        (outcome,) = await write(entry(b"a", 1))

        assert outcome.kind == kind
        assert kind == "applied" or outcome.error == "Redirected"
        assert node.count(b"EVALSHA") == REDIRECTIONS_MAX + 1
        assert node.count(b"CLUSTER") == (2 if word == "MOVED" else 1)  # reloaded once


async def test_asking_stands_before_the_call_each_time_it_is_sent() -> None:
    async with nodes(2) as (source, target), writing(source) as write:
        source.says[b"EVALSHA"] = f"-ASK 1 127.0.0.1:{target.port}\r\n".encode()
        target.says[b"EVALSHA"] = b"-NOSCRIPT No matching script\r\n"

        assert [each.kind for each in await write(entry(b"a", 1))] == ["applied"]

        assert target.heard == [b"ASKING", b"EVALSHA", b"ASKING", b"EVAL"]
        await write(entry(b"a", 2))  # ASK is not remembered: the slot has not moved
        assert source.count(b"EVALSHA") == 2


@pytest.mark.parametrize(
    "words", ["MOVED", "MOVED 1", "MOVED 1 host", "ASK 1 host:port", "ASK 1 host:65536"]
)
async def test_a_redirection_that_says_no_address_is_a_failure(words: str) -> None:
    async with nodes(1) as (node,), writing(node) as write:
        node.says[b"EVALSHA"] = f"-{words}\r\n".encode()

        (outcome,) = await write(entry(b"a", 1))

        assert (outcome.kind, outcome.error) == ("failed", words.split()[0])


async def test_a_redirection_to_a_dead_node_fails_its_call_alone() -> None:
    async with nodes(2) as (low, high), writing(low) as write:
        said, entries = low_and_high(low, high)
        low.says[b"CLUSTER"] = high.says[b"CLUSTER"] = said
        low.says[b"EVALSHA"] = b"-MOVED 1 127.0.0.1:1\r\n"

        first, second = await write(*entries)

        assert (first.kind, second.kind) == ("failed", "applied")


# --- the topology -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (b":1\r\n", "ProtocolError"),
        (b"*1\r\n:5\r\n", "ProtocolError"),
        (b"*1\r\n*2\r\n:0\r\n:5\r\n", "ProtocolError"),
        (b"*1\r\n*3\r\n:0\r\n:5\r\n*1\r\n$1\r\nx\r\n", "ProtocolError"),
        (topology((0, SLOTS, 1)), "ProtocolError"),
        (topology((0, SLOTS - 1, 65_536)), "ProtocolError"),
        (topology((-5, 5, 1)), "ProtocolError"),
        (b"-LOADING Redis is loading\r\n", "LOADING"),
        (topology(), "Unassigned"),
    ],
)
async def test_a_topology_that_cannot_be_used_fails_the_batch_and_is_not_kept(
    said: bytes, error: str
) -> None:
    async with nodes(1) as (node,), writing(node) as write:
        node.says[b"CLUSTER"] = said

        (outcome,) = await write(entry(b"a", 1))

        assert (outcome.kind, outcome.error) == ("failed", error)
        assert node.count(b"EVALSHA") == 0
        del node.says[b"CLUSTER"]
        assert [each.kind for each in await write(entry(b"a", 1))] == ["applied"]


async def test_a_topology_is_kept_as_long_as_nothing_fails_and_no_longer() -> None:
    async with nodes(1) as (node,), writing(node) as write:
        await write(entry(b"a", 1))
        await write(entry(b"a", 2))
        assert node.count(b"CLUSTER") == 1

        node.says[b"EVALSHA"] = times(1, b"-OOM command not allowed\r\n", WRITTEN)
        assert [each.error for each in await write(entry(b"a", 3))] == ["OOM"]
        assert [each.kind for each in await write(entry(b"a", 3))] == ["applied"]
        assert node.count(b"CLUSTER") == 2


async def test_a_dead_connection_costs_nothing_though_the_topology_is_to_be_read_on_it() -> None:
    opened: list[asyncio.StreamWriter] = []

    async def connect_and_remember(server: Server) -> Streams:
        reader, writer = await connect(server)
        opened.append(writer)
        return reader, writer

    async with nodes(1) as (node,), writing(node, connect=connect_and_remember) as write:
        node.says[b"EVALSHA"] = times(1, b"-OOM command not allowed\r\n", WRITTEN)
        assert [each.error for each in await write(entry(b"a", 1))] == ["OOM"]
        opened[0].transport.abort()  # as after a freeze: the next use finds it dead

        assert [each.kind for each in await write(entry(b"a", 1))] == ["applied"]
        assert len(opened) == 2


async def test_a_node_that_was_thrown_out_does_not_keep_the_word() -> None:
    """It answers and owns nothing: the next load asks another node."""
    async with nodes(2) as (low, high), writing(low) as write:
        said, entries = low_and_high(low, high)
        low.says[b"CLUSTER"] = high.says[b"CLUSTER"] = said
        await write(*entries)
        low.says[b"CLUSTER"] = topology()
        low.says[b"EVALSHA"] = b"-CLUSTERDOWN The cluster is down\r\n"
        del high.says[b"CLUSTER"]  # which owns all slots now

        kinds = [[each.kind for each in await write(*entries)] for _ in range(3)]

        assert kinds[0] == ["failed", "applied"]
        assert kinds[-1] == ["applied", "applied"]


async def test_so_many_nodes_are_asked_for_the_topology_and_by_turns() -> None:
    opened: list[int] = []

    async def refuse(server: Server) -> Streams:
        opened.append(server.port)
        raise ConnectionRefusedError

    entrance = Node(port=9)
    async with writing(entrance, connect=refuse) as write:
        known = [replace(write.config.server, port=port) for port in range(1, 7)]
        write.store._known = known

        (outcome,) = await write(entry(b"a", 1))

        assert outcome.error == "ConnectionRefusedError"
        assert opened == [1, 9, 2]  # always with the node of the setting
        assert len(opened) == TOPOLOGY_ASKED_MAX
        await write(entry(b"a", 1))
        assert opened[3:] == [3, 9, 4]


async def test_a_replica_is_asked_for_the_topology_after_the_primaries() -> None:
    """As a serverless cache whose security group opens 6379 and not its replicas' 6380."""
    opened: list[int] = []

    async def connect_and_remember(server: Server) -> Streams:
        opened.append(server.port)
        if server.port == REPLICA_PORT:
            await asyncio.sleep(60)
        return await connect(server)

    async with nodes(1) as (node,), writing(node, connect=connect_and_remember) as write:
        primary = b"*3\r\n$9\r\n127.0.0.1\r\n:%d\r\n$1\r\nx\r\n" % node.port
        replica = b"*3\r\n$9\r\n127.0.0.1\r\n:%d\r\n$1\r\ny\r\n" % REPLICA_PORT
        node.says[b"CLUSTER"] = b"*1\r\n*4\r\n:0\r\n:16383\r\n" + primary + replica
        node.says[b"EVALSHA"] = times(2, b"-OOM command not allowed\r\n", WRITTEN)

        kinds = [[each.kind for each in await write(entry(b"a", 1))] for _ in range(3)]

        assert kinds == [["failed"], ["failed"], ["applied"]]
        assert opened == [node.port]  # and it is connected all the while


async def test_a_replica_is_asked_where_no_primary_answers() -> None:
    opened: list[int] = []

    async def refuse(server: Server) -> Streams:
        opened.append(server.port)
        raise ConnectionRefusedError

    async with writing(Node(port=9), connect=refuse) as write:
        known = [replace(write.config.server, port=port) for port in range(1, 4)]
        write.store._known, write.store._replicas = known, {known[0], known[2]}

        await write(entry(b"a", 1))

        assert opened == [9, 2, 1]


@pytest.mark.parametrize("word", ["READONLY", "MASTERDOWN", "LOADING", "OOM", "CLUSTERDOWN"])
async def test_a_node_that_is_no_primary_any_more_is_left(word: str) -> None:
    """Its name may lead to another node by now, so the next invocation looks it up again."""
    opened: list[int] = []

    async def connect_and_remember(server: Server) -> Streams:
        opened.append(server.port)
        return await connect(server)

    async with nodes(1) as (node,), writing(node, connect=connect_and_remember) as write:
        node.says[b"EVALSHA"] = times(1, b"-%b not now\r\n" % word.encode(), WRITTEN)

        assert [each.error for each in await write(entry(b"a", 1))] == [word]
        assert [each.kind for each in await write(entry(b"a", 1))] == ["applied"]

        assert len(opened) == 1 + (word in ("READONLY", "MASTERDOWN", "LOADING"))


@pytest.mark.parametrize("said", [b"-LOADING not yet\r\n", b"-MASTERDOWN no link\r\n"])
async def test_a_node_that_gives_no_topology_for_now_is_left_too(said: bytes) -> None:
    opened: list[int] = []

    async def connect_and_remember(server: Server) -> Streams:
        opened.append(server.port)
        return await connect(server)

    async with nodes(1) as (node,), writing(node, connect=connect_and_remember) as write:
        node.says[b"CLUSTER"] = said
        assert [each.kind for each in await write(entry(b"a", 1))] == ["failed"]
        del node.says[b"CLUSTER"]

        assert [each.kind for each in await write(entry(b"a", 1))] == ["applied"]
        assert len(opened) == 2


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"-ERR max number of clients reached\r\n", "max number of clients reached"),
        (
            b"-ERR unknown subcommand 'slots'. Try HELP.\r\n",
            "unknown subcommand 'slots'. Try HELP.",
        ),
    ],
)
async def test_any_other_error_than_that_there_is_no_cluster_is_a_failure(
    said: bytes, reason: str
) -> None:
    async with nodes(1) as (node,), writing(node) as write:
        node.says[b"CLUSTER"] = said

        (outcome,) = await write(entry(b"a", 1))

        assert (outcome.kind, outcome.error, outcome.reason) == ("failed", "ERR", reason)


# --- what ends an apply -------------------------------------------------------------------------


async def test_a_refusal_by_one_node_is_raised_and_every_connection_thrown_away() -> None:
    async with nodes(2) as (low, high), writing(low) as write:
        said, entries = low_and_high(low, high)
        low.says[b"CLUSTER"] = said
        low.says[b"EVALSHA"] = SILENT
        high.says[b"EVALSHA"] = b"-NOPERM no permissions\r\n"

        with pytest.raises(StoreRefused, match=r"the command EVALSHA .*: NOPERM"):
            await write(*entries)

        await _closed(low, high)
        del low.says[b"EVALSHA"], high.says[b"EVALSHA"]
        assert [each.kind for each in await write(*entries)] == ["applied", "applied"]
        assert low.count(b"CLUSTER") == 2  # the store forgot the topology


async def test_a_cancelled_apply_leaves_no_task_and_no_connection() -> None:
    async with nodes(2) as (low, high), writing(low) as write:
        said, entries = low_and_high(low, high)
        low.says[b"CLUSTER"] = said
        low.says[b"EVALSHA"] = high.says[b"EVALSHA"] = SILENT
        before = asyncio.all_tasks()
        applying = asyncio.create_task(write.written(*entries))
        while not (low.count(b"EVALSHA") and high.count(b"EVALSHA")):  # noqa: ASYNC110
            await asyncio.sleep(0)

        applying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await applying

        await _closed(low, high)
        assert asyncio.all_tasks() <= before


async def _closed(*all_: Node) -> None:
    async with asyncio.timeout(5):
        while any(node.open for node in all_):  # noqa: ASYNC110 - a count is no event
            await asyncio.sleep(0)


# --- time ---------------------------------------------------------------------------------------


class Hand:
    """A clock that the test moves."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.mark.parametrize("sends", [False, True])
async def test_with_too_little_time_left_nothing_is_sent(sends: bool) -> None:
    left_s = SEND_LEFT_MS_MIN / 1_000 if sends else (SEND_LEFT_MS_MIN - 1) / 1_000
    async with nodes(1) as (node,), writing(node, clock=Hand()) as write:
        written = await write.written(entry(b"a", 1), end_s=left_s)

        assert written.out_of_time is not sends
        assert written.outcomes[0].kind == ("applied" if sends else "failed")
        assert bool(node.heard) == sends


@pytest.mark.parametrize("said", ["MOVED", "ASK", "nothing, and the connection ends"])
async def test_nothing_is_sent_on_or_again_with_too_little_time_left(said: str) -> None:
    hand = Hand()
    async with nodes(2) as (node, target), writing(node, clock=hand) as write:
        await write(entry(b"a", 1))

        def late() -> bytes:
            hand.now_s = 9.501
            if said not in ("MOVED", "ASK"):
                return b"no protocol of Redis\r\n"
            return f"-{said} 1 127.0.0.1:{target.port}\r\n".encode()

        node.says[b"EVALSHA"] = late

        written = await write.written(entry(b"a", 2), end_s=10.0)

        assert [each.kind for each in written.outcomes] == ["failed"]
        assert node.count(b"EVALSHA") == 2
        assert target.heard == []


@pytest.mark.parametrize(
    ("fence", "before", "sent"),
    [("on", True, 2), ("on", False, 1), ("off", True, 1), ("off", False, 1)],
)
async def test_a_silent_node_is_sent_to_again_where_the_connection_was_old_and_the_fence_is_on(
    fence: str, before: bool, sent: int
) -> None:
    async with nodes(1) as (node,), writing(node, fence=fence, timeout_ms=300) as write:
        word = b"EVALSHA" if fence == "on" else b"SET"
        if before:
            await write(entry(b"a", 1))
        node.heard.clear()
        node.says[word] = SILENT

        written = await write.written(entry(b"a", 2))

        assert written.outcomes[0].error == "TimeoutError"
        # Loading the topology uses the open connection.
        assert node.count(word) == sent
        assert written.reconnected == (sent == 2)


async def test_only_what_was_pending_is_sent_again() -> None:
    """The connection breaks after the reply to the first call."""
    async with nodes(1) as (node,), writing(node) as write:
        await write(entry(b"a", 1), entry(b"b", 1))
        node.heard.clear()
        node.says[b"EVALSHA"] = times(1, WRITTEN, b"no protocol of Redis\r\n")
        both = [entry(b"a", 2), entry(b"b", 2)]

        first, second = await write(*both)

        assert (first.kind, second.kind) == ("applied", "failed")
        assert node.count(b"EVALSHA") == 3  # both, then the second again
