"""Read a table through its copy in Redis: hits from Redis, misses from the table.

    from asyncsync import Reader

It needs `pip install "asyncsync[reader]"`. The protocol alone (protocol.py) needs nothing.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncsync.reader.errors import TableBudgetExceeded as TableBudgetExceeded
    from asyncsync.reader.options import ReaderOptions as ReaderOptions
    from asyncsync.reader.reader import Reader as Reader


def __getattr__(name: str) -> object:
    """Import what is asked for. Raises ImportError where the extra is not installed."""
    modules = {"Reader": "reader", "ReaderOptions": "options", "TableBudgetExceeded": "errors"}
    if name not in modules:
        raise AttributeError(f"module 'asyncsync.reader' has no attribute {name!r}")
    from importlib import import_module

    try:
        return getattr(import_module(f"asyncsync.reader.{modules[name]}"), name)
    except ModuleNotFoundError as exc:
        package = str(exc.name).partition(".")[0]
        needed = f'a reader needs {package}: pip install "asyncsync[reader]"'
        raise ImportError(needed) from exc
