"""asyncsync get: what Redis holds for one key, readable for people: value, expiry, fence."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import orjson
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from asyncsync import fence as fence_format
from asyncsync.config import Config
from asyncsync.fence import CLAIM_FORMAT, NO_VERSION
from asyncsync.iam import AwsCredentials, token_password
from asyncsync.keys import redis_names
from asyncsync.tools.errors import CommandFailed
from asyncsync.tools.redis_client import client_arguments

Say = Callable[[str], None]

RANKS = {
    "0": "removed: its record could not be encoded",
    "1": "a stream record",
    "2": "a repair or a reader's fill",
}


@dataclass(frozen=True, slots=True)
class Fence:
    """A fence's content, decoded."""

    stream_label: str
    sequence_number: str
    rank: str
    nonce: str


@dataclass(frozen=True, slots=True)
class Held:
    """What Redis holds for a key; expiries in milliseconds from now, None for never."""

    key: str
    value: bytes | None
    expires_in_ms: int | None
    fence_key: str
    fence: bytes | None
    fence_expires_in_ms: int | None


def read_fence(content: bytes) -> Fence | None:
    """Decode a fence; None where it is not one of this format."""
    fence = fence_format.read_fence(content)
    if fence is None or content.startswith(CLAIM_FORMAT):
        return None
    label, number = _iso(fence.label_ms), str(fence.sequence_number)
    return Fence(label, number, fence.rank.decode(), fence.nonce.decode())


def look(key: str, config: Config, env: Mapping[str, str]) -> Held:
    """Read a key and its fence.

    Raises CommandFailed, or ConfigError where IAM is asked for and nobody can sign.
    """
    name = key.encode(errors="surrogateescape")
    settled, fence_key = redis_names(name)
    if settled != name:
        fence_key = b""  # no name that asyncsync writes, such as a fence's own
    token = None
    if config.redis_iam_cache is not None:
        token = token_password(config, lambda: AwsCredentials.from_env(env), time.time)
    arguments = client_arguments(config.server, config.timeout_ms / 1_000, token)
    with redis.Redis(**arguments, retry=Retry(NoBackoff(), 0)) as connection:
        try:
            value = _bytes(connection.get(name))
            value_ms = connection.pttl(name)
            fence = _bytes(connection.get(fence_key)) if fence_key else None
            fence_ms = connection.pttl(fence_key) if fence_key else -2
        except redis.RedisError as exc:
            said = " ".join(str(exc).split())
            raise CommandFailed(f"Redis at {config.server.address}: {said}") from exc
    return Held(
        key,
        value,
        _expiry(value_ms),
        fence_key.decode(errors="replace"),
        fence,
        _expiry(fence_ms),
    )


def get(key: str, config: Config, env: Mapping[str, str], *, as_json: bool, say: Say) -> bool:
    """Show a key; return whether anything is there.

    Raises what look raises.
    """
    held = look(key, config, env)
    for line in [json_line(held)] if as_json else lines(held):
        say(line)
    return held.value is not None or held.fence is not None


def json_line(held: Held) -> str:
    """Write what is held as one JSON object; a value stays text, so its digits stay exact."""
    fence = None if held.fence is None else read_fence(held.fence)
    shown: dict[str, object] = {
        "key": held.key,
        "value": None if held.value is None else _text(held.value),
        "expires_in_ms": held.expires_in_ms,
        "fence_key": held.fence_key,
        "fence": None if held.fence is None else _text(held.fence),
        "fence_expires_in_ms": held.fence_expires_in_ms,
        "stream": fence and fence.stream_label,
        "sequence_number": fence and fence.sequence_number,
        "rank": fence and int(fence.rank),
    }
    return orjson.dumps(shown).decode()


def lines(held: Held) -> list[str]:
    """Write what is held for people."""
    shown = [held.key]
    if held.value is None:
        shown.append("  value    none")
    else:
        shown.append(f"  value    {_text(held.value)}")
        shown.append(f"           {len(held.value):,} bytes, expires {_when(held.expires_in_ms)}")
    if held.fence is None:
        return [*shown, "  fence    none"]
    fence = read_fence(held.fence)
    shown.append(f"  fence    {held.fence_key}, expires {_when(held.fence_expires_in_ms)}")
    if fence is None:
        return [*shown, f"           not of a format that is known here: {_text(held.fence)}"]
    if held.fence.startswith(NO_VERSION):
        shown.append("           without a version: no record of its key was known")
    else:
        shown.append(f"           stream of {fence.stream_label}")
        shown.append(f"           sequence number {fence.sequence_number}")
    shown.append(f"           rank {fence.rank}: {RANKS[fence.rank]}")
    return shown


def _bytes(value: object) -> bytes | None:
    return value if isinstance(value, bytes) else None


def _expiry(reply: object) -> int | None:
    return reply if isinstance(reply, int) and reply >= 0 else None


def _text(value: bytes) -> str:
    return value.decode(errors="backslashreplace")


def _when(left_ms: int | None) -> str:
    if left_ms is None:
        return "never"
    minutes, seconds = divmod(left_ms // 1_000, 60)
    hours, minutes = divmod(minutes, 60)
    return f"in {hours} h {minutes} min" if hours else f"in {minutes} min {seconds} s"


def _iso(epoch_ms: int) -> str:
    moment = datetime.fromtimestamp(epoch_ms / 1_000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
