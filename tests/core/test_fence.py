"""The fence: content is read back as it was written, and byte order is version order."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asyncsync.fence import (
    NO_VERSION,
    NONCE_DIGITS,
    RANK_RECORD,
    RANK_REJECT,
    RANK_REPAIR,
    Fence,
    fence_name,
    read_fence,
    version,
    write_fence,
)
from asyncsync.keys import hash_tag
from asyncsync.limits import LABEL_DIGITS, SEQUENCE_NUMBER_DIGITS_MAX
from asyncsync.model import SequenceNumber

LABEL_MS = 1_767_225_600_000
RANKS = (RANK_REJECT, RANK_RECORD, RANK_REPAIR)

# --- versions -----------------------------------------------------------------------------------

LABELS = st.integers(0, 10**LABEL_DIGITS - 1)
NUMBERS = st.integers(1, SEQUENCE_NUMBER_DIGITS_MAX).flatmap(
    lambda digits: st.integers(10 ** (digits - 1) - 1, 10**digits - 1)
)


@settings(deadline=None)
@given(LABELS, NUMBERS, LABELS, NUMBERS)
@example(LABEL_MS, 820400000000000001192334, LABEL_MS, 1683700000000000001135967)
@example(0, 10**40 - 1, 1, 0)
@example(5, 9, 5, 10)
def test_versions_sort_as_bytes_as_label_and_number_do(
    label: int, number: int, other_label: int, other_number: int
) -> None:
    one = version(label, SequenceNumber(number))
    other = version(other_label, SequenceNumber(other_number))

    assert (one < other) == ((label, number) < (other_label, other_number))
    assert (one == other) == ((label, number) == (other_label, other_number))
    # The rank that follows never decides between two versions.
    assert (one + b"2" < other + b"0") == (one < other)


@settings(deadline=None)
@given(LABELS, NUMBERS)
def test_a_version_is_decimal_digits_only(label: int, number: int) -> None:
    text = version(label, SequenceNumber(number))

    assert set(text) <= set(b"0123456789")


def test_the_bytes_of_a_version_are_pinned() -> None:
    assert version(LABEL_MS, SequenceNumber(111)) == b"1" + b"1767225600000" + b"03" + b"111"
    assert version(0, SequenceNumber(0)) == b"1" + b"0000000000000" + b"01" + b"0"


def test_no_version_is_below_every_record_even_as_a_repair() -> None:
    repaired = write_fence(NO_VERSION, RANK_REPAIR, 10**NONCE_DIGITS - 1)

    assert repaired < version(1, SequenceNumber(0)) + RANK_REJECT
    assert version(0, SequenceNumber(1)) > NO_VERSION


# --- contents -----------------------------------------------------------------------------------


@settings(deadline=None)
@given(LABELS, NUMBERS, st.sampled_from(RANKS), st.integers(0, 10**NONCE_DIGITS - 1))
@example(0, 0, RANK_REJECT, 0)
@example(10**LABEL_DIGITS - 1, 10**SEQUENCE_NUMBER_DIGITS_MAX - 1, RANK_REPAIR, 7)
def test_what_is_written_is_read_back(label: int, number: int, rank: bytes, nonce: int) -> None:
    written = version(label, SequenceNumber(number))
    digits = b"%0*d" % (NONCE_DIGITS, nonce)

    assert read_fence(written + rank) == Fence(written, rank, b"")
    fence = read_fence(write_fence(written, rank, nonce))
    assert fence == Fence(written, rank, digits)
    assert (fence.label_ms, fence.sequence_number) == (label, number)


def is_fence(content: bytes) -> bool:
    """Match the format by a pattern for each count of digits, or a reader's claim."""
    for count in range(1, SEQUENCE_NUMBER_DIGITS_MAX + 1):
        number = b"[0-9]" if count == 1 else b"[1-9][0-9]{%d}" % (count - 1)
        if re.fullmatch(b"1[0-9]{13}%02d%b[012][0-9]*" % (count, number), content):
            return True
    return bool(re.fullmatch(rb"0[0-9]*", content))


HEADS = st.tuples(
    st.sampled_from([b"1", b"1", b"1", b"0", b"2"]),
    st.integers(0, 10**LABEL_DIGITS - 1).map(lambda label: b"%013d" % label),
    st.integers(0, 99).map(lambda count: b"%02d" % count),
).map(b"".join)
DIGITS = st.lists(st.sampled_from([b"%d" % digit for digit in range(10)]), max_size=60)
NEARLY = st.tuples(HEADS, DIGITS.map(b"".join), st.sampled_from([b"", b"", b"x", b"\n"]))


@settings(deadline=None, max_examples=500)
@given(st.one_of(st.binary(max_size=60), NEARLY.map(b"".join)))
@example(b"")
@example(b"0")
@example(b"1" * 15)
@example(b"1" * 16)
@example(b"1" + b"1767225600000" + b"00" + b"1")
@example(b"1" + b"1767225600000" + b"03" + b"123")
@example(b"1" + b"1767225600000" + b"03" + b"012" + b"1")
@example(b"1" + b"1767225600000" + b"01" + b"0" + b"1")
@example(b"1" + b"1767225600000" + b"03" + b"123" + b"3")
@example(b"1" + b"1767225600000" + b"03" + b"123" + b"1" + b"4f1c")
@example(b"1" + b"1767225600000" + b"41" + b"1" * 41 + b"1")
@example("1²".encode())
def test_every_other_content_is_none(content: bytes) -> None:
    fence = read_fence(content)

    assert (fence is not None) == is_fence(content)
    if fence is not None and not content.startswith(b"0"):
        assert fence.version + fence.rank + fence.nonce == content
        assert fence.version == version(fence.label_ms, fence.sequence_number)


def test_a_readers_claim_has_no_version_and_the_lowest_rank() -> None:
    assert read_fence(b"0123") == Fence(NO_VERSION, RANK_REJECT, b"123")


# --- names --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "fence"),
    [
        (b"player:1", b"{player:1}!f"),
        (b"{user:1}:order:9", b"{user:1}:order:9!f"),
        (b"{}a", b"{{}a}!f"),
    ],
)
def test_a_fence_is_named_in_its_values_slot(name: bytes, fence: bytes) -> None:
    assert fence_name(name, hash_tag(name)) == fence
