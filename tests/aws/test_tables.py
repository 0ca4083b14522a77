"""A table is its ARN, and its key is its KeySchema, whatever the user typed or it indexes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio
import orjson
import pytest
import redis

from asyncsync import Config, Mirror
from asyncsync.aws.budget import ReadBudget
from asyncsync.aws.clients import AwsClients, AwsFailed
from asyncsync.aws.items import (
    consistent_reads,
    json_attributes,
    key_of,
    read_keys,
    scan_page,
    sdk_key,
)
from asyncsync.aws.tables import (
    Table,
    TableArn,
    describe_table,
    parse_table_arn,
    read_description,
    stream_of,
)
from asyncsync.copy.names import KeyNames
from asyncsync.errors import ConfigError
from asyncsync.lab.servers import ServerProcess
from asyncsync.tools.audit import command as audit_command
from asyncsync.tools.audit.command import AuditOptions, audit
from asyncsync.tools.backfill.command import BackfillOptions, backfill
from asyncsync.tools.errors import CommandRefused
from asyncsync.tools.mirrors import make_mirror
from asyncsync.tools.redrive.command import RedriveOptions, redrive
from asyncsync.tools.retire.command import RetireOptions, retire
from asyncsync.tools.run.command import RunOptions, run
from asyncsync.tools.state import FORMAT, identity_of
from tests.support.aws.on_failure import discarded
from tests.support.events import FIRST, event, record
from tests.support.output import RecordedOutput
from tests.support.tables import load, only_moto, stream_arn_of, table_of

# --- what an ARN says ---------------------------------------------------------------------------

PLAYERS = "arn:aws:dynamodb:us-east-1:111122223333:table/Players"


@pytest.mark.parametrize(
    ("arn", "parts"),
    [
        (PLAYERS, ("aws", "us-east-1", "111122223333", "Players")),
        (
            f"{PLAYERS}/stream/2026-01-01T00:00:00.000",
            ("aws", "us-east-1", "111122223333", "Players"),
        ),
        (
            "arn:aws-cn:dynamodb:cn-north-1:111122223333:table/a.b_c-D",
            ("aws-cn", "cn-north-1", "111122223333", "a.b_c-D"),
        ),
        (
            "arn:aws:dynamodb:ddblocal:000000000000:table/Players",
            ("aws", "ddblocal", "000000000000", "Players"),
        ),
        ("Players", None),
        ("", None),
        (f"{PLAYERS}/index/byEmail", None),
        (f"{PLAYERS}/export/01", None),
        ("arn:aws:kinesis:us-east-1:111122223333:stream/Players", None),
    ],
)
def test_a_tables_arn_is_read_whole_or_not_at_all(arn: str, parts: Any) -> None:
    found = parse_table_arn(arn)

    assert found == (parts and TableArn(*parts))
    if found is not None:
        assert str(found) == arn.partition("/stream/")[0]


DESCRIPTION: dict[str, Any] = {
    "TableName": "Players",
    "TableArn": PLAYERS,
    "KeySchema": [
        {"AttributeName": "at", "KeyType": "RANGE"},
        {"AttributeName": "who", "KeyType": "HASH"},
    ],
    "AttributeDefinitions": [
        {"AttributeName": "at", "AttributeType": "N"},
        {"AttributeName": "email", "AttributeType": "S"},
        {"AttributeName": "who", "AttributeType": "B"},
    ],
}
STREAM = {
    "StreamSpecification": {"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"},
    "LatestStreamArn": f"{PLAYERS}/stream/2026-01-01T00:00:00.000",
}


def test_the_key_is_the_schemas_the_hash_key_first() -> None:
    table = read_description(DESCRIPTION, "describing it")

    assert [*table.key.items()] == [("who", "B"), ("at", "N")]
    assert (table.name, table.stream_arn, table.view_type) == ("Players", None, None)


def test_a_stream_that_is_off_is_none_though_its_arn_remains() -> None:
    off = {**STREAM, "StreamSpecification": {"StreamEnabled": False}}

    assert read_description({**DESCRIPTION, **off}, "describing it").stream_arn is None
    with pytest.raises(ConfigError, match="has no stream"):
        stream_of(read_description({**DESCRIPTION, **off}, "describing it"))
    on = read_description({**DESCRIPTION, **STREAM}, "describing it")
    assert stream_of(on) == STREAM["LatestStreamArn"]


def _without(name: str, of: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in of.items() if key != name}


@pytest.mark.parametrize(
    ("description", "missing"),
    [
        (_without("TableArn", DESCRIPTION), "TableArn"),
        (_without("KeySchema", DESCRIPTION), "KeySchema"),
        (_without("AttributeDefinitions", DESCRIPTION), "AttributeDefinitions"),
        ({**DESCRIPTION, "AttributeDefinitions": []}, "who"),
        ({**DESCRIPTION, "KeySchema": []}, "HASH"),
        ({**DESCRIPTION, **_without("LatestStreamArn", STREAM)}, "LatestStreamArn"),
        ({**DESCRIPTION, **STREAM, "StreamSpecification": {"StreamEnabled": True}}, "ViewType"),
        ({**DESCRIPTION, "TableArn": "Players"}, "not the ARN of a table"),
    ],
)
def test_an_answer_without_a_member_is_an_error(description: Any, missing: str) -> None:
    with pytest.raises(AwsFailed, match=missing):
        read_description(description, "describing it")


# --- answers that lack a member ---------------------------------------------------------------


class Answers:
    """DynamoDB's client with these answers."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers

    async def batch_get_item(self, **_: Any) -> Any:
        return self.answers

    async def scan(self, **_: Any) -> Any:
        return self.answers

    async def describe_table(self, **_: Any) -> Any:
        return self.answers


