"""Whether a mapping follows the stream, without which nothing may be filled.

A fill holds what the table held; what changes afterwards must come by the stream. So a mapping
that began at the stream's oldest record, before the first read, has to be enabled and to have
caught up. What cannot be seen from here is the user's to say (--skip-mapping-check).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from asyncsync.aws.clients import AwsClients, aws_errors
from asyncsync.aws.tables import Table, stream_of
from asyncsync.tools.errors import CommandRefused

# The mapping's newest records are older than this where it has not caught up. A busy mapping
# with a batching window is seconds behind.
BEHIND_MS_MAX = 60_000

# CloudWatch has a function's metrics by the minute, and some minutes late.
LOOK_BACK_S = 600

_OR_SAY = (
    "mend that, or give --skip-mapping-check where you know that all changes since are mirrored"
)


async def require_caught_up_mapping(
    dynamo: AwsClients, table: Table, now: datetime, read_at: datetime | None = None
) -> None:
    """Refuse where no mapping follows the table's stream since before it is, or was, read.

    Raises CommandRefused, or CommandFailed where that cannot be found out.
    """
    mappings: list[Mapping[str, Any]] = []
    ages: dict[str, float] = {}
    async with dynamo.open("lambda") as functions, dynamo.open("cloudwatch") as metrics:
        with aws_errors("listing the stream's event source mappings", "Lambda"):
            pages = functions.get_paginator("list_event_source_mappings")
            async for page in pages.paginate(EventSourceArn=stream_of(table)):
                mappings += page["EventSourceMappings"]
        for each in mappings:
            function = str(each["FunctionArn"])
            ages[function] = await _age_ms(metrics, function, now)
    why = why_not_followed(mappings, ages, read_at)
    if why:
        raise CommandRefused(f"nothing may be filled yet: {why}; {_OR_SAY}")


async def _age_ms(metrics: Any, function: str, now: datetime) -> float:
    """Return how old the records of a function's last minute were; 0 where there were none."""
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


def why_not_followed(
    mappings: Sequence[Mapping[str, Any]],
    ages_ms: Mapping[str, float],
    read_at: datetime | None,
) -> str:
    """Say why no mapping follows; empty where one does.

    With read_at, when an export was made, it must have been as it is since before that.
    """
    if not mappings:
        return "no event source mapping reads the table's stream"
    reasons = [_why_not(each, ages_ms[each["FunctionArn"]], read_at) for each in mappings]
    return "" if "" in reasons else reasons[0]


def _why_not(mapping: Mapping[str, Any], age_ms: float, read_at: datetime | None) -> str:
    named = f"mapping {mapping['UUID']}"
    state = mapping.get("State", "")
    if state != "Enabled":
        return f"{named} is {state}, not Enabled"
    begins = mapping.get("StartingPosition", "")
    if begins != "TRIM_HORIZON":
        return f"{named} began at {begins}, not at TRIM_HORIZON"
    changed = mapping.get("LastModified", datetime.fromtimestamp(0, UTC))
    if read_at is not None and changed > read_at:
        return f"{named} was made or changed at {changed:%FT%TZ}, after the export"
    if age_ms > BEHIND_MS_MAX:
        return f"{named} has not caught up: it is {age_ms / 1_000:,.0f} s behind"
    return ""
