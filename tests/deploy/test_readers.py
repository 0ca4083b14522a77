"""The JavaScript of docs/reading.md, under Node with the clients that it names.

`make readers` installs the clients. Each reads as the page's own user, from one server and from a
cluster, what the handler wrote.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.cluster import LoadBalancingStrategy

from asyncsync.lab.servers import ServerProcess
from tests.support.cluster import Cluster
from tests.support.servers import LACKING, skip, skip_without
from tests.support.template.cache_users import set_user, write
from tests.support.template.cloudformation import ROOT

PAGE = (ROOT / "docs" / "reading.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```js\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
*READERS, NUMBERS = BLOCKS
CLIENTS = ("redis", "ioredis", "@valkey/valkey-glide")
(RULES,) = re.findall(r"^```text\n(.*?)\n```$", PAGE, re.MULTILINE)
MODULES = ROOT / ".readers" / "node_modules"
NODE_MAJOR_MIN = 20
SECRET = "any"

READER = pytest.mark.parametrize("text", READERS, ids=CLIENTS)


@pytest.fixture
def node(tmp_path: Path) -> Callable[[str], Any]:
    """Return what runs a module's text under Node and parses the JSON that it prints."""
    skip_without("node")
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True)
    if int(version.stdout[1:].split(".")[0]) < NODE_MAJOR_MIN:
        skip(f"{LACKING}Node {NODE_MAJOR_MIN} or later, only {version.stdout.strip()}")
    if not MODULES.exists():
        skip(f"{LACKING}clients for Node (make readers)")
    (tmp_path / "node_modules").symlink_to(MODULES)

    def run(text: str) -> Any:
        path = tmp_path / "reader.mjs"
        path.write_text(text, encoding="utf-8")
        done = subprocess.run(
            ["node", str(path)],
            env={"PATH": os.environ["PATH"], "REDIS_PASSWORD": SECRET},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout, parse_float=Decimal)

    return run


def read_player(text: str, port: int) -> str:
    """Return a block that reads from a port and prints what it read."""
    assert text.count("6379") == 1
    return (
        f"{text.replace('6379', str(port))}\nconsole.log(JSON.stringify(player));process.exit();"
    )


def on_a_cluster(text: str) -> str:
    """Return a block with the client of its comment, which is for a cluster."""
    cluster, count = re.subn(
        r"(const cache = ).*\n// a cluster: (.*)\n", r"\1\2;\n", text, count=1
    )
    assert count == 1
    return cluster


def test_each_client_that_is_named_has_its_reader() -> None:
    assert [re.findall(r'from "(.*?)"', text) for text in READERS] == [[each] for each in CLIENTS]
    packages = json.loads((ROOT / "tests" / "readers" / "package.json").read_text())
    assert sorted(packages["dependencies"]) == sorted(CLIENTS)


def test_the_clients_are_pinned_with_digests_and_without_addresses() -> None:
    lock = json.loads((ROOT / "tests" / "readers" / "package-lock.json").read_text())
    packages = {name: each for name, each in lock["packages"].items() if name}

    assert packages
    assert all(each["integrity"].startswith("sha512-") for each in packages.values())
    assert not any("resolved" in each for each in packages.values())


@READER
def test_a_client_reads_from_one_server(
    text: str, node: Callable[[str], Any], real_server: ServerProcess, real_client: redis.Redis
) -> None:
    set_user(real_client, "reader", ["resetpass", f">{SECRET}", *RULES.split()])

    assert node(read_player(text, real_server.port)) is None
    write(real_server.url)
    assert node(read_player(text, real_server.port)) == {"Number": 7, "Name": "player 7"}
    real_client.acl_deluser("reader")


@READER
def test_a_client_reads_from_a_cluster(
    text: str, node: Callable[[str], Any], cluster: Cluster
) -> None:
    rules = ["resetpass", f">{SECRET}", *RULES.split()]
    for each in cluster.nodes:
        set_user(each.client, "reader", rules)
    write(cluster.url, redis_cluster=True)

    program = read_player(on_a_cluster(text), cluster.nodes[0].port)
    assert node(program) == {"Number": 7, "Name": "player 7"}
    for each in cluster.nodes:
        each.client.acl_deluser("reader")


def test_pythons_client_of_clusters_reads_as_the_pages_user(cluster: Cluster) -> None:
    for each in cluster.nodes:
        set_user(each.client, "reader", RULES.split())
    write(cluster.url, redis_cluster=True)

    for strategy in (None, LoadBalancingStrategy.ROUND_ROBIN):  # which reads from replicas too
        with redis.RedisCluster(
            host="127.0.0.1",
            port=cluster.nodes[0].port,
            username="reader",
            password=SECRET,
            load_balancing_strategy=strategy,
        ) as reader:
            for _ in range(4):
                assert reader.mget_nonatomic("Players:8", "Players:9") == [None, None]
            assert strategy or json.loads(reader.get("Players:7"))["Number"] == 7
    for each in cluster.nodes:
        each.client.acl_deluser("reader")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # What JavaScript holds stays a number.
        ("0", 0),
        ("-7", -7),
        ("1.5", Decimal("1.5")),
        ("-0.001", Decimal("-0.001")),
        ("1.50", Decimal("1.5")),
        ("0.1", Decimal("0.1")),
        ("123456789012345", 123456789012345),
        ("9007199254740991", 9007199254740991),
        ("0.30000000000000004", Decimal("0.30000000000000004")),
        ("1000000000000000000000", 10**21),
        ("1E+2", 100),
        # The rest keeps its digits.
        ("9007199254740993", "9007199254740993"),
        ("9007199254740991.4", "9007199254740991.4"),
        ("-9007199254740993", "-9007199254740993"),
        ("12345678901234567890123456789012345678", "12345678901234567890123456789012345678"),
        ("0.12345678901234567", "0.12345678901234567"),
        ("0.1234567890123456789", "0.1234567890123456789"),
        ("1.2345678901234567890E+99", "1.2345678901234567890E+99"),
        # A string is a string, whatever it looks like.
        ('"9007199254740993"', "9007199254740993"),
        (r'"a \" 9007199254740993 \\"', 'a " 9007199254740993 \\'),
        ("true", True),
        ("null", None),
    ],
)
def test_a_number_is_a_number_where_javascript_can_hold_it_else_its_digits(
    text: str, value: object, node: Callable[[str], Any]
) -> None:
    document = f'{{"n":{text},"1E99":[{text}]}}'

    read = node(f"{NUMBERS}\nconsole.log(JSON.stringify(parseExactly({json.dumps(document)})));")

    assert read == {"n": value, "1E99": [value]}
