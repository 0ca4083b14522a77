"""What the contestants that write plain JSON share: an item's Python values as JSON text."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping
from decimal import Decimal
from typing import Any


def to_json(item: Mapping[str, Any]) -> str:
    """Write an item as most handlers do; numbers as JSON's, sets sorted, binary as base64."""
    return json.dumps(item, default=_plain, ensure_ascii=False, separators=(",", ":"))


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    return b64encode(bytes(value)).decode()
