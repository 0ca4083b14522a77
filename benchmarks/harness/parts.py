"""The parts of one run, each of which adds to its result."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import redis

from benchmarks.events import Batch, Keys, View
from benchmarks.harness import contestants, measure, server_side
from benchmarks.harness.contestants import Contestant, Endpoint
from benchmarks.harness.cpu_share import ONE_VCPU_MB, NoShares, cpu_share
from benchmarks.harness.measure import Network
from benchmarks.harness.plan import BOTH_IMAGES, Case
from benchmarks.harness.progress import ProgressBar
from benchmarks.harness.servers import LOOPBACK, ZONE
from benchmarks.report.result import Result, Warm
from tests.support.cluster import redis_cluster

WARM_UPS = 3


@dataclass(frozen=True, slots=True)
class Run:
    """What every part of a run needs."""

    result: Result
    networks: dict[str, Network]
    batches: dict[tuple[int, Keys, View], Batch]
    chance: random.Random
    progress: ProgressBar

    @property
    def thousand(self) -> Batch:
        """Return the batch of 1 000 distinct records."""
        return self.batches[1_000, "distinct", BOTH_IMAGES]


def warm(run: Run, case: Case, main: Sequence[Contestant]) -> None:
    """Time warm invocations of one batch; contestants run only as long as this takes."""
    network = run.networks[case.network]
    batch = run.batches[case.records, case.keys, case.view]
    chosen = [c for c in main if not case.contestants or c.name in case.contestants]
    run.progress.describe(f"{batch.name}, {case.network}, {case.memory_mb} MB, {case.view}")
    announce(network)
    with ExitStack() as stack:
        running, absent = measure.start(chosen, network, stack)
        run.result.absent.update(absent)
        verdicts = {name: measure.verdict(each, batch) for name, each in running.items()}
        functions = list(running.values())
        measure.timed(functions, batch, WARM_UPS, random.Random(0), pausing=False)
        try:
            share = stack.enter_context(cpu_share(case.memory_mb))
        except NoShares as exc:
            run.result.absent[f"{case.memory_mb} MB"] = str(exc)
            if case.memory_mb < ONE_VCPU_MB:
                return
        else:
            for each in functions:
                share.add(each.function.process.pid)
        printed = {name: len(each.function.stdout()) for name, each in running.items()}
        samples_ms = measure.timed(
            functions,
            batch,
            case.rounds,
            run.chance,
            pausing=case.memory_mb < ONE_VCPU_MB,
            on_round=run.progress.advance,
        )
        for name, each in running.items():
            more = len(each.function.stdout()) - printed[name]
            run.result.log_bytes[name] = round(more / case.rounds, 1)
    run.result.warm.append(
        Warm(
            network=case.network,
            memory_mb=case.memory_mb,
            view=case.view,
            batch=batch.name,
            records=batch.records,
            distinct=len(batch.left),
            event_bytes=len(batch.event),
            verdicts=verdicts,
            samples_ms=samples_ms,
        )
    )


def announce(network: Network) -> None:
    """Have the cluster's node name the port that leads to it through this network."""
    with redis.Redis(port=network.cluster.server_port) as client:
        client.config_set("cluster-announce-port", network.cluster.port)


def cold(run: Run, rounds: int, main: Sequence[Contestant]) -> None:
    """Start every contestant several times, from its built bundle, and send it ten records."""
    run.progress.describe("cold starts")
    announce(run.networks[ZONE])
    run.result.cold.update(
        measure.cold_starts(
            [*main, contestants.by_name(contestants.OWN_REDIS_PY)],
            run.networks[ZONE],
            run.batches[10, "distinct", BOTH_IMAGES],
            rounds,
            run.chance,
            run.progress.advance,
        )
    )


def server_cost(run: Run, rounds: int) -> None:
    """Measure what a batch costs the server and its other clients, on loopback."""
    run.progress.describe("the server's side")
    batch, network = run.thousand, run.networks[LOOPBACK]
    names = (contestants.OWN, contestants.OWN_UNFENCED, contestants.OWN_ONE_CALL)
    figures = run.result.server
    with ExitStack() as stack:
        chosen = [contestants.by_name(name) for name in names]
        running, absent = measure.start(chosen, network, stack)
        if absent:
            run.result.absent.update(absent)
            return
        own, unfenced = running[contestants.OWN], running[contestants.OWN_UNFENCED]
        figures["script_us_per_key"] = round(server_side.script_us_per_key(own, batch, 20), 2)
        figures["fence_bytes"] = round(server_side.fence_bytes(own, unfenced, batch), 1)
        invocations: dict[str, Callable[[], object]] = {
            name: lambda each=each: each.function.invoke(batch.event)  # type: ignore[misc]
            for name, each in running.items()
        }
        figures["other_clients_p99_ms"] = server_side.other_clients_p99_ms(
            {**invocations, "nothing": lambda: time.sleep(0.01)},
            network.one.server_port,
            rounds,
            0.5,
            run.chance,
            run.progress.advance,
        )


def stages(run: Run, rounds: int) -> None:
    """Time the stages of an invocation, Redis half a millisecond away, on one processor."""
    run.progress.describe("where the time goes")
    by_batch: dict[str, dict[str, list[float]]] = {}
    for (_, _, view), batch in run.batches.items():
        if view != BOTH_IMAGES:
            continue
        with ExitStack() as stack:
            chosen = [contestants.by_name(contestants.OWN_TRACED)]
            running, absent = measure.start(chosen, run.networks[ZONE], stack)
            if absent:
                run.result.absent.update(absent)
                return
            [traced] = running.values()
            measure.timed([traced], batch, WARM_UPS, random.Random(0), pausing=False)
            samples = measure.timed([traced], batch, 3 * rounds, run.chance, pausing=False)
            lines = [line for line in traced.function.json_lines() if "stages_ms" in line]
        stages_ms: dict[str, list[float]] = {}
        for ms, line in zip(samples[contestants.OWN_TRACED], lines[WARM_UPS:], strict=True):
            own_ms = {**line["stages_ms"], "the runtime and its client": ms - line["all_ms"]}
            for stage, stage_ms in own_ms.items():
                stages_ms.setdefault(stage, []).append(round(stage_ms, 3))
        by_batch[batch.name] = stages_ms
    run.result.server["stages_ms"] = by_batch
    run.progress.advance()


def cluster_of_six(run: Run, rounds: int, binary: str) -> None:
    """Time 1 000 distinct records through a real cluster, beside one server, on loopback."""
    run.progress.describe("a cluster of six nodes")
    loopback = run.networks[LOOPBACK]
    with redis_cluster(binary) as cluster, ExitStack() as stack:
        port = cluster.nodes[0].port
        endpoint = Endpoint(port, port, loopback.one.commands)
        six = Network("six nodes", 0.0, loopback.one, endpoint)
        names = (contestants.OWN, contestants.OWN_CLUSTER)
        chosen = [contestants.by_name(name) for name in names]
        running, absent = measure.start(chosen, six, stack)
        if absent:
            run.result.absent["a cluster of six nodes"] = "; ".join(absent.values())
            return
        functions = list(running.values())
        measure.timed(functions, run.thousand, WARM_UPS, random.Random(0), pausing=False)
        run.result.server["six_nodes_ms"] = measure.timed(
            functions,
            run.thousand,
            rounds,
            run.chance,
            pausing=False,
            on_round=run.progress.advance,
        )
