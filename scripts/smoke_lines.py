"""The lines of the smoke test: each settles one thing that no machine without AWS can show.

A line returns what it saw, or raises Unexpected with what AWS said instead. None can only
succeed: tests/deploy/test_smoke.py gives each a wrong answer.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from scripts.smoke_stack import MARK, NotDeployed, Stack, Unexpected

# Numbers of the smoke test's items: one that changes, the poison, and a batch.
ONE, POISON, BATCH = 1, 2, range(1_000, 2_000)

# Of a batch as many keys are looked at, one by one, as take a minute or so.
LOOKED_AT = 20

# AWS has no data of these until it happens, which in a right stack it does not.
SILENT = (
    "DroppedEventCount",
    "DestinationDeliveryFailures",
    "IamAuthenticationThrottling",
    "ThrottledCmds",
    "AuditDifferences",  # until the first daily audit
    "Rejected",  # a count of zero is left out
)

_DELIVERED, _MAPPING = "OnFailureDestinationDeliveredEventCount", "EventSourceMappingUUID"

# A backfill of more items than this is no test any more.
_MACHINE_ITEMS_MAX = 100_000


@dataclass(frozen=True, slots=True)
class Line:
    """One line: its name, and what it settles, as docs/operations.md lists them."""

    name: str
    settles: str
    run: Callable[[Stack], str]


# --- the stack --------------------------------------------------------------------------------


def stack(at: Stack) -> str:
    """A stack that is complete."""
    if at.status not in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
        raise Unexpected(f"it is {at.status}")
    bad = [e["LogicalResourceId"] for e in at.resources if "FAILED" in e["ResourceStatus"]]
    if bad:
        raise Unexpected(f"{', '.join(bad)} failed")
    return f"{at.status}, {len(at.resources)} resources"


def mapping(at: Stack) -> str:
    """The mapping is what was deployed, and reads."""
    want: dict[str, Any] = {"State": "Enabled", "StartingPosition": "TRIM_HORIZON"}
    for parameter, name in (
        ("BatchSize", "BatchSize"),
        ("BatchWindowSeconds", "MaximumBatchingWindowInSeconds"),
        ("MaximumRetryAttempts", "MaximumRetryAttempts"),
        ("MaximumRecordAgeSeconds", "MaximumRecordAgeInSeconds"),
    ):
        if parameter in at.parameters:
            want[name] = int(at.parameters[parameter])
    wrong = [
        f"{n} is {at.mapping.get(n)}, not {v}" for n, v in want.items() if at.mapping.get(n) != v
    ]
    result = at.mapping.get("LastProcessingResult", "")
    if str(result).upper().startswith("PROBLEM"):
        wrong.append(f"last result: {result}")
    if at.mapping.get("EventSourceArn") != at.table.get("LatestStreamArn"):
        wrong.append(f"it reads {at.mapping.get('EventSourceArn')}")
    if wrong:
        raise Unexpected("; ".join(wrong))
    window = at.mapping.get("MaximumBatchingWindowInSeconds")
    return (
        f"{at.mapping['BatchSize']} records per batch, window {window} s, {result or 'no result'}"
    )


def environment_key(at: Stack) -> str:
    """The function decrypts its environment with a key of yours."""
    if not at.function.get("KMSKeyArn"):
        raise NotDeployed("no KmsKeyArn")
    error = at.function.get("Environment", {}).get("Error")
    if error:
        raise Unexpected(f"{error.get('ErrorCode')}: {error.get('Message')}")
    return str(at.function["KMSKeyArn"]).rsplit("/", 1)[-1]


# --- changes ----------------------------------------------------------------------------------


def _sequence_number(contents: Mapping[str, Any]) -> int:
    return int(contents.get("sequence_number") or 0)


def put(at: Stack) -> str:
    """A new item reaches the copy."""
    at.put([ONE], "put")
    return _arrived(at, "put", 0)


def update(at: Stack) -> str:
    """A change reaches the copy."""
    before = _sequence_number(at.look(ONE))
    at.client("dynamodb").update_item(
        TableName=at.table_name,
        Key=at.key(ONE),
        UpdateExpression="SET #m = :w",
        ExpressionAttributeNames={"#m": MARK},
        ExpressionAttributeValues={":w": {"S": "update"}},
    )
    at.writes += 1
    return _arrived(at, "update", before)


def delete(at: Stack) -> str:
    """A deletion reaches the copy, and leaves its fence."""
    before = _sequence_number(at.look(ONE))
    at.remove([ONE])
    at.writes += 1

    def gone() -> str | None:
        contents = at.look(ONE)
        is_gone = contents["value"] is None and _sequence_number(contents) > before
        return f"no value, fence at {contents['sequence_number']}" if is_gone else None

    return at.until(gone, f"the copy still holds {at.redis_key(ONE)}, or its fence did not move")


def _arrived(at: Stack, word: str, before: int) -> str:
    """Wait until the copy shows a change: its fence in every mode, its value in mirror."""
    last: dict[str, Any] = {}

    def arrived() -> str | None:
        last.update(at.look(ONE))
        is_written = at.config.mode != "mirror" or f'"{word}"' in str(last["value"])
        if is_written and _sequence_number(last) > before:
            return f"{last['bytes'] or 0} bytes, sequence number {last['sequence_number']}"
        return None

    try:
        return at.until(arrived, "not in the copy")
    except Unexpected as exc:
        raise Unexpected(f"{exc}: value {last.get('value')}, fence {last.get('fence')}") from exc


def batch(at: Stack) -> str:
    """A thousand changes at once reach the copy."""
    at.put(BATCH, "batch")
    looked_at = [*BATCH][:: len(BATCH) // LOOKED_AT]

    def missing() -> str | None:
        while looked_at:
            contents = at.look(looked_at[-1])
            is_written = at.config.mode != "mirror" or '"batch"' in str(contents["value"])
            if not (is_written and contents["sequence_number"]):
                return None
            looked_at.pop()
        return f"{len(BATCH):,} written, {LOOKED_AT} of them looked at"

    return at.until(missing, "some are not in the copy")


# --- the cache --------------------------------------------------------------------------------


def check(at: Stack) -> str:
    """asyncsync check finds nothing wrong inside the network."""
    code, document = at.operate_json("check")
    at.check = {each["subject"]: each for each in document["verdicts"]}
    wrong = [
        f"{v['subject']}: {v['message']}"
        for v in document["verdicts"]
        if v["state"] not in ("ok", "note")
    ]
    if code or wrong or "write" not in at.check:
        raise Unexpected("; ".join(wrong) or f"exit code {code}, and no write")
    return f"{len(at.check)} lines, nothing to fix"


def _verdict(at: Stack, subject: str) -> dict[str, str]:
    if not at.check:
        raise Unexpected("check did not answer")
    if subject not in at.check:
        raise Unexpected(f"check has no line {subject}")
    return at.check[subject]


# By format, what its users need beyond strings' commands to write, and to read.
_WRITE_AND_READ = {
    "hash": (["+hset", "+hlen", "+persist", "+pexpireat"], "+hgetall"),
    "redis-json": (["+json.set", "+persist", "+pexpireat"], "+json.get"),
}


def acl(at: Stack) -> str:
    """ElastiCache keeps the users' access strings as the template says them."""
    users = at.of_type("AWS::ElastiCache::User")
    if not users:
        raise NotDeployed("the cache is yours")
    cluster = ["+cluster|slots", "+asking"] if at.config.redis_cluster else []
    write, read = _WRITE_AND_READ.get(at.config.value, ([], "+get"))
    strings = ["+evalsha", "+eval", "+mget", "+set", "+del", *cluster]
    need = {"MirrorUser": strings if at.config.mode == "invalidate" else [*strings, *write]}
    need["OperationsUser"] = [*strings, *write, "+scan", "+info", "+get", read]
    for logical, user in users.items():
        (described,) = at.client("elasticache").describe_users(UserId=user)["Users"]
        words = described["AccessString"].lower().split()
        lacks = [word for word in need.get(logical, [read]) if word not in words]
        if described["Status"] != "active":
            raise Unexpected(f"{user} is {described['Status']}")
        if lacks or "+@all" in words or "~*" in words or "allkeys" in words:
            raise Unexpected(f"{user}: {described['AccessString']}")
    return f"{', '.join(sorted(users))} as deployed"


