"""asyncsync run: a table's stream through the lab's mapping into the real handler.

For development and small tables. At scale the engine is Lambda's own event source mapping.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import anyio

from asyncsync.aws.clients import open_clients
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
from asyncsync.tools.run.poller import Consumer, Poller, function_of
from asyncsync.tools.run.progress import Progress, failure_line, progress_line
from asyncsync.transport_asyncio import connect

FUNCTION = "arn:aws:lambda:us-east-1:111122223333:function:asyncsync-run"
INVOCATION_TIMEOUT_S = 30.0
PROGRESS_INTERVAL_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What the command line says."""

    table: str
    endpoint_url: str | None = None
    mirror: str | None = None  # module:name, in place of settings
    batch_size: int = 100
    exit_when_idle_s: float | None = None  # end after so long without a record; None: never


async def run(
    options: RunOptions, config: Config | None, env: Mapping[str, str], output: Output
) -> None:
    """Mirror a table's stream until cancelled, or until nothing has come for exit_when_idle_s.

    Raises CommandFailed, or ConfigError, EventError or StoreRefused where no retry can help.
    """
    progress = Progress()
    meter: Meter | None = None
    if options.mirror is not None:
        mirror = load_mirror(options.mirror)
    else:
        assert config is not None, "without a mirror the settings make one"
        meter = Meter()
        mirror = make_mirror(config, env, connect=metered(connect, meter), emit=progress.take)
    try:
        await _run(options, env, output, mirror, progress, meter)
    finally:
        mirror.close()


async def _run(
    options: RunOptions,
    env: Mapping[str, str],
    output: Output,
    mirror: Mirror,
    progress: Progress,
    meter: Meter | None,
) -> None:
    settings = MappingSettings(batch_size=options.batch_size, bisect=True, report_failures=True)

    def watch(batch: Batch, answer: Answer, decision: Decision) -> None:
        progress.count(batch, decision)
        if decision.kind in ("retry", "split", "rest"):
            output.note(output.timed(failure_line(batch, answer, decision)))
            if progress.last_log:
                output.note(output.timed(f"  {progress.last_log}"))
                progress.last_log = ""

    with first_error():
        async with open_clients(options.endpoint_url, env) as clients:
            stream_arn = stream_of(await describe_table(clients, options.table))
            output.line(f"stream  {stream_arn}")
            output.line(f"redis   {mirror.config.server.address}, keys {mirror.config.key}")
            mapping = EventSourceMapping(settings, function=FUNCTION, stream_arn=stream_arn)
            function = function_of(mirror, INVOCATION_TIMEOUT_S)
            poller = Poller(clients, stream_arn, [Consumer(mapping, function, watch)])
            try:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(poller.run)
                    await _show_progress(options, poller, mapping, progress, meter, output)
                    tasks.cancel_scope.cancel()
            finally:
                output.line(output.timed(progress_line(progress, mapping, meter)))


async def _show_progress(
    options: RunOptions,
    poller: Poller,
    mapping: EventSourceMapping,
    progress: Progress,
    meter: Meter | None,
    output: Output,
) -> None:
    """Show what has changed, until the stream has been idle for long enough."""
    shown = 0
    while True:
        quiet_s = time.monotonic() - poller.quiet_since_s
        if (
            options.exit_when_idle_s is not None
            and mapping.is_idle
            and quiet_s >= options.exit_when_idle_s
        ):
            return
        await anyio.sleep(
            min(PROGRESS_INTERVAL_S, options.exit_when_idle_s or PROGRESS_INTERVAL_S)
        )
        if progress.batches != shown and output.progress(progress_line(progress, mapping, meter)):
            shown = progress.batches
