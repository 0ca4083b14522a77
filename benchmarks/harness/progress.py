"""Shows how far a run is: a bar on a terminal, elsewhere a line per step."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


class ProgressBar:
    """Counts rounds on stderr."""

    def __init__(self, rounds: int) -> None:
        self._console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description:48}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._progress.add_task("", total=rounds)
        self._began_s = time.monotonic()

    def __enter__(self) -> ProgressBar:
        self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._progress.stop()

    def describe(self, step: str) -> None:
        """Name the step that runs now."""
        self._progress.update(self._task, description=step)
        if not self._console.is_terminal:
            self._console.print(f"{time.monotonic() - self._began_s:7.1f} s  {step}")

    def advance(self) -> None:
        """Count one round."""
        self._progress.advance(self._task)
