"""The benchmark of a copy's memory: items of the size it says, and all of them in the copy."""

from __future__ import annotations

import json
import random
from pathlib import Path
from statistics import mean

import orjson
import pytest
import redis

from asyncsync.lab.servers import ServerProcess
from benchmarks import bench_memory
from benchmarks.bench_memory import ITEM_BYTES, batches, dynamodb_bytes, item, weigh
from benchmarks.events import Image


@pytest.mark.parametrize(
    ("attributes", "size"),
    [
        ({}, 0),
        ({"Name": {"S": "köln"}}, 4 + 5),  # UTF-8
        ({"A": {"N": "0"}}, 1 + 2),
        ({"A": {"N": "12"}}, 1 + 2),  # two digits a byte, and one more
        ({"A": {"N": "123"}}, 1 + 3),
        ({"A": {"N": "-12"}}, 1 + 3),  # a sign is a byte
        ({"A": {"N": "1200000"}}, 1 + 2),  # zeros at either end are free
        ({"A": {"N": "0.0012"}}, 1 + 2),
        ({"A": {"B": "AQID"}}, 1 + 3),
        ({"A": {"BOOL": False}, "B": {"NULL": True}}, 2 + 2),
        ({"A": {"SS": ["x", "yz"]}}, 1 + 3),
        ({"A": {"L": []}}, 1 + 3),
        ({"A": {"L": [{"S": "x"}, {"NULL": True}]}}, 1 + 3 + 2 + 2),
        ({"A": {"M": {"Key": {"S": "x"}}}}, 1 + 3 + 1 + 3 + 1),
    ],
)
def test_an_item_has_the_size_that_dynamodb_counts(attributes: Image, size: int) -> None:
    assert dynamodb_bytes(attributes) == size


@pytest.mark.parametrize("size", ITEM_BYTES)
def test_items_have_about_their_size_give_or_take_a_half(size: int) -> None:
    chance = random.Random(1)
    sizes = [dynamodb_bytes(item(size, chance)) for _ in range(200)]

    assert 0.9 * size < mean(sizes) < 1.1 * size
    assert 0.4 * size < min(sizes)
    assert max(sizes) <= 1.5 * size
    assert len({*sizes}) > 20


def test_every_key_is_in_one_event_and_an_event_is_one_that_lambda_would_send() -> None:
    events = [event for event, _ in batches(10_000, 700)]
    records = [record for event in events for record in orjson.loads(event)["Records"]]

    assert len({record["dynamodb"]["Keys"]["Number"]["N"] for record in records}) == 700
    assert len(events) > 1
    assert max(map(len, events)) < 6_000_000


def test_a_removal_leaves_its_fence_alone(real_server: ServerProcess) -> None:
    with redis.Redis(host=real_server.host, port=real_server.port) as client:
        weigh(real_server.url, batches(100, 50, removed=True), 50)
        assert client.dbsize() == 50
        assert all(name.endswith(b"!f") for name in client.scan_iter())

        found = weigh(real_server.url, batches(100, 50), 50, value="json", fence="off")
        names = client.keys()
        lengths = [client.strlen(name) for name in names]

    assert {len(name) for name in names} == {20}
    assert found["value"] == round(mean(lengths), 1)
    assert found["memory"] > found["value"] > found["item"]


def test_it_measures_each_server_and_writes_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, real_server: ServerProcess
) -> None:
    from shutil import which

    binary = which(real_server.name)
    assert binary is not None
    (tmp_path / real_server.name).symlink_to(binary)
    into = tmp_path / "memory.json"
    words = ["bench_memory", "--keys", "20", "--into", str(into), str(tmp_path)]
    monkeypatch.setattr("sys.argv", words)
    monkeypatch.setattr(bench_memory, "AT_REST_S", 0.01)

    assert bench_memory.main() == 0

    result = json.loads(into.read_text())
    ((server, row),) = result["servers"].items()
    assert server.split()[0].lower() == real_server.name.removesuffix("-server")
    assert {*row} == {"fence", "expiry", "formats"}
    assert [*row["formats"]] == [*bench_memory.FORMATS]


def test_a_folder_without_a_server_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["bench_memory", str(tmp_path)])

    with pytest.raises(SystemExit):
        bench_memory.main()

    assert "give folders, each with redis-server or valkey-server" in capsys.readouterr().err
