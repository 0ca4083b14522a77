"""Reports an audit: each finding when it is made, progress, and the result.

A finding is named by its Redis key. What item and copy hold is shown only with --show-values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from asyncsync.copy.repair import Repaired
from asyncsync.tools.audit.confidence import CONFIDENCE, bound_percent, lower_bound, percent
from asyncsync.tools.audit.confirm import Confirmed, Difference
from asyncsync.tools.cursors import add, counts
from asyncsync.tools.output import Output, json_line, plural, rate_and_left, share_of

# Findings whose lines are repeated when an audit resumes, beside their count.
NAMED_MAX = 20


@dataclass(slots=True)
class AuditTally:
    """The counts of one scan: of the table's items, or of the copy's key names."""

    keys: int = 0  # of the table, looked at; or key names that are ours
    uncompared: int = 0  # of the table: may be absent, and are, or hold what readers chose
    foreign: int = 0  # key names that are not ours
    suspects: int = 0  # differed at the first check
    dropped: int = 0  # of these, matched when checked again
    unsettled: int = 0  # changed between all checks: not judged
    waiting: int = 0  # seemed to differ, and wait for their checks
    missing: int = 0
    stale: int = 0
    mistyped: int = 0  # of another type than a value
    orphan: int = 0
    repaired: int = 0
    left: int = 0  # findings that could not be repaired

    @property
    def findings(self) -> int:
        """Return the number of findings."""
        return self.missing + self.stale + self.mistyped + self.orphan

    @property
    def judged(self) -> int:
        """Return the number of keys that are known to match, or not to."""
        return max(0, self.keys - self.unsettled - self.waiting)

    @property
    def compared(self) -> int:
        """Return the number of keys of which the copy shows that they match, or do not."""
        return max(0, self.judged - self.uncompared)

    @property
    def same(self) -> int:
        """Return the number of keys that were the same in table and copy when compared."""
        return max(0, self.compared - self.missing - self.stale - self.mistyped)


def tally_of(
    confirmed: Confirmed, findings: Sequence[Difference], answers: Sequence[Repaired]
) -> AuditTally:
    """Return the counts of one check of suspects, its findings, and their repairs."""
    kinds = Counter(finding.kind for finding in findings)
    repaired = sum(answer.kind == "repaired" for answer in answers)
    return AuditTally(
        suspects=confirmed.suspects,
        dropped=confirmed.dropped,
        unsettled=confirmed.unsettled,
        missing=kinds["missing"],
        stale=kinds["stale"],
        mistyped=kinds["mistyped"],
        orphan=kinds["orphan"],
        repaired=repaired,
        left=len(answers) - repaired,
    )


class AuditReport:
    """Writes an audit's findings, its progress and its result; keeps its counts."""

    def __init__(
        self,
        output: Output,
        *,
        as_json: bool = False,
        show_values: bool = False,
        expected: int = 0,
        mode: str = "mirror",
        named_by: str = "",
    ) -> None:
        self.items = AuditTally()  # of the table's scan
        self.names = AuditTally()  # of the key names' scan
        self.named: list[str] = []  # the lines of the first findings, without values
        self._output = output
        self._as_json = as_json
        self._show_values = show_values
        self._expected = expected
        self._mode = mode
        self._named_by = named_by  # the key template
        self._keys_before = 0  # compared by earlier runs of the same state

    @property
    def total(self) -> AuditTally:
        """Return the counts of both scans."""
        return _sum(self.items, self.names)

    @property
    def is_good(self) -> bool:
        """Whether there is no finding, or each was repaired."""
        total = self.total
        return total.findings == total.repaired

    def resume(self, lines: Sequence[str]) -> None:
        """Write what earlier runs found; the tallies must hold their counts."""
        self._keys_before = self.items.keys
        self.named = [*lines]
        if not self._as_json:
            keys, findings = self.items.keys, self.total.findings
            findings_before = plural(findings, "finding")
            self._output.line(f"resumed: {plural(keys, 'key')} compared before, {findings_before}")
        for line in lines:
            self._output.line(line)

    def progress(self) -> None:
        """Write how far the audit is, if that is due."""
        done, expected = self.items.keys - self._keys_before, self._expected - self._keys_before
        rate = rate_and_left(done, expected, self._output.elapsed_s)
        keys, findings = self.items.keys, self.total.findings
        names = f", {plural(self.names.keys, 'name')}" if self.names.keys else ""
        text = f"{plural(keys, 'key')}{names}, {rate}, {plural(findings, 'finding')}"
        self._output.progress(text, share_of(keys, self._expected))

    def write_findings(self, findings: Sequence[Difference], answers: Sequence[Repaired]) -> None:
        """Write findings, each with the answer of its repair if there is one."""
        by_key = {answer.target.key: answer for answer in answers}
        for finding in findings:
            answer = by_key.get(finding.key)
            line = self._lines(finding, answer, show_values=False)[0]
            is_full = len(self.named) >= NAMED_MAX
            if is_full and not self._as_json:
                continue
            for shown in self._lines(finding, answer, show_values=self._show_values):
                self._output.line(shown)
            # A killed audit may come to a finding again.
            if not is_full and line not in self.named:
                self.named.append(line)

    def _lines(
        self, finding: Difference, answer: Repaired | None, *, show_values: bool
    ) -> list[str]:
        if self._as_json:
            return [json_line(_finding_json(finding, answer, show_values=show_values))]
        lines = [f"{finding.kind:<8} {_text(finding.name) or 'an item without a name'}"]
        if finding.reason:
            lines[0] += f": {finding.reason}"
        if answer is not None and answer.kind != "repaired":
            lines[0] += f": not repaired, {answer.reason or answer.kind}"
        elif answer is not None:
            lines[0] += ": repaired"
        if show_values:
            lines += [f"  table  {_text(finding.expected)}", f"  copy   {_text(finding.actual)}"]
        return lines

    def end(
        self,
        *,
        is_whole: bool,
        has_names: bool = False,
        repair: bool = False,
        cut_short: bool = False,
    ) -> None:
        """Write the result; of an audit that was cut short, what it saw until then."""
        if self._as_json:
            summary = summary_json(self.items, self.names, is_whole=is_whole, cut_short=cut_short)
            self._output.document(summary)
            return
        total = self.total
        lines = summary_lines(self.items, self.names, is_whole=is_whole, has_names=has_names)
        lines += _what_was_not_compared(self.items, self._mode, self._named_by)
        if repair:
            lines += ["  what was repaired was not compared again"] if total.repaired else []
            lines.append(f"  {total.repaired:,} repaired, {total.left:,} left")
        more = total.findings - len(self.named)
        if more > 0:
            lines.insert(0, f"and {more:,} more (--json has all)")
        if cut_short:
            lines.insert(0, "cut short; until then:")
        for line in lines:
            self._output.line(line)


