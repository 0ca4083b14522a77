"""Backfill begins only if a mapping has followed the stream since before the first read."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest
import redis

from asyncsync import ConfigError
from asyncsync.aws.clients import AwsClients
from asyncsync.aws.tables import describe_table, stream_of
from asyncsync.lab.servers import ServerProcess
from asyncsync.tools.backfill.preconditions import (
    BEHIND_MS_MAX,
    require_caught_up_mapping,
    why_not_caught_up,
)
from asyncsync.tools.errors import CommandRefused
from tests.support.aws.functions import function
from tests.support.tables import begin_stream, load, make_table, numbered, only_moto

NOW = datetime(2026, 1, 2, tzinfo=UTC)
ARN = "arn:aws:lambda:us-east-1:111122223333:function:mirror"


def mapping(**given: Any) -> dict[str, Any]:
    return {
        "UUID": "u-1",
        "FunctionArn": ARN,
        "State": "Enabled",
        "StartingPosition": "TRIM_HORIZON",
        "LastModified": NOW - timedelta(hours=2),
        **given,
    }


@pytest.mark.parametrize(
    ("given", "age_ms", "why"),
    [
        ({}, 0, ""),
        ({}, BEHIND_MS_MAX, ""),
        (
            {},
            BEHIND_MS_MAX + 1_000,
            "mapping u-1 is 61 s behind the stream. Wait until it has caught up",
        ),
        ({"State": "Disabled"}, 0, "mapping u-1 is Disabled. Enable it"),
        ({"State": "Creating"}, 0, "mapping u-1 is Creating. Wait until it is enabled"),
        (
            {"StartingPosition": "LATEST"},
            0,
            "mapping u-1 began at LATEST, so it may have missed earlier changes. "
            "Create one that begins at TRIM_HORIZON",
        ),
    ],
)
def test_a_mapping_follows_when_it_is_whole_enabled_and_caught_up(
    given: dict[str, Any], age_ms: float, why: str
) -> None:
    assert why_not_caught_up([mapping(**given)], {ARN: age_ms}, None) == why


def test_one_that_follows_is_enough_and_none_is_not() -> None:
    assert why_not_caught_up([mapping(State="Disabled"), mapping()], {ARN: 0.0}, None) == ""
    assert "no event source mapping" in why_not_caught_up([], {}, None)


@pytest.mark.parametrize(
    ("mirror", "other", "function", "why"),
    [
        ({}, {}, None, ""),
        ({}, {"State": "Disabled"}, "mirror", ""),
        ({}, {"State": "Disabled"}, ARN + ":live", ""),
        (
            {},
            {"State": "Disabled"},
            None,
            "mapping u-2 is Disabled. Enable it, or pass --function: mirror and other read this",
        ),
        ({"State": "Disabled"}, {}, "mirror", "mapping u-1 is Disabled. Enable it"),
        ({"State": "Disabled"}, {}, None, "mapping u-1 is Disabled. Enable it, or pass --func"),
        ({}, {}, "third", "no event source mapping reads this table's stream for function third"),
    ],
)
def test_of_several_functions_it_is_the_mirrors_mapping_that_counts(
    mirror: dict[str, Any], other: dict[str, Any], function: str | None, why: str
) -> None:
    """Another application's mapping said nothing of the mirror's, and let a backfill begin."""
    another = ARN.replace("mirror", "other")
    mappings = [
        mapping(**mirror),
        mapping(FunctionArn=another, UUID="u-2", **other),
    ]

    said = why_not_caught_up(mappings, {ARN: 0.0, another: 0.0}, None, None, function)

    assert said.startswith(why)
    assert bool(said) == bool(why)


def test_before_an_export_it_must_have_been_as_it_is() -> None:
    an_hour_ago, three_hours_ago = NOW - timedelta(hours=1), NOW - timedelta(hours=3)

    assert why_not_caught_up([mapping()], {ARN: 0.0}, an_hour_ago) == ""
    assert why_not_caught_up([mapping()], {ARN: 0.0}, three_hours_ago) == (
        "mapping u-1 was changed at 2026-01-01T22:00:00Z, after the export. Take a new export"
    )


# --- as AWS's own calls have it ---------------------------------------------------------------


@only_moto
async def test_lambda_and_cloudwatch_are_asked(clients: AwsClients) -> None:
    await make_table(clients, "Followed")
    await begin_stream(clients, "Followed")
    table = await describe_table(clients, "Followed")
    now = datetime.now(UTC)
    with pytest.raises(CommandRefused, match="no event source mapping reads this table's stream"):
        await require_caught_up_mapping(clients, table, now)

    async with function(clients) as functions, clients.open("cloudwatch") as metrics:
        made = await functions.create_event_source_mapping(
            EventSourceArn=table.stream_arn,
            FunctionName="mirror",
            StartingPosition="TRIM_HORIZON",
        )
        assert made["EventSourceArn"] == table.stream_arn
        await require_caught_up_mapping(clients, table, now)
        for minutes, age_ms in ((4, 900_000.0), (1, 120_000.0)):
            await metrics.put_metric_data(
                Namespace="AWS/Lambda",
                MetricData=[
                    {
                        "MetricName": "IteratorAge",
                        "Dimensions": [{"Name": "FunctionName", "Value": "mirror"}],
                        "Timestamp": now - timedelta(minutes=minutes),
                        "Value": age_ms,
                    }
                ],
            )
        with pytest.raises(
            CommandRefused,
            match=r"120 s behind the stream[.] Wait until it has caught up, or",
        ):
            await require_caught_up_mapping(clients, table, now)


@only_moto
async def test_the_command_fills_nothing_until_a_mapping_follows(
    clients: AwsClients, endpoint: str, fake_server: ServerProcess
) -> None:
    await make_table(clients, "Waits")
    await load(clients, "Waits", numbered(3))
    await begin_stream(clients, "Waits")
    stream_arn = stream_of(await describe_table(clients, "Waits"))
    program = [sys.executable, "-m", "asyncsync", "backfill", "--table", "Waits"]
    program += ["--endpoint-url", endpoint, "--redis-url", fake_server.url]
    with redis.Redis(port=fake_server.port) as client:
        client.flushall()

        ended = await anyio.run_process(program, check=False)
        assert (ended.returncode, ended.stdout, client.dbsize()) == (2, b"", 0)
        (_, error) = ended.stderr.splitlines()
        assert error.startswith(b"asyncsync: cannot backfill yet: no event source")

        async with function(clients, "waits") as functions:
            await functions.create_event_source_mapping(
                EventSourceArn=stream_arn, FunctionName="waits", StartingPosition="TRIM_HORIZON"
            )
        ended = await anyio.run_process(program, check=False)
        assert (ended.returncode, client.dbsize()) == (0, 3)


async def test_a_table_without_a_stream_is_refused(clients: AwsClients) -> None:
    await make_table(clients, "Streamless")
    table = await describe_table(clients, "Streamless")

    with pytest.raises(ConfigError, match="Streamless has no stream"):
        await require_caught_up_mapping(clients, table, NOW)
