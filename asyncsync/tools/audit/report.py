"""What an audit says: each finding as it is made, how far it is, and what it comes to.

A finding is named by its Redis key. What the item or the copy holds is said only with --show.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from asyncsync.copy.repair import Repaired
from asyncsync.tools.audit.confidence import CONFIDENCE, bound_percent, lower_bound, percent
from asyncsync.tools.audit.confirm import Confirmed, Difference
from asyncsync.tools.audit.orphans import Suspects
from asyncsync.tools.cursors import add, counts
from asyncsync.tools.output import Say, progress, rate_and_left

PROGRESS_INTERVAL_S = 5.0

# Findings that are named once more where an audit goes on, beside their count.
NAMED_MAX = 20


@dataclass(slots=True)
class Tally:
    """What an audit has seen so far."""

    keys: int = 0  # of the table
    seen: int = 0  # differences at the first look
    dropped: int = 0  # of these, gone when looked at again
    unsettled: int = 0  # keys of the table that changed at every look: not judged
    unsettled_names: int = 0  # the same of names that had no item
    waiting: int = 0  # keys of the table that differed when scanned and wait for their looks
    waiting_names: int = 0  # the same of names that had no item
    missing: int = 0
    stale: int = 0
    orphan: int = 0
    names: int = 0  # of the copy, ours
    foreign: int = 0  # of the copy, not ours
    repaired: int = 0
    left: int = 0  # findings that could not be repaired

    @property
    def findings(self) -> int:
        """Count every finding."""
        return self.missing + self.stale + self.orphan

    @property
    def judged(self) -> int:
        """Count the table's keys of which it is known whether they are the same."""
        return max(0, self.keys - self.unsettled - self.waiting)

    @property
    def same(self) -> int:
        """Count the keys that are the same in table and copy."""
        return max(0, self.judged - self.missing - self.stale)


class AuditReport:
    """Counts and says."""

    def __init__(
        self, say: Say, *, as_json: bool = False, show: bool = False, expected: int = 0
    ) -> None:
        self.tally = Tally()
        self.named: list[str] = []  # the first findings, without what items hold
        self._before = 0  # keys that an earlier slice has compared
        self._say = say
        self._as_json = as_json
        self._show = show
        self._expected = expected
        self._began_s = self._said_s = time.monotonic()

    @property
    def is_good(self) -> bool:
        """Whether there is no finding, or each was repaired."""
        return self.tally.findings == self.tally.repaired

    def resume(self, tally: Mapping[str, int], named: Sequence[str]) -> None:
        """Take what earlier slices have come to, and say their findings once more."""
        add(self.tally, tally)
        self._before = self.tally.keys
        self.named = [*named]
        if not self._as_json:
            self._say(
                f"goes on: {self.tally.keys:,} keys were compared before, "
                f"{self.tally.findings:,} findings"
            )
        for line in named:
            self._say(line)

    def count(self, keys: int) -> None:
        """Take keys that were compared."""
        self.tally.keys += keys
        now_s = time.monotonic()
        if self._as_json or now_s - self._said_s < PROGRESS_INTERVAL_S:
            return
        self._said_s, took_s = now_s, now_s - self._began_s
        done, expected = self.tally.keys - self._before, self._expected - self._before
        rate = rate_and_left(done, expected, took_s)
        text = f"{self.tally.keys:,} keys, {rate}, {self.tally.findings:,} findings"
        self._say(progress(took_s, text))

    def names(self, few: Suspects) -> None:
        """Take names of the copy."""
        self.tally.names += few.ours
        self.tally.foreign += few.foreign

    def suspect(self, keys: int, *, of_names: bool) -> None:
        """Take keys that are now looked at, or with a negative count, that were."""
        if of_names:
            self.tally.waiting_names += keys
        else:
            self.tally.waiting += keys

    def settled(
        self,
        settled: Confirmed,
        findings: Sequence[Difference],
        repaired: Sequence[Repaired] = (),
        *,
        of_names: bool = False,
    ) -> Tally:
        """Take what became of suspects, say the findings, and return what was counted."""
        more = Tally(seen=settled.seen, dropped=settled.dropped)
        if of_names:
            more.unsettled_names = settled.unsettled
        else:
            more.unsettled = settled.unsettled
        answers = {each.target.key: each for each in repaired}
        for each in findings:
            setattr(more, each.kind, getattr(more, each.kind) + 1)
            answer = answers.get(each.key)
            if answer is not None:
                more.repaired += answer.kind == "repaired"
                more.left += answer.kind != "repaired"
            for line in self._lines(each, answer, show=self._show):
                self._say(line)
            self._name(self._lines(each, answer, show=False)[0])
        add(self.tally, counts(more))
        return more

    def _name(self, line: str) -> None:
        """Name a finding, while there are few; a killed audit may come by one again."""
        if len(self.named) < NAMED_MAX and line not in self.named:
            self.named.append(line)

    def _lines(self, found: Difference, answer: Repaired | None, *, show: bool) -> list[str]:
        if self._as_json:
            return [orjson.dumps(_shown(found, answer, show=show)).decode()]
        lines = [f"{found.kind:<8} {_text(found.name) or 'an item without a name'}"]
        if found.reason:
            lines[0] += f": {found.reason}"
        if answer is not None and answer.kind != "repaired":
            lines[0] += f": not repaired, {answer.reason or answer.kind}"
        elif answer is not None:
            lines[0] += ": repaired"
        if show:
            lines += [f"  table  {_text(found.expected)}", f"  copy   {_text(found.held)}"]
        return lines

    def end(
        self,
        *,
        is_whole: bool,
        looked_for_orphans: bool = False,
        repair: bool = False,
        cut_short: bool = False,
    ) -> None:
        """Say what it comes to; cut short, it is no more than what was seen until then."""
        if self._as_json:
            self._say(summary_json(self.tally, is_whole=is_whole, cut_short=cut_short))
            return
        lines = summary_lines(self.tally, is_whole=is_whole, names=looked_for_orphans)
        if repair:
            lines.append(f"  {self.tally.repaired:,} repaired, {self.tally.left:,} left")
        if cut_short:
            lines.insert(0, "cut short; until then:")
        for line in lines:
            self._say(line)


