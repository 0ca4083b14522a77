"""A copy of the package with a patch in it: a check that sees no bug is worth nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


class PatchLost(Exception):
    """The text to be patched no longer stands in the source, or stands there twice."""


@dataclass(frozen=True)
class Patch:
    """What stood where, and what stands there instead."""

    file: str
    old: str
    new: str


def patched(source: str, patch: Patch) -> str:
    """The source with the patch in it."""
    if source.count(patch.old) != 1:
        raise PatchLost(f"{patch.file} does not hold once: {patch.old.strip()!r}")
    return source.replace(patch.old, patch.new)


@contextmanager
def copy() -> Iterator[Path]:
    """A copy of package and tests in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="asyncsync-patched-") as name:
        for part in ("asyncsync", "tests", "pyproject.toml"):
            copier = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
            copier(ROOT / part, Path(name) / part)
        yield Path(name)


@contextmanager
def applied(folder: Path, patches: Sequence[Patch]) -> Iterator[None]:
    """Patch a copy until the block ends."""
    before = {patch.file: (folder / "asyncsync" / patch.file).read_text() for patch in patches}
    try:
        for patch in patches:
            target = folder / "asyncsync" / patch.file
            target.write_text(patched(target.read_text(), patch))
        yield
    finally:
        for file, source in before.items():
            (folder / "asyncsync" / file).write_text(source)


SUITE_S_MAX = 180  # several times the slowest


def run(
    folder: Path, *arguments: str, timeout_s: float | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run a Python command with the copy's package to its end.

    Raises TimeoutExpired.
    """
    env = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=folder, env=env, capture_output=True, check=False, timeout=timeout_s
    )


def suite_passes(folder: Path, suite: str) -> bool:
    """Run a test file with the copy's package; whether it passed.

    A failing test may wait for ever for a connection that it has not closed.
    """
    arguments = ("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", f"tests/{suite}")
    try:
        return run(folder, *arguments, timeout_s=SUITE_S_MAX).returncode == 0
    except subprocess.TimeoutExpired:
        return False
