"""What would make a copy cheaper, or dearer: one setting changed at a time, with its figure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from asyncsync.limits import FENCE_TTL_S_MIN
from asyncsync.tools.errors import CommandRefused
from asyncsync.tools.estimate.bill import Bill, bill_of, family_of
from asyncsync.tools.estimate.measured import KEYS, TIMES_MS
from asyncsync.tools.estimate.memory import Workload
from asyncsync.tools.output import plural

WINDOWS_S = (1, 5)
TTL_S = 86_400
MEMORY_MB_MIN = min(TIMES_MS["json"])


@dataclass(frozen=True, slots=True)
class SettingChange:
    """A setting changed: what a month then costs less (more, if negative), and memory with it."""

    change: str  # the command's option
    saves_usd: float
    saves_bytes: int
    note: str


def changes_of(bill: Bill) -> list[SettingChange]:
    """Return each change of one setting, the one that saves most first.

    A change that no cache would hold is left out.
    """
    changes = []
    for option, value, note in _options(bill.work):
        try:
            other = bill_of(replace(bill.work, **{option: value}))
        except CommandRefused:
            continue
        name = option.replace("_", "-")
        saved = bill.memory.total - other.memory.total
        changes.append(SettingChange(f"--{name} {value}", bill.usd - other.usd, saved, note))
    return sorted(changes, key=lambda change: (-change.saves_usd, change.change))


def _options(work: Workload) -> Iterator[tuple[str, Any, str]]:
    """Yield each setting that could be another, its value then, and what that means."""
    for window_s in (each for each in WINDOWS_S if each > work.window_s):
        yield "window_s", window_s, f"the copy lags up to {window_s} s more"
    for value in KEYS[work.engine].keys() - {work.value}:
        yield "value", value, "readers get another format"
    if work.ttl_s is None or work.ttl_s > TTL_S:
        values = plural(replace(work, ttl_s=TTL_S).values, "item")
        yield "ttl_s", TTL_S, f"only what changed within a day has a value: at most {values}"
    if work.fence_ttl_s > FENCE_TTL_S_MIN:
        yield "fence_ttl_s", FENCE_TTL_S_MIN, "the least that is allowed"
    for engine in (each for each in KEYS if family_of(each) == family_of(work.engine)):
        if engine != work.engine:
            yield "engine", engine, "another version of the server"
    if work.memory_mb > MEMORY_MB_MIN:
        yield "memory_mb", MEMORY_MB_MIN, "large batches take longer"
