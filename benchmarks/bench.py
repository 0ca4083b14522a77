"""The benchmark: billed duration of asyncsync and of what people use today, in one run.

`make bench` shows the main rows in three minutes; `make bench-full` measures everything in
about fifteen and writes benchmarks/results/full.json, from which the tables, the charts and
the README's numbers are made. What could not be measured here is said, never left out.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson
import redis
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from asyncsync.lab.servers import BINARIES, binaries
from benchmarks.events import Batch, Keys, View, batch
from benchmarks.harness import bundles, measure, server_side
from benchmarks.harness import contestants as roster
from benchmarks.harness.bundles import CannotBuild
from benchmarks.harness.contestants import Contestant, Place
from benchmarks.harness.cpu_share import (
    FUNCTIONS_OWN,
    ONE_VCPU_MB,
    NoShares,
    cpu_share,
    leave_one_free,
)
from benchmarks.harness.measure import Network
from benchmarks.harness.servers import LOOPBACK, ZONE, servers
from benchmarks.report.publish import publish
from benchmarks.report.result import Result, Warm, load, save
from benchmarks.report.tables import report
from tests.support.cluster import redis_cluster

FULL = bundles.ROOT / "benchmarks" / "results" / "full.json"


WARM_UPS = 3


@dataclass(frozen=True, slots=True)
class Lap:
    """One batch to be timed: where, with how much of a processor, by whom, how often."""

    network: str
    memory_mb: int
    view: View
    records: int
    keys: Keys
    rounds: int
    contestants: tuple[str, ...] = ()  # none: all of the main table


SHARES_OF = (roster.OWN, roster.OWN_JSON, roster.SEED_AWAITED, roster.POWERTOOLS)


BOTH_IMAGES: View = "NEW_AND_OLD_IMAGES"
SIZES: tuple[tuple[int, Keys], ...] = (
    (1, "distinct"),
    (10, "distinct"),
    (100, "hot"),
    (100, "distinct"),
    (1_000, "hot"),
    (1_000, "distinct"),
    (2_000, "distinct"),
)


def quick_laps() -> Iterator[Lap]:
    """Name what three minutes are enough for."""
    for size in SIZES:
        if size not in ((1, "distinct"), (100, "distinct"), (2_000, "distinct")):
            yield Lap(ZONE, ONE_VCPU_MB, BOTH_IMAGES, *size, rounds=7)
    yield Lap(ZONE, 128, BOTH_IMAGES, 100, "hot", 5, SHARES_OF)


def full_laps() -> Iterator[Lap]:
    """Name everything that is timed, in the order it is timed in."""
    for size in SIZES:
        yield Lap(ZONE, ONE_VCPU_MB, BOTH_IMAGES, *size, rounds=15)
    for size in SIZES[1:-1]:
        yield Lap(ZONE, ONE_VCPU_MB, "NEW_IMAGE", *size, rounds=7)
        yield Lap(LOOPBACK, ONE_VCPU_MB, BOTH_IMAGES, *size, rounds=7)
    # At the smallest share the slowest take seconds: fewer rounds of the largest batch.
    yield Lap(ZONE, 128, BOTH_IMAGES, 10, "distinct", 9)
    yield Lap(ZONE, 128, BOTH_IMAGES, 100, "hot", 9)
    yield Lap(ZONE, 128, BOTH_IMAGES, 1_000, "hot", 3)
    done = {(128, 10, "distinct"), (128, 100, "hot"), (128, 1_000, "hot")}
    for memory_mb in (128, 256, 512, 1_024):
        for size in SIZES[:-1]:
            if (memory_mb, *size) not in done:
                yield Lap(ZONE, memory_mb, BOTH_IMAGES, *size, 5, SHARES_OF)


class Teller:
    """Says how far the run is: a bar where there is a terminal, a line a step elsewhere."""

    def __init__(self, steps: int) -> None:
        self._console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description:48}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._progress.add_task("", total=steps)
        self._began_s = time.monotonic()

    def __enter__(self) -> Teller:
        self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._progress.stop()

    def says(self, what: str) -> None:
        """Name what is done now."""
        self._progress.update(self._task, description=what)
        if not self._console.is_terminal:
            self._console.print(f"{time.monotonic() - self._began_s:7.1f} s  {what}")

    def step(self) -> None:
        """Count one round."""
        self._progress.advance(self._task)


# --- the run ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Run:
    """What every part of a run needs."""

    result: Result
    networks: dict[str, Network]
    batches: dict[tuple[int, Keys, View], Batch]
    chance: random.Random
    teller: Teller


def warm(run: Run, lap: Lap, main: Sequence[Contestant]) -> None:
    """Time one batch; contestants are started for it, and stopped after it."""
    network = run.networks[lap.network]
    given = run.batches[lap.records, lap.keys, lap.view]
    chosen = [each for each in main if not lap.contestants or each.name in lap.contestants]
    title = f"{given.name}, {lap.network}, {lap.memory_mb} MB, {lap.view}"
    run.teller.says(title)
    announce(network)
    with ExitStack() as stack:
        running, absent = measure.start(chosen, network, stack)
        run.result.absent.update(absent)
        verdicts = {name: measure.verdict(each, given) for name, each in running.items()}
        taking_part = list(running.values())
        quiet = random.Random(0)
        measure.timed(taking_part, given, WARM_UPS, quiet, pausing=False)
        try:
            share = stack.enter_context(cpu_share(lap.memory_mb))
        except NoShares as exc:
            run.result.absent[f"{lap.memory_mb} MB"] = str(exc)
            if lap.memory_mb < ONE_VCPU_MB:
                return
        else:
            for each in taking_part:
                share.holds(each.function.process.pid)
        said = {name: len(each.function.said()) for name, each in running.items()}
        samples_ms = measure.timed(
            taking_part,
            given,
            lap.rounds,
            run.chance,
            pausing=lap.memory_mb < ONE_VCPU_MB,
            tell=run.teller.step,
        )
        for name, each in running.items():
            grown = len(each.function.said()) - said[name]
            run.result.log_bytes[name] = round(grown / lap.rounds, 1)
    run.result.warm.append(
        Warm(
            network=lap.network,
            memory_mb=lap.memory_mb,
            view=lap.view,
            batch=given.name,
            records=given.records,
            distinct=len(given.left),
            event_bytes=len(given.event),
            verdicts=verdicts,
            samples_ms=samples_ms,
        )
    )


def announce(network: Network) -> None:
    """Have the cluster's node name the port that leads to it through this network."""
    with redis.Redis(port=network.cluster.server_port) as client:
        client.config_set("cluster-announce-port", network.cluster.port)


