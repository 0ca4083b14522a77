"""A release: its files, the same each time, and what the aws command makes of them.

moto's CloudFormation stands in for AWS's. It leaves out what LEFT_OUT names, runs no rule of the
template, checks no right, and has no ElastiCache: so the stack here is one for an existing cache.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs

import boto3
import pytest

from asyncsync.lab.servers import dynamodb_process
from asyncsync.tools.errors import CommandRefused
from scripts import bundle, release
from tests.support.template.cloudformation import ROOT, TOOLS, Resolver, tool

SIGN_IN = {"aws_access_key_id": "a", "aws_secret_access_key": "a"}
BUCKET = "releases"
LEFT_OUT = {
    "AWS::CloudWatch::Alarm",
    "AWS::Lambda::EventInvokeConfig",
    "AWS::S3::BucketPolicy",
}
PROGRAMS = ("sh", "sed", "tail", "cat", "dirname", "pwd", "sha256sum")


# --- the files --------------------------------------------------------------------------------


def test_a_release_holds_each_zip_the_template_the_script_and_their_sha_256(
    released: Path, package: tuple[Path, list[str]]
) -> None:
    names = {path.name for path in released.iterdir()}
    expected = {release.TEMPLATE, release.SCRIPT, release.CHECKSUMS}
    for kind, platform in product(bundle.KINDS, bundle.PLATFORMS):
        built = (package[0] / f"asyncsync-{kind.name}-{platform}.zip").read_bytes()
        digest = sha256(built).hexdigest()
        name = f"asyncsync-{kind.name}-{platform}-python3.13-{digest[: release.DIGITS]}.zip"
        expected.add(name)
        assert (released / name).read_bytes() == built  # another build: the same bytes

    assert names == expected


def test_a_release_has_zips_for_every_runtime(
    tmp_path: Path, translated: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = []

    def build(folder: Path, platform: str, kind: bundle.Kind, python: bundle.Version) -> None:
        built.append((python, kind.name, platform))
        (folder / "code").write_text(f"{built[-1]}")

    monkeypatch.setattr(release, "build", build)
    monkeypatch.setattr(release, "find_python", lambda version: "python")
    release.write(tmp_path / "all", translated, write_line=lambda line: None)

    assert len(built) == len(list((tmp_path / "all").glob("*.zip"))) == 8
    mappings = json.loads((tmp_path / "all" / release.TEMPLATE).read_text())["Mappings"]
    assert {*mappings["LambdaCode"]} == {"python3.13", "python3.14"}
    assert {*mappings["LambdaCode"]["python3.14"]} == {"arm64", "x8664"}


@pytest.mark.parametrize("command", [["sha256sum", "-c"], ["shasum", "-a", "256", "-c"]])
def test_the_checksum_file_holds_and_notices_one_byte(
    released: Path, tmp_path: Path, command: list[str]
) -> None:
    """The first is Linux's, the second macOS's and Perl's."""
    shutil.copytree(released, tmp_path / "copy")
    check = [*command, release.CHECKSUMS]
    right = subprocess.run(check, cwd=tmp_path / "copy", capture_output=True, check=False)
    with (tmp_path / "copy" / release.TEMPLATE).open("a") as file:
        file.write(" ")
    wrong = subprocess.run(check, cwd=tmp_path / "copy", capture_output=True, check=False)

    assert right.returncode == 0, right.stderr
    assert len(right.stdout.splitlines()) == len(list(released.iterdir())) - 1
    assert wrong.returncode == 1


def test_the_template_is_the_same_each_time(released: Path, tmp_path: Path) -> None:
    again = release.translated(TOOLS / "python")
    template = json.loads((released / release.TEMPLATE).read_text())

    assert again["Resources"].keys() == template["Resources"].keys()
    archives = {
        kind.name: {
            "python3.13": {
                platform: archive.name
                for platform in bundle.PLATFORMS
                for archive in released.glob(f"asyncsync-{kind.name}-{platform}-*.zip")
            }
        }
        for kind in bundle.KINDS
    }
    text = json.dumps(release.released(again, archives), indent=1) + "\n"
    assert text == (released / release.TEMPLATE).read_text()


def test_without_a_python_of_lambdas_the_last_release_stays(
    tmp_path: Path, translated: Any
) -> None:
    (tmp_path / "mine").write_text("")

    with pytest.raises(CommandRefused, match=r"python3\.99 is not on PATH"):
        release.write(tmp_path, translated, [(3, 99)])
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_without_the_templates_tools_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CommandRefused, match="make template installs"):
        release.translated(tmp_path / "python")


