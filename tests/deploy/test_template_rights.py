"""The template's roles against what AWS checks when it makes the stack."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.template.cases import ACCOUNT, CASES, STREAM
from tests.support.template.cloudformation import PSEUDO, Resolver
from tests.support.template.iam import is_allowed, listed, matches, statements_of

BUCKET = "${GivenUp.Arn}"
OWN = {"s3:ResourceAccount": PSEUDO["AWS::AccountId"]}
BY_CODE = {"lambda:SourceFunctionArn": f"arn:aws:lambda:{ACCOUNT}:function:Mirror"}
INTERFACES = (
    "CreateNetworkInterface",
    "DescribeNetworkInterfaces",
    "DescribeSubnets",
    "DeleteNetworkInterface",
    "AssignPrivateIpAddresses",
    "UnassignPrivateIpAddresses",
)


# --- the matcher itself -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "text", "covers"),
    [
        ("b/*", "b/*", True),
        ("b/aws/lambda/*", "b/*", False),  # the check that a real deployment failed
        ("b/*", "b/aws/lambda/x", True),
        ("b", "b/x", False),
        ("*", "anything/at:all", True),
        ("arn:?:x", "arn:a:x", True),
        ("a.c", "abc", False),
    ],
)
def test_a_pattern_covers_what_iams_does(pattern: str, text: str, covers: bool) -> None:
    assert matches(pattern, text) is covers


def test_a_deny_wins_and_a_condition_without_its_key_does_not_hold() -> None:
    allow = {"Effect": "Allow", "Action": "S3:Put*", "Resource": "b/*"}
    deny = {**allow, "Effect": "Deny", "Condition": {"ArnLike": {"k": "f:*"}}}
    narrow = {**allow, "Condition": {"StringEquals": {"k": "f"}}}

    assert is_allowed([allow], "s3:PutObject", "b/x")
    assert not is_allowed([allow], "s3:GetObject", "b/x")
    assert is_allowed([allow, deny], "s3:PutObject", "b/x")
    assert not is_allowed([allow, deny], "s3:PutObject", "b/x", {"k": "f:1"})
    assert not is_allowed([narrow], "s3:PutObject", "b/x")
    assert not is_allowed([], "s3:PutObject", "b/x")
    with pytest.raises(LookupError):
        is_allowed([{**allow, "Condition": {"Bool": {"k": "true"}}}], "s3:PutObject", "b/x")


# --- what AWS checks --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(translated: Any) -> dict[str, Any]:
    return {
        case: Resolver(translated, given, known=True).resources() for case, given in CASES.items()
    }


def checks_of_the_mapping(case: str, resources: Any) -> Iterator[tuple[str, str, dict[str, str]]]:
    """CreateEventSourceMapping evaluates the function's role for these, on these literals."""
    stream = resources["MirrorChanges"]["Properties"]["EventSourceArn"]
    assert stream == STREAM or "new table" in case
    for action in ("GetRecords", "GetShardIterator", "DescribeStream"):
        yield f"dynamodb:{action}", stream, {}
    yield "dynamodb:ListStreams", "*", {}
    yield "dynamodb:ListStreams", stream, {}
    destination = resources["MirrorChanges"]["Properties"]["DestinationConfig"]["OnFailure"]
    assert destination == {"Destination": BUCKET}
    yield "s3:PutObject", f"{BUCKET}/*", OWN
    yield "s3:ListBucket", BUCKET, OWN
    yield from keys_of(case)


def keys_of(case: str) -> Iterator[tuple[str, str, dict[str, str]]]:
    """The KMS keys of what is read (the stream, the environment) and written (the bucket)."""
    given = CASES[case]
    if "TableKeyArn" in given:
        yield "kms:Decrypt", given["TableKeyArn"], {}
    if "KmsKeyArn" in given:
        yield "kms:Decrypt", given["KmsKeyArn"], {}
        yield "kms:GenerateDataKey", given["KmsKeyArn"], {}


