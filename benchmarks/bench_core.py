"""The core's time: from the event's bytes to the plan, beside json and boto3's deserializer.

Ours is decode, collapse, encode, plan; nothing is sent. The other side is what most handlers
do for each record: json.loads, TypeDeserializer, json.dumps; it collapses nothing, names no
key and plans no command, which favours it. Both get the same bytes in the same run, in rounds
of random order, and their values are compared, all of them, before any time is taken.
Exit 1 where the median of the rounds' ratios is below its target.
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
from dataclasses import dataclass
from decimal import Decimal
from importlib.metadata import version
from statistics import median, quantiles
from typing import Any

import orjson
from boto3.dynamodb.types import TypeDeserializer

from asyncsync.collapse import collapse
from asyncsync.config import Config
from asyncsync.decode import decode
from asyncsync.encode import Rules, encode
from asyncsync.model import Call, Encoded
from asyncsync.plan import plan

TARGETS = {"json": 4.0, "dynamodb-json": 10.0}
BASELINE = "json + boto3"
ARN = "arn:aws:dynamodb:us-east-1:111122223333:table/Players/stream/2026-01-01T00:00:00.000"
NOW_MS = 1_767_225_600_000
WORDS = ["amber", "basalt", "cedar", "dune", "ember", "fjord", "garnet", "köln", "東京", "naïve"]

Image = dict[str, dict[str, Any]]


# --- the event --------------------------------------------------------------------------------


def image(number: int, chance: random.Random) -> Image:
    """Make a new image of about 1 KB that holds every attribute type."""

    def words(count: int) -> str:
        return " ".join(chance.choices(WORDS, k=count))

    def digits() -> str:
        # At most 15 digits, so that the float json.dumps writes is the number that came.
        return str(chance.choice((chance.randrange(10**12), chance.randrange(10**9) / 1000)))

    def binary(size: int) -> str:
        return b64encode(chance.randbytes(size)).decode()

    return {
        "Number": {"N": str(number)},
        "Name": {"S": words(2)},
        "Email": {"S": f"player{number}@example.org"},
        "Biography": {"S": words(60)},
        "Score": {"N": digits()},
        "Balance": {"N": f"{chance.randrange(10**8)}.25"},
        "Active": {"BOOL": chance.random() < 0.5},
        "Retired": {"NULL": True},
        "Avatar": {"B": binary(48)},
        "Tags": {"SS": sorted(set(chance.sample(WORDS, 4)))},
        "Levels": {"NS": [str(n) for n in chance.sample(range(1000), 4)]},
        "Tokens": {"BS": [binary(12) for _ in range(2)]},
        "History": {"L": [{"N": digits()}, {"S": words(1)}, {"BOOL": False}]},
        "Address": {
            "M": {
                "City": {"S": words(1)},
                "Code": {"N": str(chance.randrange(10**5))},
                "Lines": {"L": [{"S": words(2)}, {"NULL": True}]},
            }
        },
    }


def event_of(images: Sequence[Image], chance: random.Random) -> bytes:
    """Wrap images as Lambda delivers them from a NEW_IMAGE stream, one record each."""
    sequence_number = 6200000000002513011398
    records = []
    for each in images:
        sequence_number += chance.randrange(1, 10**9)
        change = {
            "ApproximateCreationDateTime": 1_767_225_599.0,
            "Keys": {"Number": each["Number"]},
            "NewImage": each,
            "SequenceNumber": str(sequence_number),
            "SizeBytes": 700,
            "StreamViewType": "NEW_IMAGE",
        }
        records.append(
            {
                "eventID": f"{chance.getrandbits(128):032x}",
                "eventName": "MODIFY",
                "eventVersion": "1.1",
                "eventSource": "aws:dynamodb",
                "awsRegion": "us-east-1",
                "dynamodb": change,
                "eventSourceARN": ARN,
            }
        )
    return orjson.dumps({"Records": records})


# --- ours -------------------------------------------------------------------------------------


def core(event: bytes, rules: Rules) -> tuple[Encoded, list[Call]]:
    """Run the pure stages, as the mirror does."""
    decoded = decode(event)
    assert decoded.stream is not None, "the event has records"
    collapsed = collapse(decoded.records)
    encoded = encode(collapsed.latest, decoded.stream, rules, NOW_MS)
    return encoded, plan(encoded.entries, rules.config)


# --- the other side ---------------------------------------------------------------------------


class LambdaDeserializer(TypeDeserializer):  # type: ignore[misc]  # boto3 has no types
    """boto3's deserializer, mended: B is base64 text in an event, legal numbers may be long."""

    def _deserialize_n(self, value: str) -> Decimal:
        return Decimal(value)

    def _deserialize_b(self, value: str) -> bytes:
        return b64decode(value)


