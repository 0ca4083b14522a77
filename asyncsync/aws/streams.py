"""Reads a stream: its shards, and their records in the shape of Lambda's events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from asyncsync.aws.clients import AwsClients, aws_errors
from asyncsync.aws.items import json_attributes


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard of a stream; its parent may be trimmed already."""

    shard_id: str
    parent: str | None


@dataclass(frozen=True, slots=True)
class RecordPage:
    """Records in Lambda's shape, and the next iterator: None at the end of a closed shard."""

    records: list[dict[str, Any]]
    iterator: str | None


async def shards(clients: AwsClients, stream_arn: str) -> list[Shard]:
    """List a stream's shards, parents before their children."""
    listing: list[Shard] = []
    request: dict[str, Any] = {"StreamArn": stream_arn}
    while True:
        with aws_errors("describing the stream"):
            answer = await clients.streams.describe_stream(**request)
        stream = answer["StreamDescription"]
        listing += [
            Shard(each["ShardId"], each.get("ParentShardId")) for each in stream.get("Shards", [])
        ]
        last = stream.get("LastEvaluatedShardId")
        if not last:
            return listing
        request["ExclusiveStartShardId"] = last


async def shard_iterator(
    clients: AwsClients, stream_arn: str, shard_id: str, after: str | None = None
) -> str:
    """Return an iterator at a shard's oldest record, or after a sequence number."""
    position: dict[str, Any] = {"ShardIteratorType": "TRIM_HORIZON"}
    if after is not None:
        position = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": after}
    with aws_errors(f"opening shard {shard_id}"):
        answer = await clients.streams.get_shard_iterator(
            StreamArn=stream_arn, ShardId=shard_id, **position
        )
    return answer["ShardIterator"]


async def read_page(clients: AwsClients, stream_arn: str, iterator: str) -> RecordPage:
    """Read the next records of a shard, at most 1,000."""
    with aws_errors("reading the stream"):
        answer = await clients.streams.get_records(ShardIterator=iterator)
    records = [lambda_record(each, stream_arn) for each in answer["Records"]]
    return RecordPage(records, answer.get("NextShardIterator"))


def lambda_record(record: Mapping[str, Any], stream_arn: str) -> dict[str, Any]:
    """Convert a stream record from the SDK's shape to that of Lambda's events."""
    change = dict(record["dynamodb"])
    created = change.get("ApproximateCreationDateTime")
    if isinstance(created, datetime):
        change["ApproximateCreationDateTime"] = created.timestamp()
    for name in ("Keys", "NewImage", "OldImage"):
        if name in change:
            change[name] = json_attributes(change[name])
    converted = {**record, "dynamodb": change, "eventSourceARN": stream_arn}
    identity = record.get("userIdentity")
    if identity:
        converted["userIdentity"] = {
            "type": identity.get("Type"),
            "principalId": identity.get("PrincipalId"),
        }
    return converted
