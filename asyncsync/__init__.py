"""Keep a Redis or Valkey copy of a DynamoDB table exact, from the table's stream.

    from asyncsync import Config, LambdaContext, Mirror, Response

    mirror = Mirror(Config(redis_url="rediss://cache.example:6379"))

    def lambda_handler(event: dict[str, object], context: LambdaContext) -> Response:
        return mirror.lambda_handler(event, context)

Types for your own functions: a `KeyFunction` gets the key attributes, each an `AttributeValue`
such as `{"N": "10"}`, and returns the item's Redis key; a `Transform` gets the item, with
numbers as Decimal, and returns a dict, bytes, or None to leave the item out. `Response` is what
Lambda is answered. Every error is an `AsyncsyncError`. `__version__` is this package's.
`Reader` reads items through the copy; it needs the extra `reader` (docs/read-through.md).
"""

from typing import TYPE_CHECKING

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
from asyncsync.keys import AttributeValue, KeyFunction
from asyncsync.mirror import LambdaContext, Mirror
from asyncsync.report import Response
from asyncsync.values import Transform
from asyncsync.version import __version__

if TYPE_CHECKING:
    from asyncsync.reader import Reader as Reader
    from asyncsync.reader import ReaderOptions as ReaderOptions
    from asyncsync.reader import TableBudgetExceeded as TableBudgetExceeded

__all__ = [
    "AsyncsyncError",
    "AttributeValue",
    "BatchFailed",
    "Config",
    "ConfigError",
    "EventError",
    "KeyFunction",
    "LambdaContext",
    "Mirror",
    "RecordError",
    "Response",
    "StoreRefused",
    "StoreUnavailable",
    "Transform",
    "__version__",
]


def __getattr__(name: str) -> object:
    """Import the reader when a caller asks for it: Lambda's bundle leaves it out."""
    if name not in ("Reader", "ReaderOptions", "TableBudgetExceeded"):
        raise AttributeError(f"module 'asyncsync' has no attribute {name!r}")
    from asyncsync import reader

    return getattr(reader, name)
