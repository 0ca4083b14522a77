"""asyncsync check, AWS's side: a table with its stream, a function with its mapping.

Pure functions check what was read. A mapping that differs from the template's may lose records;
the verdict says how.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from asyncsync.aws.functions import DeployedFunction
from asyncsync.aws.tables import Table
from asyncsync.config import PREFIX, Config
from asyncsync.errors import ConfigError
from asyncsync.keys import bind, parse_template
from asyncsync.mapping.requirements import function_name, statements_of
from asyncsync.tools.check.verdict import Severity, Verdict
from asyncsync.tools.output import plural

# A shard serves two readers, one on a global table (Lambda developer guide, "Using AWS Lambda
# with DynamoDB").
READERS_MAX = 2

_IMAGES = ("NEW_IMAGE", "NEW_AND_OLD_IMAGES")


def check_settings(function: DeployedFunction) -> tuple[Config | None, Verdict]:
    """Read the function's settings as its cold start does."""
    try:
        config = Config.from_env(function.settings)
    except ConfigError as exc:
        return None, Verdict("fix", "settings", str(exc))
    return config, Verdict("ok", "settings", f"{function.name} can start with them")


# --- the table --------------------------------------------------------------------------------


def check_table(table: Table, config: Config) -> list[Verdict]:
    """Check a table: its stream, the stream's view type, and the key template."""
    verdicts = [Verdict("ok", "table", f"{table.arn} exists")]
    if table.stream_arn is None:
        verdicts.append(Verdict("fix", "stream", "off: enable it with view type NEW_IMAGE"))
    else:
        verdicts += [Verdict("ok", "stream", "on"), _check_view(table.view_type or "", config)]
    try:
        bind(parse_template(config.key), table.name, tuple(sorted(table.key)))
    except ConfigError as exc:
        return [*verdicts, Verdict("fix", "key", str(exc))]
    return [*verdicts, Verdict("ok", "key", f"{config.key} uses {', '.join(sorted(table.key))}")]


def _check_view(view_type: str, config: Config) -> Verdict:
    if view_type == "NEW_IMAGE" or (config.mode == "invalidate" and view_type not in _IMAGES):
        return Verdict("ok", "view type", view_type)
    if view_type in _IMAGES or config.mode == "invalidate":
        return Verdict("note", "view type", f"{view_type}: more than {config.mode} needs")
    message = (
        f"{view_type} has no new images: re-create the stream with NEW_IMAGE, or set "
        f"{PREFIX}MODE=invalidate"
    )
    return Verdict("fix", "view type", message)


# --- the mapping ------------------------------------------------------------------------------


def check_mappings(
    function: DeployedFunction, stream_arn: str | None, config: Config
) -> list[Verdict]:
    """Check the function's mapping of this stream; without an ARN, of any stream."""
    mappings = [m for m in function.mappings if stream_arn in (None, m["EventSourceArn"])]
    if len(mappings) != 1:
        count = plural(len(mappings), "mapping") if mappings else "no mapping"
        message = f"{function.name} has {count} on {stream_arn or 'a stream'}, not 1"
        return [Verdict("fix", "mapping", message)]
    (mapping,) = mappings
    verdicts = check_mapping(mapping, config, stream_arn)
    readers = [
        m for m in function.other_mappings if m["EventSourceArn"] == mapping["EventSourceArn"]
    ]
    if not readers:
        return [*verdicts, Verdict("ok", "readers", "no second mapping on the stream")]
    names = ", ".join(m.get("FunctionArn", "?").split(":function:")[-1] for m in readers)
    message = f"also mapped to {names}: a shard serves {READERS_MAX} readers at most"
    return [*verdicts, Verdict(_second_reader(function.name, readers), "readers", message)]


def _second_reader(name: str, readers: Sequence[Mapping[str, Any]]) -> Severity:
    """A second mapping to the function itself, by an alias, writes the copy twice."""
    names = {function_name(m.get("FunctionArn", "")) for m in readers}
    return "fix" if function_name(name) in names or len(readers) >= READERS_MAX else "note"


def check_mapping(
    mapping: Mapping[str, Any], config: Config, stream_arn: str | None = None
) -> list[Verdict]:
    """Check one mapping, as GetEventSourceMapping describes it."""
    statements = statements_of(mapping, stream_arn, config.on_failure)
    return [Verdict(each.state, each.subject, each.message) for each in statements]
