"""asyncsync run: mirror a table's stream from this machine, through the real handler.

For development and small tables; at scale Lambda's own event source mapping does this. Here the
model in mapping/ stands for it: what is a batch and what is retried is the model's decision.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import anyio

from asyncsync.aws.clients import AwsClients, open_clients
from asyncsync.aws.tables import describe_table, stream_of
from asyncsync.config import Config
from asyncsync.mapping.answers import Answer
from asyncsync.mapping.event_source_mapping import (
    Batch,
    Decision,
    EventSourceMapping,
    MappingSettings,
)
from asyncsync.mirror import Mirror
from asyncsync.tools.errors import first_error
from asyncsync.tools.mirrors import load_mirror, make_mirror
from asyncsync.tools.output import Output
from asyncsync.tools.run.meter import Meter, metered
from asyncsync.tools.run.poller import Consumer, Poller, Watch, function_of
from asyncsync.tools.run.progress import Progress, failure_line
from asyncsync.transport_asyncio import connect

FUNCTION = "arn:aws:lambda:us-east-1:111122223333:function:asyncsync-run"
INVOCATION_TIMEOUT_S = 30.0
PROGRESS_INTERVAL_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """The command line's options."""

    table: str
    endpoint_url: str | None = None
    mirror: str | None = None  # module:name; None: a mirror of the settings
    batch_size: int = 100
    exit_when_idle_s: float | None = None  # seconds without a record; None: never


async def run(
    options: RunOptions, config: Config | None, env: Mapping[str, str], output: Output
) -> None:
    """Mirror a table's stream until cancelled, or until it has been idle for long enough.

    Raises AwsFailed or CommandRefused, and ConfigError, EventError or StoreRefused where no retry
    can help.
    """
    progress = Progress()
    if options.mirror is not None:
        mirror = load_mirror(options.mirror)
    else:
        assert config is not None, "without --mirror the settings are read"
        progress.meter = Meter()
        metered_connect = metered(connect, progress.meter)
        mirror = make_mirror(config, env, connect=metered_connect, emit=progress.read_log)
    try:
        with first_error():
            async with open_clients(options.endpoint_url, env) as clients:
                await _mirror_stream(clients, options, mirror, progress, output)
    finally:
        mirror.close()


async def _mirror_stream(
    clients: AwsClients, options: RunOptions, mirror: Mirror, progress: Progress, output: Output
) -> None:
    stream_arn = stream_of(await describe_table(clients, options.table))
    output.line(f"stream  {stream_arn}")
    output.line(f"redis   {mirror.config.server.address}, keys {mirror.config.key}")
    settings = MappingSettings(batch_size=options.batch_size, bisect=True, report_failures=True)
    mapping = EventSourceMapping(settings, function=FUNCTION, stream_arn=stream_arn)
    function = function_of(mirror, INVOCATION_TIMEOUT_S)
    consumer = Consumer(mapping, function, _watch(progress, output))
    poller = Poller(clients, stream_arn, [consumer])
    idle_s = options.exit_when_idle_s or float("inf")
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(poller.run)
            await _show_until_idle(poller, mapping, idle_s, progress, output)
            tasks.cancel_scope.cancel()
    finally:
        output.line(output.timed(progress.line(mapping)))


def _watch(progress: Progress, output: Output) -> Watch:
    def watch(batch: Batch, answer: Answer, decision: Decision) -> None:
        progress.count(batch, decision)
        if decision.kind not in ("retry", "split", "rest"):
            return
        output.note(output.timed(failure_line(batch, answer, decision)))
        if progress.last_log:
            output.note(output.timed(f"  {progress.last_log}"))
            progress.last_log = ""

    return watch


async def _show_until_idle(
    poller: Poller, mapping: EventSourceMapping, idle_s: float, progress: Progress, output: Output
) -> None:
    """Show progress where it has changed; return after idle_s seconds without a record."""
    shown = 0
    while not mapping.is_idle or time.monotonic() - poller.last_record_s < idle_s:
        await anyio.sleep(min(PROGRESS_INTERVAL_S, idle_s))
        if progress.batches != shown and output.progress(progress.line(mapping)):
            shown = progress.batches
