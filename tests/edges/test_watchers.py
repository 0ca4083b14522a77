"""Watchers: readers that poll every key during a run and never see one move back.

Two mappings deliver one stream at once, each to its own mirror. Batches come twice, old ones
come again, and connections are killed. The readers are redis-py clients in threads. With the
fence off the same readers see keys move back.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any

import redis

from asyncsync import Config
from asyncsync.lab.demo.watcher import CopyWatcher, Journal
from asyncsync.lab.servers import ServerProcess
from asyncsync.mapping.event_source_mapping import Batch
from tests.support.events import SEED
from tests.support.history import SETTINGS, History, Run, name_of, version_of

WATCHERS = 3
POLLS_MIN = 10_000
CHANGES_SEEN_MIN = 1_000

# Small batches, so that readers see more than the last change of an item.
SMALL = replace(SETTINGS, batch_size=10)
HISTORY = History(items=40, count=4_000, seed=SEED)


class Watcher(threading.Thread):
    """One reader that polls keys in random order until it is stopped."""

    def __init__(self, server: ServerProcess, journal: Journal, seed: int) -> None:
        super().__init__(name=f"watcher {seed}")
        self.polls = self.changes_seen = 0
        self.error: BaseException | None = None
        self.watched = CopyWatcher(journal, version_of)
        self._chance = random.Random(seed)
        self._address: dict[str, Any] = {"host": server.host, "port": server.port}
        self._is_over = threading.Event()

    def run(self) -> None:
        try:
            with redis.Redis(**self._address, client_name="watcher") as client:
                while not self._is_over.is_set():
                    self._poll(client, self._chance.choice(HISTORY.numbers))
        except BaseException as exc:  # reported by the code that joins this thread
            self.error = exc

    def _poll(self, client: redis.Redis, number: int) -> None:
        value = client.get(name_of(number))
        assert value is None or isinstance(value, bytes)
        self.changes_seen += value != self.watched.values.get(number)
        self.watched.see(number, value, time.monotonic())
        self.polls += 1

    def stop(self) -> None:
        self._is_over.set()
        self.join()


class Watchers:
    """All readers of a run."""

    def __init__(self, server: ServerProcess) -> None:
        journal = Journal()
        for change in HISTORY.changes:
            journal.begin(change)  # from now on it may be seen
        self.all = [Watcher(server, journal, SEED + at) for at in range(WATCHERS)]

    @property
    def polls(self) -> int:
        return sum(each.polls for each in self.all)

    @property
    def changes_seen(self) -> int:
        return sum(each.changes_seen for each in self.all)

    @property
    def backward(self) -> int:
        return sum(each.watched.backward for each in self.all)

    @property
    def have_seen_enough(self) -> bool:
        """Whether they have, or one of them died (which is reported later)."""
        died = any(each.error for each in self.all)
        return died or (self.polls >= POLLS_MIN and self.changes_seen >= CHANGES_SEEN_MIN)


@contextmanager
def watching(server: ServerProcess) -> Iterator[Watchers]:
    made = Watchers(server)
    for each in made.all:
        each.start()
    try:
        yield made
    finally:
        for each in made.all:
            each.stop()
    assert [each.error for each in made.all] == [None] * WATCHERS


def trouble(run: Run, watchers: Watchers, client: redis.Redis, seed: int) -> Callable[..., None]:
    """Return a callback that repeats batches, replays old ones and kills connections."""
    chance = random.Random(seed)

    def after(batch: Batch) -> None:
        if chance.random() < 0.1:
            run.mapping.deliver_again(batch)
        # Once the stream is read, replay old batches until the readers have seen enough.
        is_needed = run.mapping.is_idle and not watchers.have_seen_enough
        if run.answered and (is_needed or chance.random() < 0.2):
            run.mapping.deliver_again(chance.choice(run.answered))
        if chance.random() < 0.05:
            for each in client.client_list():
                if not each["name"]:  # not a watcher
                    client.client_kill_filter(_id=each["id"], skipme=True)

    return after


@asynccontextmanager
async def two_mappings(
    server: ServerProcess, watchers: Watchers, client: redis.Redis, **settings: Any
) -> AsyncIterator[list[Run]]:
    """Deliver one stream through two mappings at once, each with its own faults."""
    config = Config(redis_url=server.url, **settings)
    async with AsyncExitStack() as stack:
        runs = []
        for at in range(2):
            run = Run(HISTORY, config, settings=SMALL)
            run.on_batch = trouble(run, watchers, client, SEED + at)
            await stack.enter_async_context(run.working())
            runs.append(run)
        yield runs


async def test_no_reader_ever_sees_a_key_move_back(
    real_server: ServerProcess, real_client: redis.Redis
) -> None:
    with watching(real_server) as watchers:
        async with two_mappings(real_server, watchers, real_client) as runs:
            for run in runs:
                await run.drained()

    print(f"{watchers.polls:,} polls saw {watchers.changes_seen:,} changes")
    assert watchers.polls >= POLLS_MIN
    assert watchers.changes_seen >= CHANGES_SEEN_MIN
    assert watchers.backward == 0
    assert all(run.redelivered for run in runs)
    assert HISTORY.compare(real_client).all == []


async def seen_or_drained(run: Run, watchers: Watchers) -> None:
    await run.until(lambda: bool(watchers.backward) or run.mapping.is_idle)


async def test_without_the_fence_the_same_watchers_see_keys_move_back(
    real_server: ServerProcess, real_client: redis.Redis
) -> None:
    with watching(real_server) as watchers:
        async with two_mappings(real_server, watchers, real_client, fence="off") as runs:
            for run in runs:
                await seen_or_drained(run, watchers)

    assert watchers.backward
