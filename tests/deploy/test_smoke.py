"""make smoke: every line ok on a right stack, and each of them fails on a wrong answer."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
import redis

from asyncsync.lab.servers import ServerProcess, dynamodb_process, redis_process
from scripts import smoke as script
from scripts.smoke import main, smoke
from scripts.smoke_lines import LINES
from scripts.smoke_stack import Pace, Stack
from tests.support.project.package import ROOT
from tests.support.servers import ONE_SERVER
from tests.support.stack.stand_in import BUCKET, KEYS, MAPPING, MIRROR, StandIn, stand_in
from tests.support.template.cache_users import set_user
from tests.support.template.cloudformation import Resolver

QUICK = Pace(wait_s=20.0, every_s=0.05)
SHORT = Pace(wait_s=0.6, every_s=0.05)  # for what never comes
SKIPPED = {
    "environment-key",
    "acl",
    "acl-refusal",
    "cluster-slots",
    "run-id",
    "state-machine",
}
ACCESS = "on ~Players:* -@all +evalsha +eval +mget +set +del +get +scan +info +cluster|slots"
HASHES = "+hset +hlen +persist +pexpireat"


@pytest.fixture(scope="module")
def moto_server() -> Iterator[str]:
    with dynamodb_process() as url:
        yield url


@pytest.fixture(scope="module", params=ONE_SERVER)
def real_server(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    with redis_process(request.param) as server:
        yield server


@pytest.fixture
def world(
    moto_server: str,
    real_server: ServerProcess,
    real_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    one_loader: None,
) -> Iterator[StandIn]:
    with stand_in(moto_server, real_server.url, monkeypatch) as world:
        yield world


def walked(world: StandIn, *only: str, pace: Pace = QUICK) -> tuple[int, dict[str, str]]:
    """Run the smoke test; return its exit code and its lines by name."""
    out = io.StringIO()
    code = smoke(Stack("stack", world.client, pace), out, only)
    lines = out.getvalue().splitlines()
    return code, {line[6:33].strip(): f"{line[:5].strip()} {line[34:]}" for line in lines}


def leftovers(world: StandIn) -> list[Any]:
    """Return what a smoke test may have left behind."""
    items = world.client("dynamodb").scan(TableName="Players")["Items"]
    objects = world.client("s3").list_objects_v2(Bucket=BUCKET).get("Contents", [])
    versions = world.client("lambda").list_versions_by_function(FunctionName=MIRROR)["Versions"]
    numbers = [each["Version"] for each in versions if each["Version"] != "$LATEST"]
    return [*items, *objects, *numbers, *world.windowed]


# --- a right stack ----------------------------------------------------------------------------


def test_a_right_stack_is_ok_in_every_line_and_clean_afterwards(world: StandIn) -> None:
    code, lines = walked(world)

    states = {name: line.split()[0] for name, line in lines.items()}
    assert {name for name, state in states.items() if state == "skip"} == SKIPPED
    assert {name for name, state in states.items() if state == "fail"} == set(), lines
    assert {name for name in states if not name.startswith("alarm ")} == {n.name for n in LINES}
    assert sum(name.startswith("alarm ") for name in states) == 5
    assert code == 0
    assert leftovers(world) == []


@pytest.mark.parametrize("mode", ["refresh", "invalidate"])
def test_in_other_modes_the_fence_is_what_arrives(
    mode: str,
    moto_server: str,
    real_server: ServerProcess,
    real_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines = ("put", "update", "delete", "batch")
    with stand_in(moto_server, real_server.url, monkeypatch, ASYNCSYNC_MODE=mode) as world:
        code, shown = walked(world, *lines)

    assert code == 0, shown
    assert tuple(shown) == lines


# --- wrong answers ----------------------------------------------------------------------------

Sabotage = Callable[[StandIn], None]


def wrong(service: str, method: str, answer: Any) -> Sabotage:
    """Return the same answer to every request."""

    def sabotage(world: StandIn) -> None:
        world.wrong[service, method] = lambda **_: answer

    return sabotage


def changed(service: str, method: str, **members: Any) -> Sabotage:
    """Change members of the right answer."""

    def sabotage(world: StandIn) -> None:
        right = getattr(world.client(service), method)
        world.wrong[service, method] = lambda **query: {**right(**query), **members}

    return sabotage


def operations(command: str, document: Any, code: int = 0) -> Sabotage:
    """Let the operations function answer one command with a document."""

    def sabotage(world: StandIn) -> None:
        right = world.lambda_invoke

        def invoke(FunctionName: str, Payload: bytes) -> dict[str, Any]:  # noqa: N803
            if json.loads(Payload)["args"][0] != command:
                return right(FunctionName, Payload)
            said = document if isinstance(document, list) else [json.dumps(document)]
            answer = {"done": True, "exit_code": code, "said": said, "next": None}
            return {"Payload": io.BytesIO(json.dumps(answer).encode())}

        world.wrong["lambda", "invoke"] = invoke

    return sabotage


def check_of(**verdicts: tuple[str, str]) -> Sabotage:
    shown = [
        {"state": state, "subject": subject.replace("_", " "), "message": message}
        for subject, (state, message) in {"write": ("ok", "applied"), **verdicts}.items()
    ]
    return operations("check", {"verdicts": shown, "to_fix": 0})


def writes(keeps: Callable[[dict[str, Any]], bool]) -> Sabotage:
    """Lose the writes that it does not keep."""

    def sabotage(world: StandIn) -> None:
        right = world.client("dynamodb").batch_write_item

        def write(RequestItems: dict[str, Any]) -> Any:  # noqa: N803
            kept = [each for each in RequestItems["Players"] if keeps(each)]
            return right(RequestItems={"Players": kept}) if kept else {}

        world.wrong["dynamodb", "batch_write_item"] = write

    return sabotage


def deaf(world: StandIn) -> None:
    world.is_deaf = True


def settings(**variables: str) -> Sabotage:
    """Change the function's environment, as Lambda describes it."""

    def sabotage(world: StandIn) -> None:
        described = world.client("lambda").get_function_configuration(FunctionName=MIRROR)
        described["Environment"] = {"Variables": {**world.settings, **variables}}
        wrong("lambda", "get_function_configuration", described)(world)

    return sabotage


