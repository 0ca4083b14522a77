"""Faults on real servers: nothing acknowledged is lost, and the copy ends equal to the table.

Each run sends a few thousand changes through the lab's mapping and the real mirror. A fault
starts during a batch, lasts until batches have failed, and ends. The test checks every key then
and at the end; a table after the results shows how long each recovery took.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import msgspec
import pytest
import redis

from asyncsync import Config
from asyncsync.lab.proxy import Proxy, proxy_to
from asyncsync.lab.servers import ServerProcess, free_port, redis_process
from asyncsync.transport_asyncio import Connect, connect
from tests.support.events import SEED
from tests.support.history import History, Run
from tests.support.recoveries import Recoveries
from tests.support.servers import ONE_SERVER, SERVERS
from tests.support.tls import tls_options

SECRET = "hush-hush"
KEPT = ("--appendonly", "yes", "--appendfsync", "always")
HISTORY = History(items=120, count=2_000, seed=SEED)


class Machine:
    """One server that can be killed and started again, in its own folder or an empty one."""

    def __init__(self, binary: str, folder: Path, *options: str) -> None:
        self.binary = binary
        self.port = free_port()
        self._options = (*options, "--dir", str(folder))
        self._running = ExitStack()
        self.server = self.start()
        self.client = redis.Redis(port=self.port)

    def start(self) -> ServerProcess:
        """Start the server; return once its port accepts."""
        started = redis_process(self.binary, *self._options, port=self.port)
        self.server = self._running.enter_context(started)
        return self.server

    def kill(self) -> None:
        """Kill the server and wait until it has ended."""
        self._running.close()

    def send(self, number: signal.Signals) -> None:
        """Send the server a signal."""
        assert self.server.process is not None
        self.server.process.send_signal(number)

    def wait(self) -> None:
        """Wait until the server has ended by itself."""
        assert self.server.process is not None
        self.server.process.wait(timeout=10)

    def close(self) -> None:
        """Close the client and end the server."""
        self.client.close()
        self._running.close()


@contextmanager
def machine(binary: str, folder: Path, *options: str) -> Iterator[Machine]:
    made = Machine(binary, folder, *options)
    try:
        yield made
    finally:
        made.close()


@dataclass
class World:
    """What a fault can act on."""

    machine: Machine
    run: Run
    proxy: Proxy = field(default_factory=Proxy)
    bytes_allowed: Iterator[int] = field(default_factory=lambda: cycle([0, 1, 7, 60]))

    async def until_failed(self, times: int) -> None:
        before = self.run.failures
        await self.run.until(lambda: self.run.failures >= before + times)


# --- faults: in force inside the block, gone after it -----------------------------------------


@asynccontextmanager
async def killed(world: World) -> AsyncIterator[None]:
    """SIGKILL, then a start with the data on disk."""
    world.machine.kill()
    yield
    await anyio.to_thread.run_sync(world.machine.start)


@asynccontextmanager
async def killed_and_emptied(world: World) -> AsyncIterator[None]:
    """SIGKILL, then a start without data."""
    async with killed(world):
        yield
        world.run.forgotten()


@asynccontextmanager
async def shut_down(world: World) -> AsyncIterator[None]:
    """An orderly restart: it keeps the data and empties the script cache."""
    world.machine.send(signal.SIGTERM)
    world.machine.wait()
    world.machine.kill()
    yield
    await anyio.to_thread.run_sync(world.machine.start)


@asynccontextmanager
async def stopped(world: World) -> AsyncIterator[None]:
    """SIGSTOP: sockets stay open, and the server reads what they hold after SIGCONT."""
    world.machine.send(signal.SIGSTOP)
    yield
    world.machine.send(signal.SIGCONT)


@asynccontextmanager
async def paused(world: World) -> AsyncIterator[None]:
    """CLIENT PAUSE ALL, which cannot be ended early: a PING waits for its end."""
    world.machine.client.client_pause(400)
    yield
    await anyio.to_thread.run_sync(world.machine.client.ping)


@asynccontextmanager
async def writes_paused(world: World) -> AsyncIterator[None]:
    """CLIENT PAUSE WRITE."""
    world.machine.client.client_pause(60_000, all=False)
    yield
    world.machine.client.client_unpause()


@asynccontextmanager
async def full(world: World) -> AsyncIterator[None]:
    """Redis holds more than maxmemory, under the default policy noeviction."""
    used = world.machine.client.info("memory")["used_memory"]
    world.machine.client.config_set("maxmemory", used // 2)
    yield
    world.machine.client.config_set("maxmemory", 0)


@asynccontextmanager
async def clients_killed(world: World) -> AsyncIterator[None]:
    """CLIENT KILL of every other connection."""
    world.machine.client.client_kill_filter(_type="normal", skipme=True)
    yield


@asynccontextmanager
async def scripts_flushed(world: World) -> AsyncIterator[None]:
    """SCRIPT FLUSH on a running server."""
    world.machine.client.script_flush()
    yield


@asynccontextmanager
async def slow(world: World) -> AsyncIterator[None]:
    """Every chunk arrives 20 ms late, both ways."""
    world.proxy.delay_s = 0.02
    yield
    world.proxy.delay_s = 0.0


@asynccontextmanager
async def too_slow(world: World) -> AsyncIterator[None]:
    """Every chunk arrives later than the timeout."""
    world.proxy.delay_s = 0.3
    yield
    world.proxy.delay_s = 0.0


@asynccontextmanager
async def cut_off(world: World) -> AsyncIterator[None]:
    """Every connection breaks, and new ones are refused."""
    world.proxy.cut()
    yield
    world.proxy.heal()


@asynccontextmanager
async def requests_cut(world: World) -> AsyncIterator[None]:
    """A connection ends within a request."""
    world.proxy.cut_after_request_bytes = next(world.bytes_allowed) * 10
    world.proxy.drop()
    yield
    world.proxy.cut_after_request_bytes = None


@asynccontextmanager
async def replies_truncated(world: World) -> AsyncIterator[None]:
    """A connection ends within a reply: the batch is written but not confirmed."""
    world.proxy.cut_after_reply_bytes = next(world.bytes_allowed)
    world.proxy.drop()
    yield
    world.proxy.cut_after_reply_bytes = None


@asynccontextmanager
async def replies_swallowed(world: World) -> AsyncIterator[None]:
    """Requests arrive, replies do not."""
    world.proxy.swallows_replies = True
    yield
    world.proxy.swallows_replies = False


@dataclass(frozen=True)
class Fault:
    """One fault, how often it comes in a run, and which failures it must cause before it ends."""

    name: str
    comes: Callable[[World], AbstractAsyncContextManager[None]]
    hits: int
    failed_batches: int = 2  # each time; 0: the mirror recovers without a failure
    options: tuple[str, ...] = ()
    proxied: bool = False

    @property
    def timeout_ms(self) -> int:
        """Short where the test waits for it, long enough for a slow machine elsewhere."""
        return 100 if self.failed_batches else 5_000


FAULTS = (
    Fault("SIGKILL, data kept", killed, 3, options=KEPT),
    Fault("SIGKILL, data lost", killed_and_emptied, 2),
    Fault("restart, scripts lost", shut_down, 2, options=KEPT),
    Fault("SIGSTOP", stopped, 2),
    Fault("CLIENT PAUSE ALL", paused, 2, failed_batches=1),
    Fault("CLIENT PAUSE WRITE", writes_paused, 2),
    Fault("maxmemory", full, 3),
    Fault("CLIENT KILL", clients_killed, 8, failed_batches=0),
    Fault("SCRIPT FLUSH", scripts_flushed, 8, failed_batches=0),
    Fault("proxy: 20 ms each way", slow, 2, failed_batches=0, proxied=True),
    Fault("proxy: later than the timeout", too_slow, 1, proxied=True),
    Fault("proxy: cut off", cut_off, 2, proxied=True),
    Fault("proxy: request cut", requests_cut, 4, failed_batches=1, proxied=True),
    Fault("proxy: reply truncated", replies_truncated, 4, failed_batches=1, proxied=True),
    Fault("proxy: replies swallowed", replies_swallowed, 2, proxied=True),
)


# --- runs -------------------------------------------------------------------------------------


async def endure(world: World, fault: Fault) -> list[float]:
    """Apply a fault again and again during a run; check every key each time it is over."""
    run, took_ms = world.run, []
    async with run.working():
        for hit in range(1, fault.hits + 1):
            await run.until_left(hit / (fault.hits + 1))
            await run.until_sent()
            async with fault.comes(world):
                if fault.failed_batches:
                    await world.until_failed(fault.failed_batches)
                else:
                    await run.recovery_ms()
            took_ms.append(await run.recovery_ms())
            assert HISTORY.wrong(world.machine.client, run.acknowledged) == []
        await run.drained()
    assert run.records == len(HISTORY.changes)
    assert not run.mapping.discarded
    return took_ms


async def endures(
    machine: Machine,
    config: Config,
    fault: Fault,
    recoveries: Recoveries,
    way: str,
    reach: Connect | None = None,
) -> None:
    """Run under a fault; afterwards Redis equals the table, or misses what the server lost."""
    async with proxy_to("127.0.0.1", machine.port) as proxy:
        if fault.proxied:
            url = f"redis://127.0.0.1:{proxy.port}"
            config = msgspec.structs.replace(config, redis_url=url)
        world = World(machine, Run(HISTORY, config, reach), proxy)
        took_ms = await endure(world, fault)

    run = world.run
    recoveries.add(machine.binary, way, fault.name, run.failures, run.redelivered, took_ms)
    assert run.failures >= fault.failed_batches * fault.hits
    assert fault.failed_batches or not run.failures
    assert (run.redelivered > 0) == (run.failures > 0)
    assert SECRET.encode() not in b"".join(run.printed)
    assert HISTORY.wrong(machine.client, run.acknowledged) == []
    if fault.comes is killed_and_emptied:
        assert HISTORY.compare(machine.client).missing  # the server did lose something
        again = Run(HISTORY, config)  # a new mapping reads the stream from its first record
        async with again.working():
            await again.drained()
    assert HISTORY.compare(machine.client).all == []


@pytest.mark.parametrize("binary", SERVERS)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
async def test_nothing_acknowledged_is_lost_and_redis_ends_equal_to_the_table(
    binary: str, fault: Fault, tmp_path: Path, recoveries: Recoveries
) -> None:
    with machine(binary, tmp_path, *fault.options) as made:
        url = f"redis://127.0.0.1:{made.port}"
        config = Config(redis_url=url, timeout_ms=fault.timeout_ms)
        await endures(made, config, fault, recoveries, "TCP")


@pytest.mark.parametrize("binary", ONE_SERVER)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
async def test_nor_is_it_on_an_event_loop_of_the_callers(
    binary: str, fault: Fault, tmp_path: Path, recoveries: Recoveries
) -> None:
    with machine(binary, tmp_path, *fault.options) as made:
        url = f"redis://127.0.0.1:{made.port}"
        config = Config(redis_url=url, timeout_ms=fault.timeout_ms)
        await endures(made, config, fault, recoveries, "TCP, asyncio", connect)


@pytest.mark.parametrize("binary", SERVERS)
@pytest.mark.parametrize("way", ["TLS, private CA", "ACL user", "unix socket"])
async def test_a_kill_is_endured_however_the_server_is_reached(
    binary: str, way: str, tmp_path: Path, authority: Path, recoveries: Recoveries
) -> None:
    tls_port, path = free_port(), tmp_path / "redis.sock"
    acl = ("--user", "mirror", "on", f">{SECRET}", "~*", "+@all")
    options: dict[str, Callable[[], Sequence[str]]] = {
        "TLS, private CA": lambda: tls_options(authority, tls_port, binary),
        "ACL user": lambda: acl,
        "unix socket": lambda: ("--unixsocket", str(path)),
    }
    with machine(binary, tmp_path, *KEPT, *options[way]()) as made:
        settings: dict[str, dict[str, Any]] = {
            "TLS, private CA": {
                "redis_url": f"rediss://localhost:{tls_port}",
                "redis_ca_file": str(authority / "ca.crt"),
            },
            "ACL user": {"redis_url": f"redis://mirror:{SECRET}@127.0.0.1:{made.port}"},
            "unix socket": {"redis_url": f"unix://{path}"},
        }
        await endures(made, Config(**settings[way], timeout_ms=500), FAULTS[0], recoveries, way)
