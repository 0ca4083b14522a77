"""A result as Markdown, for a terminal and for documents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median

from benchmarks.harness.contestants import (
    CONTESTANTS,
    OWN,
    OWN_CLUSTER,
    OWN_JSON,
    POWERTOOLS,
    SEED_AWAITED,
)
from benchmarks.harness.cpu_share import ONE_VCPU_MB
from benchmarks.harness.servers import ZONE
from benchmarks.report.cost import (
    PRICES_DATED,
    Cost,
    best_memory_mb,
    billed_for,
    cost,
    measured_cost,
    records_per_invocation,
)
from benchmarks.report.result import Result, Warm, billed_ms, ms, times
from benchmarks.report.statistics import summarize
from benchmarks.report.targets import format_ratio, is_ranked, targets

MEMORIES_MB = (128, 256, 512, 1_024, ONE_VCPU_MB)
BATCHES = ("1 distinct", "10 distinct", "100 hot", "100 distinct", "1 000 hot", "1 000 distinct")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def report(result: Result) -> str:
    """Write the whole result."""
    parts = [_origin(result)]
    if result.absent:
        parts.append("Not measured here:\n" + "\n".join(_absent(result)))
    parts.append("## Targets\n\n" + targets_table(result))
    for (network, memory_mb, view), warms in _groups(result):
        title = f"## {network} round trip, {memory_mb} MB, {view}"
        parts.append(f"{title}\n\n{warm_table(warms)}")
    parts.append("## Cold start, ms\n\n" + cold_table(result))
    parts.append("## The server's side\n\n" + server_table(result))
    if "stages_ms" in result.server:
        parts.append("## Where the time goes, median ms\n\n" + stages_table(result))
    parts.append(
        f"## Cost, dollars per million changes (prices of {PRICES_DATED})\n\n" + costs(result)
    )
    return "\n\n".join(parts)


def _origin(result: Result) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in result.versions.items())
    networks = ", ".join(f"{name}: PING {us:.0f} us" for name, us in result.networks.items())
    return (
        f"{result.origin['date']}, `{result.origin['command']}` at {result.origin['commit']} "
        f"({result.origin['seconds']} s). {result.machine['cores']} cores, "
        f"{result.machine['processor']}, {result.machine['system']}. {networks}.\n{versions}."
    )


def _absent(result: Result) -> Iterator[str]:
    for name, why in result.absent.items():
        yield f"- {name}: {why}"


def targets_table(result: Result) -> str:
    """Write each target with what was reached."""
    words = {True: "yes", False: "**no**", None: "not measured"}
    rows = [[t.what, t.bound, t.reached or "-", words[t.met]] for t in targets(result)]
    return table(["target", "bound", "reached, median (10th to 90th percentile)", "met"], rows)


def _groups(result: Result) -> Iterator[tuple[tuple[str, int, str], list[Warm]]]:
    groups: dict[tuple[str, int, str], list[Warm]] = {}
    for warm in result.warm:
        groups.setdefault((warm.network, warm.memory_mb, warm.view), []).append(warm)
    yield from groups.items()


def warm_table(warms: Sequence[Warm]) -> str:
    """Write median ms, billed ms and the ratio to ours of every contestant at every batch."""
    names = [contestant.name for contestant in CONTESTANTS]
    present = [name for name in names if any(name in warm.samples_ms for warm in warms)]
    head = ["contestant", *(f"{warm.batch} ({len_of(warm)} rounds)" for warm in warms)]
    rows = [[_named(name, warms), *(_cell(warm, name) for warm in warms)] for name in present]
    return table(head, rows)


def len_of(warm: Warm) -> int:
    """Return the number of rounds."""
    return len(next(iter(warm.samples_ms.values())))


def _named(name: str, warms: Sequence[Warm]) -> str:
    wrong = {
        verdict.split(":")[0]
        for warm in warms
        for verdict in [warm.verdicts.get(name, "right")]
        if verdict != "right"
    }
    return f"{name} (**{', '.join(sorted(wrong))}**)" if wrong else name


def _cell(warm: Warm, name: str) -> str:
    if name not in warm.samples_ms:
        return "-"
    figure = f"{ms(warm, name).median:.2f} ms, billed {billed_ms(warm, name):g}"
    if name == OWN or OWN not in warm.samples_ms:
        return figure
    return f"{figure}, {format_ratio(times(warm, name, OWN))}"


def cold_table(result: Result) -> str:
    """Write INIT, its ratio to ours, and INIT with the first invocation of ten records."""
    own = result.cold.get(OWN)
    rows = []
    for name, samples in sorted(result.cold.items(), key=lambda row: median(row[1]["init_ms"])):
        pairs = zip(samples["init_ms"], samples["first_ms"], strict=True)
        both = summarize([init + first for init, first in pairs])
        ratio = "-"
        if own is not None and name != OWN:
            inits = zip(samples["init_ms"], own["init_ms"], strict=True)
            ratio = format_ratio(summarize([theirs / ours for theirs, ours in inits]))
        rows.append([name, f"{summarize(samples['init_ms']):.0f}", ratio, f"{both.median:.0f}"])
    return table(["contestant", "INIT", "INIT / ours", "INIT and first 10 records"], rows)


def server_table(result: Result) -> str:
    """Write what a batch costs the server and its other clients."""
    figures = result.server
    rows = []
    if "script_us_per_key" in figures:
        rows.append(["server time of a fenced key", f"{figures['script_us_per_key']:.1f} us"])
        rows.append(["memory of a fence", f"{figures['fence_bytes']:.0f} bytes"])
    for name, p99 in figures.get("other_clients_p99_ms", {}).items():
        rows.append([f"another client's p99 GET beside: {name}", f"{summarize(p99):.2f} ms"])
    for name, samples in figures.get("six_nodes_ms", {}).items():
        where = "six nodes" if name == OWN_CLUSTER else "one server beside them"
        rows.append([f"1 000 distinct, loopback, {where}: {name}", f"{summarize(samples):.1f} ms"])
    return table(["what", "median (10th to 90th percentile)"], rows)


def stages_table(result: Result) -> str:
    """Write the median of each stage of our invocation, by batch."""
    by_batch = result.server["stages_ms"]
    stages = dict.fromkeys(stage for stages_ms in by_batch.values() for stage in stages_ms)
    rows = [
        [
            stage,
            *(f"{median(ms[stage]):.2f}" if stage in ms else "-" for ms in by_batch.values()),
        ]
        for stage in stages
    ]
    return table(["stage", *by_batch], rows)


def costs(result: Result) -> str:
    """Write the cost by memory and batch, its parts, and by rate and window."""
    names = (
        OWN,
        OWN_JSON,
        SEED_AWAITED,
        POWERTOOLS,
    )
    rows = []
    for name in names:
        for memory_mb in MEMORIES_MB:
            by_batch = [measured_cost(result, name, batch, ZONE, memory_mb) for batch in BATCHES]
            if any(by_batch):
                rows.append(
                    [
                        name,
                        str(memory_mb),
                        *("-" if c is None else f"{c.usd:.3f}" for c in by_batch),
                    ]
                )
    by_memory = table(["contestant", "MB", *BATCHES], rows)
    best = best_memory_mb(result, OWN_JSON, ZONE)
    if best is None:
        return by_memory
    parts = [parts_row(result, batch, best) for batch in BATCHES]
    return "\n\n".join(
        [
            by_memory,
            f"**Best memory size: {best} MB** ({OWN_JSON}, over 10, 100 and 1 000 distinct "
            "records a batch). Its parts:",
            table(
                ["batch", "time", "requests", "metrics line", "platform's lines, if on"],
                [p for p in parts if p],
            ),
            f"By a shard's changes per second and the batching window, batch size 1 000, {best} "
            "MB, records a batch in brackets:",
            by_window(result, best),
        ]
    )


def parts_row(result: Result, batch: str, memory_mb: int) -> list[str] | None:
    """Write the parts of our cost at one batch."""
    total = measured_cost(result, OWN_JSON, batch, ZONE, memory_mb)
    if total is None:
        return None
    parts = (total.time_usd, total.requests_usd, total.metrics_usd, total.platform_usd)
    return [batch, *(f"{usd:.4f}" for usd in parts)]


def by_window(result: Result, memory_mb: int) -> str:
    """Write our cost by the rate of changes and the batching window."""
    measured = [
        (warm.records, billed_ms(warm, OWN_JSON))
        for batch in ("1 distinct", "10 distinct", "100 distinct", "1 000 distinct")
        for warm in [result.find(batch, ZONE, memory_mb)]
        if warm is not None and OWN_JSON in warm.samples_ms
    ]
    windows_s = (0, 1, 5, 60)
    rows = []
    for per_s in (0.1, 1, 10, 100, 1_000):
        cells = []
        for window_s in windows_s:
            records = records_per_invocation(per_s, window_s, 1_000)
            log_bytes = result.log_bytes.get(OWN_JSON, 0.0)
            total: Cost = cost(memory_mb, records, billed_for(records, measured), log_bytes)
            cells.append(f"{total.usd:.3f} ({records:g})")
        rows.append([f"{per_s:g}/s", *cells])
    return table(["changes", *(f"window {window_s} s" for window_s in windows_s)], rows)


def is_fastest(warm: Warm) -> bool:
    """Whether no other contestant that does the whole job is faster than ours."""
    ours = median(warm.samples_ms[OWN])
    return all(
        ours <= median(samples)
        for name, samples in warm.samples_ms.items()
        if is_ranked(warm, name) and not name.startswith("asyncsync")
    )