# --- the template -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def template(released: Path) -> Any:
    """The released template."""
    return json.loads((released / release.TEMPLATE).read_text())


def test_plain_cloudformation_takes_it_in_every_region(template: Any, released: Path) -> None:
    text = json.dumps({**template, "Parameters": {}})
    checked = tool("cfn-lint", "--non-zero-exit-code", "error", str(released / release.TEMPLATE))

    assert "Transform" not in template
    assert "AWS::Serverless" not in text
    assert "us-east-1" not in text
    assert "arn:aws:" not in text
    assert checked.returncode == 0, checked.stdout


def test_each_function_takes_its_zip_by_architecture_and_runtime(
    template: Any, released: Path
) -> None:
    functions = {
        name: body["Properties"]
        for name, body in template["Resources"].items()
        if body["Type"] == "AWS::Lambda::Function" and "ZipFile" not in body["Properties"]["Code"]
    }

    assert set(functions) == {"Mirror", "OperationsFunction"}
    for name, properties in functions.items():
        code = properties["Code"]
        assert code["S3Bucket"] == {"Ref": "CodeBucket"}
        text, names = code["S3Key"]["Fn::Sub"]
        assert text == "${CodeKey}/${Archive}"
        condition, x86_64, arm64 = names["Archive"]["Fn::If"]
        architecture = properties["Architectures"][0]
        assert template["Conditions"][condition] == {"Fn::Equals": [architecture, "x86_64"]}
        kind = {"Mirror": "lambda", "OperationsFunction": "operations"}[name]
        for platform, found in {"x86_64": x86_64, "arm64": arm64}.items():
            mapping, runtime, column = found["Fn::FindInMap"]
            assert runtime == properties["Runtime"]
            archive = template["Mappings"][mapping]["python3.13"][column]
            assert archive.startswith(f"asyncsync-{kind}-{platform}-python3.13-")
            assert (released / archive).exists()


def test_the_templates_architectures_and_runtimes_are_those_that_have_zips(
    translated: Any,
) -> None:
    parameters = translated["Parameters"]

    assert set(parameters["Architecture"]["AllowedValues"]) == set(bundle.PLATFORMS)
    runtimes = [f"python{bundle.dotted(each)}" for each in bundle.RUNTIMES]
    assert parameters["Runtime"]["AllowedValues"] == runtimes
    assert parameters["Runtime"]["Default"] == runtimes[0]


@pytest.mark.parametrize(
    ("has", "allowed", "default"),
    [
        (["python3.13", "python3.14"], ["python3.13", "python3.14"], "python3.13"),
        (["python3.13"], ["python3.13"], "python3.13"),
        (["python3.14"], ["python3.14"], "python3.14"),
    ],
)
def test_a_runtime_without_zips_is_refused_by_the_template(
    translated: Any, has: list[str], allowed: list[str], default: str
) -> None:
    runtime = {"AllowedValues": ["python3.13", "python3.14"], "Default": "python3.13"}
    parameters = {**translated["Parameters"], "Runtime": runtime}
    archives = {"lambda": {name: {"arm64": f"{name}.zip"} for name in has}}
    limited = release.released({**translated, "Parameters": parameters}, archives)

    assert limited["Parameters"]["Runtime"] == {"AllowedValues": allowed, "Default": default}


