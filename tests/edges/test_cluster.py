"""A real cluster: every write lands while slots move and nodes are killed, stopped or emptied.

Six nodes of Redis and of Valkey, three of them replicas. Tests read each write back from the
node that owns its slot, or through redis-py's own cluster client.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncsync import Config, Mirror, StoreRefused
from asyncsync.config import Server
from asyncsync.keys import redis_names, slot
from asyncsync.lab.servers import ServerProcess
from asyncsync.metrics import METRICS
from asyncsync.tools.run.meter import Meter, metered
from asyncsync.transport_asyncio import Streams, connect
from tests.programs.failover_drill import drill
from tests.support.cluster import NODE_TIMEOUT_MS, Cluster, ClusterNode, redis_cluster
from tests.support.context import Context
from tests.support.events import FIRST, SEED, Record, event, failed, record
from tests.support.order import SEEN_BROKEN_WITHIN, first_broken
from tests.support.servers import LACKING, SERVERS, major_version, skip

HISTORIES = 60
SOME = range(300)


class Writing:
    """A mirror of a cluster that counts what goes to each node, by port."""

    def __init__(self, url: str, **options: Any) -> None:
        self.meters: dict[int, Meter] = defaultdict(Meter)
        self.printed: list[dict[str, Any]] = []
        self.mirror = Mirror(
            Config(redis_url=url, **{"redis_cluster": True, **options}),
            connect=self._connect,
            emit=lambda line: self.printed.append(json.loads(line)),
        )

    async def _connect(self, server: Server) -> Streams:
        return await metered(connect, self.meters[server.port])(server)

    async def __call__(self, *records: Record, context: Context | None = None) -> list[str]:
        return failed(await self.mirror.handle(event(records), context))

    async def until_written(self, *records: Record) -> int:
        """Deliver as Lambda does until nothing fails; return the number of failures."""
        for failures in range(2_000):
            if not await self(*records):
                return failures
            await asyncio.sleep(0.01)  # the mapping's backoff
        raise AssertionError(f"never written: {self.printed[-1]}")

    @property
    def log(self) -> dict[str, Any]:
        return [line for line in self.printed if "_aws" not in line][-1]

    @property
    def counts(self) -> dict[str, Any]:
        """Return the last line's metrics, which leaves out counts of zero."""
        return dict.fromkeys(METRICS, 0) | [line for line in self.printed if "_aws" in line][-1]

    def turns(self) -> dict[int, int]:
        """Return the round trips to each node since the last call, counted at its socket."""
        found = {port: meter.turns for port, meter in self.meters.items() if meter.turns}
        for meter in self.meters.values():
            meter.turns = meter.commands = 0
        return found


@pytest.fixture
async def writing(cluster: Cluster) -> AsyncIterator[Callable[..., Writing]]:
    """Make mirrors of the cluster and close them at the end."""
    made: list[Writing] = []

    def make(**options: Any) -> Writing:
        made.append(Writing(options.pop("url", cluster.url), **options))
        return made[-1]

    yield make
    for each in made:
        each.mirror.close()
    await asyncio.sleep(0)


def records(version: int = 0, items: range = SOME) -> list[Record]:
    """One change of each item; a later version is newer."""
    numbered = FIRST + version * 10_000
    return [record(at, numbered + at, image={"v": {"N": str(version)}}) for at in items]


def name(item: int) -> bytes:
    return b"Players:%d" % item


def all_have(cluster: Cluster, version: int, items: range = SOME) -> bool:
    copy = cluster.read([name(item) for item in items])
    return set(copy.values()) == {b'{"v":%d}' % version}


def other_than(cluster: Cluster, node: ClusterNode) -> ClusterNode:
    return next(each for each in cluster.holders() if each is not node)


# --- as Lambda calls it -------------------------------------------------------------------------


def test_lambda_calls_it_on_one_event_loop_of_its_own(cluster: Cluster) -> None:
    mirror = Mirror(Config(redis_url=cluster.url, redis_cluster=True), emit=lambda _: None)
    loops = set()
    for version in range(3):
        answer = mirror.lambda_handler(event(records(version)), Context())
        assert failed(answer) == []
        assert all_have(cluster, version)
        loops.add(mirror._loop)
    mirror.close()

    assert len(loops) == 1


async def test_a_notebook_with_its_own_loop_can_call_it_too(cluster: Cluster) -> None:
    mirror = Mirror(Config(redis_url=cluster.url, redis_cluster=True), emit=lambda _: None)

    assert failed(mirror.lambda_handler(event(records(1)), Context())) == []
    assert all_have(cluster, 1)
    await asyncio.to_thread(mirror.close)  # its loop is not this one