def both(*sabotages: Sabotage) -> Sabotage:
    def sabotage(world: StandIn) -> None:
        for each in sabotages:
            each(world)

    return sabotage


def key_lost(world: StandIn) -> None:
    """Lose a key of the copy just before the audit."""
    right = world.lambda_invoke
    server = redis.Redis.from_url(world.settings["ASYNCSYNC_REDIS_URL"])

    def invoke(FunctionName: str, Payload: bytes) -> dict[str, Any]:  # noqa: N803
        if json.loads(Payload)["args"][0] == "audit":
            server.delete(*list(server.keys("Players:-*"))[:1])
            server.close()
        return right(FunctionName, Payload)

    world.wrong["lambda", "invoke"] = invoke


def users(access: str, status: str = "active") -> Sabotage:
    def sabotage(world: StandIn) -> None:
        world.more.append(("MirrorUser", "AWS::ElastiCache::User", "asyncsync-1"))
        described = {"Users": [{"AccessString": access, "Status": status}]}
        wrong("elasticache", "describe_users", described)(world)

    return sabotage


def discarded_object(**members: Any) -> Sabotage:
    """Change members of the object that Lambda writes; None takes one away."""

    def sabotage(world: StandIn) -> None:
        right = world.client("s3").get_object

        def get_object(**query: Any) -> dict[str, Any]:
            document = {**json.loads(right(**query)["Body"].read()), **members}
            document = {name: each for name, each in document.items() if each is not None}
            return {"Body": io.BytesIO(json.dumps(document).encode())}

        world.wrong["s3", "get_object"] = get_object

    return sabotage


def machine(status: str) -> Sabotage:
    def sabotage(world: StandIn) -> None:
        right = world.client("cloudformation").describe_stacks

        def describe(**query: Any) -> dict[str, Any]:
            (stack,) = right(**query)["Stacks"]
            output = {"OutputKey": "OperationsMachine", "OutputValue": "arn:machine"}
            return {"Stacks": [{**stack, "Outputs": [*stack["Outputs"], output]}]}

        world.wrong["cloudformation", "describe_stacks"] = describe
        wrong("stepfunctions", "start_execution", {"executionArn": "arn:run"})(world)
        described = {"status": status, "error": "States.Runtime", "cause": "no such path"}
        wrong("stepfunctions", "describe_execution", described)(world)

    return sabotage


