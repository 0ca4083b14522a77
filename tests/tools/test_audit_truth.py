"""An audit says what it compared and what not, and never "the same" of what it did not compare."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import orjson
import pytest
import redis

from asyncsync.aws.clients import AwsClients
from asyncsync.aws.items import scan_page
from asyncsync.errors import StoreUnavailable
from asyncsync.lab.servers import ServerProcess, free_port
from asyncsync.tools import table_scan
from asyncsync.tools.audit import command
from asyncsync.tools.audit.command import AuditOptions, audit
from asyncsync.tools.audit.report import NAMED_MAX, AuditReport, AuditTally, summary_json
from asyncsync.tools.deadline import DeadlineReached
from tests.support.mirrored_table import filled, mirrored_tables
from tests.support.output import RecordedOutput
from tests.support.tables import load, numbered


@pytest.fixture
async def make(
    clients: AwsClients, endpoint: str, fake_server: ServerProcess, fake_client: redis.Redis
) -> AsyncIterator[Callable[..., Any]]:
    async with mirrored_tables(clients, endpoint, fake_server.url) as make_one:
        yield make_one


VALUES = {  # a value that Redis may hold, and whether it can be an item
    "{}": True,
    '{"Number":1}': True,
    "OK": False,
    "": False,
    "12": False,
    "[1]": False,
    "not JSON": False,
    "\x80": False,
}


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("mode", ["mirror", "refresh", "invalidate"])
async def test_a_value_that_is_no_item_is_a_finding_in_every_mode(
    make: Callable[..., Any], fake_client: redis.Redis, mode: str, value: str
) -> None:
    world = await make(mode=mode)
    await load(world.clients, "Players", numbered(1))
    fake_client.set("Players:1", value.encode("latin-1"))

    found = await world.found()

    is_right = mode == "invalidate" and VALUES[value]
    assert found == ({} if is_right else {"Players:1": "stale"})
    assert world.summary["same"] == 0
    assert (world.summary["compared"], world.summary["not_compared"]) == (
        (0, 1) if is_right else (1, 0)
    )


@pytest.mark.parametrize(
    ("mode", "values", "said"),
    [
        (
            "invalidate",
            {1: "{}", 2: "{}"},
            ["no key was compared", "3 keys not compared: their values are the readers' choice"],
        ),
        ("invalidate", {}, ["no key was compared", "3 keys not compared"]),
        (
            "refresh",
            {1: '{"Number":1,"Name":"item 1"}'},
            ["1 of 1 key is the same", "2 keys not compared: absent from the copy, which may be"],
        ),
        (
            "refresh",
            {},
            ["no key was compared", "the copy has none of the keys: is ASYNCSYNC_KEY"],
        ),
        (
            "mirror",
            {},
            ["0 of 3 keys are the same", "the copy has none of the keys: is ASYNCSYNC_KEY"],
        ),
        ("mirror", {1: "{}"}, ["0 of 3 keys are the same", "2 missing, 1 stale"]),
    ],
)
async def test_what_was_not_compared_is_not_the_same(
    make: Callable[..., Any],
    fake_client: redis.Redis,
    mode: str,
    values: dict[int, str],
    said: list[str],
) -> None:
    world = await make(mode=mode)
    await load(world.clients, "Players", numbered(3))
    for number, value in values.items():
        fake_client.set(f"Players:{number}", value)

    await world.audit()

    text = "\n".join(world.said)
    assert all(each in text for each in said), text
    assert "3 of 3" not in text
    assert ("is ASYNCSYNC_KEY" in text) == (not values and mode != "invalidate")


async def test_an_empty_table_and_a_copy_of_foreign_keys_are_not_the_same(
    make: Callable[..., Any], fake_client: redis.Redis
) -> None:
    world = await make()
    fake_client.set("Players:not:ours", "{}")

    assert await world.audit()

    assert world.said[0] == "no key was compared: the scan found no items"
    assert "0 names of the copy; 1 foreign, left alone" in "\n".join(world.said)


async def test_another_template_than_the_functions_is_asked_about(
    make: Callable[..., Any], fake_client: redis.Redis
) -> None:
    world = await make(key="{@table}:{@key}")
    await load(world.clients, "Players", numbered(3))
    for number in range(1, 4):
        fake_client.set(f"Prod:{number}", orjson.dumps({"Number": number}))

    assert not await world.audit()

    doubt = "  the copy has none of the keys: is ASYNCSYNC_KEY the function's? ({@table}:{@key})"
    assert doubt in world.said


async def test_after_a_repair_the_result_says_what_it_is_of(
    make: Callable[..., Any], fake_client: redis.Redis
) -> None:
    world = await filled(make, 5)
    fake_client.delete("Players:2")

    assert await world.audit(repair=True)

    assert "4 of 5 keys were, before the repair, the same in table and copy" in world.said
    assert world.said[-2:] == [
        "  what was repaired was not compared again",
        "  1 repaired, 0 left",
    ]
    assert await world.audit()
    assert world.said[0] == "5 of 5 keys are the same in table and copy"


async def test_an_audit_that_is_resumed_counts_what_was_not_compared_before(
    make: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def few(
        clients: Any, table: Any, segment: int, segments: int, after: Any, *_: Any
    ) -> Any:
        return await scan_page(clients, table, segment, segments, after, 5)

    monkeypatch.setattr(table_scan, "scan_page", few)
    monkeypatch.setattr(command, "WORKERS_MAX", 1)
    world = await make(mode="refresh")
    await load(world.clients, "Players", numbered(12))
    state = tmp_path / "state"
    ends = 0
    lines: list[str] = []
    for _ in range(20):
        output = RecordedOutput()
        options = AuditOptions(
            table="Players", endpoint_url=world.endpoint, recheck_after_s=0.01, state=str(state)
        )
        try:
            await audit(world.clients, options, world.mirror, output, lambda: 0.0)
        except DeadlineReached:
            ends += 1
            continue
        lines = output.lines
        break

    assert ends
    assert "no key was compared" in lines
    assert "12 keys not compared" in "\n".join(lines)


async def test_a_server_that_is_away_costs_no_scan_and_no_minute(
    make: Callable[..., Any], clients: AwsClients
) -> None:
    world = await make(redis_url=f"redis://127.0.0.1:{free_port()}")

    with anyio.fail_after(5), pytest.raises(StoreUnavailable, match="cannot connect"):
        await world.audit()


async def test_the_list_of_findings_is_capped_and_json_has_all(
    make: Callable[..., Any], fake_client: redis.Redis
) -> None:
    world = await filled(make, NAMED_MAX + 3)
    for number in range(1, NAMED_MAX + 4):
        fake_client.set(f"Players:{number}", "garbage")

    assert not await world.audit()
    assert sum(line.startswith("stale") for line in world.said) == NAMED_MAX
    assert "and 3 more (--json has all)" in world.said
    assert len(await world.found()) == NAMED_MAX + 3


@pytest.mark.parametrize(
    ("tally", "share"),
    [
        (AuditTally(keys=10, uncompared=10), None),
        (AuditTally(keys=0), None),
        (AuditTally(keys=10, uncompared=4), 1.0),
        (AuditTally(keys=10, uncompared=4, stale=3), 0.5),
    ],
)
def test_a_share_is_of_what_was_compared(tally: AuditTally, share: float | None) -> None:
    summary = summary_json(tally, AuditTally(), is_whole=False)

    assert summary.get("share") == share
    output = RecordedOutput()
    report = AuditReport(output)
    report.items = tally
    report.end(is_whole=False)
    assert ("no key was compared" in output.lines[0]) == (share is None)