def cold(run: Run, rounds: int, main: Sequence[Contestant]) -> None:
    """Start every contestant several times, from its built bundle, and give it ten records."""
    run.teller.says("cold starts")
    startable = [*main, roster.named(roster.OWN_REDIS_PY)]
    announce(run.networks[ZONE])
    run.result.cold.update(
        measure.cold_starts(
            startable,
            run.networks[ZONE],
            run.batches[10, "distinct", "NEW_AND_OLD_IMAGES"],
            rounds,
            run.chance,
            run.teller.step,
        )
    )


def server_side_of(run: Run, rounds: int) -> None:
    """Measure what a batch costs the server and its other clients, on loopback."""
    run.teller.says("the server's side")
    given = run.batches[1_000, "distinct", "NEW_AND_OLD_IMAGES"]
    network = run.networks[LOOPBACK]
    names = (roster.OWN, roster.OWN_UNFENCED, roster.OWN_ONE_CALL)
    found = run.result.server
    with ExitStack() as stack:
        running, absent = measure.start([roster.named(name) for name in names], network, stack)
        if absent:
            run.result.absent.update(absent)
            return
        own, unfenced = running[roster.OWN], running[roster.OWN_UNFENCED]
        found["script_us_per_key"] = round(server_side.script_us_per_key(own, given, 20), 2)
        found["fence_bytes"] = round(server_side.fence_bytes(own, unfenced, given), 1)
        invocations: dict[str, Callable[[], object]] = {
            name: lambda each=each: each.function.invoke(given.event)  # type: ignore[misc]
            for name, each in running.items()
        }
        found["other_clients_p99_ms"] = server_side.other_clients_p99_ms(
            {**invocations, "nothing": lambda: time.sleep(0.01)},
            network.one.server_port,
            rounds,
            0.5,
            run.chance,
            run.teller.step,
        )


