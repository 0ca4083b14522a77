"""Stage 3: the latest record of each key in, one entry per key out.

Names are settled for the whole batch first. Values are made one by one, as entries are taken:
the server can write the first call while later ones are still being encoded.

A record whose value cannot be made becomes a removal at rank 0 (readers miss rather than
read an old value) and a reject; one whose name cannot be made is only a reject.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

from msgspec import Struct, field

from asyncsync.config import Config
from asyncsync.errors import ConfigError, RecordError
from asyncsync.fence import RANK_RECORD, RANK_REJECT, version
from asyncsync.keys import (
    KeyFunction,
    bind,
    escape,
    from_function,
    parse_template,
    render,
    settle,
)
from asyncsync.model import Encoded, Entry, Key, Reject, Stream, StreamRecord
from asyncsync.shapes import Shapes
from asyncsync.values import (
    Transform,
    expiry_ms,
    parse_image,
    read_attribute,
    to_json,
    transformed,
)


class EncodeRules(Struct, frozen=True):
    """What the user chose about names and values, and the shapes of images met so far."""

    config: Config
    key: KeyFunction | None = None
    transform: Transform | None = None
    shapes: Shapes = field(default_factory=Shapes)


def encode(
    latest: Sequence[StreamRecord], stream: Stream, rules: EncodeRules, now_ms: int
) -> Encoding:
    """Name each surviving record; the encoding makes their entries as they are taken.

    Raises ConfigError where the template does not fit the table, or two items get one name.
    """
    named: list[_Named] = []
    rejects: list[Reject] = []
    name_of = _naming(latest, stream, rules)
    for record in latest:
        try:
            named.append((record, *settle(name_of(record.key))))
        except RecordError as exc:
            rejects.append(_reject(record, exc))
    _refuse_shared_names(named)
    return Encoding(named, rejects, stream.label_ms, _valuing(rules, now_ms))


_Named: TypeAlias = tuple[StreamRecord, bytes, bytes]  # with its name and its fence's
_ValueOf: TypeAlias = Callable[[bytes], tuple[bytes | None, int]]


class Encoding:
    """A batch's entries, one for each named record, in order; each is made once."""

    def __init__(
        self, named: list[_Named], rejects: list[Reject], label_ms: int, value_of: _ValueOf | None
    ) -> None:
        self._named = named
        self._label_ms = label_ms
        self._value_of = value_of  # None: nothing is ever written
        self._made = Encoded([], rejects)

    def __len__(self) -> int:
        """Return how many entries there are, made or not."""
        return len(self._named)

    def __iter__(self) -> Iterator[Entry]:
        """Make the entries that are not made yet, each as it is asked for."""
        entries, rejects = self._made.entries, self._made.rejects
        label_ms, value_of = self._label_ms, self._value_of
        for record, name, fence in self._named[len(entries) :]:
            value: bytes | None = None
            expires_at_ms = 0
            rank = RANK_RECORD
            try:
                if record.fault:
                    raise RecordError(record.fault)
                if value_of is not None and not record.removed:
                    value, expires_at_ms = value_of(bytes(record.image))
            except RecordError as exc:
                rejects.append(_reject(record, exc))
                rank = RANK_REJECT
            entry = Entry(
                name,
                fence,
                version(label_ms, record.sequence_number) + rank,
                value,
                expires_at_ms,
                record.sequence_number,
                record.item_identifier,
            )
            entries.append(entry)
            yield entry

    def finished(self) -> Encoded:
        """Make what nobody took, and return all entries and rejects."""
        for _ in self:
            pass
        return self._made


