"""A machine without servers: the tests pass, and the last lines say what they went without."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import servers
from tests.support.project.package import ROOT
from tests.support.servers import LACKING, add_binary, has_tls, lacking, shortages, skip_without

BOTH = "no redis-server or valkey-server on PATH (apt install redis-server)"


def run_tests(path: Path, tests: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run tests with nothing on PATH but a folder, and nothing else in the environment."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tests],
        cwd=ROOT,
        env={"PATH": str(path), "HOME": str(path), **env},
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_a_server_tests_are_skipped_and_the_last_lines_say_how_to_install_one(
    tmp_path: Path,
) -> None:
    done = run_tests(tmp_path, "tests/edges/test_watchers.py")

    assert done.returncode == 0, done.stdout
    *_, reason, counts = done.stdout.splitlines()
    number = reason.split(" ")[0]
    assert reason == f"{number} tests skipped: {BOTH}"
    assert f"{number} skipped" in counts


def test_in_ci_a_missing_server_is_an_error(tmp_path: Path) -> None:
    done = run_tests(tmp_path, "tests/edges/test_watchers.py", CI="true")

    assert done.returncode == 1
    assert "CI needs redis-server and valkey-server on PATH" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("found", "ids"),
    [
        ([], ["no-server"]),
        (["redis-server"], ["redis-server", "valkey-server: skipped"]),
        (["valkey-server"], ["valkey-server", "redis-server: skipped"]),
        (["valkey-server", "redis-server"], ["valkey-server", "redis-server"]),
    ],
)
def test_a_test_has_a_parameter_for_each_server_there_first(
    found: list[str], ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "FOUND", found)

    parameters = servers._servers()

    names = [each if isinstance(each, str) else f"{each.id}: skipped" for each in parameters]
    assert [name.replace("no-server: skipped", "no-server") for name in names] == ids
    reasons = [each.marks[0].kwargs["reason"] for each in parameters if not isinstance(each, str)]
    expected = [lacking(each.split(":")[0]) for each in ids[1:] if "skipped" in each]
    assert reasons == (expected if found else [BOTH])


def test_what_is_skipped_is_counted_by_what_it_lacks() -> None:
    reasons = [BOTH, BOTH, lacking("openssl"), "Lambda's bytecode is 3.13's to make"]

    assert shortages(reasons) == [
        f"2 tests skipped: {BOTH}",
        "1 test skipped: no openssl on PATH (apt install openssl)",
    ]


def test_a_missing_program_skips_a_test_and_fails_it_in_ci(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no openssl on PATH"):
        skip_without("openssl")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no openssl on PATH"):
        skip_without("openssl")


def test_a_program_that_needs_a_server_says_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(servers, "FOUND", [])
    with pytest.raises(SystemExit):
        add_binary(argparse.ArgumentParser("drill"))

    assert capsys.readouterr().err.splitlines()[-1] == f"drill: error: {BOTH}"


@pytest.mark.parametrize("tls", [True, False])
def test_a_server_built_without_tls_is_told_from_one_with_it(tls: bool, tmp_path: Path) -> None:
    server = tmp_path / "server"
    line = "listens nowhere" if tls else "Bad directive or wrong number of arguments"
    server.write_text(f"#!/bin/sh\necho {line}\nexit 1\n")
    server.chmod(0o755)

    assert has_tls(str(server)) == tls


def test_the_servers_of_this_machine_have_tls_or_the_tests_say_so() -> None:
    for name in servers.FOUND:
        assert has_tls(name) or not os.environ.get("CI"), f"{LACKING}TLS in {name}"
