"""With a key function and a transform, every command writes what the handler writes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import anyio.lowlevel
import pytest
import redis

from asyncsync import AttributeValue, Config, Mirror
from asyncsync.aws.clients import AwsClients
from asyncsync.aws.items import json_attributes
from asyncsync.copy.plain import LABEL
from asyncsync.lab.compare import from_json
from asyncsync.lab.demo.changes import make_changes
from asyncsync.lab.servers import ServerProcess
from asyncsync.tools.audit.command import AuditOptions, audit
from asyncsync.tools.backfill.command import BackfillOptions, backfill
from asyncsync.tools.redrive.command import RedriveOptions, redrive
from tests.support.aws.on_failure import discarded
from tests.support.events import FIRST, MOTO_ACCOUNT, SEED, event, record
from tests.support.output import RecordedOutput
from tests.support.tables import Item, load, make_table

TABLE = "Own"

# Items with values of every kind; an older DynamoDB Local refuses empty strings.
ITEMS: list[Item] = [
    each.item for each in make_changes(60, 60, SEED) if each.item and each.item["Odd"] != {"S": ""}
]


def name_of(keys: Mapping[str, AttributeValue]) -> str:
    return f"player/{keys['Number']['N']}"


def public(item: dict[str, object]) -> dict[str, object] | None:
    """Leave out one item in seven and every item's points; add twice the number."""
    number: Any = item["Number"]
    if number % 7 == 0:
        return None
    return {"twice": number * 2} | {name: item[name] for name in ("Number", "Name", "Odd")}


TABLE_ARN = f"arn:aws:dynamodb:us-east-1:{MOTO_ACCOUNT}:table/{TABLE}"

Command = Callable[[AwsClients, Mirror, Path], Awaitable[bool]]


async def by_backfill(clients: AwsClients, mirror: Mirror, _folder: Path) -> bool:
    options = BackfillOptions(table=TABLE, skip_mapping_check=True)
    return await backfill(clients, options, mirror, RecordedOutput())


async def by_audit(clients: AwsClients, mirror: Mirror, _folder: Path) -> bool:
    options = AuditOptions(table=TABLE, recheck_after_s=0.01, repair=True, orphans=True)
    return await audit(clients, options, mirror, RecordedOutput())


async def by_redrive(clients: AwsClients, mirror: Mirror, folder: Path) -> bool:
    described = await clients.items.describe_table(TableName=TABLE)
    table_arn = described["Table"]["TableArn"]
    (folder / "batch").write_bytes(discarded(records(table_arn), table=TABLE))
    options = RedriveOptions(table=TABLE, places=[str(folder)])
    return await redrive(clients, options, mirror, RecordedOutput())


def records(table_arn: str = TABLE_ARN) -> list[Any]:
    """Return the stream's record of each item."""
    return [
        record(
            int(each["Number"]["N"]),
            FIRST + at,
            image=json_attributes(each),
            stream_arn=f"{table_arn}/stream/{LABEL}",
        )
        for at, each in enumerate(ITEMS)
    ]


def copy_of(client: redis.Redis) -> dict[str, Any]:
    """Return every value by name, decoded: a read may return attributes in another order."""
    names = [bytes(name) for name in client.scan_iter() if not bytes(name).endswith(b"!f")]
    values: Any = client.mget(names) if names else []
    return {name.decode(): from_json(value) for name, value in zip(names, values, strict=True)}


@pytest.mark.parametrize("command", [by_backfill, by_audit, by_redrive])
async def test_what_a_command_writes_is_what_the_handler_writes(
    clients: AwsClients,
    real_server: ServerProcess,
    real_client: redis.Redis,
    tmp_path: Path,
    command: Command,
) -> None:
    if TABLE not in (await clients.items.list_tables())["TableNames"]:
        await make_table(clients, TABLE)
        await load(clients, TABLE, ITEMS)
    mirror = Mirror(
        Config(redis_url=real_server.url, metrics="off"), key=name_of, transform=public
    )
    assert await mirror.handle(event(records()), None) == {"batchItemFailures": []}
    written = copy_of(real_client)
    real_client.flushall()
    # Stale values: one of an item that is left out, one without an item.
    if command is by_audit:
        real_client.set("player/7", '{"Number": 7}')
        real_client.set("player/1000", '{"Number": 1000}')

    assert await command(clients, mirror, tmp_path)

    assert copy_of(real_client) == written
    assert len(written) == sum(int(each["Number"]["N"]) % 7 != 0 for each in ITEMS) > 40
    mirror.close()
    await anyio.lowlevel.checkpoint()
