"""One statement of what a mapping must be: what check says, and what stops a backfill."""

from __future__ import annotations

from typing import Any

import pytest

from asyncsync.mapping.requirements import function_name, statements_of, why_not_delivering
from tests.support.events import arn

GOOD: dict[str, Any] = {
    "UUID": "u-1",
    "State": "Enabled",
    "BatchSize": 1000,
    "EventSourceArn": arn(),
    "FunctionResponseTypes": ["ReportBatchItemFailures"],
    "BisectBatchOnFunctionError": True,
    "MaximumRetryAttempts": 200,
    "MaximumRecordAgeInSeconds": 82_800,
    "StartingPosition": "TRIM_HORIZON",
    "TumblingWindowInSeconds": 0,
    "DestinationConfig": {"OnFailure": {"Destination": "arn:aws:s3:::bucket"}},
}
FILTERS: list[Any] = [
    [{"Pattern": '{"eventName":["INSERT"]}'}],
    [{"Pattern": "{}"}, {"Pattern": '{"eventName":["REMOVE"]}'}],
    [{}],
]
NO_REMOVE = '{"eventName":["INSERT","MODIFY"]}'


def test_a_good_mapping_is_good_in_everything() -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"FilterCriteria": None},
        {"FilterCriteria": {"Filters": []}},
        {"ParallelizationFactor": 10},  # Lambda keeps each item's records in order
        {"MaximumBatchingWindowInSeconds": 300},
        {"MaximumRecordAgeInSeconds": 86_340},
        {"MaximumRetryAttempts": 0},  # the batch goes to the bucket, for redrive
        {"LastProcessingResult": "OK"},
        {"LastProcessingResult": "No records processed"},
        {"LastProcessingResult": None},
    ]
    for more in changes:
        assert {each.state for each in statements_of({**GOOD, **more}, arn())} == {"ok"}
        assert why_not_delivering({**GOOD, **more}, arn()) == ""


@pytest.mark.parametrize(
    ("change", "state", "subject", "refused"),
    [
        *[
            ({"FilterCriteria": {"Filters": filters}}, "fix", "filter", "Remove FilterCriteria")
            for filters in FILTERS
        ],
        ({"FilterCriteriaError": {"ErrorCode": "KMS"}}, "fix", "filter", "Remove FilterCriteria"),
        ({"TumblingWindowInSeconds": 1}, "fix", "window", "window of 1 s"),
        ({"TumblingWindowInSeconds": 900}, "fix", "window", "Set TumblingWindowInSeconds to 0"),
        (
            {"StartingPosition": "LATEST"},
            "fix",
            "start",
            "began at LATEST, so it may have missed earlier changes. Create one",
        ),
        ({"StartingPosition": "AT_TIMESTAMP"}, "fix", "start", "began at AT_TIMESTAMP"),
        ({"StartingPosition": None}, "fix", "start", "began at an unknown position"),
        *[
            ({"State": state}, "fix", "mapping", f"is {state}. {remedy}")
            for state, remedy in {
                "Disabled": "Enable it",
                "Disabling": "Enable it",
                "Creating": "Wait until it is enabled",
                "Enabling": "Wait until it is enabled",
                "Updating": "Wait until it is enabled",
                "Deleting": "Create another",
            }.items()
        ],
        *[
            ({"LastProcessingResult": result}, "fix", "last batch", f"last batch ({result}). Look")
            for result in (
                "PROBLEM: Function call failed",
                "PROBLEM: internal Lambda error. Please contact Lambda customer support.",
                "Problem: no permission",
            )
        ],
        (
            {"State": "Disabled", "StateTransitionReason": "User initiated"},
            "fix",
            "mapping",
            "is Disabled (User initiated). Enable it",
        ),
        ({"EventSourceArn": arn("2025-01-01T00:00:00.000")}, "fix", "source", "reads arn:"),
        ({"EventSourceArn": arn(table="Other")}, "fix", "source", "table/Other/stream"),
        ({"EventSourceArn": None}, "fix", "source", "reads None"),
        # These lose a batch that fails, and hold back no change: check alone says so.
        ({"FunctionResponseTypes": []}, "fix", "answers", ""),
        ({"FunctionResponseTypes": None}, "fix", "answers", ""),
        ({"MaximumRecordAgeInSeconds": 86_400}, "fix", "record age", ""),
        ({"MaximumRecordAgeInSeconds": 604_800}, "fix", "record age", ""),
        ({"MaximumRecordAgeInSeconds": -1}, "fix", "record age", ""),
        ({"DestinationConfig": {}}, "fix", "on failure", ""),
        ({"DestinationConfig": None}, "fix", "on failure", ""),
        ({"BisectBatchOnFunctionError": None}, "fix", "bisect", ""),
        ({"MaximumRetryAttempts": -1}, "fix", "attempts", ""),
    ],
)
def test_each_wrong_setting_is_said_and_what_holds_changes_back_stops_a_fill(
    change: dict[str, Any], state: str, subject: str, refused: str
) -> None:
    mapping = {**GOOD, **change}

    (wrong,) = [each for each in statements_of(mapping, arn()) if each.state != "ok"]

    assert (wrong.state, wrong.subject) == (state, subject)
    why = why_not_delivering(mapping, arn())
    assert refused in why
    assert bool(why) == bool(refused)


def test_answers_that_are_ignored_are_right_only_where_a_failure_raises() -> None:
    mapping = {**GOOD, "FunctionResponseTypes": []}

    assert {each.state for each in statements_of(mapping, arn(), "raise")} == {"ok"}
    assert {each.state for each in statements_of(mapping, arn(), "report")} == {"ok", "fix"}


@pytest.mark.parametrize(
    "name",
    [
        "mirror",
        "mirror:live",
        "111122223333:function:mirror",
        "function:mirror:7",
        "arn:aws:lambda:us-east-1:111122223333:function:mirror",
        "arn:aws-cn:lambda:cn-north-1:111122223333:function:mirror:$LATEST",
    ],
)
def test_a_function_has_one_bare_name(name: str) -> None:
    assert function_name(name) == "mirror"


def test_the_value_is_named() -> None:
    mapping = {**GOOD, "FilterCriteria": {"Filters": [{"Pattern": NO_REMOVE}]}}

    assert why_not_delivering(mapping, arn()) == (
        f"mapping u-1 holds changes back by its filter {NO_REMOVE}. Remove FilterCriteria"
    )
    (said,) = [each.message for each in statements_of(mapping, arn()) if each.state == "fix"]
    assert said == f"holds changes back by its filter {NO_REMOVE}: remove FilterCriteria"
