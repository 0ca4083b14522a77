"""The event source mapping, rule by rule as AWS has it, then as a whole under any answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
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
    """An answer that names record `at` of a test's shard."""
    return Returned({"batchItemFailures": [{"itemIdentifier": str(FIRST + at)}]})


def records(count: int, *, keys: int = 1_000, created_s: float = 0.0) -> list[ShardRecord]:
    return [
        shard_record(record(at % keys, FIRST + at, created_s=created_s)) for at in range(count)
    ]


def mapping(count: int = 0, **settings: Any) -> EventSourceMapping:
    """A mapping of one open shard that holds `count` records at time 0."""
    settings = {"report_failures": True, "backoff_first_ms": 0} | settings
    made = EventSourceMapping(MappingSettings(**settings), function=FUNCTION, stream_arn=arn())
    made.open(SHARD)
    made.add(SHARD, records(count), 0)
    return made


def places(batch: Batch) -> list[int]:
    return [int(each.item_identifier) - FIRST for each in batch.records]


def run(made: EventSourceMapping, answers: Sequence[Answer]) -> list[tuple[list[int], str]]:
    """Give each due batch the next answer; what was invoked, and under which request id."""
    seen = []
    for answer in answers:
        (batch,) = made.due(0)
        seen.append((places(batch), batch.request_id))
        made.answered(batch, answer, 0)
    return seen


# --- what the answer means (aws.md 1.3) ---------------------------------------------------------

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
        "a text",
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

    answer = {"batchItemFailures": [{"itemIdentifier": each} for each in ("11", "9", "10")]}

    assert first_failed(ids, answer) == 1


def test_without_report_batch_item_failures_the_answer_is_not_read() -> None:
    made = mapping(2, report_failures=False)

    assert run(made, [failed_from(0)]) == [([0, 1], run_id(1))]
    assert made.is_idle


def run_id(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012x}"


# --- how batches are formed (1.1, 1.7) ----------------------------------------------------------


def test_a_batch_ends_at_its_size_and_the_next_waits_for_its_answer() -> None:
    made = mapping(5, batch_size=2)

    assert [each for each, _ in run(made, [OK, OK, OK])] == [[0, 1], [2, 3], [4]]
    assert made.due(0) == []


def test_one_batch_of_a_lane_is_in_flight() -> None:
    made = mapping(5, batch_size=2)
    (batch,) = made.due(0)

    assert made.due(0) == []
    assert made.wakes_ms(0) is None

    made.answered(batch, OK, 0)
    assert places(made.due(0)[0]) == [2, 3]


def test_a_window_waits_for_more_until_it_ends_or_the_batch_is_full() -> None:
    made = mapping(1, batch_size=3, window_s=2)
    assert made.due(1_999) == []
    assert made.wakes_ms(1_000) == 2_000
    assert places(made.due(2_000)[0]) == [0]

    made = mapping(3, batch_size=3, window_s=2)
    assert places(made.due(0)[0]) == [0, 1, 2]


def test_a_batch_ends_before_six_megabytes() -> None:
    made = mapping(batch_size=10_000, window_s=300)
    big = {"Big": {"S": "x" * 400_000}}
    made.add(SHARD, [shard_record(record(at, FIRST + at, image=big)) for at in range(20)], 0)

    (batch,) = made.due(0)

    size = len(batch.records[0].body)
    assert len(batch.event) <= EVENT_BYTES_MAX < len(batch.event) + 1 + size
    assert len(json.loads(batch.event)["Records"]) == len(batch.records) == 15


def test_items_of_one_key_stay_in_one_lane_and_lanes_are_invoked_side_by_side() -> None:
    made = mapping(parallelization_factor=4)
    made.add(SHARD, records(100, keys=20), 0)

    batches = made.due(0)

    assert 1 < len(batches) <= 4
    keys = [{each.key for each in batch.records} for batch in batches]
    assert len(set.union(*keys)) == sum(map(len, keys)) == 20
    assert sorted(at for batch in batches for at in places(batch)) == list(range(100))


