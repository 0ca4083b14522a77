"""asyncsync check, the server: reached, signed in, allowed to write, and set as the copy needs.

It goes the handler's own way (its wire, its stores, its script), so what is right here is right
there. It writes nothing but scratch keys of a random name, and removes them.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from asyncsync.cluster import ClusterStore
from asyncsync.config import Config, Server
from asyncsync.connection import Password, ReplyError, open_connection
from asyncsync.errors import StoreRefused, StoreUnavailable
from asyncsync.iam import AwsCredentials, token_password
from asyncsync.keys import Placeholder, bind, parse_template, render, settle, slot
from asyncsync.model import Call
from asyncsync.store import SCRIPT, Client, Store, digest_of
from asyncsync.tools.check.verdict import Verdict
from asyncsync.transport import open_socket

Ask: TypeAlias = Callable[..., Awaitable[object]]  # a command's words, for the reply

# Longer than both waits of a check, which nobody's invocation ends.
_PATIENCE_S = 60.0

# Scratch keys end by themselves, should this end before it has removed them.
_SCRATCH_LIFE_S = 60

# A version below every record's: format 1, and zeros.
_VERSION = b"1" + b"0" * 13 + b"01" + b"0" + b"1"


@dataclass(frozen=True, slots=True)
class Scratch:
    """A key that no item has, named as an item's would be, and its fence."""

    name: bytes
    fence: bytes


def scratch(config: Config, table: str | None, keys: Sequence[str], nonce: str) -> Scratch:
    """Name a scratch key by the copy's template: an ACL may allow no other.

    Raises ConfigError where the template and the table's key attributes differ.
    """
    template = parse_template(config.key)
    named = {p.name for p in template if isinstance(p, Placeholder) and p.name[0] != "@"}
    names = tuple(keys or sorted(named) or ("key",))
    bound = bind(template, table or "asyncsync-check", names)
    text = f"asyncsync-check-{nonce}"
    return Scratch(*settle(render(bound, tuple((name, "S", text) for name in names))))


async def check_redis(
    config: Config, scratches: tuple[Scratch, Scratch], env: Mapping[str, str]
) -> list[Verdict]:
    """Look at the server; the scratches are in two slots of a cluster.

    Raises ConfigError where IAM is asked for and nobody can sign.
    """
    password = _password(config, env)
    address = config.server.address
    try:
        verdicts = await _server(config, scratches, password)
    except StoreUnavailable as exc:
        if exc.timed_out:
            return [Verdict("fix", "redis", f"{address} does not answer: is there a way to it?")]
        reason = " ".join(str(exc.__cause__ or exc).split())
        return [Verdict("fix", "redis", f"{address} cannot be reached: {reason}")]
    except StoreRefused as exc:
        return [Verdict("fix", "redis", str(exc))]
    if any(each.subject == "cluster" and each.state == "fix" for each in verdicts):
        return verdicts  # no write would go the right way
    return verdicts + await _commands(config, scratches[0], password)


async def _server(
    config: Config, scratches: tuple[Scratch, Scratch], password: Password
) -> list[Verdict]:
    server = config.server
    # Connecting, and each of the few questions, as long as an invocation would wait.
    until_s = time.monotonic() + 5 * config.timeout_ms / 1_000

    def left() -> float:
        return until_s - time.monotonic()

    async def ask(*command: bytes) -> object:
        return (await wire.exchange([command], left))[0]

    wire = await open_connection(server, open_socket, password, left)
    try:
        tls = "on, the certificate is trusted" if server.tls else "off: right on one machine only"
        verdicts = [
            Verdict("ok", "redis", f"{server.address} answers, signed in as {server.user}"),
            Verdict("ok" if server.tls else "note", "TLS", tls),
            await _cluster(ask, config, scratches),
            await _eviction(ask, config),
        ]
        if config.redis_cluster:
            verdicts.append(await _asking(ask, config))
        return verdicts
    finally:
        wire.abandon()


def _password(config: Config, env: Mapping[str, str]) -> Password:
    if config.redis_iam_cache is not None:
        return token_password(config, lambda: AwsCredentials.from_env(env), time.time)
    return lambda: config.server.password


