"""What tests plant in a server: foreign keys of every type, and differences of a copy."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import cycle
from typing import Any

import redis

KINDS: dict[str, Callable[[redis.Redis, str], Any]] = {
    "string": lambda client, name: client.set(name, "not ours"),
    "list": lambda client, name: client.rpush(name, "not ours"),
    "set": lambda client, name: client.sadd(name, "not ours"),
    "zset": lambda client, name: client.zadd(name, {"not ours": 1}),
    "hash": lambda client, name: client.hset(name, "not", "ours"),
    "stream": lambda client, name: client.xadd(name, {"not": "ours"}, id="1-1"),
    "bitmap": lambda client, name: client.setbit(name, 7, 1),
    "hyperloglog": lambda client, name: client.pfadd(name, "not ours"),
    "geo": lambda client, name: client.geoadd(name, (1.0, 2.0, "not ours")),
}
TYPES = {b"string", b"list", b"set", b"zset", b"hash", b"stream"}  # Redis's names of them

# Each looks like an item's name only to a reader who checks nothing but the prefix.
NAMES = (
    "Players:index:{n}",
    "Players:ada-{n}",
    "Players:0{n}",
    "Players:{n}.0",
    "Players:{n}:lock",
    "Players:{n} ",
    "Players:%{n}",
    "Players:lock!{n}",
    "Players:" + "f" * 40 + "{n}",
    "Players:{n}e1",
)

# Types under names that an item could have: the handler writes only strings, so anything else is
# foreign.
OF_OTHER_TYPES = ("list", "set", "zset", "hash", "stream", "geo")

Foreign = dict[str, tuple[Any, Any]]  # type and content by name


def plant_foreign(client: redis.Redis, first_free: int) -> Foreign:
    """Plant some two hundred foreign keys; `first_free` is above every item's number."""
    names = [name.format(n=n) for n in range(100, 120) for name in NAMES]
    for name, make in zip(names, cycle(KINDS.values()), strict=False):
        make(client, name)
    for number, kind in enumerate(OF_OTHER_TYPES, first_free):
        names.append(f"Players:{number}")
        KINDS[kind](client, names[-1])
    return look(client, names)


def look(client: redis.Redis, names: list[str] | Foreign) -> Foreign:
    """Return the type and the content of these keys now."""
    return {name: (client.type(name), client.dump(name)) for name in names}


# --- differences of a copy --------------------------------------------------------------------

ITEMS = 240


def plant_differences(client: redis.Redis, table: str) -> dict[str, str]:
    """Write a copy of items 1 to ITEMS with differences of every kind; return them by key."""
    for number in range(1, ITEMS + 1):
        client.set(f"{table}:{number}", json.dumps({"Number": number, "Name": f"item {number}"}))
    planted: dict[str, str] = {}
    for number in range(7, ITEMS, 29):
        client.delete(f"{table}:{number}")
        client.set(f"{table}:{number + 1}", '{"Name":"another"}')
        client.set(f"{table}:{number + 5_000}", "{}")
        planted |= {
            f"{table}:{number}": "missing",
            f"{table}:{number + 1}": "stale",
            f"{table}:{number + 5_000}": "orphan",
        }
    client.rpush(f"{table}:9000", "not ours")
    return planted


def result(lines: list[str]) -> tuple[dict[str, str], dict[str, Any]]:
    """Return an audit's findings by key, and its summary, from its lines of JSON."""
    *findings, summary = (json.loads(line) for line in lines)
    return {finding["key"]: finding["finding"] for finding in findings}, summary
