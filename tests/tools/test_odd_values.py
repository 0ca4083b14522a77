"""Keys of the copy that hold what the handler never wrote: no tool calls them right."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import redis

from asyncsync.aws.clients import AwsClients
from asyncsync.copy.names import KeyNames
from asyncsync.encode import EncodeRules
from asyncsync.fence import NO_VERSION
from asyncsync.keys import redis_names
from asyncsync.lab.servers import ServerProcess
from asyncsync.tools.backfill.command import BackfillOptions, backfill
from asyncsync.tools.retire.command import RetireOptions, retire
from tests.support.mirrored_table import MirroredTable, mirrored_tables
from tests.support.output import RecordedOutput
from tests.support.tables import load, numbered

# A type that is no string, and how to make a key of it.
OTHER_TYPES: dict[str, Callable[[redis.Redis, str], object]] = {
    "hash": lambda client, name: client.hset(name, "Number", "1"),
    "list": lambda client, name: client.rpush(name, '{"Number":1}'),
    "set": lambda client, name: client.sadd(name, "1"),
    "zset": lambda client, name: client.zadd(name, {"1": 1}),
    "stream": lambda client, name: client.xadd(name, {"Number": "1"}),
}
VALUE = b'{"Number":1,"Name":"item 1"}'


@pytest.fixture
async def make(
    clients: AwsClients, endpoint: str, real_server: ServerProcess, real_client: redis.Redis
) -> AsyncIterator[Callable[..., Any]]:
    async with mirrored_tables(clients, endpoint, real_server.url) as make_one:
        yield make_one


@pytest.mark.parametrize("kind", OTHER_TYPES)
@pytest.mark.parametrize(
    ("mode", "repaired"), [("mirror", VALUE), ("refresh", VALUE), ("invalidate", None)]
)
async def test_a_key_of_another_type_is_a_finding_and_is_repaired(
    make: Callable[..., Any],
    real_client: redis.Redis,
    kind: str,
    mode: str,
    repaired: bytes | None,
) -> None:
    """A9: it counted as absent, which in refresh and invalidate may be."""
    world = await make(mode=mode)
    await load(world.clients, "Players", numbered(1))
    OTHER_TYPES[kind](real_client, "Players:1")

    assert not await world.audit()
    assert world.said[0] == f"mistyped Players:1: it holds a {kind}"
    assert "  0 missing, 0 stale, 1 of another type, 0 orphans" in world.said
    assert await world.found(repair=True) == {"Players:1": "mistyped"}
    assert (world.summary["mistyped"], world.summary["same"]) == (1, 0)

    assert real_client.get("Players:1") == repaired
    assert real_client.exists("{Players:1}!f")
    assert await world.found() == {}


@pytest.mark.parametrize("kind", OTHER_TYPES)
async def test_an_item_that_is_left_out_leaves_no_key_of_another_type(
    make: Callable[..., Any], real_client: redis.Redis, kind: str
) -> None:
    world = await make(transform=lambda _: None)
    await load(world.clients, "Players", numbered(1))
    OTHER_TYPES[kind](real_client, "Players:1")

    assert await world.found(repair=True) == {"Players:1": "mistyped"}
    assert not real_client.exists("Players:1")


@pytest.mark.parametrize("has_fence", [False, True])
@pytest.mark.parametrize("kind", OTHER_TYPES)
async def test_a_backfill_replaces_a_key_of_another_type(
    make: Callable[..., Any], real_client: redis.Redis, kind: str, *, has_fence: bool
) -> None:
    """It was counted as present: 1 read, 1 present, exit 0."""
    world: MirroredTable = await make()
    await load(world.clients, "Players", numbered(2))
    if has_fence:
        real_client.set("{Players:1}!f", NO_VERSION + b"2" + b"0" * 12, ex=600)
    OTHER_TYPES[kind](real_client, "Players:1")
    output = RecordedOutput()
    options = BackfillOptions(table="Players", skip_mapping_check=True, as_json=True)

    assert await backfill(world.clients, options, world.mirror, output)

    (result,) = output.documents
    counts = {name: result[name] for name in ("read", "filled", "present", "repaired")}
    assert counts == {"read": 2, "filled": 1, "present": 0, "repaired": 1}
    assert real_client.get("Players:1") == VALUE


# --- odd values -------------------------------------------------------------------------------

LONG = "%" * 1_500  # escaped, its name has more than 4,000 bytes
HASHED = redis_names(f"Players:{LONG.replace('%', '%25')}".encode())[0]
assert HASHED[-65:-64] == b"!"

# The strings that a key may hold, whatever replies, errors or types they look like.
STRINGS = {
    "empty": b"",
    "binary": b"\x00\xff\x80",
    "huge": b"x" * 5_000_000,
    "OK": b"OK",
    "an error": b"WRONGTYPE Operation against a key",
    "a type": b"none",
    "a fence": NO_VERSION + b"1",
    "JSON": b'{"Who":"gone"}',
}


def plant(client: redis.Redis, name: bytes, what: str) -> None:
    """Write what a case says under a name: a string, another type, a fence, or both."""
    _, fence = redis_names(name)
    for part in what.split(" + "):
        if part == "fence":
            client.set(fence, NO_VERSION + b"1", ex=600)
        elif part in OTHER_TYPES:
            OTHER_TYPES[part](client, name)  # type: ignore[arg-type]
        else:
            client.set(name, STRINGS[part])


ORPHANS = [  # what the key of a deleted item holds, and whether it is an orphan
    *[(what, True) for what in STRINGS],
    *[(f"{what} + fence", True) for what in STRINGS],
    ("fence", False),
    *[(what, False) for what in OTHER_TYPES],  # perhaps another application's
    *[(f"{what} + fence", True) for what in OTHER_TYPES],
]


async def test_what_a_deleted_items_key_may_hold(
    make: Callable[..., Any], real_client: redis.Redis
) -> None:
    """A10: a value that is the text OK counted as absent."""
    world = await make(keys={"Who": "S"})
    cases = {f"Players:{at}": case for at, case in enumerate(ORPHANS)}
    for name, (what, _) in cases.items():
        plant(real_client, name.encode(), what)
    before = {name: real_client.dump(name) for name in cases}
    expected = {cases[name]: "orphan" for name in cases if cases[name][1]}

    found = await world.found()
    assert {cases[name]: kind for name, kind in found.items()} == expected
    assert world.summary["foreign"] == len(OTHER_TYPES)
    assert {name: real_client.dump(name) for name in cases} == before
    assert await world.found(repair=True) == found

    left = {name: None if name in found else content for name, content in before.items()}
    assert {name: real_client.dump(name) for name in cases} == left


@pytest.mark.parametrize(
    ("value", "is_orphan"),
    [
        (b'{"Who":"' + LONG.encode() + b'"}', True),
        (b'{"Who":{"S":"' + LONG.encode() + b'"}}', True),
        (b'{"Who":"another"}', False),  # no name of this item: not surely ours
        (b"", False),
        (b"\xff", False),
        (b"OK", False),
    ],
)
async def test_a_hashed_name_is_an_orphan_where_its_value_says_whose_it_is(
    make: Callable[..., Any], real_client: redis.Redis, value: bytes, *, is_orphan: bool
) -> None:
    world = await make(keys={"Who": "S"})
    real_client.set(HASHED, value)

    found = await world.found(repair=True)

    assert found == ({HASHED.decode(): "orphan"} if is_orphan else {})
    assert real_client.exists(HASHED) != is_orphan
    assert world.summary["foreign"] == (not is_orphan)


RETIRED = [  # what the old key and the item's new key hold, and the old key's fate
    *[(what, "JSON", "removed") for what in STRINGS],
    *[(what, "", "kept") for what in STRINGS],
    ("JSON + fence", "JSON + fence", "removed"),
    ("JSON", "empty", "removed"),
    ("JSON", "fence", "kept"),  # the new key's value is not there
    *[("JSON", what, "kept") for what in OTHER_TYPES],  # readers of the new key get nothing
    *[("JSON", f"{what} + fence", "kept") for what in OTHER_TYPES],
    *[(what, "JSON", "foreign") for what in OTHER_TYPES],
    *[(f"{what} + fence", "JSON", "foreign") for what in OTHER_TYPES],
    ("fence", "JSON", ""),
    ("fence", "", ""),
]


async def test_what_an_old_key_and_its_new_key_may_hold(
    make: Callable[..., Any], real_client: redis.Redis
) -> None:
    world = await make(keys={"Who": "S"}, key="v2:{Who}")
    cases = {f"Players:{at}": case for at, case in enumerate(RETIRED)}
    for name, (old, new, _) in cases.items():
        plant(real_client, name.encode(), old)
        if new:
            plant(real_client, name.replace("Players", "v2").encode(), new)
    before = {name: real_client.dump(name) for name in cases}

    counts = await retired(world)

    fates = Counter(fate for _, _, fate in RETIRED)
    assert counts == {"present": 0, **{fate: fates[fate] for fate in fates if fate}}
    gone = [cases[name] for name in cases if before[name] and not real_client.exists(name)]
    assert gone == [case for case in RETIRED if case[2] == "removed"]


@pytest.mark.parametrize(
    ("value", "fate"),
    [
        (b'{"Who":"' + LONG.encode() + b'"}', "removed"),
        (b'{"Who":"another"}', "foreign"),
        (b"OK", "foreign"),
        (b"", "foreign"),
    ],
)
async def test_an_old_hashed_name_is_removed_where_its_value_says_whose_it_is(
    make: Callable[..., Any], real_client: redis.Redis, value: bytes, fate: str
) -> None:
    world = await make(keys={"Who": "S"}, key="v2:{Who}")
    real_client.set(HASHED, value)
    names = KeyNames("Players", {"Who": "S"}, EncodeRules(world.mirror.config))
    real_client.set(names.name_of((("Who", "S", LONG),)), b"{}")

    assert (await retired(world))[fate] == 1
    assert bool(real_client.exists(HASHED)) == (fate != "removed")


async def retired(world: MirroredTable) -> dict[str, int]:
    """Retire the default template; return the counts."""
    output = RecordedOutput()
    options = RetireOptions(table="Players", template="{@table}:{@key}", as_json=True)
    await retire(world.clients, options, world.mirror, output)
    counts: dict[str, int] = output.documents[-1]
    del counts["format"]
    return counts
