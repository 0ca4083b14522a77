"""asyncsync check, AWS's side: a table with its stream, a function with its mapping.

What is read is judged by pure functions; a mapping that is set otherwise than the template sets
it loses records in a way that this names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from asyncsync.aws.clients import AwsClients, aws_errors
from asyncsync.aws.tables import Table
from asyncsync.config import PREFIX, Config
from asyncsync.errors import ConfigError
from asyncsync.keys import bind, parse_template
from asyncsync.limits import FENCE_TTL_S_MIN
from asyncsync.tools.check.verdict import Verdict

# Two readers a shard are let through, one on a global table (Lambda developer guide, "Using AWS
# Lambda with DynamoDB").
READERS_MAX = 2

_IMAGES = ("NEW_IMAGE", "NEW_AND_OLD_IMAGES")


@dataclass(frozen=True, slots=True)
class Function:
    """A function's settings and the mappings that matter to it, as Lambda's API has them."""

    name: str
    settings: Mapping[str, str]  # its ASYNCSYNC_ variables
    mappings: Sequence[Mapping[str, Any]]  # that call it
    others: Sequence[Mapping[str, Any]]  # on the same streams, calling something else


async def read_function(clients: AwsClients, name: str) -> Function:
    """Read a function and its mappings.

    Raises AwsFailed where Lambda cannot be used.
    """
    async with clients.open("lambda") as client:
        with aws_errors(f"reading function {name} and its mappings", "Lambda"):
            found = await client.get_function_configuration(FunctionName=name)
            mine = await _mappings(client, FunctionName=name)
            streams = {each.get("EventSourceArn", "") for each in mine}
            arns = {each["UUID"] for each in mine}
            others = [
                each
                for stream in sorted(streams)
                for each in await _mappings(client, EventSourceArn=stream)
                if each["UUID"] not in arns
            ]
    variables = found.get("Environment", {}).get("Variables", {})
    settings = {key: text for key, text in variables.items() if key.startswith(PREFIX)}
    return Function(name, settings, [m for m in mine if _is_stream(m)], others)


async def _mappings(client: Any, **of: str) -> list[Mapping[str, Any]]:
    pages = client.get_paginator("list_event_source_mappings").paginate(**of)
    return [each async for page in pages for each in page["EventSourceMappings"]]


def _is_stream(mapping: Mapping[str, Any]) -> bool:
    return ":dynamodb:" in mapping.get("EventSourceArn", "")


def settings_of(function: Function) -> tuple[Config | None, Verdict]:
    """Read the function's settings as its cold start would."""
    try:
        return Config.from_env(function.settings), Verdict(
            "ok", "settings", f"{function.name} starts with them"
        )
    except ConfigError as exc:
        return None, Verdict("fix", "settings", str(exc))


# --- the table --------------------------------------------------------------------------------


def check_table(table: Table, config: Config) -> list[Verdict]:
    """Judge a table: its stream, what is in it, and whether the template names its items."""
    verdicts = [Verdict("ok", "table", f"{table.name} is there")]
    if table.stream_arn is None:
        verdicts.append(Verdict("fix", "stream", "off: enable it with view type NEW_IMAGE"))
    else:
        verdicts += [Verdict("ok", "stream", "on"), _view(table.view_type or "", config)]
    try:
        bind(parse_template(config.key), table.name, tuple(sorted(table.keys)))
    except ConfigError as exc:
        return [*verdicts, Verdict("fix", "key", str(exc))]
    return [*verdicts, Verdict("ok", "key", f"{config.key} uses {', '.join(sorted(table.keys))}")]


def _view(view_type: str, config: Config) -> Verdict:
    if view_type == "NEW_IMAGE" or (config.mode == "invalidate" and view_type not in _IMAGES):
        return Verdict("ok", "view type", view_type)
    if view_type in _IMAGES or config.mode == "invalidate":
        return Verdict("note", "view type", f"{view_type}: more than {config.mode} needs")
    return Verdict(
        "fix",
        "view type",
        f"{view_type} has no new images: make the stream anew with NEW_IMAGE, or set "
        f"{PREFIX}MODE=invalidate",
    )


