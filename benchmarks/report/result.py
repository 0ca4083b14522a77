"""The result of a run: one JSON file with every sample, which tables, charts and tests read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.report.statistics import Summary, ratios, summarize


@dataclass(frozen=True, slots=True)
class Warm:
    """Warm invocations of one batch: ms by round for each contestant."""

    network: str
    memory_mb: int
    view: str
    batch: str
    records: int
    distinct: int
    event_bytes: int
    verdicts: dict[str, str]
    samples_ms: dict[str, list[float]]


@dataclass(frozen=True, slots=True)
class Result:
    """One run of the benchmark."""

    origin: dict[str, Any]  # when, by which command, from which commit
    machine: dict[str, Any]
    versions: dict[str, str]
    networks: dict[str, float]  # name to the round trip of a PING, us
    warm: list[Warm] = field(default_factory=list)
    cold: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    log_bytes: dict[str, float] = field(default_factory=dict)  # of one invocation
    server: dict[str, Any] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)  # what could not be measured, and why

    def find(
        self, batch: str, network: str, memory_mb: int, view: str = "NEW_AND_OLD_IMAGES"
    ) -> Warm | None:
        """Return the measurement of a batch, or None."""
        key = (batch, network, memory_mb, view)
        return next(
            (w for w in self.warm if (w.batch, w.network, w.memory_mb, w.view) == key), None
        )


def ms(warm: Warm, name: str) -> Summary:
    """Summarise a contestant's times."""
    return summarize(warm.samples_ms[name])


def billed_ms(warm: Warm, name: str) -> float:
    """Return the median of what was billed: each time rounded up to a millisecond."""
    return median([-(-sample // 1) for sample in warm.samples_ms[name]])


def times(warm: Warm, name: str, other: str) -> Summary:
    """Summarise one contestant's time over another's, round by round."""
    return ratios(warm.samples_ms[name], warm.samples_ms[other])


def save(result: Result, path: Path) -> None:
    """Write a result; lists of numbers stay on one line each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(_lines(asdict(result), "")) + "\n", encoding="utf-8")


def _lines(value: Any, indent: str) -> Sequence[str]:
    if isinstance(value, Mapping) and value:
        lines = ["{"]
        for at, (name, member) in enumerate(value.items()):
            first, *rest = _lines(member, indent + " ")
            last = at == len(value) - 1
            lines += [f"{indent} {json.dumps(name, ensure_ascii=False)}: {first}", *rest]
            lines[-1] += "" if last else ","
        return [*lines, f"{indent}}}"]
    if isinstance(value, list) and any(isinstance(member, Mapping) for member in value):
        lines = ["["]
        for at, member in enumerate(value):
            first, *rest = _lines(member, indent + " ")
            lines += [f"{indent} {first}", *rest]
            lines[-1] += "" if at == len(value) - 1 else ","
        return [*lines, f"{indent}]"]
    return [json.dumps(value, ensure_ascii=False)]


def load(path: Path) -> Result:
    """Read a saved result."""
    document = json.loads(path.read_text(encoding="utf-8"))
    return Result(**{**document, "warm": [Warm(**warm) for warm in document["warm"]]})
