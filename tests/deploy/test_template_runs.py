"""The mapping's numbers in template.yaml, compared with simulated runs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import pytest

from asyncsync.mapping.answers import Returned
from asyncsync.mapping.event_source_mapping import (
    EventSourceMapping,
    MappingSettings,
    shard_record,
)
from tests.support.events import FIRST, arn, record
from tests.support.template.cloudformation import ROOT

AWAY_S = 1_800
RECORDS_A_SECOND = 20
POLL_MS = 250  # four times a second (Lambda developer guide, "Using AWS Lambda with DynamoDB")
POISON = 500


@dataclass(slots=True)
class Run:
    """The result of a run."""

    objects: int = 0
    invocations_while_away: int = 0
    stood_still_s: float = 0.0


def run(
    template: Any, *, away_s: int = 0, poison: int = -1, backoff_max_ms: int, attempts: int = 0
) -> Run:
    """Run the template's mapping with an unreachable cache, or with one poisoned record."""
    default = {name: body["Default"] for name, body in template["Parameters"].items()}
    settings = MappingSettings(
        batch_size=default["BatchSize"],
        bisect=True,
        report_failures=True,
        retry_attempts_max=attempts or default["MaximumRetryAttempts"],
        record_age_max_s=default["MaximumRecordAgeSeconds"],
        backoff_max_ms=backoff_max_ms,
    )
    mapping = EventSourceMapping(settings, function="Mirror", stream_arn=arn())
    mapping.open("shard")
    total = RECORDS_A_SECOND * (away_s + 60 if away_s else 100)
    now_ms = added = met_ms = 0
    ended = Run()
    while added < total or not mapping.is_idle:
        until = min(total, now_ms * RECORDS_A_SECOND // 1_000 + 1)
        records = [
            shard_record(record(at, FIRST + at, created_s=at / RECORDS_A_SECOND))
            for at in range(added, until)
        ]
        mapping.add("shard", records, now_ms)
        added = until
        for batch in mapping.due(now_ms):
            identifiers = [each.item_identifier for each in batch.records]
            failed: list[str] = []
            if now_ms < away_s * 1_000:
                ended.invocations_while_away += 1
                failed = identifiers[:1]
            elif str(FIRST + poison) in identifiers:
                met_ms = met_ms or now_ms
                failed = [str(FIRST + poison)]
            answer = {"batchItemFailures": [{"itemIdentifier": each} for each in failed]}
            mapping.answered(batch, Returned(answer), now_ms)
            if mapping.discarded and not ended.stood_still_s:
                ended.stood_still_s = (now_ms - met_ms) / 1_000
        wakes_ms = mapping.wakes_ms(now_ms)
        polls_ms = now_ms + POLL_MS
        now_ms = polls_ms if wakes_ms is None or added < total else max(wakes_ms, now_ms + 1)
    ended.objects = len(mapping.discarded)
    return ended


@pytest.fixture(scope="module")
def reasons() -> str:
    """The comment above the number of attempts, without its line breaks."""
    text = (ROOT / "template.yaml").read_text()
    found = re.search(r"MaximumRetryAttempts:\n    Type: Number\n((?:    #.*\n)+)", text)
    assert found
    return " ".join(line.strip(" #") for line in found[1].splitlines())


def spaced(number: float) -> str:
    return f"{number:_.0f}".replace("_", " ")


def test_a_cache_that_is_away_for_half_an_hour_costs_no_record(
    translated: Any, reasons: str
) -> None:
    away = run(translated, away_s=AWAY_S, backoff_max_ms=60_000)

    assert away.objects == 0
    said = f"{away.objects} objects in the bucket, {away.invocations_while_away} invocations"
    assert said in reasons


def test_a_poison_records_shard_stands_still_for_as_long_as_the_template_says(
    translated: Any, reasons: str
) -> None:
    poison = run(translated, poison=POISON, backoff_max_ms=60_000)

    assert poison.objects == 1
    assert f"its shard stands still for {spaced(poison.stood_still_s)} s" in reasons


def test_the_choice_holds_for_a_shorter_backoff_too_and_half_of_it_would_not(
    translated: Any, reasons: str
) -> None:
    away = run(translated, away_s=AWAY_S, backoff_max_ms=10_000)
    poison = run(translated, poison=POISON, backoff_max_ms=10_000)
    half = run(translated, away_s=AWAY_S, backoff_max_ms=10_000, attempts=100)

    assert away.objects == 0
    assert half.objects == 1
    assert f"10 s at most: 0 objects and {spaced(poison.stood_still_s)} s" in reasons
    assert "100 attempts would then lose one" in reasons


def test_the_assumed_backoff_is_named(reasons: str) -> None:
    first, last = MappingSettings().backoff_first_ms, MappingSettings().backoff_max_ms

    assert f"assumed to double from {first / 1_000:g} s to {last / 1_000:g} s" in reasons