def stack_is(status: str) -> Sabotage:
    def sabotage(world: StandIn) -> None:
        right = world.client("cloudformation").describe_stacks

        def describe(**query: Any) -> dict[str, Any]:
            (stack,) = right(**query)["Stacks"]
            return {"Stacks": [{**stack, "StackStatus": status}]}

        world.wrong["cloudformation", "describe_stacks"] = describe

    return sabotage


def no_metrics(*values: float) -> Sabotage:
    return wrong("cloudwatch", "get_metric_data", {"MetricDataResults": [{"Values": [*values]}]})


def other_dimensions(world: StandIn) -> None:
    """Let an alarm look at a metric by a dimension that AWS does not have it by."""
    world.client("cloudwatch").put_metric_alarm(
        AlarmName="stack-LateAlarm",
        Namespace="AWS/Lambda",
        MetricName="IteratorAge",
        Dimensions=[{"Name": "Function", "Value": MIRROR}],
        Statistic="Sum",
        Period=60,
        EvaluationPeriods=1,
        ComparisonOperator="GreaterThanThreshold",
        Threshold=0,
    )


def by_others(namespace: str, metric: str) -> Sabotage:
    """A metric that is silent for good reason exists by other dimensions."""

    def sabotage(world: StandIn) -> None:
        dimensions = [{"Name": "FunctionName", "Value": MIRROR}]
        world.client("cloudwatch").put_metric_data(
            Namespace=namespace,
            MetricData=[{"MetricName": metric, "Dimensions": dimensions, "Value": 0.0}],
        )

    return sabotage


def unregistered(world: StandIn) -> None:
    """Take the poison's mapping, and deliver nothing to it."""
    world.wrong["lambda", "create_event_source_mapping"] = lambda **_: {"UUID": "nowhere"}
    enabled = {"UUID": "nowhere", "State": "Enabled"}
    right = world.lambda_get_event_source_mapping
    world.wrong["lambda", "get_event_source_mapping"] = lambda **query: (
        enabled if query["UUID"] == "nowhere" else right(**query)
    )


def never_enabled(world: StandIn) -> None:
    right = world.lambda_get_event_source_mapping
    world.wrong["lambda", "get_event_source_mapping"] = lambda **query: {
        **right(**query),
        **({} if query["UUID"] == MAPPING else {"State": "Creating"}),
    }


