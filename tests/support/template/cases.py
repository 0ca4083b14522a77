"""Parameters of the template: every choice, in combinations that its rules allow."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

ACCOUNT = "us-east-1:111122223333"
STREAM = f"arn:aws:dynamodb:{ACCOUNT}:table/Games/stream/2026-01-01T00:00:00.000"
TOPIC = f"arn:aws:sns:{ACCOUNT}:alarms"
KEY = f"arn:aws:kms:{ACCOUNT}:key/51af3dc0-da77-11e4-872e-1234567db123"
TABLE_KEY = f"arn:aws:kms:{ACCOUNT}:key/mrk-51af3dc0da7711e4872e1234567db123"
BOUNDARY = "arn:aws:iam::111122223333:policy/bounds/developers"
SECRET = f"arn:aws:secretsmanager:{ACCOUNT}:secret:cache-Ab12Cd"


def merged(parts: Iterable[dict[str, str]]) -> dict[str, str]:
    return {name: value for part in parts for name, value in part.items()}


def fitting(given: dict[str, str]) -> dict[str, str]:
    """Leave out what the template's rules refuse beside the other parameters."""
    misfits = {
        "TableKeyArn": "TableStreamArn" not in given,
        "ReaderUserIds": given.get("Cache") == "existing",
        "Zones": "Network" in given,
    }
    return {name: value for name, value in given.items() if not misfits.get(name)}


YOURS = {
    "Network": "existing",
    "SubnetIds": "subnet-0a1b2c3d, subnet-1a2b3c4d",  # with a blank, as people write it
    "SecurityGroupIds": "sg-0a1b2c3d",
}
_NETWORKS: dict[str, dict[str, str]] = {"new network": {}, "your network": YOURS}
_NEW_CACHES: dict[str, dict[str, str]] = {
    "serverless": {},
    "serverless without look": {"Look": "false"},
    "node": {"Cache": "node"},
    "node and replica": {"Cache": "node", "CacheReplica": "true"},
    "durable node": {"Cache": "node", "Durability": "sync", "CacheNodeType": "cache.m7g.large"},
}
SIGN_INS: dict[str, dict[str, str]] = {
    "nothing": {"RedisUrl": "rediss://cache.example.com:6380"},
    "password": {
        "RedisUrl": "rediss://copy@cache.example.com:6379",
        "RedisPasswordSecretArn": SECRET,
    },
    "IAM, serverless": {
        "RedisUrl": "rediss://copy@a.serverless.use1.cache.amazonaws.com:6379",
        "RedisIamCacheArn": f"arn:aws:elasticache:{ACCOUNT}:serverlesscache:a",
    },
    "IAM, group": {
        "RedisUrl": "rediss://copy@master.g.use1.cache.amazonaws.com:6379",
        "RedisIamCacheArn": f"arn:aws:elasticache:{ACCOUNT}:replicationgroup:g",
    },
    "IAM, MemoryDB": {
        "RedisUrl": "rediss://copy@clustercfg.m.ab12cd.memorydb.us-east-1.amazonaws.com:6379",
        "RedisIamCacheArn": f"arn:aws:memorydb:{ACCOUNT}:cluster/m",
    },
}
CACHE_ARN = {sign_in: given.get("RedisIamCacheArn", "") for sign_in, given in SIGN_INS.items()}
_PLACES = {
    f"{cache}, {network}": {**_NEW_CACHES[cache], **_NETWORKS[network]}
    for cache, network in itertools.product(_NEW_CACHES, _NETWORKS)
} | {
    f"yours with {sign_in}{cluster}, {network} network": {
        "Cache": "existing",
        **SIGN_INS[sign_in],
        **({"RedisCluster": "true"} if cluster else {}),
        **(YOURS if network == "your" else {"Network": "none"}),
    }
    for sign_in, cluster, network in itertools.product(SIGN_INS, ("", ", cluster"), ("your", "no"))
}
_TABLES: dict[str, dict[str, str]] = {
    "new table": {},
    "stream": {"TableStreamArn": STREAM, "KeyPrefix": "Players"},
}
# Seven options, each on or off: an orthogonal array of strength two has every pair of them in
# eight rows. Each row meets every table and place.
_OPTIONS: dict[str, dict[str, str]] = {
    ", topic": {"AlarmTopicArn": TOPIC},
    ", key": {"KmsKeyArn": KEY},
    ", map": {"OperationsMap": "true"},
    ", audit": {"AuditSample": "100000"},
    ", rules": {
        "PermissionsBoundaryArn": BOUNDARY,
        "RolePath": "/team/copies/",
        "ValueFormat": "redis-json",
    },
    ", reserve": {
        "ReservedConcurrency": "5",
        "Architecture": "x86_64",
        "Runtime": "python3.14",
        "ValueFormat": "hash",
    },
    ", more": {
        "TableKeyArn": TABLE_KEY,
        "ReaderUserIds": "shop, search",
        "Zones": "us-east-1b, us-east-1c",
    },
}
_ROWS = [
    [name for at, name in enumerate(_OPTIONS, 1) if (row & at).bit_count() % 2] for row in range(8)
]
_WITHOUT = [name for name in _OPTIONS if name not in (", map", ", audit")]
_FURTHER = {"".join(row): merged(_OPTIONS[name] for name in row) for row in _ROWS} | {
    ", no operations": {"Operations": "false"},
    ", no operations" + "".join(_WITHOUT): merged(
        [{"Operations": "false"}, *(_OPTIONS[name] for name in _WITHOUT)]
    ),
}
# A table that is there meets every row in every place; a new one, in each place, one in turn.
CASES = {
    f"{table}, {place}{further}": fitting(merged([_TABLES[table], places, _FURTHER[further]]))
    for number, (place, places) in enumerate(_PLACES.items())
    for table in _TABLES
    for further in (
        _FURTHER if table == "stream" else ("", "".join(_ROWS[1 + number % 7]), ", no operations")
    )
}
DEFAULT = "new table, serverless, new network"
