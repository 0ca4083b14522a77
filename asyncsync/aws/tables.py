"""A table's identity and primary key, as DynamoDB itself states them.

A table is its ARN: a name alone says neither the account nor the Region. Its primary key is its
KeySchema; its attribute definitions also hold the attributes of its indexes. What a user typed
only asks for a table. What is compared or saved is what DynamoDB answered.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from asyncsync.aws.clients import AwsClients, AwsFailed, aws_errors, member
from asyncsync.errors import ConfigError

_ARN = re.compile(r"arn:([^:]+):dynamodb:([^:]*):([^:]*):table/([^/:]+)")


@dataclass(frozen=True, slots=True)
class TableArn:
    """The parts of a table's ARN."""

    partition: str
    region: str
    account: str
    name: str

    def __str__(self) -> str:
        return f"arn:{self.partition}:dynamodb:{self.region}:{self.account}:table/{self.name}"


def parse_table_arn(arn: str) -> TableArn | None:
    """Read a table's ARN, or the table out of its stream's ARN; None where it is neither."""
    match = _ARN.fullmatch(arn.partition("/stream/")[0])
    return None if match is None else TableArn(*match.groups())


@dataclass(frozen=True, slots=True)
class Table:
    """A table's description, as far as the tools need it."""

    arn: TableArn
    key: Mapping[str, str]  # each key attribute's type (S, N or B), the hash key first
    stream_arn: str | None = None  # None where the stream is off
    view_type: str | None = None
    items: int = 0  # approximate: DynamoDB counts every six hours
    size_bytes: int = 0
    table_id: str = ""  # another for a table that was deleted and created again
    asked: str = ""  # the argument that DynamoDB answered to, perhaps an ARN; empty: the name

    @property
    def address(self) -> str:
        """Return what requests call it: a name alone would be of the caller's own account."""
        return self.asked or self.name

    @property
    def name(self) -> str:
        """Return the table's name, which {@table} stands for."""
        return self.arn.name


async def describe_table(clients: AwsClients, table: str) -> Table:
    """Describe a table, which is given by its name or its ARN.

    Raises AwsFailed, or ConfigError where DynamoDB answers with another table.
    """
    work = f"describing table {table}"
    with aws_errors(work):
        answer = await clients.items.describe_table(TableName=table)
    described = replace(read_description(member(answer, "Table", work), work), asked=table)
    if table not in (described.name, str(described.arn)):
        raise ConfigError(
            f"--table {table} is another table than {described.arn}, which DynamoDB answered "
            "with: check the Region and the account that you are signed in to"
        )
    return described


def read_description(description: Mapping[str, Any], work: str) -> Table:
    """Read the "Table" of DescribeTable's answer.

    Raises AwsFailed where it lacks a member.
    """
    text = str(member(description, "TableArn", work))
    arn = parse_table_arn(text)
    if arn is None or text != str(arn):
        raise AwsFailed(f"DynamoDB failed at {work}: {text!r} is not the ARN of a table")
    stream = description.get("StreamSpecification") or {}  # absent: there was never a stream
    is_on = stream.get("StreamEnabled", False)
    return Table(
        arn,
        _key(description, work),
        str(member(description, "LatestStreamArn", work)) if is_on else None,
        str(member(stream, "StreamViewType", work)) if is_on else None,
        description.get("ItemCount", 0),
        description.get("TableSizeBytes", 0),
        str(description.get("TableId") or description.get("CreationDateTime") or ""),
    )


def _key(description: Mapping[str, Any], work: str) -> dict[str, str]:
    """Return the attributes of KeySchema alone, with their types, the hash key first."""
    types = {
        member(each, "AttributeName", work): member(each, "AttributeType", work)
        for each in member(description, "AttributeDefinitions", work)
    }
    schema = member(description, "KeySchema", work)
    by_kind = {
        member(each, "KeyType", work): member(each, "AttributeName", work) for each in schema
    }
    names = [member(by_kind, "HASH", f"{work}: its KeySchema")]
    names += [by_kind["RANGE"]] if "RANGE" in by_kind else []
    return {name: member(types, name, f"{work}: its AttributeDefinitions") for name in names}


def stream_of(table: Table) -> str:
    """Return the ARN of a table's stream.

    Raises ConfigError where it has none.
    """
    if table.stream_arn is None:
        raise ConfigError(f"table {table.name} has no stream: enable one with view type NEW_IMAGE")
    return table.stream_arn
