"""Measure the memory of a copy's keys on real servers, and write benchmarks/results/memory.json.

`make bench-memory SERVERS=folder:folder` runs it; a folder holds `redis-server` or
`valkey-server`. The product itself writes each copy: `Mirror` gets events of a stream. A copy is
weighed as the difference of the server's `used_memory` before and after, with no client but the
one that asks. Items have about 100, 1,000 and 10,000 bytes as DynamoDB counts them, each up to
half more or less, so that no size class of the allocator is favoured. Names have 20 bytes. Fences
are weighed alone: a removal leaves one, and no value.

The items' own sizes are measured too: how many bytes of a value an item's byte becomes.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import subprocess
import time
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import redis

from asyncsync.config import Config
from asyncsync.lab.servers import redis_process
from asyncsync.mirror import Mirror
from benchmarks.events import Change, Image, event_of, image
from tests.programs.matrix import versions

RESULTS = Path(__file__).parent / "results" / "memory.json"

KEYS = 100_000
ITEM_BYTES = (100, 1_000, 10_000)
FIRST_NUMBER = 100_000_000_000  # twelve digits: "Players:" and the number are 20 bytes
NAME_BYTES = 20
AT_REST_BYTES = 16_384  # the server's own work between two readings
AT_REST_S = 0.2
POOL = 500  # different items; the copy's keys hold them in turn
BATCH_BYTES = 3_000_000  # of items in an event; a Lambda event has at most 6 MB
EXPIRY = {"ttl_s": 86_400}

# The formats to weigh, each with what reads the bytes of a value. A new format is a row here, one
# in asyncsync/tools/estimate/measured.py, and a contestant of bench-full for its times.
FORMATS: Mapping[str, Callable[[redis.Redis, str], int]] = {
    "json": lambda client, name: client.strlen(name),
    "dynamodb-json": lambda client, name: client.strlen(name),
}


# --- items ------------------------------------------------------------------------------------


def item(size: int, chance: random.Random) -> Image:
    """Return an item of about this many bytes, as DynamoDB counts them, give or take a half."""
    wanted = chance.randint(size // 2, size + size // 2)
    made: Image = {}
    copies = 0
    while (missing := wanted - dynamodb_bytes(made)) > size // 10:
        before = len(made)
        for name, value in image(copies, chance).items():
            attribute = {f"{name}{copies or ''}": value}
            if name != "Number" and dynamodb_bytes(attribute) <= missing:
                made |= attribute
                missing -= dynamodb_bytes(attribute)
        if len(made) == before:
            break
        copies += 1
    return made


def dynamodb_bytes(attributes: Mapping[str, Mapping[str, Any]]) -> int:
    """Return an item's size by DynamoDB's rules (Developer Guide, "Item sizes and formats")."""
    return sum(len(name.encode()) + _attribute_bytes(value) for name, value in attributes.items())


def _attribute_bytes(attribute: Mapping[str, Any]) -> int:
    ((tag, value),) = attribute.items()
    if tag in ("S", "N", "B"):
        return _scalar_bytes(tag, value)
    if tag in ("SS", "NS", "BS"):
        return sum(_scalar_bytes(tag[0], each) for each in value)
    if tag == "L":
        return 3 + sum(1 + _attribute_bytes(each) for each in value)
    if tag == "M":
        return 3 + sum(1 + len(k.encode()) + _attribute_bytes(v) for k, v in value.items())
    return 1  # BOOL and NULL


def _scalar_bytes(tag: str, value: str) -> int:
    if tag == "S":
        return len(value.encode())
    if tag == "B":
        return len(b64decode(value))
    digits = value.lstrip("-").replace(".", "").strip("0") or "0"
    return (len(digits) + 1) // 2 + 1 + value.startswith("-")


def batches(size: int, keys: int, *, removed: bool = False) -> Iterator[tuple[bytes, int]]:
    """Yield events that hold an item of each key once, with the items' bytes in each event."""
    chance = random.Random(size)
    pool = [item(size, chance) for _ in range(POOL)]
    key_bytes = dynamodb_bytes({"Number": {"N": str(FIRST_NUMBER + 1)}})
    sizes = [dynamodb_bytes(each) + key_bytes for each in pool]
    changes: list[Change] = []
    total = 0
    for number in range(FIRST_NUMBER + 1, FIRST_NUMBER + keys + 1):
        key = {"Number": {"N": str(number)}}
        changes.append(Change(str(number), None if removed else key | pool[number % POOL], {}))
        total += sizes[number % POOL]
        if len(changes) == 1_000 or total > BATCH_BYTES:
            yield event_of(changes, chance, "NEW_IMAGE"), total
            changes, total = [], 0
    if changes:
        yield event_of(changes, chance, "NEW_IMAGE"), total


