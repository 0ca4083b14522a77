"""Run the tests that talk to a server against each server that is given, and write the table.

`make matrix SERVERS=folder:folder` runs it; a folder holds `redis-server` or `valkey-server`. With
`DYNAMODB_JAR=` the tools' tests also run on AWS's DynamoDB Local, which listens on every
interface: so it and the tests run in a network namespace of their own. Results go to
docs/support.json, one for each server and Python, and from there into docs/support.md. Exits
with 1 if any test failed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from asyncsync.lab.servers import BINARIES, free_port, running

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "support.json"
PAGE = ROOT / "docs" / "support.md"
BEGIN, END = "<!-- matrix -->\n", "<!-- /matrix -->"

# What talks to a server: the tests below whose id names one. The others of tests/deploy build
# bundles, which needs a network.
SUITES = (
    *(f"tests/{folder}" for folder in ("edges", "copy", "reader", "tools", "lab")),
    *(f"tests/deploy/test_{name}.py" for name in ("readers", "template_cache")),
)
WAYS = ("single", "TLS", "cluster", "DynamoDB Local")
IN_A_NETWORK_OF_ITS_OWN = ("unshare", "-rn", "sh", "-c", 'ip link set lo up && exec "$@"', "-")
OUTCOMES = ("passed", "failed", "skipped")


class Tally:
    """A plugin of pytest's: counts outcomes by the way the server is reached."""

    def __init__(self) -> None:
        self.counts = {way: dict.fromkeys(OUTCOMES, 0) for way in WAYS}
        self.fence_bytes: float | None = None
        self.failures: list[str] = []

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Function) -> Generator[None, Any, Any]:
        report = yield
        if report.when == "call" or not report.passed:  # of setup and teardown, only their faults
            self.counts[way_of(item)][report.outcome] += 1
        if report.failed:
            self.failures.append(report.nodeid)
        self.fence_bytes = dict(report.user_properties).get("fence_bytes", self.fence_bytes)
        return report


def way_of(item: pytest.Function) -> str:
    """Return how a test reaches its server."""
    parameters: dict[str, Any] = item.callspec.params if hasattr(item, "callspec") else {}
    if parameters.get("endpoint") == "other":
        return "DynamoDB Local"
    if {"running_cluster", "one_node"} & set(item.fixturenames):
        return "cluster"
    if "authority" in item.fixturenames and "TLS" in parameters.get("way", "TLS"):
        return "TLS"
    return "single"


# --- one server -------------------------------------------------------------------------------


def run_tests(name: str, into: Path, jar: Path | None, arguments: list[str]) -> int:
    """Run the tests on the server on PATH, and write what came of them; return pytest's code."""
    tally = Tally()
    with dynamodb_local(jar) if jar else nullcontext():
        code = pytest.main(
            ["-q", "-p", "no:cacheprovider", "-k", name, *(arguments or SUITES)], [tally]
        )
    result = {"ways": tally.counts, "fence_bytes": tally.fence_bytes, "failures": tally.failures}
    into.write_text(json.dumps(result))
    return int(code)


