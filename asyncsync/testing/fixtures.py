"""The pytest fixture `asyncsync_copy`. In your conftest.py or test module, write

    pytest_plugins = ["asyncsync.testing.fixtures"]

It is no entry point, because pytest loads those in every run of every project of an environment.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from asyncsync.mirror import Mirror
from asyncsync.testing.memory import MakeCopy, MemoryCopy, memory_copy


@pytest.fixture
def asyncsync_copy() -> Iterator[MakeCopy]:
    """Make empty copies in memory for a test, each of a mirror: `asyncsync_copy(mirror)`."""
    with ExitStack() as stack:

        def make_copy(mirror: Mirror) -> MemoryCopy:
            return stack.enter_context(memory_copy(mirror))

        yield make_copy
