"""Runs the servers: one alone and a cluster of one node, on loopback and a zone away."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import hiredis
import orjson
import redis

from asyncsync.lab.servers import free_port, redis_process
from benchmarks.events import Batch
from benchmarks.harness import bundles, delay_proxy
from benchmarks.harness.contestants import CONTESTANTS, Endpoint
from benchmarks.harness.measure import Network
from tests.support.cluster import wait_until

LOOPBACK = "loopback"
ZONE = "0.5 ms"


@contextmanager
def servers(batches: Sequence[Batch], binary: str) -> Iterator[dict[str, Network]]:
    """Run a server and a cluster of one node, each on loopback and behind a delay."""
    cluster_port, bus_port = free_port(), free_port()
    options = ("--cluster-enabled", "yes", "--cluster-port", str(bus_port))
    with ExitStack() as stack:
        commands = bundles.BUILT / "commands"
        write_commands(batches, commands)
        one = stack.enter_context(redis_process(binary, "--databases", str(len(CONTESTANTS) + 1)))
        stack.enter_context(redis_process(binary, *options, port=cluster_port))
        with redis.Redis(port=cluster_port) as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16_383)
            # A node refuses writes in the first seconds of its life.
            wait_until(
                lambda: b"cluster_state:ok" in client.execute_command("CLUSTER", "INFO"),
                "the cluster of one node to be ready",
            )
        delay_us = delay_proxy.one_way_us_for(one.port)
        far = stack.enter_context(delay_proxy.proxy(one.port, delay_us))
        far_cluster = stack.enter_context(delay_proxy.proxy(cluster_port, delay_us))
        yield {
            LOOPBACK: Network(
                LOOPBACK,
                delay_proxy.ping_us(one.port),
                Endpoint(one.port, one.port, commands),
                Endpoint(cluster_port, cluster_port, commands),
            ),
            ZONE: Network(
                ZONE,
                delay_proxy.ping_us(far),
                Endpoint(far, one.port, commands),
                Endpoint(far_cluster, cluster_port, commands),
            ),
        }


def write_commands(batches: Sequence[Batch], folder: Path) -> None:
    """Write the commands of each collapsed batch into a file named by its event's size."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = [len(batch.event) for batch in batches]
    assert len(set(sizes)) == len(sizes), "an event is known by its size"
    for batch in batches:
        packed = [
            hiredis.pack_command(
                (b"DEL", name) if image is None else (b"SET", name, orjson.dumps(image))  # type: ignore[arg-type]
            )
            for number, image in batch.left.items()
            for name in [b"Players:" + number.encode()]
        ]
        (folder / f"{len(batch.event)}.resp").write_bytes(b"".join(packed))
