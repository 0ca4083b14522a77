"""The documents are true: their blocks run, their tables agree with the code."""

from __future__ import annotations

import inspect
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import redis
from msgspec import NODEFAULT
from msgspec.structs import fields

from asyncsync import Config, ConfigError, limits, plan
from asyncsync.config import PREFIX
from asyncsync.connection import _REFUSAL_WORDS
from asyncsync.keys import escape, parse_template
from asyncsync.lab.servers import ServerProcess
from asyncsync.lab.simulation import small_scope as scope
from asyncsync.lab.simulation.small_scope_play import MODES
from asyncsync.metrics import METRICS
from asyncsync.tools.audit.confidence import bound_percent, percent
from asyncsync.values import to_json
from tests.programs.bugs import BUGS
from tests.support.project.command_line import assert_parses
from tests.support.project.package import FLOORS, HOT

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = (
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "docs/cost.md",
    "docs/guarantees.md",
    "docs/read-through.md",
    "docs/strategies.md",
    "docs/testing.md",
    "benchmarks/README.md",
)
ADDRESS = "127.0.0.1:6379"

# The README's words for a limit, and the limit.
LIMITS = {
    "arguments of one command": limits.CALL_ARGUMENTS_MAX,
    "keys of one script call": plan.KEYS_MAX,
    "bytes of values in one script call": limits.CALL_BYTES_MAX,
    "bytes of a name": limits.NAME_BYTES_MAX,
    "digits of a sequence number": limits.SEQUENCE_NUMBER_DIGITS_MAX,
    "time left under which nothing is sent, ms": limits.SEND_LEFT_MS_MIN,
    "kept back of every wait for the answer, ms": limits.ANSWER_RESERVE_MS,
    "shortest life of a fence, s": limits.FENCE_TTL_S_MIN,
    "life of an IAM token, s": limits.IAM_TOKEN_S,
    "age at which one is made anew, s": limits.IAM_TOKEN_AGE_S_MAX,
    "redirections followed for one batch": limits.REDIRECTIONS_MAX,
    "nodes asked for the topology in one reading": limits.TOPOLOGY_ASKED_MAX,
}


def blocks(name: str) -> list[tuple[str, str]]:
    """Language and text of each fenced block; what a command printed is not a block to run."""
    text = (ROOT / name).read_text(encoding="utf-8")
    text = re.sub(r"<!-- (demo|output) -->.*?<!-- /\1 -->", "", text, flags=re.DOTALL)
    return re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def section(title: str) -> str:
    """The README's text under one heading."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", README, re.DOTALL | re.M)
    assert found, title
    return found[1]


def rows(title: str) -> list[list[str]]:
    """The cells of a section's first table, without its head."""
    lines = [line for line in section(title).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def shell_lines() -> Iterator[tuple[str, str]]:
    for name in DOCUMENTS:
        for language, text in blocks(name):
            if language == "sh":
                yield from ((name, line) for line in text.splitlines() if line)


# --- blocks -----------------------------------------------------------------------------------


def test_every_block_is_of_a_kind_that_is_run() -> None:
    languages = {language for name in DOCUMENTS for language, _ in blocks(name)}

    assert languages == {"python", "sh", "text"}  # a drawing is text


@pytest.fixture
def program(fake_server: ServerProcess) -> Iterator[tuple[str, redis.Redis]]:
    """The README's Python, top to bottom, and the server it would talk to."""
    text = "".join(text for language, text in blocks("README.md") if language == "python")
    with redis.Redis(host=fake_server.host, port=fake_server.port) as client:
        client.flushall()
        yield text.replace(ADDRESS, f"{fake_server.host}:{fake_server.port}"), client


def test_the_python_runs_and_writes_what_it_says(program: tuple[str, redis.Redis]) -> None:
    source, client = program
    scope: dict[str, Any] = {"__name__": "readme"}

    exec(compile(source, "README.md", "exec"), scope)  # its own assertions are the test
    scope["mirror"].close()
    scope["reader"].close()

    assert client.get("player-7") == b'{"Number":7,"Name":"Ada"}'
    assert client.exists("{player-7}!f")


def test_the_python_fails_where_the_server_holds_something_else(
    program: tuple[str, redis.Redis],
) -> None:
    source, client = program
    client.set("{player-7}!f", "9" * 40)  # a newer fence: the README's record is not written
    scope: dict[str, Any] = {"__name__": "readme"}

    with pytest.raises(AssertionError):
        exec(compile(source, "README.md", "exec"), scope)
    scope["mirror"].close()
    scope["reader"].close()


@pytest.mark.parametrize(("name", "line"), list(shell_lines()))
def test_a_shell_line_is_a_command_that_is_there(name: str, line: str) -> None:
    words = shlex.split(line)
    makefile = (ROOT / "Makefile").read_text()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]

    if words[0] == "make":
        assert re.search(rf"^{words[1]}:.*## ", makefile, re.MULTILINE)
    elif words[:2] == ["pip", "install"]:
        assert words[2] == "." or words[2].removeprefix(".[").removesuffix("]") in extras
    else:
        assert words[0] == "asyncsync"
        assert_parses(words[1:])


