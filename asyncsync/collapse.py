"""Stage 2: many records per key in, the latest of each key out.

The latest record has the highest sequence number, whenever it arrives, so any order or
duplication of a batch gives the same result. Of two with one sequence number the later wins.
"""

from __future__ import annotations

from collections.abc import Sequence

from asyncsync.model import Collapsed, Key, StreamRecord


def collapse(records: Sequence[StreamRecord]) -> Collapsed:
    """Keep the record with the highest sequence number of each key."""
    latest: dict[Key, StreamRecord] = {}
    for record in records:
        other = latest.get(record.key)
        if other is None or record.sequence_number >= other.sequence_number:
            latest[record.key] = record
    return Collapsed(list(latest.values()), len(records) - len(latest))