def answering(**answers: Any) -> AwsClients:
    return AwsClients(Answers(**answers), None, None)  # type: ignore[arg-type]


KEY = (("Number", "N", "1"),)
ONE: Any = {"Number": {"N": "1"}}
T = table_of("T")


@pytest.mark.parametrize(
    ("answers", "found"),
    [
        ({"Responses": {"T": [ONE]}, "UnprocessedKeys": {}}, 1),
        ({"Responses": {str(T.arn): [ONE]}, "UnprocessedKeys": {}}, 1),
        ({"Responses": {"T": []}, "UnprocessedKeys": {}}, 0),
        ({"Responses": {}, "UnprocessedKeys": {"T": {"Keys": [ONE]}}}, 0),  # nothing was read
        ({"Responses": {}, "UnprocessedKeys": {}}, "does not speak of this table"),
        ({"Responses": {"Other": [ONE]}, "UnprocessedKeys": {}}, "does not speak of this table"),
        ({"Responses": {"T": []}, "UnprocessedKeys": {"Other": {"Keys": [ONE]}}}, "speak of this"),
        ({"Responses": {"T": []}, "UnprocessedKeys": {"T": {}}}, "no Keys"),
        ({"Responses": {"T": [ONE]}}, "no UnprocessedKeys"),
        ({"UnprocessedKeys": {}}, "no Responses"),
        ({}, "no UnprocessedKeys"),
    ],
)
async def test_no_key_counts_as_deleted_because_an_answer_is_silent(
    answers: Any, found: int | str
) -> None:
    read = read_keys(answering(**answers), T, [sdk_key(KEY)])
    if isinstance(found, str):
        with pytest.raises(AwsFailed, match=found):
            await read
    else:
        assert len((await read).items) == found


async def test_a_scan_without_items_or_an_item_without_its_key_is_an_error() -> None:
    with pytest.raises(AwsFailed, match="no Items"):
        await scan_page(answering(Count=0), T, 0, 1, None)
    keyless = answering(Responses={"T": [{"Name": {"S": "x"}}]}, UnprocessedKeys={})
    with pytest.raises(AwsFailed, match="no key attribute Number"):
        await consistent_reads(keyless, T, ReadBudget())([KEY])


