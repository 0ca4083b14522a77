"""The objects of an on-failure destination, in AWS's shape, as its S3 destination writes them.

Only S3 gets the payload: SQS and SNS get the sequence numbers, never the items.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal, NotRequired, Protocol, TypeAlias, TypedDict

Condition: TypeAlias = Literal["RetryAttemptsExhausted", "RecordAgeExceeded"]


class RequestContext(TypedDict):
    """The invocation that failed."""

    requestId: str
    functionArn: str
    condition: Condition
    approximateInvokeCount: int


class ResponseContext(TypedDict):
    """The answer of the last invocation; functionError is None after a partial response."""

    statusCode: int
    executedVersion: str
    functionError: str | None


class DDBStreamBatchInfo(TypedDict):
    """The records that were discarded."""

    shardId: str
    startSequenceNumber: str
    endSequenceNumber: str
    approximateArrivalOfFirstRecord: str
    approximateArrivalOfLastRecord: str
    batchSize: int
    streamArn: str


class OnFailure(TypedDict):
    """One object of the on-failure destination."""

    requestContext: RequestContext
    responseContext: NotRequired[ResponseContext]  # absent if there was no invocation
    version: str
    timestamp: str
    DDBStreamBatchInfo: DDBStreamBatchInfo
    payload: str  # the whole event, as JSON in a string


class DiscardedBatch(Protocol):
    """A batch to discard, as far as its object needs it."""

    @property
    def request_id(self) -> str: ...
    @property
    def shard_id(self) -> str: ...
    @property
    def records(self) -> Sequence[DiscardedRecord]: ...
    @property
    def attempts(self) -> int: ...
    @property
    def function_error(self) -> str | None: ...
    @property
    def event(self) -> bytes: ...


class DiscardedRecord(Protocol):
    """A record of such a batch."""

    @property
    def item_identifier(self) -> str: ...
    @property
    def created_ms(self) -> int: ...


def on_failure(
    batch: DiscardedBatch, condition: Condition, *, function: str, stream_arn: str, now_ms: int
) -> OnFailure:
    """Return the object for a batch whose records are all discarded."""
    first, last = batch.records[0], batch.records[-1]
    document: OnFailure = {
        "requestContext": {
            "requestId": batch.request_id,
            "functionArn": function,
            "condition": condition,
            "approximateInvokeCount": batch.attempts,
        },
        "version": "1.0",
        "timestamp": _iso(now_ms, "milliseconds"),
        "DDBStreamBatchInfo": {
            "shardId": batch.shard_id,
            "startSequenceNumber": first.item_identifier,
            "endSequenceNumber": last.item_identifier,
            "approximateArrivalOfFirstRecord": _iso(first.created_ms, "seconds"),
            "approximateArrivalOfLastRecord": _iso(last.created_ms, "seconds"),
            "batchSize": len(batch.records),
            "streamArn": stream_arn,
        },
        "payload": batch.event.decode(),
    }
    if batch.attempts:
        document["responseContext"] = {
            "statusCode": 200,
            "executedVersion": "$LATEST",
            "functionError": batch.function_error,
        }
    return document


def _iso(epoch_ms: int, precision: str) -> str:
    moment = datetime.fromtimestamp(epoch_ms / 1_000, UTC)
    return moment.isoformat(timespec=precision).replace("+00:00", "Z")
