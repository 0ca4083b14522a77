"""asyncsync check, what a server says of itself: eviction, memory, and what a restart keeps.

It asks INFO of every primary: ElastiCache has no CONFIG, and a cluster's nodes differ.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from msgspec import structs

from asyncsync.aws.caches import ManagedCache
from asyncsync.config import Config, Server
from asyncsync.connection import ReplyError
from asyncsync.errors import StoreRefused, StoreUnavailable
from asyncsync.mirror import Mirror
from asyncsync.tools.check.verdict import Verdict, unknown
from asyncsync.transport import open_socket

Ask: TypeAlias = Callable[..., Awaitable[object]]  # takes a command's words, returns the reply

# The template's alarm on the cache's bytes fires here, too.
_FULL_PERCENT = 80

_NO_END_S = float("inf")
_MB = 1_048_576


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What one primary says of itself; `refusal` is why it does not."""

    address: str
    fields: Mapping[str, str]
    refusal: str = ""


async def check_info(mirror: Mirror, ask: Ask, cache: ManagedCache | None) -> list[Verdict]:
    """Check eviction, memory and, of a server that AWS does not run, what a restart keeps."""
    config = mirror.config
    try:
        infos = await _infos(mirror, ask)
    except (StoreUnavailable, StoreRefused, ValueError) as exc:
        return [unknown("eviction", str(exc)), unknown("memory", str(exc))]
    if cache is not None and cache.kind == "serverless":
        return _serverless(infos[0], config)
    verdicts = [
        worst([eviction(each, config) for each in infos]),
        worst([memory(each) for each in infos]),
    ]
    return verdicts if cache else [*verdicts, worst([persistence(each) for each in infos])]


def worst(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the verdict that matters most, the first of several alike."""
    order = ("fix", "unknown", "note", "ok")
    return min(verdicts, key=lambda verdict: order.index(verdict.state))


def _serverless(info: ServerInfo, config: Config) -> list[Verdict]:
    """A serverless cache may not say; its policy is known (ElastiCache user guide)."""
    policy = replace(info, fields={"maxmemory_policy": "volatile-lru", **info.fields})
    room = memory(info)
    if room.state == "unknown":
        room = Verdict("note", "memory", "serverless does not say: alarm on BytesUsedForCache")
    has_id = "run_id" in info.fields
    said = "the cache says it" if has_id else "not said: names are scanned within one slice"
    return [eviction(policy, config), room, Verdict("ok" if has_id else "note", "run id", said)]


# --- asking -----------------------------------------------------------------------------------


async def _infos(mirror: Mirror, ask: Ask) -> list[ServerInfo]:
    """Raises StoreUnavailable, StoreRefused, or ValueError for an unknown topology."""
    server = mirror.config.server
    if not mirror.config.redis_cluster:
        return [await _info(server, ask)]
    infos = []
    for primary in _primaries(await ask(b"CLUSTER", b"SLOTS"), server):
        client = mirror.new_client(primary, open_socket)

        async def ask_primary(*command: bytes, client: Any = client) -> object:
            return await client.ask(command, _NO_END_S)

        try:
            infos.append(await _info(primary, ask_primary))
        finally:
            client.close()
    return infos


def _primaries(reply: object, server: Server) -> list[Server]:
    if isinstance(reply, ReplyError):
        raise ValueError(f"CLUSTER SLOTS was answered with {reply.word}")  # noqa: TRY004
    ranges: Any = reply
    try:
        ports = {(bytes(p[0] or b"").decode(), int(p[1])) for _, _, p, *_ in ranges}
    except (AttributeError, IndexError, TypeError, ValueError):
        raise ValueError("CLUSTER SLOTS was answered with no topology") from None
    return [structs.replace(server, host=h or server.host, port=p) for h, p in sorted(ports)]


async def _info(server: Server, ask: Ask) -> ServerInfo:
    fields: dict[str, str] = {}
    for section in (b"memory", b"persistence", b"server"):
        reply = await ask(b"INFO", section)
        if isinstance(reply, ReplyError):
            who = f"user {server.user} may not run INFO: allow +info"
            why = who if reply.word == "NOPERM" else f"INFO was answered with {reply.word}"
            return ServerInfo(server.address, {}, f"{server.address}: {why}")
        if isinstance(reply, bytes):
            lines = reply.decode(errors="replace").splitlines()
            fields |= dict(line.split(":", 1) for line in lines if ":" in line)
    policy = await ask(b"CONFIG", b"GET", b"appendfsync") if _has_aof(fields) else None
    if isinstance(policy, list) and len(policy) == 2:
        fields["appendfsync"] = bytes(policy[1]).decode(errors="replace")
    return ServerInfo(server.address, fields)


def _has_aof(fields: Mapping[str, str]) -> bool:
    return fields.get("aof_enabled") == "1"


# --- judging ----------------------------------------------------------------------------------


def eviction(info: ServerInfo, config: Config) -> Verdict:
    """Judge which keys a full server evicts."""
    policy = info.fields.get("maxmemory_policy")
    if policy is None:
        return unknown("eviction", info.refusal or f"{info.address} does not say its policy")
    if policy == "noeviction" or config.mode == "invalidate":
        return Verdict("ok", "eviction", policy)
    if policy.startswith("volatile-"):
        return Verdict("note", "eviction", f"{policy} evicts fences first: alarm on evictions")
    return Verdict("fix", "eviction", f"{policy} may evict any value: set noeviction")


def memory(info: ServerInfo) -> Verdict:
    """Judge how much of its memory a server has left."""
    try:
        used, most = int(info.fields["used_memory"]), int(info.fields["maxmemory"])
    except (KeyError, ValueError):
        return unknown("memory", info.refusal or f"{info.address} does not say its memory")
    if most <= 0:
        message = f"{_size(used)} used, no limit: the machine's memory is the limit"
        return Verdict("note", "memory", message)
    percent = 100 * used // most
    message = f"{percent} % of {_size(most)} used"
    if percent < _FULL_PERCENT:
        return Verdict("ok", "memory", message)
    return Verdict("fix", "memory", f"{info.address}: {message}: take a larger one")


def _size(size: int) -> str:
    return f"{size / _MB:,.0f} MB" if size >= _MB else f"{size:,} bytes"


def persistence(info: ServerInfo) -> Verdict:
    """Judge what a server that AWS does not run keeps when it restarts."""
    fields = info.fields
    if "aof_enabled" not in fields:
        return unknown("durability", info.refusal or f"{info.address} does not say what it keeps")
    if not _has_aof(fields):
        message = "no AOF: a restart loses writes. Then run asyncsync audit --repair"
        return Verdict("note", "durability", message)
    if fields.get("aof_last_write_status", "ok") != "ok":
        return Verdict("fix", "durability", f"{info.address} cannot write its AOF: see its log")
    policy = fields.get("appendfsync")
    if policy is None:
        why = f"{info.address} has an AOF, but does not say its appendfsync: allow +config|get"
        return unknown("durability", why)
    if policy == "always":
        return Verdict("ok", "durability", "AOF, synced at every write")
    message = f"AOF with appendfsync {policy}: a crash loses its last writes"
    return Verdict("note", "durability", f"{message}. Then run asyncsync audit --repair")
