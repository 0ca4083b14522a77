"""Order: whatever the schedule of deliveries, no reader ever sees a key move backwards.

Each of 500 random histories is shuffled, duplicated, replayed and split, and after every call
a second client reads every key. The same test without the fence, or with versions compared as
text, fails within 20 histories: it can see what it looks for.
"""

from __future__ import annotations

import pytest
import redis

from asyncsync import Config, Mirror, encode
from asyncsync.lab.servers import ServerProcess
from asyncsync.model import SequenceNumber
from tests.support.events import arn, event, record
from tests.support.formats import FormatServer
from tests.support.order import SEEN_BROKEN_WITHIN, first_broken

SCHEDULES = 500


def test_no_reader_ever_sees_a_key_move_back(
    real_server: ServerProcess, real_client: redis.Redis
) -> None:
    assert first_broken(real_server.url, real_client, SCHEDULES) is None


def test_no_reader_ever_sees_a_hash_or_a_document_move_back_or_mixed(
    real_format: FormatServer,
) -> None:
    found = first_broken(real_format.url, real_format.client, SCHEDULES, value=real_format.value)

    assert found is None


def test_without_the_fence_the_same_test_fails(
    real_server: ServerProcess, real_client: redis.Redis
) -> None:
    assert first_broken(real_server.url, real_client, SEEN_BROKEN_WITHIN, fence="off")


def test_with_versions_compared_as_text_the_same_test_fails(
    real_server: ServerProcess, real_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    def as_text(label_ms: int, sequence_number: SequenceNumber) -> bytes:
        return b"1%013d%d" % (label_ms, sequence_number)

    monkeypatch.setattr(encode, "version", as_text)

    assert first_broken(real_server.url, real_client, SEEN_BROKEN_WITHIN)


def test_a_recreated_stream_beats_the_old_one_though_its_numbers_start_lower(
    real_server: ServerProcess, real_client: redis.Redis
) -> None:
    mirror = Mirror(Config(redis_url=real_server.url, metrics="off"))
    old, new = arn("2026-01-01T00:00:00.000"), arn("2026-01-01T00:00:00.001")

    mirror.lambda_handler(event([record(1, 10**25, stream_arn=old)]))
    mirror.lambda_handler(event([record(1, 111, stream_arn=new, image={"v": {"N": "2"}})]))
    mirror.lambda_handler(event([record(1, 10**26, stream_arn=old)]))

    assert real_client.get("Players:1") == b'{"v":2}'
    mirror.close()
