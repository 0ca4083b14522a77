"""asyncsync get: show what Redis holds for one key: its value, expiry and fence."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from asyncsync.config import Config
from asyncsync.copy.equality import text_of
from asyncsync.copy.reader import Snapshot, read_call, slot_of, snapshot_of
from asyncsync.fence import (
    NO_VERSION,
    RANK_RECORD,
    RANK_REJECT,
    RANK_REPAIR,
    Fence,
    read_fence,
)
from asyncsync.formats import ARMS
from asyncsync.keys import redis_names
from asyncsync.mirror import Mirror
from asyncsync.model import Call
from asyncsync.store import SCRIPT
from asyncsync.tools.errors import CommandFailed
from asyncsync.tools.output import Output

RANKS = {
    RANK_REJECT: "removed: its record could not be encoded",
    RANK_RECORD: "a stream record",
    RANK_REPAIR: "a repair or a reader's fill",
}


@dataclass(frozen=True, slots=True)
class KeyContents:
    """What Redis holds for a key; expiries in milliseconds from now, None for never."""

    key: str
    value: bytes | None  # of a hash a JSON object
    expires_in_ms: int | None
    fence_key: str  # empty for a name that asyncsync does not write, such as a fence's
    fence: bytes | None
    fence_expires_in_ms: int | None


async def read_key(key: str, mirror: Mirror) -> KeyContents:
    """Read a key and its fence in one round trip, as the handler connects.

    Raises CommandFailed or StoreRefused.
    """
    name = key.encode(errors="surrogateescape")
    value_name, fence_name = redis_names(name)
    is_item = value_name == name
    commands = [(b"GET", name), (b"PTTL", name)]
    if is_item:
        commands += [(b"GET", fence_name), (b"PTTL", fence_name)]
    at_slot = slot_of(name, mirror.config)
    calls = [Call(each, (at,), fenced=False, slot=at_slot) for at, each in enumerate(commands)]
    by_script = is_item and mirror.config.value in ARMS
    if by_script:
        calls[0] = read_call(0, mirror.config, name)
    store = mirror.new_store(SCRIPT)
    try:
        written = await store.apply(calls, len(calls), float("inf"))
    finally:
        store.close()
    for outcome in written.outcomes:
        if outcome.kind == "failed":
            server = f"Redis at {mirror.config.server.address}"
            raise CommandFailed(f"{server}: {outcome.error}: {outcome.reason}")
    replies = [outcome.reply for outcome in written.outcomes]
    value, expiry, fence, fence_expiry = (*replies, None, None)[:4]
    if by_script:
        value = _value(snapshot_of(written.outcomes[0], mirror.config), mirror.config)
    return KeyContents(
        key,
        _bytes(value),
        _expiry(expiry),
        fence_name.decode(errors="replace") if is_item else "",
        _bytes(fence),
        _expiry(fence_expiry),
    )


def _value(snapshot: Snapshot, config: Config) -> bytes | None:
    if snapshot.other_type:
        raise CommandFailed(
            f"the key holds a {snapshot.other_type}, no value of the format {config.value}"
        )
    return None if snapshot.value is None else text_of(snapshot.value)


async def get(key: str, mirror: Mirror, output: Output, *, as_json: bool) -> bool:
    """Show a key; return whether Redis holds a value or a fence for it.

    Raises what read_key raises.
    """
    contents = await read_key(key, mirror)
    if as_json:
        output.document(document(contents))
    else:
        for line in lines(contents):
            output.line(line)
    return contents.value is not None or contents.fence is not None


def document(contents: KeyContents) -> dict[str, object]:
    """Return a key's contents as a JSON object; the value is a string, so its digits are exact."""
    fence = None if contents.fence is None else read_fence(contents.fence)
    return {
        "key": contents.key,
        "value": None if contents.value is None else _text(contents.value),
        "expires_in_ms": contents.expires_in_ms,
        "fence_key": contents.fence_key,
        "fence": None if contents.fence is None else _text(contents.fence),
        "fence_expires_in_ms": contents.fence_expires_in_ms,
        "stream": fence and _iso(fence.label_ms),
        "sequence_number": fence and str(fence.sequence_number),
        "rank": fence and int(fence.rank),
    }


def lines(contents: KeyContents) -> list[str]:
    """Return a key's contents as lines for people."""
    shown = [contents.key]
    if contents.value is None:
        shown.append("  value    none")
    else:
        size, expiry = len(contents.value), _when(contents.expires_in_ms)
        shown.append(f"  value    {_text(contents.value)}")
        shown.append(f"           {size:,} bytes, expires {expiry}")
    if contents.fence is None:
        return [*shown, "  fence    none"]
    expiry = _when(contents.fence_expires_in_ms)
    shown.append(f"  fence    {contents.fence_key}, expires {expiry}")
    fence = read_fence(contents.fence)
    if fence is None:
        return [*shown, f"           in an unknown format: {_text(contents.fence)}"]
    return [*shown, *(f"           {line}" for line in _fence_lines(fence))]


def _fence_lines(fence: Fence) -> list[str]:
    if fence.version != NO_VERSION:
        return [
            f"stream of {_iso(fence.label_ms)}",
            f"sequence number {fence.sequence_number}",
            f"rank {fence.rank.decode()}: {RANKS[fence.rank]}",
        ]
    if fence.rank == RANK_REJECT:
        return ["without a version: a reader's claim"]
    return [
        "without a version: no record of its key was known",
        f"rank {fence.rank.decode()}: {RANKS[fence.rank]}",
    ]


def _bytes(reply: object) -> bytes | None:
    return reply if isinstance(reply, bytes) else None


def _expiry(reply: object) -> int | None:
    return reply if isinstance(reply, int) and reply >= 0 else None


def _text(value: bytes) -> str:
    return value.decode(errors="backslashreplace")


def _when(remaining_ms: int | None) -> str:
    if remaining_ms is None:
        return "never"
    minutes, seconds = divmod(remaining_ms // 1_000, 60)
    hours, minutes = divmod(minutes, 60)
    return f"in {hours} h {minutes} min" if hours else f"in {minutes} min {seconds} s"


def _iso(epoch_ms: int) -> str:
    moment = datetime.fromtimestamp(epoch_ms / 1_000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
