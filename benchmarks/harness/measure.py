"""Contestants against one server: started, checked, and timed in rounds.

A contestant is checked as Lambda would leave it: its process is frozen the moment its answer
arrives, and what Redis holds then is compared with the batch, key by key.
"""

from __future__ import annotations

import gc
import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import orjson
import redis

from benchmarks.events import Batch, Image
from benchmarks.harness.bundles import CannotBuild
from benchmarks.harness.contestants import (
    Contestant,
    Endpoint,
    database,
    environment,
    launch_of,
)
from benchmarks.harness.cpu_share import FUNCTIONS_OWN
from benchmarks.harness.runtime_api import Function, FunctionFailed, function

RIGHT = "right"

# A frozen function's last bytes may still be on their way: the server is looked at until it
# has been quiet this long.
_QUIET_S = 0.02

# How long one that was right in nothing yet is given once it is thawed.
_THAWED_S = 0.5

# Lambda freezes a function between invocations, so under a quota each begins with a whole
# slice; a pause of more than a period gives it one.
_PAUSE_S = (0.025, 0.045)


@dataclass(frozen=True, slots=True)
class Network:
    """Where the servers are from a function's view: one server, and a cluster of one node."""

    name: str
    rtt_us: float
    one: Endpoint
    cluster: Endpoint


@dataclass(frozen=True, slots=True)
class Running:
    """A contestant's process, and a client of the server it writes to, at its database."""

    contestant: Contestant
    function: Function
    client: redis.Redis


def start(
    contestants: Sequence[Contestant],
    network: Network,
    stack: ExitStack,
) -> tuple[dict[str, Running], dict[str, str]]:
    """Start contestants; the stack stops them. Return those that run, and why others do not."""
    running: dict[str, Running] = {}
    absent: dict[str, str] = {}
    for each in contestants:
        endpoint = network.cluster if each.server == "cluster" else network.one
        try:
            process = stack.enter_context(started(each, endpoint))
        except (CannotBuild, FunctionFailed) as exc:
            absent[each.name] = str(exc)
            continue
        # A benchmark looks at its server past any proxy.
        client = redis.Redis(port=endpoint.server_port, db=database(each))
        running[each.name] = Running(each, process, stack.enter_context(client))
    return running, absent


def started(contestant: Contestant, endpoint: Endpoint) -> AbstractContextManager[Function]:
    """Return the context of a contestant's process.

    Raises CannotBuild, and FunctionFailed on entering where it does not start.
    """
    command, env, folder = launch_of(contestant)
    env = {**env, **environment(contestant, endpoint)}
    return function(command, env, folder, FUNCTIONS_OWN)


# --- is it right? -----------------------------------------------------------------------------


def verdict(running: Running, batch: Batch) -> str:
    """Give a batch once, from an empty database, freeze as it answers, and say what is held."""
    running.client.flushdb()
    answer = running.function.invoke(batch.event, freeze=True)
    try:
        if answer.kind != "response":
            error = json.loads(answer.body)
            return f"fails: {error['errorType']}: {error['errorMessage'][:200]}"
        _wait_until_quiet(running.client)
        equal = _equal(running, batch)
    finally:
        running.function.thaw()
    if all(equal):
        return RIGHT
    # Lambda may never thaw it: what is right only after that was not written.
    time.sleep(_THAWED_S)
    _wait_until_quiet(running.client)
    if all(_equal(running, batch)):
        # From an empty database a removal is done before it is begun.
        values = [done for done, image in zip(equal, batch.left.values(), strict=True) if image]
        return f"loses writes: {sum(values)} of {len(values)} were there when it answered"
    return f"wrong: {equal.count(False)} of {len(equal)} keys differ"


def _equal(running: Running, batch: Batch) -> list[bool]:
    """Compare what the server holds with what the batch should leave, key by key."""
    if running.contestant.value == "nothing":
        return []
    names = [f"Players:{number}" for number in batch.left]
    if running.contestant.server == "cluster":
        held: Sequence[Any] = [running.client.get(name) for name in names]
    else:
        held = running.client.mget(names)
    plain = running.contestant.value == "json"
    pairs = zip(held, batch.left.values(), strict=True)
    return [_is(value, image, plain) for value, image in pairs]


def _is(value: bytes | None, image: Image | None, plain: bool) -> bool:
    if value is None or image is None:
        return value is None and image is None
    if not plain:
        return bool(orjson.loads(value) == image)
    read: Any = json.loads(value, parse_float=Decimal, parse_int=Decimal)
    return is_plain(read, {"M": image})


def is_plain(read: Any, attribute: Mapping[str, Any]) -> bool:
    """Whether a value read from plain JSON is an attribute's; a set has no order."""
    [(tag, held)] = attribute.items()
    match tag:
        case "N":
            return bool(read == Decimal(held))
        case "NULL":
            return read is None
        case "NS":
            return sorted(read) == sorted(map(Decimal, held))
        case "SS" | "BS":
            return sorted(read) == sorted(held)
        case "L":
            return len(read) == len(held) and all(map(is_plain, read, held))
        case "M":
            return read.keys() == held.keys() and all(
                is_plain(read[name], each) for name, each in held.items()
            )
    return bool(read == held)


def _wait_until_quiet(client: redis.Redis) -> None:
    seen = -1
    while (now := _writes(client)) != seen:
        seen = now
        time.sleep(_QUIET_S)


def _writes(client: redis.Redis) -> int:
    stats: Any = client.info("stats")
    return int(stats["total_net_input_bytes"]) // 1_000  # our own question is of a few bytes


# --- how long does it take? -------------------------------------------------------------------


def timed(
    functions: Sequence[Running],
    batch: Batch,
    rounds: int,
    chance: random.Random,
    *,
    pausing: bool,
    on_round: Callable[[], None] = lambda: None,
) -> dict[str, list[float]]:
    """Invoke every function once a round, in random order; return each one's ms by round."""
    samples_ms: dict[str, list[float]] = {each.contestant.name: [] for each in functions}
    for _ in range(rounds):
        gc.collect()
        gc.disable()
        try:
            for each in chance.sample(functions, len(functions)):
                if pausing:
                    time.sleep(chance.uniform(*_PAUSE_S))
                answer = each.function.invoke(batch.event)
                # It may still be freeing what it parsed, on the processor that is the next one's.
                each.function.wait_until_idle()
                samples_ms[each.contestant.name].append(round(answer.ms, 3))
        finally:
            gc.enable()
        on_round()
    return samples_ms


def cold_starts(
    contestants: Sequence[Contestant],
    network: Network,
    batch: Batch,
    rounds: int,
    chance: random.Random,
    on_round: Callable[[], None],
) -> dict[str, dict[str, list[float]]]:
    """Start every contestant once a round, in random order, and give it one batch."""
    samples: dict[str, dict[str, list[float]]] = {
        each.name: {"init_ms": [], "first_ms": []} for each in contestants
    }
    for _ in range(rounds):
        for each in chance.sample(contestants, len(contestants)):
            endpoint = network.cluster if each.server == "cluster" else network.one
            with started(each, endpoint) as process:
                samples[each.name]["init_ms"].append(round(process.init_ms, 3))
                samples[each.name]["first_ms"].append(round(process.invoke(batch.event).ms, 3))
        on_round()
    return samples
