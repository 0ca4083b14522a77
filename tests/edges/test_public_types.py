"""Users' handlers and readers pass `mypy --strict`, and what is wrong in one is found."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from shutil import which

import pytest

import asyncsync
from tests.support.project.package import ROOT
from tests.support.servers import lacking

PLAIN = """
from typing import Any

from asyncsync import Config, LambdaContext, Mirror, Response

mirror = Mirror(Config(redis_url="rediss://cache.example:6379", raw_event=False))


def lambda_handler(event: dict[str, Any], context: LambdaContext) -> Response:
    answer: Response = mirror.lambda_handler(event, context)
    return answer


async def main(event: bytes) -> list[str]:
    async with Mirror(Config(redis_url="redis://h", log_keys=True)) as copy:
        response = await copy.handle(event)
        response = await copy.handle(event, None)
    return [failure["itemIdentifier"] for failure in response["batchItemFailures"]]
"""

# Their context has read-only properties, and their event is a mapping that is no dict. These
# stand for the real classes, which the development environment does not have.
POWERTOOLS = """
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from asyncsync import Config, Mirror, Response


class LambdaContext:
    _aws_request_id: str

    @property
    def function_name(self) -> str:
        return ""

    @property
    def aws_request_id(self) -> str:
        return self._aws_request_id

    @staticmethod
    def get_remaining_time_in_millis() -> int:
        return 0


class DynamoDBStreamEvent(Mapping[str, Any]):
    def __getitem__(self, name: str) -> Any:
        return self

    def __iter__(self) -> Iterator[str]:
        return iter("")

    def __len__(self) -> int:
        return 0


mirror = Mirror(Config(redis_url="redis://cache.example:6379"))


def lambda_handler(event: DynamoDBStreamEvent, context: LambdaContext) -> Response:
    return mirror.lambda_handler(event, context)


handler: Callable[[DynamoDBStreamEvent, LambdaContext], Response] = mirror.lambda_handler
"""

REAL_POWERTOOLS = """
from aws_lambda_powertools.utilities.data_classes import DynamoDBStreamEvent, event_source
from aws_lambda_powertools.utilities.typing import LambdaContext

from asyncsync import Config, Mirror, Response

mirror = Mirror(Config(redis_url="redis://cache.example:6379"))


@event_source(data_class=DynamoDBStreamEvent)
def lambda_handler(event: DynamoDBStreamEvent, context: LambdaContext) -> Response:
    return mirror.lambda_handler(event, context)


async def handle(event: DynamoDBStreamEvent, context: LambdaContext) -> Response:
    return await mirror.handle(event, context)
"""

OWN = """
from collections.abc import Mapping

from asyncsync import AttributeValue, Config, KeyFunction, Mirror, Transform


def name_of(keys: Mapping[str, AttributeValue]) -> str:
    return "player:" + keys["Number"]["N"]


def public(item: dict[str, object]) -> dict[str, object] | None:
    return None if item.get("Hidden") else {"name": item["Name"]}


def packed(item: dict[str, object]) -> bytes:
    return str(item["Name"]).encode()


key: KeyFunction = name_of
transforms: list[Transform] = [public, packed]
mirrors = [Mirror(Config(redis_url="redis://h"), key=key, transform=each) for each in transforms]
lambda_handler = mirrors[0].lambda_handler
"""

READER = """
from decimal import Decimal

import redis.asyncio

from asyncsync import Config, Mirror, Reader, ReaderOptions, TableBudgetExceeded

mirror = Mirror(Config(redis_url="redis://h"))
options = ReaderOptions(wait_ms=200, table_reads_per_s=500)


async def score(number: int) -> Decimal:
    client = redis.asyncio.Redis()
    async with Reader(mirror, "Players", redis=client, options=options) as reader:
        try:
            player = await reader.get({"Number": number})
        except TableBudgetExceeded:
            player = await reader.get({"Number": number}, copy_only=True)
        value: bytes | None = await reader.get({"Number": number}, as_bytes=True)
        many = await reader.get_many([{"Number": 1}, {"Number": Decimal(2)}])
        names: list[str] = [each["Name"] for each in many if each is not None]
        values: list[bytes | None] = await reader.get_many([{"Number": 1}], as_bytes=True)
        await reader.prefetch({"Number": each} for each in range(9))
        print(value, names, values, reader.counters.hits, reader.circuit == "closed")
    return Decimal(0) if player is None else Decimal(player["Score"])


