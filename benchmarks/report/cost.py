"""The cost of a million changes, from measured times and one dated table of prices.

It has three parts: the function's time (memory times billed time), the fee per request, and the
ingestion of its log lines. It leaves out the table's stream (an event source mapping reads it for
free), the cache, and cold starts, which depend on the traffic.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.harness.cpu_share import ONE_VCPU_MB
from benchmarks.report.result import Result, billed_ms

# US East (N. Virginia), arm64, first tier, read on 2026-11-25: aws.amazon.com/lambda/pricing,
# aws.amazon.com/cloudwatch/pricing (custom logs, standard class).
PRICES_DATED = "2026-11-25"
GB_SECOND_USD = 0.0000133334
REQUEST_USD = 0.20 / 1_000_000
LOG_GB_USD = 0.50

# CloudWatch counts an event's bytes and 26 more (PutLogEvents).
LOG_EVENT_BYTES = 26

# What the platform itself writes at level INFO in JSON: start, runtime done, report. Counted
# from AWS's samples of these lines; at WARN, which the template sets, it writes none of them.
PLATFORM_LINES = 3
PLATFORM_BYTES = 950

# Lambda polls a shard four times a second, so even a window of 0 gathers records.
POLLS_PER_S = 4

MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Cost:
    """Dollars per million changes, in their parts."""

    time_usd: float
    requests_usd: float
    metrics_usd: float
    platform_usd: float

    @property
    def usd(self) -> float:
        """Return the cost of the template's function, whose platform lines are off."""
        return self.time_usd + self.requests_usd + self.metrics_usd


def cost(memory_mb: int, records: float, billed_ms: float, log_bytes: float) -> Cost:
    """Return the cost of a million changes in batches of this many records."""
    invocations = MILLION / records
    gigabyte = 1 << 30
    logged = (log_bytes + LOG_EVENT_BYTES) if log_bytes else 0.0
    platform = PLATFORM_BYTES + PLATFORM_LINES * LOG_EVENT_BYTES
    return Cost(
        time_usd=invocations * memory_mb / 1_024 * billed_ms / 1_000 * GB_SECOND_USD,
        requests_usd=invocations * REQUEST_USD,
        metrics_usd=invocations * logged / gigabyte * LOG_GB_USD,
        platform_usd=invocations * platform / gigabyte * LOG_GB_USD,
    )


def measured_cost(
    result: Result, name: str, batch: str, network: str, memory_mb: int
) -> Cost | None:
    """Return a contestant's cost at a batch and a memory size, or None."""
    warm = result.find(batch, network, memory_mb)
    if warm is None or name not in warm.samples_ms:
        return None
    return cost(memory_mb, warm.records, billed_ms(warm, name), result.log_bytes.get(name, 0.0))


def records_per_invocation(per_s: float, window_s: float, batch_size: int) -> float:
    """Return the records per batch at a shard's rate of changes.

    Lambda sends a batch when it is full or its window has passed; without a window, at each poll.
    """
    waited_s = max(window_s, 1 / POLLS_PER_S)
    return min(float(batch_size), max(1.0, per_s * waited_s))


def billed_for(records: float, measured: list[tuple[int, float]]) -> float:
    """Return the time of a batch by linear interpolation between measured ones."""
    below = measured[0]
    for at in measured:
        if at[0] >= records:
            break
        below = at
    else:
        return measured[-1][1]
    if at[0] == below[0]:
        return at[1]
    share = (records - below[0]) / (at[0] - below[0])
    return below[1] + share * (at[1] - below[1])


def best_memory_mb(result: Result, name: str, network: str) -> int | None:
    """Return the memory size whose cost is lowest over a small, a middle and a large batch."""
    totals: dict[int, float] = {}
    for memory_mb in (128, 256, 512, 1_024, ONE_VCPU_MB):
        costs = [
            measured_cost(result, name, batch, network, memory_mb)
            for batch in ("10 distinct", "100 distinct", "1 000 distinct")
        ]
        if all(costs):
            totals[memory_mb] = sum(total.usd for total in costs if total)
    return min(totals, key=lambda size: totals[size]) if totals else None
