"""asyncsync check, AWS's side: a table with its stream, a function with its mapping, a cache.

Pure functions check what was read. A mapping that differs from the template's may lose records;
the verdict says how.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from asyncsync.aws.caches import ManagedCache
from asyncsync.aws.functions import DeployedFunction
from asyncsync.aws.tables import Table, parse_table_arn
from asyncsync.config import PREFIX, Config
from asyncsync.errors import ConfigError
from asyncsync.keys import bind, parse_template
from asyncsync.mapping.requirements import function_name, statements_of
from asyncsync.tools.check.verdict import Severity, Verdict, unknown
from asyncsync.tools.output import plural

# A shard serves two readers, one on a global table (Lambda developer guide, "Using AWS Lambda
# with DynamoDB").
READERS_MAX = 2

_IMAGES = ("NEW_IMAGE", "NEW_AND_OLD_IMAGES")

_RESULT_CHARACTERS = 300

# What makes two functions write the same keys and values.
_SAME_COPY = (
    "redis_cluster",
    "key",
    "value",
    "mode",
    "fence",
    "fence_ttl_s",
    "ttl_s",
    "ttl_attribute",
)


def check_settings(function: DeployedFunction) -> tuple[Config | None, Verdict]:
    """Read the function's settings as its cold start does."""
    try:
        config = Config.from_env(function.settings)
    except ConfigError as exc:
        return None, Verdict("fix", "settings", str(exc))
    return config, Verdict("ok", "settings", f"{function.name} can start with them")


def check_same_copy(config: Config, own: Config) -> Verdict:
    """Check that another function's settings name the same copy as the mirror's."""
    wrong = [
        f"{PREFIX}{name.upper()} is {getattr(own, name)!r} here, {getattr(config, name)!r} there"
        for name in _SAME_COPY
        if getattr(own, name) != getattr(config, name)
    ]
    if own.server.address != config.server.address:
        wrong.append(f"the server is {own.server.address} here, {config.server.address} there")
    if wrong:
        return Verdict("fix", "same copy", f"{'; '.join(wrong)}: deploy both with one template")
    return Verdict("ok", "same copy", "the settings are those of the function that writes it")


# --- the table --------------------------------------------------------------------------------


def check_table(table: Table, config: Config) -> list[Verdict]:
    """Check a table: its stream, the stream's view type, and the key template."""
    verdicts = [Verdict("ok", "table", f"{table.arn} exists")]
    if table.stream_arn is None:
        command = _stream_command(table, "StreamEnabled=true,StreamViewType=NEW_IMAGE")
        verdicts.append(Verdict("fix", "stream", f"off: {command}"))
    else:
        verdicts.append(Verdict("ok", "stream", table.stream_arn))
        verdicts.append(_check_view(table, config))
    try:
        bind(parse_template(config.key), table.name, tuple(sorted(table.key)))
    except ConfigError as exc:
        return [*verdicts, Verdict("fix", "key", str(exc))]
    return [*verdicts, Verdict("ok", "key", f"{config.key} uses {', '.join(sorted(table.key))}")]


def _check_view(table: Table, config: Config) -> Verdict:
    view_type = table.view_type or ""
    if view_type == "NEW_IMAGE" or (config.mode == "invalidate" and view_type not in _IMAGES):
        return Verdict("ok", "view type", view_type)
    if view_type in _IMAGES or config.mode == "invalidate":
        return Verdict("note", "view type", f"{view_type}: more than {config.mode} needs")
    off = _stream_command(table, "StreamEnabled=false")
    on = _stream_command(table, "StreamEnabled=true,StreamViewType=NEW_IMAGE")
    message = (
        f"{view_type} has no new images: re-create the stream with NEW_IMAGE ({off}; then {on}; "
        f"then map the new stream), or set {PREFIX}MODE=invalidate"
    )
    return Verdict("fix", "view type", message)


def _stream_command(table: Table, specification: str) -> str:
    return (
        f"aws dynamodb update-table --region {table.arn.region} --table-name {table.name} "
        f"--stream-specification {specification}"
    )


# --- the mapping ------------------------------------------------------------------------------


