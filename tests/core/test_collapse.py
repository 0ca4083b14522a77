"""Stage 2: newest wins by number, whatever the order of arrival."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from asyncsync.collapse import collapse
from asyncsync.model import Key, SequenceNumber, StreamRecord


def change(key: str, number: int, image: bytes = b"") -> StreamRecord:
    raw = Raw(image)
    return StreamRecord((("id", "S", key),), SequenceNumber(number), str(number), not image, raw)


# Few keys and numbers on both sides of a gain of a digit, so that text order is often wrong.
NUMBERS = st.one_of(st.integers(0, 30), st.integers(10**21 - 3, 10**21 + 3))
RECORDS = st.lists(
    st.builds(change, st.sampled_from("abc"), NUMBERS, st.sampled_from([b"", b"{}", b"[]"])),
    max_size=12,
)


def by_key(records: list[StreamRecord]) -> dict[Key, StreamRecord]:
    return {record.key: record for record in records}


@settings(deadline=None)
@given(RECORDS)
def test_keeps_the_highest_of_each_key(records: list[StreamRecord]) -> None:
    kept = collapse(records)

    oracle = by_key(sorted(records, key=lambda record: int(record.item_identifier)))
    assert by_key(list(kept.latest)) == oracle
    assert len(kept.latest) == len(oracle)
    assert len(kept.latest) + kept.superseded == len(records)


@settings(deadline=None)
@given(st.data(), st.lists(st.tuples(st.sampled_from("abc"), NUMBERS), unique=True, max_size=8))
def test_any_order_and_duplication_gives_the_same(
    data: st.DataObject, changes: list[tuple[str, int]]
) -> None:
    records = [change(key, number) for key, number in changes]
    again = data.draw(st.lists(st.sampled_from(records), max_size=6)) if records else []
    delivered = data.draw(st.permutations(records + again))

    assert by_key(list(collapse(delivered).latest)) == by_key(list(collapse(records).latest))


def test_numbers_are_compared_and_not_their_text() -> None:
    # In this order in a stream of AWS's own documentation; as text the first is the last.
    older, newer = change("a", 820400000000000001192334), change("a", 1683700000000000001135967)

    assert older.item_identifier > newer.item_identifier
    assert collapse([older, newer]).latest == collapse([newer, older]).latest == [newer]


def test_numbers_that_are_one_float_are_still_two() -> None:
    older, newer = change("a", 10**21), change("a", 10**21 + 1)

    assert float(older.sequence_number) == float(newer.sequence_number)
    assert collapse([newer, older]).latest == [newer]


def test_of_one_sequence_number_twice_the_later_record_wins() -> None:
    first, second = change("a", 111, b"first"), change("a", 111, b"second")

    assert collapse([first, second]).latest == [second]
    assert collapse([second, first]).latest == [first]


def test_nothing_in_gives_nothing_out() -> None:
    kept = collapse([])

    assert (kept.latest, kept.superseded) == ([], 0)