# --- where writes go ----------------------------------------------------------------------------


def test_a_slot_is_what_the_servers_say(running_cluster: Cluster) -> None:
    node = running_cluster.nodes[0]
    parts = st.lists(st.sampled_from([b"{", b"}", b"a", b"\xff", b"", b"Players:1"]), max_size=8)

    @settings(deadline=None)
    @given(st.one_of(st.binary(), parts.map(b"".join)))
    def holds(text: bytes) -> None:
        assert slot(text) == node.ask("KEYSLOT", text)

    holds()


async def test_writes_land_in_one_round_trip_a_node(
    cluster: Cluster, writing: Callable[..., Writing]
) -> None:
    write = writing()
    assert await write(*records(1)) == []  # connects, loads the topology and the script
    ports = {node.port for node in cluster.holders()}
    write.turns()

    assert await write(*records(2)) == []

    assert write.turns() == dict.fromkeys(ports, 1)
    assert all_have(cluster, 2)
    assert cluster.holder(name(7)).client.exists(redis_names(name(7))[1])
    assert write.counts["Applied"] == 300
    assert 0 < write.counts["RoundTripMs"] < 2_000


async def test_older_is_fenced_and_a_removal_stays(
    cluster: Cluster, writing: Callable[..., Writing]
) -> None:
    write = writing()
    gone = [record(at, FIRST + 50_000 + at, removed=True) for at in range(10)]
    await write(*records(2), *gone)

    assert await write(*records(1)) == []

    assert write.counts["Fenced"] == 300
    assert all_have(cluster, 2, range(10, 300))
    assert set(cluster.read([name(at) for at in range(10)]).values()) == {None}


async def test_one_tag_puts_many_keys_into_a_call(
    cluster: Cluster, writing: Callable[..., Writing]
) -> None:
    write = writing(key="{{players}}:{Number}")
    items = range(500)
    await write(*records(1, items))
    write.turns()

    assert await write(*records(2, items)) == []

    holder = cluster.holder(b"{players}:0")
    assert write.meters[holder.port].commands == 3  # 180, 180 and 140 keys
    assert write.turns() == {holder.port: 1}
    assert len(cluster.read([b"{players}:%d" % at for at in items])) == 500


@pytest.mark.parametrize("mode", ["mirror", "refresh", "invalidate"])
async def test_without_the_fence_plain_commands_go_to_each_node(
    cluster: Cluster, writing: Callable[..., Writing], mode: str
) -> None:
    for node in cluster.holders():
        for item in SOME:
            if cluster_holds(node, item):
                node.client.set(name(item), b"somebody's")
    write = writing(fence="off", mode=mode)

    assert await write(*records(1)) == []

    if mode == "invalidate":
        assert set(cluster.read([name(at) for at in SOME]).values()) == {None}
    else:
        assert all_have(cluster, 1)
    assert not any(cluster.read([redis_names(name(at))[1] for at in SOME]).values())


def cluster_holds(node: ClusterNode, item: int) -> bool:
    return any(
        first <= slot(name(item)) <= last
        for first, last, holder, *_ in node.ask("SLOTS")
        if holder[1] == node.port
    )


