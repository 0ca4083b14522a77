"""The command line: what it offers, its exit codes, its one-line errors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from asyncsync import __version__
from asyncsync.cli import main as cli
from asyncsync.lab.servers import ServerProcess
from tests.support.project.command_line import ended

COMMANDS = {
    "demo",
    "check",
    "run",
    "get",
    "backfill",
    "audit",
    "redrive",
    "retire",
    "index",
    "estimate",
    "simulate",
    "completion",
}


def test_the_version_comes_from_its_one_place(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(capsys, "--version") == (0, f"asyncsync {__version__}\n", "")


def test_help_lists_every_command(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, _ = ended(capsys, "--help")

    assert code == 0
    listed = out.split("commands:")[1].split()
    assert {word for word in listed if word in COMMANDS} == COMMANDS
    for command in COMMANDS:
        assert ended(capsys, command, "--help")[0] == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["backfill"],
        ["get"],
        ["run"],
        ["demo", "--items", "0"],
        ["demo", "--changes", "many"],
        ["run", "--table", "T", "--exit-when-idle", "0"],
        ["backfill", "--table", "T", "--max-rcu", "0"],
        ["backfill", "--table", "T", "--segments", "9", "--only-segments", "7-3"],
        ["backfill", "--table", "T", "--segments", "9", "--only-segments", "-1"],
        ["backfill", "--table", "T", "--segments", "9", "--only-segments", "all"],
        ["redrive", "--table", "T"],
        ["audit"],
        ["audit", "--table", "T", "--sample", "0"],
        ["redrive", "objects/"],
        ["retire", "--table", "T"],
        ["backfill", "--table", "T", "--seg", "4"],  # no abbreviation
        ["audit", "--tab", "T"],
        ["index"],
        ["estimate", "--items", "0"],
        ["estimate", "--engine", "memcached"],
    ],
)
def test_wrong_arguments_are_exit_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    code, out, errors = ended(capsys, *arguments)

    assert (code, out) == (2, "")
    assert "error: " in errors


def test_a_wrong_setting_is_exit_2_and_one_line_that_names_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASYNCSYNC_REDIS_ULR", "redis://localhost")

    code, out, errors = ended(capsys, "get", "a")

    assert (code, out) == (2, "")
    assert errors == (
        "asyncsync: ASYNCSYNC_REDIS_ULR is no setting; did you mean ASYNCSYNC_REDIS_URL?\n"
    )


def test_an_absent_setting_is_exit_2(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ASYNCSYNC_REDIS_URL", raising=False)

    code, _, errors = ended(capsys, "get", "a")

    assert code == 2
    assert errors.startswith("asyncsync: ASYNCSYNC_REDIS_URL is not set")


# A process without any module of the extras.
WITHOUT_EXTRAS = """
import importlib.util, sys

EXTRAS = {"aioboto3", "aiobotocore", "botocore", "anyio", "rich", "moto", "flask",
          "fakeredis", "lupa"}

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in EXTRAS:
            raise ModuleNotFoundError(name)

found = importlib.util.find_spec
importlib.util.find_spec = (
    lambda name, package=None: None if name in EXTRAS else found(name, package)
)
sys.meta_path.insert(0, Hidden())
from asyncsync.cli.main import main
raise SystemExit(main(sys.argv[1:]))
"""


def without_extras(*given: str) -> tuple[int, str, str]:
    command = [sys.executable, "-c", WITHOUT_EXTRAS, *given]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    return ran.returncode, ran.stdout, ran.stderr


@pytest.mark.parametrize(
    ("arguments", "needs"),
    [
        (["run", "--table", "T"], "asyncsync run needs: pip install 'asyncsync[tools]'"),
        (["check", "--table", "T"], "asyncsync check needs: pip install 'asyncsync[tools]'"),
        (["backfill", "--table", "T"], "asyncsync backfill needs: pip install 'asyncsync[tools]'"),
        (["demo"], "asyncsync demo needs: pip install 'asyncsync[demo]'"),
    ],
)
def test_a_command_whose_extra_is_not_installed_says_which(
    arguments: list[str], needs: str
) -> None:
    assert without_extras(*arguments) == (2, "", f"asyncsync: {needs}\n")


def test_help_and_get_need_no_extra() -> None:
    assert without_extras("--help")[0] == 0
    assert without_extras("get", "a", "--redis-url", "redis://127.0.0.1:1")[0] == 3


def test_python_m_and_the_script_are_the_same_command_line() -> None:
    module = subprocess.run(
        [sys.executable, "-m", "asyncsync", "--version"], capture_output=True, check=True
    )
    script = subprocess.run(
        [str(Path(sys.executable).with_name("asyncsync")), "--version"],
        capture_output=True,
        check=True,
    )

    assert module.stdout == script.stdout == f"asyncsync {__version__}\n".encode()


def test_a_closed_pipe_ends_the_command_without_a_traceback(
    fake_server: ServerProcess,
) -> None:
    """Run what `asyncsync get KEY | head -0` runs."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    ended = subprocess.run(
        [sys.executable, "-m", "asyncsync", "get", "a", "--quiet", "--redis-url", fake_server.url],
        stdout=write_end,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(write_end)

    assert (ended.returncode, ended.stderr) == (1, b"")


def test_an_interrupt_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(cli.COMMANDS, "get", interrupt)

    assert ended(capsys, "get", "a") == (130, "", "asyncsync: interrupted\n")
