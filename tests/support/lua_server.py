"""The simulator's server with real Lua in it: seeds run the shipped scripts' own text.

The model knows the scripts by what they promise, so it is blind to a bug in their text. Here
Lua 5.1 runs them, and what they call is the model's plain commands. As a program it runs seeds
one after another, as `make bugs` asks, and ends at the first violation with 1.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import hiredis
from lupa import lua51

from asyncsync.copy import fill, repair
from asyncsync.lab.simulation.model_server import ErrorReply, ModelServer
from asyncsync.lab.simulation.world import run
from asyncsync.store import SCRIPT, digest_of

SCRIPTS = {digest_of(each): each for each in (SCRIPT, fill.SCRIPT, repair.SCRIPT)}


class LuaServer(ModelServer):
    """A model server that runs what it is sent."""

    def __init__(self) -> None:
        super().__init__()
        self._lua: Any = lua51.LuaRuntime(encoding=None, unpack_returned_tuples=True)
        calls = {b"call": self._call, b"pcall": self._pcall}
        self._lua.globals()[b"redis"] = self._lua.table_from(calls)
        self._functions = {
            digest: self._lua.execute(b"return function(KEYS, ARGV)\n" + text + b"\nend")
            for digest, text in SCRIPTS.items()
        }

    def run_script(self, digest: bytes, keys: Sequence[bytes], argv: Sequence[bytes]) -> bytes:
        """Run a script's text."""
        table = self._lua.table_from
        replies = list(self._functions[digest](table(list(keys)), table(list(argv))).values())
        parts = [
            b"$%d\r\n%b\r\n" % (len(each), each) if isinstance(each, bytes) else b":%d\r\n" % each
            for each in replies
        ]
        return b"*%d\r\n%b" % (len(parts), b"".join(parts))

    def _call(self, *command: bytes) -> Any:
        reader = hiredis.Reader()
        reader.feed(self._run(command))
        return self._to_lua(reader.gets())

    def _pcall(self, *command: bytes) -> Any:
        try:
            return self._call(*command)
        except ErrorReply as exc:
            return self._lua.table_from({b"err": str(exc).encode()})

    def _to_lua(self, reply: Any) -> Any:
        """Give a reply as Lua sees it: nothing is false, a list a table."""
        if isinstance(reply, list):
            return self._lua.table_from([self._to_lua(each) for each in reply])
        return False if reply is None else reply


def main() -> int:
    """Run as many seeds as the first argument says; 1 where one breaks a promise."""
    for seed in range(int(sys.argv[1])):
        ended = run(seed, make_server=LuaServer)
        if ended.violation:
            print(f"VIOLATION  seed {seed}: {ended.violation}")
            return 1
    print("PASS")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
