"""The installer of `make` says how far pip is, and fails where pip fails."""

from __future__ import annotations

import sys

import pytest

from scripts.install import Progress, install, main, pins_in
from tests.support.project.package import ROOT


@pytest.mark.parametrize(
    ("lines", "doing"),
    [
        ([], "starting pip"),
        (["Collecting redis==8.1.0 (from -r x.txt (line 7))"], "package 1 of at most 9: redis"),
        (
            ["Collecting a==1", "  Downloading a.whl (1 kB)", "Collecting b[c]==2"],
            "package 2 of at most 9: b",
        ),
        (["Collecting a==1", "Installing collected packages: a, b, c"], "unpacking 3 packages"),
        (["Looking in links: somewhere", "WARNING: Collecting nothing"], "starting pip"),
    ],
)
def test_what_pip_does_is_read_from_its_lines(lines: list[str], doing: str) -> None:
    progress = Progress(9)
    for line in lines:
        progress.read(line)

    assert str(progress) == doing


def test_the_pins_of_a_requirements_file_are_counted() -> None:
    name = str(ROOT / "requirements" / "lambda.txt")

    assert pins_in(["--require-hashes", "-r", name]) == 3
    assert pins_in(["--editable", "."]) == 0


def test_a_line_comes_every_few_seconds_while_pip_is_silent() -> None:
    said: list[str] = []
    pip = "import time; print('Collecting a==1', flush=True); time.sleep(1)"

    assert install([sys.executable, "-c", pip], 1, said.append, every_s=0.2) == 0

    assert len(said) >= 3
    assert said[-1].endswith(" s  package 1 of at most 1: a")


def test_a_failure_of_pip_shows_its_last_lines_and_its_exit_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--no-index", "there-is-no-such-package"]) == 1

    printed = capsys.readouterr().out
    assert "No matching distribution found for there-is-no-such-package" in printed
    assert printed.endswith("pip failed with exit code 1; its last lines are above\n")
