"""Checks a documented command line against the real command's options."""

from __future__ import annotations

import subprocess
import sys


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