def checks_of_a_function(properties: Any) -> Iterator[tuple[str, str, dict[str, str]]]:
    """CreateFunction evaluates the role for its network interfaces; Lambda then makes them."""
    if "VpcConfig" in properties:
        for action in INTERFACES:
            yield f"ec2:{action}", "*", {}


def test_the_mapping_is_not_refused(made: dict[str, Any]) -> None:
    for case, resources in made.items():
        statements = statements_of(resources["MirrorRole"])
        for action, resource, context in checks_of_the_mapping(case, resources):
            assert is_allowed(statements, action, resource, context), (case, action, resource)


def test_the_operations_have_the_keys_of_what_they_read_and_write(made: dict[str, Any]) -> None:
    for case, resources in made.items():
        if "OperationsRole" in resources:
            statements = statements_of(resources["OperationsRole"])
            for action, resource, context in keys_of(case):
                assert is_allowed(statements, action, resource, context), (case, action)


def test_no_role_has_a_key_that_was_not_given(made: dict[str, Any]) -> None:
    for case, resources in made.items():
        given = {CASES[case].get(name) for name in ("TableKeyArn", "KmsKeyArn")}
        for name in ("MirrorRole", "OperationsRole", "LookRole"):
            for statement in statements_of(resources[name]) if name in resources else ():
                if any(action.startswith("kms:") for action in listed(statement["Action"])):
                    assert statement["Resource"] in given, (case, name)


def test_no_function_is_refused_its_network_and_none_may_use_the_right(
    made: dict[str, Any],
) -> None:
    for case, resources in made.items():
        for name, body in resources.items():
            if body["Type"] != "AWS::Lambda::Function":
                continue
            role = resources[body["Properties"]["Role"].removeprefix("${").split(".")[0]]
            statements = statements_of(role)
            for action, resource, _ in checks_of_a_function(body["Properties"]):
                assert is_allowed(statements, action, resource), (case, name, action)
                assert not is_allowed(statements, action, resource, BY_CODE), (case, name)


def test_each_role_is_one_that_its_service_may_take(made: dict[str, Any]) -> None:
    for resources in made.values():
        for name, body in resources.items():
            if body["Type"] != "AWS::IAM::Role":
                continue
            (trust,) = body["Properties"]["AssumeRolePolicyDocument"]["Statement"]
            service = "states" if name == "OperationsMachineRole" else "lambda"
            assert trust["Principal"] == {"Service": f"{service}.amazonaws.com"}
            assert (trust["Effect"], trust["Action"]) == ("Allow", "sts:AssumeRole")


def test_the_bucket_lets_the_mapping_write_nowhere_else(made: dict[str, Any]) -> None:
    for resources in made.values():
        statements = statements_of(resources["MirrorRole"])
        foreign = {"s3:ResourceAccount": "999999999999"}
        assert not is_allowed(statements, "s3:PutObject", f"{BUCKET}/*", foreign)
        assert not is_allowed(statements, "s3:PutObject", "arn:aws:s3:::other/*", OWN)
        assert not is_allowed(statements, "s3:GetObject", f"{BUCKET}/x", OWN)


def test_the_machine_may_do_what_a_distributed_map_asks_for(made: dict[str, Any]) -> None:
    for case, resources in made.items():
        if "OperationsMachine" not in resources:
            continue
        statements = statements_of(
            resources["OperationsMachineRole"], resources["OperationsMachineItself"]
        )
        own = f"arn:aws:states:{ACCOUNT}:execution:${{OperationsMachine.Name}}"
        mapping = f"arn:aws:lambda:{ACCOUNT}:event-source-mapping:${{MirrorChanges}}"
        for action, resource in (
            ("states:StartExecution", "${OperationsMachine}"),
            ("states:DescribeExecution", f"{own}/Backfill:51af3dc0"),
            ("states:StopExecution", f"{own}:51af3dc0"),
            ("lambda:InvokeFunction", "${OperationsFunction.Arn}"),
            ("lambda:GetEventSourceMapping", mapping),
            ("cloudwatch:DescribeAlarms", "${LateAlarm.Arn}"),
        ):
            assert is_allowed(statements, action, resource), (case, action)
