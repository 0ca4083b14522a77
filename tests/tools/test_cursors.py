"""Cursors of work that completes out of order: never past a page that is not complete."""

from __future__ import annotations

import json
from dataclasses import dataclass
from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from asyncsync.tools.cursors import Cursors, Page, add, counts


@dataclass(slots=True)
class Count:
    steps: int = 0
    weight: int = 0
    named: str = "no count"


def test_counts_are_integers_by_name_and_are_added_up() -> None:
    total = Count(1, 2)

    add(total, {"weight": 5, "steps": 1, "named": 9, "unknown": 9})

    assert counts(total) == {"steps": 2, "weight": 7}
    assert total.named == "no count"


def test_parts_are_begun_in_order_and_an_open_one_first() -> None:
    cursors = Cursors(3, Count(), {"next": 2, "open": [[0, "a"]], "tally": {"steps": 4}})

    assert list(cursors.todo()) == [(0, "a"), (2, None)]
    assert cursors.tally.steps == 4
    assert not cursors.is_done


def test_a_cursor_moves_only_past_complete_pages() -> None:
    cursors = Cursors(1, Count())
    list(cursors.todo())
    first, second = (cursors.add_page(0, cursor, Count(1)) for cursor in ("a", None))
    first.waits_for += 1

    cursors.complete(second)
    cursors.complete(first)
    assert cursors.document() == {"next": 1, "open": [[0, None]], "tally": counts(Count())}
    cursors.complete(first)
    assert cursors.document() == {"next": 1, "open": [], "tally": counts(Count(2))}
    assert cursors.is_done


@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=5),
    st.integers(0, 2**32),
    st.integers(1, 12),
)
def test_cut_anywhere_and_resumed_every_page_counts_once(
    parts: list[int], seed: int, cut_after: int
) -> None:
    """Each page weighs a power of two, so that one left out or counted twice shows."""
    chance = Random(seed)
    weights = {
        (part, step): 2 ** (part * 5 + step) for part, n in enumerate(parts) for step in range(n)
    }
    cursors = Cursors(len(parts), Count())
    while not cursors.is_done:
        _walk(cursors, parts, weights, chance, cut_after)
        document = json.loads(json.dumps(cursors.document()))
        # Wherever it was cut, cursors and counts describe one moment.
        done = {(p, s) for p in range(document["next"]) for s in range(_done(document, p, parts))}
        assert cursors.tally.weight == sum(weights[each] for each in done)
        cursors = Cursors(len(parts), Count(), document)

    assert cursors.tally == Count(len(weights), sum(weights.values()))


def _done(document: Any, part: int, parts: list[int]) -> int:
    """How many pages of a begun part are behind its cursor."""
    opened = dict(document["open"])
    return parts[part] if part not in opened else (opened[part] or 0)


def _walk(
    cursors: Cursors[Count],
    parts: list[int],
    weights: dict[tuple[int, int], int],
    chance: Random,
    cut_after: int,
) -> None:
    """Read at most `cut_after` pages and complete some of them, in any order."""
    read: list[Page[Count]] = []
    for part, cursor in cursors.todo():
        for step in range(cursor or 0, parts[part]):
            after = step + 1 if step + 1 < parts[part] else None
            read.append(cursors.add_page(part, after, Count(1, weights[part, step])))
            if len(read) == cut_after:
                break
        if len(read) == cut_after:
            break
    chosen = chance.sample(read, chance.randint(1, len(read))) if read else []
    # The first page is always completed, or a slice could get nowhere.
    for page in {id(page): page for page in [*chosen, *read[:1]]}.values():
        cursors.complete(page)