async def _cluster(ask: Ask, config: Config, scratches: tuple[Scratch, Scratch]) -> Verdict:
    """Ask for keys of two slots at once: a cluster alone refuses that, serverless too."""
    reply = await ask(b"MGET", *(each.name for each in scratches))
    is_cluster = isinstance(reply, ReplyError) and reply.word == "CROSSSLOT"
    if isinstance(reply, ReplyError) and not is_cluster and reply.word != "MOVED":
        return Verdict("note", "cluster", f"cannot be told, MGET is answered {reply.word}")
    if is_cluster == config.redis_cluster:
        return Verdict("ok", "cluster", "yes, as set" if is_cluster else "no, as set")
    wanted = str(is_cluster).lower()
    return Verdict("fix", "cluster", f"set ASYNCSYNC_REDIS_CLUSTER={wanted}")


async def _eviction(ask: Ask, config: Config) -> Verdict:
    """Read the policy from INFO, where the user may; CONFIG is not to be had on ElastiCache."""
    reply = await ask(b"INFO", b"memory")
    lines = reply.decode(errors="replace").splitlines() if isinstance(reply, bytes) else []
    pairs = dict(line.split(":", 1) for line in lines if ":" in line)
    policy = pairs.get("maxmemory_policy")
    if policy is None:
        return Verdict("note", "eviction", "the policy is not this user's to read: noeviction?")
    if policy == "noeviction" or config.mode == "invalidate":
        return Verdict("ok", "eviction", policy)
    if policy.startswith("volatile-"):
        return Verdict("note", "eviction", f"{policy} takes fences first: alarm on evictions")
    return Verdict("fix", "eviction", f"{policy} may take any value: make it noeviction")


async def _asking(ask: Ask, config: Config) -> Verdict:
    reply = await ask(b"ASKING")
    if isinstance(reply, ReplyError):
        return Verdict("fix", "ASKING", f"{reply.word}: let user {config.server.user} run it")
    return Verdict("ok", "ASKING", "permitted")


async def _commands(config: Config, key: Scratch, password: Password) -> list[Verdict]:
    """Try each command that the mode needs by itself, on a scratch key, then a whole write."""

    def link_of(server: Server) -> Client:
        return Client(server, config.timeout_ms, open_socket, time.monotonic, password)

    one = config.server
    store = ClusterStore(one, link_of) if config.redis_cluster else link_of(one)
    try:
        verdicts = [await _try(store, name, call) for name, call in _singly(config, key)]
        if config.fence == "on" and all(each.state == "ok" for each in verdicts):
            expiry = b"%d" % int((time.time() + _SCRATCH_LIFE_S) * 1_000)
            life = b"%d" % _SCRATCH_LIFE_S
            write = (b"2", key.name, key.fence, life, b"", _VERSION, expiry, b"{}")
            for name, arguments in (("write", write), ("removal", (b"DEL", key.name, key.fence))):
                call = Call(arguments, (0,), fenced=name == "write", slot=slot(key.name))
                verdicts.append(await _try(store, name, call))
        return verdicts
    finally:
        store.close()


def _singly(config: Config, key: Scratch) -> Iterator[tuple[str, Call]]:
    life = b"%d" % _SCRATCH_LIFE_S
    commands = [(b"SET", key.fence, b"0", b"EX", life), (b"DEL", key.fence)]
    if config.fence == "on":
        script = [
            (
                b"EVALSHA",
                digest_of(SCRIPT),
                b"1",
                key.name,
            ),  # too few keys: it runs, and writes nothing
            (b"EVAL", b"return 1", b"1", key.name),
            (b"MGET", key.name),
        ]
        commands = [*script, *commands]
    elif config.mode == "invalidate":
        commands = commands[1:]
    for each in commands:
        yield each[0].decode(), Call(each, (0,), fenced=False, slot=slot(key.name))


async def _try(store: Store, name: str, call: Call) -> Verdict:
    try:
        written = await store.apply([call], 1, time.monotonic() + _PATIENCE_S)
    except StoreRefused as exc:
        return Verdict("fix", name, str(exc))
    (outcome,) = written.outcomes
    answered = name == "EVALSHA" and outcome.error in ("NOSCRIPT", "ERR")  # and was permitted
    if outcome.kind == "failed" and not answered:
        return Verdict("fix", name, f"{outcome.error}: {outcome.reason}")
    return Verdict("ok", name, "applied" if call.fenced else "permitted")
