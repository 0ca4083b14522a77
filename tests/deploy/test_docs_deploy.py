"""docs/deploy.md, operations.md and reading.md agree with the template, the tools and the code."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import redis

from asyncsync import Config, Mirror
from asyncsync.cli import operations
from asyncsync.cli.commands import TABLE_COMMANDS, table_command
from asyncsync.lab.servers import ServerProcess
from asyncsync.metrics import METRICS
from asyncsync.version import __version__
from scripts import release
from scripts.bundle import PLATFORMS
from tests.support.events import FIRST, event, record
from tests.support.project.command_line import assert_parses
from tests.support.template.alarms import PROMISES
from tests.support.template.cache_users import access, set_user, write
from tests.support.template.cloudformation import PSEUDO, ROOT, TOOLS, Resolver, tool
from tests.support.template.iam import is_allowed, matches

PAGES = ("deploy", "operations", "reading")
TEXTS = {page: (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8") for page in PAGES}
# A block that is part of a list is indented.
BLOCK = re.compile(r"^ *```(\w+)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


def blocks(page: str, language: str) -> list[str]:
    return [text for found, text in BLOCK.findall(TEXTS[page]) if found == language]


def shell_lines() -> list[str]:
    return [
        line.strip()
        for page in PAGES
        for text in blocks(page, "sh")
        for line in text.splitlines()
        if line
    ]


def words(line: str) -> list[str]:
    """Split a line into words as a shell does, with examples for its substitutions."""
    line = line.replace("$(output MappingId)", "UUID")
    line = re.sub(r"\$\(output \w+\)", "players", line)
    line = re.sub(r"\$\(\(\$\(date \+%s\) - \d+\)\)|\$\(date \+%s\)", "1767225600", line)
    return shlex.split(line.replace("UUID", "51af3dc0-da77-11e4-872e-1234567db123"))


# --- commands ---------------------------------------------------------------------------------


def test_every_line_is_one_of_a_command_that_is_tried() -> None:
    kinds = {shlex.split(line)[0] for line in shell_lines()}

    functions = {"output()", "output", "operate()", "operate", "look()", "look"}
    settings = {each for each in kinds if re.fullmatch(r"STACK=\w+", each)}
    assert kinds == functions | settings | {"make", "sh", "aws", "pip", "asyncsync"}


def test_every_line_works_on_linux_and_on_macos() -> None:
    """No GNU option, and no program that macOS lacks; `fileb://` is for both versions of aws."""
    for line in shell_lines():
        assert not re.search(r"date (-u )?-d|sha256sum|mktemp --|sed -i|readlink|grep -P", line)
        assert "--cli-binary-format" not in line  # only version 2 has it
        assert not re.search(r"--payload (?!\"?fileb://)", line)


def test_aws_takes_every_command_line(translated: Any, tmp_path: Path) -> None:
    lines = [line for line in shell_lines() if line.startswith("aws ")]
    (function,) = [line for line in shell_lines() if line.startswith("output()")]
    lines.append(function.split("() { ")[1].split(";")[0].replace("$1", "TableName"))
    (loop,) = [line for line in shell_lines() if line.startswith("operate()")]
    lines.append(loop.split("until ")[1].split(" && ")[0].replace("$answer", "answer.json"))
    (look,) = [line for line in shell_lines() if line.startswith("look()")]
    lines.append(look.split("; ")[2])
    lines = [line.replace("$event", "event.json") for line in lines]
    (tmp_path / "event.json").write_text("{}")
    (tmp_path / "dist" / f"asyncsync-{__version__}").mkdir(parents=True)
    commands = [words(line) for line in lines]
    stream = "arn:aws:dynamodb:us-east-1:111122223333:table/T/stream/2026-01-01T00:00:00.000"
    commands = [[stream if word == "STREAM" else word for word in each] for each in commands]
    with zipfile.ZipFile(tmp_path / "asyncsync-lambda-arm64.zip", "w") as archive:
        archive.writestr("a", "")  # aws looks whether it is one

    ended = subprocess.run(
        [
            str(TOOLS / "python"),
            str(ROOT / "tests" / "support" / "template" / "parse_commands.py"),
        ],
        input=json.dumps(commands),
        cwd=tmp_path,
        env={**os.environ, "AWS_DEFAULT_REGION": "us-east-1", "SAM_CLI_TELEMETRY": "0"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr[-500:]
    assert len(commands) > 15


def test_every_other_command_is_there() -> None:
    makefile = (ROOT / "Makefile").read_text()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for line in shell_lines():
        first, *rest = words(line)
        if first == "make":
            assert re.search(rf"^{rest[0]}:.*## ", makefile, re.MULTILINE)
        elif first == "pip":
            assert rest == ["install", ".[tools]"]
            assert "tools" in extras
        elif first == "asyncsync":
            assert_parses(rest)
        elif first == "sh":
            assert rest[0] == f"dist/{release.NAME}/{release.SCRIPT}"


def test_an_output_that_is_looked_up_is_one_of_the_stack(translated: Any) -> None:
    named = {name for text in TEXTS.values() for name in re.findall(r"\boutput (\w+)\)", text)}
    named |= {line.split()[1] for line in shell_lines() if line.startswith("output ")}

    assert {"TableName", "LookFunction", "DashboardUrl"} <= named
    assert named <= set(Resolver(translated, {"OperationsMap": "true"}, known=True).outputs())
    assert "CacheSecurityGroupId" in translated["Outputs"]
    assert "CacheUserGroup" in translated["Outputs"]


def test_a_parameter_that_is_named_is_one_of_the_template_and_takes_the_value(
    translated: Any,
) -> None:
    given = {
        pair for text in TEXTS.values() for pair in re.findall(r"`([A-Z][a-z]\w+)=(\w+)`", text)
    }
    named = {name for text in TEXTS.values() for name in re.findall(r"`([A-Z][a-z]\w+)`", text)}
    parameters = translated["Parameters"]

    assert ("Cache", "existing") in given
    for name, value in given:
        assert value in parameters[name]["AllowedValues"]
    known = set(parameters) | {*METRICS, *PROMISES} | set(translated["Outputs"])
    of_aws = {"UseNumber", "ConcurrentExecutions", "Enabled", "ReportBatchItemFailures"}
    machine = Resolver(translated, {"OperationsMap": "true"}, known=True).resources()
    states = machine["OperationsMachine"]["Properties"]["Definition"]["States"]
    assert named <= known | of_aws | set(states) | {"WrongArguments", "CodeBucket"}


def test_a_deployer_may_create_the_roles_of_the_stack_in_the_text() -> None:
    deployed = {words(line)[2] for line in shell_lines() if line.startswith("sh ")}
    (policy,) = blocks("deploy", "json")

    assert deployed == {"orders", "players"}
    for stack in deployed:
        assert f"STACK={stack}" in TEXTS["deploy"]
        assert f"role/{stack}-*" in policy


# --- what they say of the template ------------------------------------------------------------


# What a handler declares for properties that the template does not have.
NOT_CALLED = {
    "dynamodb:*ContributorInsights": "none",
    "dynamodb:AssociateTableReplica": "one Region",
    "dynamodb:BatchWriteItem": "one Region",
    "dynamodb:*KinesisStreamingDestination": "no Kinesis stream",
    "elasticfilesystem:*": "no file system",
    "firehose:*": "no log delivery of the cache's",
    "iam:*GroupPolicy": "the policy is a role's",
    "iam:*UserPolicy": "the policy is a role's",
    "kinesis:*": "no Kinesis stream",
    "logs:*BearerTokenAuthentication": "none",
    "logs:*DataProtectionPolicy": "none",
    "logs:*IndexPolicy": "none",
    "logs:*LogDelivery": "no log delivery of the cache's",
    "logs:*LogDeliveries": "no log delivery of the cache's",
    "logs:*LogStream*": "no import of a table",
    "logs:*ResourcePolicy": "none",
    "logs:PutLogEvents": "no import of a table",
    "kms:ListAliases": "a key is given by its ARN",
    "kms:RevokeGrant": "whoever made the grant",
    "s3files:*": "no file system",
    "s3tables:*": "no metadata table",
    "vpc-lattice:*": "a gateway",
    "vpce:*": "a gateway of this Region",
}


def test_who_deploys_may_do_what_the_resource_handlers_declare(translated: Any) -> None:
    (text,) = blocks("deploy", "json")
    statements = json.loads(text)["Statement"]
    types = sorted({body["Type"] for body in translated["Resources"].values()})
    ended = tool("python", str(ROOT / "tests/support/template/handlers.py"), *types)
    assert ended.returncode == 0, ended.stderr
    declared = json.loads(ended.stdout)
    account = PSEUDO["AWS::AccountId"]
    linked = f"arn:aws:iam::{account}:role/aws-service-role/elasticache.amazonaws.com/x"
    key = set(re.findall(r"`(kms:\w+)`", TEXTS["deploy"]))

    refused = set()
    for name, actions in declared.items():
        for action in actions:
            if any(matches(pattern, action) for pattern in NOT_CALLED):
                continue
            role = linked if "ServiceLinkedRole" in action else f"role/players-{name}"
            resource = role if role == linked else f"arn:aws:iam::{account}:{role}"
            if action not in key and not is_allowed(statements, action, resource):
                refused.add(action)
    called = {action for actions in declared.values() for action in actions}

    assert refused == set()
    assert not [each for each in NOT_CALLED if not any(matches(each, it) for it in called)]
    for action in ("lambda:InvokeFunction", "dynamodb:PutItem", "dynamodb:DeleteItem"):
        assert is_allowed(statements, action, "*")
    assert not is_allowed(statements, "iam:CreateRole", f"arn:aws:iam::{account}:role/other")


def test_the_access_string_is_the_templates(translated: Any) -> None:
    (text,) = blocks("deploy", "text")
    resources = Resolver(translated, {"Cache": "node"}, known=True).resources()
    serverless = Resolver(translated, {}, known=True).resources()

    node = resources["MirrorUser"]["Properties"]["AccessString"]
    assert text.strip() == node
    more = serverless["MirrorUser"]["Properties"]["AccessString"].removeprefix(node).strip()
    assert f"`{more}`" in TEXTS["deploy"]


@pytest.mark.parametrize("value", ["hash", "redis-json"])
def test_what_a_format_needs_more_is_the_templates(translated: Any, value: str) -> None:
    def more(user: str, mode: str) -> str:
        strings, words = (
            access(translated, user, Cache="node", Mode=mode, ValueFormat=each)
            for each in ("json", value)
        )
        assert words[: len(strings)] == strings
        return " ".join(words[len(strings) :])

    assert f"with `{value}`" in TEXTS["deploy"].replace("With", "with")
    assert f"`{more('MirrorUser', 'mirror')}`" in TEXTS["deploy"]
    assert more("MirrorUser", "refresh") == f"{more('MirrorUser', 'mirror')} +exists"
    assert more("MirrorUser", "invalidate") == ""
    for mode in ("mirror", "refresh", "invalidate"):
        assert f"`{more('OperationsUser', mode)}`" in TEXTS["operations"]


def test_the_operators_user_is_the_templates(translated: Any) -> None:
    (text,) = blocks("operations", "text")
    resources = Resolver(translated, {"Cache": "node"}, known=True).resources()

    assert text.strip() == resources["OperationsUser"]["Properties"]["AccessString"]


def test_an_event_of_the_operations_function_is_one_that_it_takes() -> None:
    lines = [line for line in shell_lines() if line.startswith("operate ")]
    env = {
        operations.TABLE: "Players",
        operations.PLACE: "s3://players/aws/lambda/",
        operations.STATE: "s3://players/operations",
        operations.SEES_MAPPING: "false",
    }

    assert len(lines) >= 6
    for line in lines:
        event = json.loads(shlex.split(line)[1])
        sees = "backfill" in event["args"] and "--skip-mapping-check" not in event["args"]
        arguments = operations.arguments_of(
            event, {**env, operations.SEES_MAPPING: json.dumps(sees)}
        )
        if arguments.command in TABLE_COMMANDS:
            table_command(arguments)
    (started,) = [line for line in shell_lines() if "start-execution" in line]
    given = json.loads(shlex.split(started)[-1])
    operations.arguments_of({"args": [*given["args"], "--skip-mapping-check"]}, env)


def test_the_fragments_are_the_template_property_for_property(translated: Any) -> None:
    resources = Resolver(translated, {}, known=True).resources()
    wanted = {
        _snake(name): value
        for name, value in resources["MirrorChanges"]["Properties"].items()
        if isinstance(value, int | list) or name == "StartingPosition"
    }
    names = {_snake(name) for name in resources["MirrorChanges"]["Properties"]}

    (terraform,) = blocks("deploy", "hcl")
    function, mapping = terraform.split('resource "aws_lambda_event_source_mapping"')
    assert {k: v for k, v in _terraform(mapping).items() if k in wanted} == wanted
    assert set(re.findall(r"^  (\w+) ", mapping, re.MULTILINE)) == names
    assert 'metrics = ["EventCount"]' in mapping

    (cdk,) = [text for text in blocks("deploy", "python") if "Cfn" in text]
    call = ast.parse(cdk).body[0].value  # type: ignore[attr-defined]
    given = {each.arg: each.value for each in call.keywords}
    assert set(given) == names
    assert {name: ast.literal_eval(given[name]) for name in wanted} == wanted
    assert ast.literal_eval(given["metrics_config"]) == {"metrics": ["EventCount"]}

    properties = resources["Mirror"]["Properties"]
    assert _terraform(function) == {
        "filename": f"dist/asyncsync-lambda-{next(iter(PLATFORMS))}.zip",
        "function_name": "players-mirror",
        **{
            _snake(name): properties[name]
            for name in ("Handler", "Runtime", "Architectures", "MemorySize", "Timeout")
        },
    }


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def _terraform(text: str) -> dict[str, Any]:
    """The arguments whose values are written out; JSON and HCL agree about those."""
    found = re.findall(r'^  (\w+) += ("[^"]*"|\d+|true|false|\[.*\])$', text, re.MULTILINE)
    return {name: json.loads(value) for name, value in found}


def test_the_bill_counts_what_the_template_makes(translated: Any) -> None:
    made = [b["Type"] for b in Resolver(translated, {}, known=True).resources().values()]
    alarms = made.count("AWS::CloudWatch::Alarm")

    assert (
        f"| {alarms} alarms (the first 10 of an account are free) | {alarms / 10:.2f} |"
        in (TEXTS["deploy"])
    )
    assert f"| {len(METRICS)} metrics of asyncsync" in TEXTS["deploy"]
    assert made.count("AWS::CloudWatch::Dashboard") == 1
    memory = translated["Parameters"]["MemorySize"]["Default"]
    assert f"{memory} MB on arm64: 5 ms a call" in TEXTS["deploy"]
    usd = 1_000_000 * 0.005 * memory / 1_024 * 0.0000133334  # per GB-second
    assert f"14 ms a batch | {usd:.2f} |" in TEXTS["deploy"]
    resources = Resolver(translated, {}, known=True).resources()
    gigabytes = resources["OperationsFunction"]["Properties"]["MemorySize"] / 1_024
    an_hour = gigabytes * 3_600 * 0.0000133334
    assert f"costs {an_hour:.2f} an hour while it works" in TEXTS["deploy"]
    timeout_s = resources["OperationsFunction"]["Properties"]["Timeout"]
    a_slice_s = timeout_s - operations.MARGIN_S
    assert f"works for {a_slice_s / 60:g} minutes at most" in TEXTS["deploy"]


def test_a_metrics_line_is_as_long_as_the_bill_says(
    fake_server: ServerProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    mirror = Mirror(Config(redis_url=fake_server.url))
    mirror.lambda_handler(event([record(7, FIRST)]))
    mirror.close()
    (line,) = capsys.readouterr().out.splitlines()

    assert round(len(line) / 1_000, 1) == 0.4
    assert "metrics lines with `ASYNCSYNC_METRICS=every`, 0.4 KB a call" in TEXTS["deploy"]


def test_every_alarm_has_its_page_and_says_what_it_means_and_what_to_do() -> None:
    sections = dict(re.findall(r"^### (\w+)\n\n(.*?)(?=^##|\Z)", TEXTS["operations"], re.S | re.M))

    assert list(sections) == list(PROMISES)
    for name, text in sections.items():
        assert name == "ReplicaEvictionsAlarm" or all(
            part in text for part in ("**Means**", "**Look at**", "**Do**")
        )


def test_the_mapping_that_reads_again_is_set_as_the_templates(translated: Any) -> None:
    properties = Resolver(translated, {}, known=True).resources()["MirrorChanges"]["Properties"]
    (line,) = [line for line in shell_lines() if "create-event-source-mapping" in line]

    for option, name in {
        "starting-position": "StartingPosition",
        "batch-size": "BatchSize",
        "maximum-retry-attempts": "MaximumRetryAttempts",
    }.items():
        assert f"--{option} {properties[name]} " in line
    # A replay begins with records that are nearly a day old.
    oldest = translated["Parameters"]["MaximumRecordAgeSeconds"]["MaxValue"]
    assert f"--maximum-record-age-in-seconds {oldest} " in line
    assert "--function-response-types ReportBatchItemFailures" in line
    assert "--bisect-batch-on-function-error" in line


def test_links_lead_to_files_that_are_there() -> None:
    for page, text in TEXTS.items():
        for link in re.findall(r"\]\(([^)#]+)\)", BLOCK.sub("", text)):
            assert "://" in link or (ROOT / "docs" / link).exists(), f"{page}: {link}"


# --- reading ----------------------------------------------------------------------------------


def test_there_is_a_reader_of_ten_lines_in_four_languages() -> None:
    for language in ("python", "js", "go", "java"):
        assert len(blocks("reading", language)[0].splitlines()) <= 11


def test_the_python_reader_reads_what_the_handler_wrote(fake_server: ServerProcess) -> None:
    (text,) = blocks("reading", "python")
    address = f"{fake_server.host}:{fake_server.port}"
    with redis.Redis(host=fake_server.host, port=fake_server.port) as client:
        client.flushall()
        scope: dict[str, Any] = {}
        exec(text.replace("127.0.0.1:6379", address), scope)
        assert scope["player"] is None
        write(fake_server.url)
        scope["cache"].close()
        exec(text.replace("127.0.0.1:6379", address), scope)
        assert scope["player"] == {"Number": 7, "Name": "player 7"}
        scope["cache"].close()


def test_the_readers_user_may_read_and_nothing_else(
    real_server: ServerProcess, real_client: redis.Redis
) -> None:
    (text,) = blocks("reading", "text")
    set_user(real_client, "reader", text.split())
    real_client.set("Players:7", "x")
    with redis.Redis(
        host=real_server.host, port=real_server.port, username="reader", password="any"
    ) as reader:
        assert reader.get("Players:7") == b"x"
        for command in ("SET Players:7 y", "DEL Players:7", "GET {Players:7}!f", "GET Games:7"):
            with pytest.raises(redis.exceptions.NoPermissionError):
                reader.execute_command(*command.split())


def test_each_modes_nil_is_explained() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", TEXTS["reading"], re.MULTILINE)

    assert rows == ["mirror", "refresh", "invalidate"]
