"""Raw events: with AWS's runtime client, with parts of it missing or changed, and without it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from asyncsync.lab.servers import ServerProcess
from asyncsync.runtime import ENTRY_POINT, RawMarshaller, take_raw_events
from benchmarks.harness.runtime_api import Answer, Function, FunctionFailed, function
from tests.support.events import FIRST, event, record

CLIENT = "awslambdaric.lambda_runtime_client"
MARSHALLER = "awslambdaric.lambda_runtime_marshaller"


class LambdaMarshaller:
    """AWS's marshaller in short: parses events and writes answers."""

    def unmarshal_request(self, request: bytes, content_type: str = "application/json") -> object:
        return json.loads(request)

    def marshal_response(self, response: object) -> tuple[str, str]:
        return json.dumps(response), "application/json"


def modules(**changes: Any) -> dict[str, Any]:
    """Return the runtime client's modules as shipped, with some parts replaced (None: removed)."""

    class BaseLambdaRuntimeClient:
        marshaller: Any = LambdaMarshaller()

    class LambdaRuntimeClient(BaseLambdaRuntimeClient):
        pass

    base = changes.get("base", BaseLambdaRuntimeClient)
    client = SimpleNamespace(BaseLambdaRuntimeClient=base, keep_alive=LambdaRuntimeClient)
    if base is None:
        del client.BaseLambdaRuntimeClient
    return {CLIENT: client, MARSHALLER: SimpleNamespace(LambdaMarshaller=LambdaMarshaller)}


@contextmanager
def client_running(handler: str, env: Mapping[str, str]) -> Iterator[Function]:
    """Run AWS's runtime client with a handler, as in Lambda."""
    environment = {**os.environ, **env, "_HANDLER": handler}
    with function([sys.executable, "-m", "awslambdaric", handler], environment) as api:
        yield api


def answered(answer: Answer) -> tuple[str, Any]:
    return answer.kind, json.loads(answer.body)


def test_the_real_client_hands_over_bytes_and_takes_our_answer(
    real_server: ServerProcess, real_client: redis.Redis
) -> None:
    env = {"ASYNCSYNC_REDIS_URL": real_server.url}
    with client_running(ENTRY_POINT, env) as api:
        good = event([record(1, FIRST)])
        bad = event([record(2, FIRST + 1, image={"a": {"Q": "?"}})])

        assert answered(api.invoke(good)) == ("response", {"batchItemFailures": []})
        failed = {"batchItemFailures": [{"itemIdentifier": str(FIRST + 1)}]}
        assert answered(api.invoke(bad)) == ("response", failed)
        kind, error = answered(api.invoke(b'{"not": "a stream event"}'))
        assert (kind, error["errorType"]) == ("error", "EventError")
        assert [line["RawEvent"] for line in api.json_lines() if "_aws" in line] == [1, 1]
        assert api.json_lines()[0]["raw_event"] is True
    assert real_client.get("Players:1") is not None


def test_the_setting_false_leaves_the_real_client_alone_and_all_is_as_correct(
    real_server: ServerProcess, real_client: redis.Redis
) -> None:
    env = {"ASYNCSYNC_REDIS_URL": real_server.url, "ASYNCSYNC_RAW_EVENT": "false"}
    with client_running(ENTRY_POINT, env) as api:
        answer = api.invoke(event([record(1, FIRST)]))

        assert answered(answer) == ("response", {"batchItemFailures": []})
        assert [line.get("RawEvent", 0) for line in api.json_lines() if "_aws" in line] == [0]
    assert real_client.get("Players:1") is not None


def test_the_real_client_is_taken_once() -> None:
    printed = run_alone(
        "import sys, awslambdaric.lambda_runtime_client as client; "
        "from asyncsync.runtime import take_raw_events; "
        "print(take_raw_events(sys.modules), take_raw_events(sys.modules), "
        "client.LambdaRuntimeClient.marshaller.unmarshal_request(b'{}'), "
        "client.LambdaRuntimeClient.marshaller.marshal_response({})[0])"
    )

    assert printed == "True False b'{}' {}\n"


@pytest.mark.parametrize(
    ("handler", "setting", "raw_event"),
    [
        (ENTRY_POINT, "auto", True),
        (ENTRY_POINT, "false", False),
        ("mine.handler", "auto", False),
        (None, "auto", False),
    ],
)
def test_importing_the_entry_point_asks_for_bytes_only_where_it_is_the_handler(
    handler: str | None, setting: str, raw_event: bool
) -> None:
    names = {} if handler is None else {"_HANDLER": handler}
    printed = run_alone(
        "import awslambdaric.lambda_runtime_client, asyncsync.handler",
        ASYNCSYNC_REDIS_URL="redis://unused",
        ASYNCSYNC_RAW_EVENT=setting,
        **names,
    )

    assert json.loads(printed)["raw_event"] is raw_event


