"""Runs the command line, and checks a documented one against the real options."""

from __future__ import annotations

import subprocess
import sys

import pytest

from asyncsync.cli.main import main


def assert_parses(arguments: list[str]) -> None:
    """Assert that the command exists and has every option that is used."""
    command, *rest = arguments
    shown = subprocess.run(
        [sys.executable, "-m", "asyncsync", command, "--help"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert shown.returncode == 0, shown.stderr
    for option in (word for word in rest if word.startswith("--")):
        assert option in shown.stdout


def ended(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run a command that argparse may end; return its exit code, stdout and stderr."""
    try:
        code = main(list(arguments))
    except SystemExit as exc:
        code = int(str(exc.code))
    captured = capsys.readouterr()
    return code, captured.out, captured.err
