"""What users install: the wheel alone in an empty environment, as Lambda's bundle has it."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from asyncsync import __version__

ROOT = Path(__file__).parents[2]
LAMBDA = ROOT / "requirements" / "lambda.txt"

USER_HANDLER = '''\
"""A handler of a user's own: names and values are theirs."""
from collections.abc import Mapping

from asyncsync import AttributeValue
from asyncsync import Config
from asyncsync import Mirror


def name_of(keys: Mapping[str, AttributeValue]) -> str:
    return "player-" + keys["Number"]["N"]


def public(item: dict[str, object]) -> dict[str, object] | bytes | None:
    return {name: value for name, value in item.items() if name != "Email"}


mirror = Mirror(Config(redis_url="redis://127.0.0.1:6379"), key=name_of, transform=public)
lambda_handler = mirror.lambda_handler
'''


def run(command: Sequence[object], *, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command with nothing of this process's Python settings in its environment."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**kept, **env},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with a fresh wheel and sdist, made as `make dist` makes them."""
    folder = tmp_path_factory.mktemp("dist")
    made = run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT], cwd=ROOT
    )
    assert made.returncode == 0, made.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    """The Python of an environment with what Lambda has: the pinned dependencies, the wheel."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=True)
    executable = folder / "bin" / "python"
    pip = [executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    for wanted in (["--require-hashes", "-r", LAMBDA], ["--no-deps", wheel]):
        installed = run([*pip, "--only-binary", ":all:", *wanted], cwd=folder)
        assert installed.returncode == 0, installed.stderr
    return executable


# --- what is in it ----------------------------------------------------------------------------


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    sources = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "asyncsync").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    packaged = {name for name in names if ".dist-info/" not in name}

    assert packaged == sources
    assert {"asyncsync/py.typed", "asyncsync/fence.lua"} <= packaged
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_sdist_can_be_tested(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}

    wanted = {"LICENSE", "README.md", "CHANGELOG.md", "Makefile", "template.yaml", ".ci/run"}
    wanted |= {"tests/conftest.py", "benchmarks/bench_core.py", "examples/pytest/my_mirror.py"}
    wanted |= {"requirements/dev.txt"}
    assert wanted <= names


def test_the_version_stands_in_one_place(wheel: Path) -> None:
    assert wheel.name.split("-")[1] == __version__
    assert "version =" not in (ROOT / "pyproject.toml").read_text()


# --- installed --------------------------------------------------------------------------------


def test_the_command_says_how_to_use_it_and_its_version(python: Path, tmp_path: Path) -> None:
    command = python.parent / "asyncsync"
    shown = run([command, "--help"], cwd=tmp_path)
    version = run([command, "--version"], cwd=tmp_path)
    module = run([python, "-m", "asyncsync", "--version"], cwd=tmp_path)

    assert shown.returncode == 0, shown.stderr
    assert "usage: asyncsync" in shown.stdout
    assert version.returncode == module.returncode == 0, version.stderr + module.stderr
    assert version.stdout.strip().split()[-1] == __version__
    assert module.stdout == version.stdout


def test_the_handler_imports_with_lambdas_dependencies_alone(python: Path, tmp_path: Path) -> None:
    code = "from asyncsync.handler import lambda_handler as h; print(h({'Records': []}, None))"
    done = run([python, "-c", code], cwd=tmp_path, ASYNCSYNC_REDIS_URL="redis://127.0.0.1:1")

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "{'batchItemFailures': []}"


@pytest.mark.parametrize("switch", ["-O", "-OO"])
def test_python_without_assertions_is_refused_at_cold_start(
    python: Path, tmp_path: Path, switch: str
) -> None:
    done = run(
        [python, switch, "-c", "import asyncsync.handler"],
        cwd=tmp_path,
        ASYNCSYNC_REDIS_URL="redis://127.0.0.1:1",
    )

    assert done.returncode == 1
    assert "ConfigError: python -O" in done.stderr


def test_a_cold_start_imports_nothing_it_does_not_need(python: Path, tmp_path: Path) -> None:
    # Lambda's runtime client has loaded logging, and with it threading.
    needed = "binascii, hiredis, json, logging, msgspec, orjson, socket"
    code = (
        f"import sys, {needed}; before = set(sys.modules); import asyncsync.handler;"
        " print(*set(sys.modules) - before); print('asyncio' in sys.modules)"
    )
    done = run([python, "-c", code], cwd=tmp_path, ASYNCSYNC_REDIS_URL="redis://127.0.0.1:1")
    *_, loaded, has_asyncio = done.stdout.splitlines()

    # asyncio once was a quarter of a cold start; hashlib, pathlib, urllib.parse and nouns as
    # dataclasses a fifth of the rest.
    assert has_asyncio == "False"
    own = {path.stem for path in (ROOT / "asyncsync").glob("*.py")}
    own -= {"__init__", "__main__", "transport_asyncio"}
    own -= {"cluster", "iam", "hashes", "documents"}  # a setting asks for these
    assert set(loaded.split()) == {"asyncsync", *[f"asyncsync.{name}" for name in own]}, (
        done.stderr
    )


def test_an_event_loops_mirror_imports_what_it_needs_then(python: Path, tmp_path: Path) -> None:
    code = (
        "import asyncio; from asyncsync import Config, Mirror;"
        "mirror = Mirror(Config(redis_url='redis://127.0.0.1:1'));"
        "print(asyncio.run(mirror.handle({'Records': []}, None)))"
    )
    done = run([python, "-c", code], cwd=tmp_path)

    assert done.stdout.splitlines() == ["{'batchItemFailures': []}"], done.stderr


def test_a_users_handler_is_typed_strictly(python: Path, tmp_path: Path) -> None:
    handler = tmp_path / "app.py"
    handler.write_text(USER_HANDLER)
    mypy = [sys.executable, "-m", "mypy", "--strict", "--python-executable", python]
    checked = run([*mypy, "--config-file", os.devnull, handler], cwd=tmp_path)
    handler.write_text(USER_HANDLER.replace("-> str:", "-> int:").replace('"player-" + ', "1 + "))
    refused = run([*mypy, "--config-file", os.devnull, handler], cwd=tmp_path)
    handler.write_text(USER_HANDLER)
    runs = run([python, "-c", "import app; print(app.lambda_handler)"], cwd=tmp_path)

    assert checked.returncode == 0, checked.stdout
    assert refused.returncode == 1, "the package's types are not seen"
    assert runs.returncode == 0, runs.stderr
