"""The four formats of values beside each other: time, the server's time, memory.

Each is the real handler on one server, with a database of its own and the same event: distinct
items of 15 attributes. In each round every format is invoked once, in random order; a ratio to
`json` is taken within a round. The server's time is Redis's own count for the scripts. Memory is
the average of MEMORY USAGE, without fences. `redis-json` needs the folder of rejson.so.
"""

from __future__ import annotations

import argparse
import gc
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import redis

from asyncsync.config import Config
from asyncsync.lab.servers import binaries, redis_process
from asyncsync.mirror import Mirror
from benchmarks.events import event_of, image, modified
from benchmarks.report.statistics import ratios, summarize

BASELINE = "json"
FORMATS = (BASELINE, "dynamodb-json", "hash", "redis-json")
TARGETS = {"hash": 2.2, "redis-json": 1.6}
WARM_UP = 3


class Contestant:
    """One format's handler, its database, and what it took so far."""

    def __init__(self, value_format: Any, port: int, database: int) -> None:
        self.name = str(value_format)
        url = f"redis://127.0.0.1:{port}/{database}"
        self.client = redis.Redis.from_url(url)
        self._mirror = Mirror(Config(redis_url=url, value=value_format, metrics="off"))
        self.wall_ms: list[float] = []
        self.server_us: list[float] = []

    def run(self, event: bytes, records: int) -> None:
        """Invoke the handler once and note its times."""
        self.client.config_resetstat()
        gc.collect()
        began_ns = time.perf_counter_ns()
        answer = self._mirror.lambda_handler(event)
        self.wall_ms.append((time.perf_counter_ns() - began_ns) / 1e6)
        assert answer == {"batchItemFailures": []}, f"{self.name} failed"
        stats: Any = self.client.info("commandstats")
        scripts = (stats.get(f"cmdstat_{word}", {}) for word in ("eval", "evalsha"))
        self.server_us.append(sum(each.get("usec", 0) for each in scripts) / records)

    def key_bytes(self) -> float:
        """Return the average memory of a value with its name."""
        names: Any = [name for name in self.client.scan_iter() if not name.endswith(b"!f")]
        return sum(self.client.memory_usage(name, samples=0) for name in names) / len(names)  # type: ignore[misc]

    def close(self) -> None:
        """Close the connections."""
        self._mirror.close()
        self.client.close()


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and return 1 where a target was missed."""
    parser = argparse.ArgumentParser(description="Time the formats of values beside each other.")
    parser.add_argument("--records", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--binary", default=binaries()[0] if binaries() else "redis-server")
    parser.add_argument("--modules", type=Path, help="the folder of rejson.so")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args(argv)
    formats = FORMATS if arguments.modules else FORMATS[:-1]
    options = ("--loadmodule", str(arguments.modules / "rejson.so")) if arguments.modules else ()

    chance = random.Random(arguments.seed)
    images = [image(number, chance) for number in range(arguments.records)]
    event = event_of(modified(images), chance, "NEW_IMAGE")
    with redis_process(arguments.binary, *options) as server:
        contestants = [Contestant(name, server.port, at) for at, name in enumerate(formats)]
        for _ in range(WARM_UP + arguments.rounds):
            for contestant in chance.sample(contestants, len(contestants)):
                contestant.run(event, arguments.records)
        print(f"{arguments.binary}, {arguments.records:,} items, {arguments.rounds} rounds")
        missed = _printed(contestants)
        for contestant in contestants:
            contestant.close()
    return int(missed)


def _printed(contestants: Sequence[Contestant]) -> bool:
    """Print a row for each format and return whether a target was missed."""
    heads = f"{'ms':>22}{'times json':>22}{'target':>8}{'server us a key':>18}{'bytes a key':>13}"
    print(f"{'':16}{heads}")
    base = contestants[0].wall_ms[WARM_UP:]
    missed = False
    for each in contestants:
        wall = summarize(each.wall_ms[WARM_UP:])
        ratio = ratios(each.wall_ms[WARM_UP:], base)
        server = summarize(each.server_us[WARM_UP:])
        target = TARGETS.get(each.name)
        is_missed = target is not None and ratio.median > target
        missed = missed or is_missed
        print(
            f"{each.name:16}{f'{wall:.2f}':>22}{f'{ratio:.2f}':>22}{target or '':>8}"
            f"{server.median:>18.1f}{each.key_bytes():>13.0f}{'  MISSED' if is_missed else ''}"
        )
    print("each: median (10th to 90th percentile of the rounds)")
    return missed


if __name__ == "__main__":
    sys.exit(main())
