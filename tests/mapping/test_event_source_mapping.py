"""Tests the event source mapping: AWS's rules one by one, then all of them with any answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsync import ConfigError
from asyncsync.mapping.answers import (
    Answer,
    FunctionError,
    InvocationThrottled,
    Returned,
    first_failed,
)
from asyncsync.mapping.event_source_mapping import (
    EVENT_BYTES_MAX,
    Batch,
    EventSourceMapping,
    MappingSettings,
    ShardRecord,
    shard_record,
)
from tests.support.events import FIRST, arn, record

SHARD = "shardId-00000001573689847184-864758bb"
FUNCTION = "arn:aws:lambda:us-east-1:111122223333:function:mirror"
OK = Returned({"batchItemFailures": []})
ERROR = FunctionError()


def failed_from(at: int) -> Returned:
    """Return an answer that reports record `at` of the test's shard."""
    return Returned({"batchItemFailures": [{"itemIdentifier": str(FIRST + at)}]})


def records(count: int, *, keys: int = 1_000, created_s: float = 0.0) -> list[ShardRecord]:
    return [
        shard_record(record(at % keys, FIRST + at, created_s=created_s)) for at in range(count)
    ]


def a_mapping(count: int = 0, **settings: Any) -> EventSourceMapping:
    """Return a mapping with one open shard and `count` records at time 0."""
    settings = {"report_failures": True, "backoff_first_ms": 0} | settings
    mapping = EventSourceMapping(MappingSettings(**settings), function=FUNCTION, stream_arn=arn())
    mapping.open(SHARD)
    mapping.add(SHARD, records(count), 0)
    return mapping


def places(batch: Batch) -> list[int]:
    return [int(record.item_identifier) - FIRST for record in batch.records]


def run(mapping: EventSourceMapping, answers: Sequence[Answer]) -> list[tuple[list[int], str]]:
    """Answer each due batch in turn; return its places and its request id."""
    invocations = []
    for answer in answers:
        (batch,) = mapping.due(0)
        invocations.append((places(batch), batch.request_id))
        mapping.answered(batch, answer, 0)
    return invocations


# --- what an answer means -----------------------------------------------------------------------

IDS = [str(FIRST + at) for at in range(4)]


@pytest.mark.parametrize(
    "answer",
    [
        None,
        {},
        [],
        {"batchItemFailures": []},
        {"batchItemFailures": None},
        {"batchitemfailures": [{"itemIdentifier": IDS[1]}]},
        {"BatchItemFailures": [{"itemIdentifier": IDS[1]}]},
        "a string",
        7,
    ],
)
def test_an_answer_that_names_no_failures_is_complete_success(answer: object) -> None:
    assert first_failed(IDS, answer) == 4


@pytest.mark.parametrize(
    "failures",
    [
        [{"itemIdentifier": ""}],
        [{"itemIdentifier": None}],
        [{"foo": IDS[1]}],
        [{}],
        [{"itemIdentifier": 123}],
        [{"itemIdentifier": int(IDS[1])}],
        [{"itemIdentifier": str(FIRST + 99)}],
        [IDS[1]],
        [{"itemIdentifier": IDS[1]}, {"itemIdentifier": ""}],
        {"itemIdentifier": IDS[1]},
        "all",
    ],
)
def test_an_answer_that_names_no_record_of_the_batch_is_complete_failure(failures: object) -> None:
    assert first_failed(IDS, {"batchItemFailures": failures}) == 0


def test_the_lowest_of_several_failures_counts_and_is_compared_as_a_number() -> None:
    ids = ["8", "9", "10", "11"]

    answer = {"batchItemFailures": [{"itemIdentifier": text} for text in ("11", "9", "10")]}

    assert first_failed(ids, answer) == 1


def test_without_report_batch_item_failures_the_answer_is_not_read() -> None:
    mapping = a_mapping(2, report_failures=False)

    assert run(mapping, [failed_from(0)]) == [([0, 1], run_id(1))]
    assert mapping.is_idle


def run_id(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012x}"


# --- how batches are formed ---------------------------------------------------------------------


def test_a_batch_ends_at_its_size_and_the_next_waits_for_its_answer() -> None:
    mapping = a_mapping(5, batch_size=2)

    assert [places for places, _ in run(mapping, [OK, OK, OK])] == [[0, 1], [2, 3], [4]]
    assert mapping.due(0) == []


def test_one_batch_of_a_lane_is_in_flight() -> None:
    mapping = a_mapping(5, batch_size=2)
    (batch,) = mapping.due(0)

    assert mapping.due(0) == []
    assert mapping.wakes_ms(0) is None

    mapping.answered(batch, OK, 0)
    assert places(mapping.due(0)[0]) == [2, 3]


