"""asyncsync check, the server: reachable, signed in, allowed to write, and set up for the copy.

It uses the handler's own client, stores and script, so what works here works there. It writes
only scratch keys with random names, and removes them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from asyncsync.aws.caches import managed_cache
from asyncsync.config import PREFIX, Config, Server
from asyncsync.connection import ReplyError
from asyncsync.errors import StoreRefused, StoreUnavailable
from asyncsync.fence import NO_VERSION, RANK_RECORD
from asyncsync.formats import ARMS
from asyncsync.keys import Placeholder, bind, parse_template, redis_names, render, slot
from asyncsync.mirror import Mirror
from asyncsync.model import Call
from asyncsync.store import SCRIPT, Store, digest_of, script_for
from asyncsync.tools.check.info import Ask, check_info
from asyncsync.tools.check.verdict import Severity, Verdict, unknown
from asyncsync.tools.reach import reason_of
from asyncsync.transport import open_socket

# No invocation ends a check, so each wait ends by the timeout setting alone.
_NO_END_S = float("inf")

_NO_MODULE = (
    "the server has no JSON module: use one that has (Redis 8, Redis Stack, Valkey with its JSON "
    f"module), or set {PREFIX}VALUE=hash"
)

# Scratch keys expire, in case the check is killed before it removes them.
_SCRATCH_TTL_S = 60


@dataclass(frozen=True, slots=True)
class ScratchKey:
    """A key that belongs to no item but is named like one, and its fence."""

    name: bytes
    fence: bytes


def scratch_key(
    config: Config, table: str | None, key_attributes: Sequence[str], nonce: str
) -> ScratchKey:
    """Name a scratch key by the key template: an ACL may allow no other names.

    Raises ConfigError where the template does not fit the table's key attributes.
    """
    template = parse_template(config.key)
    in_template = {p.name for p in template if isinstance(p, Placeholder) and p.name[0] != "@"}
    attributes = tuple(key_attributes or sorted(in_template) or ("key",))
    bound = bind(template, table or "asyncsync-check", attributes)
    value = f"asyncsync-check-{nonce}"
    key = tuple((attribute, "S", value) for attribute in attributes)
    return ScratchKey(*redis_names(render(bound, key)))


async def check_redis(
    mirror: Mirror, keys: tuple[ScratchKey, ScratchKey], unreachable: Severity
) -> list[Verdict]:
    """Check the server; the two keys are in different slots of a cluster.

    `unreachable` is the state of a server that cannot be reached from here.
    """
    address = mirror.config.server.address
    try:
        verdicts = await _check_server(mirror, keys)
    except StoreUnavailable as exc:
        message = f"{address} cannot be reached: {reason_of(exc)}"
        if unreachable != "fix":
            message = (
                f"not checked: {message}. Check from inside its network (invoke the operations "
                'function with {"args": ["check"]}), or pass --redis-url'
            )
        return [Verdict(unreachable, "redis", message)]
    except StoreRefused as exc:
        return [Verdict("fix", "redis", str(exc))]
    if any(v.subject in ("redis", "cluster") and v.state == "fix" for v in verdicts):
        return verdicts  # a write would be refused, or go to the wrong place
    scratch = Verdict("note", "scratch key", f"{_text(keys[0].name)} is written and removed")
    return [*verdicts, scratch, *await _check_commands(mirror, keys[0])]


def _text(name: bytes) -> str:
    return name.decode(errors="backslashreplace")


async def _check_server(mirror: Mirror, keys: tuple[ScratchKey, ScratchKey]) -> list[Verdict]:
    config = mirror.config
    server = config.server
    client = mirror.new_client(server, open_socket)

    async def ask(*command: bytes) -> object:
        return await client.ask(command, _NO_END_S)

    try:
        refusal = await _check_sign_in(ask, server)
        if refusal is not None:
            return [refusal]
        cluster = await _check_cluster(ask, config, keys)
        tls = "on, the certificate is trusted" if server.tls else "off: safe on one machine only"
        verdicts = [
            Verdict("ok", "redis", f"{server.address} answers, signed in as {server.user}"),
            Verdict("ok" if server.tls else "note", "TLS", tls),
            cluster,
        ]
        if cluster.state == "fix":
            return verdicts
        verdicts += await check_info(mirror, ask, managed_cache(config))
        if config.redis_cluster:
            verdicts.append(await _check_asking(ask, config))
        return verdicts
    finally:
        client.close()


async def _check_sign_in(ask: Ask, server: Server) -> Verdict | None:
    """Return what is wrong where the server answers nothing, whatever is asked; else None."""
    reply = await ask(b"PING")
    if not isinstance(reply, ReplyError):
        return None
    if reply.word == "NOAUTH":
        message = (
            f"{server.address} wants a password (NOAUTH): set {PREFIX}REDIS_PASSWORD, or a user "
            "and password in the URL"
        )
        return Verdict("fix", "redis", message)
    if reply.word == "ERR" and "unknown command" not in str(reply):
        return Verdict("fix", "redis", f"{server.address} answers: {reply}")
    return None


async def _check_cluster(ask: Ask, config: Config, keys: tuple[ScratchKey, ScratchKey]) -> Verdict:
    """Read keys of two slots at once: only a cluster refuses that, serverless included."""
    reply = await ask(b"MGET", *(key.name for key in keys))
    is_cluster = isinstance(reply, ReplyError) and reply.word == "CROSSSLOT"
    if isinstance(reply, ReplyError) and not is_cluster and reply.word != "MOVED":
        return unknown("cluster", f"MGET was answered with {reply.word}")
    if is_cluster == config.redis_cluster:
        return Verdict("ok", "cluster", "yes, as set" if is_cluster else "no, as set")
    setting = str(is_cluster).lower()
    return Verdict("fix", "cluster", f"set ASYNCSYNC_REDIS_CLUSTER={setting}")


async def _check_asking(ask: Ask, config: Config) -> Verdict:
    reply = await ask(b"ASKING")
    if isinstance(reply, ReplyError):
        message = f"{reply.word}: allow user {config.server.user} to run it"
        return Verdict("fix", "ASKING", message)
    return Verdict("ok", "ASKING", "permitted")


async def _check_commands(mirror: Mirror, key: ScratchKey) -> list[Verdict]:
    """Try each command that the mode needs on a scratch key, then a whole write."""
    store = mirror.new_store(SCRIPT)
    try:
        calls = _single_commands(mirror.config, key)
        verdicts = [await _try(store, name, call) for name, call in calls]
        if mirror.config.fence == "on" and all(v.state == "ok" for v in verdicts):
            writes = _fenced_write(mirror.config.value, key)
            verdicts += [await _try(store, name, call) for name, call in writes]
        return verdicts
    finally:
        store.close()


def _single_commands(config: Config, key: ScratchKey) -> Iterator[tuple[str, Call]]:
    ttl = b"%d" % _SCRATCH_TTL_S
    commands: list[tuple[bytes, ...]] = [
        (b"SET", key.fence, b"0", b"EX", ttl),
        (b"DEL", key.fence, key.name),
    ]
    if config.fence == "on":
        script = script_for(SCRIPT, config.value)
        commands = [
            (b"EVALSHA", digest_of(script), b"1", key.name),  # too few keys: it writes nothing
            (b"EVAL", b"return 1", b"1", key.name),
            (b"MGET", key.name),
            *_value_commands(config, key),
            *commands,
        ]
    elif config.mode == "invalidate":
        commands = commands[1:]
    for command in commands:
        yield command[0].decode(), Call(command, (0,), fenced=False, slot=slot(key.name))


def _value_commands(config: Config, key: ScratchKey) -> Iterator[tuple[bytes, ...]]:
    """Yield the commands that write values which are no strings."""
    if config.value not in ARMS or config.mode == "invalidate":
        return
    if config.value == "hash":
        yield (b"HSET", key.name, b"check", b"1")
        yield (b"HLEN", key.name)
    else:
        yield (b"JSON.SET", key.name, b"$", b"{}")
    if config.mode == "refresh":
        yield (b"EXISTS", key.name)
    yield (b"PERSIST", key.name)
    yield (b"PEXPIREAT", key.name, b"%d" % int((time.time() + _SCRATCH_TTL_S) * 1_000))


def _fenced_write(value_format: str, key: ScratchKey) -> Iterator[tuple[str, Call]]:
    ttl = b"%d" % _SCRATCH_TTL_S
    expiry = b"%d" % int((time.time() + _SCRATCH_TTL_S) * 1_000)
    version = NO_VERSION + RANK_RECORD
    value = (b"6", b"2", b"check", b"1") if value_format == "hash" else (b"{}",)
    write = (b"2", key.name, key.fence, ttl, b"", version, expiry, *value)
    yield "write", Call(write, (0,), fenced=True, slot=slot(key.name))
    removal = (b"DEL", key.name, key.fence)
    yield "removal", Call(removal, (0,), fenced=False, slot=slot(key.name))


async def _try(store: Store, name: str, call: Call) -> Verdict:
    try:
        written = await store.apply([call], 1, _NO_END_S)
    except StoreRefused as exc:
        return Verdict("fix", name, str(exc))
    (outcome,) = written.outcomes
    # These errors come from the script, so the user may run it.
    is_permitted = name == "EVALSHA" and outcome.error in ("NOSCRIPT", "ERR")
    if name == "JSON.SET" and "unknown command" in outcome.reason:
        return Verdict("fix", name, _NO_MODULE)
    if outcome.kind == "failed" and not is_permitted:
        return Verdict("fix", name, f"{outcome.error}: {outcome.reason}")
    return Verdict("ok", name, "applied" if call.fenced else "permitted")
