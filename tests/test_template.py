"""The template keeps the promises that the handler's guarantees assume."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from asyncsync import Config, Mirror
from asyncsync.limits import FENCE_TTL_S_MIN

TEMPLATE = Path(__file__).parent.parent / "template.yaml"
PARAMETERS = {"RedisUrl": "rediss://cache.example.com:6379", "RedisPassword": "secret"}
STREAM_LIFE_S = 86_400


class Tag(str):
    """A CloudFormation function, as the text it was written with."""

    __slots__ = ()


class Loader(yaml.SafeLoader):
    """YAML with CloudFormation's short functions: !Ref x is Tag("!Ref x")."""


def _function(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> object:
    if isinstance(node, yaml.ScalarNode):
        return Tag(f"!{suffix} {node.value}")
    assert isinstance(node, yaml.SequenceNode)
    return {suffix: loader.construct_sequence(node, deep=True)}


Loader.add_multi_constructor("!", _function)


@pytest.fixture(scope="module")
def template() -> Any:
    return yaml.load(TEMPLATE.read_text(), Loader)


@pytest.fixture(scope="module")
def function(template: Any) -> Any:
    return template["Resources"]["Mirror"]["Properties"]


@pytest.fixture(scope="module")
def mapping(function: Any) -> Any:
    (event,) = function["Events"].values()
    assert event["Type"] == "DynamoDB"
    return event["Properties"]


def environment(function: Any, parameters: Mapping[str, str]) -> dict[str, str]:
    """The function's variables, as CloudFormation would resolve them."""
    resolved = {}
    for name, value in function["Environment"]["Variables"].items():
        if isinstance(value, dict):
            condition, then, otherwise = value["If"]
            assert condition == "HasPassword"
            value = then if parameters["RedisPassword"] else otherwise
        if value == "!Ref AWS::NoValue":
            continue
        resolved[name] = (
            parameters[value.removeprefix("!Ref ")] if isinstance(value, Tag) else value
        )
    return resolved


def test_the_stream_has_new_images_and_nothing_more(template: Any) -> None:
    table = template["Resources"]["Players"]["Properties"]

    assert table["StreamSpecification"] == {"StreamViewType": "NEW_IMAGE"}


def test_the_handler_is_the_one_of_the_package(function: Any) -> None:
    assert function["Handler"] == "asyncsync.handler.lambda_handler"
    assert find_spec("asyncsync.handler")
    assert hasattr(Mirror, "lambda_handler")
    assert function["Runtime"] == "python3.13"
    assert function["Architectures"] == ["arm64"]


@pytest.mark.parametrize("password", ["", "secret"])
def test_the_settings_are_accepted(function: Any, password: str) -> None:
    env = environment(function, {**PARAMETERS, "RedisPassword": password})

    assert all(isinstance(value, str) for value in env.values())
    config = Config.from_env(env)
    assert config.server.password == password
    assert config.fence == "on"


def test_failures_are_reported_where_the_mapping_listens(function: Any, mapping: Any) -> None:
    config = Config.from_env(environment(function, PARAMETERS))

    assert config.on_failure == "report"
    assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert mapping["BisectBatchOnFunctionError"] is True


def test_nothing_is_missed_at_the_start_and_nothing_lost_unseen(mapping: Any) -> None:
    assert mapping["StartingPosition"] == "TRIM_HORIZON"
    assert mapping["MaximumRetryAttempts"] == -1
    assert mapping["MaximumRecordAgeInSeconds"] < STREAM_LIFE_S
    assert mapping["DestinationConfig"]["OnFailure"]["Destination"] == "!GetAtt GivenUp.Arn"


def test_a_fence_outlives_every_record(function: Any, mapping: Any) -> None:
    config = Config.from_env(environment(function, PARAMETERS))

    assert mapping["MaximumRecordAgeInSeconds"] < FENCE_TTL_S_MIN <= config.fence_ttl_s
    assert config.fence_ttl_s == Config(redis_url="redis://unused").fence_ttl_s


def test_the_handler_has_time_for_every_wait(function: Any) -> None:
    config = Config.from_env(environment(function, PARAMETERS))

    assert function["Timeout"] * 1_000 > 4 * config.timeout_ms + 1_000


def test_the_mapping_stays_within_what_lambda_allows(mapping: Any) -> None:
    assert 1 <= mapping["BatchSize"] <= 10_000
    assert 0 <= mapping["MaximumBatchingWindowInSeconds"] <= 300
    assert 1 <= mapping["ParallelizationFactor"] <= 10
    # A property SAM does not know is found at deploy only; these are all it has for DynamoDB.
    assert set(mapping) <= {
        "BatchSize",
        "BisectBatchOnFunctionError",
        "DestinationConfig",
        "Enabled",
        "FilterCriteria",
        "FunctionResponseTypes",
        "KmsKeyArn",
        "MaximumBatchingWindowInSeconds",
        "MaximumRecordAgeInSeconds",
        "MaximumRetryAttempts",
        "MetricsConfig",
        "ParallelizationFactor",
        "StartingPosition",
        "StartingPositionTimestamp",
        "Stream",
        "TumblingWindowInSeconds",
    }


def test_every_reference_names_something_that_is_there(template: Any) -> None:
    text = TEMPLATE.read_text()
    known = {*template["Parameters"], *template["Resources"], "AWS::NoValue"}

    assert set(re.findall(r"!Ref ([\w:]+)", text)) <= known
    assert set(re.findall(r"!GetAtt (\w+)\.", text)) <= known
    assert set(re.findall(r"!If \[(\w+)", text)) <= set(template["Conditions"])


def test_every_number_has_its_reason() -> None:
    lines = TEMPLATE.read_text().splitlines()
    bare = [
        line.strip()
        for before, line in pairwise(lines)
        if re.match(r'\s+\w+: "?-?\d+"?\s*$', line) and not before.strip().startswith("#")
    ]

    assert not bare


def test_no_resource_has_a_fixed_name_so_two_stacks_fit_in_one_account(template: Any) -> None:
    named = [
        f"{resource}.{name}"
        for resource, body in template["Resources"].items()
        for name in body.get("Properties", {})
        if name.endswith("Name")
    ]

    assert not named
