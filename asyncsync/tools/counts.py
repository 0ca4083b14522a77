"""Tallies: dataclasses whose integers are counts, added up and kept by their names. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def counts(tally: DataclassInstance) -> dict[str, int]:
    """Return the counts by name."""
    found = {each.name: getattr(tally, each.name) for each in fields(tally)}
    return {name: count for name, count in found.items() if isinstance(count, int)}


def add(tally: DataclassInstance, more: Mapping[str, Any]) -> None:
    """Add counts by name; a name that is no count, or is not there, adds nothing."""
    for name, count in counts(tally).items():
        setattr(tally, name, count + int(more.get(name, 0)))
