"""What a result was measured on: the machine, the versions, the commit."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson

from benchmarks.harness.bundles import CONTESTANTS, ROOT
from benchmarks.harness.cpu_share import FUNCTIONS_OWN


def machine() -> dict[str, Any]:
    """Return the facts of this machine."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
    return {
        "processor": model or platform.machine(),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "a core for functions alone": bool(FUNCTIONS_OWN),
        "system": f"{platform.system()} {platform.release()}",
    }


def versions(binary: str) -> dict[str, str]:
    """Return the version of everything that takes part, of the server's binary too."""
    by_name = {"Python": platform.python_version()}
    for package in ("awslambdaric", "redis", "hiredis", "orjson", "msgspec"):
        by_name[package] = version(package)
    pins = (ROOT / "requirements/contestant-powertools.txt").read_text()
    by_name["aws-lambda-powertools"] = pins.split("aws-lambda-powertools==")[1].split()[0]
    by_name[binary] = _output([binary, "--version"])
    lock = orjson.loads((CONTESTANTS / "node/package-lock.json").read_bytes())["packages"]
    for package in ("aws-lambda-ric", "ioredis", "redis"):
        by_name[f"{package} (npm)"] = lock[f"node_modules/{package}"]["version"]
    by_name["Node"] = _output(["node", "--version"])
    return by_name


def origin(command: str, seed: int) -> dict[str, Any]:
    """Return when and from which commit a result comes; + marks uncommitted changes."""
    commit = _output(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"])
    changes = _output(["git", "-C", str(ROOT), "status", "--porcelain", "asyncsync"])
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "command": command,
        "seed": seed,
        "commit": commit + ("+" if changes not in ("", "none") else ""),
    }


def _output(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "none"