POISONED = ("version-mapping", "poison")
WRONG: list[tuple[str, tuple[str, ...], Sabotage, str]] = [
    ("stack", (), stack_is("UPDATE_ROLLBACK_COMPLETE"), "UPDATE_ROLLBACK_COMPLETE"),
    ("mapping", (), changed("lambda", "get_event_source_mapping", State="Disabled"), "Disabled"),
    ("mapping", (), changed("lambda", "get_event_source_mapping", BatchSize=100), "100, not 1000"),
    (
        "mapping",
        (),
        changed("lambda", "get_event_source_mapping", LastProcessingResult="PROBLEM: rights"),
        "PROBLEM: rights",
    ),
    (
        "mapping",
        (),
        changed("lambda", "get_event_source_mapping", EventSourceArn="arn:old"),
        "it reads arn:old",
    ),
    (
        "environment-key",
        (),
        changed(
            "lambda",
            "get_function_configuration",
            KMSKeyArn="arn:key/a",
            Environment={"Error": {"ErrorCode": "KMSAccessDenied", "Message": "no"}},
        ),
        "KMSAccessDenied: no",
    ),
    ("put", (), deaf, "not in the copy"),
    ("put", (), operations("get", ["no such key"]), "get answers: no such key"),
    ("update", ("put",), wrong("dynamodb", "update_item", {}), '"put"'),
    ("delete", ("put",), writes(lambda each: "PutRequest" in each), "still holds Players:"),
    (
        "batch",
        (),
        writes(lambda each: '001950"' not in json.dumps(each)),
        "some are not in the copy",
    ),
    ("check", (), check_of(eviction=("fix", "allkeys-lru")), "eviction: allkeys-lru"),
    ("check", (), check_of(memory=("unknown", "could not look")), "memory: could not look"),
    ("check", (), operations("check", {"verdicts": []}), "exit code 0, and no write"),
    ("check", (), operations("check", {"verdicts": []}, 1), "exit code 1"),
    ("acl", (), users(ACCESS.replace(" +eval ", " ")), "~Players:*"),
    ("acl", (), users("on ~* +@all"), "on ~* +@all"),
    ("acl", (), users(ACCESS, "modifying"), "modifying"),
    (
        "acl",
        (),
        both(settings(ASYNCSYNC_VALUE="hash"), users(f"{ACCESS} {HASHES.replace(' +hlen', '')}")),
        "asyncsync-1",
    ),
    ("acl", (), both(settings(ASYNCSYNC_VALUE="redis-json"), users(ACCESS)), "asyncsync-1"),
    ("acl-refusal", (), users(ACCESS), "was read"),
    (
        "cluster-slots",
        ("check",),
        both(
            settings(ASYNCSYNC_REDIS_CLUSTER="true"),
            check_of(
                cluster=("ok", "yes, as set"),
                ASKING=("ok", "permitted"),
                memory=("unknown", "could not look: CLUSTER SLOTS was answered with NOPERM"),
            ),
        ),
        "CLUSTER SLOTS was answered with NOPERM",
    ),
    (
        "cluster-slots",
        ("check",),
        both(settings(ASYNCSYNC_REDIS_CLUSTER="true"), check_of(cluster=("ok", "yes, as set"))),
        "no line ASKING",
    ),
    ("cluster-slots", (), settings(ASYNCSYNC_REDIS_CLUSTER="true"), "check did not answer"),
    (
        "run-id",
        ("check",),
        both(
            settings(ASYNCSYNC_REDIS_URL="rediss://u@c-1.serverless.use1.cache.amazonaws.com"),
            check_of(run_id=("note", "not said")),
        ),
        "not said",
    ),
    ("audit", ("batch",), key_lost, "missing 1"),
    ("audit", (), lambda world: None, "compared 0"),
    (
        "one-mapping",
        (),
        wrong("lambda", "create_event_source_mapping", {"UUID": "second"}),
        "a second mapping of the stream was made",
    ),
    ("version-mapping", (), never_enabled, "not enabled"),
    ("poison", ("version-mapping",), unregistered, "nothing below aws/lambda/nowhere/"),
    ("poison", (), lambda world: None, "see version-mapping"),
    ("payload", POISONED, discarded_object(payload=None), "without Records"),
    ("payload", POISONED, discarded_object(payload={"Records": []}), "without Records"),
    ("payload", POISONED, discarded_object(DDBStreamBatchInfo={}), "DDBStreamBatchInfo is {}"),
    (
        "payload",
        POISONED,
        discarded_object(payload={"Records": [{"dynamodb": {"Keys": {"Number": {"N": "7"}}}}]}),
        "passed the filter",
    ),
    ("payload", (), lambda world: None, "see poison"),
    ("redrive", POISONED, operations("redrive", {"redriven": 0}, 1), "exit code 1, redriven 0"),
    ("redrive", POISONED, operations("redrive", {"redriven": 1}), "objects stay"),
    ("redrive", (), lambda world: None, "see poison"),
    ("state-machine", (), machine("FAILED"), "FAILED: States.Runtime: no such path"),
    ("state-machine", (), machine("RUNNING"), "still runs"),
    ("emf", ("put",), no_metrics(), "Records of Players are under 1"),
    ("emf", ("put", "update"), no_metrics(1.0), "under 2"),
    (
        "emf",
        (),
        both(settings(ASYNCSYNC_METRICS="summary"), no_metrics()),
        "Records of Players are under 1",
    ),
    ("raw-event", (), no_metrics(0.0, 0.0), "RawEvent is 0"),
    ("raw-event", (), no_metrics(), "no metric RawEvent"),
    ("alarm", (), wrong("cloudwatch", "describe_alarms", {"MetricAlarms": []}), "no such alarm"),
    ("alarm", (), lambda world: world.more.clear(), "no alarm"),
    ("alarm LateAlarm", (), other_dimensions, "AWS has it by FunctionName"),
    ("alarm LateAlarm", (), no_metrics(), "no data of AWS/Lambda IteratorAge"),
    (
        "alarm RejectsAlarm",
        (),
        by_others("asyncsync", "Rejected"),
        "no data of Rejected by Table; AWS has it by FunctionName",
    ),
    (
        "alarm DroppedAlarm",
        (),
        by_others("AWS/Lambda", "DroppedEventCount"),
        "AWS has it by FunctionName",
    ),
]


