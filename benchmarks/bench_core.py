"""The core's time: from the event's bytes to the plan, beside json and boto3's deserializer.

Ours is decode, collapse, encode and plan; nothing is sent. The other side is what most handlers
do for each record: json.loads, TypeDeserializer, json.dumps. It collapses nothing, names no key
and plans no command, which favours it. Both get the same bytes in the same run, in rounds of
random order. All their values are compared before anything is timed.

Streams of both views are timed. The targets are for NEW_AND_OLD_IMAGES, because the study behind
them measured such events. There json.loads reads the old image too; ours skips it. NEW_IMAGE, the
view that a mirror should have, has no target. Ours knows the images' shape from the warm-up, as in
any invocation but the first. Exit 1 where the median of the rounds' ratios is below its target.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import random
import sys
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from importlib.metadata import version
from operator import attrgetter
from typing import Any

import orjson
from boto3.dynamodb.types import Binary, TypeDeserializer

from asyncsync.collapse import collapse
from asyncsync.config import Config
from asyncsync.decode import decode
from asyncsync.encode import EncodeRules, encode
from asyncsync.model import Call, Encoded, Value
from asyncsync.plan import plan
from benchmarks.events import Image, event_of, image, modified
from benchmarks.report.statistics import summarize

TARGETS = {"json": 4.0, "dynamodb-json": 10.0}
TARGET_VIEW = "NEW_AND_OLD_IMAGES"
VIEWS = (TARGET_VIEW, "NEW_IMAGE")
BASELINE = "json + boto3"
NOW_MS = 1_767_225_600_000


# --- ours -------------------------------------------------------------------------------------


def core(event: bytes, rules: EncodeRules) -> tuple[Encoded, list[Call]]:
    """Run the pure stages, as the mirror does."""
    decoded = decode(event)
    assert decoded.stream is not None, "the event has records"
    collapsed = collapse(decoded.records)
    encoding = encode(collapsed.latest, decoded.stream, rules, NOW_MS)
    calls = list(plan(encoding, rules.config))
    return encoding.finished(), calls


# --- the other side ---------------------------------------------------------------------------


class LambdaDeserializer(TypeDeserializer):  # type: ignore[misc]  # boto3 has no types
    """boto3's deserializer, which also reads B as base64 text, as an event has it."""

    def _deserialize_b(self, value: str) -> Binary:
        return Binary(b64decode(value))


def _plain(value: object) -> object:
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, set):
        is_binary = isinstance(next(iter(value)), Binary)
        return sorted(value, key=attrgetter("value") if is_binary else None)
    assert isinstance(value, Binary), "json writes all else that TypeDeserializer returns"
    return b64encode(value.value).decode()


def usual(event: bytes) -> list[str]:
    """Do what most handlers do, from the event's bytes to each record's value."""
    deserialize = LambdaDeserializer().deserialize
    return [
        json.dumps(
            {
                name: deserialize(attribute)
                for name, attribute in record["dynamodb"]["NewImage"].items()
            },
            default=_plain,
        )
        for record in json.loads(event)["Records"]
    ]


# --- comparison -------------------------------------------------------------------------------


def differing(
    event: bytes, images: Sequence[Image], rules: Mapping[str, EncodeRules]
) -> list[str]:
    """Describe every wrong value; times mean nothing unless the list is empty."""
    faults = []
    entries = {name: core(event, rule)[0].entries for name, rule in rules.items()}
    theirs = usual(event)
    for at, original in enumerate(images):
        ours = _string(entries["json"][at].value)
        if _numbers(ours) != _numbers(theirs[at]):
            faults.append(f"json, record {at}: {ours!r} is not {theirs[at]!r}")
        passed = _string(entries["dynamodb-json"][at].value)
        if json.loads(passed) != original:
            faults.append(f"dynamodb-json, record {at}: {passed!r} is not its image")
    for name, rule in rules.items():
        encoded, calls = core(event, rule)
        if sum(len(call.entries) for call in calls) != len(images) or encoded.rejects:
            faults.append(f"{name}: the plan does not hold every record once")
    return faults


