"""Stage 2: many records per key in, the latest of each key out.

Latest is by sequence number, never by arrival, so any order or duplication of a batch gives
the same result. Only where one sequence number comes twice does the later record win.
"""

from __future__ import annotations

from collections.abc import Sequence

from asyncsync.model import Collapsed, Key, StreamRecord


def collapse(records: Sequence[StreamRecord]) -> Collapsed:
    """Keep the record with the highest sequence number of each key."""
    latest: dict[Key, StreamRecord] = {}
    for record in records:
        held = latest.get(record.key)
        if held is None or record.sequence_number >= held.sequence_number:
            latest[record.key] = record
    return Collapsed(list(latest.values()), len(records) - len(latest))
