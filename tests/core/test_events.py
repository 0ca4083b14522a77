"""Whole events through decode, collapse and encode: real ones, and examples people paste."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from asyncsync.collapse import collapse
from asyncsync.config import Config
from asyncsync.decode import decode, to_bytes
from asyncsync.encode import EncodeRules, encode
from asyncsync.errors import EventError
from asyncsync.model import Encoded, Entry, SequenceNumber

EVENTS = Path(__file__).with_name("events")
NOW_MS = 1_767_312_001_000

LABEL_2015_06 = "1435366085899"  # 2015-06-27T00:48:05.899
LABEL_2015_05 = "1431379293291"  # 2015-05-11T21:21:33.291
LABEL_2026 = "1767225600000"


def entry(name: str, label_ms: str, number: str, value: str | None) -> Entry:
    version = f"1{label_ms}{len(number):02d}{number}1"
    return Entry(
        name.encode(),
        f"{{{name}}}!f".encode(),
        version.encode(),
        None if value is None else value.encode(),
        0,
        SequenceNumber(int(number)),
        number,
    )


EVERY_TYPE = (
    '{"Number":7,'
    '"Name":"Zoë \\"the Wall\\" \u2028 \U0001f600",'
    '"Empty":"",'
    '"Digits38":0.12345678901234567890123456789012345678,'
    f'"Large":1{"0" * 100},'
    f'"Smallest":-0.{"0" * 129}1,'
    '"Photo":"/9j/4AAQSkZJRg==",'
    '"Active":true,'
    '"Retired":false,'
    '"Agent":null,'
    '"Clubs":["B","a","b","é"],'
    '"Goals":[-1,0.5,9,10],'
    '"Prints":["AA==","AQ==","/w=="],'
    '"Career":["1998",2,[],{"cups":[3,20]}],'
    '"Address":{"City":"Köln","Geo":{"lat":50.9375}}}'
)

EXPECTED: dict[str, tuple[list[Entry], int]] = {
    "every_type": (
        [entry("Players:7", LABEL_2026, "800000000003126276362", EVERY_TYPE)],
        0,
    ),
    "ttl_delete": (
        [
            entry("Players:8", LABEL_2026, "900000000003126281045", None),
            entry("Players:9", LABEL_2026, "1000000000003126281046", None),
        ],
        0,
    ),
    "text_order": (
        [
            entry(
                "Players:1",
                LABEL_2026,
                "1683700000000000001135967",
                '{"Number":1,"Name":"third"}',
            ),
            entry(
                "Players:2",
                LABEL_2026,
                "1000000000000000000000",
                '{"Number":2,"Name":"back again"}',
            ),
            entry("Players:3", LABEL_2026, "1" + "0" * 39, None),
        ],
        4,
    ),
    "aws_documentation": ([entry("TestTable:101", LABEL_2015_05, "333", None)], 2),
    "sam_generate_event": (
        [entry("ExampleTableWithStream:101", LABEL_2015_06, "4421584500000000017450439093", None)],
        2,
    ),
    "sdk_sample": (
        [
            entry(
                "ExampleTableWithStream:101",
                LABEL_2015_06,
                "111",
                '{"Id":101,"Message":"New item!","Tags":["x","y"],"Parts":[1,null],'
                '"Size":{"cm":3.5}}',
            )
        ],
        0,
    ),
    "same_number_twice": (
        [
            entry(
                "ExampleTableWithStream:101",
                LABEL_2015_06,
                "111",
                '{"Message":"This item has changed","Id":101}',
            )
        ],
        1,
    ),
}
REFUSED = {"placeholder_arn"}


def through(event: bytes) -> tuple[Encoded, int]:
    decoded = decode(event)
    assert decoded.stream is not None
    assert (decoded.rejects, decoded.unnamed) == ([], [])
    collapsed = collapse(decoded.records)
    rules = EncodeRules(Config(redis_url="redis://h"))
    encoded = encode(collapsed.latest, decoded.stream, rules, NOW_MS).finished()
    return encoded, collapsed.superseded


@pytest.mark.parametrize("name", EXPECTED)
def test_an_event_becomes_exactly_these_entries(name: str) -> None:
    raw = (EVENTS / f"{name}.json").read_bytes()

    for event in (raw, to_bytes(json.loads(raw))):
        encoded, superseded = through(event)

        assert (encoded.entries, superseded) == EXPECTED[name]
        assert encoded.rejects == []


# Of one sequence number twice, which record comes later is all that tells them apart.
@pytest.mark.parametrize("name", sorted(EXPECTED.keys() - {"same_number_twice"}))
def test_an_event_whose_records_arrive_backwards_becomes_the_same(name: str) -> None:
    event = json.loads((EVENTS / f"{name}.json").read_bytes())
    event["Records"].reverse()

    encoded, superseded = through(to_bytes(event))

    assert sorted(encoded.entries, key=lambda e: e.name) == EXPECTED[name][0]
    assert superseded == EXPECTED[name][1]


def test_the_order_of_text_is_wrong_where_it_should_be() -> None:
    numbers = [
        record["dynamodb"]["SequenceNumber"]
        for record in json.loads((EVENTS / "text_order.json").read_bytes())["Records"]
    ]

    assert {len(number) for number in numbers} >= {21, 22, 40}
    assert max(numbers[:3]) != str(max(map(int, numbers[:3])))


def test_a_placeholder_arn_is_refused_by_showing_a_real_one() -> None:
    with pytest.raises(EventError) as refused:
        decode((EVENTS / "placeholder_arn.json").read_bytes())

    assert str(refused.value) == (
        "eventSourceARN 'stream-ARN' is not the ARN of a DynamoDB stream, which ends in an ISO "
        "time since 1970; a real one looks like "
        "arn:aws:dynamodb:us-east-1:111122223333:table/Players/stream/2026-01-01T00:00:00.000"
    )


def test_every_event_here_is_tested() -> None:
    assert {path.stem for path in EVENTS.glob("*.json")} == EXPECTED.keys() | REFUSED
