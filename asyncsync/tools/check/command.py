"""asyncsync check: one line per thing that must be right: ok, or what to change.

It checks the server where there is a URL, and the table and the function that are named. It
writes only scratch keys, which it removes. What it cannot look at is no reason to say ok.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from asyncsync.aws.caches import managed_cache, read_durability
from asyncsync.aws.clients import AwsClients, AwsFailed
from asyncsync.aws.functions import DeployedFunction
from asyncsync.aws.tables import Table, describe_table
from asyncsync.config import PREFIX, Config
from asyncsync.errors import ConfigError
from asyncsync.mirror import Mirror
from asyncsync.tools.check.aws import check_durability, check_mappings, check_table
from asyncsync.tools.check.redis import check_redis, scratch_key
from asyncsync.tools.check.verdict import Severity, Verdict, unknown
from asyncsync.tools.output import Colour, Output

_COLOURS: dict[Severity, Colour] = {
    "ok": "green",
    "note": "yellow",
    "fix": "red",
    "unknown": "red",
}


# Inside a network that leads to the cache, DynamoDB and S3 alone.
FROM_OUTSIDE = (
    "not checked: no such API is reached from here. Run asyncsync check --function elsewhere"
)


class CheckReport:
    """Writes verdicts as they come, or all of them at the end as one JSON object."""

    def __init__(self, output: Output, *, as_json: bool) -> None:
        self._output = output
        self._as_json = as_json
        self._verdicts: list[Verdict] = []

    def add(self, *verdicts: Verdict) -> None:
        """Write verdicts."""
        self._verdicts += verdicts
        for verdict in () if self._as_json else verdicts:
            state, rest = str(verdict)[:5], str(verdict)[5:]
            self._output.line(self._output.painted(state, _COLOURS[verdict.state]) + rest)

    def has_fix(self, subject: str) -> bool:
        """Return whether a subject is wrong."""
        return any(v.subject == subject and v.state == "fix" for v in self._verdicts)

    def end(self) -> bool:
        """Write what is left to write; return whether nothing is to be fixed, or unknown."""
        fixes = sum(verdict.state == "fix" for verdict in self._verdicts)
        if self._as_json:
            verdicts = [
                {"state": v.state, "subject": v.subject, "message": v.message}
                for v in self._verdicts
            ]
            self._output.document({"verdicts": verdicts, "to_fix": fixes})
        return not any(verdict.state in ("fix", "unknown") for verdict in self._verdicts)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckTarget:
    """What is checked; the nonces make unique scratch keys."""

    config: Config | None  # None: the settings are wrong
    mirror: Mirror | None  # None: there is no server to check
    table: str | None = None  # its name or ARN
    function: DeployedFunction | None = None
    unreachable: Literal["fix", "note"] = "fix"  # the state of a server that does not answer
    sees_aws: bool = True  # false: only DynamoDB can be reached from this network
    nonces: tuple[str, str]


async def check(target: CheckTarget, clients: AwsClients | None, report: CheckReport) -> bool:
    """Check a target, a verdict for each thing; return whether all is known and right.

    The clients may be None where no table and no function is checked.
    """
    table = None
    if target.table is not None:
        assert clients is not None, "a table needs them"
        table = await _describe(clients, target.table, report)
    config = target.config
    if config is not None and table is not None:
        report.add(*check_table(table, config))
    if config is not None and target.function is not None:
        stream_arn = table.stream_arn if table else None
        report.add(*check_mappings(target.function, stream_arn, config))
    elif not target.sees_aws:
        report.add(Verdict("note", "mapping", FROM_OUTSIDE))
    if config is not None:
        report.add(*await _durability(config, target, clients))
    if target.mirror is None:
        message = f"not checked: pass --redis-url or set {PREFIX}REDIS_URL"
        report.add(Verdict("note", "redis", message))
    elif not report.has_fix("key"):
        report.add(*await _check_server(target, target.mirror, table))
    return report.end()


async def _check_server(target: CheckTarget, mirror: Mirror, table: Table | None) -> list[Verdict]:
    attributes = sorted(table.key) if table else ()
    name = table.name if table else None
    first, second = (
        scratch_key(mirror.config, name, attributes, nonce) for nonce in target.nonces
    )
    return await check_redis(mirror, (first, second), target.unreachable)


async def _durability(
    config: Config, target: CheckTarget, clients: AwsClients | None
) -> list[Verdict]:
    """Check what a cache that AWS runs keeps through a failure."""
    cache = managed_cache(config)
    if cache is None:
        return []  # the server itself is asked
    if cache.kind != "replication group":
        return [check_durability(cache)]
    if not target.sees_aws:
        return [Verdict("note", "durability", FROM_OUTSIDE)]
    if clients is None:
        return [Verdict("note", "durability", "not checked: pass --table or --function")]
    try:
        return [check_durability(cache, await read_durability(clients, cache.name))]
    except AwsFailed as exc:
        return [unknown("durability", str(exc))]


async def _describe(clients: AwsClients, name: str, report: CheckReport) -> Table | None:
    try:
        return await describe_table(clients, name)
    except (AwsFailed, ConfigError) as exc:
        report.add(Verdict("fix", "table", str(exc)))
        return None
