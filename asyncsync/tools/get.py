"""asyncsync get: show what Redis holds for one key: its value, expiry and fence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from asyncsync.config import Config
from asyncsync.copy.equality import text_of
from asyncsync.errors import StoreRefused
from asyncsync.fence import (
    NO_VERSION,
    RANK_RECORD,
    RANK_REJECT,
    RANK_REPAIR,
    Fence,
    read_fence,
)
from asyncsync.keys import redis_names, slot
from asyncsync.mirror import Mirror
from asyncsync.model import Call, Outcome
from asyncsync.store import SCRIPT, Store
from asyncsync.tools.errors import CommandFailed
from asyncsync.tools.output import Output, plural

RANKS = {
    RANK_REJECT: "removed: its record could not be encoded",
    RANK_RECORD: "a stream record",
    RANK_REPAIR: "a repair or a reader's fill",
}


# How a value is read: a document by its root path. A JSON module's error begins with "Existing".
_GET = (b"GET",)
_READ = {"hash": (b"HGETALL",), "redis-json": (b"JSON.GET", b".")}
_WRONG_TYPE = ("WRONGTYPE", "Existing")


@dataclass(frozen=True, slots=True)
class Content:
    """What one Redis key holds."""

    value: bytes | None = None  # a hash as a JSON object
    expires_in_ms: int | None = None  # from now; None for never
    other_type: str = ""  # of a key that holds no string, such as "list"


@dataclass(frozen=True, slots=True)
class KeyContents:
    """What Redis holds for a key, and in its fence."""

    key: str
    content: Content
    fence_key: str = ""  # empty for a name that asyncsync does not write, such as a fence's
    fence: Content = Content()


async def read_key(key: str, mirror: Mirror) -> KeyContents:
    """Read a key and its fence in one round trip, as the handler connects.

    Raises CommandFailed or StoreRefused.
    """
    name = key.encode(errors="surrogateescape")
    value_name, fence_name = redis_names(name)
    names = [name, fence_name] if value_name == name else [name]
    store = mirror.new_store(SCRIPT)
    try:
        contents = await _contents(store, names, mirror.config)
    finally:
        store.close()
    if len(names) == 1:
        return KeyContents(key, contents[0])
    return KeyContents(key, contents[0], fence_name.decode(errors="replace"), contents[1])


async def _contents(store: Store, names: list[bytes], config: Config) -> list[Content]:
    calls = [
        Call(command, (at,), fenced=False, slot=_slot(command[1], config))
        for at, command in enumerate(_commands(names, config))
    ]
    outcomes = await _ask(store, calls, config)
    contents: list[Content] = []
    for name, got, expiry in zip(names, outcomes[::2], outcomes[1::2], strict=True):
        other_type = await _type(store, name, config) if got.error in _WRONG_TYPE else ""
        contents.append(Content(_value(got.reply), _expiry(expiry.reply), other_type))
    return contents


def _commands(names: list[bytes], config: Config) -> Iterator[tuple[bytes, ...]]:
    """Yield two commands for each key: the first of two may be a value, the other is a fence."""
    for at, name in enumerate(names):
        word, *path = _READ.get(config.value, _GET) if at < len(names) - 1 else _GET
        yield (word, name, *path)
        yield (b"PTTL", name)


def _value(reply: object) -> bytes | None:
    if isinstance(reply, list):  # of a hash
        return text_of(tuple(reply)) if reply else None
    return reply if isinstance(reply, bytes) else None


def _slot(name: bytes, config: Config) -> int | None:
    return slot(name) if config.redis_cluster else None


async def _type(store: Store, name: bytes, config: Config) -> str:
    """Return the type of a key that is no string."""
    try:
        call = Call((b"TYPE", name), (0,), fenced=False, slot=_slot(name, config))
        (outcome,) = await _ask(store, [call], config)
    except StoreRefused:  # a reader's user need not be allowed to ask
        return "value of another type"
    return outcome.reply.decode() if isinstance(outcome.reply, bytes) else ""


async def _ask(store: Store, calls: Sequence[Call], config: Config) -> Sequence[Outcome]:
    written = await store.apply(calls, len(calls), float("inf"))
    for outcome in written.outcomes:
        if outcome.kind == "failed" and outcome.error not in _WRONG_TYPE:
            server = f"Redis at {config.server.address}"
            raise CommandFailed(f"{server}: {outcome.error}: {outcome.reason}")
    return written.outcomes


async def get(
    key: str, mirror: Mirror, output: Output, *, as_json: bool, show_values: bool = True
) -> bool:
    """Show a key; return whether Redis holds a value or a fence for it, and nothing else.

    Raises what read_key raises.
    """
    contents = await read_key(key, mirror)
    if as_json:
        shown = document(contents)
        if not show_values:
            del shown["value"]
        output.document(shown)
    else:
        for line in lines(contents, show_values=show_values):
            output.line(line)
    parts = contents.content, contents.fence
    holds_any = any(part.value is not None for part in parts)
    return holds_any and not any(part.other_type for part in parts)


def document(contents: KeyContents) -> dict[str, object]:
    """Return a key's contents as a JSON object; the value is a string, so its digits are exact."""
    value, fence_value = contents.content.value, contents.fence.value
    fence = None if fence_value is None else read_fence(fence_value)
    return {
        "key": contents.key,
        "value": None if value is None else _text(value),
        "bytes": None if value is None else len(value),
        "other_type": contents.content.other_type or None,
        "expires_in_ms": contents.content.expires_in_ms,
        "fence_key": contents.fence_key,
        "fence": None if fence_value is None else _text(fence_value),
        "fence_expires_in_ms": contents.fence.expires_in_ms,
        "stream": fence and _iso(fence.label_ms),
        "sequence_number": fence and str(fence.sequence_number),
        "rank": fence and int(fence.rank),
    }


def lines(contents: KeyContents, *, show_values: bool = True) -> list[str]:
    """Return a key's contents as lines for people."""
    shown, content = [contents.key], contents.content
    expiry = _when(content.expires_in_ms)
    if content.other_type:
        shown.append(f"  value    none: the key holds a {content.other_type}, expires {expiry}")
        shown.append(
            "           its next change replaces it, and so does asyncsync audit --repair"
        )
    elif content.value is None:
        shown.append("  value    none")
    else:
        value = _text(content.value) if show_values else "not shown: give --show-values"
        shown.append(f"  value    {value}")
        shown.append(f"           {plural(len(content.value), 'byte')}, expires {expiry}")
    fence = contents.fence
    if fence.other_type:
        held = f"{contents.fence_key} holds a {fence.other_type}"
        return [*shown, f"  fence    none: {held}. The item's next change replaces it"]
    if fence.value is None:
        return [*shown, "  fence    none"]
    shown.append(f"  fence    {contents.fence_key}, expires {_when(fence.expires_in_ms)}")
    version = read_fence(fence.value)
    if version is None:
        return [*shown, f"           in an unknown format: {_text(fence.value)}"]
    return [*shown, *(f"           {line}" for line in _fence_lines(version))]


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
