"""asyncsync run: mirror a table's stream from this machine, through the real handler.

For development and small tables; at scale Lambda's own event source mapping does this. Here the
model in mapping/ stands for it: what is a batch and what is retried is the model's decision.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import anyio

from asyncsync.aws.clients import AwsClients
from asyncsync.aws.tables import Table, describe_table, stream_of
from asyncsync.config import PREFIX, Config
from asyncsync.mapping.answers import Answer
from asyncsync.mapping.event_source_mapping import (
    Batch,
    Decision,
    EventSourceMapping,
    MappingSettings,
)
from asyncsync.mirror import Mirror
from asyncsync.tools.errors import CommandRefused, first_error
from asyncsync.tools.mirrors import observe
from asyncsync.tools.output import Output
from asyncsync.tools.run.poller import Consumer, Poller, Watch, function_of
from asyncsync.tools.run.progress import Progress, failure_line

FUNCTION = "arn:aws:lambda:us-east-1:111122223333:function:asyncsync-run"
INVOCATION_TIMEOUT_S = 30.0
PROGRESS_INTERVAL_S = 1.0

_WITHOUT_NEW_IMAGES = ("KEYS_ONLY", "OLD_IMAGE")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """The command line's options."""

    table: str
    batch_size: int = 100
    exit_when_idle_s: float | None = None  # seconds without a record; None: never
    as_json: bool = False


async def run(clients: AwsClients, options: RunOptions, mirror: Mirror, output: Output) -> bool:
    """Mirror a table's stream until cancelled, or until it has been idle for long enough.

    Raises AwsFailed or CommandRefused, ConfigError, EventError or StoreRefused where no retry
    can help, and UserCodeFailed where the user's key function or transform raises.
    """
    table = await describe_table(clients, options.table)
    stream_arn = stream_of(table)
    _refuse_view(table, mirror.config)
    progress = Progress()
    observe(mirror, progress.read_log)
    settings = MappingSettings(batch_size=options.batch_size, bisect=True, report_failures=True)
    mapping = EventSourceMapping(settings, function=FUNCTION, stream_arn=stream_arn)
    function = function_of(mirror, INVOCATION_TIMEOUT_S)
    consumer = Consumer(mapping, function, _watch(progress, output))
    poller = Poller(clients, stream_arn, [consumer])
    idle_s = options.exit_when_idle_s or float("inf")
    try:
        with first_error():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(poller.run)
                await _show_until_idle(poller, mapping, idle_s, progress, output)
                tasks.cancel_scope.cancel()
    finally:
        mirror.close()
        is_behind = not poller.is_at_end
        if options.as_json:
            output.document({"stream": stream_arn, **progress.counts(mapping, is_behind)})
        else:
            output.line(output.timed(progress.line(mapping, is_behind)))
    return True


def _refuse_view(table: Table, config: Config) -> None:
    if config.mode != "invalidate" and table.view_type in _WITHOUT_NEW_IMAGES:
        raise CommandRefused(
            f"the stream of table {table.name} has view type {table.view_type}, which has no new "
            f"images: re-create the stream with NEW_IMAGE, or set {PREFIX}MODE=invalidate"
        )


def _watch(progress: Progress, output: Output) -> Watch:
    def watch(batch: Batch, answer: Answer, decision: Decision) -> None:
        progress.count(batch, decision)
        if decision.kind not in ("retry", "split", "rest"):
            return
        output.warn(output.timed(failure_line(batch, answer, decision)))
        if progress.last_log:
            output.warn(output.timed(f"  {progress.last_log}"))
            progress.last_log = ""

    return watch


async def _show_until_idle(
    poller: Poller, mapping: EventSourceMapping, idle_s: float, progress: Progress, output: Output
) -> None:
    """Show progress; return after idle_s seconds without a record at the stream's end."""
    while not (
        poller.is_at_end and mapping.is_idle and time.monotonic() - poller.last_record_s >= idle_s
    ):
        output.progress(progress.line(mapping, not poller.is_at_end))
        await anyio.sleep(min(PROGRESS_INTERVAL_S, idle_s))