@pytest.mark.parametrize(
    "typed",
    [
        "arn:aws:dynamodb:eu-west-1:111122223333:table/Players",
        "arn:aws:dynamodb:us-east-1:444455556666:table/Players",
        "Other",
    ],
)
async def test_an_answer_of_another_table_than_asked_for_is_refused(typed: str) -> None:
    clients = answering(Table=DESCRIPTION)

    with pytest.raises(ConfigError, match="another table than arn:aws:dynamodb:us-east"):
        await describe_table(clients, typed)
    for right in ("Players", PLAYERS):
        assert (await describe_table(clients, right)).arn == parse_table_arn(PLAYERS)


# --- every kind of table, by every command ------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """A table's key, the hash key first, its indexes by name, and further attributes' types."""

    key: dict[str, str]
    gsi: dict[str, list[str]]
    lsi: dict[str, list[str]]
    more: dict[str, str]


KINDS = {
    "plain": Kind({"pk": "S"}, {}, {}, {}),
    "gsi": Kind({"pk": "S"}, {"byEmail": ["email"]}, {}, {"email": "S"}),
    "lsi": Kind({"pk": "S", "sk": "S"}, {}, {"byScore": ["pk", "score"]}, {"score": "N"}),
    "both": Kind(
        {"pk": "S", "sk": "N"},
        {"byEmail": ["email", "score"]},
        {"byScore": ["pk", "score"]},
        {"email": "S", "score": "N"},
    ),
    "inverted": Kind({"pk": "S", "sk": "S"}, {"inverted": ["sk", "pk"]}, {}, {}),
    "binary": Kind({"pk": "B"}, {"byEmail": ["email"]}, {}, {"email": "B"}),
    "binary range": Kind({"pk": "S", "sk": "B"}, {"byEmail": ["email"]}, {}, {"email": "S"}),
    "number": Kind({"pk": "N"}, {"byEmail": ["email"]}, {}, {"email": "S"}),
    "numbers": Kind({"zk": "N", "ak": "N"}, {"byEmail": ["email"]}, {}, {"email": "S"}),
}
SAMPLES: dict[str, list[Any]] = {
    "S": ["a", "b:c", "ü"],
    "N": ["1", "-2.5", "30"],
    "B": [b"\xff\x00", b"b", b"c:{}"],
}


async def make(clients: AwsClients, name: str, kind: Kind) -> Table:
    def schema(names: list[str]) -> Any:
        return [
            {"AttributeName": each, "KeyType": role}
            for each, role in zip(names, ("HASH", "RANGE"), strict=False)
        ]

    def indexes(of: dict[str, list[str]]) -> Any:
        every = {"ProjectionType": "ALL"}
        return [
            {"IndexName": index, "KeySchema": schema(names), "Projection": every}
            for index, names in of.items()
        ]

    request: Any = {
        "TableName": name,
        "KeySchema": schema([*kind.key]),
        "AttributeDefinitions": [
            {"AttributeName": each, "AttributeType": tag}
            for each, tag in (kind.key | kind.more).items()
        ],
        "BillingMode": "PAY_PER_REQUEST",
        "StreamSpecification": {"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"},
    }
    request |= {"GlobalSecondaryIndexes": indexes(kind.gsi)} if kind.gsi else {}
    request |= {"LocalSecondaryIndexes": indexes(kind.lsi)} if kind.lsi else {}
    await clients.items.create_table(**request)
    return await describe_table(clients, name)


def items_of(kind: Kind) -> list[Any]:
    """Return three items, their attributes in order of name."""
    every = kind.key | kind.more | {"note": "S"}
    return [
        {name: {every[name]: SAMPLES[every[name]][at]} for name in sorted(every)}
        for at in range(3)
    ]