def test_a_window_waits_for_more_until_it_ends_or_the_batch_is_full() -> None:
    mapping = a_mapping(1, batch_size=3, window_s=2)
    assert mapping.due(1_999) == []
    assert mapping.wakes_ms(1_000) == 2_000
    assert places(mapping.due(2_000)[0]) == [0]

    mapping = a_mapping(3, batch_size=3, window_s=2)
    assert places(mapping.due(0)[0]) == [0, 1, 2]


def test_a_batch_ends_before_six_megabytes() -> None:
    mapping = a_mapping(batch_size=10_000, window_s=300)
    big = {"Big": {"S": "x" * 400_000}}
    mapping.add(SHARD, [shard_record(record(at, FIRST + at, image=big)) for at in range(20)], 0)

    (batch,) = mapping.due(0)

    size = len(batch.records[0].body)
    assert len(batch.event) <= EVENT_BYTES_MAX < len(batch.event) + 1 + size
    assert len(json.loads(batch.event)["Records"]) == len(batch.records) == 15


def test_items_of_one_key_stay_in_one_lane_and_lanes_are_invoked_side_by_side() -> None:
    mapping = a_mapping(parallelization_factor=4)
    mapping.add(SHARD, records(100, keys=20), 0)

    batches = mapping.due(0)

    assert 1 < len(batches) <= 4
    keys = [{record.key for record in batch.records} for batch in batches]
    assert len(set.union(*keys)) == sum(map(len, keys)) == 20
    assert sorted(at for batch in batches for at in places(batch)) == list(range(100))


def test_a_child_shard_waits_until_its_parent_has_drained() -> None:
    mapping = a_mapping(1)
    mapping.open("child", parent=SHARD)
    mapping.open("stranger", parent="trimmed long ago")
    mapping.add("child", records(1), 0)
    mapping.add("stranger", records(1), 0)
    parent, stranger = mapping.due(0)
    assert (parent.shard_id, stranger.shard_id) == (SHARD, "stranger")
    mapping.answered(parent, OK, 0)

    assert mapping.due(0) == []  # the parent may get more records
    mapping.answered(stranger, OK, 0)
    assert mapping.wakes_ms(0) is None  # nothing happens before the parent ends
    mapping.close(SHARD)
    assert [batch.shard_id for batch in mapping.due(0)] == ["child"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("batch_size", 0), ("batch_size", 10_001), ("window_s", 301), ("parallelization_factor", 11)],
)
def test_a_setting_that_aws_refuses_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"{name}={value} is not allowed"):
        MappingSettings(**{name: value})


# --- after a failure ----------------------------------------------------------------------------


def test_a_retry_is_the_same_batch_under_the_same_request_id() -> None:
    mapping = a_mapping(3)

    invocations = run(mapping, [ERROR, failed_from(0), Returned({"batchItemFailures": [{}]}), OK])

    assert invocations == [([0, 1, 2], run_id(1))] * 4
    assert mapping.is_idle


def test_what_follows_an_acknowledged_part_is_a_new_batch_with_a_fresh_count() -> None:
    mapping = a_mapping(4, retry_attempts_max=1)

    invocations = run(mapping, [ERROR, failed_from(2), failed_from(2), OK])

    assert invocations == [([0, 1, 2, 3], run_id(1))] * 2 + [([2, 3], run_id(2))] * 2
    assert mapping.discarded == []
    assert mapping.is_idle


def test_bisect_splits_a_failed_batch_and_spends_no_attempt() -> None:
    mapping = a_mapping(5, bisect=True, retry_attempts_max=0)

    invocations = run(mapping, [ERROR, ERROR, ERROR, OK, OK])

    assert [places for places, _ in invocations] == [[0, 1, 2, 3, 4], [0, 1], [0], [1], [2, 3, 4]]
    assert len({request_id for _, request_id in invocations}) == 5
    (discarded,) = mapping.discarded
    assert discarded["DDBStreamBatchInfo"]["startSequenceNumber"] == str(FIRST)
    assert discarded["requestContext"]["approximateInvokeCount"] == 1


def test_bisect_with_a_partial_response_splits_where_the_response_says() -> None:
    mapping = a_mapping(5, bisect=True)

    assert [places for places, _ in run(mapping, [failed_from(3), OK])] == [
        [0, 1, 2, 3, 4],
        [3, 4],
    ]


