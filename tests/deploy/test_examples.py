"""examples/: each is deployed, synthesized, parsed or run, with the released template.

examples/pytest has its test in tests/testing, examples/search in tests/tools/index;
examples/existing is also walked in test_docs_walk.py. Terraform's provider is not needed: what
its validation would find beside the syntax is compared with the template here.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import redis

from asyncsync.lab.servers import ServerProcess
from scripts import bundle, release
from tests.support.events import FIRST, event, record
from tests.support.servers import skip_without
from tests.support.template.cloudformation import ROOT, Resolver

EXAMPLES = ROOT / "examples"


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with what the examples import, as pinned."""
    folder = tmp_path_factory.mktemp("examples") / "packages"
    bundle.install(folder, ROOT / "requirements" / "examples.txt")
    return folder


def run_python(
    program: str, *path: Path, cwd: Path, **env: str
) -> subprocess.CompletedProcess[str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=cwd,
        env={**kept, "PYTHONPATH": ":".join(map(str, path)), **env},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    return ended


def pairs_of(file: Path) -> dict[str, str]:
    return dict(each.split("=", 1) for each in json.loads(file.read_text()))


@pytest.fixture(scope="module")
def template(released: Path) -> Any:
    """The released template."""
    return json.loads((released / release.TEMPLATE).read_text())


def test_every_example_has_a_test() -> None:
    names = {path.name for path in EXAMPLES.iterdir()}

    assert names == {"cdk", "existing", "new", "powertools", "pytest", "search", "terraform"}


# --- parameter files --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["existing", "new"])
def test_a_parameter_file_is_one_that_the_template_takes(template: Any, name: str) -> None:
    pairs = pairs_of(EXAMPLES / name / "parameters.json")
    required = {name for name, each in template["Parameters"].items() if "Default" not in each}

    assert required <= set(pairs) <= set(template["Parameters"])
    resolver = Resolver(template, pairs, known=True)
    assert resolver.broken_rules() == []
    assert resolver.resources()["Mirror"]["Properties"]["Code"]["S3Bucket"] == "my-releases"
    assert resolver.outputs()


def test_the_file_for_an_existing_table_and_cache_creates_neither(template: Any) -> None:
    pairs = pairs_of(EXAMPLES / "existing" / "parameters.json")
    resources = Resolver(template, pairs, known=True).resources()
    types = {body["Type"] for body in resources.values()}

    assert not [each for each in types if re.search("DynamoDB|ElastiCache|EC2", each)]


# --- CDK --------------------------------------------------------------------------------------


def test_cdk_synthesizes_the_released_template(
    template: Any, released: Path, packages: Path, tmp_path: Path
) -> None:
    skip_without("node")
    program = (
        "import json, app; from pathlib import Path; import os;"
        "synthesized = app.build(os.environ['ASYNCSYNC_RELEASE']).synth();"
        "stack = synthesized.get_stack_by_name('orders-mirror');"
        "Path('stack.json').write_text(json.dumps(stack.template))"
    )
    run_python(
        program,
        packages,
        EXAMPLES / "cdk",
        cwd=tmp_path,
        ASYNCSYNC_RELEASE=str(released),
        JSII_SILENCE_WARNING_UNTESTED_NODE_VERSION="1",
    )
    stack = json.loads((tmp_path / "stack.json").read_text())
    text = (EXAMPLES / "cdk" / "app.py").read_text()
    given = pairs_of(EXAMPLES / "existing" / "parameters.json") | {
        "RedisUrl": "rediss://asyncsync@orders.example:6379",
        "SubnetIds": "subnet-0123456789abcdef0,subnet-0123456789abcdef1",
    }

    assert set(re.findall(r'^            "(\w+)":', text, re.MULTILINE)) == set(given)
    ours = Resolver(template, given, known=True).resources()
    theirs = Resolver(stack, {}, known=True).resources()
    assert theirs == ours
    assert "CheckThis" in stack["Outputs"]


# --- Terraform --------------------------------------------------------------------------------


def test_terraform_gives_parameters_and_reads_outputs_of_the_template(
    template: Any, packages: Path
) -> None:
    program = "import hcl2, json; print(json.dumps(hcl2.load(open('main.tf')), default=str))"
    ended = run_python(program, packages, cwd=EXAMPLES / "terraform")
    text = json.dumps(json.loads(ended.stdout))
    source = (EXAMPLES / "terraform" / "main.tf").read_text()
    block = re.search(r"parameters = \{\n(.*?)\n  \}", source, re.DOTALL)
    outputs = set(re.findall(r'outputs\["(\w+)"\]', source))

    assert "aws_cloudformation_stack" in text
    assert block is not None
    names = set(re.findall(r"^ +(\w+) +=", block[1], re.MULTILINE))
    assert names == set(pairs_of(EXAMPLES / "existing" / "parameters.json"))
    assert outputs
    assert outputs <= set(template["Outputs"])
    literal = dict(re.findall(r'(\w+) += "(\w+)"$', block[1], re.MULTILINE))
    for name, value in literal.items():
        assert value in template["Parameters"][name]["AllowedValues"]
    variables = set(re.findall(r'^variable "(\w+)"', source, re.MULTILINE))
    assert variables == set(re.findall(r"\bvar\.(\w+)", source))


def test_terraform_formats_it_so() -> None:
    if shutil.which("terraform") is None:
        pytest.skip("terraform is not on PATH")
    ended = subprocess.run(
        ["terraform", "fmt", "-check", "-diff", str(EXAMPLES / "terraform")],
        env={"PATH": os.environ["PATH"], "CHECKPOINT_DISABLE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (ended.returncode, ended.stdout) == (0, ""), ended.stderr


# --- Powertools -------------------------------------------------------------------------------

HANDLE = """
import json, os, sys
import app

class Context:
    function_name = "orders-mirror"
    memory_limit_in_mb = 512
    invoked_function_arn = "arn:aws:lambda:eu-west-1:111122223333:function:orders-mirror"
    aws_request_id = "8f2a"
    def get_remaining_time_in_millis(self):
        return 20_000

print("ANSWER " + json.dumps(app.lambda_handler(json.loads(os.environ["EVENT"]), Context())))
"""


@pytest.mark.parametrize("is_away", [False, True], ids=["server there", "server away"])
def test_a_handler_behind_powertools_answers_as_the_mirror_does(
    packages: Path,
    fake_server: ServerProcess,
    fake_client: redis.Redis,
    tmp_path: Path,
    is_away: bool,
) -> None:
    batch = event([record(7, FIRST), record(8, FIRST + 1)])
    site = Path(redis.__file__).parents[1]
    ended = run_python(
        HANDLE,
        EXAMPLES / "powertools",
        ROOT,
        packages,
        site,
        cwd=tmp_path,
        EVENT=batch.decode(),
        ASYNCSYNC_REDIS_URL="redis://127.0.0.1:1" if is_away else fake_server.url,
        ASYNCSYNC_KEY="Players:{@key}",
        AWS_LAMBDA_FUNCTION_NAME="orders-mirror",
    )
    (answer,) = [line for line in ended.stdout.splitlines() if line.startswith("ANSWER ")]
    failures = json.loads(answer.removeprefix("ANSWER "))["batchItemFailures"]
    lines = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]
    (metric,) = [each for each in lines if "FailedKeys" in each]

    first = json.loads(batch)["Records"][0]["dynamodb"]["SequenceNumber"]
    assert failures[:1] == ([{"itemIdentifier": first}] if is_away else [])
    assert metric["FailedKeys"] == [len(failures)]
    assert fake_client.exists("Players:7", "Players:8") == (0 if is_away else 2)
    assert any("Lambda sends their records again" in str(each) for each in lines) == is_away