# --- deployed ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    """A moto with a bucket in us-east-1, one in eu-central-1, and a table with a stream."""
    with dynamodb_process() as address:
        url = address.replace("127.0.0.1", "localhost")  # its CloudFormation reads only that
        s3 = boto3.client("s3", endpoint_url=url, region_name="us-east-1", **SIGN_IN)
        s3.create_bucket(Bucket=BUCKET)
        there = {"LocationConstraint": "eu-central-1"}
        s3.create_bucket(Bucket="elsewhere", CreateBucketConfiguration=there)
        s3.close()
        tables = boto3.client("dynamodb", endpoint_url=url, region_name="us-east-1", **SIGN_IN)
        tables.create_table(
            TableName="Orders",
            KeySchema=[{"AttributeName": "Id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "Id", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
            StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"},
        )
        tables.close()
        yield url


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A folder for PATH with what deploy.sh names, and nothing else: no Python, no sam."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in PROGRAMS:
        (folder / name).symlink_to(shutil.which(name) or pytest.fail(f"no {name}"))
    (folder / "aws").symlink_to(TOOLS / "aws")
    return folder


@pytest.fixture
def environment(moto: str, path: Path, tmp_path: Path) -> dict[str, str]:
    """What docs/deploy.md names, and moto's address."""
    return {
        "PATH": str(path),
        "HOME": str(tmp_path),
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "a",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": moto,
        "AWS_MAX_ATTEMPTS": "1",
    }


@pytest.fixture
def parameters(moto: str, tmp_path: Path) -> Path:
    """A filled-in parameter file for an existing table and cache."""
    tables = boto3.client("dynamodb", endpoint_url=moto, region_name="us-east-1", **SIGN_IN)
    stream = tables.describe_table(TableName="Orders")["Table"]["LatestStreamArn"]
    tables.close()
    file = tmp_path / "parameters.json"
    pairs = {
        "CodeBucket": BUCKET,
        "TableStreamArn": stream,
        "KeyPrefix": "Orders",
        "Cache": "existing",
        "RedisUrl": "rediss://cache.example:6379",
        "Network": "none",
    }
    file.write_text(json.dumps([f"{name}={value}" for name, value in pairs.items()], indent=2))
    return file


def deploy(
    script: Path, environment: dict[str, str], *arguments: object, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", str(script), *map(str, arguments)],
        env=environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def uploaded(moto: str) -> set[str]:
    s3 = boto3.client("s3", endpoint_url=moto, region_name="us-east-1", **SIGN_IN)
    keys = {each["Key"] for each in s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])}
    s3.close()
    return keys


def test_the_aws_command_alone_deploys_it(
    released: Path, template: Any, moto: str, environment: dict[str, str], parameters: Path
) -> None:
    ended = deploy(
        released / release.SCRIPT, environment, "orders", parameters.name, cwd=parameters.parent
    )

    assert ended.returncode == 0, ended.stderr
    client = {"endpoint_url": moto, "region_name": "us-east-1", **SIGN_IN}
    formation = boto3.client("cloudformation", **client)
    functions = boto3.client("lambda", **client)
    made = formation.describe_stack_resources(StackName="orders")["StackResources"]
    names = {each["LogicalResourceId"]: each for each in made if each.get("ResourceType")}
    pairs = dict(each.split("=", 1) for each in json.loads(parameters.read_text()))
    wanted = Resolver(template, pairs, known=True)
    kinds = {
        name: body["Type"]
        for name, body in template["Resources"].items()
        if "Condition" not in body or wanted.conditions[body["Condition"]]
    }
    assert {kinds[name] for name in kinds.keys() - names.keys()} == LEFT_OUT
    assert names.keys() <= kinds.keys()

    for name, mapping in {"Mirror": "LambdaCode", "OperationsFunction": "OperationsCode"}.items():
        function = names[name]["PhysicalResourceId"]
        shown = functions.get_function(FunctionName=function)["Configuration"]
        archive = released / template["Mappings"][mapping]["python3.13"]["arm64"]
        digest = sha256(archive.read_bytes()).digest()
        assert shown["CodeSha256"] == b64encode(digest).decode()
        assert shown["Runtime"] == "python3.13"
    (changes,) = functions.list_event_source_mappings()["EventSourceMappings"]
    assert changes["State"] == "Enabled"
    assert changes["EventSourceArn"] == pairs["TableStreamArn"]
    formation.close()
    functions.close()


class Unchanged(BaseHTTPRequestHandler):
    """A CloudFormation whose stack is there and has nothing to change."""

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        action = parse_qs(body)["Action"][0]
        inner = {
            "DescribeStacks": "<Stacks><member><StackName>orders</StackName>"
            "<StackStatus>UPDATE_COMPLETE</StackStatus>"
            "<CreationTime>2026-01-01T00:00:00Z</CreationTime></member></Stacks>",
            "CreateChangeSet": "<Id>arn:1</Id><StackId>arn:2</StackId>",
            "DescribeChangeSet": "<Status>FAILED</Status><StatusReason>The submitted information "
            "didn't contain changes. Submit different information to create a change set."
            "</StatusReason>",
            "GetTemplateSummary": "<Parameters></Parameters>",
            "DeleteChangeSet": "",
        }[action]
        answer = f"<{action}Response><{action}Result>{inner}</{action}Result></{action}Response>"
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer.encode())


def test_an_unchanged_stack_is_no_error(
    released: Path, environment: dict[str, str], parameters: Path
) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Unchanged)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        here = f"http://127.0.0.1:{server.server_port}"
        ended = deploy(
            released / release.SCRIPT,
            environment | {"AWS_ENDPOINT_URL_CLOUDFORMATION": here},
            "orders",
            parameters,
        )
    finally:
        server.shutdown()
        server.server_close()

    assert ended.returncode == 0, ended.stderr
    assert "No changes to deploy. Stack orders is up to date" in ended.stdout


# --- refused before anything is built or uploaded ---------------------------------------------

