"""The share of right keys and its bound, compared with scipy."""

from __future__ import annotations

from math import floor
from random import Random

import pytest
from scipy.stats import beta, binomtest

from asyncsync.tools.audit.confidence import (
    CONFIDENCE,
    bound_percent,
    highest_miss_rate,
    lower_bound,
    percent,
)

SIZES = [1, 2, 3, 10, 100, 12_345, 1_000_000, 100_000_000]


@pytest.mark.parametrize("keys", SIZES)
def test_the_bound_is_scipys_at_the_ends(keys: int) -> None:
    for differ in {0, 1, keys - 1, keys}:
        exact = binomtest(keys - differ, keys, alternative="greater")
        expected = exact.proportion_ci(CONFIDENCE, "exact").low

        assert lower_bound(keys - differ, keys) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("keys", SIZES)
def test_the_rate_of_misses_is_scipys_to_nine_digits(keys: int) -> None:
    chance = Random(keys)
    for confidence in (0.5, 0.95, 0.999):
        for differ in {0, 1, keys // 3, keys // 2, keys - 1, chance.randrange(keys)} - {keys}:
            expected = beta.ppf(confidence, differ + 1, keys - differ)

            assert highest_miss_rate(differ, keys, confidence) == pytest.approx(expected, rel=1e-7)


def test_no_difference_has_a_bound_that_can_be_written_down() -> None:
    """The rate is 1 - 0.05 ** (1 / n): about 3 in n."""
    for keys in SIZES:
        assert lower_bound(keys, keys) == pytest.approx(0.05 ** (1 / keys))


def test_a_share_is_cut_and_never_rounded_up() -> None:
    assert percent(1_000_000, 1_000_000) == "100 %"
    assert percent(999_990, 1_000_000) == "99.999 %"
    assert percent(999_999, 1_000_000) == "99.9999 %"
    assert percent(2, 3) == "66 %"
    assert percent(99_999_999, 100_000_000) == "99.999999 %"
    assert percent(0, 5) == "0 %"
    assert percent(1, 1) == "100 %"


def test_a_bound_is_written_to_a_digit_more_than_its_nines_and_cut() -> None:
    assert bound_percent(1_000_000, 1_000_000) == "99.99970 %"
    assert bound_percent(999_990, 1_000_000) == "99.9983 %"
    assert bound_percent(100, 100) == "97.0 %"
    assert bound_percent(50, 100) == "41 %"
    assert bound_percent(0, 100) == "0 %"
    for keys in SIZES:
        for differ in (0, 1):
            said = float(bound_percent(keys - differ, keys).removesuffix(" %"))
            assert said <= lower_bound(keys - differ, keys) * 100 + 1e-9


def test_it_holds_as_often_as_it_says() -> None:
    """If 99 % of the keys are right, at most one sample in twenty has a bound above that."""
    chance = Random(7)
    above, rounds = 0, 2_000
    bounds = [lower_bound(same, 300) for same in range(301)]
    for _ in range(rounds):
        above += bounds[sum(chance.random() < 0.99 for _ in range(300))] > 0.99

    assert above <= floor(rounds * 0.065)  # 0.05 and three deviations
    assert above > 0
