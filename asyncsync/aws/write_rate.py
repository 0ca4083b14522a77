"""How fast a table changes, as CloudWatch knows it: stream records, else write capacity units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from asyncsync.aws.clients import AwsClients, aws_errors, member
from asyncsync.aws.tables import Table

DAYS = 7
_PERIOD = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class WriteRate:
    """What CloudWatch counted, each a second; None where it has no data point."""

    records: float | None  # of the stream, that its readers got; two readers count twice
    units: float | None  # write capacity units; a write of 3 KB is 3 of them
    expired: float | None  # items that DynamoDB's TTL deleted, which take no units
    days: float  # that were looked at


async def read_write_rate(clients: AwsClients, table: Table, now: datetime) -> WriteRate:
    """Read the last week's averages, or those since the first data point.

    Needs cloudwatch:GetMetricData. Raises AwsFailed.
    """
    end = now.replace(minute=0, second=0, microsecond=0)
    start = end - timedelta(days=DAYS)
    name = {"Name": "TableName", "Value": table.name}
    metrics = {
        "units": ("ConsumedWriteCapacityUnits", [name]),
        "expired": ("TimeToLiveDeletedItemCount", [name]),
    }
    if table.stream_arn is not None:
        label = table.stream_arn.rpartition("/stream/")[2]
        dimensions = [
            {"Name": "Operation", "Value": "GetRecords"},
            {"Name": "StreamLabel", "Value": label},
            name,
        ]
        metrics["records"] = ("ReturnedRecordsCount", dimensions)
    request: dict[str, Any] = {
        "StartTime": start,
        "EndTime": end,
        "MetricDataQueries": [_query(each, *metric) for each, metric in metrics.items()],
    }
    work = f"reading the metrics of table {table.name}"
    counts: dict[str, list[tuple[datetime, float]]] = {each: [] for each in metrics}
    with aws_errors(work, "CloudWatch"):
        async with clients.open("cloudwatch") as client:
            while True:
                answer = await client.get_metric_data(**request)
                for result in member(answer, "MetricDataResults", work, "CloudWatch"):
                    counts[result["Id"]] += zip(
                        result["Timestamps"], result["Values"], strict=True
                    )
                if not answer.get("NextToken"):
                    break
                request["NextToken"] = answer["NextToken"]
    firsts = [at for points in counts.values() for at, _ in points]
    span_s = (end - min(firsts)).total_seconds() if firsts else DAYS * 86_400.0
    return WriteRate(
        _per_s(counts.get("records", ()), span_s),
        _per_s(counts["units"], span_s),
        _per_s(counts["expired"], span_s),
        span_s / 86_400,
    )


def _query(query_id: str, metric: str, dimensions: Sequence[Any]) -> dict[str, Any]:
    return {
        "Id": query_id,
        "MetricStat": {
            "Metric": {
                "Namespace": "AWS/DynamoDB",
                "MetricName": metric,
                "Dimensions": [*dimensions],
            },
            "Period": int(_PERIOD.total_seconds()),
            "Stat": "Sum",
        },
    }


def _per_s(points: Sequence[tuple[datetime, float]], span_s: float) -> float | None:
    return sum(count for _, count in points) / span_s if points else None