def check_mappings(
    function: DeployedFunction, stream_arn: str | None, config: Config
) -> list[Verdict]:
    """Check the function's mapping of this stream; without an ARN, of any stream."""
    mappings = [m for m in function.mappings if stream_arn in (None, m["EventSourceArn"])]
    behind = _mappings_of_older_streams(function, stream_arn)
    if not mappings and behind:
        return check_mapping(behind[-1], config, stream_arn)
    if len(mappings) != 1:
        count = plural(len(mappings), "mapping") if mappings else "no mapping"
        message = f"{function.name} has {count} on {stream_arn or 'a stream'}, not 1"
        return [Verdict("fix", "mapping", message)]
    (mapping,) = mappings
    verdicts = check_mapping(mapping, config, stream_arn)
    if stream_arn is None:
        verdicts.append(unknown("source", "the table's stream is not known"))
    for each in behind:
        message = f"a second mapping reads an older stream, {each['EventSourceArn']}: delete it"
        verdicts.append(Verdict("note", "old stream", message))
    readers = [
        m for m in function.other_mappings if m["EventSourceArn"] == mapping["EventSourceArn"]
    ]
    if not readers:
        return [*verdicts, Verdict("ok", "readers", "no second mapping on the stream")]
    names = ", ".join(m.get("FunctionArn", "?").split(":function:")[-1] for m in readers)
    message = f"also mapped to {names}: a shard serves {READERS_MAX} readers at most"
    return [*verdicts, Verdict(_second_reader(function.name, readers), "readers", message)]


def _mappings_of_older_streams(
    function: DeployedFunction, stream_arn: str | None
) -> list[Mapping[str, Any]]:
    """Return the function's mappings of streams that the table had before its latest."""
    if stream_arn is None:
        return []
    table = parse_table_arn(stream_arn)
    return [
        mapping
        for mapping in function.mappings
        if mapping["EventSourceArn"] != stream_arn
        and parse_table_arn(mapping["EventSourceArn"]) == table
    ]


def _second_reader(name: str, readers: Sequence[Mapping[str, Any]]) -> Severity:
    """A second mapping to the function itself, by an alias, writes the copy twice."""
    names = {function_name(m.get("FunctionArn", "")) for m in readers}
    return "fix" if function_name(name) in names or len(readers) >= READERS_MAX else "note"


def check_mapping(
    mapping: Mapping[str, Any], config: Config, stream_arn: str | None = None
) -> list[Verdict]:
    """Check one mapping, as GetEventSourceMapping describes it."""
    statements = statements_of(mapping, stream_arn, config.on_failure)
    result = _check_result(mapping)  # no result is nothing to be sure of
    verdicts = [Verdict(each.state, each.subject, each.message) for each in statements]
    return [*(each for each in verdicts if each.subject != result.subject), result]


def _check_result(mapping: Mapping[str, Any]) -> Verdict:
    """Judge what Lambda says of its last attempt to read the stream and call the function.

    A mapping stays enabled where its rights, its key or its stream are gone: only this tells.
    """
    result = " ".join(str(mapping.get("LastProcessingResult") or "").split())[:_RESULT_CHARACTERS]
    if result == "OK":
        return Verdict("ok", "last batch", result)
    if result == "No records processed":
        return Verdict("note", "last batch", f"{result} yet")
    if result.upper().startswith("PROBLEM"):
        message = f"{result}. See the function's log, its role's rights and the stream's state"
        return Verdict("fix", "last batch", message)
    return unknown("last batch", f"Lambda says {result or 'nothing'}")


# --- the cache --------------------------------------------------------------------------------


def check_durability(cache: ManagedCache, effective: str = "") -> Verdict:
    """Judge what survives a failure; `effective` is what ElastiCache says of a group."""
    repair = "Then run asyncsync audit --repair"
    if cache.kind == "memorydb":
        return Verdict("ok", "durability", "MemoryDB keeps what it acknowledged")
    if cache.kind == "serverless":
        message = f"serverless has none: a failure may lose writes. {repair}"
        return Verdict("note", "durability", message)
    if effective == "sync":
        message = "sync: what the cache acknowledged survives a failover"
        return Verdict("ok", "durability", message)
    if effective == "async":
        message = f"async: a failover may lose the last 10 s of writes. {repair}"
        return Verdict("note", "durability", message)
    if effective == "disabled":
        message = f"disabled: a failover may lose acknowledged writes. {repair}"
        return Verdict("note", "durability", message)
    why = f"ElastiCache says {effective or 'nothing'} of the durability of {cache.name}"
    return unknown("durability", why)
