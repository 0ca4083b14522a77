"""Patched copies of the package: shows that a check fails where the code is wrong."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

ROOT = Path(__file__).parents[3]


SUITE_S_MAX = 180  # several times the slowest suite


class PatchLost(Exception):
    """The source does not hold the patch's old text exactly once."""


@dataclass(frozen=True)
class Patch:
    """Replaces one text of one file of the package."""

    file: str
    old: str
    new: str


def patched(source: str, patch: Patch) -> str:
    """Return the patched source. Raises PatchLost."""
    if source.count(patch.old) != 1:
        raise PatchLost(f"{patch.file} does not hold once: {patch.old.strip()!r}")
    return source.replace(patch.old, patch.new)


@contextmanager
def copy() -> Iterator[Path]:
    """Yield a temporary folder with a copy of the package, its tests and their documents."""
    with tempfile.TemporaryDirectory(prefix="asyncsync-patched-") as name:
        for part in ("asyncsync", "tests", "docs", "pyproject.toml"):
            copier = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
            copier(ROOT / part, Path(name) / part)
        yield Path(name)


@contextmanager
def applied(folder: Path, patches: Sequence[Patch]) -> Iterator[None]:
    """Patch a copy until the block ends. Raises PatchLost."""
    before = {patch.file: (folder / "asyncsync" / patch.file).read_text() for patch in patches}
    try:
        for patch in patches:
            target = folder / "asyncsync" / patch.file
            target.write_text(patched(target.read_text(), patch))
        yield
    finally:
        for file, source in before.items():
            (folder / "asyncsync" / file).write_text(source)


def run(
    folder: Path, *arguments: str, timeout_s: float | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run a Python command on a copy's package to its end.

    Raises TimeoutExpired.
    """
    env = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=folder, env=env, capture_output=True, check=False, timeout=timeout_s
    )


def suite_passes(folder: Path, suite: str) -> bool:
    """Whether a test file passes on a copy's package.

    A failing test may wait for ever for a connection that it has not closed: that is a failure.
    """
    arguments = ("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", f"tests/{suite}")
    try:
        return run(folder, *arguments, timeout_s=SUITE_S_MAX).returncode == 0
    except subprocess.TimeoutExpired:
        return False


# --- many at once -------------------------------------------------------------------------------

Row = TypeVar("Row")
Answer = TypeVar("Answer")


def jobs_and_words(description: str) -> tuple[int, str]:
    """Read the command line: how many copies to work on, and words that choose rows."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--jobs",
        type=int,
        default=os.cpu_count() or 1,
        help="copies to work on in parallel (default: the number of cores)",
    )
    parser.add_argument("words", nargs="*", help="run only the rows whose name holds these words")
    arguments = parser.parse_args()
    return arguments.jobs, " ".join(arguments.words)


def in_copies(
    jobs: int, rows: Sequence[Row], work: Callable[[Path, Row], Answer]
) -> Iterator[Answer]:
    """Work on the rows, each in one of so many copies; yield the answers in the rows' order."""
    with ExitStack() as stack:
        folders: SimpleQueue[Path] = SimpleQueue()
        for _ in range(min(jobs, len(rows))):
            folders.put(stack.enter_context(copy()))

        def work_in_a_copy(row: Row) -> Answer:
            folder = folders.get()
            try:
                return work(folder, row)
            finally:
                folders.put(folder)

        with ThreadPoolExecutor(jobs) as pool:
            try:
                yield from pool.map(work_in_a_copy, rows)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
