"""`asyncsync index`: the declaration, what a sample says of it, and the index on a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anyio
import orjson
import pytest
import redis

from asyncsync.aws.clients import AwsClients
from asyncsync.keys import bind, parse_template
from asyncsync.lab.servers import ServerProcess
from asyncsync.tools.errors import CommandRefused
from asyncsync.tools.index import sample as rules
from asyncsync.tools.index.declaration import (
    Index,
    command_line,
    create_command,
    fences_match,
    is_same,
    parse_fields,
    prefix_of,
)
from tests.support.project.command_line import ended
from tests.support.search import search_server
from tests.support.tables import load, make_table


@pytest.fixture(scope="module")
def searching() -> Iterator[ServerProcess]:
    with search_server() as server:
        yield server


@pytest.fixture
def client(searching: ServerProcess) -> Iterator[redis.Redis]:
    with redis.Redis(host=searching.host, port=searching.port, protocol=2) as connected:
        connected.flushall()
        yield connected


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Any:
    def set_all(**values: str) -> None:
        for name, value in values.items():
            monkeypatch.setenv(f"ASYNCSYNC_{name.upper()}", value)

    set_all(redis_url="redis://127.0.0.1:1", value="hash", key="{@table}:{@key}")
    return set_all


# --- the declaration --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "kind", "schema"),
    [
        (["name:text"], "HASH", "name TEXT"),
        (["name:text score:numeric", "t:tag"], "HASH", "name TEXT score NUMERIC t TAG"),
        (["created:numeric:sortable"], "HASH", "created NUMERIC SORTABLE"),
        (["a:text:sortable:as=b"], "HASH", "a AS b TEXT SORTABLE"),
        (["a:text:as=b:sortable"], "HASH", "a AS b TEXT SORTABLE"),
        (["a:b:tag"], "HASH", "a:b TAG"),
        (["text:text"], "HASH", "text TEXT"),
        (["sortable:tag"], "HASH", "sortable TAG"),
        (["name:text"], "JSON", "$.name AS name TEXT"),
        (["a-b:tag:as=ab"], "JSON", r'"$[\"a-b\"]" AS ab TAG'),
        (["1st:tag"], "JSON", r'"$[\"1st\"]" AS 1st TAG'),
        (['a"b:tag'], "JSON", r'"$[\"a\\\"b\"]" AS "a\"b" TAG'),
    ],
)
def test_a_declaration_becomes_a_schema(words: list[str], kind: str, schema: str) -> None:
    index = Index("idx:T", kind, "T:", parse_fields(words))

    line = command_line(create_command(index))

    assert line == f"FT.CREATE idx:T ON {kind} PREFIX 1 T: SCHEMA {schema}"


@pytest.mark.parametrize(
    "words",
    [
        ["name"],
        ["name:"],
        [":text"],
        ["name:vector"],
        ["name:TEXT"],
        ["sortable"],
        ["as=x"],
        ["name:sortable"],
        ["name:text:sorted"],
        [" "],
        ["a:text", "a:tag"],
        ["a:text", "b:tag:as=a"],
    ],
)
def test_another_declaration_is_refused(words: list[str]) -> None:
    with pytest.raises(CommandRefused):
        parse_fields(words)


@pytest.mark.parametrize(
    ("template", "prefix", "has_fences"),
    [
        ("{@table}:{@key}", "Players:", False),
        ("v2:{@table}:{Number}", "v2:Players:", False),
        ("{{players}}:{Number}", "{players}:", True),
        ("p:{Number}:{{x}}", "p:", True),
        ("{Number}", "", False),
    ],
)
def test_a_prefix_is_what_begins_every_name(template: str, prefix: str, has_fences: bool) -> None:
    bound = bind(parse_template(template), "Players", ("Number",))

    assert (prefix_of(bound), fences_match(bound)) == (prefix, has_fences)


def test_a_prefix_with_the_table_in_it_needs_the_table() -> None:
    assert prefix_of(parse_template("p:{@key}")) == "p:"
    with pytest.raises(CommandRefused, match="--table"):
        prefix_of(parse_template("p:{@table}:{@key}"))


# --- the sample, as a real server has it ------------------------------------------------------

HASHES: dict[str, bytes] = {
    "text": b"x",
    "number": b"12",
    "fraction": b"-1.50",
    "exponent": b"1e5",
    "tiny": b"1e-130",
    "long": b"1" * 38,
    "huge": b"1e308",
    "too huge": b"1e309",
    "far too huge": b"1e99999999999999999999",
    "smallest": b"4.9e-324",
    "too small": b"1e-400",
    "many digits": b"1" * 400,
    "zeros": b"-00.0",
    "zero": b"0e99999999999999999999",
    "plus": b"+1",
    "no whole": b".5",
    "no fraction": b"1.",
    "no exponent": b"1e",
    "underscore": b"1_0",
    "empty": b"",
    "space": b" 1",
    "boolean": b"true",
    "null": b"null",
    "list": b'["a","b"]',
    "map": b'{"a":1}',
    "not quite a list": b"[a",
    "comma": b"a,b",
}
DOCUMENTS: dict[str, Any] = {
    "text": "x",
    "digits": "12",
    "number": 12,
    "fraction": 1.5,
    "long": 2**62,
    "boolean": True,
    "null": None,
    "texts": ["a", "b"],
    "numbers": [1, 2],
    "mixed": ["a", 1],
    "text and null": ["a", None],
    "number and null": [1, None],
    "booleans": [True],
    "nulls": [None],
    "empty list": [],
    "empty": "",
    "map": {"a": 1},
}


@pytest.mark.parametrize("option", ["", ":sortable"])
@pytest.mark.parametrize("kind", ["text", "numeric", "tag"])
@pytest.mark.parametrize("value_format", ["hash", "redis-json"])
def test_what_the_sample_calls_a_problem_is_what_the_server_leaves_out(
    client: redis.Redis, value_format: str, kind: str, option: str
) -> None:
    """A list in a hash is a problem too, for a tag: there the server takes the wrong tags."""
    fields = parse_fields([f"v:{kind}{option}"])
    index = Index("i", "HASH" if value_format == "hash" else "JSON", "p:", fields)
    client.execute_command(*create_command(index))  # type: ignore[no-untyped-call]
    wrong: list[str] = []
    values: dict[str, Any] = HASHES if value_format == "hash" else DOCUMENTS
    for name, value in values.items():
        sample = rules.Sample(fields)
        if value_format == "hash":
            client.hset(f"p:{name}", "v", value)
            sample.add((b"v", value))
        else:
            document = orjson.dumps({"v": value})
            client.execute_command("JSON.SET", f"p:{name}", "$", document)  # type: ignore[no-untyped-call]
            sample.add(document)
        client.set(f"p:{name}!f", "1")  # a string is in no index
        wrong += [name] * bool(sample.problems)

    found: Any = client.execute_command("FT.SEARCH", "i", "*", "NOCONTENT", "LIMIT", 0, 99)  # type: ignore[no-untyped-call]
    names = {name.decode() for name in found[1:]}
    missing = {f"p:{name}" for name in values} - names
    assert not [name for name in names if name.endswith("!f")]
    tags = {"p:list", "p:map"} if (value_format, kind) == ("hash", "tag") else set()
    assert missing | tags == {f"p:{name}" for name in wrong}


@pytest.mark.parametrize(
    ("word", "value", "note"),
    [
        ("v:numeric", (b"v", b"9007199254740993"), rules.PAST_EXACT),
        ("v:numeric", (b"v", b"9007199254740992"), ""),
        ("v:numeric", b'{"v":9007199254740993}', rules.PAST_EXACT),
        ("v:numeric", (b"w", b"1"), rules.MISSING),
        ("v:numeric", b'{"w":1}', rules.MISSING),
        ("v:tag", b'{"v":null}', rules.MISSING),
        ("v:tag", (b"v", b"Smith, John"), rules.COMMA),
        ("v:tag", b'{"v":"Smith, John"}', ""),
        ("v:text", (b"v", b"12"), rules.DIGITS),
        ("v:text", (b"v", b'["a"]'), rules.JSON_TEXT),
        ("v:text", (b"v", b"a"), ""),
    ],
)
def test_what_is_worth_knowing_is_a_note(word: str, value: Any, note: str) -> None:
    sample = rules.Sample(parse_fields([word]))

    sample.add(value)

    assert sample.problems == []
    expected = [f"{word}: 1 of 1 items (100.0%) {note}"] if note else []
    assert sample.notes == expected


# --- the index on a server --------------------------------------------------------------------

FIELDS = [
    "a:text",
    "b:text:sortable",
    "c:tag",
    "d:tag:sortable",
    "e:numeric",
    "f:numeric:sortable",
]


@pytest.mark.parametrize("kind", ["HASH", "JSON"])
def test_an_index_is_the_same_only_as_a_whole(client: redis.Redis, kind: str) -> None:
    def made(name: str, prefix: str, words: list[str]) -> Index:
        return Index(name, kind, prefix, parse_fields(words))

    def info(*command: str) -> object:
        client.execute_command(*command)  # type: ignore[no-untyped-call]
        answer: object = client.execute_command("FT.INFO", command[1])  # type: ignore[no-untyped-call]
        return answer

    index = made("i", "p:", FIELDS)
    same = info(*create_command(index))
    with_separator = [*create_command(made("j", "p:", FIELDS)), "g", "TAG", "SEPARATOR", ";"]
    stemless = create_command(made("k", "p:", FIELDS))
    stemless.insert(stemless.index("TEXT") + 1, "NOSTEM")
    filtered = create_command(made("l", "p:", FIELDS))
    filtered[filtered.index("SCHEMA") : filtered.index("SCHEMA")] = ["FILTER", "@e > 1"]

    flagged = create_command(made("m", "p:", FIELDS))
    flagged.insert(flagged.index("SCHEMA"), "NOFREQS")

    assert is_same(index, same)
    assert not is_same(index, info(*flagged))
    assert not is_same(made("i", "q:", FIELDS), same)
    assert not is_same(made("i", "p:", FIELDS[1:]), same)
    assert not is_same(made("i", "p:", [*FIELDS, "g:tag"]), same)
    assert not is_same(made("i", "p:", [*FIELDS[:-1], "f:numeric"]), same)
    assert not is_same(made("i", "p:", [*FIELDS[:-1], "f:tag"]), same)
    assert not is_same(Index("i", "HASH" if kind == "JSON" else "JSON", "p:", index.fields), same)
    assert not is_same(made("j", "p:", [*FIELDS, "g:tag"]), info(*with_separator))
    assert not is_same(index, info(*stemless))
    assert not is_same(index, info(*filtered))
    assert not is_same(index, None)


# FT.INFO's answers of Redis 8.0.6 with Search 2.10.5, without its figures.
HASH_INFO: Any = [
    *(b"index_name", b"i", b"index_options", [], b"index_definition"),
    [b"key_type", b"HASH", b"prefixes", [b"p:"], b"default_score", b"1"],
    b"attributes",
    [
        [b"identifier", b"a", b"attribute", b"a", b"type", b"TEXT", b"WEIGHT", b"1"],
        [b"identifier", b"c", b"attribute", b"c", b"type", b"TAG", b"SEPARATOR", b","],
        [b"identifier", b"f", b"attribute", b"n", b"type", b"NUMERIC", b"SORTABLE", b"UNF"],
    ],
]


@pytest.mark.parametrize(
    ("words", "prefix", "is_so"),
    [
        (["a:text", "c:tag", "f:numeric:sortable:as=n"], "p:", True),
        (["c:tag", "f:numeric:sortable:as=n", "a:text"], "p:", True),
        (["a:text", "c:tag", "f:numeric:sortable"], "p:", False),
        (["a:text", "c:tag", "f:numeric:as=n"], "p:", False),
        (["a:text", "c:tag:sortable", "f:numeric:sortable:as=n"], "p:", False),
        (["a:text", "c:tag", "f:numeric:sortable:as=n"], "p", False),
        (["a:text", "c:tag"], "p:", False),
    ],
)
def test_an_index_is_compared_with_what_the_server_says(
    words: list[str], prefix: str, is_so: bool
) -> None:
    assert is_same(Index("i", "HASH", prefix, parse_fields(words)), HASH_INFO) is is_so
    assert not is_same(Index("i", "JSON", prefix, parse_fields(words)), HASH_INFO)
    assert not is_same(Index("i", "HASH", prefix, parse_fields(words)), HASH_INFO[:-1])


async def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    return await anyio.to_thread.run_sync(lambda: ended(capsys, "index", *words))


@pytest.fixture(autouse=True)
def in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    from contextlib import nullcontext

    monkeypatch.setattr("asyncsync.cli.commands.interruptible", nullcontext)


async def test_it_makes_an_index_once(
    capsys: pytest.CaptureFixture[str],
    searching: ServerProcess,
    client: redis.Redis,
    settings: Any,
) -> None:
    settings(redis_url=searching.url, key="p:{Number}")
    client.hset("p:1", "name", "Ada")

    code, out, err = await run(capsys, "name:text", "--create")
    assert (code, out) == (0, "FT.CREATE idx:p ON HASH PREFIX 1 p: SCHEMA name TEXT\n")
    assert "made the index idx:p" in err
    found: Any = client.execute_command("FT.SEARCH", "idx:p", "ada", "NOCONTENT")  # type: ignore[no-untyped-call]
    assert found == [1, b"p:1"]

    code, out, err = await run(capsys, "name:text", "--create")
    assert code == 0
    assert "there already, and the same" in err

    code, out, err = await run(capsys, "name:tag", "--create")
    assert code == 1
    assert out.startswith("fix: another index has the name idx:p")

    code, out, err = await run(capsys, "name:tag", "--create", "--json", "--name", "other")
    document = json.loads(out)
    assert (code, document["created"], document["index"]) == (0, True, "other")


async def test_a_table_is_compared_before_anything_is_made(
    capsys: pytest.CaptureFixture[str],
    clients: AwsClients,
    endpoint: str,
    table: str,
    searching: ServerProcess,
    client: redis.Redis,
    settings: Any,
) -> None:
    await make_table(clients, table)
    items: Any = [{"Number": {"N": str(at)}, "score": {"N": str(at)}} for at in range(1, 31)]
    items += [{"Number": {"N": "31"}, "score": {"S": "many"}}, {"Number": {"N": "32"}}]
    await load(clients, table, items)
    settings(redis_url=searching.url)
    at = ["--table", table, "--endpoint-url", endpoint, "--create"]

    code, out, err = await run(capsys, "score:numeric", *at)

    assert code == 1
    assert out == f"fix: score:numeric: 1 of 32 items (3.1%) {rules.NOT_A_NUMBER}\n"
    assert f"note: score:numeric: 1 of 32 items (3.1%) {rules.MISSING}" in err
    assert f"table arn:aws:dynamodb:us-east-1:123456789012:table/{table}, Redis" in err
    assert client.execute_command("FT._LIST") == []  # type: ignore[no-untyped-call]
    code, out, _ = await run(capsys, "score:numeric", *at, "--sample", "5")
    assert code == 0
    assert out == f"FT.CREATE idx:{table} ON HASH PREFIX 1 {table}: SCHEMA score NUMERIC\n"


async def test_a_server_without_search_is_exit_3(
    capsys: pytest.CaptureFixture[str], one_server: ServerProcess, settings: Any
) -> None:
    settings(redis_url=one_server.url, key="p:{Number}")

    code, out, err = await run(capsys, "name:text", "--create")

    assert (code, out) == (3, "")
    assert "has no Search: use a server that has it" in err


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"value": "json"}, "values json are strings, which cannot be searched"),
        ({"value": "dynamodb-json"}, "values dynamodb-json are strings"),
        ({"mode": "invalidate"}, "mode invalidate writes no values"),
        ({"key": "{Number}"}, "have no prefix"),
        ({}, "give --table or --function"),
    ],
)
async def test_a_copy_that_cannot_be_searched_is_exit_2(
    capsys: pytest.CaptureFixture[str], settings: Any, values: dict[str, str], message: str
) -> None:
    settings(**values)

    code, out, err = await run(capsys, "name:text")

    assert (code, out) == (2, "")
    assert message in err


async def test_it_says_where_fences_match_the_prefix(
    capsys: pytest.CaptureFixture[str], settings: Any
) -> None:
    settings(key="{{players}}:{Number}")
    assert "none is in the index" in (await run(capsys, "name:text"))[2]
    settings(key="players:{Number}")
    assert "none is in the index" not in (await run(capsys, "name:text"))[2]


async def test_a_sample_is_what_the_handler_would_write(
    capsys: pytest.CaptureFixture[str],
    clients: AwsClients,
    endpoint: str,
    table: str,
    settings: Any,
) -> None:
    """Settings, expiry and rejects as in the handler: a sample never connects to Redis."""
    await make_table(clients, table)
    items: Any = [{"Number": {"N": str(at)}, "a": {"S": "x"}, "b": {"N": "1"}} for at in (1, 2)]
    items += [{"Number": {"N": "3"}, "ends": {"N": "1700000000"}}]
    await load(clients, table, items)
    settings(value="hash", fields="a,ends", ttl_attribute="ends")
    at = ["--table", table, "--endpoint-url", endpoint, "--json"]

    code, out, _ = await run(capsys, "b:numeric a:text", *at)

    document = json.loads(out)
    notes = document["notes"]
    assert code == 0
    assert f"b:numeric: 2 of 2 items (100.0%) {rules.MISSING}" in notes
    assert "1 item of the sample left out of the copy" in notes
    assert document["sampled"] == 2
    settings(value="redis-json", fields="Number,a")
    code, out, _ = await run(capsys, "a:numeric", *at)
    assert code == 1
    document = json.loads(out)
    assert document["command"] is None
    assert document["problems"] == [f"a:numeric: 2 of 2 items (100.0%) {rules.NOT_A_NUMBER}"]
