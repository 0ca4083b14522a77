"""The demo's stage: three handlers with their mappings, a reader of their copies, progress.

Whatever runs in the background runs here, from before the first change until the comparison.
What happens on the stage is in command.py.
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
from asyncsync.connection import ReplyError
from asyncsync.lab.demo.environment import (
    DemoReader,
    Servers,
    table_names,
    temporary_table,
    through,
)
from asyncsync.lab.demo.usual_handler import AwaitedHandler, UsualHandler
from asyncsync.lab.demo.watcher import CopyWatcher, Journal
from asyncsync.lab.proxy import Proxy, proxy_to
from asyncsync.mapping.answers import Answer, FunctionError, Returned
from asyncsync.mapping.event_source_mapping import (
    Batch,
    Decision,
    EventSourceMapping,
    MappingSettings,
)
from asyncsync.mirror import Mirror
from asyncsync.tools.output import Output, plural
from asyncsync.tools.run.meter import Meter, metered
from asyncsync.tools.run.poller import Consumer, Function, Poller, function_of
from asyncsync.tools.run.progress import Progress, failure_line
from asyncsync.transport_asyncio import Connect

FUNCTION = "arn:aws:lambda:us-east-1:111122223333:function:demo"
INVOCATION_TIMEOUT_S = 30.0
READ_INTERVAL_S = 0.05
PROGRESS_INTERVAL_S = 2.0
_INDENT = 11  # of a long line's rest: the width of a time

# Bisect as in the template. The longest backoff is shorter than Lambda's, so that retries show
# during a cut of a few seconds.
SETTINGS = MappingSettings(bisect=True, report_failures=True, backoff_max_ms=1_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """Options of the command line, and how long Redis is cut off."""

    items: int = 300
    changes: int = 3_000
    seed: int | None = None
    reader: bool = False  # compare readers, not handlers
    keep: bool = False
    redis_url: str | None = None
    endpoint_url: str | None = None
    cut_s: float = 3.0
    program: str = "asyncsync"  # how the command line was called
    region: str | None = None
    profile: str | None = None
    as_json: bool = False


@dataclass(slots=True)
class Side:
    """One of the handlers: its mapping, its connection, and what a reader sees of its copy."""

    config: Config
    names: list[str]  # of its keys, by item
    connect: Connect
    proxy: Proxy
    meter: Meter
    reader: DemoReader
    watcher: CopyWatcher
    mapping: EventSourceMapping
    delivered: int = 0  # records, counted in every attempt
    acknowledged: int = 0  # records

    @classmethod
    async def open(
        cls,
        stack: AsyncExitStack,
        redis_url: str,
        names: list[str],
        watcher: CopyWatcher,
        stream_arn: str,
    ) -> Side:
        """Open a side's proxy and reader, which `stack` closes."""
        config = Config(redis_url=redis_url)
        server = config.server
        proxy = await stack.enter_async_context(
            proxy_to(server.host, server.port, path=server.path)
        )
        reader = DemoReader(server)
        stack.push_async_callback(reader.close)
        meter = Meter()
        connect = metered(through(proxy), meter)
        mapping = EventSourceMapping(SETTINGS, function=FUNCTION, stream_arn=stream_arn)
        return cls(config, names, connect, proxy, meter, reader, watcher, mapping)

    def count(self, batch: Batch, decision: Decision) -> None:
        """Count the records of an attempt."""
        self.delivered += len(batch.records)
        self.acknowledged += len(decision.acknowledged)


@dataclass(slots=True)
class Stage:
    """Everything that one demo uses."""

    options: DemoOptions
    output: Output
    clients: AwsClients
    table: str
    journal: Journal
    ours: Side
    usual: Side
    awaited: Side
    usual_handler: UsualHandler
    progress: Progress = field(default_factory=Progress)  # of ours
    consumers: list[Consumer] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)  # that ours acknowledged as a whole
    batches_before_cut: int = 0
    healed_s: float | None = None  # when Redis came back, until the first write after it
    reasons: set[str] = field(default_factory=set)  # that were shown
    is_over: bool = False  # no change is under way any more
    answered: anyio.Event = field(default_factory=anyio.Event)  # by any handler

    def tell(self, text: str) -> None:
        """Write a line of the story: with --json it is not the answer."""
        if self.options.as_json:
            self.output.note(text)
        else:
            self.output.paragraph(text, _INDENT)

    def show(self, text: str) -> None:
        """Write a line of the story with its time."""
        self.tell(self.output.timed(text))

    def show_reason(self) -> None:
        """Write why our handler failed, once for each reason."""
        reason = self.progress.last_log
        if reason not in self.reasons:
            self.reasons.add(reason)
            self.show(f"  {reason}")

    @property
    def sides(self) -> tuple[Side, Side, Side]:
        """Return the sides, ours first."""
        return self.ours, self.usual, self.awaited

    async def wait_until(self, condition: Callable[[], bool], within_s: float) -> None:
        """Wait until a condition holds, checked after every answer, or until time is up."""
        with anyio.move_on_after(within_s):
            while not condition():
                self.answered = anyio.Event()
                await self.answered.wait()

    async def read_copies(self) -> None:
        """Let the reader read each copy once."""
        for side in self.sides:
            values = await side.reader.read(side.names)
            now_s = time.monotonic()
            for number, value in enumerate(values, start=1):
                side.watcher.see(number, value, now_s)


