"""Reads a managed cache: which one an address belongs to, and whether its writes are durable."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal
from xml.etree import ElementTree

from asyncsync.aws.clients import AwsClients, aws_errors
from asyncsync.config import Config
from asyncsync.iam import is_serverless

# The names that AWS gives: of a replication group with TLS (its primary, its nodes) and without,
# of a cluster, and of MemoryDB. A node's name is its group's with a number.
_GROUP = re.compile(
    r"(?:(?:master|replica|clustercfg)\.)?([a-z][a-z0-9-]*?)(?:-\d{4})?(?:-\d{3})?"
    r"\.[a-z0-9.-]+\.cache\.amazonaws\.com(?:\.cn)?"
)
_MEMORYDB = re.compile(
    r"(?:clustercfg\.)?([a-z][a-z0-9-]*?)(?:-\d{4}-\d{3})?"
    r"\.[a-z0-9.-]+\.memorydb\.[a-z0-9-]+\.amazonaws\.com(?:\.cn)?"
)
_DURABILITY = "EffectiveDurability"


@dataclass(frozen=True, slots=True)
class ManagedCache:
    """A cache that AWS runs."""

    kind: Literal["replication group", "serverless", "memorydb"]
    name: str


def managed_cache(config: Config) -> ManagedCache | None:
    """Return the cache that the settings name, for IAM or by its address; None: AWS runs none."""
    host = config.server.host.lower()
    named = config.redis_iam_cache
    memorydb, group = _MEMORYDB.fullmatch(host), _GROUP.fullmatch(host)
    if memorydb is not None:
        return ManagedCache("memorydb", named or memorydb[1])
    if is_serverless(host):
        return ManagedCache("serverless", named or host.split(".")[0])
    if named is not None:
        return ManagedCache("replication group", named)
    return None if group is None else ManagedCache("replication group", group[1])


async def read_durability(clients: AwsClients, group: str) -> str:
    """Return the durability in effect of a replication group: sync, async or disabled.

    Empty where AWS does not say. Raises AwsFailed.
    """
    with aws_errors(f"describing replication group {group}", "ElastiCache"):
        async with clients.open("elasticache") as client:
            client.meta.events.register(
                "before-parse.elasticache.DescribeReplicationGroups", _keep
            )
            answer = await client.describe_replication_groups(ReplicationGroupId=group)
    return str(answer.get(_DURABILITY, ""))


def _keep(
    response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: object
) -> None:
    """Keep a member of the answer that the SDK may be too old to know."""
    try:
        text = ElementTree.fromstring(response_dict["body"]).findtext(f".//{{*}}{_DURABILITY}")
    except ElementTree.ParseError:
        return  # an error of another form, which the SDK tells
    if text:
        customized_response_dict[_DURABILITY] = text
