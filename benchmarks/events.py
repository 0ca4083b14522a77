"""Seeded events of a DynamoDB stream, as Lambda delivers them, and the copy they should leave.

Images of about 1 KB hold every attribute type. One record in ten is a removal. Keys are all
distinct, or drawn by popularity (zipf) as in a busy table.
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
POPULATION = 1_000  # items that hot keys are drawn from
POPULARITY = 1.4  # exponent: 100 records change about 35 items, 1,000 about 150

Image = dict[str, dict[str, Any]]
Keys = Literal["hot", "distinct"]
View = Literal["NEW_AND_OLD_IMAGES", "NEW_IMAGE"]


@dataclass(frozen=True, slots=True)
class Change:
    """One change of one item; no image means a removal."""

    number: str
    image: Image | None
    old_image: Image


@dataclass(frozen=True, slots=True)
class Batch:
    """One event, and the image that the copy should hold by item number; None: no value."""

    name: str
    records: int
    keys: Keys
    view: View
    event: bytes
    left: dict[str, Image | None]


def batch(records: int, keys: Keys, view: View, seed: int) -> Batch:
    """Return the event of one batch; equal arguments give equal bytes."""
    chance = random.Random(f"{seed} {records} {keys}")
    if keys == "distinct":
        numbers = list(range(records))
    else:
        weights = [1 / rank**POPULARITY for rank in range(1, POPULATION + 1)]
        numbers = chance.choices(range(POPULATION), weights, k=records)
    changes = []
    for number in numbers:
        removed = chance.random() < REMOVED_SHARE
        new = None if removed else image(number, chance)
        changes.append(Change(str(number), new, image(number, chance)))
    return Batch(
        f"{records:_} {keys}".replace("_", " "),
        records,
        keys,
        view,
        event_of(changes, chance, view),
        {change.number: change.image for change in changes},
    )


def image(number: int, chance: random.Random) -> Image:
    """Return an image of about 1 KB with every attribute type."""

    def words(count: int) -> str:
        return " ".join(chance.choices(WORDS, k=count))

    def digits() -> str:
        # At most 15 digits, so that json.dumps writes the same number from a float.
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
    """Return one change per image; its old image is another record's with this key."""
    return [
        Change(new["Number"]["N"], new, {**images[at - 1], "Number": new["Number"]})
        for at, new in enumerate(images)
    ]


def event_of(changes: Sequence[Change], chance: random.Random, view: str) -> bytes:
    """Return the event of these changes, one record per change."""
    sequence_number = 6200000000002513011398
    records = []
    for change in changes:
        sequence_number += chance.randrange(1, 10**9)
        body: dict[str, Any] = {
            "ApproximateCreationDateTime": 1_767_225_599.0,
            "Keys": {"Number": {"N": change.number}},
            "SequenceNumber": str(sequence_number),
            "SizeBytes": 700,
            "StreamViewType": view,
        }
        if change.image is not None:
            body["NewImage"] = change.image
        if view == "NEW_AND_OLD_IMAGES":
            body["OldImage"] = change.old_image
        records.append(
            {
                "eventID": f"{chance.getrandbits(128):032x}",
                "eventName": "REMOVE" if change.image is None else "MODIFY",
                "eventVersion": "1.1",
                "eventSource": "aws:dynamodb",
                "awsRegion": "us-east-1",
                "dynamodb": body,
                "eventSourceARN": ARN,
            }
        )
    return orjson.dumps({"Records": records})
