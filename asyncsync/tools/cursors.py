"""Resume points for work that completes out of order, and the counts that belong to them. Pure.

A part (a segment of the table, a node of the copy) is read page by page, and a page may be
complete long after the next one was read. A part's cursor moves past a page, and the page's
counts are added, only when that page and all before it are complete: cursor and counts always
describe one moment.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")


def counts(tally: DataclassInstance) -> dict[str, int]:
    """Return a dataclass's integers by name: they are its counts."""
    values = {field.name: getattr(tally, field.name) for field in fields(tally)}
    return {name: value for name, value in values.items() if isinstance(value, int)}


def add(tally: DataclassInstance, more: Mapping[str, Any]) -> None:
    """Add counts by name; ignore a name that the tally does not count."""
    for name, count in counts(tally).items():
        setattr(tally, name, count + int(more.get(name, 0)))


@dataclass(slots=True)
class Page(Generic[T]):
    """One page of a part: items of a segment, or key names of a node."""

    part: int
    cursor: Any  # where the next page begins, as JSON; None: this was the part's last page
    tally: T
    waits_for: int = 1  # what must complete first: the page itself, and each check it started


class Cursors(Generic[T]):
    """Cursors of parts that begin in order, are read in order, and complete in any order.

    A part's number is its index. `document` is what `document()` wrote, to resume from it.
    """

    def __init__(self, parts: int, tally: T, document: Mapping[str, Any] | None = None) -> None:
        document = document or {}
        self.tally = tally  # the sum over all complete pages
        self._parts = parts
        self._next: int = document.get("next", 0)  # no part from here on has begun
        self._open: dict[int, Any] = dict(document.get("open", ()))  # begun, not ended
        self._pages: dict[int, deque[Page[T]]] = {}
        add(tally, document.get("tally", {}))

    @property
    def is_done(self) -> bool:
        """Whether every part has ended and every page is complete."""
        return self._next == self._parts and not self._open

    def todo(self) -> Iterator[tuple[int, Any]]:
        """Yield each part that is not done: its number, and its cursor or None."""
        yield from [*self._open.items()]
        while self._next < self._parts:
            part, self._next = self._next, self._next + 1
            self._open[part] = None
            yield part, None

    def add_page(self, part: int, cursor: Any, tally: T) -> Page[T]:
        """Register a page that was read; its tally may grow until the page is complete."""
        page = Page(part, cursor, tally)
        self._pages.setdefault(part, deque()).append(page)
        return page

    def complete(self, page: Page[T]) -> None:
        """Mark one thing that the page waits for as done."""
        page.waits_for -= 1
        pages = self._pages[page.part]
        while pages and not pages[0].waits_for:
            done = pages.popleft()
            add(self.tally, counts(done.tally))
            self._open[done.part] = done.cursor
            if done.cursor is None:
                del self._open[done.part]

    def document(self) -> dict[str, Any]:
        """Return the state to resume from, as JSON."""
        return {
            "next": self._next,
            "open": [[part, cursor] for part, cursor in self._open.items()],
            "tally": counts(self.tally),
        }
