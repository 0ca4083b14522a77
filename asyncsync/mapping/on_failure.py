"""The on-failure destination's objects, in AWS's own shape, as the S3 destination writes them.

Only S3 gets the payload: SQS and SNS are told which sequence numbers, never which items.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal, NotRequired, Protocol, TypeAlias, TypedDict

Condition: TypeAlias = Literal["RetryAttemptsExhausted", "RecordAgeExceeded"]


class RequestContext(TypedDict):
    """Which invocation it was."""

    requestId: str
    functionArn: str
    condition: Condition
    approximateInvokeCount: int


class ResponseContext(TypedDict):
    """What the last invocation answered; functionError is None after a partial response."""

    statusCode: int
    executedVersion: str
    functionError: str | None


class DDBStreamBatchInfo(TypedDict):
    """Which records were given up on."""

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
    responseContext: NotRequired[ResponseContext]  # absent where no invocation was made
    version: str
    timestamp: str
    DDBStreamBatchInfo: DDBStreamBatchInfo
    payload: str  # the whole event, as JSON in a text


class DiscardedBatch(Protocol):
    """What is needed of a batch that is given up on."""

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
    """What is needed of its records."""

    @property
    def item_identifier(self) -> str: ...
    @property
    def created_ms(self) -> int: ...


def on_failure(
    batch: DiscardedBatch, condition: Condition, *, function: str, stream_arn: str, now_ms: int
) -> OnFailure:
    """Write the object for a batch whose records are all given up on."""
    first, last = batch.records[0], batch.records[-1]
    made: OnFailure = {
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
        made["responseContext"] = {
            "statusCode": 200,
            "executedVersion": "$LATEST",
            "functionError": batch.function_error,
        }
    return made


def _iso(epoch_ms: int, precision: str) -> str:
    moment = datetime.fromtimestamp(epoch_ms / 1_000, UTC)
    return moment.isoformat(timespec=precision).replace("+00:00", "Z")
