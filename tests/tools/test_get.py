"""asyncsync get, on keys that the handler wrote."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import redis

from asyncsync import Config, Mirror
from asyncsync.cli.main import main
from asyncsync.fence import NO_VERSION, read_fence
from asyncsync.lab.servers import ServerProcess, free_port, redis_process
from tests.support.cluster import Cluster
from tests.support.events import FIRST, event, item, record
from tests.support.servers import ONE_SERVER


def write(url: str, records: Sequence[dict[str, Any]], **options: Any) -> None:
    mirror = Mirror(Config(redis_url=url, metrics="off", **options))
    mirror.lambda_handler(event(records))
    mirror.close()


def got(capsys: pytest.CaptureFixture[str], url: str, *arguments: str) -> tuple[int, str]:
    code = main(["get", *arguments, "--redis-url", url])
    return code, capsys.readouterr().out


def test_value_expiry_and_fence_are_shown(
    any_server: ServerProcess, any_client: redis.Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    write(any_server.url, [record(7, FIRST)])

    code, out = got(capsys, any_server.url, "Players:7")

    assert code == 0
    assert out.splitlines() == [
        "Players:7",
        '  value    {"Number":7,"Name":"player 7"}',
        "           30 bytes, expires never",
        "  fence    {Players:7}!f, expires in 24 h 59 min",
        "           stream of 2026-01-01T00:00:00.000Z",
        f"           sequence number {FIRST}",
        "           rank 1: a stream record",
    ]


def test_json_keeps_the_values_digits_and_shows_the_expiry(
    any_server: ServerProcess, any_client: redis.Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    digits = "1" + "0" * 100
    image = item(7, Points={"N": digits})
    write(any_server.url, [record(7, FIRST, image=image)], ttl_s=3_600)

    code, out = got(capsys, any_server.url, "Players:7", "--json")

    assert code == 0
    shown = json.loads(out)
    assert f'"Points":{digits}' in shown["value"]
    assert 3_590_000 < shown["expires_in_ms"] <= 3_600_000
    assert 89_990_000 < shown["fence_expires_in_ms"] <= 90_000_000
    assert shown["sequence_number"] == str(FIRST)
    assert (shown["stream"], shown["rank"]) == ("2026-01-01T00:00:00.000Z", 1)


def test_a_removed_item_shows_its_fence_and_nothing_at_all_is_exit_1(
    any_server: ServerProcess, any_client: redis.Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    write(any_server.url, [record(7, FIRST, removed=True)])

    code, out = got(capsys, any_server.url, "Players:7")
    assert code == 0
    assert "value    none" in out
    assert f"sequence number {FIRST}" in out

    code, out = got(capsys, any_server.url, "Players:8")
    assert code == 1
    assert out.splitlines() == ["Players:8", "  value    none", "  fence    none"]


def test_a_fence_of_a_repair_before_any_record_says_so(
    any_server: ServerProcess, any_client: redis.Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    any_client.set("{a}!f", NO_VERSION + b"2" + b"0" * 12)

    out = got(capsys, any_server.url, "a")[1]

    assert "without a version: no record of its key was known" in out
    assert "rank 2: a repair or a reader's fill" in out


def test_a_readers_claim_is_named(
    any_server: ServerProcess, any_client: redis.Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    any_client.set("{a}!f", b"0123456789012")

    out = got(capsys, any_server.url, "a")[1]

    assert out.splitlines()[-1].strip() == "without a version: a reader's claim"


def test_on_a_cluster_the_keys_own_node_is_asked(
    cluster: Cluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"redis://127.0.0.1:{cluster.nodes[0].port}"
    monkeypatch.setenv("ASYNCSYNC_REDIS_CLUSTER", "true")
    write(url, [record(number, FIRST) for number in range(20)], redis_cluster=True)

    for number in range(20):  # on every primary
        code, out = got(capsys, url, f"Players:{number}")
        assert code == 0
        assert f'value    {{"Number":{number},"Name":"player {number}"}}' in out
        assert f"sequence number {FIRST}" in out


def test_on_a_cluster_without_the_setting_the_error_names_it(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    codes, errors = set(), ""
    for node in cluster.nodes:
        codes.add(main(["get", "a", "--redis-url", f"redis://127.0.0.1:{node.port}"]))
        errors += capsys.readouterr().err

    assert 3 in codes
    assert "MOVED: the server is part of a cluster: set ASYNCSYNC_REDIS_CLUSTER=true" in errors


def test_a_binary_value_and_an_unknown_fence_are_shown_as_they_are(
    any_server: ServerProcess, any_client: redis.Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    any_client.set("other", b"\xff\x00binary")
    any_client.set("{other}!f", "something else")

    code, out = got(capsys, any_server.url, "other")

    assert code == 0
    assert "\\xff" in out
    assert "in an unknown format: something else" in out
    assert got(capsys, any_server.url, "{other}!f")[1].endswith("fence    none\n")


OTHER_TYPES: dict[str, Callable[[redis.Redis, str], object]] = {
    "hash": lambda client, name: client.hset(name, "a", "b"),
    "list": lambda client, name: client.rpush(name, "a"),
    "set": lambda client, name: client.sadd(name, "a"),
    "zset": lambda client, name: client.zadd(name, {"a": 1}),
    "stream": lambda client, name: client.xadd(name, {"a": "b"}),
}


@pytest.mark.parametrize("kind", OTHER_TYPES)
def test_a_key_of_another_type_is_named_and_is_exit_1(
    real_server: ServerProcess,
    real_client: redis.Redis,
    capsys: pytest.CaptureFixture[str],
    kind: str,
) -> None:
    """It was exit 3, could not run, with the words of the server."""
    write(real_server.url, [record(7, FIRST)])
    real_client.delete("Players:7")
    OTHER_TYPES[kind](real_client, "Players:7")
    real_client.expire("Players:7", 100)

    code, out = got(capsys, real_server.url, "Players:7")

    assert code == 1
    assert f"  value    none: the key holds a {kind}, expires in 1 min " in out
    assert "audit --repair" in out
    assert f"sequence number {FIRST}" in out
    code, out = got(capsys, real_server.url, "Players:7", "--json")
    shown = json.loads(out)
    assert (code, shown["value"], shown["other_type"]) == (1, None, kind)
    assert shown["sequence_number"] == str(FIRST)

    real_client.delete("{Players:7}!f")
    assert got(capsys, real_server.url, "Players:7")[0] == 1


def test_a_fence_of_another_type_is_named_and_is_exit_1(
    real_server: ServerProcess, real_client: redis.Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    real_client.set("Players:7", "{}")
    real_client.rpush("{Players:7}!f", "a")

    code, out = got(capsys, real_server.url, "Players:7")

    assert code == 1
    assert "value    {}" in out
    assert "fence    none: {Players:7}!f holds a list" in out


def test_a_user_who_may_not_ask_for_the_type_still_learns_what_is_wrong(
    real_server: ServerProcess, real_client: redis.Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    real_client.rpush("Players:7", "a")
    real_client.acl_setuser(
        "reader", enabled=True, nopass=True, keys=["*"], commands=["+get", "+pttl"]
    )
    url = f"redis://reader:any@{real_server.host}:{real_server.port}"

    code, out = got(capsys, url, "Players:7")

    assert code == 1
    assert "none: the key holds a value of another type" in out


@pytest.mark.parametrize("binary", ONE_SERVER)
def test_url_and_password_come_from_the_environment(
    binary: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with redis_process(binary, "--requirepass", "hush-hush") as server:
        url = f"redis://:hush-hush@{server.host}:{server.port}"
        write(url, [record(7, FIRST)])
        monkeypatch.setenv("ASYNCSYNC_REDIS_URL", server.url)
        monkeypatch.setenv("ASYNCSYNC_REDIS_PASSWORD", "hush-hush")
        assert main(["get", "Players:7"]) == 0
        monkeypatch.setenv("ASYNCSYNC_REDIS_PASSWORD", "hush-wrong")
        assert main(["get", "Players:7"]) == 3
        assert "hush" not in capsys.readouterr().err


def test_a_server_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    url = f"redis://127.0.0.1:{free_port()}"
    assert main(["get", "a", "--quiet", "--redis-url", url]) == 3
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "sequence_number", "rank", "nonce"),
    [
        (b"1" + b"1767225600000" + b"03" + b"111" + b"1", 111, b"1", b""),
        (b"1" + b"1767225600000" + b"22" + b"9" * 22 + b"0", int("9" * 22), b"0", b""),
        (b"1" + b"1767225600000" + b"03" + b"111" + b"2" + b"4217", 111, b"2", b"4217"),
    ],
)
def test_a_fence_is_decoded(
    content: bytes, sequence_number: int, rank: bytes, nonce: bytes
) -> None:
    fence = read_fence(content)

    assert fence is not None
    assert fence.label_ms == 1_767_225_600_000
    assert (fence.sequence_number, fence.rank, fence.nonce) == (sequence_number, rank, nonce)


@pytest.mark.parametrize(
    "content",
    [b"", b"2176722560000003111", b"1" * 16, b"1176722560000022" + b"9" * 5, b"nonce only"],
)
def test_other_content_is_not_decoded(content: bytes) -> None:
    assert read_fence(content) is None
