"""Reads of items: pages, single keys, and what leaves items as raw JSON."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from msgspec import DecodeError, Raw

from asyncsync.aws import items as items_module
from asyncsync.aws import raw_items as raw
from asyncsync.aws.budget import ReadBudget
from asyncsync.aws.clients import AwsClients, AwsFailed
from asyncsync.aws.items import (
    ItemPage,
    consistent_reads,
    image_of,
    in_order,
    key_of,
    read_keys,
    scan_page,
    sdk_key,
)
from asyncsync.aws.raw_items import without_items
from asyncsync.aws.tables import Table, describe_table


async def make_table(clients: AwsClients, name: str) -> Table:
    await clients.items.create_table(
        TableName=name,
        KeySchema=[
            {"AttributeName": "Who", "KeyType": "HASH"},
            {"AttributeName": "At", "KeyType": "RANGE"},
        ],
        AttributeDefinitions=[
            {"AttributeName": "Who", "AttributeType": "B"},
            {"AttributeName": "At", "AttributeType": "N"},
        ],
        BillingMode="PAY_PER_REQUEST",
    )
    for at in range(10):
        await clients.items.put_item(
            TableName=name, Item={"Who": {"B": b"\xff"}, "At": {"N": str(at)}}
        )
    return await describe_table(clients, name)


def key(at: str) -> Any:
    return (("At", "N", at), ("Who", "B", "/w=="))


# --- reads ------------------------------------------------------------------------------------


async def test_images_are_in_the_keys_order_and_none_for_an_absent_item(
    clients: AwsClients,
) -> None:
    table = await make_table(clients, "Reads")

    images = await consistent_reads(clients, table, ReadBudget())(
        [key("3"), key("77"), key("1.0")]
    )

    assert [each and orjson.loads(each) for each in images] == [
        {"Who": {"B": "/w=="}, "At": {"N": "3"}},
        None,
        {"Who": {"B": "/w=="}, "At": {"N": "1"}},
    ]


async def test_keys_that_were_not_read_are_asked_for_again(
    clients: AwsClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = await make_table(clients, "Again")
    asked: list[int] = []
    read_keys = items_module.read_keys

    async def few(clients: AwsClients, table: Table, keys: Any) -> ItemPage:
        asked.append(len(keys))
        answer = await read_keys(clients, table, keys[:2])
        return ItemPage(answer.items, keys[2:], answer.units)

    monkeypatch.setattr(items_module, "read_keys", few)
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    budget = ReadBudget(sleep=sleep)

    images = await consistent_reads(clients, table, budget)([key(str(at)) for at in range(5)])

    assert None not in images
    assert asked == [5, 3, 1]
    assert (len(slept), budget.throttled) == (2, 2)


class Silent:
    """DynamoDB's client at an endpoint that reports no consumed capacity, or an empty one."""

    def __init__(self, items: Any, reported: Any) -> None:
        self._items, self._reported = items, reported

    async def scan(self, **request: Any) -> Any:
        return self._without(await self._items.scan(**request))

    async def batch_get_item(self, **request: Any) -> Any:
        return self._without(await self._items.batch_get_item(**request))

    def _without(self, answer: Any) -> Any:
        answer.pop("ConsumedCapacity", None)
        return answer | ({} if self._reported == "absent" else {"ConsumedCapacity": None})


@pytest.mark.parametrize("reported", ["absent", None])
async def test_what_an_endpoint_does_not_report_is_estimated_by_the_items_size(
    clients: AwsClients, endpoint: str, reported: Any
) -> None:
    """--max-rcu limited nothing there: every read counted as free."""
    table = await make_table(clients, f"Silent-{reported}")
    big: Any = {"Who": {"B": b"\xff"}, "At": {"N": "77"}, "Text": {"S": "x" * 9_000}}
    await clients.items.put_item(TableName=table.name, Item=big)
    silent = AwsClients(Silent(clients.items, reported), clients.streams, clients.open)  # type: ignore[arg-type]

    scanned = await scan_page(silent, table, 0, 1, None)
    assert (scanned.units, scanned.is_estimate) == (1.5, True)  # 9.5 KB, eventually consistent
    keys = [sdk_key(key(at)) for at in ("1", "77", "78")]  # 1 unit, 3, and 1 for an absent item
    assert (await read_keys(silent, table, keys)).units == 5.0
    assert (await read_keys(silent, table, keys, consistent=False)).units == 2.5

    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    budget = ReadBudget(1.0, sleep=sleep)
    for _ in range(2):
        await budget.read(lambda: scan_page(silent, table, 0, 1, None))
    assert 1.4 < sum(slept) <= 1.5
    assert budget.note.startswith("--max-rcu limited an estimate")
    assert not ReadBudget().note


async def test_what_an_endpoint_reports_is_no_estimate(clients: AwsClients, endpoint: str) -> None:
    table = await make_table(clients, "Reported")

    page = await scan_page(clients, table, 0, 1, None)

    assert page.units > 0
    assert not page.is_estimate