def where_the_time_goes(run: Run, rounds: int) -> None:
    """Time the stages of an invocation, Redis half a millisecond away, one processor."""
    run.teller.says("where the time goes")
    found: dict[str, dict[str, list[float]]] = {}
    for (_, _, view), given in run.batches.items():
        if view != BOTH_IMAGES:
            continue
        with ExitStack() as stack:
            chosen = [roster.named(roster.OWN_TRACED)]
            running, absent = measure.start(chosen, run.networks[ZONE], stack)
            if absent:
                run.result.absent.update(absent)
                return
            [traced] = running.values()
            measure.timed([traced], given, WARM_UPS, random.Random(0), pausing=False)
            taken = measure.timed([traced], given, 3 * rounds, run.chance, pausing=False)
            lines = [line for line in traced.function.printed() if "stages_ms" in line]
        stages: dict[str, list[float]] = {}
        for ms, line in zip(taken[roster.OWN_TRACED], lines[WARM_UPS:], strict=True):
            own_ms = {**line["stages_ms"], "the runtime and its client": ms - line["all_ms"]}
            for stage, each in own_ms.items():
                stages.setdefault(stage, []).append(round(each, 3))
        found[given.name] = stages
    run.result.server["stages_ms"] = found
    run.teller.step()


def cluster_of_six(run: Run, rounds: int, binary: str) -> None:
    """Time 1 000 distinct records through a real cluster, beside one server, on loopback."""
    run.teller.says("a cluster of six nodes")
    given = run.batches[1_000, "distinct", "NEW_AND_OLD_IMAGES"]
    loopback = run.networks[LOOPBACK]
    with redis_cluster(binary) as cluster, ExitStack() as stack:
        port = cluster.nodes[0].port
        place = Place(port, port, loopback.one.commands)
        six = Network("six nodes", 0.0, loopback.one, place)
        chosen = [roster.named(roster.OWN), roster.named(roster.OWN_CLUSTER)]
        running, absent = measure.start(chosen, six, stack)
        if absent:
            run.result.absent["a cluster of six nodes"] = "; ".join(absent.values())
            return
        functions = list(running.values())
        measure.timed(functions, given, WARM_UPS, random.Random(0), pausing=False)
        samples = measure.timed(
            functions, given, rounds, run.chance, pausing=False, tell=run.teller.step
        )
        run.result.server["six_nodes_ms"] = samples


