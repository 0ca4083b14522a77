"""The demo's stage: both sides with their mappings, a reader that polls both, progress.

Everything that runs in the background runs here, from before the first change until the last
comparison; what happens on it is the demo's.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import anyio
import orjson

from asyncsync.aws.clients import AwsClients, open_clients
from asyncsync.config import Config
from asyncsync.lab.demo.environment import (
    DemoReader,
    Servers,
    table_names,
    temporary_table,
    through,
)
from asyncsync.lab.demo.usual_handler import UsualHandler
from asyncsync.lab.demo.watcher import CopyWatcher, Journal
from asyncsync.lab.proxy import Proxy, proxy_to
from asyncsync.mapping.answers import Answer, Returned
from asyncsync.mapping.event_source_mapping import (
    Batch,
    Decision,
    EventSourceMapping,
    MappingSettings,
)
from asyncsync.mirror import Mirror
from asyncsync.tools.run.meter import Meter, metered
from asyncsync.tools.run.poller import Consumer, Function, Poller, function_of
from asyncsync.tools.run.progress import Progress, failure_line
from asyncsync.transport_asyncio import Connect

FUNCTION = "arn:aws:lambda:us-east-1:111122223333:function:demo"
INVOCATION_TIMEOUT_S = 30.0
LOOK_INTERVAL_S = 0.05
PROGRESS_INTERVAL_S = 2.0

# Bisect as the template has it. The longest wait between attempts is ours: a cut of seconds
# is to be seen being retried.
SETTINGS = MappingSettings(bisect=True, report_failures=True, backoff_max_ms=1_000)

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """What the command line says, and how long Redis is cut off."""

    items: int = 300
    changes: int = 3_000
    seed: int | None = None
    keep: bool = False
    redis_url: str | None = None
    endpoint_url: str | None = None
    cut_s: float = 3.0
    program: str = "asyncsync"  # how the command line was called


@dataclass(slots=True)
class Side:
    """One of the two: its mapping, its way to Redis, and what a reader sees of its copy."""

    names: list[str]  # of its keys, by item
    connect: Connect
    proxy: Proxy
    meter: Meter
    reader: DemoReader
    watcher: CopyWatcher
    mapping: EventSourceMapping
    delivered: int = 0  # records, in every attempt
    left: int = 0  # records that were acknowledged


@dataclass(slots=True)
class Stage:
    """Everything one run holds."""

    options: DemoOptions
    clients: AwsClients
    table: str
    journal: Journal
    ours: Side
    usual: Side
    usual_handler: UsualHandler
    say: Say
    began_s: float
    progress: Progress = field(default_factory=Progress)  # of ours
    consumers: list[Consumer] = field(default_factory=list)
    acknowledged: list[Batch] = field(default_factory=list)  # by ours, whole batches
    acknowledged_before_cut: int = 0
    healed_s: float | None = None  # when Redis came back, until the first write after it
    reasons: set[str] = field(default_factory=set)  # that were shown
    is_over: bool = False  # nothing moves any more
    moved: anyio.Event = field(default_factory=anyio.Event)  # a batch was answered

    def show(self, text: str) -> None:
        """Say a line with its time."""
        self.say(f"{time.monotonic() - self.began_s:6.1f} s  {text}")

    def show_reason(self) -> None:
        """Say why the handler failed, once for each reason."""
        reason = self.progress.last_log
        if reason not in self.reasons:
            self.reasons.add(reason)
            self.show(f"  {reason}")

    @property
    def sides(self) -> tuple[Side, Side]:
        """Return both sides, ours first."""
        return self.ours, self.usual

    async def until(self, is_so: Callable[[], bool], within_s: float) -> None:
        """Wait until something is so, looking after every answer, but no longer than that."""
        with anyio.move_on_after(within_s):
            while not is_so():
                self.moved = anyio.Event()
                await self.moved.wait()

    async def look(self) -> None:
        """Let the reader read both copies once."""
        for side in self.sides:
            values = await side.reader.read(side.names)
            now_s = time.monotonic()
            for number, value in enumerate(values, start=1):
                side.watcher.see(number, value, now_s)


@asynccontextmanager
async def staged(
    options: DemoOptions, found: Servers, env: Mapping[str, str], say: Say
) -> AsyncIterator[Stage]:
    """Set the stage, keep it running, and take away what was put on servers of the user's.

    Raises CommandFailed.
    """
    is_guest = options.redis_url is not None or options.endpoint_url is not None
    table, usual_table = table_names(is_guest)
    config = Config(redis_url=found.redis_url)
    # A database of its own; in a server of the user's only another name in the same one.
    usual_config = config
    if options.redis_url is None:
        usual_config = Config(redis_url=f"{found.redis_url}/{config.server.database + 1}")
    journal = Journal()
    async with AsyncExitStack() as stack:
        clients = await stack.enter_async_context(open_clients(found.endpoint_url, env))
        stream_arn = await stack.enter_async_context(
            temporary_table(clients, table, keep=options.keep)
        )
        watcher = (CopyWatcher(journal, _version_of_ours), CopyWatcher(journal, _version_of_usual))
        mappings = [
            EventSourceMapping(SETTINGS, function=FUNCTION, stream_arn=stream_arn) for _ in watcher
        ]
        ours = await _side(stack, config, watcher[0], mappings[0], _names(table, options))
        usual = await _side(
            stack, usual_config, watcher[1], mappings[1], _names(usual_table, options)
        )
        handler = UsualHandler(usual.connect, usual_config.server, usual_table)
        stage = Stage(
            options, clients, table, journal, ours, usual, handler, say, time.monotonic()
        )
        if options.redis_url is not None and not options.keep:
            stack.push_async_callback(_remove_keys, stage)
        mirror = Mirror(config, connect=ours.connect, emit=stage.progress.take)
        stack.callback(mirror.close)
        stage.consumers = [
            Consumer(ours.mapping, function_of(mirror, INVOCATION_TIMEOUT_S), _watch_ours(stage)),
            Consumer(usual.mapping, _usual_function(handler), _watch_usual(stage)),
        ]
        poller = Poller(clients, stream_arn, stage.consumers)
        async with anyio.create_task_group() as tasks:
            for task in (poller.run, handler.run):
                tasks.start_soon(task)
            for background in (_keep_looking, _show_progress):
                tasks.start_soon(background, stage)
            yield stage
            tasks.cancel_scope.cancel()


async def _side(
    stack: AsyncExitStack,
    config: Config,
    watcher: CopyWatcher,
    mapping: EventSourceMapping,
    names: list[str],
) -> Side:
    server = config.server
    way_in = proxy_to(server.host, server.port, path=server.path)
    proxy = await stack.enter_async_context(way_in)
    reader = DemoReader(server)
    stack.push_async_callback(reader.close)
    meter = Meter()
    connect = metered(through(proxy), meter)
    return Side(names, connect, proxy, meter, reader, watcher, mapping)


def _names(table: str, options: DemoOptions) -> list[str]:
    return [f"{table}:{number}" for number in range(1, options.items + 1)]


async def _remove_keys(stage: Stage) -> None:
    with anyio.CancelScope(shield=True):
        for side in stage.sides:
            await side.reader.remove(side.names)


def _version_of_ours(value: bytes) -> int:
    return int(orjson.loads(value)["Version"])


def _version_of_usual(value: bytes) -> int:
    return int(orjson.loads(value)["Version"]["N"])


def _usual_function(function: UsualHandler) -> Function:
    async def invoke(batch: Batch) -> Answer:
        return Returned(function.handle(batch.event))

    return invoke


def _watch_ours(stage: Stage) -> Callable[[Batch, Answer, Decision], None]:
    def watch(batch: Batch, answer: Answer, decision: Decision) -> None:
        stage.moved.set()
        _count(stage.ours, batch, decision)
        stage.progress.count(batch, decision)
        if decision.kind != "done":
            stage.show(failure_line(batch, answer, decision))
            stage.show_reason()
            return
        stage.acknowledged.append(batch)
        if stage.healed_s is not None:
            after_s = time.monotonic() - stage.healed_s
            stage.healed_s = None
            stage.show(
                f"RECOVERED: first batch of {len(batch.records)} written "
                f"{after_s:.1f} s after Redis came back"
            )

    return watch


def _watch_usual(stage: Stage) -> Callable[[Batch, Answer, Decision], None]:
    def watch(batch: Batch, _answer: Answer, decision: Decision) -> None:
        stage.moved.set()
        _count(stage.usual, batch, decision)

    return watch


def _count(side: Side, batch: Batch, decision: Decision) -> None:
    side.delivered += len(batch.records)
    side.left += len(decision.acknowledged)


async def _keep_looking(stage: Stage) -> None:
    while True:
        await stage.look()
        await anyio.sleep(LOOK_INTERVAL_S)


async def _show_progress(stage: Stage) -> None:
    while not stage.is_over:
        await anyio.sleep(PROGRESS_INTERVAL_S)
        lag_s = stage.ours.watcher.behind_s(time.monotonic())
        progress = stage.progress
        stage.show(
            f"{len(stage.journal.written_s):,} written, lag {lag_s:.1f} s, {progress.batches} "
            f"batches, {stage.ours.proxy.turns} round trips, {progress.superseded:,} superseded"
        )
