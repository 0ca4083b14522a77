"""The simulator's server with real Lua: seeds run the text of the shipped scripts.

The model server implements what the scripts promise, so it does not see a bug in their text.
Here Lua 5.1 runs them, over the model's plain commands. As a program, which `make bugs` runs,
it runs seeds one after another and exits with 1 at the first violation.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import hiredis
from lupa import lua51

from asyncsync.lab.simulation.model_commands import ErrorReply
from asyncsync.lab.simulation.model_server import ModelServer
from asyncsync.lab.simulation.model_values import SHIPPED
from asyncsync.lab.simulation.world import run


class LuaServer(ModelServer):
    """A model server that runs the scripts it is sent."""

    def __init__(self) -> None:
        super().__init__()
        self._lua: Any = lua51.LuaRuntime(encoding=None, unpack_returned_tuples=True)
        calls = {b"call": self._call, b"pcall": self._pcall}
        self._lua.globals()[b"redis"] = self._lua.table_from(calls)
        self._functions = {
            digest: self._lua.execute(b"return function(KEYS, ARGV)\n" + text + b"\nend")
            for digest, (_, _, text) in SHIPPED.items()
        }

    def run_script(self, digest: bytes, keys: Sequence[bytes], argv: Sequence[bytes]) -> bytes:
        """Run the text of a script."""
        table = self._lua.table_from
        return self._to_resp(self._functions[digest](table(list(keys)), table(list(argv))))

    def _to_resp(self, value: Any) -> bytes:
        """Convert a script's result as Redis does: false is nil, a table an array or an error."""
        if isinstance(value, bytes):
            return b"$%d\r\n%b\r\n" % (len(value), value)
        if value is None or value is False:
            return b"$-1\r\n"
        if isinstance(value, int):
            return b":%d\r\n" % value
        if value[b"err"] is not None:
            return b"-%b\r\n" % value[b"err"]
        parts = [self._to_resp(part) for part in value.values()]
        return b"*%d\r\n%b" % (len(parts), b"".join(parts))

    def _call(self, *command: bytes) -> Any:
        data = self._run(command)
        reader = hiredis.Reader()
        reader.feed(data)
        reply = self._to_lua(reader.gets())
        return self._lua.table_from({b"ok": reply}) if data.startswith(b"+") else reply

    def _pcall(self, *command: bytes) -> Any:
        try:
            return self._call(*command)
        except ErrorReply as exc:
            return self._lua.table_from({b"err": str(exc).encode()})

    def _to_lua(self, reply: Any) -> Any:
        """Convert a reply as Redis does for Lua: nil to false, an array to a table."""
        if isinstance(reply, list):
            return self._lua.table_from([self._to_lua(part) for part in reply])
        return False if reply is None else reply


def main() -> int:
    """Run as many seeds as the first argument; return 1 where one breaks a promise."""
    for seed in range(int(sys.argv[1])):
        result = run(seed, make_server=LuaServer)
        if result.violation:
            print(f"VIOLATION  seed {seed}: {result.violation}")
            return 1
    print("PASS")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