def acl_refusal(at: Stack) -> str:
    """A key outside of the prefix is refused."""
    if not at.of_type("AWS::ElastiCache::User"):
        raise NotDeployed("the cache is yours")
    try:
        code, lines = at.operate("get", f"outside-{MARK}-{at.nonce}")
    except Unexpected as exc:
        if "NOPERM" in str(exc):
            return "NOPERM"
        raise
    raise Unexpected(f"a key outside of the prefix was read, exit code {code}: {lines}")


def cluster_slots(at: Stack) -> str:
    """CLUSTER SLOTS and ASKING are permitted to the users, and answered."""
    if not at.config.redis_cluster:
        raise NotDeployed("no cluster")
    wrong = [v["message"] for v in at.check.values() if "CLUSTER SLOTS" in v["message"]]
    for subject in ("cluster", "ASKING"):
        verdict = _verdict(at, subject)
        if verdict["state"] != "ok":
            wrong.append(f"{subject}: {verdict['message']}")
    if wrong:
        raise Unexpected("; ".join(wrong))
    return _verdict(at, "cluster")["message"]


def run_id(at: Stack) -> str:
    """A serverless cache says its run_id, so an audit resumes its scan of names."""
    if "serverless" not in at.config.server.host:
        raise NotDeployed("no serverless cache")
    verdict = _verdict(at, "run id")
    if verdict["state"] != "ok":
        raise Unexpected(verdict["message"])
    return verdict["message"]


