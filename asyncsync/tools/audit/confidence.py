"""The share of keys that are right, from a sample, with a bound that can be trusted.

The bound is Clopper and Pearson's lower one: whatever the true share is, at most one sample in
twenty gives a bound above it. Pure, with the standard library's mathematics alone.
"""

from __future__ import annotations

from math import expm1, floor, lgamma, log, log1p

CONFIDENCE = 0.95

# More Newton steps than any sample needs: each doubles the digits that are right.
_STEPS_MAX = 100


def lower_bound(same: int, keys: int, confidence: float = CONFIDENCE) -> float:
    """Return the lowest share of the whole that fits a sample of which `same` keys match."""
    return 1.0 - highest_miss_rate(keys - same, keys, confidence)


def highest_miss_rate(differ: int, keys: int, confidence: float = CONFIDENCE) -> float:
    """Return the highest share of differing keys that fits a sample of which `differ` do.

    At that rate a sample with no more differences has the chance 1 - confidence. The rate is
    computed, not one less it, because it is small and would lose its digits.
    """
    assert 0 <= differ <= keys, "a part of the sample"
    if differ == keys:
        return 1.0
    same = keys - differ
    log_choose = lgamma(keys + 1) - lgamma(differ + 1) - lgamma(same + 1)
    # By x = -log(1 - rate): so the log of the chance is concave, and Newton's steps converge.
    x = -log1p(-(differ + 1) / (keys + 1))
    for _ in range(_STEPS_MAX):
        rate = -expm1(-x)
        log_chance = log_choose + (differ * log(rate) if differ else 0.0) - same * x
        tail = term = 1.0  # the chances of `differ`, `differ` - 1, ..., in units of the first
        for count in range(differ, 0, -1):
            term *= count / (keys - count + 1) / expm1(x)
            tail += term
            if term < 1e-17 * tail:
                break
        step = (log_chance + log(tail) - log1p(-confidence)) * tail / same
        x += step
        if abs(step) <= 1e-10 * x:  # the next step would be its square
            break
    return -expm1(-x)


def percent(same: int, keys: int) -> str:
    """Return a share in percent, cut and never rounded up: 100 only if all are the same."""
    if same == keys:
        return "100 %"
    places = max(0, len(str(keys)) - 2)
    scale: int = 10**places
    whole, rest = divmod(100 * scale * same // keys, scale)
    digits = f"{rest:0{places}}".rstrip("0") if places else ""
    return f"{whole}.{digits} %" if digits else f"{whole} %"


def bound_percent(same: int, keys: int, confidence: float = CONFIDENCE) -> str:
    """Return the lower bound in percent, cut to one digit more than its nines."""
    missed = highest_miss_rate(keys - same, keys, confidence)
    places = max(0, floor(-log(missed, 10)))  # nines after the percent's first two, and two more
    scale: int = 10**places
    whole, rest = divmod(floor((1.0 - missed) * 100 * scale), scale)
    return f"{whole}.{rest:0{places}} %" if places else f"{whole} %"
