"""What one seed is about: settings of the mirror and the mapping, and the size of its history.

Everything here is drawn before the run begins, so that a seed's first line can say it.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Literal, TypeAlias

from asyncsync.config import Config
from asyncsync.lab.simulation.faults import DESTRUCTIVE, Fault, Faults
from asyncsync.mapping.event_source_mapping import MappingSettings

Tool: TypeAlias = Literal["backfill", "audit", "redrive"]

# What begins each tool at some moment of a run.
BEGINS: dict[Tool, Fault] = {
    "backfill": Fault.BACKFILL_BEGINS,
    "audit": Fault.AUDIT_BEGINS,
    "redrive": Fault.REDRIVE_BEGINS,
}

# Under 24 h, as the template holds it: a fence must outlive every record.
RECORD_AGE_MAX_S = 80_000


@dataclass(frozen=True, slots=True)
class ToolSettings:
    """What is run beside the mappings, and how."""

    begin: tuple[Tool, ...]
    read_s: float  # until the table answers, on average
    max_latency_s: float  # the same, and until a request of theirs arrives, at worst
    segments: int
    page_items: int | None
    settle_s: float
    audit_mends: bool  # what is destroyed, in place of a replay


@dataclass(frozen=True, slots=True)
class Scenario:
    """One run's settings."""

    config: Config
    mapping: MappingSettings
    items: int  # that change
    idle: int  # items that hardly ever do
    before: bool  # the table has items from before the stream
    changes: int
    gap_s: float  # between two changes, on average
    timeout_s: float  # the function's
    transforms: bool  # through a user's transform
    quiet_day: bool  # a pause in the middle in which every fence expires
    tools: ToolSettings

    def __str__(self) -> str:
        config, mapping = self.config, self.mapping
        return (
            f"{self.changes} changes to {self.items} items and {self.idle} idle ones, "
            f"mode {config.mode}, "
            f"value {config.value}, rejects {config.rejects}, on failure {config.on_failure}, "
            f"batch {mapping.batch_size}, factor {mapping.parallelization_factor}, "
            f"attempts {mapping.retry_attempts_max}, age {mapping.record_age_max_s} s, "
            f"bisect {mapping.bisect}"
            + (", a cluster's endpoint" if config.redis_cluster else "")
            + (", through a transform" if self.transforms else "")
            + (f", values live {config.ttl_s} s" if config.ttl_s else "")
            + (", with a quiet day" if self.quiet_day else "")
            + "".join(f", {name}" for name in self.tools.begin)
        )


def draw(chance: Random, faults: Faults) -> Scenario:
    """Draw a scenario that fits a faults: what can be waited for, ends."""
    mode = chance.choice(("mirror", "mirror", "mirror", "refresh", "invalidate"))
    value = chance.choice(("json", "json", "json", "dynamodb-json"))
    on_failure = chance.choice(("report", "report", "report", "raise"))
    config = Config(
        redis_url="redis://simulated",
        mode=mode,  # type: ignore[arg-type] # one of the words above, as below
        value=value,  # type: ignore[arg-type]
        on_failure=on_failure,  # type: ignore[arg-type]
        rejects=chance.choice(("report", "report", "skip")),
        timeout_ms=chance.choice((300, 2_000, 2_000)),
        redis_cluster=chance.random() < 0.25,
        ttl_s=600 if mode != "invalidate" and chance.random() < 0.15 else None,
        metrics="off",
    )
    if mode == "invalidate":  # encodes nothing
        faults.odds.pop(Fault.NEVER_ENCODED, None)
    transforms = mode != "invalidate" and value == "json" and chance.random() < 0.9
    if not transforms:
        faults.odds.pop(Fault.NOT_YET_ENCODED, None)
    if mode != "mirror":  # there only what readers have asked for is in the copy
        faults.odds.pop(Fault.BACKFILL_BEGINS, None)
    quiet_day = chance.random() < 0.42
    wide = chance.random() < 0.01  # more keys than one script call carries
    if quiet_day and chance.random() < 0.5:  # what is destroyed before it leaves no quiet day
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
        settle_s=chance.choice((0.0, 0.0, 0.3, 3.0)),
        # An audit finds no stale value where readers write them in a form of their own.
        audit_mends=Fault.AUDIT_BEGINS in faults.odds and config.mode != "invalidate",
    )


def _mapping(
    config: Config, faults: Faults, chance: Random, *, quiet_day: bool, wide: bool
) -> MappingSettings:
    attempts = chance.choice((-1, -1, 2, 5, 20))
    age_s = chance.choice((-1, -1, 60, 600))
    endless = attempts == -1 and age_s == -1 and config.rejects == "report"
    if endless and Fault.NEVER_ENCODED in faults.odds:
        attempts = 5  # else its shard would stand still for a day
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