def test_the_commands_of_the_operations_are_there() -> None:
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    lines = re.findall(r"^ *(asyncsync .+)$", text, re.MULTILINE)

    assert len(lines) >= 8
    for line in lines:
        assert_parses(shlex.split(line)[1:])


def test_the_operations_say_what_a_sample_is_worth() -> None:
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")

    assert "A hundred thousand keys with no difference" in text
    assert bound_percent(100_000, 100_000).startswith("99.997")
    assert "at least 99.997 %" in text
    one_differs = percent(99_999, 100_000), bound_percent(99_999, 100_000)
    assert "{} of 100,000 keys, at least {} with".format(*one_differs) in README


@pytest.mark.parametrize("command", sorted(set(re.findall(r"`make (\S+)`", README))))
def test_a_make_target_named_in_a_sentence_is_there(command: str) -> None:
    assert re.search(rf"^{command}:.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_link_leads_to_a_file_that_is_there(name: str) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / name).read_text(encoding="utf-8"))
    folder = (ROOT / name).parent
    dead = [link for link in links if "://" not in link and not (folder / link).exists()]

    assert not dead


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_path_named_in_a_sentence_is_there(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    paths = re.findall(r"`((?:asyncsync|benchmarks|scripts|tests|\.ci)/[\w./]+)`", text)

    assert not [path for path in paths if not (ROOT / path).exists()]


# --- tables -----------------------------------------------------------------------------------


def test_the_settings_are_those_of_config_with_their_defaults() -> None:
    documented = {row[0].strip("`"): row[1].strip("`") for row in rows("Settings")}
    real = {}
    for field in fields(Config):
        name = PREFIX + field.name.upper()
        default = field.default
        if default is NODEFAULT:
            real[name] = "required"
        elif default is None:
            real[name] = "none"
        else:
            real[name] = str(default).lower() if isinstance(default, bool) else str(default)

    assert documented == real
    assert [row[0].strip("`") for row in rows("Settings")] == list(real)


def test_the_choices_of_a_setting_are_all_named() -> None:
    for setting, _, meaning in rows("Settings"):
        name = setting.strip("`").removeprefix(PREFIX).lower()
        choices = get_args(inspect.get_annotations(Config)[name])
        for choice in [each for each in choices if isinstance(each, str)]:
            assert f"`{choice}`" in meaning, f"{setting} does not name {choice}"


def test_the_metrics_are_those_that_are_written() -> None:
    documented = {row[0].strip("`"): row[1] for row in rows("Metrics and logs")}

    assert documented == METRICS


def test_the_limits_are_those_of_the_code() -> None:
    documented = {row[0]: int(row[1].replace(" ", "")) for row in rows("Limits")}

    assert documented == LIMITS


def test_the_architecture_lists_the_floors_in_their_order() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    floors = re.findall(r"^\| (what Lambda runs|`\w+`)", text, re.MULTILINE)

    assert [floor.strip("`") for floor in floors] == list(FLOORS)


def test_the_modules_are_listed_in_their_order() -> None:
    assert [row[0].strip("`") for row in rows("Read the code")] == list(HOT)


def test_the_glossary_has_ten_words() -> None:
    assert len(rows("Ten words, for readers new to AWS")) == 10


def test_every_guarantee_names_the_test_that_holds_it() -> None:
    guarantees = re.findall(r"^\| (G\d) \| .*\]\((tests/[\w/]+\.py)\) \|$", README, re.MULTILINE)

    assert [name for name, _ in guarantees] == [f"G{n}" for n in range(1, 9)]


def test_the_value_table_is_what_values_are() -> None:
    types = {tag for row in rows("Read it") for tag in re.findall(r"`([A-Z]+)`", row[0])}

    assert types == {"S", "N", "BOOL", "NULL", "B", "L", "M", "SS", "NS", "BS"}
    for tag, example, written in [
        ("N", "100", b"100"),
        ("NULL", True, b"null"),
        ("B", "AQI=", b'"AQI="'),
        ("SS", ["b", "a"], b'["a","b"]'),
        ("NS", ["10", "9"], b"[9,10]"),
        ("BS", ["Ag==", "AQ=="], b'["AQ==","Ag=="]'),
    ]:
        assert to_json({"x": {tag: example}}) == b'{"x":' + written + b"}"


def test_the_changelog_names_every_surface_and_says_what_to_do() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    releases = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    surfaces = "settings|key grammar|value formats|fence format|metrics|command line|exit codes"

    assert re.findall(rf"^\| ({surfaces})\b", text, re.MULTILINE) == surfaces.split("|")
    assert releases
    assert all("### What you must do\n" in release for release in releases)


def test_the_changelogs_trace_of_a_lone_percent_sign_holds() -> None:
    assert "`x` and `25%` give `x%25%25`, and so do `x%` and `25`" in " ".join(
        (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").split()
    )
    names = [escape(a) + "%" + escape(b) for a, b in (("x", "25%"), ("x%", "25"))]

    assert names == ["x%25%25", "x%25%25"]
    with pytest.raises(ConfigError):
        parse_template("{A}%{B}")
    assert parse_template("{A}%4{B}")


def test_the_numbers_in_the_sentences_are_those_of_the_code() -> None:
    hours = Config(redis_url="redis://unused").fence_ttl_s / 3_600
    failures = section("What happens when")

    assert f"outlives a deletion by {hours:g} hours" in README
    assert f"less than {limits.SEND_LEFT_MS_MIN} ms left before sending" in failures
    assert f"lag passed {limits.LAG_TROUBLE_MS / 1_000:g} s" in section("Settings")
    assert f"over {limits.NAME_BYTES_MAX:_} bytes ends in".replace("_", " ") in README
    assert f"follows it, at most {limits.REDIRECTIONS_MAX} times" in failures
    for word in _REFUSAL_WORDS:
        assert word in failures


def test_the_bugs_are_those_that_are_tried() -> None:
    text = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
    listed = re.findall(
        r"^\| (order|loss|deadline|connection|formats|tools|readers) \| (.+) \| (\S+) \| (.*)\|$",
        text,
        re.M,
    )
    tried = [
        (each.area, each.wrong, each.check, "a fault and a replay " if each.combination else " ")
        for each in BUGS
    ]

    assert listed == tried


def test_the_seeds_and_histories_that_were_run_are_those_that_are_written_down() -> None:
    text = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
    journal = [json.loads(line) for line in (ROOT / "docs/soak.jsonl").read_text().splitlines()]
    starts = [row["first"] for row in journal]
    ends = [row["first"] + row["seeds"] for row in journal]

    assert starts == [0, *ends[:-1]]  # no seed is missing, none counted twice
    assert sum(row["violations"] for row in journal) == 0
    assert f"**Seeds so far**: {_spaced(ends[-1])}, no violation" in text
    assert f"{_spaced(scope.expected() * len(MODES))} histories" in text


def _spaced(number: int) -> str:
    return f"{number:_}".replace("_", " ")


def test_no_command_is_named_that_is_not_there() -> None:
    commands = {"demo", "run", "check", "get", "backfill", "audit", "redrive"}
    commands |= {"retire", "simulate", "estimate", "index"}

    # Behind the name stands a command, or a word of a sentence.
    found = set(re.findall(r"asyncsync (\w+)", README))
    assert found - {"does", "import", "is", "keeps", "0"} == commands
