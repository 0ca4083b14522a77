"""What was measured: bytes of keys in real servers, and the time of a call.

Bytes are those of benchmarks/results/memory.json (`make bench-memory`), times the billed ones of
benchmarks/results/full.json (`make bench-full`). Tests hold them equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

NAME_BYTES = 20  # of the names that were measured


class KeySize(NamedTuple):
    """Mean bytes of an item as DynamoDB counts them, of its value, and of its key's memory."""

    item: float
    value: float
    memory: float


# By server and value format, smallest item first. Memory is value, name and the server's own.
KEYS: Mapping[str, Mapping[str, Sequence[KeySize]]] = {
    "redis-7.0": {
        "json": (
            KeySize(111.8, 176.4, 286.8),
            KeySize(988.9, 1228.4, 1434.2),
            KeySize(9542.9, 11660.9, 12794.2),
        ),
        "dynamodb-json": (
            KeySize(111.8, 237.1, 357.5),
            KeySize(988.9, 1467.8, 1736.1),
            KeySize(9542.9, 13917.1, 14971.3),
        ),
    },
    "redis-8.0": {
        "json": (
            KeySize(111.8, 176.4, 286.8),
            KeySize(988.9, 1228.4, 1434.3),
            KeySize(9542.9, 11660.9, 12794.3),
        ),
        "dynamodb-json": (
            KeySize(111.8, 237.1, 357.5),
            KeySize(988.9, 1467.8, 1736.1),
            KeySize(9542.9, 13917.1, 14971.3),
        ),
    },
    "valkey-8.0": {
        "json": (
            KeySize(111.8, 176.4, 270.8),
            KeySize(988.9, 1228.4, 1418.2),
            KeySize(9542.9, 11660.9, 12778.2),
        ),
        "dynamodb-json": (
            KeySize(111.8, 237.1, 341.5),
            KeySize(988.9, 1467.8, 1720.1),
            KeySize(9542.9, 13917.1, 14955.3),
        ),
    },
    "valkey-9.1": {
        "json": (
            KeySize(111.8, 176.4, 257.1),
            KeySize(988.9, 1228.4, 1405.1),
            KeySize(9542.9, 11660.9, 12765.1),
        ),
        "dynamodb-json": (
            KeySize(111.8, 237.1, 328.3),
            KeySize(988.9, 1467.8, 1706.9),
            KeySize(9542.9, 13917.1, 14942.1),
        ),
    },
}

# A fence with its name, and what an expiry adds to a key.
FENCE_BYTES: Mapping[str, float] = {
    "redis-7.0": 181.2,
    "redis-8.0": 182.9,
    "valkey-8.0": 165.2,
    "valkey-9.1": 123.0,
}
EXPIRY_BYTES: Mapping[str, float] = {
    "redis-7.0": 42.5,
    "redis-8.0": 42.5,
    "valkey-8.0": 42.5,
    "valkey-9.1": 13.8,
}

# Billed ms of a call with Redis 0.5 ms away, by value format and memory in MB, as pairs of
# records and ms. Both images of an item of about 1 KB are in each record; NEW_IMAGE is faster.
TIMES_ITEM_BYTES = 1_000
TIMES_MS: Mapping[str, Mapping[int, Sequence[tuple[int, float]]]] = {
    "json": {
        128: ((1, 3.0), (10, 3.0), (100, 7.0), (1_000, 354.0)),
        256: ((1, 2.0), (10, 3.0), (100, 5.0), (1_000, 218.0)),
        512: ((1, 2.0), (10, 3.0), (100, 5.0), (1_000, 66.0)),
        1_024: ((1, 2.0), (10, 3.0), (100, 5.0), (1_000, 30.0)),
        1_769: ((1, 2.0), (10, 2.0), (100, 5.0), (1_000, 34.0)),
    },
    "dynamodb-json": {
        128: ((1, 3.0), (10, 3.0), (100, 4.0), (1_000, 229.0)),
        256: ((1, 2.0), (10, 2.0), (100, 4.0), (1_000, 100.0)),
        512: ((1, 2.0), (10, 3.0), (100, 5.0), (1_000, 39.0)),
        1_024: ((1, 2.0), (10, 2.0), (100, 4.0), (1_000, 18.0)),
        1_769: ((1, 2.0), (10, 2.0), (100, 4.0), (1_000, 24.0)),
    },
}
