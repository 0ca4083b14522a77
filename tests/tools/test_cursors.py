"""How far a command is whose steps settle in any order: never past one that has not."""

from __future__ import annotations

import json
from dataclasses import dataclass
from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from asyncsync.tools.counts import add, counts
from asyncsync.tools.cursors import Cursors, Page


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
    trail = Cursors(3, Count(), {"next": 2, "open": [[0, "a"]], "tally": {"steps": 4}})

    assert list(trail.todo()) == [(0, "a"), (2, None)]
    assert trail.tally.steps == 4
    assert not trail.is_done


def test_a_place_moves_only_past_what_has_settled() -> None:
    trail = Cursors(1, Count())
    list(trail.todo())
    first, second = (trail.step(0, place, Count(1)) for place in ("a", None))
    first.waits_for += 1

    trail.settle(second)
    trail.settle(first)
    assert trail.document() == {"next": 1, "open": [[0, None]], "tally": counts(Count())}
    trail.settle(first)
    assert trail.document() == {"next": 1, "open": [], "tally": counts(Count(2))}
    assert trail.is_done


@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=5),
    st.integers(0, 2**32),
    st.integers(1, 12),
)
def test_cut_anywhere_and_gone_on_with_every_step_counts_once(
    parts: list[int], seed: int, cut_after: int
) -> None:
    """Each step weighs a power of two: what is left out or counted twice would be seen."""
    chance = Random(seed)
    weights = {
        (part, step): 2 ** (part * 5 + step) for part, n in enumerate(parts) for step in range(n)
    }
    trail = Cursors(len(parts), Count())
    while not trail.is_done:
        _walk(trail, parts, weights, chance, cut_after)
        held = json.loads(json.dumps(trail.document()))
        # Whatever a cut leaves: places and counts are of one moment.
        done = {(p, s) for p in range(held["next"]) for s in range(_done(held, p, parts))}
        assert trail.tally.weight == sum(weights[each] for each in done)
        trail = Cursors(len(parts), Count(), held)

    assert trail.tally == Count(len(weights), sum(weights.values()))


def _done(held: Any, part: int, parts: list[int]) -> int:
    """How many steps of a begun part are behind its place."""
    opened = dict(held["open"])
    return parts[part] if part not in opened else (opened[part] or 0)


def _walk(
    trail: Cursors[Count],
    parts: list[int],
    weights: dict[tuple[int, int], int],
    chance: Random,
    cut_after: int,
) -> None:
    """Read up to so many steps, settle them in any order, and leave some of them unsettled."""
    read: list[Page[Count]] = []
    for part, place in trail.todo():
        for step in range(place or 0, parts[part]):
            after = step + 1 if step + 1 < parts[part] else None
            read.append(trail.step(part, after, Count(1, weights[part, step])))
            if len(read) == cut_after:
                break
        if len(read) == cut_after:
            break
    kept = chance.sample(read, chance.randint(1, len(read))) if read else []
    # The first of all always settles, or a slice could come to nothing.
    for each in {id(each): each for each in [*kept, *read[:1]]}.values():
        trail.settle(each)