@pytest.mark.parametrize(
    ("arguments", "raw_event"),
    [
        ("Config(redis_url='redis://unused'), raw_event=True", True),
        ("Config(redis_url='redis://unused', raw_event='false'), raw_event=True", False),
        ("Config(redis_url='redis://unused')", False),
    ],
)
def test_a_mirror_of_ones_own_asks_for_bytes_only_where_it_is_told_to(
    arguments: str, raw_event: bool
) -> None:
    printed = run_alone(
        "import awslambdaric.lambda_runtime_client as client; "
        "from asyncsync import Config, Mirror; "
        f"mirror = Mirror({arguments}); "
        "event = client.LambdaRuntimeClient.marshaller.unmarshal_request(b'{}'); "
        "print(mirror.raw_event, event == b'{}')"
    )

    assert printed == f"{raw_event} {raw_event}\n"


def test_a_mirror_that_is_refused_leaves_the_client_alone() -> None:
    printed = run_alone(
        "import awslambdaric.lambda_runtime_client as client; "
        "from asyncsync import Config, Mirror, ConfigError\n"
        "config = Config(redis_url='rediss://mirror@unused', redis_iam_cache='players')\n"
        "try:\n    Mirror(config, raw_event=True)\n"
        "except ConfigError:\n"
        "    print(client.LambdaRuntimeClient.marshaller.unmarshal_request(b'{}'))"
    )

    assert printed == "{}\n"


def test_the_real_client_hands_bytes_to_a_function_of_ones_own(
    real_server: ServerProcess, real_client: redis.Redis, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(
        "from asyncsync import Config, Mirror\n"
        f"config = Config(redis_url={real_server.url!r})\n"
        "lambda_handler = Mirror(config, raw_event=True).lambda_handler\n"
    )
    with client_running("mine.lambda_handler", {"PYTHONPATH": str(tmp_path)}) as api:
        answer = api.invoke(event([record(1, FIRST)]))

        assert answered(answer) == ("response", {"batchItemFailures": []})
        assert [line["RawEvent"] for line in api.json_lines() if "_aws" in line] == [1]
    assert real_client.get("Players:1") is not None


def run_alone(program: str, **env: str) -> str:
    """Run a program in a new process, because it changes the client's class for good."""
    environment = {name: value for name, value in os.environ.items() if name != "_HANDLER"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**environment, **env},
        capture_output=True,
        check=True,
        text=True,
    )
    return done.stdout


def test_without_the_client_the_event_stays_a_dict() -> None:
    assert not take_raw_events({})


def test_a_client_without_its_base_class_is_left_alone() -> None:
    assert not take_raw_events(modules(base=None))


def test_a_marshaller_that_is_not_awss_is_left_alone() -> None:
    class Base:
        marshaller = SimpleNamespace(unmarshal_request=json.loads, marshal_response=json.dumps)

    assert not take_raw_events(modules(base=Base))
    assert not isinstance(Base.marshaller, RawMarshaller)


def test_a_client_whose_subclass_has_a_marshaller_of_its_own_is_left_alone() -> None:
    class Base:
        marshaller: Any = LambdaMarshaller()

    class Sub(Base):
        marshaller = SimpleNamespace()

    assert not take_raw_events(modules(base=Base))
    assert Sub.__mro__[1] is Base


@pytest.mark.parametrize("missing", ["unmarshal_request", "marshal_response"])
def test_a_marshaller_without_one_of_its_methods_is_left_alone(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(LambdaMarshaller, missing)

    assert not take_raw_events(modules())


def test_as_shipped_it_is_taken_and_other_content_is_still_awss() -> None:
    shipped = modules()

    assert take_raw_events(shipped)

    marshaller = shipped[CLIENT].BaseLambdaRuntimeClient.marshaller
    assert marshaller.unmarshal_request(b"{}") == b"{}"
    assert marshaller.unmarshal_request("{}") == {}
    assert marshaller.unmarshal_request(b"{}", "text/plain") == {}
    assert marshaller.marshal_response({}) == ("{}", "application/json")


def test_a_handler_that_cannot_be_loaded_is_told_with_its_reason() -> None:
    with pytest.raises(FunctionFailed, match="No module named 'nowhere'"):
        with client_running("nowhere.handler", {}):
            pass


def test_a_client_that_ends_is_told_with_its_last_words() -> None:
    command = [sys.executable, "-c", "raise SystemExit('enough')"]
    with pytest.raises(FunctionFailed, match="ended with 1: enough"):
        with function(command, os.environ):
            pass