@contextmanager
def dynamodb_local(jar: Path) -> Iterator[None]:
    """Run AWS's DynamoDB Local until the block ends, and tell the tests where."""
    port = free_port()
    libraries = jar.parent / "DynamoDBLocal_lib"
    command = ["java", f"-Djava.library.path={libraries}", "-jar", str(jar)]
    command += ["-inMemory", "-sharedDb", "-port", str(port)]
    with running(command, port, name="DynamoDB Local"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ASYNCSYNC_TEST_DYNAMODB_URL", f"http://127.0.0.1:{port}")
            yield


# --- every server -----------------------------------------------------------------------------


def versions(folder: Path) -> Iterator[tuple[str, str]]:
    """Return name and version of each server of a folder."""
    for name in BINARIES:
        if (folder / name).exists():
            printed = subprocess.run(
                [folder / name, "--version"], capture_output=True, text=True, check=True
            ).stdout
            engine = name.removesuffix("-server").capitalize()
            yield name, f"{engine} {re.findall(r'v=([0-9.]+)', printed)[0]}"


def try_server(folder: Path, name: str, jar: Path | None, arguments: list[str]) -> dict[str, Any]:
    """Run the tests on one server, in another process; return its row without its names."""
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        into = Path(scratch) / "result.json"
        command = [sys.executable, "-m", "tests.programs.matrix", "--only", name]
        command += ["--into", str(into), *(["--jar", str(jar)] if jar else []), "--", *arguments]
        if jar:
            command = [*IN_A_NETWORK_OF_ITS_OWN, *command]
        path = f"{folder}:{os.environ['PATH']}"
        env = {**os.environ, "PATH": path, "ASYNCSYNC_TEST_SERVER": name}
        subprocess.run(command, cwd=ROOT, env=env, check=False)
        if not into.exists():
            raise SystemExit(f"the tests did not run on {name} of {folder}; see above")
        result: dict[str, Any] = json.loads(into.read_text())
    result["seconds"] = round(time.monotonic() - began_s)
    return result


def merge(rows: list[dict[str, Any]], row: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows with a new one, which replaces that of the same server and Python."""
    key = ("server", "python")
    others = [each for each in rows if [each[k] for k in key] != [row[k] for k in key]]
    return sorted([*others, row], key=lambda each: [_in_order(each[k]) for k in key])


def _in_order(text: str) -> list[object]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", text)]


def table_of(rows: list[dict[str, Any]]) -> str:
    """Return the table of some results."""
    lines = [
        f"| server | Python | {' | '.join(WAYS)} | bytes of a fence | run on |",
        f"|---|---|{'---|' * len(WAYS)}---|---|",
    ]
    for row in rows:
        cells = [_cell(way, row["ways"][way]) for way in WAYS]
        fence = "not measured" if row["fence_bytes"] is None else f"{row['fence_bytes']:.0f}"
        line = [row["server"], row["python"], *cells, fence, row["date"]]
        lines.append(f"| {' | '.join(line)} |")
    return "\n".join(lines) + "\n"


def _cell(way: str, counts: dict[str, int]) -> str:
    if counts["failed"]:
        return f"**{counts['failed']} failed**, {counts['passed']} passed"
    if counts["passed"]:
        skipped = f", {counts['skipped']} skipped" if counts["skipped"] else ""
        return f"{counts['passed']} passed{skipped}"
    return "the build has no TLS" if way == "TLS" and counts["skipped"] else "not run"


def with_table(page: str, table: str) -> str:
    """Return a page with the table between its marks."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}{table}{END}{rest.split(END)[1]}"


def main() -> int:
    """Run the tests on every server; write results and table; return 1 if a test failed."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("servers", nargs="*", help="folders, with : between them")
    parser.add_argument("--jar", type=Path, help="DynamoDBLocal.jar")
    parser.add_argument("--only", choices=BINARIES, help=argparse.SUPPRESS)
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        return run_tests(options.only, options.into, options.jar, options.servers)

    folders = [Path(each) for text in options.servers for each in text.split(":") if each]
    found = [(folder, *each) for folder in folders for each in versions(folder)]
    if not found or len({folder for folder, *_ in found}) < len(set(folders)):
        parser.error(f"give SERVERS=folder[:folder...], each with one of {', '.join(BINARIES)}")
    failures = 0
    for folder, name, server in found:
        print(f"--- {server}, Python {platform.python_version()}: {folder}", flush=True)
        row = try_server(folder, name, options.jar, [])
        failures += len(row.pop("failures"))
        row |= {"server": server, "python": platform.python_version()}
        row["date"] = datetime.now(UTC).date().isoformat()
        rows = merge(json.loads(RESULTS.read_text()) if RESULTS.exists() else [], row)
        RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
        PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8"), table_of(rows)))
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
