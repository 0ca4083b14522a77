"""A copy in this process's memory: the real mirror and its script, over fakeredis.

No socket, no thread and no server: the bytes that the mirror sends run as commands at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import hiredis
from msgspec.structs import replace

from asyncsync.config import Server
from asyncsync.connection import OpenTransport, TimeLeft
from asyncsync.mirror import Mirror
from asyncsync.store import SCRIPT, Client

if TYPE_CHECKING:
    from types import TracebackType

    import redis

MakeCopy: TypeAlias = "Callable[[Mirror], MemoryCopy]"  # what the fixture asyncsync_copy is

_NEEDED = 'an in-memory copy needs fakeredis with Lua: pip install "asyncsync[testing]"'


def memory_copy(mirror: Mirror) -> MemoryCopy:
    """Return an empty copy in memory, for a `with` or `async with` block.

    Args:
        mirror: your mirror. It is not changed and sends nothing: the copy has a mirror with the
            same settings, key function and transform, but another server.

    Raises ImportError where the extra `testing` is not installed.

        with memory_copy(mirror) as copy:
            copy.mirror.lambda_handler(stream_event(insert({"Number": 7}, {"Name": "Ada"})))
            assert copy.redis.get("Players:7") == b'{"Number":7,"Name":"Ada"}'
    """
    return MemoryCopy(mirror)


class MemoryCopy:
    """A copy in memory. `mirror` writes it, on any event loop; `redis` is a redis-py client of it.

    Its mirror writes no metrics; it prints the log line of a batch with rejects.
    """

    def __init__(self, mirror: Mirror) -> None:
        try:
            import fakeredis
            import lupa  # noqa: F401 (without it, fakeredis knows no scripts)
        except ImportError as exc:
            raise ImportError(_NEEDED) from exc
        server = fakeredis.FakeServer(server_type="redis")
        self.redis: redis.Redis = fakeredis.FakeRedis(server=server)
        # The protocol of the mirror's own connections, whatever redis-py prefers.
        self._raw: redis.Redis = fakeredis.FakeRedis(server=server, protocol=2)
        self.mirror: Mirror = _MemoryMirror(mirror, self._raw)

    def close(self) -> None:
        """Close the mirror and the client."""
        self.mirror.close()
        self.redis.close()
        self._raw.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class _MemoryMirror(Mirror):
    """A user's mirror, whose clients talk to a fake server whatever transport they are given."""

    def __init__(self, original: Mirror, raw: redis.Redis) -> None:
        self._raw = raw
        config = replace(
            original.config,
            redis_url="redis://in-memory",
            redis_password=None,
            redis_ca_file=None,
            redis_cluster=False,
            redis_iam_cache=None,
            metrics="off",
        )
        super().__init__(
            config,
            key=original.rules.key,
            transform=original.rules.transform,
            clock=original.clock,
            wall_clock=original.wall_clock,
        )

    def new_client(
        self, server: Server, open_transport: OpenTransport, script: bytes = SCRIPT
    ) -> Client:
        """Make a client of the fake server."""
        return super().new_client(server, self._open_memory, script)

    async def _open_memory(self, server: Server, time_left: TimeLeft) -> _MemoryTransport:
        return _MemoryTransport(self._raw)


class _MemoryTransport:
    """Carries requests and replies within the process; every reply is there at once."""

    def __init__(self, raw: redis.Redis) -> None:
        self._connection: Any = raw.connection_pool.get_connection()
        self._release = raw.connection_pool.release
        self._requests = hiredis.Reader()
        self._replies = bytearray()

    async def write(self, data: bytes) -> None:
        """Run the commands that are complete."""
        self._requests.feed(data)
        while (command := self._requests.gets()) is not False:
            self._replies += _resp(self._reply(command))

    def _reply(self, command: Any) -> object:
        from redis.exceptions import ResponseError

        try:
            self._connection.send_command(*command)
            return self._connection.read_response()
        except ResponseError as exc:
            return exc

    async def read(self, time_left: TimeLeft) -> bytes:
        """Return the replies so far."""
        replies = bytes(self._replies)
        self._replies.clear()
        return replies

    def abort(self) -> None:
        """Give the connection back."""
        self._release(self._connection)


def _resp(reply: object) -> bytes:
    """Write a reply as RESP 2 (Redis serialization protocol specification)."""
    match reply:
        case None:
            return b"$-1\r\n"
        case int():
            return b":%d\r\n" % reply
        case bytes():
            return b"$%d\r\n%b\r\n" % (len(reply), reply)
        case Exception():
            return b"-%b\r\n" % _error(reply).encode()
    assert isinstance(reply, Sequence), "RESP 2 has no other type"
    return b"*%d\r\n%b" % (len(reply), b"".join(map(_resp, reply)))


def _error(error: Exception) -> str:
    """Return an error reply's text; redis-py cuts the code off and keeps it as the class."""
    from redis.exceptions import NoScriptError

    text = str(error)
    if isinstance(error, NoScriptError):
        return f"NOSCRIPT {text}"
    return text if text.split(" ")[0].isupper() else f"ERR {text}"
