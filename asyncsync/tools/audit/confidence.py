"""What share of the keys is right, from a sample: as nines, and a bound that can be trusted.

The bound is Clopper and Pearson's lower one: whatever the true share is, at most one sample in
twenty gives a bound above it. Pure, and of the standard library's mathematics alone.
"""

from __future__ import annotations

from math import exp, floor, lgamma, log, log1p

CONFIDENCE = 0.95

_TINY = 1e-300


def lower_bound(same: int, keys: int, confidence: float = CONFIDENCE) -> float:
    """Return the least share of the whole that a sample of keys with so many the same allows."""
    return 1.0 - highest_miss_rate(keys - same, keys, confidence)


def highest_miss_rate(differ: int, keys: int, confidence: float = CONFIDENCE) -> float:
    """Return the greatest share of keys that may differ where so many of a sample do.

    At it, a sample with no more differences than these has the chance 1 - confidence. It is
    computed, not one less it, because it is the small one and would lose its digits.
    """
    assert 0 <= differ <= keys, "a part of the sample"
    if differ == keys:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(200):
        middle = (low + high) / 2
        if not low < middle < high:
            break
        # P(at most `differ` of `keys`) falls as the rate rises.
        if _beta(middle, differ + 1, keys - differ) < confidence:
            low = middle
        else:
            high = middle
    return high


def _beta(x: float, a: float, b: float) -> float:
    """Return the regularized incomplete beta function I_x(a, b), for 0 < x < 1."""
    front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log1p(-x))
    if x < (a + 1) / (a + b + 2):
        return front * _fraction(x, a, b) / a
    return 1.0 - front * _fraction(1 - x, b, a) / b


def _fraction(x: float, a: float, b: float) -> float:
    """Evaluate its continued fraction from the front, as Lentz does.

    It converges within some square root of the greater parameter's terms (DLMF 8.17.22).
    """
    c, d = 1.0, 1.0 / _not_0(1.0 - (a + b) * x / (a + 1.0))
    value = d
    for m in range(1, 1_000 + 10 * int((a + b) ** 0.5)):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1.0 / _not_0(1.0 + term * d)
            c = _not_0(1.0 + term / c)
            value *= c * d
        if abs(c * d - 1.0) < 1e-15:
            break
    return value


def _not_0(value: float) -> float:
    return value if abs(value) > _TINY else _TINY


def percent(same: int, keys: int) -> str:
    """Write a share in percent, cut and never rounded up: it says 100 only where all are."""
    if same == keys:
        return "100 %"
    places = max(0, len(str(keys)) - 2)
    scale: int = 10**places
    whole, rest = divmod(100 * scale * same // keys, scale)
    digits = f"{rest:0{places}}".rstrip("0") if places else ""
    return f"{whole}.{digits} %" if digits else f"{whole} %"


def bound_percent(same: int, keys: int, confidence: float = CONFIDENCE) -> str:
    """Write the lower bound in percent, cut to a digit more than its nines."""
    missed = highest_miss_rate(keys - same, keys, confidence)
    places = max(0, floor(-log(missed, 10)))  # nines after the percent's first two, and two more
    scale: int = 10**places
    whole, rest = divmod(floor((1.0 - missed) * 100 * scale), scale)
    return f"{whole}.{rest:0{places}} %" if places else f"{whole} %"