def _shown(found: Difference, answer: Repaired | None, *, show: bool) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "finding": found.kind,
        "key": _text(found.name),
        "reason": found.reason,
    }
    if answer is not None:
        shown |= {"repaired": answer.kind == "repaired", "repair": answer.reason}
    if show:
        shown |= {
            "table": None if found.expected is None else _text(found.expected),
            "copy": None if found.held is None else _text(found.held),
        }
    return shown


def summary_lines(tally: Tally, *, is_whole: bool, names: bool) -> list[str]:
    """Write an audit's result for people: a count of the whole, of a sample a share and bound."""
    if is_whole or not tally.judged:
        lines = [f"{tally.same:,} of {tally.judged:,} keys are the same in table and copy"]
    else:
        share = percent(tally.same, tally.judged)
        bound = bound_percent(tally.same, tally.judged)
        sure = f"{CONFIDENCE * 100:g} %"
        lines = [f"{share} of {tally.judged:,} keys, at least {bound} with {sure} confidence"]
    lines.append(f"  {tally.missing:,} missing, {tally.stale:,} stale, {tally.orphan:,} orphans")
    if names:
        lines.append(f"  {tally.names:,} names of the copy; {tally.foreign:,} foreign, left alone")
    lines.append(
        f"  {tally.seen:,} differed when first looked at, {tally.dropped:,} of them not any more "
        "when looked at again"
    )
    waiting = tally.waiting + tally.waiting_names
    if waiting:
        lines.append(f"  {waiting:,} seemed to differ and were not looked at again")
    unsettled = tally.unsettled + tally.unsettled_names
    if unsettled:
        lines.append(f"  {unsettled:,} changed at every look and were not judged")
    return lines


def summary_json(tally: Tally, *, is_whole: bool, cut_short: bool = False) -> str:
    """Write an audit's result as one JSON object; a whole table has no bound."""
    shown: dict[str, Any] = {
        "keys": tally.judged,
        "same": tally.same,
        "missing": tally.missing,
        "stale": tally.stale,
        "orphans": tally.orphan,
        "names": tally.names,
        "foreign": tally.foreign,
        "differed_at_first": tally.seen,
        "dropped": tally.dropped,
        "not_looked_at_again": tally.waiting + tally.waiting_names,
        "changed_at_every_look": tally.unsettled + tally.unsettled_names,
        "repaired": tally.repaired,
        "left": tally.left,
        "whole": is_whole and not cut_short,
        "cut_short": cut_short,
    }
    if not is_whole and tally.judged:
        shown["share"] = tally.same / tally.judged
        shown["share_at_least"] = lower_bound(tally.same, tally.judged)
        shown["confidence"] = CONFIDENCE
    return orjson.dumps(shown).decode()


def _text(held: bytes | None) -> str:
    return "none" if held is None else held.decode(errors="backslashreplace")