def _naming(
    latest: Sequence[StreamRecord], stream: Stream, rules: EncodeRules
) -> Callable[[Key], bytes]:
    """Return how this batch's keys are named; the first record's says what a key is made of."""
    function = rules.key
    if function is not None:
        return lambda key: from_function(function, key)
    names = tuple([name for name, _, _ in latest[0].key]) if latest else ()
    bound = bind(parse_template(rules.config.key), stream.table, names) if latest else ()

    def named(key: Key) -> bytes:
        if tuple([name for name, _, _ in key]) != names:
            raise RecordError(_OTHER_ATTRIBUTES)
        return render(bound, key)

    prefix = bound[0] if len(bound) == 2 and len(names) == 1 else None
    return _prefixing(prefix, names[0]) if isinstance(prefix, str) else named


_OTHER_ATTRIBUTES = "its key attributes are not those of the batch's first record"


def _prefixing(prefix: str, only: str) -> Callable[[Key], bytes]:
    """Name items as most tables do, by a literal and one attribute: 0.3 us in place of 0.7."""

    def named(key: Key) -> bytes:
        if len(key) != 1 or key[0][0] != only:
            raise RecordError(_OTHER_ATTRIBUTES)
        return (prefix + escape(key[0][2])).encode()

    return named


def _valuing(rules: EncodeRules, now_ms: int) -> _ValueOf | None:
    """Return how this batch's images become value bytes and expiry; None where none does.

    Value bytes are None for a removal; expiry is in epoch milliseconds, 0 for never.
    """
    config = rules.config
    if config.mode == "invalidate":
        return None
    if config.ttl_attribute is not None or rules.transform is not None:
        return lambda image: _value(image, rules, now_ms)
    expires_at_ms = _expires_at_ms(None, config.ttl_s, now_ms)
    make = _as_it_came if config.value == "dynamodb-json" else _plain_json(rules.shapes)
    return lambda image: (make(image), expires_at_ms)


def _as_it_came(image: bytes) -> bytes:
    if not image:
        raise RecordError("the record has no NewImage")
    return image


def _plain_json(shapes: Shapes) -> Callable[[bytes], bytes]:
    known = shapes.json_of

    def made(image: bytes) -> bytes:
        value = known(image)
        if value is None:
            attributes = parse_image(image)
            value = to_json(attributes)
            shapes.miss(attributes)
        return value

    return made


def _value(image: bytes, rules: EncodeRules, now_ms: int) -> tuple[bytes | None, int]:
    """Make a value that depends on an attribute's expiry or on the user's transform."""
    config = rules.config
    passed = config.value == "dynamodb-json"
    attributes = {} if passed else parse_image(image)
    own: object = None
    if config.ttl_attribute is not None:
        own = (
            read_attribute(_as_it_came(image), config.ttl_attribute)
            if passed
            else attributes.get(config.ttl_attribute)
        )
    expires_at_ms = _expires_at_ms(own, config.ttl_s, now_ms)
    if 0 < expires_at_ms <= now_ms:
        return None, 0
    if passed:
        return image, expires_at_ms
    if rules.transform is not None:
        return transformed(rules.transform, attributes), expires_at_ms
    return to_json(attributes), expires_at_ms


def _expires_at_ms(attribute: object, ttl_s: int | None, now_ms: int) -> int:
    """Return the sooner of the item's own expiry and the fixed one; 0 where there is none."""
    own = expiry_ms(attribute)
    fixed = now_ms + ttl_s * 1_000 if ttl_s is not None else 0
    return min(own, fixed) if own and fixed else own or fixed


def _reject(record: StreamRecord, error: RecordError) -> Reject:
    return Reject(record.sequence_number, record.item_identifier, error.reason, error.path)


def _refuse_shared_names(named: Sequence[_Named]) -> None:
    if len({name for _, name, _ in named}) == len(named):
        return
    seen: dict[bytes, StreamRecord] = {}
    other, record = next(
        (seen[name], record)
        for record, name, _ in named
        if seen.setdefault(name, record) is not record
    )
    raise ConfigError(
        "two items got one Redis key, so the key function is not injective: see the "
        f"records {other.item_identifier} and {record.item_identifier}"
    )