def blocking() -> str:
    with Reader.sync(Config(redis_url="redis://h"), "Players", region="eu-west-1") as reader:
        player = reader.get({"Number": 7})
        return "" if player is None else str(player["Name"])
"""

WRONG_IMPORTS = "from asyncsync import Config, Mirror, Reader, ReaderOptions"
WRONG = {
    "Config(redis_ulr='redis://h')": "redis_ulr",
    "Config(redis_url='redis://h', mode='mirrored')": "mode",
    "Config(redis_url='redis://h', log_keys='yes')": "log_keys",
    "Mirror('redis://h')": "Config",
    "Mirror(Config(redis_url='redis://h'), key='prod:{@key}')": "key",
    "Mirror(Config(redis_url='redis://h'), transform=len)": "transform",
    "Reader('redis://h', 'Players')": "Reader",
    "Reader(Config(redis_url='redis://h'), table_reads_per_s=5)": "Reader",
    "ReaderOptions(wait_ms='soon')": "wait_ms",
}


def check(folder: Path, source: str) -> str:
    """Return what mypy says of a user's module."""
    (folder / "app.py").write_text(source)
    (folder / "mypy.ini").write_text("[mypy]\n")
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "app.py"]
    command += ["--cache-dir", str(folder / "cache"), "--config-file", "mypy.ini"]
    process = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    return process.stdout + process.stderr


HANDLERS = {"plain": PLAIN, "Powertools": POWERTOOLS, "own functions": OWN, "reader": READER}
if find_spec("aws_lambda_powertools"):
    HANDLERS["the real Powertools"] = REAL_POWERTOOLS


@pytest.mark.parametrize("name", HANDLERS)
def test_a_users_handler_is_typed(tmp_path: Path, name: str) -> None:
    assert check(tmp_path, HANDLERS[name]) == ""


def pyright(folder: Path, source: str) -> str:
    """Return what pyright says of a user's module; its own npm part is in basedpyright's wheel."""
    program = which("basedpyright")
    if not program:
        pytest.skip(lacking("basedpyright"))
    (folder / "app.py").write_text(source)
    strict = {"typeCheckingMode": "strict", "pythonVersion": "3.11", "extraPaths": [str(ROOT)]}
    (folder / "pyrightconfig.json").write_text(json.dumps(strict))
    command = [program, "--pythonpath", sys.executable, "--project", str(folder)]
    process = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return process.stdout + process.stderr


@pytest.mark.parametrize("name", HANDLERS)
def test_a_users_handler_is_typed_for_pyright_too(tmp_path: Path, name: str) -> None:
    assert pyright(tmp_path, HANDLERS[name]).startswith("0 errors")


def test_what_a_user_gets_wrong_is_found_by_pyright_too(tmp_path: Path) -> None:
    found = pyright(tmp_path, "\n".join([WRONG_IMPORTS, *WRONG]) + "\n")

    for at, line in enumerate(WRONG, 2):
        assert f"app.py:{at}:" in found, line


def test_what_a_user_gets_wrong_is_found_before_it_runs(tmp_path: Path) -> None:
    lines = [WRONG_IMPORTS, *WRONG]

    found = check(tmp_path, "\n".join(lines) + "\n").splitlines()

    for at, (line, word) in enumerate(WRONG.items(), 2):
        assert any(each.startswith(f"app.py:{at}: error:") and word in each for each in found), (
            line
        )


@pytest.mark.parametrize("name", ["Config", "Mirror", "Reader", "ReaderOptions"])
def test_a_class_that_users_make_shows_its_arguments_errors_and_an_example(name: str) -> None:
    text = getattr(asyncsync, name).__doc__

    assert "Args:" in text
    assert "Raises:" in text
    assert f"{name}(" in text
    for argument in signature(getattr(asyncsync, name)).parameters:
        assert re.search(rf"^ +{argument}: ", text, re.MULTILINE), argument


@pytest.mark.parametrize("name", asyncsync.__all__)
def test_a_public_name_says_what_it_is_for(name: str) -> None:
    value = getattr(asyncsync, name)
    if not isinstance(value, type):  # a type alias, or the version, is told of in its module
        module = sys.modules["asyncsync"]
        assert name in (module.__doc__ or "")
        return
    assert value.__doc__
    for method, member in vars(value).items():
        if callable(member) and not method.startswith("_") and value.__module__ != "builtins":
            assert member.__doc__, method