@asynccontextmanager
async def staged(
    options: DemoOptions, servers: Servers, env: Mapping[str, str], output: Output
) -> AsyncIterator[Stage]:
    """Set the stage and keep it running; at the end remove our keys and our table.

    Raises CommandFailed or AwsFailed.
    """
    is_guest = options.redis_url is not None or options.endpoint_url is not None
    table, usual_table, awaited_table = table_names(is_guest)
    urls = [servers.redis_url] * 3
    if options.redis_url is None:  # the server is ours: each usual copy gets its own database
        urls = [servers.redis_url, f"{servers.redis_url}/1", f"{servers.redis_url}/2"]
    journal = Journal()
    async with AsyncExitStack() as stack:
        clients = await stack.enter_async_context(
            open_clients(servers.endpoint_url, env, region=options.region, profile=options.profile)
        )
        stream_arn = await stack.enter_async_context(
            temporary_table(clients, table, keep=options.keep)
        )
        names = [_names(each, options) for each in (table, usual_table, awaited_table)]
        versions = (_version_of_ours, _version_of_usual, _version_of_usual)
        ours, usual, awaited = [
            await Side.open(stack, url, names_, CopyWatcher(journal, version), stream_arn)
            for url, names_, version in zip(urls, names, versions, strict=True)
        ]
        handler = UsualHandler(usual.connect, usual.config.server, usual_table)
        loop = AwaitedHandler(awaited.connect, awaited.config.server, awaited_table)
        stack.callback(loop.close)
        stage = Stage(options, output, clients, table, journal, ours, usual, awaited, handler)
        if options.redis_url is not None and not options.keep:
            stack.push_async_callback(_remove_keys, stage)
        mirror = Mirror(ours.config, connect=ours.connect, emit=stage.progress.read_log)
        stack.callback(mirror.close)
        invoke = function_of(mirror, INVOCATION_TIMEOUT_S)
        stage.consumers += [
            Consumer(ours.mapping, invoke, _watch_ours(stage)),
            Consumer(usual.mapping, _function_of_usual(handler), _watch(stage, usual)),
            Consumer(awaited.mapping, _function_of_awaited(loop), _watch(stage, awaited)),
        ]
        poller = Poller(clients, stream_arn, stage.consumers)
        async with anyio.create_task_group() as tasks:
            for task in (poller.run, handler.run):
                tasks.start_soon(task)
            for background in (_keep_reading, _show_progress):
                tasks.start_soon(background, stage)
            yield stage
            tasks.cancel_scope.cancel()


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


def _function_of_usual(handler: UsualHandler) -> Function:
    async def invoke(batch: Batch) -> Answer:
        return Returned(handler.handle(batch.event))

    return invoke


def _function_of_awaited(handler: AwaitedHandler) -> Function:
    sandbox = anyio.Lock()  # one batch at a time, as in one sandbox

    async def invoke(batch: Batch) -> Answer:
        async with sandbox:
            try:
                await handler.handle(batch.event)
            except (OSError, ReplyError) as exc:
                return FunctionError(type(exc).__name__)
        return Returned(None)

    return invoke


def _watch_ours(stage: Stage) -> Callable[[Batch, Answer, Decision], None]:
    def watch(batch: Batch, answer: Answer, decision: Decision) -> None:
        stage.answered.set()
        stage.ours.count(batch, decision)
        stage.progress.count(batch, decision)
        if decision.kind != "done":
            stage.show(failure_line(batch, answer, decision))
            stage.show_reason()
            return
        stage.batches.append(batch)
        if stage.healed_s is not None:
            after_s = time.monotonic() - stage.healed_s
            stage.healed_s = None
            stage.show(
                f"RECOVERED: first batch of {plural(len(batch.records), 'record')} written "
                f"{after_s:.1f} s after Redis came back"
            )

    return watch


def _watch(stage: Stage, side: Side) -> Callable[[Batch, Answer, Decision], None]:
    def watch(batch: Batch, _answer: Answer, decision: Decision) -> None:
        stage.answered.set()
        side.count(batch, decision)

    return watch


async def _keep_reading(stage: Stage) -> None:
    while True:
        await stage.read_copies()
        await anyio.sleep(READ_INTERVAL_S)


async def _show_progress(stage: Stage) -> None:
    while not stage.is_over:
        await anyio.sleep(PROGRESS_INTERVAL_S)
        lag_s = stage.ours.watcher.behind_s(time.monotonic())
        progress = stage.progress
        stage.output.progress(
            f"{len(stage.journal.written_s):,} written, lag {lag_s:.1f} s, "
            f"{plural(progress.batches, 'batch', 'batches')}, "
            f"{plural(stage.ours.proxy.turns, 'round trip')}, {progress.superseded:,} superseded"
        )