def audit(at: Stack) -> str:
    """An audit inside the network finds no difference in a sample."""
    code, summary = at.operate_json("audit", "--sample", "1000")
    found = sum(summary.get(name) or 0 for name in ("missing", "stale", "orphans"))
    compared = summary.get("compared") or 0
    if code or found or (at.config.mode != "invalidate" and not compared):
        names = ("compared", "missing", "stale", "orphans", "not_compared")
        raise Unexpected(", ".join(f"{name} {summary.get(name)}" for name in names))
    return f"{compared:,} keys compared, no difference"


# --- what was given up on ---------------------------------------------------------------------


def one_mapping(at: Stack) -> str:
    """A function has one mapping of a stream."""
    functions = at.client("lambda")
    try:
        second = functions.create_event_source_mapping(
            FunctionName=at.mirror,
            EventSourceArn=at.mapping["EventSourceArn"],
            StartingPosition="TRIM_HORIZON",
            Enabled=False,
        )
    except functions.exceptions.ResourceConflictException as exc:
        return f"a second is refused: {exc.response['Error']['Code']}"
    at.mappings.append(second["UUID"])
    raise Unexpected("a second mapping of the stream was made")


def version_mapping(at: Stack) -> str:
    """A version of the function has a mapping of its own."""
    functions = at.client("lambda")
    # AWS answers with the latest version where that is the same: it keeps its own description.
    at.is_published = True
    published = functions.publish_version(FunctionName=at.mirror, Description=at.words)
    version = published["Version"]
    keys = {name: {kind: [value]} for name, kind, value in _key_parts(at)}
    made = functions.create_event_source_mapping(
        FunctionName=f"{at.mirror}:{version}",
        EventSourceArn=at.mapping["EventSourceArn"],
        StartingPosition="LATEST",
        BatchSize=10,
        # The handler raises for an event of a window: no other way makes a record fail.
        TumblingWindowInSeconds=1,
        MaximumRetryAttempts=0,
        FunctionResponseTypes=["ReportBatchItemFailures"],
        MetricsConfig={"Metrics": ["EventCount"]},
        FilterCriteria={"Filters": [{"Pattern": json.dumps({"dynamodb": {"Keys": keys}})}]},
        DestinationConfig=at.mapping.get("DestinationConfig", {}),
    )
    at.poison = made["UUID"]
    at.mappings.append(at.poison)

    def enabled() -> str | None:
        state = functions.get_event_source_mapping(UUID=at.poison)["State"]
        return f"version {version}, mapping {at.poison}" if state == "Enabled" else None

    return at.until(enabled, "the mapping is not enabled")


def _key_parts(at: Stack) -> Iterator[tuple[str, str, Any]]:
    for name, value in at.key(POISON).items():
        ((kind, plain),) = value.items()
        yield name, kind, base64.b64encode(plain).decode() if kind == "B" else plain


def poison(at: Stack) -> str:
    """A record that fails for good is delivered to the bucket."""
    if not at.poison:
        raise Unexpected("there is no mapping for it: see version-mapping")
    changes = 0

    def delivered() -> list[str] | None:
        nonlocal changes
        changes += 1
        at.put([POISON], f"poison {changes}")  # the mapping begins at some moment from now on
        return at.objects(f"aws/lambda/{at.poison}/") or None

    names = at.until(delivered, f"nothing below aws/lambda/{at.poison}/")
    return f"{len(names)} objects, the first {names[0]}"