def test_bisect_with_the_first_record_reported_splits_in_half() -> None:
    mapping = a_mapping(4, bisect=True)

    assert [places for places, _ in run(mapping, [failed_from(0), OK, OK])] == [
        [0, 1, 2, 3],
        [0, 1],
        [2, 3],
    ]


def test_a_throttled_invocation_spends_no_attempt() -> None:
    mapping = a_mapping(1, retry_attempts_max=0)

    run(mapping, [InvocationThrottled()] * 5 + [OK])

    assert mapping.discarded == []
    assert mapping.is_idle


def test_waits_between_attempts_double_up_to_their_limit_and_begin_anew_after_success() -> None:
    mapping = a_mapping(2, batch_size=1, backoff_first_ms=100, backoff_max_ms=500)
    answers: list[Answer] = [ERROR, ERROR, InvocationThrottled(), ERROR, ERROR, OK, ERROR]
    now_ms, waits = 0, list[int]()
    for answer in answers:
        (batch,) = mapping.due(now_ms)
        waits.append(mapping.answered(batch, answer, now_ms).wait_ms)
        assert not waits[-1] or mapping.due(now_ms + waits[-1] - 1) == []
        assert mapping.wakes_ms(now_ms) == now_ms + waits[-1]
        now_ms += waits[-1]

    assert waits == [100, 200, 400, 500, 500, 0, 100]


def test_exhausted_retries_discard_all_that_is_left_of_the_batch() -> None:
    """Recorded on AWS: MaximumRetryAttempts=3 makes four invocations, functionError is null."""
    mapping = a_mapping(6, retry_attempts_max=3)

    invocations = run(mapping, [failed_from(5)] * 5)

    assert [places for places, _ in invocations] == [[0, 1, 2, 3, 4, 5]] + [[5]] * 4
    (discarded,) = mapping.discarded
    payload = json.loads(discarded.pop("payload"))  # type: ignore[misc]
    assert [entry["dynamodb"]["SequenceNumber"] for entry in payload["Records"]] == [
        str(FIRST + 5)
    ]
    assert discarded == {
        "requestContext": {
            "requestId": run_id(2),
            "functionArn": FUNCTION,
            "condition": "RetryAttemptsExhausted",
            "approximateInvokeCount": 4,
        },
        "responseContext": {
            "statusCode": 200,
            "executedVersion": "$LATEST",
            "functionError": None,
        },
        "version": "1.0",
        "timestamp": "1970-01-01T00:00:00.000Z",
        "DDBStreamBatchInfo": {
            "shardId": SHARD,
            "startSequenceNumber": str(FIRST + 5),
            "endSequenceNumber": str(FIRST + 5),
            "approximateArrivalOfFirstRecord": "1970-01-01T00:00:00Z",
            "approximateArrivalOfLastRecord": "1970-01-01T00:00:00Z",
            "batchSize": 1,
            "streamArn": arn(),
        },
    }
    assert mapping.checkpoint(SHARD) == str(FIRST + 5)


def test_a_function_error_is_named_in_the_discarded_batch() -> None:
    mapping = a_mapping(1, retry_attempts_max=0)

    run(mapping, [ERROR])

    assert mapping.discarded[0]["responseContext"]["functionError"] == "Unhandled"


def test_records_past_their_age_are_discarded_before_the_function_sees_them() -> None:
    mapping = a_mapping(record_age_max_s=60)
    young = records(4)[2:]
    mapping.add(SHARD, records(2) + [younger(record, 30_000) for record in young], 0)

    (batch,) = mapping.due(60_000)

    assert places(batch) == [2, 3]
    (discarded,) = mapping.discarded
    assert discarded["requestContext"]["condition"] == "RecordAgeExceeded"
    assert discarded["DDBStreamBatchInfo"]["batchSize"] == 2
    assert "responseContext" not in discarded  # no invocation was mapping
    assert mapping.checkpoint(SHARD) == str(FIRST + 1)


def younger(record: ShardRecord, created_ms: int) -> ShardRecord:
    return replace(record, created_ms=created_ms)


def test_a_batch_that_waits_for_its_next_attempt_ages() -> None:
    mapping = a_mapping(2, record_age_max_s=60, backoff_first_ms=60_000)
    run(mapping, [ERROR])

    assert mapping.due(60_000) == []
    assert mapping.is_idle
    assert mapping.discarded[0]["requestContext"]["approximateInvokeCount"] == 1
    assert "responseContext" in mapping.discarded[0]


# --- at least once ------------------------------------------------------------------------------


