"""Writes the demo's changes to its table, at a steady pace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from asyncsync.aws.clients import AwsClients, aws_errors
from asyncsync.lab.demo.changes import ItemChange

# A steady pace that one slow core keeps up with: 3,000 changes in ten seconds.
CHANGES_PER_S = 300.0
WRITE_CHANGES_MAX = 25  # DynamoDB's limit for one BatchWriteItem


def next_write(changes: Sequence[ItemChange], at: int) -> list[ItemChange]:
    """Return the next changes for one write: an item's second change waits for the first."""
    by_item: dict[int, ItemChange] = {}
    for change in changes[at : at + WRITE_CHANGES_MAX]:
        if change.number in by_item:
            break
        by_item[change.number] = change
    return list(by_item.values())


async def write(clients: AwsClients, table: str, changes: Sequence[ItemChange]) -> None:
    """Write changes of different items to a table. Raises AwsFailed."""
    requests: dict[str, Any] = {
        table: [
            {"DeleteRequest": {"Key": {"Number": {"N": str(change.number)}}}}
            if change.item is None
            else {"PutRequest": {"Item": change.item}}
            for change in changes
        ]
    }
    while requests:
        with aws_errors(f"writing to table {table}"):
            answer = await clients.items.batch_write_item(RequestItems=requests)
        requests = dict(answer.get("UnprocessedItems", {}))
