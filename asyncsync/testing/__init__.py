"""Test your key function, your transform and your handler without AWS and without a server.

    with memory_copy(mirror) as copy:
        copy.mirror.lambda_handler(stream_event(insert({"Number": 7}, {"Name": "Ada"})))
        assert copy.redis.get("player-7") == b'{"Number":7,"Name":"Ada"}'

The in-memory copy needs `pip install "asyncsync[testing]"`; the event builder needs nothing.
"""

from asyncsync.testing.events import (
    TTL_DELETION,
    TableChange,
    View,
    insert,
    modify,
    remove,
    stream_event,
)
from asyncsync.testing.memory import MakeCopy, MemoryCopy, memory_copy

__all__ = [
    "TTL_DELETION",
    "MakeCopy",
    "MemoryCopy",
    "TableChange",
    "View",
    "insert",
    "memory_copy",
    "modify",
    "remove",
    "stream_event",
]
