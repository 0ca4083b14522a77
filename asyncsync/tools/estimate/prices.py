"""What AWS asks: every price that an estimate uses, with its date and its source.

All are of us-east-1, on demand, in US dollars, without an account's free allowance. Other Regions
differ. Where a price's source is a third party, AWS's own page could not be read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

REGION = "us-east-1"

HOURS_A_MONTH = 730
SECONDS_A_MONTH = HOURS_A_MONTH * 3_600

GIB = 1 << 30
MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class PriceSource:
    """When and where some prices were read."""

    what: str
    date: str
    where: str


SOURCES = (
    PriceSource("Lambda", "2026-11-25", "aws.amazon.com/lambda/pricing: arm64, first tier"),
    PriceSource(
        "logs", "2026-11-25", "aws.amazon.com/cloudwatch/pricing: custom logs, standard class"
    ),
    PriceSource("metrics, alarms, dashboard", "2026-11", "third parties' lists"),
    PriceSource("nodes", "2026-10-02", "AWS's price list, as a third party published it"),
    PriceSource("serverless", "2026-06", "third parties' lists"),
    PriceSource("node sizes", "2026-11-29", "ElastiCache user guide: maxmemory by node type"),
)

GB_SECOND_USD = 0.0000133334
REQUEST_USD = 0.20 / MILLION

LOG_GB_USD = 0.50
LOG_EVENT_BYTES = 26  # that CloudWatch adds to each event (PutLogEvents)

METRIC_USD = 0.30
ALARM_USD = 0.10
DASHBOARD_USD = 3.00

# Measured servers that ElastiCache lacks: its Redis OSS ends with 7.1.
NOT_OFFERED = ("redis-8.0",)

# --- ElastiCache ------------------------------------------------------------------------------

Engine: TypeAlias = Literal["valkey", "redis"]


@dataclass(frozen=True, slots=True)
class NodeType:
    """A type of node: its `maxmemory` in bytes, and its price an hour by engine."""

    name: str
    maxmemory: int
    usd_an_hour: Mapping[Engine, float]


def _node(name: str, maxmemory: int, valkey: float, redis: float) -> NodeType:
    return NodeType(f"cache.{name}", maxmemory, {"valkey": valkey, "redis": redis})


# Smallest first. Each costs more than those before it.
NODE_TYPES = (
    _node("t4g.micro", 536_870_912, 0.0128, 0.016),
    _node("t4g.small", 1_471_026_299, 0.0256, 0.032),
    _node("t4g.medium", 3_317_862_236, 0.052, 0.065),
    _node("m7g.large", 6_854_542_746, 0.1264, 0.158),
    _node("r7g.large", 14_037_181_030, 0.1752, 0.219),
    _node("r7g.xlarge", 28_261_849_702, 0.3496, 0.437),
    _node("r7g.2xlarge", 56_711_183_565, 0.6984, 0.873),
    _node("r7g.4xlarge", 113_609_865_216, 1.396, 1.745),
    _node("r7g.8xlarge", 225_000_375_228, 2.7928, 3.491),
    _node("r7g.12xlarge", 341_206_346_547, 4.188, 5.235),
    _node("r7g.16xlarge", 450_000_750_456, 5.5848, 6.981),
)
CLUSTER_NODES_MAX = 500  # a quota that AWS raises

# Of maxmemory: what the default parameter group keeps (reserved-memory-percent).
RESERVED_SHARE = 0.25
# Of the rest: where `asyncsync check` says fix.
FULL_SHARE = 0.80


@dataclass(frozen=True, slots=True)
class Serverless:
    """Prices and bounds of a serverless cache of one engine."""

    gib_hour_usd: float
    gib_min: float
    ecpu_usd: float


SERVERLESS: Mapping[Engine, Serverless] = {
    "valkey": Serverless(0.084, 0.1, 0.0023 / MILLION),
    "redis": Serverless(0.125, 1.0, 0.0034 / MILLION),
}
SERVERLESS_GIB_MAX = 5_000
ECPU_BYTES = (
    1_024  # that one processing unit transfers; a script takes more, AWS says not how much
)