def machine() -> dict[str, Any]:
    """Say what this ran on."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
    return {
        "processor": model or platform.machine(),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "a core for functions alone": bool(FUNCTIONS_OWN),
        "system": f"{platform.system()} {platform.release()}",
    }


def versions(binary: str) -> dict[str, str]:
    """Say what took part."""
    found = {"Python": platform.python_version()}
    for package in ("awslambdaric", "redis", "hiredis", "orjson", "msgspec"):
        found[package] = version(package)
    pins = (bundles.ROOT / "requirements/contestant-powertools.txt").read_text()
    found["aws-lambda-powertools"] = pins.split("aws-lambda-powertools==")[1].split()[0]
    found[binary] = _said([binary, "--version"])
    lock = orjson.loads((bundles.CONTESTANTS / "node/package-lock.json").read_bytes())["packages"]
    for package in ("aws-lambda-ric", "ioredis", "redis"):
        found[f"{package} (npm)"] = lock[f"node_modules/{package}"]["version"]
    found["Node"] = _said(["node", "--version"])
    return found


def _said(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "none"


def made(arguments: argparse.Namespace) -> dict[str, Any]:
    """Say when and from what this was made."""
    commit = _said(["git", "-C", str(bundles.ROOT), "rev-parse", "--short", "HEAD"])
    changed = _said(["git", "-C", str(bundles.ROOT), "status", "--porcelain", "asyncsync"])
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "command": "make bench-full" if arguments.full else "make bench",
        "seed": arguments.seed,
        "commit": commit + ("+" if changed not in ("", "none") else ""),
    }


def taking_part(full: bool, only: str | None) -> tuple[dict[str, str], list[Contestant]]:
    """Make every bundle there can be; return who cannot take part and why, and who does."""
    absent: dict[str, str] = {}
    chosen = []
    wanted = None if only is None else {name.strip() for name in only.split(";")}
    for each in roster.CONTESTANTS:
        if each.name in roster.ASIDE or (wanted is not None and each.name not in wanted):
            continue
        if each.is_node and not full and not bundles.has_node_bundle():
            absent[each.name] = "make bench-full builds AWS's client for Node (two minutes)"
            continue
        try:
            roster.command(each)
        except CannotBuild as exc:
            absent[each.name] = str(exc)
            continue
        chosen.append(each)
    return absent, chosen


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, write the result, print the tables; return the exit code."""
    parser = argparse.ArgumentParser(description="Measure billed duration beside the peers.")
    parser.add_argument("--full", action="store_true", help="everything, in about 15 minutes")
    parser.add_argument(
        "--read", type=Path, metavar="FILE", help="print a result, measure nothing"
    )
    parser.add_argument("--into", type=Path, metavar="FILE", help="where the result goes, as JSON")
    parser.add_argument("--publish", action="store_true", help="make charts and documents of it")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", metavar="NAMES", help="contestants, with ; between them")
    parser.add_argument("--rounds", type=int, help="rounds of each measurement")
    arguments = parser.parse_args(argv)
    if arguments.read is not None:
        result = load(arguments.read)
    else:
        found = binaries()
        if not found:
            print(f"bench: none of {', '.join(BINARIES)} is on PATH", file=sys.stderr)
            return 2
        result = measured(arguments, "redis-server" if "redis-server" in found else found[0])
        published = FULL if arguments.full else bundles.BUILT / "quick.json"
        into = arguments.into or published
        save(result, into)
        print(f"every sample: {into}", file=sys.stderr)
    if arguments.publish or (arguments.full and arguments.into is None):
        publish(result, bundles.ROOT)
    print(report(result))
    return 0


def measured(arguments: argparse.Namespace, binary: str) -> Result:
    """Run all parts."""
    began_s = time.monotonic()
    plan = [
        lap if arguments.rounds is None else replace(lap, rounds=arguments.rounds)
        for lap in (full_laps() if arguments.full else quick_laps())
    ]
    rounds = arguments.rounds or (11 if arguments.full else 5)
    views = {(lap.records, lap.keys, lap.view) for lap in plan}
    batches = {key: batch(*key, arguments.seed) for key in sorted(views)}
    print("making the bundles", file=sys.stderr)
    absent, main = taking_part(arguments.full, arguments.only)
    leave_one_free()
    with (
        Teller(sum(lap.rounds for lap in plan) + 3 * rounds + 1) as teller,
        servers(list(batches.values()), binary) as networks,
    ):
        for name, each in networks.items():
            teller.says(f"{name}: a PING takes {each.rtt_us:.0f} us")
        result = Result(
            made(arguments),
            machine(),
            versions(binary),
            {name: round(each.rtt_us, 1) for name, each in networks.items()},
            absent=absent,
        )
        run = Run(result, networks, batches, random.Random(arguments.seed), teller)
        for lap in plan:
            warm(run, lap, main)
        cold(run, rounds, main)
        server_side_of(run, rounds)
        where_the_time_goes(run, rounds)
        cluster_of_six(run, rounds, binary)
    result.made["seconds"] = round(time.monotonic() - began_s)
    return result


if __name__ == "__main__":
    sys.exit(main())