# --- one copy ---------------------------------------------------------------------------------


def weigh(
    url: str, events: Iterator[tuple[bytes, int]], keys: int, **settings: Any
) -> dict[str, float]:
    """Write a copy into an empty server; return bytes a key: of memory, of value, of item."""
    with redis.Redis.from_url(url) as client:
        client.flushall()
    before = used_memory(url)
    mirror = Mirror(Config(redis_url=url, metrics="off", **settings))
    items = 0
    for event, size in events:
        answer = mirror.lambda_handler(event, None)
        assert answer == {"batchItemFailures": []}, answer
        items += size
    mirror.close()
    memory = used_memory(url) - before
    with redis.Redis.from_url(url) as client:
        names = [f"Players:{FIRST_NUMBER + at}" for at in range(1, min(keys, POOL) + 1)]
        assert {len(name) for name in names} == {NAME_BYTES}
        reads = FORMATS[settings.get("value", "json")]
        values = sum(reads(client, name) for name in names) / len(names)
    return {
        "memory": round(memory / keys, 1),
        "value": round(values, 1),
        "item": round(items / keys, 1),
    }


def used_memory(url: str) -> int:
    """Return used_memory once it has come to rest: a hash table grows a step at a time."""
    with redis.Redis.from_url(url) as client:
        readings = [0]
        while True:
            time.sleep(AT_REST_S)
            readings.append(int(client.info("memory")["used_memory"]))
            if abs(readings[-1] - readings[-2]) < AT_REST_BYTES:
                return readings[-1]


# --- every server -----------------------------------------------------------------------------


def measure(binary: Path, keys: int) -> dict[str, Any]:
    """Measure one server: each format at each size, fences alone, and a value's expiry."""
    with redis_process(str(binary)) as server:
        # The first write loads the script, which the server keeps.
        weigh(server.url, batches(100, 1), 1)
        fences = weigh(server.url, batches(100, keys, removed=True), keys)["memory"]
        rows = {
            name: {
                str(size): weigh(server.url, batches(size, keys), keys, value=name, fence="off")
                for size in ITEM_BYTES
            }
            for name in FORMATS
        }
        expiring = weigh(server.url, batches(100, keys), keys, fence="off", **EXPIRY)["memory"]
    plain = rows["json"]["100"]["memory"]
    return {
        "fence": fences,
        "expiry": round(expiring - plain, 1),
        "formats": rows,
    }


def main() -> int:
    """Measure every server and write the result."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("servers", nargs="+", help="folders, with : between them")
    parser.add_argument("--keys", type=int, default=KEYS)
    parser.add_argument("--into", type=Path, default=RESULTS)
    options = parser.parse_args()
    folders = [Path(each) for text in options.servers for each in text.split(":") if each]
    found = [(folder / name, server) for folder in folders for name, server in versions(folder)]
    if not found or len(found) < len(set(folders)):
        parser.error("give folders, each with redis-server or valkey-server")
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    result: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit,
        "machine": platform.machine(),
        "keys": options.keys,
        "name_bytes": NAME_BYTES,
        "servers": {},
    }
    for binary, server in found:
        began_s = time.monotonic()
        result["servers"][server] = measure(binary, options.keys)
        print(f"{server}: {time.monotonic() - began_s:.0f} s", flush=True)
        print(json.dumps(result["servers"][server]), flush=True)
    options.into.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
