"""asyncsync check: one line per thing that must be right: ok, or what to change.

It checks the server where there is a URL, and the table and the function that are named. It
writes only scratch keys, which it removes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from asyncsync.aws.clients import AwsClients, AwsFailed
from asyncsync.aws.functions import DeployedFunction
from asyncsync.aws.tables import Table, describe_table
from asyncsync.config import PREFIX, Config
from asyncsync.errors import ConfigError
from asyncsync.mirror import Mirror
from asyncsync.tools.check.aws import check_mappings, check_table
from asyncsync.tools.check.redis import check_redis, scratch_key
from asyncsync.tools.check.verdict import Severity, Verdict
from asyncsync.tools.output import Colour, Output

_COLOURS: dict[Severity, Colour] = {"ok": "green", "note": "yellow", "fix": "red"}


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
        """Write what is left to write; return whether nothing is to be fixed."""
        fixes = sum(verdict.state == "fix" for verdict in self._verdicts)
        if self._as_json:
            verdicts = [
                {"state": v.state, "subject": v.subject, "message": v.message}
                for v in self._verdicts
            ]
            self._output.document({"verdicts": verdicts, "to_fix": fixes})
        return not fixes


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckTarget:
    """What is checked; the nonces make unique scratch keys."""

    config: Config | None  # None: the settings are wrong
    mirror: Mirror | None  # None: there is no server to check
    table: str | None = None  # its name or ARN
    function: DeployedFunction | None = None
    unreachable: Literal["fix", "note"] = "fix"  # the state of a server that does not answer
    nonces: tuple[str, str]


async def check(target: CheckTarget, clients: AwsClients | None, report: CheckReport) -> bool:
    """Check a target, a verdict for each thing; return whether nothing is to be fixed.

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
    if target.mirror is None:
        message = f"not checked: pass --redis-url or set {PREFIX}REDIS_URL"
        report.add(Verdict("note", "redis", message))
    elif not report.has_fix("key"):
        attributes = sorted(table.key) if table else ()
        name = table.name if table else None
        first, second = (
            scratch_key(target.mirror.config, name, attributes, nonce) for nonce in target.nonces
        )
        verdicts = await check_redis(target.mirror, (first, second), target.unreachable)
        report.add(*verdicts)
    return report.end()


async def _describe(clients: AwsClients, name: str, report: CheckReport) -> Table | None:
    try:
        return await describe_table(clients, name)
    except (AwsFailed, ConfigError) as exc:
        report.add(Verdict("fix", "table", str(exc)))
        return None
