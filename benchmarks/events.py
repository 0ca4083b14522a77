"""Seeded events of a DynamoDB stream, as Lambda delivers them, and what they should leave.

Images of about 1 KB hold every attribute type. A batch of the benchmark has one removal in
ten records, and its keys are all distinct or drawn by popularity (zipf), as a busy table's are.
"""

from __future__ import annotations

import random
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson

ARN = "arn:aws:dynamodb:us-east-1:111122223333:table/Players/stream/2026-01-01T00:00:00.000"
WORDS = ["amber", "basalt", "cedar", "dune", "ember", "fjord", "garnet", "köln", "東京", "naïve"]

REMOVED_SHARE = 0.1
POPULATION = 1_000  # items a batch of hot keys is drawn from
POPULARITY = 1.4  # exponent: 100 records change about 35 items, 1 000 about 150

Image = dict[str, dict[str, Any]]
Keys = Literal["hot", "distinct"]
View = Literal["NEW_AND_OLD_IMAGES", "NEW_IMAGE"]


@dataclass(frozen=True, slots=True)
class Change:
    """One change to one item; without an image it was removed."""

    number: str
    image: Image | None
    old_image: Image


@dataclass(frozen=True, slots=True)
class Batch:
    """One event, and for each item's number the image a copy should hold, None for nothing."""

    name: str
    records: int
    keys: Keys
    view: View
    event: bytes
    left: dict[str, Image | None]


def batch(records: int, keys: Keys, view: View, seed: int) -> Batch:
    """Make the event of one batch; equal arguments make equal bytes."""
    chance = random.Random(f"{seed} {records} {keys}")
    if keys == "distinct":
        numbers = list(range(records))
    else:
        weights = [1 / rank**POPULARITY for rank in range(1, POPULATION + 1)]
        numbers = chance.choices(range(POPULATION), weights, k=records)
    changes = []
    for number in numbers:
        removed = chance.random() < REMOVED_SHARE
        made = None if removed else image(number, chance)
        changes.append(Change(str(number), made, image(number, chance)))
    return Batch(
        f"{records:_} {keys}".replace("_", " "),
        records,
        keys,
        view,
        event_of(changes, chance, view),
        {change.number: change.image for change in changes},
    )


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
        "Joined": {"N": str(1_700_000_000 + chance.randrange(10**8))},
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


def modified(images: Sequence[Image]) -> list[Change]:
    """Make one change of each image; its old image is another record's but for the key."""
    return [
        Change(each["Number"]["N"], each, {**images[at - 1], "Number": each["Number"]})
        for at, each in enumerate(images)
    ]


def event_of(changes: Sequence[Change], chance: random.Random, view: str) -> bytes:
    """Wrap changes as Lambda delivers them from a stream, one record each."""
    sequence_number = 6200000000002513011398
    records = []
    for each in changes:
        sequence_number += chance.randrange(1, 10**9)
        change: dict[str, Any] = {
            "ApproximateCreationDateTime": 1_767_225_599.0,
            "Keys": {"Number": {"N": each.number}},
            "SequenceNumber": str(sequence_number),
            "SizeBytes": 700,
            "StreamViewType": view,
        }
        if each.image is not None:
            change["NewImage"] = each.image
        if view == "NEW_AND_OLD_IMAGES":
            change["OldImage"] = each.old_image
        records.append(
            {
                "eventID": f"{chance.getrandbits(128):032x}",
                "eventName": "REMOVE" if each.image is None else "MODIFY",
                "eventVersion": "1.1",
                "eventSource": "aws:dynamodb",
                "awsRegion": "us-east-1",
                "dynamodb": change,
                "eventSourceARN": ARN,
            }
        )
    return orjson.dumps({"Records": records})