REFUSALS: dict[str, tuple[dict[str, str | None], dict[str, str | None], str]] = {
    # what is wrong: (change to the environment, change to the parameter file, words of the answer)
    "no aws": ({"aws": None}, {}, "the aws command is not on PATH. Install the AWS CLI"),
    "no Region": ({"AWS_REGION": None}, {}, "no Region: set AWS_REGION"),
    "no credentials": (
        {
            "AWS_ACCESS_KEY_ID": None,
            "AWS_SECRET_ACCESS_KEY": None,
            "AWS_EC2_METADATA_DISABLED": "true",
        },
        {},
        "no credentials: Unable to locate credentials",
    ),
    "no bucket named": ({}, {"CodeBucket": None}, 'has no "CodeBucket=..."'),
    "an empty bucket name": ({}, {"CodeBucket": ""}, 'has no "CodeBucket=..."'),
    "no such bucket": ({}, {"CodeBucket": "missing"}, "cannot use the bucket missing: "),
    "a bucket in another Region": (
        {},
        {"CodeBucket": "elsewhere"},
        "the bucket elsewhere is in eu-central-1, the stack in us-east-1",
    ),
    "no right to the bucket": (
        {"aws": 's3api) echo "An error occurred (AccessDenied)" >&2; exit 254'},
        {},
        "cannot use the bucket releases: An error occurred (AccessDenied)",
    ),
    "no right to CloudFormation": (
        {"aws": 'cloudformation) echo "An error occurred (AccessDenied)" >&2; exit 254'},
        {},
        "cannot look up the stack orders: An error occurred (AccessDenied)",
    ),
    "a stack that failed at first": (
        {"aws": "cloudformation) echo ROLLBACK_COMPLETE"},
        {},
        "Delete it first: aws cloudformation delete-stack --stack-name orders",
    ),
    "a stack that changes": (
        {"aws": "cloudformation) echo UPDATE_IN_PROGRESS"},
        {},
        "wait until that has ended",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_is_missing_ends_it_with_one_line_before_an_upload(
    released: Path,
    moto: str,
    environment: dict[str, str],
    parameters: Path,
    path: Path,
    case: str,
) -> None:
    changes, pairs, words = REFUSALS[case]
    before = uploaded(moto)
    pairs_there = [each.split("=", 1) for each in json.loads(parameters.read_text())]
    given: dict[str, str | None] = {**dict(pairs_there), **pairs}
    parameters.write_text(json.dumps([f"{k}={v}" for k, v in given.items() if v is not None]))
    if "aws" in changes:
        (path / "aws").unlink()
        if changes["aws"]:
            (path / "aws").write_text(
                f'#!/bin/sh\ncase $1 in\n{changes["aws"]} ;;\n*) exec {TOOLS}/aws "$@" ;;\nesac\n'
            )
            (path / "aws").chmod(0o755)
    changed = {**environment, **changes, "aws": None}
    environment = {name: value for name, value in changed.items() if value is not None}

    ended = deploy(released / release.SCRIPT, environment, "orders", parameters)

    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1
    assert ended.stderr.startswith("deploy.sh: ")
    assert words in ended.stderr
    assert uploaded(moto) == before


def test_a_check_that_passes_uploads_nothing(
    released: Path, moto: str, environment: dict[str, str], parameters: Path
) -> None:
    before = uploaded(moto)
    script = ROOT / "scripts" / release.SCRIPT  # make deploy checks before it builds a release
    ended = deploy(script, environment, "--check", "other", parameters)

    assert (ended.returncode, ended.stderr, ended.stdout) == (0, "", "")
    assert uploaded(moto) == before


@pytest.mark.parametrize("arguments", [[], ["--check"], ["orders"]])
def test_missing_words_are_said(
    released: Path, environment: dict[str, str], arguments: list[str]
) -> None:
    ended = deploy(released / release.SCRIPT, environment, *arguments)

    assert ended.returncode == 1
    assert "usage: sh deploy.sh" in ended.stderr


def test_make_deploy_checks_before_it_builds(tmp_path: Path) -> None:
    """No Region: make ends, and neither an environment nor a bundle was begun."""
    parameters = tmp_path / "parameters.json"
    parameters.write_text('["CodeBucket=releases"]')
    ended = subprocess.run(
        ["make", "deploy", "STACK=orders", f"PARAMETERS={parameters}", f"VENV={tmp_path}/venv"],
        cwd=ROOT,
        env={"PATH": f"{TOOLS}:{os.environ['PATH']}", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 2
    assert "no Region: set AWS_REGION" in ended.stderr
    assert not (tmp_path / "venv").exists()
