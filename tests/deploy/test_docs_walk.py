"""The ten minutes of docs/deploy.md: its commands, in its order, in the environment it names.

moto stands in for AWS and a real server for the cache. Lambda's invocations run the released
operations zip that the stack gave its function, with the function's environment. What is left
out: rights, IAM and TLS of the cache, the network, and Lambda's own polling of the stream, which
test_emulator.py and the simulator cover.
"""

from __future__ import annotations

import json
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import boto3
import pytest
import redis

from asyncsync.lab.servers import ServerProcess, redis_process
from scripts import release
from tests.support.aws.moto_server import quick_dynamodb
from tests.support.servers import ONE_SERVER
from tests.support.template.cloudformation import ROOT, TOOLS

HERE = {"aarch64": "arm64", "x86_64": "x86_64"}[platform.machine()]
# What the page's commands and deploy.sh name, beside aws.
PROGRAMS = ("sh", "cat", "date", "dirname", "grep", "mktemp", "sed", "sleep", "tail")
REGION = "us-east-1"
ITEMS = 40
SIGN_IN = {"aws_access_key_id": "a", "aws_secret_access_key": "a", "region_name": REGION}

RUN = (
    "import json, sys; sys.path.insert(0, sys.argv[1]);"
    "from asyncsync.cli.operations import lambda_handler as h;"
    "answer = h(json.load(sys.stdin));"
    "print(json.dumps(answer))"
)


def section(heading: str) -> list[str]:
    """Return the shell blocks of a section of the page."""
    text = (ROOT / "docs" / "deploy.md").read_text()
    (body,) = re.findall(rf"^## {heading}\n(.*?)^## ", text, re.MULTILINE | re.DOTALL)
    return re.findall(r"^```sh\n(.*?)^```$", body, re.MULTILINE | re.DOTALL)


@contextmanager
def lambda_of(moto: str, archive: Path, bundle: Path) -> Iterator[str]:
    """Run an endpoint of Lambda's that runs the bundle as moto's stack has set the function."""
    digest = b64encode(sha256(archive.read_bytes()).digest()).decode()
    with zipfile.ZipFile(archive) as file:
        file.extractall(bundle)

    class Invoke(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:
            name = self.path.split("/functions/")[1].split("/")[0]
            event = self.rfile.read(int(self.headers["Content-Length"]))
            functions = boto3.client("lambda", endpoint_url=moto, **SIGN_IN)
            shown = functions.get_function_configuration(FunctionName=name)
            functions.close()
            assert shown["Handler"] == "asyncsync.cli.operations.lambda_handler"
            assert shown["CodeSha256"] == digest
            ended = subprocess.run(
                [sys.executable, "-I", "-S", "-c", RUN, str(bundle)],
                input=event,
                env={
                    **shown["Environment"]["Variables"],
                    "AWS_ACCESS_KEY_ID": "a",
                    "AWS_SECRET_ACCESS_KEY": "a",
                    "AWS_REGION": REGION,
                    "AWS_DEFAULT_REGION": REGION,
                    "AWS_ENDPOINT_URL": moto,
                },
                capture_output=True,
                check=False,
            )
            answer = (ended.stdout.splitlines() or [b"{}"])[-1]
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            if ended.returncode:
                self.send_header("X-Amz-Function-Error", "Unhandled")
            self.end_headers()
            self.wfile.write(answer)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Invoke)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def moto() -> Iterator[str]:
    """A moto with a bucket, and a table of orders without a stream."""
    with quick_dynamodb() as address:
        url = address.replace("127.0.0.1", "localhost")  # its CloudFormation reads only that
        s3 = boto3.client("s3", endpoint_url=url, **SIGN_IN)
        s3.create_bucket(Bucket="my-releases")
        s3.close()
        tables = boto3.client("dynamodb", endpoint_url=url, **SIGN_IN)
        tables.create_table(
            TableName="Orders",
            KeySchema=[{"AttributeName": "Id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "Id", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        for number in range(ITEMS):
            tables.put_item(TableName="Orders", Item={"Id": {"S": f"o{number}"}})
        tables.close()
        yield url


@pytest.fixture
def cache() -> Iterator[ServerProcess]:
    """Run the cache that is there."""
    if not ONE_SERVER or not isinstance(ONE_SERVER[0], str):
        pytest.skip("no server on PATH")
    with redis_process(ONE_SERVER[0]) as server:
        yield server


@pytest.fixture
def home(released: Path, tmp_path: Path) -> Path:
    """A folder with a profile of aws's, the release, and the programs that PATH leads to."""
    home = tmp_path / "home"
    (home / ".aws").mkdir(parents=True)
    (home / ".aws" / "credentials").write_text(
        "[mine]\naws_access_key_id = a\naws_secret_access_key = a\n"
    )
    (home / "dist").mkdir()
    (home / "dist" / release.NAME).symlink_to(released)
    (home / "bin").mkdir()
    for name in PROGRAMS:
        (home / "bin" / name).symlink_to(shutil.which(name) or pytest.fail(f"no {name}"))
    (home / "bin" / "aws").symlink_to(TOOLS / "aws")
    return home


def parameters(stream: str, url: str) -> str:
    """Return examples/existing/parameters.json, filled in."""
    file = ROOT / "examples" / "existing" / "parameters.json"
    pairs = dict(each.split("=", 1) for each in json.loads(file.read_text()))
    pairs |= {"TableStreamArn": stream, "RedisUrl": url, "RedisCluster": "false"}
    pairs["Architecture"] = HERE  # this machine runs it
    del pairs["RedisIamCacheArn"]  # neither IAM nor a password
    return json.dumps([f"{name}={value}" for name, value in pairs.items()], indent=2)


@pytest.mark.skipif(
    sys.version_info[:2] != (3, 13), reason="the zip holds Python 3.13's extensions"
)
def test_the_ten_minutes_with_a_table_and_a_cache(
    moto: str, cache: ServerProcess, released: Path, home: Path, tmp_path: Path
) -> None:
    look_up, switch_on, functions, commands = section("Your table and your cache")
    (archive,) = released.glob(f"asyncsync-operations-{HERE}-*.zip")
    with lambda_of(moto, archive, tmp_path / "operations") as endpoint:
        environment = {
            "PATH": str(home / "bin"),
            "HOME": str(home),
            "AWS_PROFILE": "mine",
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,  # version 1, which is here, reads only this
            "AWS_ENDPOINT_URL": moto,
            "AWS_ENDPOINT_URL_LAMBDA": endpoint,
        }

        def run(*texts: str) -> str:
            ended = subprocess.run(
                ["/bin/sh", "-eu", "-c", "".join(texts)],
                cwd=home,
                env=environment,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            assert ended.returncode == 0, ended.stdout + ended.stderr
            return ended.stdout

        assert run(look_up).split() == ["None", "None"]
        run(switch_on)
        stream, view = run(look_up).split()
        assert view == "NEW_IMAGE"
        (home / "parameters.json").write_text(parameters(stream, cache.url))
        said = run(functions, commands)

    answers: list[Any] = [
        json.loads(each) for each in re.findall(r'^\{"done".*?\}(?=\{|$)', said, re.MULTILINE)
    ]
    with redis.Redis(host=cache.host, port=cache.port) as client:
        names = set(client.scan_iter("Orders:*"))
    assert names == {f"Orders:o{number}".encode() for number in range(ITEMS)}
    assert [each["exit_code"] for each in answers] == [0, 0]
    assert f"{ITEMS} of {ITEMS} keys are the same in table and copy" in answers[-1]["said"]
