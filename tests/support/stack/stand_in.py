"""A stand-in for a deployed stack: moto's AWS, the real handlers in process, a real Redis.

What only Lambda does is done here: a thread delivers the stream's records to the real handler,
gives a windowed mapping's to the bucket as they fail, and makes metrics of its lines.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from asyncsync import Config, Mirror
from asyncsync.cli import operations
from asyncsync.mapping.on_failure import on_failure

KEYS = {"aws_access_key_id": "any", "aws_secret_access_key": "any", "region_name": "us-east-1"}
ACCOUNT = "123456789012"
MIRROR, OPERATIONS = "stack-Mirror", "stack-Operations"
BUCKET = "stack-givenup"
MAPPING = "mapping-1"
ALARMS = {
    "LateAlarm": ("AWS/Lambda", "IteratorAge", "FunctionName", MIRROR),
    "ErrorsAlarm": ("AWS/Lambda", "Errors", "FunctionName", MIRROR),
    "DroppedAlarm": ("AWS/Lambda", "DroppedEventCount", "EventSourceMappingUUID", MAPPING),
    "GivenUpAlarm": (
        "AWS/Lambda",
        "OnFailureDestinationDeliveredEventCount",
        "EventSourceMappingUUID",
        MAPPING,
    ),
    "RejectsAlarm": ("asyncsync", "Rejected", "Table", "Players"),
}


def template(settings: Mapping[str, str]) -> dict[str, Any]:
    """Return as much of the template as moto's CloudFormation takes."""
    role = {"Version": "2012-10-17", "Statement": []}
    code = {"ZipFile": "def handler(event, context): pass"}
    function = {"Runtime": "python3.13", "Role": {"Fn::GetAtt": ["MirrorRole", "Arn"]}}
    function |= {"Handler": "asyncsync.handler.lambda_handler", "Code": code}
    resources: dict[str, Any] = {
        "Players": {
            "Type": "AWS::DynamoDB::Table",
            "Properties": {
                "TableName": "Players",
                "BillingMode": "PAY_PER_REQUEST",
                "AttributeDefinitions": [{"AttributeName": "Number", "AttributeType": "N"}],
                "KeySchema": [{"AttributeName": "Number", "KeyType": "HASH"}],
                "StreamSpecification": {"StreamViewType": "NEW_IMAGE"},
            },
        },
        "MirrorRole": {
            "Type": "AWS::IAM::Role",
            "Properties": {"AssumeRolePolicyDocument": role},
        },
        "GivenUp": {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": BUCKET}},
        "Mirror": {
            "Type": "AWS::Lambda::Function",
            "Properties": {
                **function,
                "FunctionName": MIRROR,
                "Environment": {"Variables": dict(settings)},
            },
        },
        "OperationsFunction": {
            "Type": "AWS::Lambda::Function",
            "Properties": {**function, "FunctionName": OPERATIONS},
        },
    }
    outputs = {
        "TableName": {"Ref": "Players"},
        "MirrorFunction": {"Ref": "Mirror"},
        "OperationsFunction": {"Ref": "OperationsFunction"},
        "MappingId": MAPPING,  # moto's own would empty the stream at each change
        "GivenUpBucket": {"Ref": "GivenUp"},
    }
    return {
        "Parameters": {"BatchSize": {"Type": "Number", "Default": 1000}},
        "Resources": resources,
        "Outputs": {name: {"Value": value} for name, value in outputs.items()},
    }


class Service:
    """One service's client: an answer of the stand-in where there is one, else moto's."""

    def __init__(self, world: StandIn, name: str, client: Any) -> None:
        self._world, self._name, self._client = world, name, client

    def __getattr__(self, method: str) -> Any:
        own = getattr(self._world, f"{self._name}_{method}", None)
        real = own or getattr(self._client, method)
        return self._world.wrong.get((self._name, method), real)


class StandIn:
    """The stack, and the Lambda service beside it."""

    def __init__(self, moto: str, redis_url: str, **settings: str) -> None:
        self.moto = moto
        self.settings = {
            "ASYNCSYNC_REDIS_URL": redis_url,
            "ASYNCSYNC_KEY": "Players:{@key}",
            "ASYNCSYNC_METRICS": "every",
            **settings,
        }
        self.wrong: dict[tuple[str, str], Callable[..., Any]] = {}  # (service, method)
        self.windowed: dict[str, dict[str, Any]] = {}
        self.is_deaf = False  # nothing is delivered
        self._real = {
            name: boto3.client(name, endpoint_url=moto, **KEYS)
            for name in (
                "cloudformation",
                "cloudwatch",
                "dynamodb",
                "dynamodbstreams",
                "elasticache",
                "lambda",
                "s3",
                "stepfunctions",
            )
        }
        body = json.dumps(template(self.settings))
        self._real["cloudformation"].create_stack(StackName="stack", TemplateBody=body)
        described = self._real["dynamodb"].describe_table(TableName="Players")["Table"]
        self.stream = described["LatestStreamArn"]
        # (logical id, type, physical id) of what moto does not make, or not list
        self.more = [(name, "AWS::CloudWatch::Alarm", f"stack-{name}") for name in ALARMS]
        for name, (namespace, metric, dimension, value) in ALARMS.items():
            self._real["cloudwatch"].put_metric_alarm(
                AlarmName=f"stack-{name}",
                Namespace=namespace,
                MetricName=metric,
                Dimensions=[{"Name": dimension, "Value": value}],
                Statistic="Sum",
                Period=60,
                EvaluationPeriods=1,
                ComparisonOperator="GreaterThanThreshold",
                Threshold=0,
            )
        self._mirror = Mirror(Config(**self._arguments()), emit=self._emit)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._deliver, daemon=True)

    def _arguments(self) -> dict[str, Any]:
        return {
            name.removeprefix("ASYNCSYNC_").lower(): value for name, value in self.settings.items()
        }

    def client(self, name: str) -> Any:
        return Service(self, name, self._real[name])

    def __enter__(self) -> StandIn:
        for metric in ("IteratorAge", "Errors"):
            self._metric("AWS/Lambda", "FunctionName", MIRROR, {metric: 0.0})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._mirror.close()

    # --- what Lambda does ---------------------------------------------------------------------

    def _deliver(self) -> None:
        streams = self._real["dynamodbstreams"]
        (shard,) = streams.describe_stream(StreamArn=self.stream)["StreamDescription"]["Shards"]
        iterator = streams.get_shard_iterator(
            StreamArn=self.stream, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        while not self._ended.wait(0.02):
            answer = streams.get_records(ShardIterator=iterator)
            iterator = answer["NextShardIterator"]
            records = [self._record(each) for each in answer["Records"]]
            if not records or self.is_deaf:
                continue
            self._mirror.lambda_handler({"Records": records})
            for uuid, mapping in [*self.windowed.items()]:
                (pattern,) = mapping["FilterCriteria"]["Filters"]
                keys = json.loads(pattern["Pattern"])["dynamodb"]["Keys"]
                passed = [each for each in records if _passes(each["dynamodb"]["Keys"], keys)]
                if passed:
                    self._give_up(uuid, passed)

    def _record(self, record: dict[str, Any]) -> dict[str, Any]:
        change = dict(record["dynamodb"])
        change["ApproximateCreationDateTime"] = change["ApproximateCreationDateTime"].timestamp()
        return {**record, "dynamodb": change, "eventSourceARN": self.stream}

    def _give_up(self, uuid: str, records: list[dict[str, Any]]) -> None:
        """Call the handler as a windowed mapping does; put what it cannot take into the bucket."""
        event = {"Records": records, "window": {"start": "a", "end": "b"}, "state": {}}
        with contextlib.suppress(Exception):
            self._mirror.lambda_handler(event)
            raise AssertionError("a windowed event must be refused")
        batch: Any = SimpleNamespace(
            request_id="r",
            shard_id="shardId-1",
            attempts=1,
            function_error="Unhandled",
            event=json.dumps({"Records": records}).encode(),
            records=[
                SimpleNamespace(item_identifier=r["dynamodb"]["SequenceNumber"], created_ms=0)
                for r in records
            ],
        )
        document = on_failure(
            batch,
            "RetryAttemptsExhausted",
            function=f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:{MIRROR}:1",
            stream_arn=self.stream,
            now_ms=0,
        )
        name = f"aws/lambda/{uuid}/shardId-1/2026/01/01/{time.monotonic_ns()}"
        self._real["s3"].put_object(Bucket=BUCKET, Key=name, Body=json.dumps(document).encode())
        metric = "OnFailureDestinationDeliveredEventCount"
        self._metric("AWS/Lambda", "EventSourceMappingUUID", uuid, {metric: 1.0})

    # --- CloudWatch ---------------------------------------------------------------------------

    def _emit(self, line: bytes) -> None:
        document = json.loads(line)
        if "_aws" not in document:
            return
        (defined,) = document["_aws"]["CloudWatchMetrics"]
        values = {each["Name"]: document[each["Name"]] for each in defined["Metrics"]}
        values["RawEvent"] = 1.0  # in process there is no runtime that could hand over bytes
        self._metric(defined["Namespace"], "Table", document["Table"], values)

    def _metric(self, namespace: str, name: str, value: str, data: Mapping[str, Any]) -> None:
        dimensions = [{"Name": name, "Value": value}]
        self._real["cloudwatch"].put_metric_data(
            Namespace=namespace,
            MetricData=[
                {
                    "MetricName": metric,
                    "Dimensions": dimensions,
                    "Timestamp": datetime.now(UTC),
                    **({"Values": each} if isinstance(each, list) else {"Value": each}),
                }
                for metric, each in data.items()
                if each != []
            ],
        )

    # --- CloudFormation -----------------------------------------------------------------------

    def cloudformation_get_paginator(self, name: str) -> Any:
        pages = self._real["cloudformation"].get_paginator(name)

        def paginate(**query: Any) -> Iterator[dict[str, Any]]:
            yield from pages.paginate(**query)
            more = [
                {
                    "LogicalResourceId": logical,
                    "ResourceType": kind,
                    "PhysicalResourceId": physical,
                    "ResourceStatus": "CREATE_COMPLETE",
                }
                for logical, kind, physical in self.more
            ]
            yield {"StackResourceSummaries": more}

        return SimpleNamespace(paginate=paginate)

    # --- Lambda's API, where moto's is none ---------------------------------------------------

    def lambda_invoke(self, FunctionName: str, Payload: bytes) -> dict[str, Any]:  # noqa: N803
        """Run the real operations handler in process, in a thread, for it starts a loop."""
        assert FunctionName == OPERATIONS
        answer: dict[str, Any] = {"StatusCode": 200}
        try:
            document = operations.lambda_handler(json.loads(Payload), None)
        except Exception as exc:
            answer["FunctionError"] = "Unhandled"
            document = {"errorMessage": str(exc), "errorType": type(exc).__name__}
        return {**answer, "Payload": io.BytesIO(json.dumps(document).encode())}

    def lambda_get_event_source_mapping(self, UUID: str) -> dict[str, Any]:  # noqa: N803
        if UUID in self.windowed:
            return {"UUID": UUID, "State": "Enabled"}
        assert UUID == MAPPING
        return {
            "UUID": UUID,
            "BatchSize": 1000,
            "State": "Enabled",
            "StartingPosition": "TRIM_HORIZON",
            "LastProcessingResult": "OK",
            "EventSourceArn": self.stream,
            "MaximumBatchingWindowInSeconds": 0,
            "DestinationConfig": {"OnFailure": {"Destination": f"arn:aws:s3:::{BUCKET}"}},
        }

    def lambda_create_event_source_mapping(self, **mapping: Any) -> dict[str, Any]:
        if ":" not in mapping["FunctionName"]:
            error = {"Code": "ResourceConflictException", "Message": "it already exists"}
            raise self._real["lambda"].exceptions.ResourceConflictException(
                {"Error": error}, "CreateEventSourceMapping"
            )
        assert mapping["DestinationConfig"]["OnFailure"]["Destination"].endswith(BUCKET)
        assert mapping["TumblingWindowInSeconds"] > 0
        uuid = f"poison-{len(self.windowed)}"
        self.windowed[uuid] = mapping
        return {"UUID": uuid, "State": "Creating"}

    def lambda_delete_event_source_mapping(self, UUID: str) -> None:  # noqa: N803
        if self.windowed.pop(UUID, None) is None:
            error = {"Code": "ResourceNotFoundException", "Message": "no such mapping"}
            raise self._real["lambda"].exceptions.ResourceNotFoundException(
                {"Error": error}, "DeleteEventSourceMapping"
            )


def _passes(keys: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return all(
        keys[name][kind] in values
        for name, each in wanted.items()
        for kind, values in each.items()
    )


@contextlib.contextmanager
def stand_in(
    moto: str, redis_url: str, monkeypatch: pytest.MonkeyPatch, **settings: str
) -> Iterator[StandIn]:
    """Deploy the stack into an empty moto, and let the operations handler see its environment."""
    for path, body in (("reset", b""), ("config", b'{"lambda": {"use_docker": false}}')):
        request = urllib.request.Request(f"{moto}/moto-api/{path}", body, method="POST")
        request.add_header("Content-Type", "application/json")
        urllib.request.urlopen(request).close()
    for name in [each for each in os.environ if each.startswith("ASYNCSYNC_")]:
        if not name.startswith("ASYNCSYNC_TEST"):
            monkeypatch.delenv(name)
    world = StandIn(moto, redis_url, **settings)
    for name, value in {
        **world.settings,
        operations.TABLE: "Players",
        operations.STATE: f"s3://{BUCKET}/operations",
        operations.PLACE: f"s3://{BUCKET}/aws/lambda/",
        operations.SEES_MAPPING: "false",
        "AWS_ENDPOINT_URL": moto,
        "AWS_ACCESS_KEY_ID": "any",
        "AWS_SECRET_ACCESS_KEY": "any",
        "AWS_DEFAULT_REGION": "us-east-1",
        "NO_PROXY": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    with world:
        yield world


__all__ = ["BUCKET", "ClientError", "StandIn", "stand_in"]
