"""moto's server with short cuts for tables of many items; its answers are the same.

moto looks for each of an attribute value's ten members under every possible name, which takes
nine tenths of a scan. It sorts the table again for each page and parses both numbers at each
comparison. It counts the items one by one and fails when another request writes meanwhile. It
also forgets the outputs of a stack that a change set created; this server has them. Run
`python tests/support/aws/moto_server.py` with the arguments of moto.server.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from asyncsync.lab.servers import free_port, running


@contextmanager
def quick_dynamodb() -> Iterator[str]:
    """Run the server in another process until the block ends; yields its endpoint URL."""
    port = free_port()
    command = [sys.executable, __file__, "-H", "127.0.0.1", "-p", str(port)]
    with running(command, port):
        yield f"http://127.0.0.1:{port}"


def patch_moto() -> None:
    """Put the short cuts into moto."""
    from moto.core.serialize import BaseJSONSerializer
    from moto.dynamodb.models.table import Table

    get_value = BaseJSONSerializer.get_value
    all_items = Table.all_items

    def get_value_of(self: Any, value: Any, key: str, shape: Any) -> Any:
        parent = getattr(shape, "parent", None)
        if type(value) is dict and parent is not None and parent.name == "AttributeValue":
            return value.get(key)
        return get_value(self, value, key, shape)

    def sorted_items(self: Any) -> Any:
        if self.range_key_attr:
            return all_items(self)
        return sorted(self.items.values(), key=lambda item: item.hash_key.cast_value)

    def count(self: Any) -> int:
        return sum(map(len, list(self.items.values()))) if self.has_range_key else len(self.items)

    from moto.cloudformation.models import Stack

    forgets = Stack.outputs.fget  # type: ignore[attr-defined]

    def outputs_of(self: Any) -> Any:
        self._parse_template()
        self.output_map = self._create_output_map()
        return forgets(self)

    Stack.outputs = property(outputs_of)  # type: ignore[assignment, method-assign]
    BaseJSONSerializer.get_value = get_value_of  # type: ignore[method-assign]
    Table.all_items = sorted_items  # type: ignore[method-assign]
    Table.__len__ = count  # type: ignore[method-assign]


if __name__ == "__main__":
    from moto.server import main

    patch_moto()
    main()