def payload(at: Stack) -> str:
    """What Lambda writes there is what redrive reads."""
    names = at.objects(f"aws/lambda/{at.poison}/") if at.poison else []
    if not names:
        raise Unexpected("there is no object: see poison")
    body = at.client("s3").get_object(Bucket=at.bucket, Key=names[0])["Body"].read()
    document = json.loads(body)
    event = document.get("payload")
    form = "a string" if isinstance(event, str) else f"a {type(event).__name__}"
    event = json.loads(event) if isinstance(event, str) else event
    if not isinstance(event, dict) or not event.get("Records"):
        raise Unexpected(f"payload is {form}, without Records; the object has {sorted(document)}")
    info = document.get("DDBStreamBatchInfo", {})
    if info.get("streamArn") != at.mapping["EventSourceArn"]:
        raise Unexpected(f"DDBStreamBatchInfo is {info}")
    keys = [each["dynamodb"]["Keys"] for each in event["Records"]]
    own = {name: {kind: value} for name, kind, value in _key_parts(at)}
    others = [each for each in keys if each != own]
    if others:
        raise Unexpected(f"{len(others)} of {len(keys)} records passed the filter with a window")
    condition = document.get("requestContext", {}).get("condition")
    return f"payload is {form}, condition {condition}, {len(keys)} records"


def redrive(at: Stack) -> str:
    """A redrive inside the network brings the keys up to date and moves the objects."""
    if not at.poison:
        raise Unexpected("there is no object: see poison")
    at.delete_mapping(at.poison)  # no object may come after the last
    prefix = f"aws/lambda/{at.poison}/"
    code, summary = at.operate_json("redrive", f"s3://{at.bucket}/{prefix}")
    stays, moved = at.objects(prefix), at.objects(f"redriven/{prefix}")
    if code or not summary.get("redriven") or not moved:
        counts = ", ".join(f"{name} {value}" for name, value in summary.items())
        raise Unexpected(f"exit code {code}, {counts}; {len(stays)} objects stay")
    contents = at.look(POISON)
    if at.config.mode == "mirror" and '"poison ' not in str(contents["value"]):
        raise Unexpected(f"the copy has {contents['value']}")
    past = summary.get("keys_past", 0)
    return f"{len(moved)} objects moved, {past} keys were already newer"


def state_machine(at: Stack) -> str:
    """The state machine runs."""
    machine = at.outputs.get("OperationsMachine")
    if machine is None:
        raise NotDeployed("OperationsMap is false")
    if at.table.get("ItemCount", 0) > _MACHINE_ITEMS_MAX:
        raise NotDeployed(f"the table has {at.table['ItemCount']:,} items: start it yourself")
    client = at.client("stepfunctions")
    started = client.start_execution(
        stateMachineArn=machine, input='{"args": ["backfill"], "segments": 2}'
    )

    def ended() -> Mapping[str, Any] | None:
        execution: Mapping[str, Any] = client.describe_execution(
            executionArn=started["executionArn"]
        )
        return None if execution["status"] == "RUNNING" else execution

    execution = at.until(ended, "it still runs")
    if execution["status"] != "SUCCEEDED":
        cause = f"{execution.get('error')}: {execution.get('cause')}"
        raise Unexpected(f"{execution['status']}: {cause}")
    return str(execution["status"])


# --- metrics ----------------------------------------------------------------------------------


def emf(at: Stack) -> str:
    """CloudWatch makes metrics of the function's lines."""
    _require_metrics(at)
    # In summary a sandbox writes at its first invocation after a minute, so there must be one,
    # and one that is never invoked again says nothing of its last minute.
    wanted = 1 if at.config.metrics == "summary" else at.writes

    def counted() -> str | None:
        if at.config.metrics == "summary":
            at.put([ONE], f"line {at.writes}")
        records = sum(at.data(at.own_metric("Records"), "Sum"))
        return f"{records:,.0f} records counted" if records >= wanted else None

    return at.until(counted, f"asyncsync's Records of {at.table_name} are under {wanted:,}")


def raw_event(at: Stack) -> str:
    """The runtime hands the event over as bytes."""
    _require_metrics(at)
    values = at.until(
        lambda: at.data(at.own_metric("RawEvent"), "Maximum") or None,
        "no metric RawEvent: the runtime parses events before the handler does",
    )
    if max(values) < 1:
        raise Unexpected("RawEvent is 0: the runtime parsed the event before the handler")
    return "RawEvent is 1 or more"


def _require_metrics(at: Stack) -> None:
    if at.config.metrics in ("trouble", "off"):
        raise NotDeployed(f"ASYNCSYNC_METRICS is {at.config.metrics}")


