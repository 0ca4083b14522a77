"""Prints the permissions that CloudFormation's resource handlers declare; runs in the
environment of the template, whose cfn-lint has the registry's schemas.

    python handlers.py TYPE... > permissions.json
"""

from __future__ import annotations

import json
import sys
from importlib import import_module


def main(types: list[str]) -> None:
    """Print what making, reading, changing, tagging and deleting each type may call."""
    manager = import_module("cfnlint.schema.manager").PROVIDER_SCHEMA_MANAGER
    declared = {}
    for name in types:
        schema = manager.get_resource_schema("us-east-1", name).schema
        called = set(schema.get("tagging", {}).get("permissions", []))
        for handler in ("create", "read", "update", "delete"):
            # What CloudFormation can only replace has no update.
            called |= set(schema["handlers"].get(handler, {}).get("permissions", []))
        assert called, f"{name}: no permissions declared"
        declared[name] = sorted(called)
    json.dump(declared, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1:])
