"""The Pythons that compile what Lambda runs."""

from __future__ import annotations

import pytest

from asyncsync.tools.errors import CommandRefused
from scripts import bundle


def skip_without_python(version: bundle.Version) -> None:
    """Skip the test where a Python that compiles the function's bytecode is missing."""
    try:
        bundle.find_python(version)
    except CommandRefused as exc:
        pytest.skip(str(exc))
