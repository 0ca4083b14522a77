"""What `make package` and `make release` build, once for the room."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scripts import bundle, release
from tests.support.pythons import skip_without_python


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Return what `make package` builds, and what it says."""
    skip_without_python(bundle.LAMBDA_PYTHON)
    into = tmp_path_factory.mktemp("dist")
    said: list[str] = []
    assert bundle.main(["--zip", "--into", str(into)], said.append) == 0
    return into, said


@pytest.fixture(scope="session")
def released(translated: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a release for the template's own Python alone; the other one takes a minute more."""
    skip_without_python(bundle.LAMBDA_PYTHON)
    into = tmp_path_factory.mktemp("release") / release.NAME
    release.write(into, translated, [bundle.LAMBDA_PYTHON], lambda line: None)
    return into
