"""Tests of my_mirror, without AWS and without a server."""

import pytest

from asyncsync import RecordError
from asyncsync.testing import (
    TTL_DELETION,
    MakeCopy,
    insert,
    memory_copy,
    modify,
    remove,
    stream_event,
)
from my_mirror import mirror

pytest_plugins = ["asyncsync.testing.fixtures"]


def test_the_key_of_a_player() -> None:
    assert mirror.redis_key({"Number": 10}) == "player-10"


def test_the_address_stays_in_the_table() -> None:
    player = {"Number": 10, "Name": "Ada", "Email": "ada@example.org"}

    assert mirror.redis_value(player) == b'{"Number":10,"Name":"Ada"}'


def test_a_hidden_player_is_left_out() -> None:
    assert mirror.redis_value({"Number": 10, "Hidden": True}) is None


def test_a_player_without_a_number_has_no_key() -> None:
    with pytest.raises(RecordError, match="the key function raised KeyError") as error:
        mirror.redis_key({"Name": "Ada"})

    assert isinstance(error.value.__cause__, KeyError)


def test_a_player_who_hides_leaves_the_copy() -> None:
    with memory_copy(mirror) as copy:
        copy.mirror.lambda_handler(stream_event(insert({"Number": 7}, {"Name": "Zoë"})))
        assert copy.redis.get("player-7") == '{"Number":7,"Name":"Zoë"}'.encode()

        copy.mirror.lambda_handler(stream_event(modify({"Number": 7}, {"Hidden": True})))
        assert copy.redis.get("player-7") is None


def test_a_late_record_does_not_bring_a_player_back(asyncsync_copy: MakeCopy) -> None:
    copy = asyncsync_copy(mirror)
    late = stream_event(insert({"Number": 7}, {"Name": "Zoë"}))
    copy.mirror.lambda_handler(stream_event(remove({"Number": 7}, user_identity=TTL_DELETION)))

    assert copy.mirror.lambda_handler(late) == {"batchItemFailures": []}
    assert copy.redis.get("player-7") is None
