"""Starts contestants, checks them, and times them in rounds.

The check is as strict as Lambda: it freezes a process the moment its answer arrives, and compares
what Redis holds then with the batch, key by key.
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

# A frozen function's last bytes may still be on their way: wait until the server has been quiet
# this long.
_QUIET_S = 0.02

# Time for a thawed function to finish its writes.
_THAWED_S = 0.5

# Lambda freezes a function between invocations, so under a quota each begins with a whole
# slice; a pause of more than a period gives it one.
_PAUSE_S = (0.025, 0.045)


@dataclass(frozen=True, slots=True)
class Network:
    """The servers as a function reaches them: one server, and a cluster of one node."""

    name: str
    rtt_us: float
    one: Endpoint
    cluster: Endpoint

    def endpoint_of(self, contestant: Contestant) -> Endpoint:
        """Return the endpoint of the server that a contestant writes to."""
        return self.cluster if contestant.server == "cluster" else self.one


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
    """Start contestants until the stack closes; return those that run, and why others do not."""
    running: dict[str, Running] = {}
    absent: dict[str, str] = {}
    for contestant in contestants:
        endpoint = network.endpoint_of(contestant)
        try:
            process = stack.enter_context(process_of(contestant, endpoint))
        except (CannotBuild, FunctionFailed) as exc:
            absent[contestant.name] = str(exc)
            continue
        # The benchmark itself reaches the server without the proxy.
        client = redis.Redis(port=endpoint.server_port, db=database(contestant))
        running[contestant.name] = Running(contestant, process, stack.enter_context(client))
    return running, absent


def process_of(contestant: Contestant, endpoint: Endpoint) -> AbstractContextManager[Function]:
    """Return the context of a contestant's process.

    Raises CannotBuild, and FunctionFailed on entering where it does not start.
    """
    command, env, folder = launch_of(contestant)
    env = {**env, **environment(contestant, endpoint)}
    return function(command, env, folder, FUNCTIONS_OWN)


# --- is it right? -----------------------------------------------------------------------------


def verdict(running: Running, batch: Batch) -> str:
    """Send a batch to an empty database, freeze at the answer, and judge what Redis holds."""
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
    # Lambda may never thaw it, so a write after that does not count.
    time.sleep(_THAWED_S)
    _wait_until_quiet(running.client)
    if all(_equal(running, batch)):
        # In an empty database a removal is right before it happens.
        values = [
            is_equal for is_equal, image in zip(equal, batch.left.values(), strict=True) if image
        ]
        return f"loses writes: {sum(values)} of {len(values)} were there when it answered"
    return f"wrong: {equal.count(False)} of {len(equal)} keys differ"


def _equal(running: Running, batch: Batch) -> list[bool]:
    """Compare what the server holds with what the batch should leave, key by key."""
    if running.contestant.value == "nothing":
        return []
    names = [f"Players:{number}" for number in batch.left]
    if running.contestant.server == "cluster":
        values: Sequence[Any] = [running.client.get(name) for name in names]
    else:
        values = running.client.mget(names)
    plain = running.contestant.value == "json"
    pairs = zip(values, batch.left.values(), strict=True)
    return [_is(value, image, plain) for value, image in pairs]


def _is(value: bytes | None, image: Image | None, plain: bool) -> bool:
    if value is None or image is None:
        return value is None and image is None
    if not plain:
        return bool(orjson.loads(value) == image)
    read: Any = json.loads(value, parse_float=Decimal, parse_int=Decimal)
    return is_plain(read, {"M": image})


def is_plain(read: Any, attribute: Mapping[str, Any]) -> bool:
    """Whether a value from plain JSON equals an attribute; a set has no order."""
    [(tag, value)] = attribute.items()
    match tag:
        case "N":
            return bool(read == Decimal(value))
        case "NULL":
            return read is None
        case "NS":
            return sorted(read) == sorted(map(Decimal, value))
        case "SS" | "BS":
            return sorted(read) == sorted(value)
        case "L":
            return len(read) == len(value) and all(map(is_plain, read, value))
        case "M":
            return read.keys() == value.keys() and all(
                is_plain(read[name], member) for name, member in value.items()
            )
    return bool(read == value)


def _wait_until_quiet(client: redis.Redis) -> None:
    before = -1
    while (now := _writes(client)) != before:
        before = now
        time.sleep(_QUIET_S)


def _writes(client: redis.Redis) -> int:
    stats: Any = client.info("stats")
    return int(stats["total_net_input_bytes"]) // 1_000  # this very question has a few bytes


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
    """Invoke every function once a round, in random order; return ms by name and round."""
    samples_ms: dict[str, list[float]] = {running.contestant.name: [] for running in functions}
    for _ in range(rounds):
        gc.collect()
        gc.disable()
        try:
            for running in chance.sample(functions, len(functions)):
                if pausing:
                    time.sleep(chance.uniform(*_PAUSE_S))
                answer = running.function.invoke(batch.event)
                # It may still free what it parsed, on the processor that the next one needs.
                running.function.wait_until_idle()
                samples_ms[running.contestant.name].append(round(answer.ms, 3))
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
    """Start every contestant once a round, in random order, and send it one batch."""
    samples: dict[str, dict[str, list[float]]] = {
        contestant.name: {"init_ms": [], "first_ms": []} for contestant in contestants
    }
    for _ in range(rounds):
        for contestant in chance.sample(contestants, len(contestants)):
            times_ms = samples[contestant.name]
            with process_of(contestant, network.endpoint_of(contestant)) as process:
                times_ms["init_ms"].append(round(process.init_ms, 3))
                times_ms["first_ms"].append(round(process.invoke(batch.event).ms, 3))
        on_round()
    return samples
