"""Checks what seems to differ, while the scan that saw it goes on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any

import anyio
from anyio.abc import TaskGroup

from asyncsync.copy.repair import Repaired, Repairer, Target
from asyncsync.model import Key
from asyncsync.tools.audit.confirm import Comparer, Difference, Kind, confirm
from asyncsync.tools.audit.report import AuditReport, AuditTally, tally_of
from asyncsync.tools.cursors import Cursors, Page, add, counts

# Checks that wait for their second look at once, so that memory stays bounded where all differs.
WAITING_MAX = 32


class Phase:
    """One scan of an audit: the kinds of difference it finds, its cursors, and its counts."""

    def __init__(
        self, kinds: Collection[Kind], cursors: Cursors[AuditTally], tally: AuditTally
    ) -> None:
        self.kinds = kinds
        self.cursors = cursors
        self._tally = tally  # of every page so far; the cursors count complete pages
        add(tally, counts(cursors.tally))

    def document(self) -> dict[str, Any]:
        """Return the state to resume from, as JSON."""
        return self.cursors.document()

    def count(self, page: Page[AuditTally], more: AuditTally) -> None:
        """Add to the counts of a page that is not complete."""
        add(page.tally, counts(more))
        add(self._tally, counts(more))

    def begin_check(self, page: Page[AuditTally], keys: int) -> None:
        """Let a page wait for the check of some keys."""
        page.waits_for += 1
        self._tally.waiting += keys

    def end_check(self, page: Page[AuditTally], keys: int, more: AuditTally) -> None:
        """Add what a check counted; the page no longer waits for it."""
        self._tally.waiting -= keys
        self.count(page, more)
        self.cursors.complete(page)


class Checker:
    """Confirms suspects, repairs the findings where that is wanted, and reports them."""

    def __init__(
        self,
        comparer: Comparer,
        repairer: Repairer | None,
        wait: Callable[[], Awaitable[None]],
        report: AuditReport,
    ) -> None:
        self._comparer = comparer
        self._repairer = repairer
        self._repairing = anyio.Lock()  # a Repairer takes one call at a time
        self._wait = wait
        self._waiting = anyio.Semaphore(WAITING_MAX)
        self._report = report
        self._orphans: set[bytes] = set()  # SCAN may give a name twice

    async def start(
        self, keys: Sequence[Key], phase: Phase, page: Page[AuditTally], tasks: TaskGroup
    ) -> None:
        """Check some keys of a page in a task of their own."""
        if not keys:
            return
        phase.begin_check(page, len(keys))
        await self._waiting.acquire()
        tasks.start_soon(self._check, keys, phase, page)

    async def _check(self, keys: Sequence[Key], phase: Phase, page: Page[AuditTally]) -> None:
        try:
            confirmed = await confirm(keys, phase.kinds, self._comparer.compare, self._wait)
        finally:
            self._waiting.release()
        findings = [each for each in confirmed.findings if each.name not in self._orphans]
        self._orphans |= {each.name for each in findings if each.kind == "orphan"}
        answers = await self._repair(findings)
        self._report.write_findings(findings, answers)
        phase.end_check(page, len(keys), tally_of(confirmed, findings, answers))

    async def _repair(self, findings: Sequence[Difference]) -> list[Repaired]:
        if self._repairer is None or not findings:
            return []
        async with self._repairing:
            return await self._repairer.repair([Target(each.key) for each in findings])

    def close(self) -> None:
        """Close the repairer's connection."""
        if self._repairer is not None:
            self._repairer.close()
