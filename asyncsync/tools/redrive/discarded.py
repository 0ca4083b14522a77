"""On-failure objects: a discarded batch, as Lambda wrote it, to the keys it is about. Pure.

An object says which keys may be behind, and up to which version; what they are to hold is the
table's to say. So an image is never looked at, and neither the record's age nor the order of
the objects matters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
from msgspec import Raw, Struct

from asyncsync.collapse import collapse
from asyncsync.copy.repair import Target
from asyncsync.decode import decode
from asyncsync.errors import EventError
from asyncsync.fence import version
from asyncsync.model import Key


@dataclass(frozen=True, slots=True)
class Discarded:
    """One object: each of its keys at its highest record, and what cannot be brought up to date.

    A fault is a reason that no repair of a key removes; with one, the object stays.
    """

    table: str = ""  # empty where the object does not say
    targets: Sequence[Target] = ()
    faults: Sequence[str] = ()


class _Object(Struct):
    DDBStreamBatchInfo: dict[str, Raw] | None = None
    payload: Raw = Raw()


_OBJECT = msgspec.json.Decoder(_Object)
_TEXT = msgspec.json.Decoder(str)
_ABSENT = (b"", b"null")


def read_discarded(body: bytes) -> Discarded:
    """Read one on-failure object, its payload an object or an escaped string."""
    try:
        held = _OBJECT.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        held = _Object()
    if held.DDBStreamBatchInfo is None:
        return _faulty("it is not an on-failure object of a DynamoDB stream")
    payload = bytes(held.payload)
    if payload in _ABSENT:
        return _faulty("it has no payload: Lambda writes one only to a destination in S3")
    try:
        if payload.startswith(b'"'):
            payload = _TEXT.decode(payload).encode()
        decoded = decode(payload)
    except (EventError, msgspec.DecodeError, UnicodeDecodeError) as exc:
        said = str(exc) if isinstance(exc, EventError) else "it is not text"
        return _faulty(f"its payload cannot be read: {said}")
    if decoded.stream is None:
        return _faulty("its payload has no record")

    label_ms = decoded.stream.label_ms
    targets = [
        Target(record.key, version(label_ms, record.sequence_number))
        for record in collapse(decoded.records).latest
    ]
    faults = [f"record {each.item_identifier}: {each.reason}" for each in decoded.rejects]
    return Discarded(decoded.stream.table, targets, [*faults, *decoded.unnamed])


def _faulty(fault: str) -> Discarded:
    return Discarded(faults=(fault,))


def fitting(found: Discarded, types: Mapping[str, str]) -> Discarded:
    """Turn keys that are not made of a table's key attributes, by name and type, into faults.

    A table that was made anew under its name may have others, and would refuse to be asked.
    """
    wanted = sorted(types.items())
    targets = [each for each in found.targets if [(n, tag) for n, tag, _ in each.key] == wanted]
    if len(targets) == len(found.targets):
        return found
    named = " and ".join(f"{name} ({tag})" for name, tag in wanted)
    fault = f"its keys are not made of {named}, as the table's now are"
    return Discarded(found.table, targets, [*found.faults, fault])


def highest(targets: Iterable[Target]) -> list[Target]:
    """Keep of each key the target with the highest version."""
    found: dict[Key, Target] = {}
    for target in targets:
        held = found.get(target.key)
        if held is None or target.version > held.version:
            found[target.key] = target
    return list(found.values())