def test_an_item_that_was_not_asked_for_is_an_error_and_no_absent_item() -> None:
    item: Any = {"Who": {"B": b"\x00"}, "At": {"N": "1"}}

    with pytest.raises(AwsFailed, match="not asked for"):
        in_order([key("1")], [item])


@pytest.mark.parametrize("segments", [1, 3])
async def test_the_pages_of_all_segments_are_the_table(clients: AwsClients, segments: int) -> None:
    name = f"Pages-{segments}"
    await clients.items.create_table(
        TableName=name,
        KeySchema=[{"AttributeName": "At", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "At", "AttributeType": "N"}],
        BillingMode="PAY_PER_REQUEST",
    )
    for at in range(20):
        await clients.items.put_item(TableName=name, Item={"At": {"N": str(at)}})
    table = await describe_table(clients, name)
    seen: list[str] = []
    for segment in range(segments):
        after: Any = None
        while True:
            page = await scan_page(clients, table, segment, segments, after, limit=2)
            assert len(page.items) <= 2
            seen += [key_of(each, ["At"])[0][2] for each in page.items]
            after = page.rest
            if not after:
                break

    assert sorted(map(int, seen)) == list(range(20))


ODD: Any = {
    "Who": {"B": b"\xff\x00"},
    "At": {"N": "-1.5"},
    "Odd, name": {"SS": ["b", "ü", '"quoted"']},
    "Deep": {"M": {"L": {"L": [{"BS": [b"\x01", b"\x00"]}, {"NULL": True}, {"BOOL": False}]}}},
}


async def test_items_stay_raw_only_where_raw_items_are_asked_for(
    clients: AwsClients,
) -> None:
    table = await make_table(clients, "Sent")
    await clients.items.put_item(TableName="Sent", Item=ODD)
    names = ["At", "Who"]

    page = await scan_page(clients, table, 0, 1, None)
    answer = await read_keys(clients, table, [sdk_key(key_of(ODD, names))])
    parsed: Any = await clients.items.scan(TableName="Sent")

    assert page.units > 0
    for items in (page.items, answer.items):
        assert all(isinstance(each, Raw) for each in items)
    assert all(isinstance(each, dict) for each in parsed["Items"])
    assert {key_of(each, names): orjson.loads(image_of(each)) for each in page.items} == {
        key_of(each, names): orjson.loads(image_of(each)) for each in parsed["Items"]
    }
    assert len(page.items) == 11
    (one,) = answer.items
    assert key_of(one, names) == (("At", "N", "-1.5"), ("Who", "B", "/wA="))
    by_the_sdk = {"BS": set(orjson.loads(image_of(one))["Deep"]["M"]["L"]["L"][0]["BS"])}
    assert by_the_sdk == {"BS": {"AQ==", "AA=="}}


def test_an_answer_is_split_only_where_its_form_is_known() -> None:
    body = b'{"Count":1,"Items":[{"A":{"S":"\xc3\xa9\\n"}}],"LastEvaluatedKey":{"A":{"S":"x"}}}'

    rest, member, items = without_items("Scan", body)

    assert orjson.loads(rest) == {"Count": 1, "LastEvaluatedKey": {"A": {"S": "x"}}}
    assert (member, [bytes(each) for each in items]) == ("Items", [b'{"A":{"S":"\xc3\xa9\\n"}}'])
    for other in (b"", b"\xa1", b"[]", b'{"Count":0}', b'{"Items":7}'):
        with pytest.raises((DecodeError, KeyError)):
            without_items("Scan", other)


async def test_the_sdk_parses_an_answer_of_an_unknown_form(
    clients: AwsClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = await make_table(clients, "Unknown")
    scanned = await scan_page(clients, table, 0, 1, None)

    def unknown(_operation: str, _body: bytes) -> Any:
        raise DecodeError

    monkeypatch.setattr(raw, "without_items", unknown)
    parsed = await scan_page(clients, table, 0, 1, None)

    assert {type(each) for each in parsed.items} == {dict}
    assert [orjson.loads(image_of(each)) for each in parsed.items] == [
        orjson.loads(image_of(each)) for each in scanned.items
    ]


@pytest.mark.parametrize("name", ["a", "a-b", "1x", "def", 'q"\\', "ü", "a.b:c {d}"])
def test_a_key_is_read_out_of_raw_json_whatever_its_attributes_name(name: str) -> None:
    image = Raw(orjson.dumps({"Other": {"L": []}, name: {"S": "x"}, "B": {"B": "/w=="}}))

    assert key_of(image, ["B", name]) == (("B", "B", "/w=="), (name, "S", "x"))


def test_a_key_is_converted_to_the_sdks_shape() -> None:
    assert sdk_key(key("1")) == {"At": {"N": "1"}, "Who": {"B": b"\xff"}}