def _finding_json(
    finding: Difference, answer: Repaired | None, *, show_values: bool
) -> dict[str, Any]:
    document: dict[str, Any] = {
        "finding": finding.kind,
        "key": _text(finding.name),
        "reason": finding.reason,
    }
    if answer is not None:
        document |= {"repaired": answer.kind == "repaired", "repair": answer.reason}
    if show_values:
        document |= {
            "table": None if finding.expected is None else _text(finding.expected),
            "copy": None if finding.actual is None else _text(finding.actual),
        }
    return document


def summary_lines(
    items: AuditTally, names: AuditTally, *, is_whole: bool, has_names: bool
) -> list[str]:
    """Return an audit's result for people: of a sample a share and its bound, else a count."""
    total = _sum(items, names)
    now, then = ("is", "was") if items.compared == 1 else ("are", "were")
    are = f"{then}, before the repair," if total.repaired else now
    if not items.compared:
        lines = ["no key was compared" + ("" if items.keys else ": the scan found no items")]
    elif is_whole:
        of = plural(items.compared, "key")
        lines = [f"{items.same:,} of {of} {are} the same in table and copy"]
    else:
        share = percent(items.same, items.compared)
        bound = bound_percent(items.same, items.compared)
        of = plural(items.compared, "key")
        sure = f"{CONFIDENCE * 100:g} %"
        lines = [f"{share} of {of}, at least {bound} with {sure} confidence"]
        lines += ["  as they were before the repair"] if total.repaired else []
    orphans = plural(total.orphan, "orphan")
    mistyped = f"{total.mistyped:,} of another type, " if total.mistyped else ""
    lines.append(f"  {total.missing:,} missing, {total.stale:,} stale, {mistyped}{orphans}")
    if has_names:
        of_copy = plural(names.keys, "name")
        lines.append(f"  {of_copy} of the copy; {names.foreign:,} foreign, left alone")
    lines.append(
        f"  {total.suspects:,} differed at first; {total.dropped:,} matched when checked again"
    )
    if total.waiting:
        were = "was" if total.waiting == 1 else "were"
        lines.append(f"  {total.waiting:,} seemed to differ and {were} not checked again")
    if total.unsettled:
        were = "was" if total.unsettled == 1 else "were"
        lines.append(f"  {total.unsettled:,} changed between all checks and {were} not judged")
    return lines


def _what_was_not_compared(items: AuditTally, mode: str, named_by: str) -> list[str]:
    """Return what the result says nothing of, and a doubt where the copy seems to be another."""
    lines: list[str] = []
    if items.uncompared:
        why = {
            "mirror": "absent from the copy, which may be: they expire",
            "refresh": "absent from the copy, which may be: ASYNCSYNC_MODE=refresh",
            "invalidate": "their values are the readers' choice: ASYNCSYNC_MODE=invalidate",
        }[mode]
        lines.append(f"  {plural(items.uncompared, 'key')} not compared: {why}")
    is_absent = mode == "refresh" and items.uncompared == items.judged
    if items.judged and (items.missing == items.judged or is_absent):
        lines.append(
            f"  the copy has none of the keys: is ASYNCSYNC_KEY the function's? ({named_by})"
        )
    return lines


def summary_json(
    items: AuditTally, names: AuditTally, *, is_whole: bool, cut_short: bool = False
) -> dict[str, Any]:
    """Return an audit's result as JSON; only a sample has a share and its bound."""
    total = _sum(items, names)
    summary: dict[str, Any] = {
        "keys": items.judged,
        "compared": items.compared,
        "not_compared": items.uncompared,
        "same": items.same,
        "missing": total.missing,
        "stale": total.stale,
        "mistyped": total.mistyped,
        "orphans": total.orphan,
        "names": names.keys,
        "foreign": names.foreign,
        "differed_at_first": total.suspects,
        "dropped": total.dropped,
        "not_looked_at_again": total.waiting,
        "changed_at_every_look": total.unsettled,
        "repaired": total.repaired,
        "left": total.left,
        "whole": is_whole and not cut_short,
        "cut_short": cut_short,
    }
    if not is_whole and items.compared:
        summary["share"] = items.same / items.compared
        summary["share_at_least"] = lower_bound(items.same, items.compared)
        summary["confidence"] = CONFIDENCE
    return summary


def _sum(items: AuditTally, names: AuditTally) -> AuditTally:
    total = AuditTally()
    for tally in (items, names):
        add(total, counts(tally))
    return total


def _text(value: bytes | None) -> str:
    return "none" if value is None else value.decode(errors="backslashreplace")