def alarms(at: Stack) -> list[Line]:
    """Return a line for each alarm: its metric is there, with its dimensions."""
    found = sorted(at.of_type("AWS::CloudWatch::Alarm").items())
    if not found:
        return [Line("alarm", "", _no_alarm)]
    return [Line(f"alarm {logical}", "", partial(_alarm, name=name)) for logical, name in found]


def _no_alarm(_: Stack) -> str:
    raise Unexpected("the stack has no alarm")


def _alarm(at: Stack, name: str) -> str:
    answer = at.client("cloudwatch").describe_alarms(AlarmNames=[name])["MetricAlarms"]
    if not answer:
        raise Unexpected("there is no such alarm")
    (alarm,) = answer
    stats = [
        (each["MetricStat"]["Metric"], each["MetricStat"]["Stat"])
        for each in alarm.get("Metrics", [])
        if "MetricStat" in each
    ]
    if "MetricName" in alarm:
        metric = {n: alarm[n] for n in ("Namespace", "MetricName", "Dimensions")}
        stats = [(metric, alarm.get("Statistic") or alarm.get("ExtendedStatistic", "Sum"))]
    if not stats:
        raise Unexpected("it looks at no metric")
    shown = [_has_data(at, metric, statistic) for metric, statistic in stats]
    return f"{', '.join(shown)}; it is {alarm['StateValue']}"


def _has_data(at: Stack, metric: Mapping[str, Any], statistic: str) -> str:
    name = f"{metric['Namespace']} {metric['MetricName']}"
    if metric["MetricName"] == _DELIVERED and at.poison:  # it was this mapping that gave up
        metric = {**metric, "Dimensions": [{"Name": _MAPPING, "Value": at.poison}]}
    if metric["MetricName"] in SILENT and not at.data(metric, statistic):
        _require_no_other(at, metric)
        return f"{name} has no data, as it should"
    try:
        at.until(lambda: at.data(metric, statistic) or None, f"no data of {name}")
    except Unexpected:
        _require_no_other(at, metric)
        raise
    return name


def _require_no_other(at: Stack, metric: Mapping[str, Any]) -> None:
    """Raise Unexpected where AWS has the metric under other dimensions."""
    names = {each["Name"] for each in metric["Dimensions"]}
    listed = at.client("cloudwatch").list_metrics(
        Namespace=metric["Namespace"], MetricName=metric["MetricName"]
    )["Metrics"]
    others = {tuple(sorted(d["Name"] for d in each["Dimensions"])) for each in listed}
    others -= {tuple(sorted(names))}
    same = [each for each in listed if {d["Name"] for d in each["Dimensions"]} == names]
    if others and not same:
        raise Unexpected(
            f"no data of {metric['MetricName']} by {', '.join(sorted(names))}; AWS has it by "
            f"{' or '.join(', '.join(each) or 'nothing' for each in sorted(others))}"
        )


# --- all of them, in order --------------------------------------------------------------------

LINES = (
    Line("stack", "that CloudFormation makes every resource", stack),
    Line("mapping", "that a batch over 10 needs no window; that the role's rights do", mapping),
    Line("environment-key", "that the role's `kms:Decrypt` is enough", environment_key),
    Line("put", "the whole way: stream, function, network, IAM sign-in, script", put),
    Line("update", "the same for a change", update),
    Line("delete", "the same for a deletion, and the fence it leaves", delete),
    Line("batch", "a thousand changes at once", batch),
    Line("check", "`asyncsync check` inside the network", check),
    Line(
        "acl", "that ElastiCache keeps the access strings, `cluster|slots` and `json.set` too", acl
    ),
    Line("acl-refusal", "that a key outside of the prefix is refused", acl_refusal),
    Line("cluster-slots", "that a cluster answers CLUSTER SLOTS and ASKING", cluster_slots),
    Line("run-id", "that serverless gives its run_id", run_id),
    Line("audit", "an audit inside the network", audit),
    Line("one-mapping", "that a function has one mapping of a stream", one_mapping),
    Line("version-mapping", "that a version has one of its own", version_mapping),
    Line("poison", "that a failed record gets into the bucket, with the role's rights", poison),
    Line("payload", "the object's form", payload),
    Line("redrive", "the way back", redrive),
    Line("state-machine", "the state machine, its SDK calls and their rights", state_machine),
    Line("emf", "that CloudWatch makes metrics of the lines", emf),
    Line("raw-event", "that the runtime hands over bytes", raw_event),
)
