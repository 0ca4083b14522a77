"""docs/search.md: its links, commands and questions, on a real server."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from asyncsync.lab.servers import ServerProcess
from tests.support.project.command_line import assert_parses
from tests.support.project.package import ROOT
from tests.support.search import search_server
from tests.support.servers import LACKING

PAGE = (ROOT / "docs" / "search.md").read_text(encoding="utf-8")
NODE_MODULES = ROOT / ".readers" / "node_modules"
CREATE = re.findall(r"^FT\.CREATE .+$", PAGE, re.M)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^ *```{language}\n(.*?)^ *```$", PAGE, re.M | re.S)


@pytest.fixture(scope="module")
def searching() -> Iterator[ServerProcess]:
    with search_server() as server:
        yield server


@pytest.fixture
def client(searching: ServerProcess) -> Iterator[redis.Redis]:
    """A client of a server with the page's index and one picture."""
    with redis.Redis(host=searching.host, port=searching.port, protocol=2) as connected:
        connected.flushall()
        (create,) = CREATE
        connected.execute_command(*shlex.split(create))
        picture = {"Id": "1", "owner": "ada", "tags": "sunset,sea", "title": "A bridge"}
        connected.hset("Pictures:1", mapping={**picture, "created": "1700000001"})
        yield connected


def test_a_link_leads_to_a_file_that_is_there() -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", PAGE)

    assert not [
        link for link in links if "://" not in link and not (ROOT / "docs" / link).exists()
    ]


def test_a_shell_line_is_a_command_that_is_there() -> None:
    lines = [line.strip() for text in blocks("sh") for line in text.splitlines()]

    assert len(lines) == 4
    for line in lines:
        assert_parses(shlex.split(line)[1:])


def test_each_question_finds_the_picture(client: redis.Redis) -> None:
    questions = blocks("redis")[0].splitlines()

    assert len(questions) == 5
    for question in questions:
        answer = client.execute_command(*shlex.split(question))  # type: ignore[no-untyped-call]
        assert answer[0] == 1, question


def test_the_python_asks_the_same(client: redis.Redis, searching: ServerProcess) -> None:
    (source,) = blocks("python")
    asked = re.sub(r"^(pictures\.\w+\()", r"answers += \1", source, flags=re.M)
    asked = re.sub(r"^answers \+= (.*)$", r"answers.append(\1)", asked, flags=re.M)
    scope: dict[str, list[object]] = {"answers": []}

    exec(asked.replace("127.0.0.1:6379", f"{searching.host}:{searching.port}"), scope)

    *found, counted = scope["answers"]
    assert [len(answer.docs) for answer in found] == [1, 1, 1, 1]  # type: ignore[attr-defined]
    assert counted.rows == [["owner", "ada", "pictures", "1"]]  # type: ignore[attr-defined]


def test_the_javascript_asks_the_same(
    client: redis.Redis, searching: ServerProcess, tmp_path: Path
) -> None:
    if not NODE_MODULES.exists():
        pytest.skip(f"{LACKING}clients for Node (make readers)")
    (source,) = blocks("js")
    asked = re.sub(
        r"^await client\.ft", "answers[answers.length] = await client.ft", source, flags=re.M
    )
    asked = asked.replace("127.0.0.1:6379", f"{searching.host}:{searching.port}")
    asked = asked.replace("const index", "const answers = [];\nconst index")
    (tmp_path / "node_modules").symlink_to(NODE_MODULES)
    (tmp_path / "page.mjs").write_text(
        f"{asked}\nconsole.log(JSON.stringify(answers));\nprocess.exit();\n"
    )
    ended = subprocess.run(
        ["node", str(tmp_path / "page.mjs")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert ended.returncode == 0, ended.stderr
    *found, counted = json.loads(ended.stdout)
    assert [answer["total"] for answer in found] == [1, 1, 1, 1]
    assert counted["results"] == [{"owner": "ada", "pictures": "1"}]
