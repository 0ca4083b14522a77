"""Refuse an event that no mapping of a DynamoDB stream sends; say what to set instead."""

from __future__ import annotations

from collections.abc import Iterable

from asyncsync.errors import EventError

# By a record's eventSource, or by a field that only one sender's events have.
_SENDERS = {
    "[": "EventBridge Pipes, which sends an array of records",
    "aws:kinesis": "a Kinesis data stream",
    "aws:sqs": "an SQS queue",
    "aws:sns": "an SNS topic",
    "aws:s3": "an S3 bucket",
    "aws:kafka": "a Kafka topic",
    "detail-type": "an EventBridge rule or schedule",
    "httpMethod": "API Gateway or a load balancer",
    "rawPath": "API Gateway or a function URL",
    "DDBStreamBatchInfo": "an on-failure destination (asyncsync redrive takes what it holds)",
    "requestContext": "API Gateway",
    "dynamodb": "EventBridge Pipes or a state machine, as a record without a batch",
}


def refused(signs: Iterable[str], source: str = "") -> EventError:
    """Return the error for an event with these fields, or whose records have this eventSource."""
    signs = [sign for sign in _SENDERS if sign in (source, *signs)]
    sender = _SENDERS[signs[0]] if signs else f"eventSource {source!r}" if source else ""
    came = f"it comes from {sender}" if sender else "it has no list of Records"
    return EventError(
        f"not a DynamoDB stream event: {came}. Instead, let an event source mapping of the "
        "table's stream call this function: aws lambda create-event-source-mapping "
        "--event-source-arn STREAM_ARN --function-name FUNCTION --starting-position TRIM_HORIZON"
    )


WINDOWED = (
    "the event is of a tumbling window: Lambda wants a state for an answer, without which it "
    "sends the batch again. Set the mapping's TumblingWindowInSeconds to 0"
)
