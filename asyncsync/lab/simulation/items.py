"""The items of a simulation, by their numbers: in the table, in Redis, and their fences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from asyncsync.lab.simulation.table import TABLE
from asyncsync.model import Value

Version: TypeAlias = tuple[int, int]  # stream label in epoch ms, sequence number
Fence: TypeAlias = tuple[int, int, int]  # a version and the rank

BEFORE_STREAM: Version = (0, 0)  # of a value that is older than the stream


class Violation(Exception):
    """A promise was broken; the message says which one, and by what."""


def name_of(item: int) -> bytes:
    """Return an item's Redis key under the default template."""
    return b"%b:%d" % (TABLE.encode(), item)


def fence_of(item: int) -> bytes:
    """Return the name of an item's fence."""
    return b"{%b}!f" % name_of(item)


def parse_fence(content: Value) -> Fence | None:
    """Parse a fence: one digit of format, 13 of label, two of count, the number, the rank.

    None is a reader's claim, which has no version. Raises Violation where it is neither.
    """
    if isinstance(content, tuple):
        raise Violation("a fence is a hash")
    text = content.decode()
    if text[0] == "0" and text.isdigit():
        return None
    digits = int(text[14:16])
    if text[0] != "1" or not text.isdigit() or len(text) < 17 + digits:
        raise Violation(f"a fence is {text!r}, which has no known format")
    return int(text[1:14]), int(text[16 : 16 + digits]), int(text[16 + digits])


def item_image(item: int, count: int, extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return an item in DynamoDB JSON; its count makes each version different."""
    return {"Number": {"N": str(item)}, "Count": {"N": str(count)}, **extra}
