"""Which faults strike in a simulated run, and how often: drawn again for each seed.

About two in five faults are switched off for the whole run (swarm testing): common faults
would otherwise hide what rare ones do. `strikes` is called wherever a fault may strike, and
counts those that did.
"""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from random import Random
from typing import Literal

# Where a fault gets its chance. Each "moment" of a run is drawn before the run begins. What is
# a "consequence" follows from settings and other faults, and is only counted.
_Per = Literal[
    "request", "connect", "invocation", "change", "read", "tool", "moment", "consequence"
]


class Fault(StrEnum):
    """A fault, as it is printed, with the chance that it strikes wherever it may.

    The order is part of every seed: each fault draws its odds in turn.
    """

    per: _Per
    odds: float  # scaled again for each seed

    def __new__(cls, per: _Per, odds: float, text: str) -> Fault:
        """Make a fault that equals its text."""
        fault = str.__new__(cls, text)
        fault._value_ = text
        fault.per, fault.odds = per, odds
        return fault

    REQUEST_CUT = "request", 0.02, "the request is cut at some byte"
    REPLY_CUT = "request", 0.02, "the reply is cut at some byte"
    REPLY_LOST = "request", 0.015, "the reply never comes"
    REQUEST_LOST = "request", 0.01, "the request never arrives"
    REQUEST_LATE = "request", 0.025, "the request arrives late, after newer ones (a zombie)"
    REQUEST_IN_PIECES = "request", 0.05, "the request arrives in pieces"
    CONNECTION_SLOW = "request", 0.03, "the connection is slow"

    CONNECTION_REFUSED = "connect", 0.04, "the connection is refused"
    CONNECTING_HANGS = "connect", 0.02, "connecting hangs"
    CONNECTING_SLOW = "connect", 0.05, "connecting is slow"

    KILLED_BEFORE_WRITE = "invocation", 0.015, "killed before the write"
    KILLED_DURING_WRITE = "invocation", 0.02, "killed during the write"
    KILLED_AFTER_WRITE = "invocation", 0.015, "killed after the write"
    THROTTLED = "invocation", 0.02, "throttled"
    ANSWER_MALFORMED = "invocation", 0.01, "the answer is malformed"
    LITTLE_TIME = "invocation", 0.03, "little time is left"
    CONNECTION_DEAD = "invocation", 0.02, "the sandbox was frozen, its connection is dead"
    CONNECTION_SILENT = "invocation", 0.02, "the sandbox was frozen, its connection is silent"
    CLOCK_JUMPS = "invocation", 0.03, "the clock jumps"
    REDELIVERED = "invocation", 0.03, "an acknowledged batch is delivered again"

    NEVER_ENCODED = "change", 0.01, "a record that no deployment can encode"
    NOT_YET_ENCODED = "change", 0.015, "a record that a deployment cannot encode"

    READ_THROTTLED = "read", 0.03, "a read of the table is throttled"
    READ_SLOW = "read", 0.05, "a read of the table is slow"
    READ_PARTIAL = "read", 0.06, "a read of the table answers only in part"
    READ_BEHIND = "read", 0.1, "an eventual read misses the last writes"
    S3_FAILS = "read", 0.03, "S3 fails"
    TOOL_CLOCK_JUMPS = "read", 0.03, "a tool's clock jumps"

    TOOL_KILLED = "tool", 0.25, "a tool is killed"
    ANSWER_HELD = "tool", 0.9, "an answer of the table waits until it is old"
    TOOL_KILLED_WRITING = "tool", 0.02, "a tool is killed while it writes"
    TOOL_REQUEST_SLOW = "tool", 0.1, "a tool's request is slow"
    TWO_REDRIVES = "tool", 0.5, "two redrives run at once"

    READER_KILLED = "read", 0.02, "a reader is killed"
    READER_PAUSES = "read", 0.2, "a reader pauses after its read of the table"

    RESTART = "moment", 0.12, "the server restarts with its data"
    RESTART_EMPTY = "moment", 0.05, "the server restarts without its data"
    SCRIPTS_LOST = "moment", 0.12, "the script cache is emptied"
    FAILOVER = "moment", 0.07, "a failover loses the last writes"
    OOM = "moment", 0.08, "some writes are refused with OOM"
    LOADING = "moment", 0.08, "all commands are refused with LOADING"
    READONLY = "moment", 0.08, "writes are refused with READONLY"
    NAME_MOVES = "moment", 0.08, "the name moves, the old node stays as a replica"
    FENCES_EVICTED = "moment", 0.07, "fences are evicted"
    VALUES_EVICTED = "moment", 0.1, "values are evicted"
    SHARD_SPLITS = "moment", 0.12, "a shard splits"
    MAPPING_RECREATED = "moment", 0.05, "the mapping is deleted and created again"
    SECOND_MAPPING = "moment", 0.05, "a second mapping reads the stream"
    STREAM_RECREATED = "moment", 0.04, "the stream is re-created"
    # Odds of 0: it follows from NOT_YET_ENCODED.
    FIX_DEPLOYED = "moment", 0.0, "a deployment fixes what could not be encoded"
    BACKFILL_BEGINS = "moment", 0.15, "a backfill begins"
    AUDIT_BEGINS = "moment", 0.2, "an audit begins"
    REDRIVE_BEGINS = "moment", 0.12, "a redrive begins"

    FENCES_EXPIRE = "consequence", 0.0, "fences expire by the rules"
    RETRIES_EXHAUSTED = "consequence", 0.0, "retries are exhausted"
    RECORD_TOO_OLD = "consequence", 0.0, "a record is too old"
    TWO_SANDBOXES = "consequence", 0.0, "two sandboxes run at once"
    BATCH_SPLIT = "consequence", 0.0, "a batch is split"
    BACKFILL_RESUMED = "consequence", 0.0, "a backfill resumes from its cursor"
    BACKFILL_FILLED = "consequence", 0.0, "a backfill fills a key"
    BACKFILL_REPAIRED = "consequence", 0.0, "a backfill repairs a fence without a value"
    READ_OUTLIVES_FENCE = "consequence", 0.0, "a read is older than a fence's life"
    AUDIT_REPAIRED = "consequence", 0.0, "an audit repairs a key"
    ORPHAN_REMOVED = "consequence", 0.0, "an audit removes an orphan"
    AUDIT_RECOVERED = "consequence", 0.0, "an audit repairs what was destroyed"
    AUDIT_FOUND_NOTHING = "consequence", 0.0, "an audit sees that nothing differs"
    OBJECT_REDRIVEN = "consequence", 0.0, "an object is redriven"
    READER_HIT = "consequence", 0.0, "a reader finds a value"
    READER_FILLED = "consequence", 0.0, "a reader fills a key"
    READER_REFUSED = "consequence", 0.0, "a reader's fill is refused"
    READER_KNEW_ABSENT = "consequence", 0.0, "an item is known absent"
    READER_WAITED = "consequence", 0.0, "a reader waits for another's load"


