"""Keep a Redis or Valkey copy of a DynamoDB table exact, from the table's stream."""

from asyncsync.config import Config
from asyncsync.errors import (
    AsyncsyncError,
    BatchFailed,
    ConfigError,
    EventError,
    RecordError,
    StoreRefused,
    StoreUnavailable,
)
from asyncsync.keys import AttributeValue
from asyncsync.mirror import Mirror
from asyncsync.version import __version__

__all__ = [
    "AsyncsyncError",
    "AttributeValue",
    "BatchFailed",
    "Config",
    "ConfigError",
    "EventError",
    "Mirror",
    "RecordError",
    "StoreRefused",
    "StoreUnavailable",
    "__version__",
]
