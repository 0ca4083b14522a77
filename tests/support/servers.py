"""The servers and programs that tests need, and what a test says that goes without one.

A test that lacks one is skipped and counted: the last lines of a run say what to install. In CI
it fails.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable
from functools import cache
from typing import Any

import pytest

from asyncsync.lab.servers import binaries

# A program, and what installs it on Debian and Ubuntu.
PACKAGES = {
    "redis-server": "apt install redis-server",
    "valkey-server": "apt install valkey-server, on Debian 12 from its backports",
    "openssl": "apt install openssl",
    "localedef": "apt install locales",
    "node": "apt install nodejs npm",
    "zsh": "apt install zsh",
    "basedpyright": "pip install basedpyright",
}

# One server alone, as `make matrix` wants; the tests then leave the other out.
ONLY = os.environ.get("ASYNCSYNC_TEST_SERVER", "")
WANTED = (ONLY,) if ONLY else ("redis-server", "valkey-server")
FOUND = [name for name in binaries() if name in WANTED]

LACKING = "no "  # how the reason of such a skip begins


def lacking(name: str, *others: str) -> str:
    """Return the reason of a skip for want of a program, or of one of several."""
    names = " or ".join((name, *others))
    return f"{LACKING}{names} on PATH ({PACKAGES[name]})"


def skip_without(*programs: str) -> None:
    """Skip the test if a program is not on PATH; in CI, fail."""
    for name in programs:
        if not shutil.which(name):
            skip(lacking(name))


def skip(reason: str) -> None:
    """Skip the test for want of something that CI has; in CI, fail."""
    if os.environ.get("CI"):
        pytest.fail(f"in CI, where nothing may be missing: {reason}")
    pytest.skip(reason)


def add_binary(parser: argparse.ArgumentParser) -> None:
    """Add --binary, the server that a program runs on. Ends the program if there is none."""
    if not FOUND:
        parser.error(lacking(*WANTED))
    parser.add_argument("--binary", choices=FOUND, default=FOUND[0])


def _servers() -> list[Any]:
    if not FOUND:
        reason = lacking(*WANTED)
        return [pytest.param("", marks=pytest.mark.skip(reason=reason), id="no-server")]
    absent = [
        pytest.param(name, marks=pytest.mark.skip(reason=lacking(name)), id=name)
        for name in WANTED
        if name not in FOUND
    ]
    return [*FOUND, *absent]


# Parameters of a test or fixture: those on PATH, then each other one, skipped.
SERVERS = _servers()
ONE_SERVER = SERVERS[:1]


@cache
def has_tls(binary: str) -> bool:
    """Whether a server is built with TLS."""
    # It listens nowhere, so it ends at once.
    command = [binary, "--port", "0", "--save", "", "--tls-replication", "no"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    return "Bad directive" not in done.stdout + done.stderr


@cache
def major_version(binary: str) -> int:
    """Return a server's major version."""
    done = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True)
    return int(done.stdout.split("v=")[1].split(".")[0])


def shortages(reasons: Iterable[str]) -> list[str]:
    """Return a line for each thing for want of which tests were skipped."""
    counts = Counter(reason for reason in reasons if reason.startswith(LACKING))
    return [
        f"{count:,} test{'s' if count > 1 else ''} skipped: {reason}"
        for reason, count in counts.most_common()
    ]