def test_a_batch_delivered_again_is_invoked_again_and_moves_no_checkpoint() -> None:
    mapping = a_mapping(3, batch_size=1)
    (first,) = mapping.due(0)
    mapping.answered(first, OK, 0)
    (second,) = mapping.due(0)

    mapping.deliver_again(first)
    mapping.answered(second, OK, 0)

    assert mapping.checkpoint(SHARD) == str(FIRST + 1)
    assert [places for places, _ in run(mapping, [ERROR, OK, OK])] == [[0], [0], [2]]
    assert mapping.checkpoint(SHARD) == str(FIRST + 2)
    assert mapping.waiting == 0


# --- as a whole ---------------------------------------------------------------------------------

ANSWERS = st.one_of(
    st.just("ok"),
    st.just("error"),
    st.just("throttled"),
    st.just("malformed"),
    st.integers(0, 20),  # the batch's record that is reported
)


def _answer(chosen: object, batch: Batch) -> Answer:
    if isinstance(chosen, int):
        at = min(chosen, len(batch.records) - 1)
        return Returned(
            {"batchItemFailures": [{"itemIdentifier": batch.records[at].item_identifier}]}
        )
    answers: dict[object, Answer] = {
        "ok": OK,
        "error": ERROR,
        "throttled": InvocationThrottled(),
        "malformed": Returned({"batchItemFailures": [{"itemIdentifier": ""}]}),
    }
    return answers[chosen]


@given(
    keys=st.lists(st.integers(0, 4), max_size=25),
    pages=st.integers(1, 4),
    answers=st.lists(st.tuples(ANSWERS, st.integers(0, 3)), max_size=40),
    settings=st.fixed_dictionaries(
        {
            "batch_size": st.integers(1, 9),
            "window_s": st.integers(0, 1),
            "parallelization_factor": st.integers(1, 3),
            "retry_attempts_max": st.integers(-1, 2),
            "record_age_max_s": st.sampled_from([-1, 2]),
            "bisect": st.booleans(),
            "report_failures": st.booleans(),
        }
    ),
)
def test_every_record_leaves_once_in_its_items_order_and_the_checkpoint_passes_none(
    keys: list[int],
    pages: int,
    answers: list[tuple[object, int]],
    settings: dict[str, Any],
) -> None:
    """With any answers, in any order of completion over lanes, that succeed in the end."""
    mapping = a_mapping(backoff_first_ms=300, **settings)
    all_records = [
        shard_record(record(key, FIRST + at, created_s=0.0)) for at, key in enumerate(keys)
    ]
    left: list[str] = []
    known_discarded = 0
    in_flight: list[Batch] = []
    script = iter(answers)
    now_ms = 0
    page_size = -(-len(keys) // pages) or 1
    arriving = [all_records[at : at + page_size] for at in range(0, len(keys), page_size)]

    while arriving or not mapping.is_idle:
        if arriving:
            mapping.add(SHARD, arriving.pop(0), now_ms)
        in_flight += mapping.due(now_ms)
        for discarded in mapping.discarded[known_discarded:]:
            left += _identifiers(discarded["payload"])
        known_discarded = len(mapping.discarded)
        _checkpoint_is_honest(mapping, all_records, left)
        if not in_flight:
            wakes_ms = mapping.wakes_ms(now_ms)
            assert arriving or mapping.is_idle or wakes_ms is not None, "it would wait forever"
            now_ms = max(now_ms, wakes_ms or 0)
            continue
        chosen, which = next(script, ("ok", 0))
        batch = in_flight.pop(which % len(in_flight))
        decision = mapping.answered(batch, _answer(chosen, batch), now_ms)
        left += [record.item_identifier for record in decision.acknowledged]
        now_ms += 100

    for discarded in mapping.discarded[known_discarded:]:
        left += _identifiers(discarded["payload"])
    assert sorted(left) == sorted(record.item_identifier for record in all_records)
    for key in set(keys):
        own = [number for number in left if keys[int(number) - FIRST] == key]
        assert own == sorted(own, key=int)
    assert mapping.waiting == 0
    assert mapping.checkpoint(SHARD) == (all_records[-1].item_identifier if keys else None)


def _identifiers(payload: str) -> list[str]:
    return [entry["dynamodb"]["SequenceNumber"] for entry in json.loads(payload)["Records"]]


def _checkpoint_is_honest(
    mapping: EventSourceMapping, all_records: list[ShardRecord], left: list[str]
) -> None:
    """Compare the checkpoint with the longest prefix of the shard that has left, found slowly."""
    prefix = None
    for of_shard in all_records:
        if of_shard.item_identifier not in left:
            break
        prefix = of_shard.item_identifier
    assert mapping.checkpoint(SHARD) == prefix
