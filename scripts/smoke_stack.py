"""A deployed stack as the smoke test sees it: its resources, its copy, and what to clean up.

Everything is read from the stack. Everything goes through AWS's APIs, and what is inside the
network through the operations function, so that it runs from a laptop.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from asyncsync.config import PREFIX, Config
from asyncsync.iam import AwsCredentials
from asyncsync.mirror import Mirror

T = TypeVar("T")

# Items of the smoke test carry these words, in a key of type S or in this attribute.
MARK = "asyncsync-smoke"

# BatchWriteItem takes no more.
_WRITES_MAX = 25

# What was written so long ago is in a metric by now, if it ever will be.
LOOK_BACK = timedelta(hours=3)


class Unexpected(Exception):
    """AWS answered something else than expected; the message is what it answered."""


class NotDeployed(Exception):
    """The stack lacks what a line looks at; the message says what."""


class NoStack(Exception):
    """The smoke test cannot begin; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How long a line waits for AWS, and how often it looks."""

    wait_s: float = 300.0
    every_s: float = 3.0


@dataclass(slots=True)
class Stack:
    """One stack, with clients of the services by their names."""

    name: str
    client: Callable[[str], Any]
    pace: Pace = field(default_factory=Pace)
    outputs: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    status: str = ""
    resources: Sequence[Mapping[str, Any]] = ()
    function: Mapping[str, Any] = field(default_factory=dict)
    mapping: Mapping[str, Any] = field(default_factory=dict)
    table: Mapping[str, Any] = field(default_factory=dict)
    nonce: str = field(default_factory=lambda: secrets.token_hex(4))
    began: datetime = field(default_factory=lambda: datetime.now(UTC))
    writes: int = 0  # changes of items, each a stream record
    keys: dict[int, dict[str, Any]] = field(default_factory=dict)  # of items to remove
    mappings: list[str] = field(default_factory=list)  # to delete
    is_published: bool = False  # a version of the function, to delete
    poison: str = ""  # the mapping whose records fail
    check: dict[str, dict[str, str]] = field(default_factory=dict)  # the verdicts, by subject

    # --- reading the stack --------------------------------------------------------------------

    def read(self) -> None:
        """Read what the stack is. Raises NoStack."""
        formation = self.client("cloudformation")
        try:
            (described,) = formation.describe_stacks(StackName=self.name)["Stacks"]
        except formation.exceptions.ClientError as exc:
            raise NoStack(f"stack {self.name}: {exc}. Pass its name and --region") from exc
        self.status = described["StackStatus"]
        pairs = described.get("Outputs", [])
        self.outputs = {each["OutputKey"]: each["OutputValue"] for each in pairs}
        pairs = described.get("Parameters", [])
        self.parameters = {each["ParameterKey"]: each["ParameterValue"] for each in pairs}
        pages = formation.get_paginator("list_stack_resources").paginate(StackName=self.name)
        self.resources = [each for page in pages for each in page["StackResourceSummaries"]]
        for name in ("TableName", "MirrorFunction", "MappingId", "OperationsFunction"):
            if name not in self.outputs:
                raise NoStack(f"stack {self.name} has no output {name}: is it asyncsync's?")
        functions = self.client("lambda")
        self.function = functions.get_function_configuration(FunctionName=self.mirror)
        self.mapping = functions.get_event_source_mapping(UUID=self.outputs["MappingId"])
        self.table = self.client("dynamodb").describe_table(TableName=self.table_name)["Table"]

    @property
    def words(self) -> str:
        """Return what marks a version as this run's."""
        return f"{MARK}-{self.nonce}"

    @property
    def mirror(self) -> str:
        return self.outputs["MirrorFunction"]

    @property
    def table_name(self) -> str:
        return self.outputs["TableName"]

    @property
    def bucket(self) -> str:
        if "GivenUpBucket" not in self.outputs:
            raise NotDeployed("no GivenUpBucket")
        return self.outputs["GivenUpBucket"]

    @property
    def config(self) -> Config:
        variables = self.function.get("Environment", {}).get("Variables", {})
        return Config.from_env({k: v for k, v in variables.items() if k.startswith(PREFIX)})

    def of_type(self, kind: str) -> dict[str, str]:
        """Return the physical ids of a type's resources, by logical id."""
        return {
            each["LogicalResourceId"]: each["PhysicalResourceId"]
            for each in self.resources
            if each["ResourceType"] == kind and "PhysicalResourceId" in each
        }

    # --- items --------------------------------------------------------------------------------

    def key(self, number: int) -> dict[str, Any]:
        """Return an item's key that nobody else's item has, by the table's own KeySchema."""
        types = {
            each["AttributeName"]: each["AttributeType"]
            for each in self.table["AttributeDefinitions"]
        }
        text = f"{MARK}-{self.nonce}-{number}"
        values = {
            "S": text,
            "N": str(-(10**20) - int(self.nonce, 16) * 10**6 - number),
            "B": text.encode(),
        }
        names = [each["AttributeName"] for each in self.table["KeySchema"]]
        return {name: {types[name]: values[types[name]]} for name in names}

    def redis_key(self, number: int) -> str:
        """Return the name that the function gives an item's key."""
        somebody = AwsCredentials(access_key_id="a", secret_access_key="b", region="c")
        mirror = Mirror(self.config, credentials=lambda: somebody)
        values = {name: self._plain(value) for name, value in self.key(number).items()}
        return mirror.redis_key(values, table=self.table_name)

    @staticmethod
    def _plain(value: Mapping[str, Any]) -> object:
        ((kind, plain),) = value.items()
        return int(plain) if kind == "N" else plain

    def put(self, numbers: Sequence[int], word: str) -> None:
        """Put items, each with a word that the copy must show."""
        self.keys |= {number: self.key(number) for number in numbers}
        items = [{**self.key(number), MARK: {"S": word}} for number in numbers]
        self._write([{"PutRequest": {"Item": item}} for item in items])
        self.writes += len(items)

    def remove(self, numbers: Sequence[int]) -> None:
        """Remove items."""
        self._write([{"DeleteRequest": {"Key": self.key(number)}} for number in numbers])
        for number in numbers:
            self.keys.pop(number, None)

    def _write(self, requests: list[dict[str, Any]]) -> None:
        dynamodb = self.client("dynamodb")
        end_s = time.monotonic() + self.pace.wait_s
        while requests:
            batch, requests = requests[:_WRITES_MAX], requests[_WRITES_MAX:]
            answer = dynamodb.batch_write_item(RequestItems={self.table_name: batch})
            unprocessed = answer.get("UnprocessedItems", {}).get(self.table_name, [])
            if unprocessed:
                if time.monotonic() > end_s:
                    raise Unexpected(f"{len(unprocessed)} writes stay unprocessed")
                time.sleep(self.pace.every_s)
            requests = [*unprocessed, *requests]

    # --- inside the network -------------------------------------------------------------------

    def operate(self, *args: str) -> tuple[int, list[str]]:
        """Run a command in the operations function until it is done; return exit code and lines.

        Raises Unexpected with the function's error.
        """
        event: Any = {"args": list(args)}
        lines: list[str] = []
        while True:
            answer = self.client("lambda").invoke(
                FunctionName=self.outputs["OperationsFunction"],
                Payload=json.dumps(event).encode(),
            )
            payload = json.loads(answer["Payload"].read() or b"null")
            if answer.get("FunctionError") or not isinstance(payload, dict):
                error = payload if not isinstance(payload, dict) else payload.get("errorMessage")
                raise Unexpected(f"{args[0]} failed: {error}")
            lines += payload["said"]
            if payload["done"]:
                return payload["exit_code"], lines
            event = payload["next"]

    def operate_json(self, *args: str) -> tuple[int, dict[str, Any]]:
        """Run a command with --json; return its exit code and its last object."""
        code, lines = self.operate(*args, "--json")
        objects = [json.loads(line) for line in lines if line.startswith("{")]
        if not objects:
            raise Unexpected(f"{args[0]} answers: {' '.join(lines)}")
        return code, objects[-1]

    def look(self, number: int) -> dict[str, Any]:
        """Return what the copy holds for an item."""
        return self.operate_json("get", self.redis_key(number), "--show-values")[1]

    # --- waiting ------------------------------------------------------------------------------

    def until(self, look: Callable[[], T | None], what: str) -> T:
        """Look until there is an answer. Raises Unexpected when the time is over."""
        end_s = time.monotonic() + self.pace.wait_s
        while True:
            answer = look()
            if answer is not None:
                return answer
            if time.monotonic() > end_s:
                raise Unexpected(f"{what} after {self.pace.wait_s:.0f} s")
            time.sleep(self.pace.every_s)

    # --- metrics ------------------------------------------------------------------------------

    def data(self, metric: Mapping[str, Any], statistic: str) -> list[float]:
        """Return a metric's values of the last hours, by the minute."""
        now = datetime.now(UTC)
        stat = {"Metric": dict(metric), "Period": 60, "Stat": statistic}
        answer = self.client("cloudwatch").get_metric_data(
            MetricDataQueries=[{"Id": "m", "MetricStat": stat}],
            StartTime=now - LOOK_BACK,
            EndTime=now + timedelta(minutes=1),
        )
        return [value for each in answer["MetricDataResults"] for value in each["Values"]]

    def own_metric(self, name: str) -> dict[str, Any]:
        """Return one of asyncsync's metrics of this table."""
        dimensions = [{"Name": "Table", "Value": self.table_name}]
        return {"Namespace": "asyncsync", "MetricName": name, "Dimensions": dimensions}

    # --- cleaning up --------------------------------------------------------------------------

    def clean_up(self) -> list[str]:
        """Remove what the smoke test made; return what stays, and why."""
        left: list[str] = []
        for what, remove in self._leftovers():
            try:
                remove()
            except Exception as exc:
                left.append(f"{what}: {exc}")
        return left

    def _leftovers(self) -> Iterator[tuple[str, Callable[[], object]]]:
        if self.keys:
            yield f"{len(self.keys)} items", partial(self.remove, [*self.keys])
        for uuid in self.mappings:
            yield f"mapping {uuid}", partial(self.delete_mapping, uuid)
        if self.is_published:
            yield "the function's version", self._delete_versions
        if self.poison:
            for prefix in (f"aws/lambda/{self.poison}/", f"redriven/aws/lambda/{self.poison}/"):
                yield f"s3://{self.bucket}/{prefix}", partial(self._delete_objects, prefix)

    def _delete_versions(self) -> None:
        functions = self.client("lambda")
        pages = functions.get_paginator("list_versions_by_function")
        for page in pages.paginate(FunctionName=self.mirror):
            for each in page["Versions"]:
                if each.get("Description") == self.words:
                    functions.delete_function(FunctionName=self.mirror, Qualifier=each["Version"])

    def delete_mapping(self, uuid: str) -> None:
        """Delete a mapping and wait until it is gone; one that still changes refuses."""
        functions = self.client("lambda")

        def gone() -> bool | None:
            try:
                functions.delete_event_source_mapping(UUID=uuid)
            except functions.exceptions.ResourceInUseException:
                return None
            except functions.exceptions.ResourceNotFoundException:
                return True
            return None

        self.until(gone, "it is still there")

    def objects(self, prefix: str) -> list[str]:
        """Return the names of the bucket's objects below a prefix."""
        pages = self.client("s3").get_paginator("list_objects_v2")
        listed = pages.paginate(Bucket=self.bucket, Prefix=prefix)
        return [each["Key"] for page in listed for each in page.get("Contents", [])]

    def _delete_objects(self, prefix: str) -> None:
        for name in self.objects(prefix):
            self.client("s3").delete_object(Bucket=self.bucket, Key=name)