@pytest.mark.parametrize(("name", "before", "sabotage", "words"), WRONG)
def test_a_wrong_answer_is_a_line_that_fails(
    world: StandIn, name: str, before: tuple[str, ...], sabotage: Sabotage, words: str
) -> None:
    sabotage(world)
    pace = Pace(wait_s=3.0, every_s=0.05) if before else SHORT
    code, lines = walked(world, *before, name.split(" ")[0], pace=pace)

    failed = {each: line for each, line in lines.items() if line.startswith("fail")}
    line = next(line for each, line in failed.items() if each.startswith(name))
    assert words in line
    assert code == 1
    assert "clean-up" not in lines or name == "delete"  # which loses the removals


def test_every_line_has_a_wrong_answer() -> None:
    assert {name for name, *_ in WRONG if " " not in name} - {"alarm"} == {n.name for n in LINES}


def test_what_aws_refuses_is_its_own_words(world: StandIn) -> None:
    def refused(**_: Any) -> None:
        client = boto3.client("lambda", **KEYS)
        error = {"Code": "AccessDeniedException", "Message": "not authorized"}
        raise client.exceptions.ClientError({"Error": error}, "PublishVersion")

    world.wrong["lambda", "publish_version"] = refused
    code, lines = walked(world, "version-mapping", pace=SHORT)

    assert code == 1
    assert lines["version-mapping"].startswith("fail ClientError")
    assert "AccessDeniedException" in lines["version-mapping"]


# --- right answers that the stand-in does not give by itself ----------------------------------


@pytest.mark.parametrize(
    ("name", "before", "sabotage"),
    [
        ("acl", (), users(f"{ACCESS} +asking")),
        ("acl", (), users(f"{ACCESS.upper()}")),
        ("acl", (), both(settings(ASYNCSYNC_VALUE="hash"), users(f"{ACCESS} {HASHES}"))),
        ("state-machine", (), machine("SUCCEEDED")),
        ("emf", (), both(settings(ASYNCSYNC_METRICS="summary"), no_metrics(3.0))),
        (
            "environment-key",
            (),
            changed("lambda", "get_function_configuration", KMSKeyArn="arn:key/a"),
        ),
        (
            "run-id",
            ("check",),
            both(
                settings(ASYNCSYNC_REDIS_URL="rediss://u@c-1.serverless.use1.cache.amazonaws.com"),
                check_of(run_id=("ok", "the cache says it")),
            ),
        ),
        (
            "cluster-slots",
            ("check",),
            both(
                settings(ASYNCSYNC_REDIS_CLUSTER="true"),
                check_of(cluster=("ok", "yes, as set"), ASKING=("ok", "permitted")),
            ),
        ),
    ],
)
def test_a_right_answer_is_ok(
    world: StandIn, name: str, before: tuple[str, ...], sabotage: Sabotage
) -> None:
    sabotage(world)
    code, lines = walked(world, *before, name)

    assert (code, lines[name].split()[0]) == (0, "ok")


@pytest.mark.parametrize("metrics", ["trouble", "off"])
def test_without_metrics_there_is_nothing_to_see(world: StandIn, metrics: str) -> None:
    settings(ASYNCSYNC_METRICS=metrics)(world)
    code, lines = walked(world, "emf", "raw-event")

    assert {line.split()[0] for line in lines.values()} == {"skip"}
    assert code == 0


def test_a_user_that_may_not_is_refused(
    world: StandIn,
    real_server: ServerProcess,
    real_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    users(ACCESS)(world)
    set_user(real_client, "copy", ["on", "~Players:*", "~{Players:*}!f", "+@all"])
    url = f"redis://copy:any@{real_server.host}:{real_server.port}"
    monkeypatch.setenv("ASYNCSYNC_REDIS_URL", url)
    code, lines = walked(world, "acl-refusal")

    assert (code, lines["acl-refusal"]) == (0, "ok NOPERM")


# --- cleaning up ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("service", "method", "calls"),
    [
        ("dynamodb", "batch_write_item", 1),
        ("dynamodb", "batch_write_item", 20),
        ("lambda", "invoke", 3),
        ("lambda", "publish_version", 1),
        ("s3", "get_paginator", 2),
        ("s3", "get_object", 1),
        ("cloudwatch", "get_metric_data", 1),
    ],
)
def test_ctrl_c_cleans_up(world: StandIn, service: str, method: str, calls: int) -> None:
    right = getattr(world.client(service), method)
    seen = 0

    def interrupted(*args: Any, **query: Any) -> Any:
        nonlocal seen
        seen += 1
        answer = right(*args, **query)
        if seen == calls:
            raise KeyboardInterrupt
        return answer

    world.wrong[service, method] = interrupted
    code, lines = walked(world)

    assert code == 130
    assert seen >= calls
    assert "clean-up" not in lines
    assert leftovers(world) == []


