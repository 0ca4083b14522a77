"""The metrics of a daily audit, as a line in CloudWatch's embedded metric format."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

NAMESPACE = "asyncsync"
AUDIT_METRICS = ("AuditDifferences", "AuditNines")

# More nines than any sample can show; a bound of exactly 1 would have infinitely many.
NINES_MAX = 12.0


def audit_metrics(table: str, summary: Mapping[str, Any], now_ms: int) -> dict[str, Any] | None:
    """Return the line for an audit's JSON summary, or None if that shows nothing.

    An audit that was cut short or compared nothing found no difference either, so it has no
    line: the alarm on audits that do not come rings. Only a sample has a bound, and nines.
    """
    if summary["cut_short"] or not summary["compared"] + summary["names"]:
        return None
    values = {"AuditDifferences": summary["missing"] + summary["stale"] + summary["orphans"]}
    if "share_at_least" in summary:
        missed = 1 - summary["share_at_least"]
        values["AuditNines"] = min(NINES_MAX, -math.log10(missed)) if missed > 0 else NINES_MAX
    metrics = [{"Name": name} for name in AUDIT_METRICS if name in values]
    metadata = {"Namespace": NAMESPACE, "Dimensions": [["Table"]], "Metrics": metrics}
    name = table.rpartition("table/")[2]  # of an ARN
    emf = {"Timestamp": now_ms, "CloudWatchMetrics": [metadata]}
    return {"_aws": emf, "Table": name, **values}
