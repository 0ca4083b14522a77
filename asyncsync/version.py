"""The version, in its one place; its first number follows the named surfaces in CHANGELOG.md."""

__version__ = "0.1.0"