class Tools:
    """Every command on one table and one copy."""

    def __init__(
        self, clients: AwsClients, endpoint: str, table: str, server: ServerProcess, **config: Any
    ) -> None:
        self.clients = clients
        self.config = Config(redis_url=server.url, metrics="off", **config)
        self.mirror = Mirror(self.config, emit=lambda _: None)
        self.at: dict[str, Any] = {"table": table, "endpoint_url": endpoint}
        self.output = RecordedOutput()

    @property
    def said(self) -> str:
        return "\n".join(self.output.lines)

    async def do(self, command: Any, options: Any, **more: Any) -> bool:
        self.output = RecordedOutput()
        given = options(**self.at, **more)
        good: bool = await command(self.clients, given, self.mirror, self.output)
        return good


@pytest.fixture
async def make_tools(
    clients: AwsClients, endpoint: str, fake_server: ServerProcess
) -> AsyncIterator[Callable[..., Tools]]:
    made: list[Tools] = []

    def tools(table: str, **config: Any) -> Tools:
        made.append(Tools(clients, endpoint, table, fake_server, **config))
        return made[-1]

    yield tools
    for each in made:
        each.mirror.close()
    await anyio.lowlevel.checkpoint()  # lets the sockets go


@only_moto
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("by_arn", [False, True], ids=["name", "arn"])
async def test_every_command_works_on_every_kind_of_table(
    clients: AwsClients,
    make_tools: Callable[..., Tools],
    fake_client: redis.Redis,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    by_arn: bool,
) -> None:
    client, shape = fake_client, KINDS[kind]
    name = f"{kind.replace(' ', '-')}-{by_arn}"
    table = await make(clients, name, shape)
    assert [*table.key.items()] == [*shape.key.items()]
    items = items_of(shape)
    await load(clients, name, items)
    tools = make_tools(str(table.arn) if by_arn else name)

    def names() -> set[bytes]:
        return {bytes(each) for each in client.scan_iter() if not bytes(each).endswith(b"!f")}

    # run: the stream's records make the copy
    options = RunOptions(table=tools.at["table"], exit_when_idle_s=1.0)
    await run(clients, options, make_mirror(tools.config), RecordedOutput())
    by_run = {each: client.get(each) for each in names()}

    # as does the handler, for the same records in Lambda's shape
    client.flushall()
    records = [
        record(
            0,
            FIRST + at,
            Keys=json_attributes({each: item[each] for each in shape.key}),
            image=json_attributes(item),
            stream_arn=stream_arn_of(table),
        )
        for at, item in enumerate(items)
    ]
    await tools.mirror.handle(event(records), None)
    copy = {each: client.get(each) for each in names()}
    assert len(copy) == len(by_run) == 3
    assert all(each.startswith(f"{name}:".encode()) for each in copy)
    if "B" not in (shape.key | shape.more).values():
        assert by_run == copy  # moto's stream encodes base64 twice

    # backfill makes the same
    client.flushall()
    assert await tools.do(backfill, BackfillOptions, skip_mapping_check=True, segments=1)
    assert {each: client.get(each) for each in names()} == copy

    # audit finds it the same, then each kind of difference, and repairs them
    monkeypatch.setattr(audit_command, "WORKERS_MAX", 1)  # moto cannot cut binary keys
    soon = {"recheck_after_s": 0.01, "orphans": True}
    assert await tools.do(audit, AuditOptions, **soon)
    assert "3 of 3 keys are the same" in tools.said
    missing, stale, orphan = sorted(copy)
    gone = next(each for each in items if _name_of(tools.mirror, table, each) == orphan)
    await clients.items.delete_item(
        TableName=name, Key={attribute: gone[attribute] for attribute in shape.key}
    )
    client.delete(missing)
    client.set(stale, "{}")
    assert not await tools.do(audit, AuditOptions, **soon)
    assert "1 missing, 1 stale, 1 orphan" in tools.said
    await tools.do(audit, AuditOptions, **soon, repair=True)
    assert names() == {missing, stale}

    # redrive brings a failed batch's keys up to date
    client.flushall()
    (tmp_path / "batch").write_bytes(discarded(records))
    assert await tools.do(redrive, RedriveOptions, places=[str(tmp_path)])
    assert names() == {missing, stale}
    assert await anyio.Path(tmp_path / "redriven" / "batch").exists()

    # retire removes the old template's names
    old = {each.replace(name.encode(), b"old") for each in names()}
    for each in old:
        client.set(each, "{}")
    assert await tools.do(retire, RetireOptions, template="old:{@key}")
    assert names() == {missing, stale}