def _plain(value: object) -> object:
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, set):
        return sorted(value)
    assert isinstance(value, bytes), "TypeDeserializer makes nothing else that json cannot write"
    return b64encode(value).decode()


def usual(event: bytes) -> list[str]:
    """Do what most handlers do, from the event's bytes to the value of each record."""
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


def differing(event: bytes, images: Sequence[Image], rules: Mapping[str, Rules]) -> list[str]:
    """Name every value that is not what it should be; an empty list before times mean anything."""
    found = []
    entries = {name: core(event, each)[0].entries for name, each in rules.items()}
    theirs = usual(event)
    for at, original in enumerate(images):
        ours = entries["json"][at].value or b"null"
        if _numbers(ours) != _numbers(theirs[at]):
            found.append(f"json, record {at}: {ours!r} is not {theirs[at]!r}")
        passed = entries["dynamodb-json"][at].value or b"null"
        if json.loads(passed) != original:
            found.append(f"dynamodb-json, record {at}: {passed!r} is not its image")
    for name, each in rules.items():
        encoded, calls = core(event, each)
        if sum(len(call.entries) for call in calls) != len(images) or encoded.rejects:
            found.append(f"{name}: the plan does not hold every record once")
    return found


def _numbers(value: bytes | str) -> Any:
    return json.loads(value, parse_float=Decimal, parse_int=Decimal)


# --- rounds -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Spread:
    """A median with the 10th and the 90th percentile."""

    low: float
    middle: float
    high: float


def spread(samples: Sequence[float]) -> Spread:
    """Summarise samples, of which there must be two or more."""
    tenths = quantiles(samples, n=10, method="inclusive")
    return Spread(tenths[0], median(samples), tenths[-1])


def timed_rounds(
    contestants: Mapping[str, Callable[[], object]], rounds: int, chance: random.Random
) -> dict[str, list[float]]:
    """Run all contestants in each round, in random order; give each one's ms by round."""
    times_ms: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name in chance.sample(list(contestants), len(contestants)):
            gc.collect()  # nobody pays for another's garbage
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
    event = event_of(images, chance)
    rules: dict[str, Rules] = {
        "json": Rules(Config(redis_url="redis://unused", value="json")),
        "dynamodb-json": Rules(Config(redis_url="redis://unused", value="dynamodb-json")),
    }

    wrong = differing(event, images, rules)
    if wrong:
        print(f"{len(wrong)} values differ, the first: {wrong[0]}", file=sys.stderr)
        return 1

    contestants: dict[str, Callable[[], object]] = {BASELINE: lambda: usual(event)}
    for name, each in rules.items():
        contestants[name] = lambda each=each: core(event, each)  # type: ignore[misc]
    timed_rounds(contestants, 3, chance)  # warm-up
    times_ms = timed_rounds(contestants, arguments.rounds, chance)

    size = sum(len(orjson.dumps(each)) for each in images) // len(images)
    print(
        f"{platform.machine()}, Python {platform.python_version()}, msgspec {version('msgspec')}, "
        f"orjson {version('orjson')}, boto3 {version('boto3')}\n"
        f"{len(images)} records of distinct keys, images of {size} bytes, seed {arguments.seed}, "
        f"{arguments.rounds} rounds, all values equal\n"
        f"{'':15}{'ms per 1000 records':>24}{'times faster':>24}{'target':>9}"
    )
    missed = False
    for name, taken_ms in times_ms.items():
        per_1000 = spread([ms * 1_000 / len(images) for ms in taken_ms])
        line = f"{name:15}{_shown(per_1000):>24}"
        if name in TARGETS:
            faster = spread(
                [base / ms for base, ms in zip(times_ms[BASELINE], taken_ms, strict=True)]
            )
            verdict = "" if faster.middle >= TARGETS[name] else "  MISSED"
            missed = missed or bool(verdict)
            line += f"{_shown(faster):>24}{TARGETS[name]:>9.1f}{verdict}"
        print(line)
    print("each: median (10th to 90th percentile of the rounds)")
    return int(missed)


def _shown(each: Spread) -> str:
    return f"{each.middle:.1f} ({each.low:.1f} to {each.high:.1f})"


if __name__ == "__main__":
    sys.exit(main())
