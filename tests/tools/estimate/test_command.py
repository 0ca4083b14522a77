"""asyncsync estimate, as it is called: numbers from options, or from a table and CloudWatch."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest

from asyncsync.aws.clients import AwsClients
from asyncsync.aws.streams import Shard
from asyncsync.aws.tables import describe_table
from asyncsync.aws.write_rate import WriteRate, read_write_rate
from asyncsync.cli.estimating import _open_shards, _table_sizes, changes_per_s
from asyncsync.cli.main import main
from asyncsync.tools.errors import CommandRefused
from asyncsync.tools.estimate import prices
from asyncsync.tools.estimate.measured import KEYS
from asyncsync.tools.output import Output
from tests.support.project.command_line import ended
from tests.support.tables import begin_stream, load, make_table, numbered, only_moto, table_of

pytestmark = only_moto

SIZES = ["--items", "1000000", "--item-bytes", "1000", "--writes-per-s", "50"]


@pytest.fixture(autouse=True)
def in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncsync.cli.commands.interruptible", nullcontext)


async def ran(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Run a command in a thread, so that this test's loop serves moto's clients."""
    code = await anyio.to_thread.run_sync(lambda: main([*words]))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


# --- without AWS ------------------------------------------------------------------------------


def test_three_numbers_are_enough_and_nothing_is_asked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, err = ended(capsys, "estimate", *SIZES)

    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == ("1,000,000 items of 1,000 bytes, 50 writes per second; values json")
    for engine in KEYS:
        assert any(line.split()[:1] == [engine] for line in lines)
    assert "  valkey-8.0 *" in out
    parts = [line.split()[0] for line in lines if line.startswith("  ") and "." in line]
    for part in ("cache", "requests", "time", "logs", "stream", "monitoring", "total"):
        assert part in parts
    for option in ("--window-s 5", "--value dynamodb-json", "--ttl-s", "--fence-ttl-s"):
        assert f"  {option}" in out
    assert "as of 2026-" in out