# These destroy data or fences, which ends the promises for those keys until a replay.
DESTRUCTIVE = (
    Fault.RESTART_EMPTY,
    Fault.FAILOVER,
    Fault.FENCES_EVICTED,
    Fault.VALUES_EVICTED,
)

_ON_SHARE = 0.6  # of the faults are on in a run
_SCALES = (0.5, 1.0, 1.0, 3.0, 8.0)
_MOMENT_SCALES = _SCALES[:-1]  # eight times as many restarts would leave nothing to run


class Faults:
    """The faults of one run."""

    def __init__(self, chance: Random) -> None:
        self.chance = chance
        self.fired: Counter[Fault] = Counter()
        self.is_calm = False  # in the second phase no fault strikes
        self.odds = {
            fault: fault.odds * chance.choice(_MOMENT_SCALES if fault.per == "moment" else _SCALES)
            for fault in Fault
            if fault.per != "consequence" and chance.random() < _ON_SHARE
        }

    def strikes(self, fault: Fault) -> bool:
        """Return whether a fault strikes here; count it if it does."""
        assert isinstance(fault, Fault), f"{fault!r} is no fault"
        assert fault.per != "consequence", f"{fault} is only counted"
        if self.is_calm or fault not in self.odds:
            return False
        hit = self.chance.random() < self.odds[fault]
        if hit:
            self.fired[fault] += 1
        return hit

    def count(self, fault: Fault, times: int = 1) -> None:
        """Count a fault that follows from others."""
        assert isinstance(fault, Fault), f"{fault!r} is no fault"
        if times:
            self.fired[fault] += times