def _string(value: Value | None) -> bytes:
    assert not isinstance(value, tuple), "both formats are strings"
    return value or b"null"


def _numbers(value: bytes | str) -> Any:
    return json.loads(value, parse_float=Decimal, parse_int=Decimal)


# --- rounds -----------------------------------------------------------------------------------


def timed_rounds(
    contestants: Mapping[str, Callable[[], object]], rounds: int, chance: random.Random
) -> dict[str, list[float]]:
    """Run all contestants in each round, in random order; return ms by contestant and round."""
    times_ms: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name in chance.sample(list(contestants), len(contestants)):
            gc.collect()  # no contestant pays for another's garbage
            began_ns = time.perf_counter_ns()
            contestants[name]()
            times_ms[name].append((time.perf_counter_ns() - began_ns) / 1e6)
    return times_ms


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and return the exit code."""
    parser = argparse.ArgumentParser(description="Time the core beside json and boto3.")
    parser.add_argument("--records", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args(argv)

    chance = random.Random(arguments.seed)
    images = [image(number, chance) for number in range(arguments.records)]
    size = sum(len(orjson.dumps(document)) for document in images) // len(images)
    print(
        f"{platform.machine()}, Python {platform.python_version()}, msgspec {version('msgspec')}, "
        f"orjson {version('orjson')}, boto3 {version('boto3')}\n"
        f"{len(images)} records of distinct keys, images of {size} bytes, seed {arguments.seed}, "
        f"{arguments.rounds} rounds"
    )
    missed = False
    for view_type in VIEWS:
        event = event_of(modified(images), chance, view_type)
        rules: dict[str, EncodeRules] = {
            "json": EncodeRules(Config(redis_url="redis://unused", value="json")),
            "dynamodb-json": EncodeRules(
                Config(redis_url="redis://unused", value="dynamodb-json")
            ),
        }
        wrong = differing(event, images, rules)
        if wrong:
            print(f"{len(wrong)} values differ, the first: {wrong[0]}", file=sys.stderr)
            return 1
        contestants: dict[str, Callable[[], object]] = {
            BASELINE: lambda event=event: usual(event)  # type: ignore[misc]
        }
        for name, rule in rules.items():
            contestants[name] = lambda event=event, rule=rule: core(event, rule)  # type: ignore[misc]
        timed_rounds(contestants, 3, chance)  # warm-up
        times_ms = timed_rounds(contestants, arguments.rounds, chance)
        targets = TARGETS if view_type == TARGET_VIEW else {}
        missed = _printed(view_type, times_ms, len(images), targets) or missed
    print("each: median (10th to 90th percentile of the rounds), all values equal")
    return int(missed)


def _printed(
    view_type: str,
    times_ms: Mapping[str, Sequence[float]],
    records: int,
    targets: Mapping[str, float],
) -> bool:
    """Print the table of one view and return whether a target was missed."""
    print(f"{view_type:18}{'ms per 1000 records':>24}{'times faster':>24}{'target':>9}")
    missed = False
    for name, rounds_ms in times_ms.items():
        per_1000 = summarize([ms * 1_000 / records for ms in rounds_ms])
        line = f"  {name:16}{f'{per_1000:.1f}':>24}"
        if name != BASELINE:
            faster = summarize(
                [base / ms for base, ms in zip(times_ms[BASELINE], rounds_ms, strict=True)]
            )
            line += f"{faster:.1f}".rjust(24)
            target = targets.get(name)
            if target is not None:
                is_missed = faster.median < target
                missed = missed or is_missed
                line += f"{target:>9.1f}{'  MISSED' if is_missed else ''}"
        print(line)
    return missed


if __name__ == "__main__":
    sys.exit(main())
