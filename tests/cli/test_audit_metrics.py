"""The metrics of a daily audit: what was not compared is not called right."""

from __future__ import annotations

from typing import Any

import pytest

from asyncsync.cli.audit_metrics import AUDIT_METRICS, NAMESPACE, NINES_MAX, audit_metrics
from asyncsync.tools.audit.confidence import lower_bound
from asyncsync.tools.audit.report import AuditTally, summary_json

ARN = "arn:aws:dynamodb:us-east-1:111122223333:table/Players"


def summary(
    keys: int, *, names: int = 0, is_whole: bool = False, cut_short: bool = False, **found: int
) -> dict[str, Any]:
    items = AuditTally(keys=keys, **found)
    return summary_json(items, AuditTally(keys=names), is_whole=is_whole, cut_short=cut_short)


@pytest.mark.parametrize(
    ("given", "differences", "nines"),
    [
        (summary(100_000), 0, 4.5),
        (summary(100), 0, 1.5),
        (summary(100, missing=1, stale=2), 3, 1.1),
        (summary(100, orphan=4), 4, 1.5),
        (summary(50, is_whole=True), 0, None),  # a count, and no bound
        (summary(50, uncompared=50, names=9, orphan=2), 2, None),  # invalidate: orphans alone
    ],
)
def test_differences_and_nines_are_those_of_the_audit(
    given: dict[str, Any], differences: int, nines: float | None
) -> None:
    line = audit_metrics(ARN, given, 7)

    assert line is not None
    assert line["Table"] == "Players"
    assert line["AuditDifferences"] == differences
    assert line.get("AuditNines") == (None if nines is None else pytest.approx(nines, abs=0.1))
    (directive,) = line["_aws"]["CloudWatchMetrics"]
    names = [each["Name"] for each in directive["Metrics"]]
    assert (directive["Namespace"], directive["Dimensions"]) == (NAMESPACE, [["Table"]])
    assert names == [name for name in AUDIT_METRICS if name in line]
    assert line["_aws"]["Timestamp"] == 7


@pytest.mark.parametrize(
    "given",
    [
        summary(0),
        summary(100, cut_short=True),
        summary(100, missing=1, cut_short=True),
        summary(50, uncompared=50),
        summary(50, waiting=50),
    ],
)
def test_what_was_not_compared_has_no_line(given: dict[str, Any]) -> None:
    assert audit_metrics("Players", given, 7) is None


def test_nines_are_never_infinite() -> None:
    line = audit_metrics("Players", {**summary(1), "share_at_least": 1.0}, 7)

    assert line is not None
    assert line["AuditNines"] == NINES_MAX
    assert lower_bound(10**9, 10**9) < 1
