"""The options of `asyncsync index`."""

from __future__ import annotations

from asyncsync.cli.options import add_aws, add_copy, add_output
from asyncsync.cli.parser import CommandParser, whole

# Name, summary and examples, for arguments.py.
INDEX = (
    "index",
    "Print or make a Search index over a copy",
    "name:text score:numeric:sortable --table Players\n"
    "tags:tag created:numeric:as=date --function mirror\n"
    "name:text --table Players --create",
)
USAGE = "FIELD... [options]"
DESCRIPTION = "Values must be hashes or JSON documents (ASYNCSYNC_VALUE=hash or redis-json)."

SAMPLE_MAX = 100_000


def add_index(index: CommandParser) -> None:
    """Add every option of index."""
    what = index.add_argument_group("what to index")
    what.add_argument(
        "declaration",
        nargs="+",
        metavar="FIELD",
        help="ATTRIBUTE:TYPE, then :sortable or :as=NAME; text, numeric or tag",
    )
    what.add_argument(
        "--name", metavar="NAME", help="The index's name (default: idx: and the table)"
    )
    how = index.add_argument_group("how to run")
    how.add_argument(
        "--sample",
        type=whole(1, SAMPLE_MAX),
        default=1_000,
        metavar="N",
        help="Compare with N items of the table (default: 1,000)",
    )
    how.add_argument("--create", action="store_true", help="Make the index on the server")
    add_copy(index)
    add_aws(index)
    add_output(index)
