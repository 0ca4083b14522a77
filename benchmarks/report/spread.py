"""A figure of many samples: its median with the 10th and the 90th percentile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, quantiles


@dataclass(frozen=True, slots=True)
class Spread:
    """A median with the 10th and the 90th percentile."""

    low: float
    middle: float
    high: float

    def __format__(self, form: str) -> str:
        """Write all three, each in the given form."""
        return f"{self.middle:{form}} ({self.low:{form}} to {self.high:{form}})"


def spread(samples: Sequence[float]) -> Spread:
    """Summarise samples, of which there must be two or more."""
    tenths = quantiles(samples, n=10, method="inclusive")
    return Spread(tenths[0], median(samples), tenths[-1])


def ratios(these: Sequence[float], those: Sequence[float]) -> Spread:
    """Summarise these over those, round by round: both were measured in the same rounds."""
    return spread([this / that for this, that in zip(these, those, strict=True)])