def test_a_child_shard_waits_until_its_parent_has_drained() -> None:
    made = mapping(1)
    made.open("child", parent=SHARD)
    made.open("stranger", parent="trimmed long ago")
    made.add("child", records(1), 0)
    made.add("stranger", records(1), 0)
    parent, stranger = made.due(0)
    assert (parent.shard_id, stranger.shard_id) == (SHARD, "stranger")
    made.answered(parent, OK, 0)

    assert made.due(0) == []  # it is not known yet that the parent has no more
    made.answered(stranger, OK, 0)
    assert made.wakes_ms(0) is None  # only the parent's end can change that
    made.close(SHARD)
    assert [batch.shard_id for batch in made.due(0)] == ["child"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("batch_size", 0), ("batch_size", 10_001), ("window_s", 301), ("parallelization_factor", 11)],
)
def test_a_setting_that_aws_refuses_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"{name}={value} is not allowed"):
        MappingSettings(**{name: value})


# --- what happens after a failure (1.3, 1.7) ----------------------------------------------------


def test_a_retry_is_the_same_batch_under_the_same_request_id() -> None:
    made = mapping(3)

    seen = run(made, [ERROR, failed_from(0), Returned({"batchItemFailures": [{}]}), OK])

    assert seen == [([0, 1, 2], run_id(1))] * 4
    assert made.is_idle


def test_what_follows_an_acknowledged_part_is_a_new_batch_with_a_fresh_count() -> None:
    made = mapping(4, retry_attempts_max=1)

    seen = run(made, [ERROR, failed_from(2), failed_from(2), OK])

    assert seen == [([0, 1, 2, 3], run_id(1))] * 2 + [([2, 3], run_id(2))] * 2
    assert made.discarded == []
    assert made.is_idle


def test_bisect_splits_a_failed_batch_and_spends_no_attempt() -> None:
    made = mapping(5, bisect=True, retry_attempts_max=0)

    seen = run(made, [ERROR, ERROR, ERROR, OK, OK])

    assert [each for each, _ in seen] == [[0, 1, 2, 3, 4], [0, 1], [0], [1], [2, 3, 4]]
    assert len({request_id for _, request_id in seen}) == 5
    (gone,) = made.discarded
    assert gone["DDBStreamBatchInfo"]["startSequenceNumber"] == str(FIRST)
    assert gone["requestContext"]["approximateInvokeCount"] == 1


def test_bisect_with_a_partial_response_splits_where_the_response_says() -> None:
    made = mapping(5, bisect=True)

    assert [each for each, _ in run(made, [failed_from(3), OK])] == [[0, 1, 2, 3, 4], [3, 4]]


def test_bisect_with_the_first_record_reported_splits_in_half() -> None:
    made = mapping(4, bisect=True)

    assert [each for each, _ in run(made, [failed_from(0), OK, OK])] == [
        [0, 1, 2, 3],
        [0, 1],
        [2, 3],
    ]


def test_a_throttled_invocation_spends_no_attempt() -> None:
    made = mapping(1, retry_attempts_max=0)

    run(made, [InvocationThrottled()] * 5 + [OK])

    assert made.discarded == []
    assert made.is_idle


def test_waits_between_attempts_double_up_to_their_limit_and_begin_anew_after_success() -> None:
    made = mapping(2, batch_size=1, backoff_first_ms=100, backoff_max_ms=500)
    answers: list[Answer] = [ERROR, ERROR, InvocationThrottled(), ERROR, ERROR, OK, ERROR]
    now_ms, waits = 0, list[int]()
    for answer in answers:
        (batch,) = made.due(now_ms)
        waits.append(made.answered(batch, answer, now_ms).wait_ms)
        assert not waits[-1] or made.due(now_ms + waits[-1] - 1) == []
        assert made.wakes_ms(now_ms) == now_ms + waits[-1]
        now_ms += waits[-1]

    assert waits == [100, 200, 400, 500, 500, 0, 100]


