"""Checks what must be true after every step of a simulation and at its end.

Called after each command, acknowledgement, discarded or redriven record, and destructive fault.
It compares Redis with the table's history. It follows the design's words, not the code under
test, and shares none with it: it parses fences itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from asyncsync.config import Config
from asyncsync.lab.compare import copied_item, copied_value
from asyncsync.lab.simulation.items import (
    BEFORE_STREAM,
    Fence,
    Version,
    Violation,
    fence_of,
    item_image,
    name_of,
    parse_fence,
)
from asyncsync.lab.simulation.table import Change, SimulatedTable
from asyncsync.model import Value

Read: TypeAlias = Callable[[bytes], Value | None]


class Oracle:
    """Compares the table's history with Redis, step by step."""

    def __init__(
        self,
        table: SimulatedTable,
        config: Config,
        read: Read,
        before: Iterable[int],
        now_ms: Callable[[], int],
        *,
        expiry_ms: Callable[[bytes], int] = lambda _: 0,
        has_readers: bool = False,
    ) -> None:
        self._table = table
        self._config = config
        self._has_readers = has_readers
        self._read = read
        self._expiry_ms = expiry_ms
        self._item_of = {name_of(item): item for item in table.history}
        self._fenced_item_of = {fence_of(item): item for item in table.history}
        self._before = frozenset(before)  # items that existed before the stream
        self._now_ms = now_ms
        self._fences: dict[int, Fence] = {}  # at the last check
        self._fenced_ms: dict[int, int] = {}  # when each was last written, not by a reader
        self._expires_ms: dict[int, int] = {}
        self._highest: dict[int, Fence] = {}  # of all fences so far, expired ones too
        # The fence's version, and the newest change that Redis has shown under it.
        self._ahead: dict[int, tuple[Version, Version]] = {}
        # By mapping: each item's highest version, and the step at which its invocation began.
        self._acknowledged: dict[str, dict[int, tuple[Version, int]]] = {}
        self._discarded: dict[int, Version] = {}  # each item's highest
        self._damaged: dict[int, int] = {}  # the step of the last fault that hit each item
        self._is_set_back = False  # a fault brought older contents back
        self._step = 0
        self.checks = 0  # of an item
        self.is_backfilled = False  # items that are older than the stream are in the copy

    @property
    def now(self) -> int:
        """Return the number of this step; a later damage has a higher one."""
        return self._step

    # --- after every command -------------------------------------------------------------------

    def ran(
        self,
        changed: Iterable[bytes],
        allowed: Mapping[bytes, object] | None,
        *,
        renews_fences: bool = True,
    ) -> None:
        """Check a command that the server ran; `allowed` has the names it may touch.

        A reader renews no fence, and must not shorten the life of one. Raises Violation, as all
        checks do.
        """
        self._step += 1
        touched: dict[int, None] = {}
        for name in changed:
            item = self._item_of.get(name, self._fenced_item_of.get(name))
            if item is None or (allowed is not None and name_of(item) not in allowed):
                raise Violation(f"{name!r} was touched, which is no key of an item of the batch")
            touched[item] = None
        for name in changed:
            if name in self._fenced_item_of:
                self._check_life(self._fenced_item_of[name], renews_fences=renews_fences)
        for item in touched:
            self.checks += 1
            self._check_item(item)

    def _check_life(self, item: int, *, renews_fences: bool) -> None:
        expires_ms = self._expiry_ms(fence_of(item))
        if renews_fences:
            self._fenced_ms[item] = self._now_ms()
        elif item in self._fences and expires_ms < self._expires_ms.get(item, 0):
            raise Violation(f"a reader shortens the life of the fence of item {item}")
        self._expires_ms[item] = expires_ms

    def _check_item(self, item: int) -> None:
        content = self._read(fence_of(item))
        before = self._fences.get(item)
        value = self._read(name_of(item))
        visible = self._visible_change(item, value)
        fence = None if content is None else parse_fence(content)
        if fence is None:
            if before is not None:
                raise Violation(f"the fence of item {item} is gone, and no fault took it")
            self._check_visible(item, BEFORE_STREAM, visible)
            return
        self._fences[item] = fence
        if before is not None and fence < before:
            raise Violation(f"G1: the fence of item {item} went from {before} back to {fence}")
        self._highest[item] = max(fence, self._highest.get(item, fence))
        self._check_visible(item, fence[:2], visible)
        if fence != before:  # a reader's lease leaves version and rank
            self._check_fenced(item, fence, value, visible)

    def _check_visible(self, item: int, at: Version, visible: Change | None) -> None:
        """Check that a value is not older than any fence so far or any value under this fence.

        A fill or a repair may be ahead of the fence; the changes between then pass once more.
        """
        if visible is None:
            return
        highest = self._highest.get(item, (*BEFORE_STREAM, 0))[:2]
        if visible.version < highest:
            change = self._change_at(item, highest)
            kind = "deleted stays deleted" if change.item is None else "G1"
            raise Violation(
                f"{kind}: item {item} shows change {visible.count}, "
                f"its fence was at {change.count}"
            )
        last_at, newest = self._ahead.get(item, (at, visible.version))
        if last_at == at and visible.version < newest and self._config.ttl_s is None:
            raise Violation(
                f"a repair is undone: item {item} shows change {visible.count}, and its fence has "
                "not moved since it showed a newer one"
            )
        self._ahead[item] = (
            at,
            max(newest, visible.version) if last_at == at else visible.version,
        )

    def _check_fenced(
        self, item: int, fence: Fence, value: Value | None, visible: Change | None
    ) -> None:
        change = self._change_at(item, fence[:2])
        if fence[2] == 0 and visible is not None and visible.version == change.version:
            raise Violation(f"G6: item {item} shows a change that its fence says was rejected")
        if value is None and fence[2] > 0 and self._is_missed(item, change):
            raise Violation(f"item {item} is missing, its fence is at change {change.count}")

    def _is_missed(self, item: int, change: Change) -> bool:
        """Return whether a missing key should have a value: nothing may have removed it since."""
        if self._config.mode != "mirror" or self._config.ttl_s is not None:
            return False
        if change.item is None:
            return False
        # A later removal may have taken the value and then been refused its fence.
        later = self._table.history[item][change.count :]
        return not any(change.item is None or change.poison for change in later)

    def _change_at(self, item: int, version: Version) -> Change:
        for change in reversed(self._table.history[item]):
            if change.version == version:
                return change
        if version == BEFORE_STREAM:  # of a repair without a fence before it
            return self._oldest(item)
        raise Violation(
            f"the fence of item {item} is at {version}, which is none of the item's changes"
        )

    def _visible_change(self, item: int, value: Value | None) -> Change | None:
        """Return the change that a value shows; it must equal that change to the last digit."""
        if value is None:
            return None
        value_format = self._config.value
        if isinstance(value, bytes) and item in self._before and value == _old_string(item):
            return self._oldest(item)  # before the copy's format changed
        plain = copied_value(value, value_format)
        if item in self._before and plain == copied_item(item_image(item, 0, {}), value_format):
            return self._oldest(item)
        history = self._table.history[item]
        count = _count_of(plain)
        if 0 < count <= len(history):
            change = history[count - 1]
            if change.item is not None and plain == copied_item(change.item, value_format):
                return change
        raise Violation(f"the value of item {item} is none that the item ever had")

    def _oldest(self, item: int) -> Change:
        """Return an item as it was before the stream."""
        image = item_image(item, 0, {}) if item in self._before else None
        return Change(item, 0, *BEFORE_STREAM, image, "", 0)

    # --- after every answer of a reader --------------------------------------------------------

    def version_of(self, item: int) -> Version:
        """Return the newest version of an item that Redis is known to have applied."""
        return self._highest.get(item, (*BEFORE_STREAM, 0))[:2]

    def answered(self, item: int, value: bytes | None, since: int, version: Version) -> None:
        """Check a reader's answer: not older than the version applied when its read began."""
        self.checks += 1
        visible = self._visible_change(item, value)
        if self._damaged.get(item, -1) >= since:
            return
        if visible is not None:
            if visible.version < version:
                raise Violation(f"a reader was shown change {visible.count} of item {item}, late")
            return
        candidates = [self._oldest(item), *self._table.history[item]]
        if not any(each.item is None and each.version >= version for each in candidates):
            raise Violation(f"a reader was told that item {item} is absent, which it is not")

    def unreadable(self, item: int) -> None:
        """Check that an item that a reader could not read has, or had, what cannot be encoded."""
        if not any(change.poison for change in self._table.history[item]):
            raise Violation(f"a reader cannot read item {item}, which can be encoded")

    # --- after every acknowledgement -----------------------------------------------------------

    def acknowledged(
        self, mapping: str, records: Iterable[tuple[int, Version]], since: int
    ) -> None:
        """Check records that a mapping's checkpoint passed; their invocation began at `since`."""
        highest = self._acknowledged.setdefault(mapping, {})
        items = {}
        for item, version in records:
            highest[item] = max((version, since), highest.get(item, (BEFORE_STREAM, 0)))
            items[item] = highest[item]
        for item, (version, since_then) in items.items():
            last = self._table.current(item)
            # A later record is still to come, or in the on-failure destination.
            superseded = last is not None and last.version > version
            if superseded or self._damaged.get(item, -1) >= since_then:
                continue
            fence = self._fences.get(item, (0, 0, 0))
            # Removing a key because its record cannot be encoded is no write, except with skip.
            rank = 0 if self._config.rejects == "skip" else 1
            if fence < (*version, rank):
                raise Violation(
                    f"G2: {version} of item {item} is acknowledged, its fence is at {fence}"
                )

    def discarded(self, records: Iterable[tuple[int, Version]]) -> None:
        """Note records that went to the on-failure destination."""
        for item, version in records:
            self._discarded[item] = max(version, self._discarded.get(item, BEFORE_STREAM))

    def redriven(self, records: Iterable[tuple[int, Version]], since: int) -> None:
        """Check an object that a redrive moved to the done ones; the redrive began at `since`."""
        for item, version in records:
            highest = self._highest.get(item, (*BEFORE_STREAM, 0))
            if highest < (*version, 1) and self._damaged.get(item, -1) <= since:
                raise Violation(
                    f"G2: {version} of item {item} is redriven, its fence is at {highest}"
                )
            if self._discarded.get(item, version) <= version:
                self._discarded.pop(item, None)

    def damaged(self, names: Iterable[bytes], *, is_older: bool = False) -> int:
        """Note the keys that a fault destroyed, or set back; return the number of their items."""
        self._step += 1
        self._is_set_back = self._is_set_back or is_older
        items: dict[int, None] = {}
        for name in names:
            item = self._item_of.get(name, self._fenced_item_of.get(name))
            if item is not None:
                items[item] = None
        for item in items:
            self._damaged[item] = self._step
            content = self._read(fence_of(item))
            for by_item in (self._fences, self._highest, self._ahead, self._expires_ms):
                by_item.pop(item, None)
            fence = None if content is None else parse_fence(content)
            if fence is not None:
                self._fences[item] = self._highest[item] = fence
        return len(items)

    def expire(self) -> int:
        """Check that fences have expired no sooner than their setting; count the expired ones."""
        expired = [item for item in self._fences if self._read(fence_of(item)) is None]
        for item in expired:
            lived_s = (self._now_ms() - self._fenced_ms[item]) / 1_000
            if lived_s < self._config.fence_ttl_s:
                raise Violation(f"the fence of item {item} expired after {lived_s:.0f} s")
            del self._fences[item]
        return len(expired)

    @property
    def last_damage(self) -> int:
        """Return the step of the last damage; -1 if there was none."""
        return max(self._damaged.values(), default=-1)

    def is_poison(self, item: int) -> bool:
        """Return whether an item can be encoded by nobody."""
        last = self._table.current(item)
        return last is not None and "Odd" in (last.item or {})

    @property
    def is_damaged(self) -> bool:
        """Return whether a fault destroyed data, which only a replay or an audit repairs.

        In invalidate a key that is gone is right, whatever was in it.
        """
        return bool(self._damaged) and (self._config.mode != "invalidate" or self._is_set_back)

    # --- at the end ----------------------------------------------------------------------------

    def differences(self, *, strict: bool = False) -> list[str]:
        """Compare Redis with the table; return a line for each item that differs.

        If strict, also return each item that has an excuse to differ, whether it does or not.
        """
        lines = []
        for item in self._table.history:
            difference = self._difference(item, strict=strict)
            if difference:
                lines.append(f"item {item} {difference}")
        return lines

    def _difference(self, item: int, *, strict: bool) -> str:
        last = self._last(item)
        if strict and (excuse := self._excuse(item, last)):
            return excuse
        if last is None or self._only_discarded(item, last):
            return ""
        return self._compare(last, self._visible_change(item, self._read(name_of(item))))

    def _excuse(self, item: int, last: Change | None) -> str:
        """Return why an item may differ although no promise is broken; empty if it may not."""
        if last is None:
            is_older = item in self._before and self._config.mode == "mirror"
            return "is older than the stream, and no backfill is done" if is_older else ""
        if self._only_discarded(item, last):
            return "is in the on-failure destination only"
        return "cannot be encoded, or could not" if last.poison else ""

    def _last(self, item: int) -> Change | None:
        """Return the change that an item is at; None if it has none and no backfill filled it."""
        last = self._table.current(item)
        is_backfilled = self.is_backfilled and item in self._before
        return self._oldest(item) if last is None and is_backfilled else last

    def _only_discarded(self, item: int, last: Change) -> bool:
        if self._discarded.get(item) != last.version:
            return False
        highest = [
            versions.get(item, (BEFORE_STREAM, 0))[0] for versions in self._acknowledged.values()
        ]
        return last.version not in highest

    def _outranks_replay(self, item: int) -> bool:
        """Return whether a destroyed value's fence has a nonce: only a repair or a read helps."""
        content = self._read(fence_of(item))
        if item not in self._damaged or not isinstance(content, bytes) or content[:1] != b"1":
            return False
        return len(content) > 17 + int(content[14:16])

    def _compare(self, last: Change, visible: Change | None) -> str:
        config = self._config
        # The record may have no image where the table has the item: a repair can write that.
        is_poison = last.poison == "never" and (visible is None or "Odd" in (last.item or {}))
        # With readers an invalidated key may have a value again.
        is_empty = config.mode == "invalidate" and not self._has_readers
        is_present = last.item is not None and not is_poison and not is_empty
        if visible is None:
            # A skipped record's key is gone until the item next changes.
            skipped = config.rejects == "skip" and bool(last.poison)
            optional = config.mode != "mirror" or config.ttl_s is not None or skipped
            optional |= self._outranks_replay(last.number)
            return "is missing" if is_present and not optional else ""
        if not is_present:
            return f"should be absent, but shows change {visible.count}"
        if visible.count != last.count:
            return f"shows change {visible.count}, the table is at {last.count}"
        return ""


def _old_string(item: int) -> bytes:
    return b'{"Number":%d,"Count":0}' % item


def _count_of(plain: Any) -> int:
    """Return the count of the change that a decoded value shows; 0 if it shows none."""
    counted = plain.get("Count") if isinstance(plain, dict) else None
    digits = counted[1] if isinstance(counted, tuple) else counted or 0  # a hash's is a string
    return int(digits)
