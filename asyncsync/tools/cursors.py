"""How far a command is that looks at some things a second time, later: what it can go on from.

A part (a segment of the table, a node of the copy) is read in steps, and a step may settle long
after the next was read. A part's place moves past a step, and what the step counts is added up,
only when it and all before it have settled: place and counts are always of one moment. Pure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from asyncsync.tools.counts import add, counts

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")


@dataclass(slots=True)
class Page(Generic[T]):
    """One page of a part, or a few names of a node."""

    part: int
    place: Any  # where to go on after it, as JSON has it; None: the part ends with it
    tally: T
    waits_for: int = 1  # what is still to settle: the step itself, and what it is looked at for


class Cursors(Generic[T]):
    """Steps of parts that are begun in order, each read in order, and settle in any.

    A part's number is its place in that order.
    """

    def __init__(self, parts: int, tally: T, held: Mapping[str, Any] | None = None) -> None:
        held = held or {}
        self.tally = tally  # what all settled steps count
        self._parts = parts
        self._next: int = held.get("next", 0)  # no part from here on was begun
        self._open: dict[int, Any] = dict(held.get("open", ()))  # begun and not ended
        self._steps: dict[int, deque[Page[T]]] = {}
        add(tally, held.get("tally", {}))

    @property
    def is_done(self) -> bool:
        """Whether every part has ended and every step has settled."""
        return self._next == self._parts and not self._open

    def todo(self) -> Iterator[tuple[int, Any]]:
        """Begin one part after another, or go on with it: its number, and its place or None."""
        yield from [*self._open.items()]
        while self._next < self._parts:
            part, self._next = self._next, self._next + 1
            self._open[part] = None
            yield part, None

    def step(self, part: int, place: Any, tally: T) -> Page[T]:
        """Take a step that was read; its tally may be added to until it settles."""
        made = Page(part, place, tally)
        self._steps.setdefault(part, deque()).append(made)
        return made

    def settle(self, step: Page[T]) -> None:
        """Take one thing that the step waits for as settled."""
        step.waits_for -= 1
        steps = self._steps[step.part]
        while steps and not steps[0].waits_for:
            done = steps.popleft()
            add(self.tally, counts(done.tally))
            self._open[done.part] = done.place
            if done.place is None:
                del self._open[done.part]

    def document(self) -> dict[str, Any]:
        """Write down what can be gone on from."""
        return {
            "next": self._next,
            "open": [[part, place] for part, place in self._open.items()],
            "tally": counts(self.tally),
        }
