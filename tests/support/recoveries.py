"""The table of recovery times that pytest prints after the results."""

from __future__ import annotations

from collections.abc import Sequence

HEAD = (
    "server          way              fault                           hits   failed"
    "  delivered again"
)


class Recoveries:
    """How long the recovery from each fault took, one row per fault."""

    def __init__(self, rows: list[str]) -> None:
        self._rows = rows

    def add(
        self,
        server: str,
        way: str,
        fault: str,
        failed: int,
        redelivered: int,
        took_ms: Sequence[float],
    ) -> None:
        row = (
            f"{server:14}  {way:15}  {fault:30}  {len(took_ms):4}  {failed:7}  {redelivered:9}"
            f"  {min(took_ms):6.0f} to {max(took_ms):.0f} ms"
        )
        print(row)
        self._rows.append(row)
