"""The scenario of one seed: settings of the mirror and the mapping, and the history's size.

All of it is drawn before the run begins, so that a seed's first line can print it.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Literal, TypeAlias

from asyncsync.config import Config
from asyncsync.lab.simulation.faults import DESTRUCTIVE, Fault, Faults
from asyncsync.mapping.event_source_mapping import MappingSettings
from asyncsync.reader.options import ReaderOptions
from asyncsync.reader.values import ITEM_READERS

Tool: TypeAlias = Literal["backfill", "audit", "redrive"]

# The fault that begins a run of each tool.
BEGINS: dict[Tool, Fault] = {
    "backfill": Fault.BACKFILL_BEGINS,
    "audit": Fault.AUDIT_BEGINS,
    "redrive": Fault.REDRIVE_BEGINS,
}

# Under 24 h, as in the template: a fence must outlive every record.
RECORD_AGE_MAX_S = 80_000


@dataclass(frozen=True, slots=True)
class ToolSettings:
    """The tools that run beside the mappings, and their settings."""

    begin: tuple[Tool, ...]
    read_s: float  # until the table answers
    max_latency_s: float  # of a slow read, and of a tool's slow request
    segments: int
    page_items: int | None
    recheck_after_s: float
    audit_recovers: bool  # an audit repairs what was destroyed; else a replay does


@dataclass(frozen=True, slots=True)
class ReaderSettings:
    """The readers beside the mappings."""

    processes: int
    per_change: int  # the most reads that begin at a change
    is_cache_small: bool  # so it evicts keys all the time
    options: ReaderOptions


@dataclass(frozen=True, slots=True)
class Scenario:
    """The settings of one run."""

    config: Config
    mapping: MappingSettings
    items: int  # that change often
    idle: int  # items that hardly ever change
    before: bool  # the table has items from before the stream
    changes: int
    gap_s: float  # between two changes, on average
    timeout_s: float  # the function's
    transforms: bool  # with a user's transform
    quiet_day: bool  # a pause in the middle in which every fence expires
    tools: ToolSettings
    readers: ReaderSettings

    def __str__(self) -> str:
        config, mapping = self.config, self.mapping
        return (
            f"{self.changes} changes to {self.items} items and {self.idle} idle ones, "
            f"mode {config.mode}, "
            f"value {config.value}, rejects {config.rejects}, on failure {config.on_failure}, "
            f"batch {mapping.batch_size}, factor {mapping.parallelization_factor}, "
            f"attempts {mapping.retry_attempts_max}, age {mapping.record_age_max_s} s, "
            f"bisect {mapping.bisect}"
            + (", cluster endpoint" if config.redis_cluster else "")
            + (", with a transform" if self.transforms else "")
            + (f", values expire after {config.ttl_s} s" if config.ttl_s else "")
            + (", with a quiet day" if self.quiet_day else "")
            + "".join(f", {tool}" for tool in self.tools.begin)
            + (f", {self.readers.processes} readers" if self.readers.processes else "")
            + (", a small cache" if self.readers.is_cache_small else "")
        )


def draw(chance: Random, faults: Faults) -> Scenario:
    """Draw a scenario that fits the faults: a run that waits for something must end.

    Switches off the faults that make no sense in it. The order of the draws is part of every seed.
    """
    mode = chance.choice(("mirror", "mirror", "mirror", "refresh", "invalidate"))
    value = chance.choice(("json", "json", "json", "dynamodb-json", "hash", "hash", "redis-json"))
    on_failure = chance.choice(("report", "report", "report", "raise"))
    config = Config(
        redis_url="redis://simulated",
        mode=mode,  # type: ignore[arg-type] # one of the words above; so below
        value=value,  # type: ignore[arg-type]
        on_failure=on_failure,  # type: ignore[arg-type]
        rejects=chance.choice(("report", "report", "skip")),
        timeout_ms=chance.choice((300, 2_000, 2_000)),
        redis_cluster=chance.random() < 0.25,
        ttl_s=600 if mode != "invalidate" and chance.random() < 0.15 else None,
        metrics="off",
    )
    if mode == "invalidate":  # it encodes nothing
        faults.odds.pop(Fault.NEVER_ENCODED, None)
    transforms = mode != "invalidate" and value != "dynamodb-json" and chance.random() < 0.9
    if not transforms:
        faults.odds.pop(Fault.NOT_YET_ENCODED, None)
    if mode != "mirror":  # the copy holds only what readers have asked for
        faults.odds.pop(Fault.BACKFILL_BEGINS, None)
    quiet_day = chance.random() < 0.5
    wide = chance.random() < 0.01  # more keys than fit in one script call
    if quiet_day and chance.random() < 0.5:  # a run skips its quiet day after data was destroyed
        for fault in DESTRUCTIVE:
            faults.odds.pop(fault, None)
    before = mode != "mirror" or Fault.BACKFILL_BEGINS in faults.odds
    gap_s = 0.001 if wide else chance.choice((0.02, 0.06, 0.2, 0.5))
    return Scenario(
        config,
        _mapping(config, faults, chance, quiet_day=quiet_day, wide=wide),
        items=600 if wide else chance.choice((1, 2, 3, 5, 8, 12)),
        idle=chance.randint(0, 10) if before and not wide else 0,
        before=before,
        changes=1_200 if wide else chance.randint(45, 85),
        gap_s=gap_s,
        timeout_s=chance.choice((3.0, 10.0, 30.0)),
        transforms=transforms,
        quiet_day=quiet_day,
        tools=_tools(config, faults, chance, gap_s, wide=wide),
        readers=_readers(config, chance),
    )


def _readers(config: Config, chance: Random) -> ReaderSettings:
    # A cache that evicts is for invalidate, which alone is right at rest then.
    is_cache_small = config.mode == "invalidate" and chance.random() < 0.7
    processes = chance.choice((0, 1, 2, 3))
    return ReaderSettings(
        is_cache_small=is_cache_small,
        processes=processes if config.value in ITEM_READERS else 0,
        per_change=chance.choice((1, 2, 4)),
        options=ReaderOptions(
            lease_ms=chance.choice((100, 1_000, 60_000)),
            absent_ms=chance.choice((0, 5_000, 60_000)),
            wait_ms=chance.choice((0, 500)),
        ),
    )


def _tools(
    config: Config, faults: Faults, chance: Random, gap_s: float, *, wide: bool
) -> ToolSettings:
    return ToolSettings(
        begin=tuple(tool for tool, begins in BEGINS.items() if begins in faults.odds),
        read_s=gap_s * chance.choice((0.05, 0.3, 1.0)),
        max_latency_s=gap_s * 10,
        segments=chance.choice((1, 2, 3)),
        page_items=None if wide else chance.choice((1, 2, 3, None)),
        recheck_after_s=chance.choice((0.0, 0.0, 0.3, 3.0)),
        # In invalidate, readers write values in their own form: an audit finds no stale one.
        audit_recovers=Fault.AUDIT_BEGINS in faults.odds and config.mode != "invalidate",
    )


def _mapping(
    config: Config, faults: Faults, chance: Random, *, quiet_day: bool, wide: bool
) -> MappingSettings:
    attempts = chance.choice((-1, -1, 2, 5, 20))
    age_s = chance.choice((-1, -1, 60, 600))
    endless = attempts == -1 and age_s == -1 and config.rejects == "report"
    if endless and Fault.NEVER_ENCODED in faults.odds:
        attempts = 5  # otherwise its shard would wait for a day
    return MappingSettings(
        batch_size=1_000 if wide else chance.choice((1, 4, 10, 10, 100)),
        window_s=chance.choice((0, 0, 0, 1)),
        parallelization_factor=chance.choice((1, 1, 1, 2, 4)),
        retry_attempts_max=attempts,
        record_age_max_s=RECORD_AGE_MAX_S if quiet_day and age_s == -1 else age_s,
        bisect=chance.random() < 0.6,
        report_failures=config.on_failure == "report" or chance.random() < 0.5,
        backoff_max_ms=900_000 if quiet_day else 60_000,
    )
