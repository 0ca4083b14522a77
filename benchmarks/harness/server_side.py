"""Measures what a batch costs the server and its other clients."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import redis

from benchmarks.events import Batch
from benchmarks.harness.measure import Running

# Another client asks this often, so it meets a script of 1 ms many times a second.
_ASKS_EVERY_S = 0.0002


def script_us_per_key(running: Running, batch: Batch, invocations: int) -> float:
    """Return the server's own time for one fenced key, in microseconds (INFO commandstats)."""
    running.function.invoke(batch.event)  # loads the script
    running.client.config_resetstat()
    for _ in range(invocations):
        running.function.invoke(batch.event)
    stats: Any = running.client.info("commandstats")
    return float(stats["cmdstat_evalsha"]["usec"]) / invocations / len(batch.left)


def fence_bytes(fenced: Running, unfenced: Running, batch: Batch) -> float:
    """Return what one fence adds to used_memory, in bytes."""
    fenced.client.flushall()
    unfenced.function.invoke(batch.event)
    without = _used_bytes(unfenced.client)
    fenced.client.flushall()
    fenced.function.invoke(batch.event)
    return (_used_bytes(fenced.client) - without) / len(batch.left)


def _used_bytes(client: redis.Redis) -> int:
    stats: Any = client.info("memory")
    return int(stats["used_memory"])


def other_clients_p99_ms(
    lanes: dict[str, Callable[[], object]],
    port: int,
    rounds: int,
    round_s: float,
    chance: random.Random,
    on_round: Callable[[], None],
) -> dict[str, list[float]]:
    """Return by round the 99th percentile of another client's GET while each lane runs."""
    by_lane_ms: dict[str, list[float]] = {name: [] for name in lanes}
    for _ in range(rounds):
        for name in chance.sample(list(lanes), len(lanes)):
            with other_client(port) as stop:
                ends_s = time.perf_counter() + round_s
                while time.perf_counter() < ends_s:
                    lanes[name]()
                by_lane_ms[name].append(stop())
        on_round()
    return by_lane_ms


@contextmanager
def other_client(port: int) -> Iterator[Callable[[], float]]:
    """Run another client until the block ends; yields what stops it and returns its p99."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.harness.server_side", str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        process.stdout.readline()  # it has connected
        yield lambda: float(process.communicate("stop\n")[0])
    finally:
        process.kill()
        process.wait()


def _ask(port: int) -> None:
    import select
    import socket

    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    times_ms: list[float] = []
    print("connected", flush=True)
    while not select.select([sys.stdin], [], [], _ASKS_EVERY_S)[0]:
        began_s = time.perf_counter()
        connection.sendall(b"GET another\r\n")
        connection.recv(4_096)
        times_ms.append((time.perf_counter() - began_s) * 1_000)
    print(sorted(times_ms)[int(len(times_ms) * 0.99)], flush=True)


if __name__ == "__main__":
    _ask(int(sys.argv[1]))
