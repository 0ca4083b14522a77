"""An event that no mapping of a DynamoDB stream sends is refused by its sender's name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import orjson
import pytest

from asyncsync.decode import decode, to_bytes
from asyncsync.errors import EventError
from tests.support.events import Record, event, record

# As the Lambda developer guide shows them, cut to what tells them apart.
KINESIS = {
    "kinesis": {
        "kinesisSchemaVersion": "1.0",
        "partitionKey": "1",
        "sequenceNumber": "49590338271490256608559692538361571095921575989136588898",
        "data": "SGVsbG8sIHRoaXMgaXMgYSB0ZXN0Lg==",
    },
    "eventSource": "aws:kinesis",
    "eventID": "shardId-000000000006:49590338271490256608559692538361571095921575989136588898",
    "eventName": "aws:kinesis:record",
    "awsRegion": "us-east-2",
    "eventSourceARN": "arn:aws:kinesis:us-east-2:123456789012:stream/lambda-stream",
}
SQS = {
    "messageId": "059f36b4-87a3-44ab-83d2-661975830a7d",
    "body": "{}",
    "attributes": {"ApproximateReceiveCount": "1"},
    "eventSource": "aws:sqs",
    "eventSourceARN": "arn:aws:sqs:us-east-2:123456789012:my-queue",
    "awsRegion": "us-east-2",
}
SNS = {"EventVersion": "1.0", "EventSource": "aws:sns", "Sns": {"Message": "Hello from SNS!"}}
S3 = {"eventVersion": "2.1", "eventSource": "aws:s3", "s3": {"object": {"key": "k"}}}
KAFKA = {"eventSource": "aws:kafka", "bootstrapServers": "b:9092", "records": {"t-0": [{}]}}
RULE = {"version": "0", "id": "x", "detail-type": "Scheduled Event", "source": "aws.events"}
API_1: dict[str, Any] = {
    "resource": "/",
    "path": "/",
    "httpMethod": "GET",
    "requestContext": {},
    "body": None,
}
API_2 = {"version": "2.0", "routeKey": "$default", "rawPath": "/", "requestContext": {"http": {}}}
BALANCER = {"requestContext": {"elb": {}}, "httpMethod": "GET", "path": "/"}
SOCKET = {"requestContext": {"routeKey": "$connect", "eventType": "CONNECT"}}
ON_FAILURE = {
    "requestContext": {"condition": "RetryAttemptsExhausted"},
    "DDBStreamBatchInfo": {"shardId": "s", "batchSize": 1},
    "version": "1.0",
}
CHANGE = record(1, 1)
WINDOW = {"start": "2026-07-30T17:00:00Z", "end": "2026-07-30T17:05:00Z"}
TUMBLING = "TumblingWindowInSeconds to 0"


def windowed(*records: Record, **fields: Any) -> dict[str, Any]:
    """Return an event of a tumbling window (Lambda developer guide, "Stateful processing")."""
    return {
        "Records": [*records],
        "window": WINDOW,
        "state": {},
        "shardId": "shard123456789",
        "eventSourceARN": "arn:aws:dynamodb:us-east-1:111122223333:table/P/stream/2026-01-01",
        "isFinalInvokeForWindow": False,
        "isWindowTerminatedEarly": False,
        **fields,
    }


EVENTS: dict[str, tuple[Any, str]] = {
    "a window": (windowed(CHANGE), TUMBLING),
    "a window's end": (windowed(isFinalInvokeForWindow=True), TUMBLING),
    "a window with a state": (windowed(CHANGE, state={"1": 282}), TUMBLING),
    "a window alone": ({"Records": [CHANGE], "window": WINDOW}, TUMBLING),
    "a state alone": ({"Records": [CHANGE], "state": {}}, TUMBLING),
    "a final flag alone": ({"Records": [], "isFinalInvokeForWindow": True}, TUMBLING),
    "a window and an odd record": (windowed(CHANGE, {"dynamodb": 5}), TUMBLING),
    "a pipe": ([CHANGE], "EventBridge Pipes"),
    "a pipe's batch": ([record(n, n) for n in range(1, 11)], "EventBridge Pipes"),
    "a pipe's empty batch": ([], "EventBridge Pipes"),
    "a pipe of Kinesis": ([KINESIS], "EventBridge Pipes"),
    "a pipe with an input template": (CHANGE, "EventBridge Pipes or a state machine"),
    "Kinesis": ({"Records": [KINESIS]}, "a Kinesis data stream"),
    "SQS": ({"Records": [SQS]}, "an SQS queue"),
    "two of SQS": ({"Records": [SQS, SQS]}, "an SQS queue"),
    "SNS": ({"Records": [SNS]}, "an SNS topic"),
    "S3": ({"Records": [S3]}, "an S3 bucket"),
    "another": ({"Records": [{"eventSource": "aws:x"}]}, "eventSource 'aws:x'"),
    "Kafka": (KAFKA, "a Kafka topic"),
    "a rule": (RULE, "an EventBridge rule or schedule"),
    "an API": (API_1, "API Gateway or a load balancer"),
    "an HTTP API": (API_2, "API Gateway or a function URL"),
    "a balancer": (BALANCER, "API Gateway or a load balancer"),
    "a websocket": (SOCKET, "API Gateway"),
    "an on-failure record": (ON_FAILURE, "asyncsync redrive"),
    "the console's test": ({"key1": "value1"}, "it has no list of Records"),
    "nothing": ({}, "it has no list of Records"),
    "null": (None, "it has no list of Records"),
    "text": ("text", "it has no list of Records"),
    "Records null": ({"Records": None}, "it has no list of Records"),
    "Records an object": ({"Records": {"0": CHANGE}}, "it has no list of Records"),
}


class Wrapped(Mapping[str, Any]):
    """A mapping that is no dict, as Powertools' data classes are; one of them shadows keys().

    The development environment has no Powertools, so this stands for them; where the real class
    is installed, it is tried beside this (3.37.0 passes).
    """

    keys = property(lambda self: {"Number": 1})

    def __init__(self, data: Mapping[str, Any]) -> None:
        self._data = data

    def __getitem__(self, name: str) -> Any:
        return self._data[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def __len__(self) -> int:
        return len(self._data)


def wrapped(value: Any) -> Any:
    """Wrap every mapping in a value, however deep."""
    if isinstance(value, dict):
        return Wrapped({name: wrapped(member) for name, member in value.items()})
    return [wrapped(member) for member in value] if isinstance(value, list) else value


FORMS: dict[str, Callable[[Any], Any]] = {
    "bytes": orjson.dumps,
    "spaced bytes": lambda parsed: orjson.dumps(parsed, option=orjson.OPT_INDENT_2),
    "parsed": lambda parsed: parsed,
    "wrapped": wrapped,
}
if find_spec("aws_lambda_powertools"):
    data_classes = import_module("aws_lambda_powertools.utilities.data_classes")
    FORMS["Powertools"] = lambda parsed: (
        data_classes.DynamoDBStreamEvent(parsed) if isinstance(parsed, dict) else parsed
    )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", EVENTS)
def test_an_event_of_another_sender_is_refused_by_its_name(name: str, form: str) -> None:
    parsed, words = EVENTS[name]

    with pytest.raises(EventError, match=re.escape(words)) as refused:
        decode(to_bytes(FORMS[form](parsed)))

    message = str(refused.value)
    assert "\n" not in message
    assert words == TUMBLING or "create-event-source-mapping" in message


@pytest.mark.parametrize("form", FORMS)
def test_an_event_of_a_mapping_is_read_in_every_form(form: str) -> None:
    records = [record(number, number) for number in range(1, 4)]

    decoded = decode(to_bytes(FORMS[form]({"Records": records})))

    expected = decode(event(records))
    assert [each.key for each in decoded.records] == [each.key for each in expected.records]
    assert [orjson.loads(bytes(each.image)) for each in decoded.records] == [
        orjson.loads(bytes(each.image)) for each in expected.records
    ]
