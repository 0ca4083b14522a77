"""The nouns of the pipeline: frozen, without behaviour.

Each is a msgspec Struct: importing a dataclass compiles it, which adds 0.5 ms to every cold
start. What exists once per record is made in 0.1 us, and the garbage collector ignores it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NewType, TypeAlias

from msgspec import Raw, Struct

SequenceNumber = NewType("SequenceNumber", int)

# An item's primary key: (attribute name, type tag, value) in order of attribute name.
KeyAttribute: TypeAlias = tuple[str, str, str]
Key: TypeAlias = tuple[KeyAttribute, ...]


class Stream(Struct, frozen=True):
    """Where records come from; the label orders a stream against its re-created successor."""

    arn: str
    table: str
    label_ms: int


class StreamRecord(Struct, frozen=True, gc=False):
    """One change to one item; the new image is not parsed yet."""

    key: Key
    sequence_number: SequenceNumber
    item_identifier: str  # the sequence number as the string that came
    removed: bool
    image: Raw  # a slice of the event, DynamoDB JSON; empty where there is none
    fault: str = ""  # why it cannot be decoded beyond its key and sequence number


class Reject(Struct, frozen=True, gc=False):
    """A record that fails however often it is retried, with the reason but no values."""

    sequence_number: SequenceNumber
    item_identifier: str
    reason: str
    path: tuple[str, ...] = ()


class Entry(Struct, frozen=True, gc=False):
    """What Redis should hold for one key: a value or a removal, with its version."""

    name: bytes
    fence: bytes  # its name
    version: bytes  # the fence's content: the version and its rank
    value: bytes | None  # None removes
    expires_at_ms: int  # 0: never
    sequence_number: SequenceNumber
    item_identifier: str


class Outcome(Struct, frozen=True):
    """What became of one entry; only applied and fenced are known to be written."""

    kind: Literal["applied", "fenced", "failed"]
    error: str = ""  # the server's first word, or the exception's class
    reason: str = ""
    reply: object = None  # to a plain command, not to a script


APPLIED = Outcome("applied")
FENCED = Outcome("fenced")
NO_VALUE = Outcome("fenced", reason="a fence, or another type, and no value")  # only a fill's


class Decoded(Struct, frozen=True):
    """Stage 1's result: delivered = records + rejects + unnamed."""

    stream: Stream | None  # None where the event has no record
    view_type: str
    records: Sequence[StreamRecord]
    rejects: Sequence[Reject]  # without a usable key
    unnamed: Sequence[str]  # one reason per record without a usable sequence number
    oldest_s: float | None  # ApproximateCreationDateTime of the oldest record

    @property
    def delivered(self) -> int:
        """Count every record of the event."""
        return len(self.records) + len(self.rejects) + len(self.unnamed)


class Collapsed(Struct, frozen=True):
    """Stage 2's result: the latest record of each key."""

    latest: Sequence[StreamRecord]
    superseded: int


class Encoded(Struct, frozen=True):
    """Stage 3's result: an entry per key, and a reject per record that could not be encoded."""

    entries: list[Entry]
    rejects: list[Reject]


class Call(Struct, frozen=True):
    """One command, and the entries that its reply answers for."""

    arguments: tuple[bytes, ...]  # without the command's name where it is a script call
    entries: Sequence[int]
    fenced: bool
    slot: int | None = None  # of its keys, where it goes to a cluster
    asking: bool = False  # send ASKING first: its slot is moving to the node asked


class Written(Struct, frozen=True):
    """Stage 5's result: an outcome per entry, in the entries' order."""

    outcomes: Sequence[Outcome]
    round_trip_ms: float
    reconnected: bool = False
    out_of_time: bool = False
