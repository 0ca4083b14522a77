"""Every mutant and bug finds its text in the source, once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.programs.bugs import BUGS, Bug
from tests.programs.mutants import MUTANTS, Mutant
from tests.support.project.patches import ROOT, Patch, patched


def read(file: str) -> str:
    return (ROOT / "asyncsync" / file).read_text(encoding="utf-8")


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda each: each.rule)
def test_a_mutant_finds_its_text_and_its_suite(mutant: Mutant) -> None:
    patched(read(mutant.file), Patch(mutant.file, mutant.old, mutant.new))

    assert mutant.old != mutant.new
    assert Path(ROOT, "tests", mutant.suite).is_file()


@pytest.mark.parametrize("bug", BUGS, ids=lambda each: each.wrong)
def test_a_bug_finds_its_texts(bug: Bug) -> None:
    for patch in bug.patches:
        patched(read(patch.file), patch)