@pytest.fixture(scope="module", params=SERVERS)
def one_node(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A cluster of one node that owns every slot, as ElastiCache serverless is."""
    with redis_cluster(request.param, nodes=1, replicas=0) as cluster:
        yield cluster


async def test_an_endpoint_that_holds_all_slots_gets_one_round_trip(one_node: Cluster) -> None:
    write = Writing(one_node.url)
    await write(*records(1))
    write.turns()

    assert await write(*records(2)) == []

    assert write.meters[one_node.nodes[0].port].commands == len({slot(name(at)) for at in SOME})
    assert write.turns() == {one_node.nodes[0].port: 1}
    assert all_have(one_node, 2)
    write.mirror.close()


async def test_nodes_that_do_not_say_their_address_are_where_they_were_asked(
    cluster: Cluster, writing: Callable[..., Writing]
) -> None:
    """An unknown endpoint is NULL in CLUSTER SLOTS, and nothing before the port in MOVED."""
    if major_version(cluster.binary) < 7:
        skip(f"{LACKING}unknown endpoints before Redis 7")
    number = slot(name(1))
    source = cluster.holder(name(1))
    try:
        for node in cluster.nodes:
            node.client.config_set("cluster-preferred-endpoint-type", "unknown-endpoint")
        assert cluster.nodes[0].ask("SLOTS")[0][2][0] is None
        write = writing()
        assert await write(*records(1)) == []
        cluster.move(number, other_than(cluster, source))

        assert await write(*records(2)) == []
        assert all_have(cluster, 2)
    finally:
        for node in cluster.nodes:
            node.client.config_set("cluster-preferred-endpoint-type", "ip")
        cluster.move(number, source)


# --- slots on their way -------------------------------------------------------------------------


async def test_a_stale_topology_is_mended_by_the_first_moved(
    cluster: Cluster, writing: Callable[..., Writing]
) -> None:
    write = writing()
    await write(*records(1))
    source = cluster.holder(name(1))
    cluster.move(slot(name(1)), other_than(cluster, source))

    assert await write(*records(2)) == []
    assert all_have(cluster, 2)

    write.turns()
    assert await write(*records(3)) == []
    assert write.turns() == {node.port: 1 for node in cluster.holders()}
    cluster.move(slot(name(1)), source)


async def test_a_key_that_has_moved_ahead_of_its_slot_is_asked_for_there(
    cluster: Cluster, writing: Callable[..., Writing]
) -> None:
    write = writing()
    await write(*records(1))
    number, source = slot(name(1)), cluster.holder(name(1))
    target = other_than(cluster, source)
    cluster.begin_to_move(number, target)
    source.client.migrate("127.0.0.1", target.port, redis_names(name(1)), 0, 2_000)

    assert await write(*records(2)) == []

    cluster.move(number, target)
    assert all_have(cluster, 2)
    cluster.move(number, source)


async def test_a_node_asked_without_the_script_gets_it_after_asking_again(
    cluster: Cluster, writing: Callable[..., Writing]
) -> None:
    write = writing()
    await write(record(1, FIRST))
    number, source = slot(name(1)), cluster.holder(name(1))
    target = other_than(cluster, source)
    cluster.begin_to_move(number, target)
    source.client.migrate("127.0.0.1", target.port, redis_names(name(1)), 0, 2_000)
    target.client.script_flush()

    assert await write(record(1, FIRST + 1, image={"v": {"N": "1"}})) == []

    cluster.move(number, target)
    assert cluster.get(name(1)) == b'{"v":1}'
    cluster.move(number, source)


async def test_a_call_half_of_whose_keys_have_moved_fails_and_is_written_later(
    cluster: Cluster, writing: Callable[..., Writing]
) -> None:
    write = writing(key="{{t}}:{Number}")
    items = range(10)
    await write(*records(1, items))
    number, source = slot(b"{t}"), cluster.holder(b"{t}")
    target = other_than(cluster, source)
    cluster.begin_to_move(number, target)
    source.client.migrate("127.0.0.1", target.port, redis_names(b"{t}:1"), 0, 2_000)

    assert await write(*records(2, items)) == [str(FIRST + 20_000)]
    assert write.log["error"] == "TRYAGAIN"

    cluster.move(number, target)
    assert await write(*records(2, items)) == []
    copy = cluster.read([b"{t}:%d" % at for at in items])
    assert set(copy.values()) == {b'{"v":2}'}
    cluster.move(number, source)


async def test_a_new_key_waits_with_the_fence_and_is_asked_for_without_it(
    cluster: Cluster, writing: Callable[..., Writing]
) -> None:
    """A node accepts a call with two keys of a migrating slot only if it has both."""
    number, source = slot(name(1)), cluster.holder(name(1))
    target = other_than(cluster, source)
    cluster.begin_to_move(number, target)
    fenced, plain = writing(), writing(fence="off")

    assert await fenced(record(1, FIRST)) == [str(FIRST)]
    assert fenced.log["error"] == "TRYAGAIN"
    assert await plain(record(1, FIRST)) == []

    cluster.move(number, target)
    assert await fenced(record(1, FIRST)) == []
    cluster.move(number, source)


async def test_slots_moved_to_and_fro_lose_nothing(
    cluster: Cluster, writing: Callable[..., Writing]
) -> None:
    write = writing()
    homes = {slot(name(item)): cluster.holder(name(item)) for item in range(5)}
    done = asyncio.Event()

    def move_all() -> None:
        for number, home in homes.items():
            cluster.move(number, other_than(cluster, home))
        for number, home in homes.items():
            cluster.move(number, home)

    async def moving() -> None:
        try:
            await asyncio.to_thread(move_all)
        finally:
            done.set()

    version = 0
    async with asyncio.TaskGroup() as group:
        group.create_task(moving())
        while not done.is_set():
            version += 1
            await write.until_written(*records(version))
    assert version > 1
    assert all_have(cluster, version)


async def test_a_cluster_that_is_down_fails_what_it_does_not_take(
    cluster: Cluster, writing: Callable[..., Writing]
) -> None:
    write = writing()
    await write(*records(1))
    number, holder = slot(name(1)), cluster.holder(name(1))
    holder.ask("DELSLOTS", number)
    try:
        assert await write(record(1, FIRST + 90_000)) == [str(FIRST + 90_000)]
        assert write.log["error"] == "CLUSTERDOWN"
        # The store reads the topology again: it shows no owner, or the node still refuses.
        assert await write(record(1, FIRST + 90_000)) == [str(FIRST + 90_000)]
    finally:
        holder.ask("ADDSLOTS", number)
    cluster.wait_until_ready()
    assert await write(record(1, FIRST + 90_000)) == []


# --- nodes that fail ----------------------------------------------------------------------------


def values_on(node: ClusterNode, items: list[int]) -> set[object]:
    return {node.client.get(name(item)) for item in items}


@contextmanager
def no_failover_in(cluster: Cluster) -> Iterator[None]:
    """Keep the nodes from declaring any of them dead, however slow the machine is."""
    for node in cluster.alive:
        node.client.config_set("cluster-node-timeout", 600_000)
    try:
        yield
    finally:
        for node in cluster.alive:
            node.client.config_set("cluster-node-timeout", NODE_TIMEOUT_MS)


async def test_a_killed_primary_fails_its_own_keys_until_its_replica_takes_over(
    cluster: Cluster, writing: Callable[..., Writing]
) -> None:
    write = writing(timeout_ms=500)
    await write(*records(1))
    victim = cluster.holder(name(1))
    held = {
        node.port: [item for item in SOME if cluster_holds(node, item)]
        for node in cluster.holders()
    }
    others = [node for node in cluster.holders() if node is not victim]
    with no_failover_in(cluster):
        victim.kill()

        assert await write(*records(2)) == [str(FIRST + 20_000 + held[victim.port][0])]

        assert write.counts["Failed"] == len(held[victim.port])
        assert write.log["event"] == "reconnected"  # no replica has taken over yet
        for node in others:
            assert values_on(node, held[node.port]) == {b'{"v":2}'}
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    await write.until_written(*records(2))
    print(f"{cluster.binary}: recovered from a kill in {loop.time() - began_s:.1f} s")
    assert all_have(cluster, 2)
    victim.start(cluster.binary)


async def test_a_failover_by_hand_loses_nothing(
    cluster: Cluster, writing: Callable[..., Writing]
) -> None:
    write = writing()
    await write(*records(1))
    primary = cluster.holder(name(1))
    (replica,) = cluster.replicas_of(primary)
    version = 1

    replica.ask("FAILOVER")
    async with asyncio.timeout(20):
        while replica.info("replication")["role"] != "master" or version < 3:
            version += 1
            await write.until_written(*records(version))

    version += 1
    await write.until_written(*records(version))
    assert cluster.holder(name(1)) is replica
    assert all_have(cluster, version)


async def test_a_stopped_primary_costs_its_own_keys_and_no_more_than_the_time_there_is(
    cluster: Cluster, writing: Callable[..., Writing]
) -> None:
    """The old connection times out, then a new one: two timeouts."""
    write = writing(timeout_ms=200)
    await write(*records(1))
    victim = cluster.holder(name(1))
    own = [item for item in SOME if cluster_holds(victim, item)]
    others = [node for node in cluster.holders() if node is not victim]
    context = Context(10_000)
    with no_failover_in(cluster), victim.stopped():
        assert await write(*records(2), context=context) == [str(FIRST + 20_000 + own[0])]

        assert write.log["error"] == "TimeoutError"
        assert context.get_remaining_time_in_millis() > 8_000
        for node in others:
            here = [item for item in SOME if cluster_holds(node, item)]
            assert values_on(node, here) == {b'{"v":2}'}
    await write.until_written(*records(2))
    assert all_have(cluster, 2)


async def test_no_wait_is_longer_than_what_the_invocation_has_left(
    cluster: Cluster, writing: Callable[..., Writing]
) -> None:
    write = writing(timeout_ms=30_000)
    await write(*records(1))
    victim = cluster.holder(name(1))
    context = Context(1_000)
    with victim.stopped():
        assert len(await write(*records(2), context=context)) == 1
        assert context.get_remaining_time_in_millis() > 0
    await write.until_written(*records(2))


async def test_a_script_cache_emptied_on_one_node_costs_nothing(
    cluster: Cluster, writing: Callable[..., Writing]
) -> None:
    write = writing()
    await write(*records(1))
    holder = cluster.holder(name(1))
    holder.client.script_flush()
    write.turns()

    assert await write(*records(2)) == []

    assert write.turns() == {n.port: 1 + (n is holder) for n in cluster.holders()}
    assert all_have(cluster, 2)


@pytest.mark.parametrize("fence", ["on", "off"])
async def test_connections_killed_on_every_node_are_opened_again(
    cluster: Cluster, writing: Callable[..., Writing], fence: str
) -> None:
    write = writing(fence=fence)
    await write(*records(1))
    for node in cluster.nodes:
        node.client.client_kill_filter(_type="normal", skipme=True)

    assert await write(*records(2)) == []
    assert all_have(cluster, 2)


# --- order --------------------------------------------------------------------------------------


@pytest.fixture
def reader(cluster: Cluster) -> Iterator[redis.RedisCluster]:
    """redis-py's own client of the cluster."""
    with redis.RedisCluster.from_url(cluster.url) as client:
        yield client


def test_no_reader_of_a_cluster_ever_sees_a_key_move_back(
    cluster: Cluster, reader: redis.RedisCluster
) -> None:
    assert first_broken(cluster.url, reader, HISTORIES, redis_cluster=True) is None


def test_without_the_fence_the_same_test_fails(
    cluster: Cluster, reader: redis.RedisCluster
) -> None:
    assert first_broken(cluster.url, reader, SEEN_BROKEN_WITHIN, redis_cluster=True, fence="off")


async def test_a_primary_killed_in_a_run_ends_equal_after_a_replay(cluster: Cluster) -> None:
    """A small run of the drill of `make failover`: the replay restores what the failover lost."""
    said: list[str] = []

    (kill,) = await drill(cluster, records=2_000, kills=1, seed=SEED, say=said.append)

    print(*said)
    assert kill.violations == []
    assert kill.lost > 0  # there was something to restore


# --- who may, and what is no cluster ------------------------------------------------------------


async def test_one_user_signs_in_to_every_node(
    cluster: Cluster, writing: Callable[..., Writing]
) -> None:
    commands = ["+evalsha", "+eval", "+set", "+del", "+mget", "+asking", "+cluster|slots"]
    rules = ["on", ">hush-hush", "~*", "-@all", *commands]
    for node in cluster.nodes:
        node.send("ACL", "SETUSER", "mirror", *rules)
    write = writing(url=cluster.url.replace("//", "//mirror:hush-hush@"))

    assert await write(*records(1)) == []
    assert all_have(cluster, 1)

    for command in ("evalsha", "cluster|slots"):
        for node in cluster.nodes:
            others = [rule for rule in rules if rule != f"+{command}"]
            node.send("ACL", "SETUSER", "mirror", "reset", *others)
            node.client.client_kill_filter(_type="normal", skipme=True)
        word = command.replace("|", " ").upper()
        with pytest.raises(StoreRefused, match=f"'mirror' the command {word}.*NOPERM") as caught:
            await write(*records(2))
        assert "hush" not in str(caught.value)
        for node in cluster.nodes:
            node.send("ACL", "SETUSER", "mirror", f"+{command}")
    assert await write(*records(2)) == []  # the store does not remember a refusal
    for node in cluster.nodes:
        node.client.acl_deluser("mirror")


async def test_a_server_that_is_no_cluster_is_refused_naming_the_setting(
    any_server: ServerProcess,
) -> None:
    write = Writing(any_server.url)

    with pytest.raises(StoreRefused, match=r"no node of a cluster.*ASYNCSYNC_REDIS_CLUSTER"):
        await write(record(1, FIRST))
    write.mirror.close()


async def test_a_cluster_taken_for_one_server_fails_naming_the_setting(
    cluster: Cluster, writing: Callable[..., Writing]
) -> None:
    write = writing(redis_cluster=False)

    assert await write(*records(1)) == [str(FIRST + 10_000)]
    assert "ASYNCSYNC_REDIS_CLUSTER=true" in write.log["reason"]
