"""Describes a table: its primary key, its stream and its size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from asyncsync.aws.clients import AwsClients, aws_errors
from asyncsync.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Table:
    """A table's description, as far as the tools need it."""

    name: str
    keys: tuple[str, ...]
    stream_arn: str | None  # None where the stream is off
    view_type: str | None
    arn: str = ""
    types: Mapping[str, str] = field(default_factory=dict)  # of the key attributes: S, N or B
    items: int = 0  # approximate: DynamoDB counts every six hours
    size_bytes: int = 0


async def describe_table(clients: AwsClients, name: str) -> Table:
    """Describe a table.

    Raises AwsFailed.
    """
    with aws_errors(f"describing table {name}"):
        answer = await clients.items.describe_table(TableName=name)
    table = answer["Table"]
    stream = table.get("StreamSpecification", {})
    return Table(
        table["TableName"],
        tuple(each["AttributeName"] for each in table["KeySchema"]),
        table.get("LatestStreamArn") if stream.get("StreamEnabled") else None,
        stream.get("StreamViewType"),
        table.get("TableArn", ""),
        {each["AttributeName"]: each["AttributeType"] for each in table["AttributeDefinitions"]},
        table.get("ItemCount", 0),
        table.get("TableSizeBytes", 0),
    )


def stream_of(table: Table) -> str:
    """Return the ARN of a table's stream.

    Raises ConfigError where it has none.
    """
    if table.stream_arn is None:
        raise ConfigError(f"table {table.name} has no stream: enable one with view type NEW_IMAGE")
    return table.stream_arn
