"""Runs pip, and says every few seconds how far it is; `make` installs with it.

Its arguments are those of `pip install`. pip itself prints nothing for most of a minute, or a
hundred lines. If pip fails, its last lines follow and its exit code is returned.
"""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

EVERY_S = 3.0
LINES_MAX = 30  # of pip's, shown if it fails

PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "install")
PLAIN = ("--progress-bar", "off")


class Progress:
    """What pip does now, by the lines that it printed."""

    def __init__(self, pins: int) -> None:
        self._pins = pins
        self._collected = 0
        self._doing = "starting pip"
        self.lines: deque[str] = deque(maxlen=LINES_MAX)

    def read(self, line: str) -> None:
        """Take in one line of pip's."""
        self.lines.append(line)
        word, _, rest = line.strip().partition(" ")
        if word == "Collecting":
            self._collected += 1
            # Pins for another Python or system are not collected.
            self._doing = f"package {self._collected} of at most {self._pins}: {_name(rest)}"
        elif word == "Installing" and rest.startswith("collected packages: "):
            self._doing = f"unpacking {rest.count(',') + 1} packages"

    def __str__(self) -> str:
        return self._doing


def _name(requirement: str) -> str:
    return re.split(r"[=<>!~;\[ ]", requirement, maxsplit=1)[0]


def pins_in(arguments: Sequence[str]) -> int:
    """Return how many packages the requirements files of some arguments pin."""
    files = [arguments[at + 1] for at, each in enumerate(arguments[:-1]) if each == "-r"]
    texts = [Path(file).read_text(encoding="utf-8") for file in files]
    return sum(len(re.findall(r"^[\w.-]+(?:\[[\w,]+\])?==", text, re.M)) for text in texts)


def install(
    command: Sequence[str], pins: int, say: Callable[[str], None], every_s: float = EVERY_S
) -> int:
    """Run pip, say how far it is, and return its exit code."""
    began_s = time.monotonic()
    progress = Progress(pins)
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    ended = threading.Event()

    def read() -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                progress.read(line.rstrip("\n"))
        ended.set()

    threading.Thread(target=read, daemon=True).start()
    while not ended.wait(every_s):
        say(f"{time.monotonic() - began_s:5.0f} s  {progress}")
    code = process.wait()
    if code:
        say("\n".join(progress.lines))
        say(f"pip failed with exit code {code}; its last lines are above")
    return code


def main(arguments: Sequence[str]) -> int:
    """Run pip install with these arguments."""
    return install(
        [*PIP, *PLAIN, *arguments], pins_in(arguments), lambda line: print(line, flush=True)
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