def test_the_parts_add_up_to_the_total(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(ended(capsys, "estimate", *SIZES, "--json")[1])

    assert found["total_usd"] == pytest.approx(sum(p["usd"] for p in found["parts"]), abs=1e-3)
    assert found["fences"] == 1_000_000
    for memory in found["memory"]:
        parts = memory["values_bytes"] + memory["names_bytes"] + memory["fences_bytes"]
        assert memory["total_bytes"] == parts


def test_what_one_change_saves_is_what_the_command_says_with_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = json.loads(ended(capsys, "estimate", *SIZES, "--json")[1])

    for change in found["cheaper"]:
        words = [*SIZES, *change["change"].split(), "--json"]
        changed = json.loads(ended(capsys, "estimate", *words)[1])
        saved = found["total_usd"] - changed["total_usd"]
        assert change["saves_usd"] == pytest.approx(saved, abs=2e-3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give --items, --item-bytes, --writes-per-s, or --table to look the numbers up"),
        (["--items", "5"], "give --item-bytes, --writes-per-s, or --table"),
        ([*SIZES[:4]], "give --writes-per-s, or --table"),
    ],
)
def test_a_number_that_is_missing_is_named(
    capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    code, out, err = ended(capsys, "estimate", *words)

    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--items", "0"], "--items: must be a whole number from 1 to 1,000,000,000,000, not 0"),
        (["--item-bytes", "409601"], "must be a number above 0, at most 409,600, not 409601"),
        (["--writes-per-s=-1"], "must be a number from 0 to 10,000,000, not -1"),
        (["--fence-ttl-s", "3600"], "must be a whole number from 86,400 to"),
        (["--window-s", "301"], "from 0 to 300, not 301"),
        (["--engine", "redis-6.2"], "invalid choice: 'redis-6.2'"),
        (["--value", "yaml"], "invalid choice: 'yaml'"),
        (["--memory-mb", "300"], "invalid choice: '300'"),
        (["--function", "mirror"], "there is no option --function"),
    ],
)
def test_a_wrong_number_or_name_is_one_line(
    capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    code, out, err = ended(capsys, "estimate", *SIZES, *words)

    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_a_copy_that_nothing_holds_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--items", str(10**12), "--item-bytes", "409600", "--writes-per-s", "0"]
    code, out, err = ended(capsys, "estimate", *words)

    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "no ElastiCache cache holds" in err


@pytest.mark.parametrize(
    ("items", "item_bytes", "writes_per_s", "name"),
    [
        ("1", "409600", "0", "serverless Valkey"),
        ("1", "1", "0", "serverless Valkey"),
        ("1000000000", "1000", "1000", "a cluster of 6 shards"),
        ("1000000", "1000", "0", "cache.t4g.medium"),
    ],
)
def test_the_edges(
    capsys: pytest.CaptureFixture[str],
    items: str,
    item_bytes: str,
    writes_per_s: str,
    name: str,
) -> None:
    words = ["--items", items, "--item-bytes", item_bytes, "--writes-per-s", writes_per_s]
    code, out, _ = ended(capsys, "estimate", *words)

    assert code == 0
    (cache,) = [line for line in out.splitlines() if line.startswith("  cache ")]
    assert name in cache


def test_a_shard_that_does_not_keep_up_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--items", "1000", "--item-bytes", "1000", "--writes-per-s", "100000"]
    _, out, _ = ended(capsys, "estimate", *words, "--shards", "1")

    assert "ParallelizationFactor is raised" in out
    assert "ParallelizationFactor" not in ended(capsys, "estimate", *words)[1]


def test_a_server_that_elasticache_lacks_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    said = "assumed: redis-8.0 costs what redis does; ElastiCache lacks it"

    assert said in ended(capsys, "estimate", *SIZES, "--engine", "redis-8.0")[1]
    for engine in {*KEYS} - {*prices.NOT_OFFERED}:
        assert "lacks it" not in ended(capsys, "estimate", *SIZES, "--engine", engine)[1]


# --- with a table -----------------------------------------------------------------------------


async def put_metric(
    clients: AwsClients, name: str, points: dict[datetime, float], **dimensions: str
) -> None:
    """Give moto's CloudWatch what DynamoDB would."""
    async with clients.open("cloudwatch") as client:
        for at, value in points.items():
            await client.put_metric_data(
                Namespace="AWS/DynamoDB",
                MetricData=[
                    {
                        "MetricName": name,
                        "Timestamp": at,
                        "Value": value,
                        "Dimensions": [{"Name": k, "Value": v} for k, v in dimensions.items()],
                    }
                ],
            )


def hours_ago(hours: int) -> datetime:
    """Return a moment in a whole hour."""
    whole = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    return whole - timedelta(hours=hours) + timedelta(minutes=30)


async def test_a_tables_numbers_are_looked_up(
    clients: AwsClients, endpoint: str, table: str, capsys: pytest.CaptureFixture[str]
) -> None:
    described = await make_table(clients, table)
    await load(clients, table, numbered(20))
    # 36,000 units in the first of two hours, of items far under a kilobyte.
    await put_metric(
        clients, "ConsumedWriteCapacityUnits", {hours_ago(2): 36_000.0}, TableName=table
    )
    at = ["--table", table, "--endpoint-url", endpoint]

    code, out, err = await ran(capsys, "estimate", *at, "--item-bytes", "700", "--json")
    found = json.loads(out)

    assert code == 0
    assert (found["table"], found["items"], found["item_bytes"]) == (str(described.arn), 20, 700)
    assert found["writes_per_s"] == pytest.approx(36_000 / 7_200)
    assert f"table {described.arn}\n" in err
    assert "5 write units a second, 1 for a write of 700 bytes" in err


async def test_the_mean_of_an_item_is_the_tables_size_over_its_items(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = Output(sys.stdout, sys.stderr)
    described = replace(table_of(), items=4, size_bytes=2_002)
    nothing = dict.fromkeys(("items", "item_bytes", "writes_per_s"))

    assert _table_sizes(described, nothing, output) == {"items": 4, "item_bytes": 500.5}
    assert "counts 4 items in 2,002 bytes" in capsys.readouterr().err
    with pytest.raises(CommandRefused, match="counts 4 items in 0 bytes"):
        _table_sizes(replace(described, size_bytes=0), nothing, output)


@pytest.mark.parametrize(
    ("parents", "count"),
    [
        ({"a": None}, 1),
        ({"a": None, "b": "a"}, 1),  # a is closed
        ({"a": None, "b": "a", "c": "a", "d": None}, 3),  # a was split
        ({"b": "trimmed"}, 1),
        ({}, None),
    ],
)
async def test_open_shards_are_those_without_a_child(
    clients: AwsClients,
    parents: dict[str, str | None],
    count: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def listing(*_: object) -> list[Shard]:
        return [Shard(shard, parent) for shard, parent in parents.items()]

    monkeypatch.setattr("asyncsync.cli.estimating.shards", listing)
    table = replace(table_of(), stream_arn="arn:stream")
    output = Output(sys.stdout, sys.stderr)

    assert await _open_shards(clients, table, output) == count
    assert await _open_shards(clients, table_of(), output) is None


async def test_a_stream_that_may_not_be_read_is_a_note(
    clients: AwsClients, endpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = f"{table_of().arn}/stream/2026-01-01T00:00:00.000"
    output = Output(sys.stdout, sys.stderr)

    assert await _open_shards(clients, replace(table_of(), stream_arn=gone), output) is None
    assert "the shards are those that size and writes ask for" in capsys.readouterr().err


async def test_the_shards_of_a_table_are_those_of_its_stream(
    clients: AwsClients, endpoint: str, table: str, capsys: pytest.CaptureFixture[str]
) -> None:
    await make_table(clients, table)
    await begin_stream(clients, table)
    at = ["--table", table, "--endpoint-url", endpoint, *SIZES]

    # The size and the writes ask for two: 1,500 write units a second.
    found = json.loads((await ran(capsys, "estimate", *at, "--writes-per-s", "1500", "--json"))[1])
    given = json.loads((await ran(capsys, "estimate", *at, "--shards", "7", "--json"))[1])

    assert (found["shards"], given["shards"]) == (1, 7)


async def test_an_option_wins_over_what_aws_says(
    clients: AwsClients, endpoint: str, table: str, capsys: pytest.CaptureFixture[str]
) -> None:
    await make_table(clients, table)
    at = ["--table", table, "--endpoint-url", endpoint]

    code, out, _ = await ran(capsys, "estimate", *at, *SIZES, "--json")

    assert code == 0
    assert json.loads(out)["items"] == 1_000_000


async def test_an_arn_says_the_table_and_the_region(
    clients: AwsClients, endpoint: str, table: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arn = str((await make_table(clients, table)).arn)

    code, out, _ = await ran(
        capsys, "estimate", "--table", arn, "--endpoint-url", endpoint, *SIZES, "--json"
    )

    assert (code, json.loads(out)["table"]) == (0, arn)


async def test_what_aws_does_not_know_is_asked_for(
    clients: AwsClients, endpoint: str, table: str, capsys: pytest.CaptureFixture[str]
) -> None:
    await make_table(clients, table)
    at = ["--table", table, "--endpoint-url", endpoint]

    err = ""
    for words, message in (
        ([], "give --items and --item-bytes"),
        (["--items", "9"], "give --items and --item-bytes"),
        (SIZES[:4], "has no write of table"),
    ):
        code, out, err = await ran(capsys, "estimate", *at, *words)
        assert (code, out) == (2, "")
        assert message in err.splitlines()[-1]
    assert "give --writes-per-s, 0 if there is none" in err


async def test_a_table_that_is_not_there_is_exit_3(
    endpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = await ran(
        capsys, "estimate", "--table", "Nowhere", "--endpoint-url", endpoint
    )

    assert (code, out) == (3, "")
    assert "describing table Nowhere" in err


async def test_metrics_that_are_refused_are_exit_3_and_ask_for_the_option(
    clients: AwsClients,
    endpoint: str,
    table: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await make_table(clients, table)
    monkeypatch.setattr("asyncsync.aws.write_rate.DAYS", 0)  # CloudWatch refuses no time at all
    at = ["--table", table, "--endpoint-url", endpoint]

    code, _, err = await ran(capsys, "estimate", *at, *SIZES[:4])
    given = await ran(capsys, "estimate", *at, *SIZES)

    assert code == 3
    assert err.splitlines()[-1].startswith("asyncsync: CloudWatch refused reading the metrics of")
    assert err.splitlines()[-1].endswith(": give --writes-per-s instead")
    assert given[0] == 0  # CloudWatch is not asked


# --- writes a second --------------------------------------------------------------------------


async def test_records_that_the_streams_readers_got_are_counted(
    clients: AwsClients, table: str
) -> None:
    await make_table(clients, table)
    await begin_stream(clients, table)
    described = await describe_table(clients, table)
    assert described.stream_arn is not None
    label = described.stream_arn.rpartition("/stream/")[2]
    now = datetime.now(UTC)
    await put_metric(
        clients, "ConsumedWriteCapacityUnits", {hours_ago(10): 72_000.0}, TableName=table
    )
    await put_metric(
        clients,
        "ReturnedRecordsCount",
        {hours_ago(4): 18_000.0, hours_ago(1): 18_000.0},
        TableName=table,
        StreamLabel=label,
        Operation="GetRecords",
    )
    await put_metric(clients, "TimeToLiveDeletedItemCount", {hours_ago(2): 720.0}, TableName=table)

    rate = await read_write_rate(clients, described, now)

    # Ten hours since the first point; an hour without a point is one without a write.
    assert rate == WriteRate(1.0, 2.0, 0.02, pytest.approx(10 / 24))  # type: ignore[arg-type]


async def test_points_of_another_table_and_older_ones_do_not_count(
    clients: AwsClients, table: str
) -> None:
    described = await make_table(clients, table)
    await put_metric(
        clients, "ConsumedWriteCapacityUnits", {hours_ago(2): 7_200.0}, TableName=f"{table}2"
    )
    await put_metric(
        clients, "ConsumedWriteCapacityUnits", {hours_ago(24 * 8): 9e9}, TableName=table
    )

    rate = await read_write_rate(clients, described, datetime.now(UTC))

    assert rate == WriteRate(None, None, None, 7.0)


@pytest.mark.parametrize(
    ("rate", "item_bytes", "per_s"),
    [
        ((5.0, 100.0, None), 1_000.0, 5.0),  # the stream's records are what a copy gets
        ((0.0, 100.0, None), 1_000.0, 0.0),
        ((None, 10.0, None), 1_024.0, 10.0),
        ((None, 10.0, None), 1_025.0, 5.0),  # two units a write
        ((None, 400.0, 1.0), 409_600.0, 2.0),  # DynamoDB's own deletions take no units
        ((None, None, 3.0), 1_000.0, 3.0),
        ((None, None, None), 1_000.0, None),
    ],
)
def test_changes_a_second(rate: tuple[Any, ...], item_bytes: float, per_s: float | None) -> None:
    found, words = changes_per_s(WriteRate(rate[0], rate[1], rate[2], 7.0), item_bytes)

    assert found == per_s
    assert bool(words) == (per_s is not None)