def _name_of(mirror: Mirror, table: Table, item: Any) -> bytes:
    return KeyNames(table.name, table.key, mirror.rules).name_of(key_of(item, sorted(table.key)))


@only_moto
async def test_orphans_with_hashed_names_are_found_in_a_table_with_an_index(
    clients: AwsClients, make_tools: Callable[..., Tools], fake_client: redis.Redis
) -> None:
    await make(clients, "Hashed", KINDS["gsi"])
    tools = make_tools("Hashed")
    long = ":" * 2_000  # escaped, it takes more than a name may have
    stream_arn = stream_arn_of(await describe_table(clients, "Hashed"))
    made = record(
        0, FIRST, Keys={"pk": {"S": long}}, image={"pk": {"S": long}}, stream_arn=stream_arn
    )
    await tools.mirror.handle(event([made]), None)

    await tools.do(audit, AuditOptions, recheck_after_s=0.01, orphans=True)

    assert "1 orphan" in tools.said


# --- a table of the same name elsewhere -------------------------------------------------------

ELSEWHERE = {
    "Region": lambda arn: replace(arn, region="eu-west-1"),
    "account": lambda arn: replace(arn, account="444455556666"),
    "partition": lambda arn: replace(arn, partition="aws-cn"),
    "name": lambda arn: replace(arn, name="Other"),
}


@only_moto
@pytest.mark.parametrize("differs", ELSEWHERE)
async def test_another_tables_failed_batch_is_named_and_left(
    clients: AwsClients,
    make_tools: Callable[..., Tools],
    fake_client: redis.Redis,
    tmp_path: Path,
    differs: str,
) -> None:
    """Its version would fence out this table's own next record for 25 hours."""
    name = f"Elsewhere-{differs}"
    table = await make(clients, name, KINDS["plain"])
    await load(clients, name, items_of(KINDS["plain"]))
    other = ELSEWHERE[differs](table.arn)
    made = record(
        0, FIRST, Keys={"pk": {"S": "a"}}, stream_arn=f"{other}/stream/2026-06-01T00:00:00.000"
    )
    (tmp_path / "batch").write_bytes(discarded([made]))
    tools = make_tools(name)

    good = await tools.do(redrive, RedriveOptions, places=[str(tmp_path)])

    assert good == (differs == "name")  # a namesake is most likely a mistake
    assert tools.output.lines[0] == f"left    {tmp_path / 'batch'}: of another table, {other}"
    assert fake_client.dbsize() == 0
    assert (tmp_path / "batch").exists()


@only_moto
async def test_a_state_of_the_same_name_in_another_account_is_refused(
    clients: AwsClients, make_tools: Callable[..., Tools], tmp_path: Path
) -> None:
    table = await make(clients, "Stated", KINDS["plain"])
    state = tmp_path / "state"
    tools = make_tools("Stated")
    # As an interrupted run leaves it.
    identity = identity_of("retire", table, tools.mirror, template="old:{@key}")
    for arn, is_ours in ((table.arn, True), (replace(table.arn, account="444455556666"), False)):
        saved = {"run": {"format": FORMAT, **identity, "table": str(arn), "run_id": "a"}}
        state.write_bytes(orjson.dumps(saved))
        if is_ours:
            assert await tools.do(retire, RetireOptions, template="old:{@key}", state=str(state))
        else:
            with pytest.raises(CommandRefused, match="table was 'arn:aws:dynamodb:us-east-1:4444"):
                await tools.do(retire, RetireOptions, template="old:{@key}", state=str(state))
