"""Checks that a mapping follows the stream, without which a backfill may not begin.

A fill writes what the table held; every later change must come by the stream. So a mapping that
began at the stream's oldest record, before the first read, must be enabled and caught up. What
cannot be seen from here the user must confirm (--skip-mapping-check).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from asyncsync.aws.clients import AwsClients, aws_errors
from asyncsync.aws.tables import Table, stream_of
from asyncsync.mapping.requirements import function_name, why_not_delivering
from asyncsync.tools.errors import CommandRefused

# A mapping whose newest records are older than this has not caught up. A busy mapping with a
# batching window is seconds behind.
BEHIND_MS_MAX = 60_000

# CloudWatch has a function's metrics by the minute, some minutes late.
LOOK_BACK_S = 600


async def require_caught_up_mapping(
    clients: AwsClients,
    table: Table,
    now: datetime,
    read_at: datetime | None = None,
    function: str | None = None,
) -> None:
    """Require that a mapping has followed the table's stream since before the table was read.

    `read_at` is the time of an export; None: the table is not read yet. `function` is the
    mirror's, by name or ARN, if it is known. Raises CommandRefused, ConfigError if the table has
    no stream, or AwsFailed.
    """
    mappings: list[Mapping[str, Any]] = []
    ages: dict[str, float] = {}
    async with clients.open("lambda") as functions, clients.open("cloudwatch") as metrics:
        with aws_errors("listing the stream's event source mappings", "Lambda"):
            pages = functions.get_paginator("list_event_source_mappings")
            async for page in pages.paginate(EventSourceArn=stream_of(table)):
                mappings += page["EventSourceMappings"]
        for mapping in mappings:
            function = str(mapping["FunctionArn"])
            ages[function] = await _age_ms(metrics, function, now)
    why = why_not_caught_up(mappings, ages, read_at, stream_of(table), function)
    if why:
        raise CommandRefused(f"cannot backfill yet: {why}, or pass --skip-mapping-check")


async def _age_ms(metrics: Any, function: str, now: datetime) -> float:
    """Return the age of the records of a function's last minute; 0 if there were none."""
    with aws_errors("reading the function's IteratorAge", "CloudWatch"):
        answer = await metrics.get_metric_statistics(
            Namespace="AWS/Lambda",
            MetricName="IteratorAge",
            Dimensions=[{"Name": "FunctionName", "Value": function.split(":")[6]}],
            StartTime=now - timedelta(seconds=LOOK_BACK_S),
            EndTime=now,
            Period=60,
            Statistics=["Maximum"],
        )
    points = sorted(answer["Datapoints"], key=lambda point: point["Timestamp"])
    return float(points[-1]["Maximum"]) if points else 0.0


def why_not_caught_up(
    mappings: Sequence[Mapping[str, Any]],
    ages_ms: Mapping[str, float],
    read_at: datetime | None,
    stream_arn: str | None = None,
    function: str | None = None,
) -> str:
    """Return why the function's mapping has not caught up, and what to do; empty if it has.

    With read_at, when an export was made, the mapping must be unchanged since before that.
    Without a function, a mapping of each function that reads the stream must have caught up: any
    of them may be the mirror's.
    """
    by_function: dict[str, list[str]] = {}
    for mapping in mappings:
        arn = mapping["FunctionArn"]
        why = why_not_delivering(mapping, stream_arn) or _why_not(mapping, ages_ms[arn], read_at)
        by_function.setdefault(function_name(arn), []).append(why)
    name = None if function is None else function_name(function)
    if name is not None:
        by_function = {name: by_function[name]} if name in by_function else {}
    if not by_function:
        whom = f" for function {name}" if name else ""
        return f"no event source mapping reads this table's stream{whom}. Create one"
    behind = [reasons[0] for reasons in by_function.values() if "" not in reasons]
    if behind and len(by_function) > 1:
        names = " and ".join(sorted(by_function))
        return f"{behind[0]}, or pass --function: {names} read this stream"
    return behind[0] if behind else ""


def _why_not(mapping: Mapping[str, Any], age_ms: float, read_at: datetime | None) -> str:
    name = f"mapping {mapping['UUID']}"
    changed = mapping.get("LastModified")
    if read_at is not None and (changed is None or changed > read_at):
        when = "at an unknown time" if changed is None else f"at {changed:%FT%TZ}"
        return f"{name} was changed {when}, after the export. Take a new export"
    if age_ms > BEHIND_MS_MAX:
        return f"{name} is {age_ms / 1_000:,.0f} s behind the stream. Wait until it has caught up"
    return ""
