"""Who takes part: every contestant has one file, the same job, and its own database.

The job: keep `Players:{Number}` equal to the item's new image, and gone where it was removed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from benchmarks.harness import bundles

HOST = "127.0.0.1"

# Without these, glibc returns freed memory to the kernel after each batch and takes it back page
# by page, zeroed, for the next: up to 3 ms of 1,000 records. The template sets them too; here
# every Python function has them.
KEEPS_MEMORY = {
    "MALLOC_TRIM_THRESHOLD_": "268435456",
    "MALLOC_MMAP_THRESHOLD_": "33554432",
    "MALLOC_TOP_PAD_": "16777216",
}

Value = Literal["dynamodb-json", "json", "nothing"]


@dataclass(frozen=True, slots=True)
class Contestant:
    """One function: its handler, its bundle, and which values it writes to Redis."""

    name: str
    handler: str
    value: Value
    bundle: str = ""  # "node", or a Python bundle's name; "": AWS's client is enough
    settings: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    server: Literal["one", "cluster"] = "one"

    @property
    def is_node(self) -> bool:
        """Whether AWS's Node client runs it."""
        return self.bundle == "node"


OWN_HANDLER = "asyncsync.handler.lambda_handler"
PASSED = {"ASYNCSYNC_VALUE": "dynamodb-json"}

OWN = "asyncsync"
OWN_JSON = "asyncsync, plain json"
OWN_UNFENCED = "asyncsync, no fence"
OWN_PARSED = "asyncsync, event parsed by the runtime"
OWN_CLUSTER = "asyncsync, one call per slot"
OWN_ONE_CALL = "asyncsync, one call for all keys"
OWN_REDIS_PY = "asyncsync and redis-py imported"
OWN_TRACED = "asyncsync, traced"
LIMIT = "limit"
EMPTY = "empty"
EMPTY_NODE = "empty, Node"
SEED_PUBLISHED = "seed as published, Node"
SEED_AWAITED = "seed awaited, Node"
IOREDIS = "ioredis with collapse, Node"
REDIS_ASYNCIO = "redis.asyncio pipeline"
POWERTOOLS = "Powertools, redis-py"
POWERTOOLS_ASYNC = "Powertools async, redis.asyncio"

CONTESTANTS = (
    Contestant(OWN, OWN_HANDLER, "dynamodb-json", bundles.OWN, PASSED, "fenced"),
    Contestant(OWN_JSON, OWN_HANDLER, "json", bundles.OWN, note="fenced"),
    Contestant(
        OWN_UNFENCED, OWN_HANDLER, "dynamodb-json", bundles.OWN,
        {**PASSED, "ASYNCSYNC_FENCE": "off"},
    ),
    Contestant(
        OWN_PARSED, OWN_HANDLER, "dynamodb-json", bundles.OWN,
        {**PASSED, "ASYNCSYNC_RAW_EVENT": "false"}, "fenced",
    ),
    Contestant(
        OWN_CLUSTER, OWN_HANDLER, "dynamodb-json", bundles.OWN,
        {**PASSED, "ASYNCSYNC_REDIS_CLUSTER": "true"}, "fenced", "cluster",
    ),
    Contestant(LIMIT, "limit.lambda_handler", "dynamodb-json", note="commands made beforehand"),
    Contestant(EMPTY, "empty.lambda_handler", "nothing", note="does nothing"),
    Contestant(EMPTY_NODE, "empty.handler", "nothing", "node", note="does nothing"),
    Contestant(SEED_PUBLISHED, "seed_as_published.handler", "dynamodb-json", "node"),
    Contestant(SEED_AWAITED, "seed_awaited.handler", "dynamodb-json", "node"),
    Contestant(IOREDIS, "ioredis_collapse.handler", "dynamodb-json", "node"),
    Contestant(REDIS_ASYNCIO, "redis_asyncio.lambda_handler", "dynamodb-json", "redis"),
    Contestant(POWERTOOLS, "powertools_sync.lambda_handler", "json", "powertools"),
    Contestant(POWERTOOLS_ASYNC, "powertools_async.lambda_handler", "json", "powertools"),
    Contestant(
        OWN_ONE_CALL, "asyncsync_one_call.lambda_handler", "dynamodb-json", bundles.OWN, PASSED,
        "fenced",
    ),
    Contestant(
        OWN_REDIS_PY, "asyncsync_redis_py.lambda_handler", "dynamodb-json", bundles.OWN, PASSED,
        "only for its INIT",
    ),
    Contestant(
        OWN_TRACED, "asyncsync_traced.lambda_handler", "dynamodb-json", bundles.OWN, PASSED,
        "fenced",
    ),
)  # fmt: skip

# Not in the main tables: each answers a single question.
ASIDE = (OWN_ONE_CALL, OWN_REDIS_PY, OWN_TRACED)

# Shown, never ranked: they do nothing, or answer before they have written.
UNRANKED = (EMPTY, EMPTY_NODE, SEED_PUBLISHED, LIMIT)


def by_name(name: str) -> Contestant:
    """Return a contestant by its name."""
    return next(contestant for contestant in CONTESTANTS if contestant.name == name)


def database(contestant: Contestant) -> int:
    """Return the number of a contestant's database; a cluster has only one."""
    names = [other.name for other in CONTESTANTS]
    return 0 if contestant.server == "cluster" else names.index(contestant.name)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a contestant finds its server, and `limit` its commands."""

    port: int  # of the server, or of a proxy in front of it
    server_port: int
    commands: Path


def launch_of(contestant: Contestant) -> tuple[list[str], dict[str, str], Path]:
    """Return how to start a contestant under AWS's client: command, environment, folder.

    Raises CannotBuild.
    """
    base = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    base |= {"_HANDLER": contestant.handler, "AWS_REGION": "us-east-1"}
    base |= {"AWS_LAMBDA_FUNCTION_NAME": "mirror", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1769"}
    if contestant.is_node:
        folder = bundles.node_bundle()
        command = ["node", str(bundles.node_client(folder)), contestant.handler]
        return command, base, folder
    folders = [bundles.python_bundle(bundles.RUNTIME), bundles.handlers()]
    if contestant.bundle:
        folders.append(bundles.python_bundle(contestant.bundle))
    if contestant.name == OWN_REDIS_PY:
        folders.append(bundles.python_bundle("redis"))
    base |= {
        "PYTHONPATH": os.pathsep.join(map(str, folders)),
        "PYTHONDONTWRITEBYTECODE": "1",  # Lambda's code folder is read-only
        **KEEPS_MEMORY,
    }
    # -m looks in the working folder first, so that must not be the source tree.
    command = [str(bundles.python()), "-m", "awslambdaric", contestant.handler]
    return command, base, bundles.handlers()


def environment(contestant: Contestant, endpoint: Endpoint) -> dict[str, str]:
    """Return the variables that name a contestant's server, database and settings."""
    number = database(contestant)
    if contestant.bundle == bundles.OWN:
        variables = {"ASYNCSYNC_REDIS_URL": f"redis://{HOST}:{endpoint.port}/{number}"}
    else:
        variables = {
            "REDIS_HOST": HOST,
            "REDIS_PORT": str(endpoint.port),
            "REDIS_DATABASE": str(number),
            "COMMANDS": str(endpoint.commands),
        }
    return {**variables, **contestant.settings}
