"""A saved run is resumed only on the table, copy and settings that it belongs to."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import redis

from asyncsync import Config, Mirror
from asyncsync.aws.clients import AwsClients, open_clients
from asyncsync.lab.servers import ServerProcess
from asyncsync.tools.audit.command import AuditOptions, audit
from asyncsync.tools.backfill.command import BackfillOptions, backfill
from asyncsync.tools.errors import CommandRefused
from asyncsync.tools.redrive.command import RedriveOptions, redrive
from asyncsync.tools.retire.command import RetireOptions, retire
from asyncsync.tools.state import SavedRun
from tests.support.output import RecordedOutput
from tests.support.tables import load, make_table, numbered, only_moto

COMMANDS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "backfill": (backfill, BackfillOptions, {"skip_mapping_check": True}),
    "audit": (audit, AuditOptions, {"recheck_after_s": 0.01, "orphans": False}),
    "redrive": (redrive, RedriveOptions, {"places": ["."]}),
    "retire": (retire, RetireOptions, {"template": "old:{Number}"}),
}


def named(keys: Mapping[str, Any]) -> str:
    return f"mine:{keys['Number']['N']}"


def shaped(item: dict[str, object]) -> dict[str, object]:
    return item


FIRST_LAMBDA = lambda item: item  # noqa: E731
SECOND_LAMBDA = lambda item: {**item}  # noqa: E731

# What differs in the second run, and what the refusal says that it was and is now.
DIFFERENCES: dict[str, tuple[dict[str, Any], dict[str, Any], str, str, str]] = {
    "another host": ({}, {"host": "localhost"}, "redis", "127.0.0.1:", "localhost:"),
    "another database": ({}, {"database": 1}, "redis", "127.0.0.1:", ", database 1"),
    "key template": ({}, {"key": "v2:{Number}"}, "key", "{@table}:{@key}", "v2:{Number}"),
    "key function": ({}, {"name": named}, "key", "{@table}:{@key}", "test_state.named"),
    "value format": ({}, {"value": "dynamodb-json"}, "value", "'json'", "dynamodb-json"),
    "fields": ({}, {"fields": "Name"}, "value", "'json'", "json of Name"),
    "a transform's format": (
        {"transform": shaped},
        {"transform": shaped, "value": "hash"},
        "value",
        "by ",
        "hash by ",
    ),
    "transform": ({}, {"transform": shaped}, "value", "'json'", "test_state.shaped"),
    "two lambdas": (
        {"transform": FIRST_LAMBDA},
        {"transform": SECOND_LAMBDA},
        "value",
        f"line {FIRST_LAMBDA.__code__.co_firstlineno}",
        f"line {SECOND_LAMBDA.__code__.co_firstlineno}",
    ),
    "expiry": ({}, {"ttl_s": 600}, "expiry", "[None, None]", "[600, None]"),
    "expiry by attribute": ({}, {"ttl_attribute": "E"}, "expiry", "None]", "'E']"),
}

Run = Callable[..., Any]


@pytest.fixture
def run(
    fake_server: ServerProcess,
    fake_client: redis.Redis,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Run:
    """Return a function that runs a command whose state stays, as after a kill at its end."""

    async def keep(_: SavedRun) -> None:
        """Remove nothing."""

    monkeypatch.setattr(SavedRun, "remove", keep)
    monkeypatch.chdir(tmp_path)

    async def run_one(clients: AwsClients, command: str, **settings: Any) -> bool:
        host, database = settings.pop("host", "127.0.0.1"), settings.pop("database", 0)
        name, transform = settings.pop("name", None), settings.pop("transform", None)
        config = Config(redis_url=f"redis://{host}:{fake_server.port}/{database}", **settings)
        mirror = Mirror(config, key=name, transform=transform, emit=lambda _: None)
        do, options, more = COMMANDS[command]
        wanted = options(table="Players", state=str(tmp_path / "x.state"), **more)
        return bool(await do(clients, wanted, mirror, RecordedOutput()))

    return run_one


@pytest.mark.parametrize("what", DIFFERENCES)
@pytest.mark.parametrize("command", COMMANDS)
async def test_other_settings_do_not_resume_a_run(
    clients: AwsClients, endpoint: str, run: Run, command: str, what: str
) -> None:
    """A2: with another database or transform, half a copy was filled and called done."""
    if "Players" not in (await clients.items.list_tables())["TableNames"]:
        await make_table(clients, "Players")
        await load(clients, "Players", numbered(1))
    before, now, name, was, is_now = DIFFERENCES[what]
    await run(clients, command, **before)

    said = f"another run: {name} was .*{re.escape(was)}.* and is now .*{re.escape(is_now)}"
    with pytest.raises(CommandRefused, match=said):
        await run(clients, command, **now)
    await run(clients, command, **before)


async def test_another_mode_does_not_resume_an_audit(
    clients: AwsClients, endpoint: str, run: Run
) -> None:
    if "Players" not in (await clients.items.list_tables())["TableNames"]:
        await make_table(clients, "Players")
    await run(clients, "audit")

    with pytest.raises(CommandRefused, match="mode was 'mirror' and is now 'refresh'"):
        await run(clients, "audit", mode="refresh")


@only_moto
@pytest.mark.parametrize("command", COMMANDS)
async def test_another_table_of_the_same_name_does_not_resume_a_run(
    clients: AwsClients, endpoint: str, run: Run, command: str
) -> None:
    """A2: of another Region, or deleted and created again."""
    if "Players" not in (await clients.items.list_tables())["TableNames"]:
        await make_table(clients, "Players")
    await run(clients, command)
    async with open_clients(endpoint, {}, region="eu-west-1") as abroad:
        if "Players" not in (await abroad.items.list_tables())["TableNames"]:
            await make_table(abroad, "Players")
        said = "table was 'arn:aws:dynamodb:us-east-1:.* and is now 'arn:aws:dynamodb:eu-west-1:"
        with pytest.raises(CommandRefused, match=said):
            await run(abroad, command)
    await run(clients, command)

    await clients.items.delete_table(TableName="Players")
    await make_table(clients, "Players")

    with pytest.raises(CommandRefused, match=r"table_id was '.+' and is now '.+'"):
        await run(clients, command)
