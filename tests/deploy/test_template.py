"""template.yaml as CloudFormation gets it, for every combination of its parameters' choices.

cfn-lint and `sam validate` accept a wrong property of an event. The translator does not, so these
tests assert on its output, property by property.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from msgspec import structs

from asyncsync import Config
from asyncsync.cli import operations
from asyncsync.cli.audit_metrics import AUDIT_METRICS
from asyncsync.iam import is_serverless
from asyncsync.limits import FENCE_TTL_S_MIN
from asyncsync.metrics import METRICS
from asyncsync.tools import state
from benchmarks.harness.contestants import KEEPS_MEMORY
from scripts import bundle
from scripts.bundle import LAMBDA_PYTHON
from tests.support.template.alarm_states import watched
from tests.support.template.alarms import (
    BREACHING,
    OF_A_NEW_CACHE,
    OF_A_REPLICA,
    OF_AN_AUDIT,
    OF_SERVERLESS,
    PROMISES,
)
from tests.support.template.cases import (
    ACCOUNT,
    BOUNDARY,
    CACHE_ARN,
    CASES,
    DEFAULT,
    KEY,
    SECRET,
    SIGN_INS,
    STREAM,
    TABLE_KEY,
    TOPIC,
    YOURS,
)
from tests.support.template.cloudformation import PSEUDO, Resolver, pair_cover, tool, translate

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "template.yaml"
STREAM_LIFE_S = 86_400

NEW_USER = f"arn:aws:elasticache:{ACCOUNT}:user:asyncsync-51af3dc0"


@pytest.fixture(scope="module")
def stacks(translated: Any) -> dict[str, Resolver]:
    return {case: Resolver(translated, given, known=True) for case, given in CASES.items()}


@pytest.fixture(scope="module")
def made(stacks: dict[str, Resolver]) -> dict[str, Any]:
    """The resources of each case. Resolving refuses what names a resource that is not made."""
    return {case: stack.resources() for case, stack in stacks.items()}


def environment(resources: Any) -> dict[str, str]:
    variables: dict[str, str] = resources["Mirror"]["Properties"]["Environment"]["Variables"]
    return variables


# --- the whole --------------------------------------------------------------------------------


def test_every_condition_is_true_in_one_case_and_false_in_another(
    translated: Any, stacks: dict[str, Resolver]
) -> None:
    for condition in translated["Conditions"]:
        assert {stack.conditions[condition] for stack in stacks.values()} == {True, False}


def test_every_combination_is_one_that_the_rules_allow(stacks: dict[str, Resolver]) -> None:
    assert {case: stack.broken_rules() for case, stack in stacks.items()} == {
        case: [] for case in CASES
    }


EXISTING = {"Cache": "existing", "RedisUrl": "redis://a", **YOURS}
DURABLE = {"Cache": "node", "Durability": "sync"}


@pytest.mark.parametrize(
    ("given", "refused"),
    [
        ({"TableStreamArn": STREAM}, "TableStreamArn needs KeyPrefix"),
        ({"TableKeyArn": TABLE_KEY}, "a new table takes KmsKeyArn"),
        ({"Network": "existing"}, "needs SubnetIds"),
        ({**YOURS, "SecurityGroupIds": ""}, "needs SubnetIds and SecurityGroupIds"),
        ({"SubnetIds": "subnet-1"}, "are for Network: existing"),
        ({"SecurityGroupIds": "sg-1"}, "are for Network: existing"),
        ({**YOURS, "Zones": "a,b"}, "Zones is for Network: new"),
        ({"Network": "none"}, "a new cache is in a network"),
        ({"Cache": "existing", **YOURS}, "needs RedisUrl"),
        ({"Cache": "existing", "RedisUrl": "redis://a"}, "a new network leads to no cache"),
        (
            {**EXISTING, **SIGN_INS["password"], **SIGN_INS["IAM, group"]},
            "a token stands in a password's place",
        ),
        ({**EXISTING, "ReaderUserIds": "shop"}, "ReaderUserIds is for a new cache"),
        ({"RedisUrl": "redis://a"}, "are for Cache: existing"),
        ({"Cache": "node", "RedisCluster": "true"}, "are for Cache: existing"),
        ({"RedisPasswordSecretArn": SECRET}, "are for Cache: existing"),
        ({"CacheReplica": "true"}, "are for Cache: node"),
        ({"Durability": "sync", "CacheNodeType": "cache.m7g.large"}, "are for Cache: node"),
        (DURABLE, "Durability needs a CacheNodeType"),
        ({**DURABLE, "CacheNodeType": "cache.r5.large"}, "Durability needs a CacheNodeType"),
        ({"Operations": "false", "OperationsMap": "true"}, "need Operations"),
        ({"Operations": "false", "AuditSample": "1"}, "need Operations"),
    ],
)
def test_a_combination_that_cannot_work_is_refused_before_anything_is_made(
    translated: Any, given: dict[str, str], refused: str
) -> None:
    (reason,) = Resolver(translated, given, known=True).broken_rules()

    assert refused in reason


@pytest.mark.parametrize(
    ("name", "wrong", "right"),
    [
        ("RedisUrl", "rediss://user:secret@host:6379", "rediss://user@host:6379"),
        ("RedisUrl", "host:6379", "redis://host"),
        ("RedisUrl", "redis://host:port", "redis://[2001:db8::1]:6379/2"),
        ("RedisUrl", "redis://host:6379:6380", "rediss://user@host"),
        ("RedisUrl", "redis://", "rediss://10.0.0.7"),
        ("KeyPrefix", "a*", "a"),
        ("KeyPrefix", "a:b", "a_b"),
        ("KeyPrefix", "{a}", "A.1-"),
        ("TableStreamArn", "arn:aws:dynamodb:us-east-1:111122223333:table/Games", STREAM),
        ("TableKeyArn", f"arn:aws:kms:{ACCOUNT}:alias/games", TABLE_KEY),
        ("KmsKeyArn", "51af3dc0-da77-11e4-872e-1234567db123", KEY),
        ("KmsKeyArn", f"arn:aws:kms:{ACCOUNT}:alias/all", TABLE_KEY),
        ("SubnetIds", "subnet-0a1b subnet-1a2b", "subnet-0a1b, subnet-1a2b"),
        ("SubnetIds", "subnet-0a1b,", " subnet-0a1b , subnet-1a2b "),
        ("SubnetIds", "vpc-0a1b", "subnet-0a1b"),
        ("SecurityGroupIds", "subnet-0a1b", "sg-0a1b,sg-1a2b"),
        ("Zones", "us-east-1a", "us-east-1a, us-east-1d"),
        ("Zones", "us-east-1a,us-east-1b,us-east-1c", "us-east-1a,us-east-1b"),
        ("ReaderUserIds", "1shop", "shop, search-2"),
        ("ReaderUserIds", "shop;search", "shop"),
        ("VpcCidr", "10.0.0.0/8", "10.0.0.0/16"),
        ("VpcCidr", "10.0.0.0/25", "10.0.0.0/24"),
        ("VpcCidr", "10.0.0.0", "192.168.7.0/24"),
        ("VpcCidr", "10.0.300.0/24", "10.255.200.0/20"),
        ("CacheNodeType", "t4g.micro", "cache.t4g.micro"),
        ("CacheNodeType", "cache.t4g", "cache.r7g.2xlarge"),
        ("RedisIamCacheArn", f"arn:aws:elasticache:{ACCOUNT}:user:a", CACHE_ARN["IAM, group"]),
        ("RedisIamCacheArn", f"arn:aws:memorydb:{ACCOUNT}:user/a", CACHE_ARN["IAM, MemoryDB"]),
        ("PermissionsBoundaryArn", "developers", BOUNDARY),
        ("PermissionsBoundaryArn", "arn:aws:iam::1:policy/a", "arn:aws:iam::aws:policy/a"),
        ("RolePath", "team", "/team/"),
        ("RolePath", "/team", "/"),
        ("AlarmTopicArn", "alarms", TOPIC),
    ],
)
def test_a_parameter_that_cannot_be_right_is_refused(
    translated: Any, name: str, wrong: str, right: str
) -> None:
    pattern = translated["Parameters"][name]["AllowedPattern"]

    assert not re.search(pattern, wrong)
    assert re.search(pattern, right)


def test_no_parameter_is_a_password(translated: Any) -> None:
    assert not [p for p in translated["Parameters"] if re.search("Password$|Token$", p)]
    assert not [body for body in translated["Parameters"].values() if "NoEcho" in body]


def test_every_parameter_and_every_condition_is_used(translated: Any) -> None:
    used = json.dumps([translated["Resources"], translated["Conditions"], translated["Outputs"]])

    for name in translated["Parameters"]:
        assert f'{{"Ref": "{name}"}}' in used or f"${{{name}}}" in used, name
    for name in translated["Conditions"]:
        assert re.search(rf'"Fn::If": \["{name}"|"Condition": "{name}"', used), name
    groups = translated["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    grouped = [name for group in groups for name in group["Parameters"]]
    assert sorted(grouped) == sorted(translated["Parameters"])


def test_a_wrong_property_of_the_event_is_found(tmp_path: Path, translated: Any) -> None:
    wrong = tmp_path / "template.yaml"
    wrong.write_text(TEMPLATE.read_text().replace("BatchSize: !Ref", "BatchSizes: !Ref"))

    assert "BatchSizes" in translate(wrong).stderr


def test_nothing_has_a_fixed_name_so_two_stacks_fit_in_one_account(translated: Any) -> None:
    names = {
        f"{resource}.{name}": json.dumps(value)
        for resource, body in translated["Resources"].items()
        for name, value in body["Properties"].items()
        if re.search("Name$|^UserId$|^UserGroupId$", name)
        and body["Type"] != "AWS::Lambda::EventSourceMapping"
    }
    own = {n for n, value in names.items() if "AWS::StackId" in value}
    taken = {n for n, value in names.items() if '"Ref"' in value and n not in own}

    assert own == {
        f"{user}User.{name}"
        for user in ("Mirror", "Look", "Operations")
        for name in ("UserId", "UserName")
    } | {"CacheUsers.UserGroupId", "ServerlessCache.ServerlessCacheName"}
    # A policy's name is its role's own; an endpoint's service is AWS's.
    assert {n for n in names if n not in own | taken} == {
        f"{alarm}.MetricName" for alarm in PROMISES if alarm != "CacheFullAlarm"
    } | {
        *("OperationsMachineItself.PolicyName", "DynamoGateway.ServiceName"),
        "S3Gateway.ServiceName",
    }


def test_the_users_table_and_bucket_outlive_the_stack_and_every_change(
    made: dict[str, Any],
) -> None:
    for case, resources in made.items():
        kept = {
            name
            for name, body in resources.items()
            if body.get("UpdateReplacePolicy") == "Retain"
            # A failed first deployment leaves nothing behind.
            and body.get("DeletionPolicy") == "RetainExceptOnCreate"
        }
        table = {"Players"} if "new table" in case else set()
        assert kept == {"GivenUp", "GivenUpPolicy"} | table


def test_every_number_has_its_reason() -> None:
    # A bound is its parameter's; an alarm's numbers are explained once, above the alarms.
    alike = "MinValue|MaxValue|Period|EvaluationPeriods|DatapointsToAlarm|Threshold|ToPort"
    bare = [
        line.strip()
        for before, line in pairwise(TEMPLATE.read_text().splitlines())
        if re.match(r'\s+\w+: "?-?\d+"?\s*$', line)
        and not before.strip().startswith("#")
        and not re.match(rf"\s+({alike}):", line)
    ]

    assert not bare


# --- the function -----------------------------------------------------------------------------


def translated_values(translated: Any, parameter: str) -> list[str]:
    values: list[str] = translated["Parameters"][parameter]["AllowedValues"]
    return values


def test_the_function_is_the_packages_handler_on_the_bundles_python(
    translated: Any, made: dict[str, Any]
) -> None:
    for case, resources in made.items():
        function = resources["Mirror"]["Properties"]
        assert function["Handler"] == "asyncsync.handler.lambda_handler"
        given = CASES[case]
        default = "python" + ".".join(map(str, LAMBDA_PYTHON))
        assert function["Runtime"] == given.get("Runtime", default)
        assert function["Architectures"] == [given.get("Architecture", "arm64")]
        assert (function["MemorySize"], function["Timeout"]) == (512, 30)
        assert function["Role"] == "${MirrorRole.Arn}"
        reserved = given.get("ReservedConcurrency")
        assert function.get("ReservedConcurrentExecutions") == reserved
        assert function["LoggingConfig"] == {
            "LogGroup": "${MirrorLogs}",
            "LogFormat": "JSON",
            "ApplicationLogLevel": "INFO",
            "SystemLogLevel": "WARN",
        }
        assert function.get("KmsKeyArn") == (KEY if ", key" in case else None)
    assert translated_values(translated, "Architecture") == [*bundle.PLATFORMS]
    for kind in bundle.KINDS:
        assert f"CodeUri: dist/asyncsync-{kind.name}-arm64.zip" in TEMPLATE.read_text()


def test_it_is_in_the_network_that_was_asked_for(made: dict[str, Any]) -> None:
    for case, resources in made.items():
        config = resources["Mirror"]["Properties"].get("VpcConfig")
        if "no network" in case:
            assert config is None
        elif "your network" in case:
            assert config["SubnetIds"] == ["subnet-0a1b2c3d", "subnet-1a2b3c4d"]
            assert config["SecurityGroupIds"] == ["sg-0a1b2c3d"]
        else:
            assert config["SubnetIds"] == ["${SubnetA}", "${SubnetB}"]
            assert config["SecurityGroupIds"] == ["${MirrorSecurityGroup.GroupId}"]


def test_its_settings_are_accepted_and_lead_to_the_cache(made: dict[str, Any]) -> None:
    for case, resources in made.items():
        env = environment(resources)
        assert all(isinstance(value, str) for value in env.values())
        config = Config.from_env(env)
        assert KEEPS_MEMORY.items() <= env.items()  # what the benchmark runs with
        assert {name for name in env if not name.startswith("ASYNCSYNC_")} == {*KEEPS_MEMORY}
        assert (config.mode, config.fence, config.on_failure) == ("mirror", "on", "report")
        assert config.key == "Players:{@key}"
        assert config.server.tls
        assert config.redis_cluster == (
            "serverless" in case.split(" with")[0] or ", cluster" in case or "durable" in case
        )
        assert ("{{resolve:" in config.server.password) == ("with password" in case)
        if "yours" not in case:
            assert config.server.user == "asyncsync-51af3dc0"
            assert config.redis_iam_cache == (
                "asyncsync-51af3dc0" if "serverless" in case else "players-nodecache-x1"
            )
            assert is_serverless(config.server.host) == ("serverless" in case)
        elif "with IAM" in case:
            assert config.redis_iam_cache == cache_arn(case).replace("/", ":").split(":")[-1]


def test_a_password_is_a_reference_that_only_cloudformation_resolves(made: dict[str, Any]) -> None:
    for case, resources in made.items():
        password = environment(resources).get("ASYNCSYNC_REDIS_PASSWORD")
        reference = f"{{{{resolve:secretsmanager:{SECRET}:SecretString:password}}}}"
        assert password == (reference if "with password" in case else None)


def test_a_prefix_of_yours_is_in_every_key_and_every_users_rules(translated: Any) -> None:
    given = {"TableStreamArn": STREAM, "KeyPrefix": "Games-1"}
    resources = Resolver(translated, given, known=True).resources()

    for name in ("Mirror", "OperationsFunction"):
        variables = resources[name]["Properties"]["Environment"]["Variables"]
        assert variables["ASYNCSYNC_KEY"] == "Games-1:{@key}"
    for name in ("MirrorUser", "LookUser", "OperationsUser"):
        rules = resources[name]["Properties"]["AccessString"].split()
        assert [rule for rule in rules if "~" in rule] == ["~Games-1:*", "~{Games-1:*}!f"]


CHOICES = (("Mode", "mode"), ("Rejects", "rejects"), ("ValueFormat", "value"))


def test_the_choices_are_those_of_the_settings(translated: Any) -> None:
    types = get_type_hints(Config)
    for name, setting in CHOICES:
        parameter = translated["Parameters"][name]
        assert parameter["Default"] == getattr(Config(redis_url="redis://unused"), setting)
        assert sorted(parameter["AllowedValues"]) == sorted(get_args(types[setting]))
        for value in parameter["AllowedValues"]:
            resources = Resolver(translated, {name: value}, known=True).resources()
            assert getattr(Config.from_env(environment(resources)), setting) == value


def test_the_handler_has_time_for_every_wait(made: dict[str, Any]) -> None:
    config = Config.from_env(environment(made[DEFAULT]))

    assert made[DEFAULT]["Mirror"]["Properties"]["Timeout"] * 1_000 > 4 * config.timeout_ms + 1_000


# --- the mapping ------------------------------------------------------------------------------


def test_the_mapping_is_this_and_nothing_else(made: dict[str, Any]) -> None:
    for case, resources in made.items():
        stream = STREAM if "stream" in case else resources_stream()
        assert resources["MirrorChanges"]["Properties"] == {
            "EventSourceArn": stream,
            "FunctionName": "${Mirror}",
            "StartingPosition": "TRIM_HORIZON",
            "FunctionResponseTypes": ["ReportBatchItemFailures"],
            "BisectBatchOnFunctionError": True,
            "BatchSize": 1000,
            "MaximumBatchingWindowInSeconds": 0,
            "ParallelizationFactor": 1,
            "MaximumRetryAttempts": 200,
            "MaximumRecordAgeInSeconds": 82800,
            "MetricsConfig": {"Metrics": ["EventCount"]},
            "DestinationConfig": {"OnFailure": {"Destination": "${GivenUp.Arn}"}},
        }
        assert resources["GivenUp"]["Type"] == "AWS::S3::Bucket"  # it alone keeps the records


def resources_stream() -> str:
    return (
        "arn:aws:dynamodb:us-east-1:111122223333:table/players-Players-X1"
        "/stream/2026-01-01T00:00:00.000"
    )


def test_a_fence_outlives_every_record_and_no_record_outlives_its_stream(
    translated: Any, made: dict[str, Any]
) -> None:
    config = Config.from_env(environment(made[DEFAULT]))
    age = translated["Parameters"]["MaximumRecordAgeSeconds"]

    assert age["Default"] <= age["MaxValue"] < STREAM_LIFE_S == FENCE_TTL_S_MIN
    assert config.fence_ttl_s == Config(redis_url="redis://unused").fence_ttl_s >= FENCE_TTL_S_MIN


def test_a_new_tables_stream_has_new_images_and_nothing_more(made: dict[str, Any]) -> None:
    table = made[DEFAULT]["Players"]["Properties"]

    assert table["StreamSpecification"] == {"StreamViewType": "NEW_IMAGE"}
    assert table["KeySchema"] == [{"AttributeName": "Number", "KeyType": "HASH"}]


# --- rights -----------------------------------------------------------------------------------

INTERFACES = [
    f"ec2:{action}"
    for action in (
        "CreateNetworkInterface",
        "DescribeNetworkInterfaces",
        "DescribeSubnets",
        "DeleteNetworkInterface",
        "AssignPrivateIpAddresses",
        "UnassignPrivateIpAddresses",
    )
]
IN_NETWORK: list[dict[str, Any]] = [
    {"Sid": "Interfaces", "Effect": "Allow", "Action": INTERFACES, "Resource": "*"},
    {
        "Sid": "InterfacesNotByCode",
        "Effect": "Deny",
        "Action": INTERFACES,
        "Resource": "*",
        "Condition": {
            "ArnLike": {"lambda:SourceFunctionArn": f"arn:aws:lambda:{ACCOUNT}:function:*"}
        },
    },
]


def logs() -> dict[str, Any]:
    return allow("Logs", ["logs:CreateLogStream", "logs:PutLogEvents"], "${MirrorLogs.Arn}")


def allow(sid: str, action: Any, resource: Any, **more: Any) -> dict[str, Any]:
    return {"Sid": sid, "Effect": "Allow", "Action": action, "Resource": resource, **more}


def connect(case: str, kind: str) -> list[dict[str, Any]]:
    """The statement that lets a role sign in to the cache."""
    if "yours" not in case:
        user = f"arn:aws:elasticache:{ACCOUNT}:user:asyncsync-{kind}51af3dc0"
        return [allow("Connect", "elasticache:Connect", [cache_arn(case), user])]
    if "with IAM" not in case:
        return []
    service = "memorydb" if "MemoryDB" in case else "elasticache"
    users = [f"arn:aws:{service}:{ACCOUNT}:user{each}copy" for each in ":/"]
    return [allow("Connect", f"{service}:Connect", [cache_arn(case), *users])]


def keys(case: str) -> list[dict[str, Any]]:
    """The statements for the KMS keys: of what the stack keeps, and of the table."""
    given = CASES[case]
    wanted = []
    if "KmsKeyArn" in given:
        wanted.append(allow("Key", ["kms:Decrypt", "kms:GenerateDataKey"], KEY))
    if "TableKeyArn" in given:
        wanted.append(allow("TableKey", "kms:Decrypt", TABLE_KEY))
    return wanted


def cache_arn(case: str) -> str:
    if "yours" in case:
        return next(arn for sign_in, arn in CACHE_ARN.items() if f"with {sign_in}" in case)
    kind = (
        "serverlesscache:asyncsync-51af3dc0"
        if "serverless" in case
        else "replicationgroup:players-nodecache-x1"
    )
    return f"arn:aws:elasticache:{ACCOUNT}:{kind}"


def test_the_functions_role_may_do_this_and_nothing_else(made: dict[str, Any]) -> None:
    own = {"Condition": {"StringEquals": {"s3:ResourceAccount": PSEUDO["AWS::AccountId"]}}}
    for case, resources in made.items():
        stream = STREAM if "stream" in case else resources_stream()
        reads = [
            f"dynamodb:{each}" for each in ("DescribeStream", "GetRecords", "GetShardIterator")
        ]
        wanted = [
            allow("Stream", reads, stream),
            allow("ListStreams", "dynamodb:ListStreams", "*"),
            logs(),
            allow("GivenUp", "s3:PutObject", "${GivenUp.Arn}/*", **own),
            allow("GivenUpBucket", "s3:ListBucket", "${GivenUp.Arn}", **own),
        ]
        wanted += connect(case, "") + keys(case)
        if "no network" not in case:
            wanted += IN_NETWORK
        assert_role(resources["MirrorRole"], wanted)


def test_the_looking_functions_role_may_do_less(made: dict[str, Any]) -> None:
    for case, resources in made.items():
        assert ("LookRole" in resources) == ("yours" not in case and "without look" not in case)
        if "LookRole" in resources:
            user = f"arn:aws:elasticache:{ACCOUNT}:user:asyncsync-look-51af3dc0"
            signs_in = allow("Connect", "elasticache:Connect", [cache_arn(case), user])
            assert_role(resources["LookRole"], [logs(), signs_in, *IN_NETWORK])
            assert resources["LookFunction"]["Properties"]["Role"] == "${LookRole.Arn}"


def assert_role(role: Any, statements: list[dict[str, Any]]) -> None:
    (policy,) = role["Properties"]["Policies"]
    assert policy["PolicyDocument"] == {"Version": "2012-10-17", "Statement": statements}
    assert "ManagedPolicyArns" not in role["Properties"]
    assert role["Properties"].get("PermissionsBoundary") in (None, BOUNDARY)
    (trust,) = role["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    assert trust["Principal"] == {"Service": "lambda.amazonaws.com"}


def test_no_other_role_is_made(made: dict[str, Any]) -> None:
    for resources in made.values():
        roles = {n for n, body in resources.items() if body["Type"].startswith("AWS::IAM::")}
        assert roles <= {
            *("MirrorRole", "LookRole", "OperationsRole"),
            *("OperationsMachineRole", "OperationsMachineItself"),
        }


def test_each_role_keeps_the_rules_of_the_account(made: dict[str, Any]) -> None:
    for case, resources in made.items():
        for body in resources.values():
            if body["Type"] == "AWS::IAM::Role":
                path, boundary = ("/team/copies/", BOUNDARY) if ", rules" in case else ("/", None)
                assert body["Properties"]["Path"] == path
                assert body["Properties"].get("PermissionsBoundary") == boundary


def test_a_key_encrypts_all_that_the_stack_keeps(made: dict[str, Any]) -> None:
    for case, resources in made.items():
        key = KEY if ", key" in case else None
        for body in resources.values():
            properties = body["Properties"]
            if body["Type"] == "AWS::Logs::LogGroup" or body["Type"] in (
                "AWS::ElastiCache::ServerlessCache",
                "AWS::ElastiCache::ReplicationGroup",
            ):
                assert properties.get("KmsKeyId") == key
            elif body["Type"] == "AWS::DynamoDB::Table":
                assert properties.get("SSESpecification") == (
                    {"SSEEnabled": True, "SSEType": "KMS", "KMSMasterKeyId": key} if key else None
                )
            elif body["Type"] == "AWS::StepFunctions::StateMachine":
                encryption = {"Type": "CUSTOMER_MANAGED_KMS_KEY", "KmsKeyId": key}
                assert properties.get("EncryptionConfiguration") == (encryption if key else None)
            elif body["Type"] == "AWS::Lambda::Function" and body != resources.get("LookFunction"):
                assert properties.get("KmsKeyArn") == key


# --- what was given up on ---------------------------------------------------------------------


def test_the_bucket_is_private_encrypted_bounded_and_for_tls_alone(made: dict[str, Any]) -> None:
    for case, resources in made.items():
        bucket = resources["GivenUp"]["Properties"]
        (rule,) = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
        assert rule == (
            {
                "ServerSideEncryptionByDefault": {
                    "SSEAlgorithm": "aws:kms",
                    "KMSMasterKeyID": KEY,
                },
                "BucketKeyEnabled": True,
            }
            if ", key" in case
            else {"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
        )
        blocked = bucket["PublicAccessBlockConfiguration"]
        assert len(blocked) == 4
        assert all(value is True for value in blocked.values())
        given_up, state = bucket["LifecycleConfiguration"]["Rules"]
        assert (given_up["Status"], given_up["ExpirationInDays"]) == ("Enabled", 90)
        assert (state["Status"], state["ExpirationInDays"]) == ("Enabled", 30)
        assert state["Prefix"] == "operations/"
        policy = resources["GivenUpPolicy"]["Properties"]
        (statement,) = policy["PolicyDocument"]["Statement"]
        assert statement["Effect"] == "Deny"
        assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
        assert statement["Resource"] == ["${GivenUp.Arn}", "${GivenUp.Arn}/*"]


# --- the cache --------------------------------------------------------------------------------


def test_a_new_cache_has_tls_iam_and_no_way_in_but_the_groups(made: dict[str, Any]) -> None:
    for case, resources in made.items():
        kinds = {body["Type"].split("::")[-1] for body in resources.values()}
        assert ("ServerlessCache" in kinds) == ("serverless" in case and "yours" not in case)
        assert ("ReplicationGroup" in kinds) == ("node" in case.split(", ")[1])
        if "yours" in case:
            assert not [b for b in resources.values() if "ElastiCache" in b["Type"]]
            continue
        groups = ["${CacheSecurityGroup.GroupId}"] if "new network" in case else ["sg-0a1b2c3d"]
        cache = resources["ServerlessCache" if "serverless" in case else "NodeCache"]["Properties"]
        assert cache["SecurityGroupIds"] == groups
        assert resources["MirrorUser"]["Properties"]["AuthenticationMode"] == {"Type": "iam"}
        if "serverless" in case:
            assert cache["UserGroupId"] == "${CacheUsers}"
            assert cache["CacheUsageLimits"] == {"DataStorage": {"Maximum": 5, "Unit": "GB"}}
        else:
            assert cache["UserGroupIds"] == ["${CacheUsers}"]
            assert cache["TransitEncryptionEnabled"] is cache["AtRestEncryptionEnabled"] is True
            assert cache["TransitEncryptionMode"] == "required"
            durable = "durable" in case
            two = "replica" in case or durable
            shards = [cache.get(name) for name in ("NumNodeGroups", "ReplicasPerNodeGroup")]
            assert (cache.get("NumCacheClusters"), *shards) == (
                (None, 1, 1) if durable else (2 if two else 1, None, None)
            )
            assert cache["AutomaticFailoverEnabled"] is cache["MultiAZEnabled"] is two
            assert cache.get("Durability") == ("sync" if durable else None)
            assert cache["EngineVersion"] == ("9.0" if durable else "8.0")
            group = resources["CacheSettings"]["Properties"]
            assert group["CacheParameterGroupFamily"] == ("valkey9" if durable else "valkey8")
            assert group["Properties"] == {
                "maxmemory-policy": "noeviction",
                **({"cluster-enabled": "yes"} if durable else {}),
            }


def test_an_iam_users_id_and_name_are_one_and_all_are_in_the_group(made: dict[str, Any]) -> None:
    for case, resources in made.items():
        users = [b["Properties"] for b in resources.values() if b["Type"].endswith("::User")]
        readers = ["shop", "search"] if ", more" in case else []
        assert all(user["UserId"] == user["UserName"] for user in users)
        if users:
            assert resources["CacheUsers"]["Properties"]["UserIds"] == [
                *(user["UserId"] for user in users),
                *readers,
            ]


# What the mirror's user needs beyond strings' commands in the mode mirror, and what reads a value.
BY_FORMAT = {
    "json": ("", "get"),
    "dynamodb-json": ("", "get"),
    "hash": (" +hset +hlen +persist +pexpireat", "hgetall"),
    "redis-json": (" +json.set +persist +pexpireat", "json.get"),
}


def test_the_users_may_touch_the_copy_and_its_fences_alone(made: dict[str, Any]) -> None:
    keys = "on ~Players:* ~{Players:*}!f -@all"
    for case, resources in made.items():
        clustered = "serverless" in case or "durable" in case
        writes, reads = BY_FORMAT[Config.from_env(environment(resources)).value]
        cluster = " +cluster|slots +asking" if clustered else ""
        if "MirrorUser" in resources:
            assert resources["MirrorUser"]["Properties"]["AccessString"] == (
                f"{keys} +evalsha +eval +mget +set +del{writes}{cluster}"
            )
        if "LookUser" in resources:
            assert resources["LookUser"]["Properties"]["AccessString"] == f"{keys} +{reads}"
        if "OperationsUser" in resources:
            commands = "+evalsha +eval +mget +get +pttl +set +del +type +scan +info"
            more = f"{writes} +exists +{reads}" if writes else ""
            assert resources["OperationsUser"]["Properties"]["AccessString"] == (
                f"{keys} {commands}{more}{cluster}"
            )


def test_a_new_network_leads_from_the_function_to_the_cache_and_nowhere_else(
    made: dict[str, Any],
) -> None:
    network = {"Vpc", "SubnetA", "SubnetB", "MirrorSecurityGroup", "CacheSecurityGroup"}
    for case, resources in made.items():
        there = {name for name, body in resources.items() if "::EC2::" in body["Type"]}
        if "new network" not in case:
            assert not there
            continue
        operations = {
            *("OperationsSecurityGroup", "CacheFromOperations", "Routes"),
            *("RoutesOfSubnetA", "RoutesOfSubnetB", "DynamoGateway", "S3Gateway"),
        }
        more = set() if "no operations" in case else operations
        assert there == network | {"CacheFromMirror"} | more
        zones = [resources[f"Subnet{each}"]["Properties"]["AvailabilityZone"] for each in "AB"]
        if ", more" in case:
            assert zones == ["us-east-1b", "us-east-1c"]
        else:
            assert [zone["Fn::Select"][0] for zone in zones] == [0, 1]
        (out,) = resources["MirrorSecurityGroup"]["Properties"]["SecurityGroupEgress"]
        assert out["DestinationSecurityGroupId"] == "${CacheSecurityGroup.GroupId}"
        assert (out["FromPort"], out["ToPort"]) == (6379, 6380)
        (nothing,) = resources["CacheSecurityGroup"]["Properties"]["SecurityGroupEgress"]
        assert nothing["CidrIp"] == "127.0.0.1/32"
        way_in = resources["CacheFromMirror"]["Properties"]
        assert way_in["SourceSecurityGroupId"] == "${MirrorSecurityGroup.GroupId}"


# --- operating it -----------------------------------------------------------------------------


def table_arn(case: str) -> str:
    return (STREAM if "stream" in case else resources_stream()).split("/stream/")[0]


def operated(made: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for case, resources in made.items():
        if "no operations" not in case:
            yield case, resources


def test_without_operations_nothing_of_them_is_made(made: dict[str, Any]) -> None:
    for case, resources in made.items():
        there = {name for name in resources if re.search("Operations|Gateway|Routes|Audit", name)}
        assert ("no operations" in case) == (not there)
        assert {
            "DailyAudit",
            "DailyAuditPermission",
            *OF_AN_AUDIT,
        } <= there or ", audit" not in case
        assert ("DailyAudit" in there) == (", audit" in case)
        assert ("OperationsMachine" in there) == (", map" in case)


def test_the_operations_function_is_the_other_bundles_entry_point(made: dict[str, Any]) -> None:
    for case, resources in operated(made):
        function = resources["OperationsFunction"]["Properties"]
        assert function["Handler"] == operations.ENTRY_POINT
        given = CASES[case]
        default = "python" + ".".join(map(str, LAMBDA_PYTHON))
        assert function["Runtime"] == given.get("Runtime", default)
        assert function["Architectures"] == [given.get("Architecture", "arm64")]
        assert (function["MemorySize"], function["Timeout"]) == (1769, 900)
        assert function["Role"] == "${OperationsRole.Arn}"
        assert function["LoggingConfig"]["LogGroup"] == "${OperationsLogs}"
        assert resources["OperationsLogs"]["Properties"]["RetentionInDays"] == 30
        assert function.get("KmsKeyArn") == (KEY if ", key" in case else None)
        config = function.get("VpcConfig")
        if "no network" in case:
            assert config is None
        elif "your network" in case:
            assert config == resources["Mirror"]["Properties"]["VpcConfig"]
        else:
            assert config["SubnetIds"] == ["${SubnetA}", "${SubnetB}"]
            assert config["SecurityGroupIds"] == ["${OperationsSecurityGroup.GroupId}"]


def test_it_has_time_for_a_margin_and_more(made: dict[str, Any]) -> None:
    timeout_s = made[DEFAULT]["OperationsFunction"]["Properties"]["Timeout"]

    assert timeout_s > 10 * operations.MARGIN_S > 10 * operations.ANSWER_S
    assert operations.ANSWER_S > state.LAST_SAVE_WITHIN_S


def test_it_works_on_the_copy_that_the_mirror_keeps(made: dict[str, Any]) -> None:
    for case, resources in operated(made):
        env = resources["OperationsFunction"]["Properties"]["Environment"]["Variables"]
        mirrors = environment(resources)
        own = {name: value for name, value in env.items() if name.startswith("OPERATIONS_")}
        new = "yours" not in case
        assert own == {
            operations.TABLE: "Games" if "stream" in case else "players-Players-X1",
            operations.PLACE: "s3://${GivenUp}/aws/lambda/",
            operations.STATE: "s3://${GivenUp}/operations",
            "OPERATIONS_FUNCTION": "${Mirror}",
            operations.SEES_MAPPING: "false" if "new network" in case else "true",
        }
        theirs, ours = Config.from_env(mirrors), Config.from_env(env)
        user = "asyncsync-operations-51af3dc0" if new else theirs.server.username
        assert ours.server == structs.replace(theirs.server, username=user)
        for each in structs.fields(Config):
            if each.name not in ("redis_url", "rejects"):
                assert getattr(ours, each.name) == getattr(theirs, each.name), each.name


def test_the_operations_role_may_do_this_and_nothing_else(made: dict[str, Any]) -> None:
    own = {"Condition": {"StringEquals": {"s3:ResourceAccount": PSEUDO["AWS::AccountId"]}}}
    bucket = "${GivenUp.Arn}"
    for case, resources in operated(made):
        reads = [f"dynamodb:{each}" for each in ("DescribeTable", "Scan", "BatchGetItem")]
        moves = ["s3:GetObject", "s3:DeleteObject"]
        every = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"]
        logs = ["logs:CreateLogStream", "logs:PutLogEvents"]
        follows = ["lambda:ListEventSourceMappings", "cloudwatch:GetMetricStatistics"]
        wanted = [
            allow("Table", reads, table_arn(case)),
            allow("List", "s3:ListBucket", bucket, **own),
            allow("State", every, f"{bucket}/operations/*", **own),
            allow("GivenUp", moves, f"{bucket}/aws/lambda/*", **own),
            allow("Redriven", "s3:PutObject", f"{bucket}/redriven/aws/lambda/*", **own),
            allow("Exports", "s3:GetObject", f"{bucket}/exports/*", **own),
            allow("Logs", logs, "${OperationsLogs.Arn}"),
        ]
        if "new network" not in case:
            wanted.append(allow("Following", follows, "*"))
        wanted += checks(case)
        wanted += connect(case, "operations-") + keys(case)
        if "no network" not in case:
            wanted += IN_NETWORK
        assert_role(resources["OperationsRole"], wanted)


def checks(case: str) -> list[dict[str, Any]]:
    """What asyncsync check asks, where there is a way to it: it reads settings and no item."""
    table = allow("CheckTable", "dynamodb:DescribeTimeToLive", table_arn(case))
    if "new network" in case:
        return [table]
    mapping = f"arn:aws:lambda:{ACCOUNT}:event-source-mapping:*"
    elsewhere = ["dynamodb:ListStreams", "elasticache:Describe*", "cloudwatch:GetMetricData"]
    return [
        table,
        allow("CheckStream", "dynamodb:DescribeStream", f"{table_arn(case)}/stream/*"),
        allow("CheckFunction", "lambda:GetFunctionConfiguration", "${Mirror.Arn}"),
        allow("CheckMapping", "lambda:GetEventSourceMapping", mapping),
        allow("CheckElsewhere", elsewhere, "*"),
    ]


def test_the_daily_audit_is_an_event_that_the_function_takes(made: dict[str, Any]) -> None:
    env = {operations.TABLE: "Players", operations.STATE: "s3://players/operations"}
    for case, resources in operated(made):
        if ", audit" not in case:
            continue
        (target,) = resources["DailyAudit"]["Properties"]["Targets"]
        arguments = operations.arguments_of(json.loads(target["Input"]), env)
        assert (arguments.command, arguments.sample, arguments.as_json) == ("audit", 100_000, True)
        assert target["Arn"] == "${OperationsFunction.Arn}"
        permission = resources["DailyAuditPermission"]["Properties"]
        assert permission["FunctionName"] == "${OperationsFunction}"
        assert permission["SourceArn"] == "${DailyAudit.Arn}"
        assert permission["Principal"] == "events.amazonaws.com"


def test_the_way_to_the_table_and_the_bucket_leads_nowhere_else(made: dict[str, Any]) -> None:
    for case, resources in operated(made):
        if "new network" not in case:
            continue
        cache, web = resources["OperationsSecurityGroup"]["Properties"]["SecurityGroupEgress"]
        assert cache["DestinationSecurityGroupId"] == "${CacheSecurityGroup.GroupId}"
        assert (web["FromPort"], web["ToPort"]) == (443, 443)
        for name, service, reached in (
            ("DynamoGateway", "dynamodb", table_arn(case)),
            ("S3Gateway", "s3", ["${GivenUp.Arn}", "${GivenUp.Arn}/*"]),
        ):
            gateway = resources[name]["Properties"]
            assert gateway["VpcEndpointType"] == "Gateway"  # which costs nothing
            assert gateway["ServiceName"] == f"com.amazonaws.us-east-1.{service}"
            assert gateway["RouteTableIds"] == ["${Routes}"]
            (statement,) = gateway["PolicyDocument"]["Statement"]
            assert statement["Resource"] == reached
        subnets = [resources[f"RoutesOfSubnet{each}"]["Properties"] for each in "AB"]
        assert [each["SubnetId"] for each in subnets] == ["${SubnetA}", "${SubnetB}"]
        assert {each["RouteTableId"] for each in subnets} == {"${Routes}"}
        assert not [n for n, body in resources.items() if body["Type"] == "AWS::EC2::Route"]


def test_the_machines_role_may_do_this_and_nothing_else(made: dict[str, Any]) -> None:
    for case, resources in operated(made):
        if ", map" not in case:
            continue
        mapping = f"arn:aws:lambda:{ACCOUNT}:event-source-mapping:${{MirrorChanges}}"
        (policy,) = resources["OperationsMachineRole"]["Properties"]["Policies"]
        assert policy["PolicyDocument"]["Statement"] == [
            allow("Invoke", "lambda:InvokeFunction", "${OperationsFunction.Arn}"),
            allow("Mapping", "lambda:GetEventSourceMapping", mapping),
            allow("Lag", "cloudwatch:DescribeAlarms", "${LateAlarm.Arn}"),
            *(each for each in keys(case) if each["Sid"] == "Key"),
        ]
        itself = resources["OperationsMachineItself"]["Properties"]
        assert itself["Roles"] == ["${OperationsMachineRole}"]
        name = f"arn:aws:states:{ACCOUNT}:execution:${{OperationsMachine.Name}}"
        running = [f"{name}/*", f"{name}:*"]
        assert itself["PolicyDocument"]["Statement"] == [
            allow("Segments", "states:StartExecution", "${OperationsMachine}"),
            allow(
                "SegmentsThatRun", ["states:DescribeExecution", "states:StopExecution"], running
            ),
        ]


# --- seeing it --------------------------------------------------------------------------------

# Lambda developer guide, "Types of metrics for Lambda functions"; ElastiCache user guide,
# "Metrics for Valkey and Redis OSS" and "Serverless cache metrics". Each with its dimension.
AWS_METRICS = {
    "AWS/Lambda": {
        "FunctionName": {
            "IteratorAge",
            "Errors",
            "Throttles",
            "Duration",
            "Invocations",
            "DestinationDeliveryFailures",
        },
        "EventSourceMappingUUID": {
            "DroppedEventCount",
            "OnFailureDestinationDeliveredEventCount",
            "PolledEventCount",
        },
    },
    "AWS/ElastiCache": {
        "clusterId": {
            "BytesUsedForCache",
            "Evictions",
            "ElastiCacheProcessingUnits",
            "IamAuthenticationThrottling",
            "ThrottledCmds",
        },
        "CacheClusterId": {
            "DatabaseMemoryUsagePercentage",
            "Evictions",
            "IamAuthenticationThrottling",
        },
    },
    "asyncsync": {"Table": {*METRICS, *AUDIT_METRICS}},
}


def dimension_values(case: str) -> dict[str, set[str]]:
    cache = (
        {"clusterId": {"asyncsync-51af3dc0"}}
        if "serverless" in case
        else {
            "CacheClusterId": {
                f"players-nodecache-x1-{'0001-' if 'durable' in case else ''}{each}"
                for each in ("001", "002")
            }
        }
    )
    return {
        "FunctionName": {"${Mirror}"},
        "EventSourceMappingUUID": {"${MirrorChanges}"},
        "Table": {"Games" if "stream" in case else "players-Players-X1"},
        **cache,
    }


def test_there_is_an_alarm_for_each_promise_on_a_metric_that_exists(made: dict[str, Any]) -> None:
    for case, resources in made.items():
        alarms = {
            name: body["Properties"]
            for name, body in resources.items()
            if body["Type"] == "AWS::CloudWatch::Alarm"
        }
        serverless = case.split(", ")[1].startswith("serverless")
        absent = [() if re.search("replica|durable", case) else OF_A_REPLICA]
        absent += [() if ", audit" in case else OF_AN_AUDIT]
        absent += [OF_A_NEW_CACHE if "yours" in case else (), () if serverless else OF_SERVERLESS]
        assert set(PROMISES) - set(alarms) == set().union(*absent)
        for name, alarm in alarms.items():
            ((namespace, metric, statistic, dimensions),) = watched(alarm)
            promised = PROMISES[name]
            if name == "CacheFullAlarm" and not serverless:
                promised = ("AWS/ElastiCache", "DatabaseMemoryUsagePercentage", "Maximum")
            assert (namespace, metric, statistic) == promised
            (dimension,) = dimensions
            assert metric in AWS_METRICS[namespace][dimension["Name"]]
            assert dimension["Value"] in dimension_values(case)[dimension["Name"]]
            missing = "breaching" if name in BREACHING else "notBreaching"
            assert alarm["TreatMissingData"] == missing
            assert alarm.get("AlarmActions") == ([TOPIC] if ", topic" in case else None)


def test_the_dashboard_is_json_and_shows_metrics_that_exist(made: dict[str, Any]) -> None:
    for case, resources in made.items():
        body = json.loads(resources["Dashboard"]["Properties"]["DashboardBody"])
        shown = set()
        for widget in body["widgets"]:
            assert {"x", "y", "width", "height"} <= set(widget)
            for namespace, metric, dimension, value in metrics_of(widget):
                assert metric in AWS_METRICS[namespace][dimension], metric
                assert value in dimension_values(case)[dimension]
                shown.add(metric)
        assert shown >= set(METRICS) - {"RawEvent"} | {"IteratorAge", "Duration", "Invocations"}
        assert ("Evictions" in shown) == ("yours" not in case)
        assert (shown >= set(AUDIT_METRICS)) == (", audit" in case)


def metrics_of(widget: Any) -> list[tuple[str, str, str, str]]:
    """A widget's metrics, with CloudWatch's marks for "as in the line above" taken out."""
    found: list[tuple[str, str, str, str]] = []
    before: list[str] = []
    for row in widget["properties"].get("metrics", []):
        parts = [part for part in row if isinstance(part, str)]
        if parts == ["..."]:
            parts = before
        if parts:
            parts = [before[at] if part == "." else part for at, part in enumerate(parts)]
            namespace, metric, dimension, value = before = parts
            found.append((namespace, metric, dimension, value))
    return found


def test_outputs_say_what_a_person_needs_next_and_no_secret(stacks: dict[str, Resolver]) -> None:
    for case, stack in stacks.items():
        outputs = stack.outputs()
        assert set(outputs) >= {
            "TableName",
            "MirrorFunction",
            "RedisUrl",
            "GivenUpBucket",
            "DashboardUrl",
        }
        assert ("LookFunction" in outputs) == ("yours" not in case and "without look" not in case)
        assert "resolve:" not in json.dumps(outputs)


# --- cfn-lint ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [("cfn-lint", "template.yaml"), ("sam", "validate", "--lint", "-t", "template.yaml")],
    ids=lambda command: command[0],
)
def test_the_template_as_it_is_passes_what_everybody_tries_first(command: tuple[str, ...]) -> None:
    ended = tool(*(str(TEMPLATE) if word == TEMPLATE.name else word for word in command))

    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_cfn_lint_finds_nothing_in_cases_that_cover_every_pair_of_conditions(
    translated: Any, stacks: dict[str, Resolver], tmp_path: Path
) -> None:
    chosen = list(pair_cover({case: stack.conditions for case, stack in stacks.items()}))
    for number, case in enumerate(chosen):
        left = Resolver(translated, CASES[case], known=False).template()
        (tmp_path / f"{number}.json").write_text(json.dumps(left, indent=1))

    # A zone of yours is meant to be written out: W3010.
    options = ["--regions", "us-east-1", "--ignore-checks", "W3010"]
    ended = tool("cfn-lint", *options, "--", *map(str, tmp_path.glob("*.json")))

    assert (ended.returncode, ended.stdout) == (0, ""), chosen
