"""docs/testing.md and examples/pytest: the same code, which runs and type-checks as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from asyncsync import testing
from tests.support.project.package import ROOT

EXAMPLE = ROOT / "examples" / "pytest"
PAGE = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
PYTEST = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package as its wheel has it, and nothing else of this project."""
    folder = tmp_path_factory.mktemp("wheel")
    run(folder, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT))
    (wheel,) = folder.glob("*.whl")
    target = folder / "installed"
    run(
        folder, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(wheel)
    )
    return target


def run(folder: Path, *arguments: str, path: Path | None = None, returncode: int = 0) -> str:
    """Run Python in a folder, with one folder and this environment's packages on its path."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("PYTHON")}
    process = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=kept if path is None else {**kept, "PYTHONPATH": str(path), "MYPYPATH": str(path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert process.returncode == returncode, process.stdout + process.stderr
    return process.stdout


def copy_to(folder: Path, **changes: Sequence[str]) -> None:
    """Write the example into a folder, with one string of a module changed."""
    for source in EXAMPLE.glob("*.py"):
        text = source.read_text(encoding="utf-8")
        if source.stem in changes:
            old, new = changes[source.stem]
            assert text.count(old) == 1
            text = text.replace(old, new)
        (folder / source.name).write_text(text, encoding="utf-8")


def test_the_page_shows_the_example_whole() -> None:
    module, *parts = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)

    assert module == (EXAMPLE / "my_mirror.py").read_text(encoding="utf-8")
    assert "\n\n".join(parts) == (EXAMPLE / "test_my_mirror.py").read_text(encoding="utf-8")


def test_the_example_passes_with_the_installed_package(installed: Path, tmp_path: Path) -> None:
    copy_to(tmp_path)
    where = run(tmp_path, "-c", "import asyncsync; print(asyncsync.__file__)", path=installed)

    assert where.startswith(str(installed))
    assert re.search(r"^6 passed", run(tmp_path, *PYTEST, "-W", "error", path=installed), re.M)


@pytest.mark.parametrize(
    ("old", "new", "failed"),
    [
        ('"player-" + keys', '"players-" + keys', 2),
        ('if item.get("Hidden")', 'if item.get("hidden")', 2),
        ('if name != "Email"', "", 1),
    ],
)
def test_the_example_fails_where_the_mirror_is_wrong(
    installed: Path, tmp_path: Path, old: str, new: str, failed: int
) -> None:
    copy_to(tmp_path, my_mirror=(old, new))

    assert f"\n{failed} failed" in run(tmp_path, *PYTEST, path=installed, returncode=1)


def test_the_example_is_typed_strictly(installed: Path, tmp_path: Path) -> None:
    mypy = ("-m", "mypy", "--strict", "--config-file", os.devnull, "test_my_mirror.py")
    copy_to(tmp_path)
    run(tmp_path, *mypy, path=installed)

    copy_to(tmp_path, test_my_mirror=('redis_key({"Number": 10})', "redis_key(10)"))
    refused = run(tmp_path, *mypy, path=installed, returncode=1)
    assert 'expected "Mapping[str, object]"' in refused


def test_the_page_names_everything_that_is_public() -> None:
    names = set(testing.__all__) - {
        "MemoryCopy",
        "TableChange",
        "View",
    }  # you need not write these

    assert {name for name in names if not re.search(rf"\b{name}\b", PAGE)} == set()


def test_every_call_of_the_table_builds_an_event() -> None:
    rows = re.findall(r"^\| .* \| `stream_event\(\.\.\., (.*)\)` \|$", PAGE, re.MULTILINE)
    names = {row.split("=")[0] for row in rows}

    assert len(rows) == 6
    for row in rows:
        code = f"stream_event(remove({{'a': 1}}), {row})"
        exec(f"import time\nfrom asyncsync.testing import *\n{code}", {})
    assert names == {"label", "table", "view", "created_s", "first_sequence_number", "as_bytes"}
