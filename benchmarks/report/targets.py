"""The speed targets: a bound for each, and what a run reached."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from benchmarks.harness.contestants import (
    EMPTY,
    IOREDIS,
    LIMIT,
    OWN,
    OWN_CLUSTER,
    OWN_JSON,
    OWN_ONE_CALL,
    OWN_UNFENCED,
    POWERTOOLS,
    POWERTOOLS_ASYNC,
    REDIS_ASYNCIO,
    SEED_AWAITED,
    UNRANKED,
)
from benchmarks.harness.cpu_share import ONE_VCPU_MB
from benchmarks.harness.servers import ZONE
from benchmarks.report.result import Result, Warm, billed_ms, times
from benchmarks.report.statistics import Summary, summarize


@dataclass(frozen=True, slots=True)
class Target:
    """One bound; `reached` is None where this run did not measure it."""

    what: str
    bound: str
    reached: str | None
    met: bool | None


def targets(result: Result) -> Iterator[Target]:
    """Return every target with what was reached."""
    yield from _times(result, "1 000 distinct", OWN, [
        (LIMIT, 2.2), (EMPTY, 1 / 4), (SEED_AWAITED, 1 / 4),
        (IOREDIS, 1 / 4), (POWERTOOLS, 1 / 50), (POWERTOOLS_ASYNC, 1 / 20),
    ])  # fmt: skip
    yield from _times(
        result,
        "1 000 hot",
        OWN,
        [(LIMIT, 2.5), (POWERTOOLS, 1 / 60)],
    )
    yield from _times(result, "1 000 distinct", OWN_JSON, [(OWN, 2.2)])
    yield from _times(result, "1 000 hot", OWN_JSON, [(OWN, 1.2)])
    yield from _times(
        result,
        "100 hot",
        OWN,
        [(LIMIT, 1.5), (POWERTOOLS, 1 / 30)],
    )
    for batch in ("1 distinct", "10 distinct"):
        yield from _times(
            result,
            batch,
            OWN,
            [(LIMIT, 1.3), (SEED_AWAITED, 1.0)],
        )
    yield _billed(result)
    yield from _times(result, "100 hot", OWN, [(POWERTOOLS, 1 / 100)], memory_mb=128)
    for batch, bound in (
        ("1 distinct", 1.15), ("10 distinct", 1.15), ("100 hot", 1.15), ("100 distinct", 1.15),
        ("1 000 distinct", 1.4),
    ):  # fmt: skip
        yield from _times(result, batch, OWN, [(OWN_UNFENCED, bound)])
    yield _script_time(result)
    yield _other_clients(result)
    yield from _times(result, "1 000 distinct", OWN_CLUSTER, [(OWN, 1.8)])
    yield _init(result)
    yield _one_more(result)


def _times(
    result: Result,
    batch: str,
    name: str,
    others: list[tuple[str, float]],
    memory_mb: int = ONE_VCPU_MB,
) -> Iterator[Target]:
    warm = result.find(batch, ZONE, memory_mb)
    where = batch if memory_mb == ONE_VCPU_MB else f"{batch}, {memory_mb} MB share"
    for other, bound in others:
        what = f"{where}: {name} / {other}"
        if warm is None or not {name, other} <= warm.samples_ms.keys():
            yield Target(what, _bound(bound), None, None)
            continue
        ratio = times(warm, name, other)
        yield Target(what, _bound(bound), format_ratio(ratio), ratio.median <= bound)


def _bound(bound: float) -> str:
    return f"<= {bound:.2f}x" if bound >= 1 else f"<= 1/{round(1 / bound)}"


def format_ratio(ratio: Summary) -> str:
    """Write a ratio as people say it: 1.8x, or one fourth as 1/4.0."""
    if ratio.median >= 0.5:
        return f"{ratio.median:.2f}x ({ratio.p10:.2f} to {ratio.p90:.2f})"
    return f"1/{1 / ratio.median:.1f} (1/{1 / ratio.p90:.1f} to 1/{1 / ratio.p10:.1f})"


def _billed(result: Result) -> Target:
    warm = result.find("100 hot", ZONE, 128)
    what, bound = f"100 hot, 128 MB share: {OWN}, billed", 4
    if warm is None or OWN not in warm.samples_ms:
        return Target(what, f"<= {bound} ms", None, None)
    reached = billed_ms(warm, OWN)
    return Target(what, f"<= {bound} ms", f"{reached:g} ms", reached <= bound)


def _script_time(result: Result) -> Target:
    reached = result.server.get("script_us_per_key")
    text = None if reached is None else f"{reached:.1f} us"
    met = None if reached is None else reached <= 5
    return Target("the fence: server time of a key", "<= 5 us", text, met)


def _other_clients(result: Result) -> Target:
    what = "another client's p99 GET: ours / one call for all keys"
    p99 = result.server.get("other_clients_p99_ms")
    if p99 is None:
        return Target(what, "<= 1/2", None, None)
    pairs = zip(p99[OWN], p99[OWN_ONE_CALL], strict=True)
    ratio = summarize([ours / theirs for ours, theirs in pairs])
    return Target(what, "<= 1/2", format_ratio(ratio), ratio.median <= 0.5)


def _init(result: Result) -> Target:
    what = f"INIT above an empty handler: {OWN}"
    bound = f"<= 55 ms, or half of {REDIS_ASYNCIO}'s"
    names = (OWN, EMPTY, REDIS_ASYNCIO)
    if not all(name in result.cold for name in names):
        return Target(what, bound, None, None)
    own, empty, other = (result.cold[name]["init_ms"] for name in names)
    ours = median([a - b for a, b in zip(own, empty, strict=True)])
    theirs = median([a - b for a, b in zip(other, empty, strict=True)])
    text = f"{ours:.0f} ms, {ours / theirs:.2f}x of {theirs:.0f} ms"
    return Target(what, bound, text, ours <= 55 or ours <= theirs / 2)


def _one_more(result: Result) -> Target:
    what = f"one more record, 1 000 to 2 000 / 100 to 1 000 distinct: {OWN}"
    warms = [result.find(f"{n} distinct", ZONE, ONE_VCPU_MB) for n in ("100", "1 000", "2 000")]
    if any(warm is None or OWN not in warm.samples_ms for warm in warms):
        return Target(what, "<= 1.30x", None, None)
    points = [(w.records, median(w.samples_ms[OWN])) for w in warms if w is not None]
    (a, at_a), (b, at_b), (c, at_c) = points
    reached = ((at_c - at_b) / (c - b)) / ((at_b - at_a) / (b - a))
    return Target(what, "<= 1.30x", f"{reached:.2f}x", reached <= 1.3)


def is_ranked(warm: Warm, name: str) -> bool:
    """Whether a contestant's time may be compared: it did the whole job, and rightly."""
    return name not in UNRANKED and warm.verdicts.get(name) == "right"
