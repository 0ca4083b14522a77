"""Summarises many samples by their median, 10th and 90th percentile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, quantiles


@dataclass(frozen=True, slots=True)
class Summary:
    """The 10th percentile, the median and the 90th percentile of samples."""

    p10: float
    median: float
    p90: float

    def __format__(self, form: str) -> str:
        """Write all three, each in the given form."""
        return f"{self.median:{form}} ({self.p10:{form}} to {self.p90:{form}})"


def summarize(samples: Sequence[float]) -> Summary:
    """Summarise two or more samples."""
    tenths = quantiles(samples, n=10, method="inclusive")
    return Summary(tenths[0], median(samples), tenths[-1])


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> Summary:
    """Summarise the ratio of two samples of each round."""
    return summarize([over / under for over, under in zip(numerators, denominators, strict=True)])
