"""A share of one processor, as a function's memory size buys it in Lambda.

Lambda gives a function one vCPU at 1 769 MB and less in proportion (developer guide, "Configure
function memory"). Here the kernel's quota does it: so many microseconds in each period of 20 ms.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ONE_VCPU_MB = 1_769
PERIOD_US = 20_000

_PROCESSORS = os.sched_getaffinity(0)

# The processor on which only functions run; none on a machine with a single one.
FUNCTIONS_OWN = {max(_PROCESSORS)} if len(_PROCESSORS) > 1 else set()

_V1 = Path("/sys/fs/cgroup/cpu")
_V2 = Path("/sys/fs/cgroup")


class NoShares(Exception):
    """This machine cannot limit a process's CPU; the message says why."""


class Share:
    """A group of processes that share one quota."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, pid: int) -> None:
        """Put a process into the group."""
        (self._folder / "cgroup.procs").write_text(str(pid))


@contextmanager
def cpu_share(memory_mb: int) -> Iterator[Share]:
    """Yield a group whose processes share what a memory size buys, until the block ends.

    Raises NoShares.
    """
    quota_us = PERIOD_US * memory_mb // ONE_VCPU_MB
    folder = _group(f"asyncsync-bench-{os.getpid()}-{memory_mb}", quota_us)
    try:
        yield Share(folder)
    finally:
        for pid in (folder / "cgroup.procs").read_text().split():
            (folder.parent / "cgroup.procs").write_text(pid)
        folder.rmdir()


def leave_one_free() -> None:
    """Keep this process and its later children off the functions' processor.

    On AWS a function and its server are different hosts and never share a processor.
    """
    if FUNCTIONS_OWN:
        os.sched_setaffinity(0, _PROCESSORS - FUNCTIONS_OWN)


def _group(name: str, quota_us: int) -> Path:
    if (_V1 / "cgroup.procs").exists():
        folder = _V1 / name
        limits = {"cpu.cfs_period_us": str(PERIOD_US), "cpu.cfs_quota_us": str(quota_us)}
    elif "cpu" in _read(_V2 / "cgroup.subtree_control").split():
        folder = _V2 / name
        limits = {"cpu.max": f"{quota_us} {PERIOD_US}"}
    else:
        raise NoShares("this kernel has no cgroup with a CPU quota")
    try:
        folder.mkdir()
        for file, value in limits.items():
            (folder / file).write_text(value)
    except OSError as exc:
        raise NoShares(f"cannot create a cgroup with a CPU quota: {exc.strerror}") from exc
    return folder


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