def test_exhausted_retries_discard_all_that_is_left_of_the_batch() -> None:
    """Real capture: MaximumRetryAttempts=3 makes four invocations, functionError null."""
    made = mapping(6, retry_attempts_max=3)

    seen = run(made, [failed_from(5)] * 5)

    assert [each for each, _ in seen] == [[0, 1, 2, 3, 4, 5]] + [[5]] * 4
    (gone,) = made.discarded
    payload = json.loads(gone.pop("payload"))  # type: ignore[misc]
    assert [each["dynamodb"]["SequenceNumber"] for each in payload["Records"]] == [str(FIRST + 5)]
    assert gone == {
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
    assert made.checkpoint(SHARD) == str(FIRST + 5)


def test_a_function_error_is_named_in_the_discarded_batch() -> None:
    made = mapping(1, retry_attempts_max=0)

    run(made, [ERROR])

    assert made.discarded[0]["responseContext"]["functionError"] == "Unhandled"


def test_records_past_their_age_are_discarded_before_the_function_sees_them() -> None:
    made = mapping(record_age_max_s=60)
    young = records(4)[2:]
    made.add(SHARD, records(2) + [fresh(each, 30_000) for each in young], 0)

    (batch,) = made.due(60_000)

    assert places(batch) == [2, 3]
    (gone,) = made.discarded
    assert gone["requestContext"]["condition"] == "RecordAgeExceeded"
    assert gone["DDBStreamBatchInfo"]["batchSize"] == 2
    assert "responseContext" not in gone  # no invocation was made
    assert made.checkpoint(SHARD) == str(FIRST + 1)


def fresh(each: ShardRecord, created_ms: int) -> ShardRecord:
    return ShardRecord(each.body, each.key, each.item_identifier, created_ms)


def test_a_batch_that_waits_for_its_next_attempt_ages() -> None:
    made = mapping(2, record_age_max_s=60, backoff_first_ms=60_000)
    run(made, [ERROR])

    assert made.due(60_000) == []
    assert made.is_idle
    assert made.discarded[0]["requestContext"]["approximateInvokeCount"] == 1
    assert "responseContext" in made.discarded[0]


# --- at least once ------------------------------------------------------------------------------


def test_a_batch_delivered_again_is_invoked_again_and_moves_no_checkpoint() -> None:
    made = mapping(3, batch_size=1)
    (first,) = made.due(0)
    made.answered(first, OK, 0)
    (second,) = made.due(0)

    made.deliver_again(first)
    made.answered(second, OK, 0)

    assert made.checkpoint(SHARD) == str(FIRST + 1)
    assert [each for each, _ in run(made, [ERROR, OK, OK])] == [[0], [0], [2]]
    assert made.checkpoint(SHARD) == str(FIRST + 2)
    assert made.waiting == 0


# --- as a whole ---------------------------------------------------------------------------------

ANSWERS = st.one_of(
    st.just("ok"),
    st.just("error"),
    st.just("throttled"),
    st.just("malformed"),
    st.integers(0, 20),  # the record of the batch that is reported
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
    """Any answers, in any order of completion over lanes, that in the end succeed."""
    made = mapping(backoff_first_ms=300, **settings)
    all_records = [
        shard_record(record(key, FIRST + at, created_s=0.0)) for at, key in enumerate(keys)
    ]
    left: list[str] = []
    seen_discarded = 0
    in_flight: list[Batch] = []
    script = iter(answers)
    now_ms = 0
    page_size = -(-len(keys) // pages) or 1
    arriving = [all_records[at : at + page_size] for at in range(0, len(keys), page_size)]

    while arriving or not made.is_idle:
        if arriving:
            made.add(SHARD, arriving.pop(0), now_ms)
        in_flight += made.due(now_ms)
        for gone in made.discarded[seen_discarded:]:
            left += _identifiers(gone["payload"])
        seen_discarded = len(made.discarded)
        _checkpoint_is_honest(made, all_records, left)
        if not in_flight:
            wakes_ms = made.wakes_ms(now_ms)
            assert arriving or made.is_idle or wakes_ms is not None, "it would wait for ever"
            now_ms = max(now_ms, wakes_ms or 0)
            continue
        chosen, which = next(script, ("ok", 0))
        batch = in_flight.pop(which % len(in_flight))
        decision = made.answered(batch, _answer(chosen, batch), now_ms)
        left += [each.item_identifier for each in decision.acknowledged]
        now_ms += 100

    for gone in made.discarded[seen_discarded:]:
        left += _identifiers(gone["payload"])
    assert sorted(left) == sorted(each.item_identifier for each in all_records)
    for key in set(keys):
        own = [each for each in left if keys[int(each) - FIRST] == key]
        assert own == sorted(own, key=int)
    assert made.waiting == 0
    assert made.checkpoint(SHARD) == (all_records[-1].item_identifier if keys else None)


def _identifiers(payload: str) -> list[str]:
    return [each["dynamodb"]["SequenceNumber"] for each in json.loads(payload)["Records"]]


def _checkpoint_is_honest(
    made: EventSourceMapping, all_records: list[ShardRecord], left: list[str]
) -> None:
    """The slow oracle: the longest prefix of the shard that has left."""
    prefix = None
    for each in all_records:
        if each.item_identifier not in left:
            break
        prefix = each.item_identifier
    assert made.checkpoint(SHARD) == prefix
