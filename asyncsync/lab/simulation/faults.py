"""Which faults befall a simulated run, and how often: drawn anew for every seed.

Every fault has a name and an even chance of being switched off for the whole run (swarm
testing: without that, the common faults would hide what the rare ones do). `strikes` is asked
at each point where a fault could happen, and counts those that did.
"""

from __future__ import annotations

from collections import Counter
from random import Random

# The chance of a fault at each point where it may happen; scaled again for each seed.
PER_REQUEST = {
    "the request is cut at some byte": 0.02,
    "the reply is cut at some byte": 0.02,
    "the reply never comes": 0.015,
    "the request never arrives": 0.01,
    "the request arrives late, after newer ones (a zombie)": 0.025,
    "the request arrives in pieces": 0.05,
    "the connection is slow": 0.03,
}
PER_CONNECT = {
    "the connection is refused": 0.04,
    "connecting hangs": 0.02,
    "connecting is slow": 0.05,
}
PER_INVOCATION = {
    "killed before the write": 0.015,
    "killed during the write": 0.02,
    "killed after the write": 0.015,
    "throttled": 0.02,
    "the answer is malformed": 0.01,
    "little time is left": 0.03,
    "the sandbox was frozen, its connection is dead": 0.02,
    "the sandbox was frozen, its connection is silent": 0.02,
    "the clock jumps": 0.03,
    "an acknowledged batch is delivered again": 0.03,
}
PER_CHANGE = {
    "a record that no deployment can encode": 0.01,
    "a record that a deployment cannot encode": 0.015,
}
# Of the tools (backfill, audit, redrive) and of what they read.
PER_READ = {
    "a read of the table is throttled": 0.03,
    "a read of the table is slow": 0.05,
    "a read of the table answers only in part": 0.06,
    "an eventual read misses the last writes": 0.1,
    "S3 fails": 0.03,
    "a tool's clock jumps": 0.03,
}
PER_TOOL = {
    "a tool is killed": 0.25,
    "an answer of the table waits until it is old": 0.9,
    "a tool is killed while it writes": 0.02,
    "a tool's request is slow": 0.1,
    "two redrives run at once": 0.5,
}
# These come a few times in a run, at moments drawn before it begins: chance per opportunity.
PER_MOMENT = {
    "the server restarts with its data": 0.12,
    "the server restarts without its data": 0.05,
    "the script cache is emptied": 0.12,
    "a failover loses the last writes": 0.07,
    "some writes are refused with OOM": 0.08,
    "all commands are refused with LOADING": 0.08,
    "writes are refused with READONLY": 0.08,
    "fences are evicted": 0.07,
    "a shard splits": 0.12,
    "the mapping is deleted and made again": 0.05,
    "a second mapping reads the stream": 0.05,
    "the stream is made anew": 0.04,
    "a deployment mends what could not be encoded": 0.0,  # follows from the poison
    "a backfill begins": 0.15,
    "an audit begins": 0.2,
    "a redrive begins": 0.12,
}
# What no chance decides: it follows from settings and from other faults, and is only counted.
CONSEQUENCES = (
    "fences expire by the rules",
    "retries are exhausted",
    "a record is too old",
    "two sandboxes run at once",
    "a batch is split",
    "a backfill goes on from its cursor",
    "a backfill fills a key",
    "a backfill repairs a fence without a value",
    "what was read is older than a fence lives",
    "an audit repairs a key",
    "an audit removes an orphan",
    "an audit mends what was destroyed",
    "an audit sees that nothing differs",
    "an object is redriven",
)

# What destroys data or fences, and so ends the promises for those keys until a replay.
DESTRUCTIVE = (
    "the server restarts without its data",
    "a failover loses the last writes",
    "fences are evicted",
)

_SCALES = (0.5, 1.0, 1.0, 3.0)  # eight times a restart would leave nothing to run in between

ODDS = {
    **PER_REQUEST,
    **PER_CONNECT,
    **PER_INVOCATION,
    **PER_CHANGE,
    **PER_READ,
    **PER_TOOL,
    **PER_MOMENT,
}
FAULTS = (*ODDS, *CONSEQUENCES)


class Faults:
    """One run's faults."""

    def __init__(self, chance: Random) -> None:
        self.chance = chance
        self.fired: Counter[str] = Counter()
        self.is_calm = False  # the second phase: no fault any more
        self.odds = {
            name: odds * chance.choice(_SCALES if name in PER_MOMENT else (*_SCALES, 8.0))
            for name, odds in ODDS.items()
            if chance.random() < 0.6
        }

    def strikes(self, name: str) -> bool:
        """Ask whether a fault happens here, and count it where it does."""
        if self.is_calm or name not in self.odds:
            return False
        hit = self.chance.random() < self.odds[name]
        if hit:
            self.fired[name] += 1
        return hit

    def count(self, name: str, times: int = 1) -> None:
        """Count what follows from other faults."""
        assert name in FAULTS
        if times:
            self.fired[name] += times
