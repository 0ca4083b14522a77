"""Reads the keys of a discarded batch from the on-failure object that Lambda wrote. Pure.

An object names the keys that may be behind, and up to which version. What they must hold, the
table says: so no image is looked at, and neither the records' age nor the objects' order matters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
from msgspec import Raw, Struct

from asyncsync.aws.tables import TableArn, parse_table_arn
from asyncsync.collapse import collapse
from asyncsync.copy.repair import Target
from asyncsync.decode import decode
from asyncsync.errors import EventError
from asyncsync.fence import version
from asyncsync.model import Key


@dataclass(frozen=True, slots=True)
class Discarded:
    """One object: its keys, each at its highest record, and its faults.

    No repair of a key removes a fault: an object with one stays.
    """

    table: TableArn | None = None  # None if the object does not say
    targets: Sequence[Target] = ()
    faults: Sequence[str] = ()


class _Object(Struct):
    DDBStreamBatchInfo: dict[str, Raw] | None = None
    payload: Raw = Raw()


_OBJECT = msgspec.json.Decoder(_Object)
_TEXT = msgspec.json.Decoder(str)
_ABSENT = (b"", b"null")


def read_discarded(body: bytes) -> Discarded:
    """Read one on-failure object; its payload may be an object or an escaped string."""
    try:
        wrapper = _OBJECT.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        wrapper = _Object()
    if wrapper.DDBStreamBatchInfo is None:
        return _faulty("it is not an on-failure object of a DynamoDB stream")
    payload = bytes(wrapper.payload)
    if payload in _ABSENT:
        return _faulty("it has no payload: Lambda writes one only to a destination in S3")
    try:
        if payload.startswith(b'"'):
            payload = _TEXT.decode(payload).encode()
        decoded = decode(payload)
    except (EventError, msgspec.DecodeError, UnicodeDecodeError) as exc:
        reason = str(exc) if isinstance(exc, EventError) else "it is not text"
        return _faulty(f"its payload cannot be read: {reason}")
    if decoded.stream is None:
        return _faulty("its payload has no record")

    label_ms = decoded.stream.label_ms
    targets = [
        Target(record.key, version(label_ms, record.sequence_number))
        for record in collapse(decoded.records).latest
    ]
    faults = [f"record {reject.item_identifier}: {reject.reason}" for reject in decoded.rejects]
    return Discarded(parse_table_arn(decoded.stream.arn), targets, [*faults, *decoded.unnamed])


def _faulty(fault: str) -> Discarded:
    return Discarded(faults=(fault,))


def matching(batch: Discarded, key: Mapping[str, str]) -> Discarded:
    """Turn keys into a fault if they do not match the table's primary key, by name and type.

    A table that was deleted and created again may have other keys, and refuse such a read.
    """
    expected = sorted(key.items())
    targets = [
        target
        for target in batch.targets
        if [(name, tag) for name, tag, _ in target.key] == expected
    ]
    if len(targets) == len(batch.targets):
        return batch
    names = " and ".join(f"{name} ({tag})" for name, tag in expected)
    fault = f"its keys do not match the table's key, which is {names}"
    return Discarded(batch.table, targets, [*batch.faults, fault])


def highest(targets: Iterable[Target]) -> list[Target]:
    """Keep the target with the highest version of each key."""
    by_key: dict[Key, Target] = {}
    for target in targets:
        other = by_key.get(target.key)
        if other is None or target.version > other.version:
            by_key[target.key] = target
    return list(by_key.values())