# --- the mapping ------------------------------------------------------------------------------


def check_mappings(function: Function, stream_arn: str | None, config: Config) -> list[Verdict]:
    """Judge the function's mapping on a stream, or on the one that it has."""
    on_it = [m for m in function.mappings if stream_arn in (None, m["EventSourceArn"])]
    if len(on_it) != 1:
        count = len(on_it) or "no"
        of = stream_arn or "a stream"
        return [Verdict("fix", "mapping", f"{function.name} has {count} mappings on {of}, not 1")]
    (mapping,) = on_it
    verdicts = check_mapping(mapping, config)
    readers = [m for m in function.others if m["EventSourceArn"] == mapping["EventSourceArn"]]
    if not readers:
        return [*verdicts, Verdict("ok", "readers", "no second mapping on the stream")]
    named = ", ".join(m.get("FunctionArn", "?").split(":function:")[-1] for m in readers)
    state = _second(function.name, readers)
    says = f"also mapped to {named}: {READERS_MAX} readers a shard at most, and one copy"
    return [*verdicts, Verdict(state, "readers", says)]


def _second(name: str, readers: Sequence[Mapping[str, Any]]) -> Any:
    """A second mapping to the function itself, by an alias, writes the copy twice."""
    base = name.split(":function:")[-1].split(":")[0]
    names = {m.get("FunctionArn", "").split(":function:")[-1].split(":")[0] for m in readers}
    return "fix" if base in names or len(readers) >= READERS_MAX else "note"


def check_mapping(mapping: Mapping[str, Any], config: Config) -> list[Verdict]:
    """Judge one mapping, as GetEventSourceMapping describes it."""
    attempts = mapping.get("MaximumRetryAttempts", -1)
    age_s = mapping.get("MaximumRecordAgeInSeconds", -1)
    answers = "ReportBatchItemFailures" in mapping.get("FunctionResponseTypes", [])
    start = mapping.get("StartingPosition", "TRIM_HORIZON")
    destination = mapping.get("DestinationConfig", {}).get("OnFailure", {}).get("Destination", "")
    return [
        _judge(
            "mapping",
            mapping.get("State") == "Enabled",
            f"enabled, {mapping.get('BatchSize')} records a batch",
            f"is {mapping.get('State')}: {mapping.get('StateTransitionReason', 'enable it')}",
        ),
        _judge(
            "answers",
            answers or config.on_failure == "raise",
            "are read" if answers else "a failure fails the invocation",
            "are ignored, and failed writes lost: set ReportBatchItemFailures",
        ),
        _judge(
            "bisect",
            mapping.get("BisectBatchOnFunctionError") is True,
            "on",
            "off: a bad record holds up its whole batch; set BisectBatchOnFunctionError",
        ),
        _judge(
            "attempts",
            attempts >= 0,
            f"{attempts} at most",
            "without end: a bad record stops its shard for a day; the template has 200",
        ),
        _judge(
            "record age",
            0 <= age_s < FENCE_TTL_S_MIN,
            f"{age_s} s at most",
            f"not under {FENCE_TTL_S_MIN} s: records end unseen; the template has 82800",
        ),
        _judge(
            "given up",
            destination.split(":")[2:3] == ["s3"],
            f"goes to {destination}",
            f"goes to {destination or 'nowhere'}, which keeps no records: name an S3 bucket",
        ),
        Verdict("ok", "start", start)
        if start == "TRIM_HORIZON"
        else Verdict("note", "start", f"{start} may have missed what was written meanwhile"),
    ]


def _judge(subject: str, right: bool, says: str, remedy: str) -> Verdict:
    return Verdict("ok", subject, says) if right else Verdict("fix", subject, remedy)
