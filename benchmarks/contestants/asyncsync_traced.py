"""asyncsync with a clock between its stages: where the time of an invocation goes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Any

from asyncsync import Config, Mirror, mirror
from asyncsync.connection import Connection, TimeLeft

passed: list[tuple[str, float]] = []


def note(stage: str) -> None:
    """Note that a stage is done."""
    passed.append((stage, time.perf_counter()))


def noted(stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that does the same and notes that it is done."""

    def call(*arguments: Any) -> Any:
        result = function(*arguments)
        note(stage)
        return result

    return call


for name, stage in (
    ("decode", "decode"),
    ("collapse", "collapse"),
    ("encode", "encode: names"),
    ("report", "report"),
):
    setattr(mirror, name, noted(stage, vars(mirror)[name]))

send, receive = Connection.send, Connection.receive


async def traced_send(self: Connection, commands: Any) -> int:
    """Send, and note the moment at which all is on its way."""
    count = await send(self, commands)
    note("encode: values, plan, pack, send")
    return count


async def traced_receive(
    self: Connection, count: int, take: Callable[[object], None], time_left: TimeLeft
) -> None:
    """Receive, and note the last reply."""
    await receive(self, count, take, time_left)
    note("wait for the last reply")


Connection.send, Connection.receive = traced_send, traced_receive  # type: ignore[method-assign]

handle = Mirror(Config.from_env(os.environ), raw_event=True).lambda_handler


def lambda_handler(event: Any, context: Any) -> Any:
    """Mirror the batch and print how long each stage took, in ms."""
    passed.clear()
    last_s = began_s = time.perf_counter()
    answer = handle(event, context)
    note("metrics line, loop, the rest")
    taken: dict[str, float] = {}
    for stage, at_s in passed:
        taken[stage] = round(taken.get(stage, 0.0) + (at_s - last_s) * 1_000, 3)
        last_s = at_s
    print(json.dumps({"stages_ms": taken, "all_ms": (last_s - began_s) * 1_000}), flush=True)
    return answer