def test_a_version_that_was_there_stays(world: StandIn) -> None:
    there = world.client("lambda").publish_version(FunctionName=MIRROR)["Version"]
    world.wrong["lambda", "publish_version"] = lambda **_: {"Version": there}  # as AWS does
    code, _ = walked(world, "version-mapping")

    assert code == 0
    assert leftovers(world) == [there]


def test_what_cannot_be_cleaned_up_is_named(world: StandIn) -> None:
    writes(lambda each: "PutRequest" in each)(world)
    right = world.wrong["dynamodb", "batch_write_item"]

    def write(RequestItems: dict[str, Any]) -> Any:  # noqa: N803
        if "DeleteRequest" in RequestItems["Players"][0]:
            raise RuntimeError("no rights")
        return right(RequestItems=RequestItems)

    world.wrong["dynamodb", "batch_write_item"] = write
    code, lines = walked(world, "put")

    assert (code, lines["put"].split()[0]) == (1, "ok")
    assert lines["clean-up"] == "fail 1 items: no rights"


# --- beginning --------------------------------------------------------------------------------


def test_wrong_arguments_are_2_and_what_cannot_run_is_3(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], moto_server: str
) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_ACCESS_KEY_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "absent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "absent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    assert main([]) == 2
    assert main([""]) == 2
    assert main(["stack", "--only", "puts"]) == 2
    assert "there is no line puts" in capsys.readouterr().err
    assert main(["stack"]) == 3
    assert "no AWS Region is set" in capsys.readouterr().err
    assert main(["stack", "--region", "us-east-1"]) == 3
    assert "no AWS credentials" in capsys.readouterr().err
    assert main(["stack", "--profile", "nobody"]) == 3

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "any")
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_server)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    capsys.readouterr()
    assert main(["absent", "--region", "us-east-1"]) == 3
    assert "stack absent" in capsys.readouterr().err


def test_the_stack_has_what_the_smoke_test_reads(translated: Any) -> None:
    source = "".join(
        (ROOT / "scripts" / name).read_text() for name in ("smoke_stack.py", "smoke_lines.py")
    )
    resolver = Resolver(translated, {}, known=True)
    outputs = {*translated["Outputs"]}
    assert {*re.findall(r'outputs(?:\[|\.get\()"(\w+)"', source)} <= outputs
    assert {"TableName", "MirrorFunction", "MappingId", "OperationsFunction"} <= outputs
    resources = resolver.resources()
    assert {"MirrorUser", "OperationsUser"} <= {*resources}
    kinds = {each["Type"] for each in resources.values()}
    assert {"AWS::ElastiCache::User", "AWS::CloudWatch::Alarm"} <= kinds
    for name in ("BatchSize", "BatchWindowSeconds", "MaximumRetryAttempts"):
        assert name in translated["Parameters"]


# --- the documents ----------------------------------------------------------------------------


def test_every_live_mark_names_its_line() -> None:
    names = {line.name for line in LINES}
    marks = 0
    for path in (ROOT / "template.yaml", ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        text = re.sub(r"\n[\s#]*", " ", path.read_text(encoding="utf-8"))  # a mark may be wrapped
        # The mark itself, and what is said to be untried; not where the mark is explained.
        untried = r"(?<![\"`])live\?|not (?:yet )?run on AWS\b|tried against AWS"
        for match in re.finditer(untried, text):
            marks += 1
            mark = re.match(r"\W+smoke: ([\w-]+)", text[match.end() :])
            assert mark is not None, f"{path.name}: {text[match.start() - 80 : match.end() + 40]}"
            assert mark[1] in names, f"{path.name}: {mark[1]}"
    assert marks >= 12


def test_the_page_lists_every_line() -> None:
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    section = page.split("## Settle it on your account")[1].split("\n## ")[0]
    rows = dict(re.findall(r"^\| `([\w-]+)` \| (.+) \|$", section, re.M))

    assert rows == {**{line.name: line.settles for line in LINES}, "alarm": rows["alarm"]}
    assert script.__name__ == "scripts.smoke"
