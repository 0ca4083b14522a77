"""The circuit and the read budget: tables of what each does at which time."""

from __future__ import annotations

import pytest

from asyncsync.reader.bucket import TokenBucket
from asyncsync.reader.circuit import Circuit
from asyncsync.reader.limits import CIRCUIT_FAILURES, CIRCUIT_PAUSE_S

PAUSE = CIRCUIT_PAUSE_S


def opened(now_s: float = 0.0) -> Circuit:
    circuit = Circuit()
    for _ in range(CIRCUIT_FAILURES):
        circuit.fail(now_s)
    return circuit


def test_the_last_of_so_many_failures_in_a_row_opens_it() -> None:
    circuit = Circuit()
    for _ in range(CIRCUIT_FAILURES - 1):
        circuit.fail(0.0)
        assert (circuit.state, circuit.allows(0.0)) == ("closed", True)

    circuit.fail(0.0)

    assert (circuit.state, circuit.allows(0.0)) == ("open", False)


def test_a_success_between_starts_the_count_again() -> None:
    circuit = Circuit()
    for _ in range(5 * CIRCUIT_FAILURES):
        circuit.fail(0.0)
        assert circuit.state == "closed"
        circuit.succeed()


def test_after_each_pause_one_probe_is_allowed() -> None:
    circuit = opened()

    allowed = [circuit.allows(at * PAUSE / 4) for at in range(13)]

    assert [at for at, allows in enumerate(allowed) if allows] == [4, 8, 12]
    assert circuit.state == "half-open"


def test_a_probe_that_succeeds_closes_it_and_one_that_fails_opens_it_again() -> None:
    circuit = opened()
    assert circuit.allows(PAUSE)
    circuit.fail(PAUSE)
    assert (circuit.state, circuit.allows(PAUSE * 1.5)) == ("open", False)
    assert circuit.allows(PAUSE * 2)

    circuit.succeed()

    assert (circuit.state, circuit.allows(PAUSE * 2)) == ("closed", True)


def test_requests_that_fail_late_do_not_put_the_probe_off() -> None:
    """A frozen server lets all requests of a moment time out together."""
    circuit = opened(1.0)
    for _ in range(100):
        circuit.fail(1.0)

    assert circuit.allows(1.0 + PAUSE)


@pytest.mark.parametrize(
    ("steps", "answers"),
    [
        # (tokens, now_s, the longest wait) and what each gets, at 10 a second
        ([(10, 0.0, 0.0), (1, 0.0, 0.0)], [0.0, None]),
        ([(10, 0.0, 0.0), (1, 0.1, 0.0)], [0.0, 0.0]),
        ([(10, 0.0, 0.0), (1, 0.0, 0.1)], [0.0, pytest.approx(0.1)]),
        # a wait is a debt: the next one waits behind it
        ([(10, 0.0, 0.0), (5, 0.0, 1.0), (5, 0.0, 2.0)], [0.0, 0.5, 1.0]),
        # what is refused costs nothing
        ([(10, 0.0, 0.0), (9, 0.0, 0.1), (1, 0.0, 0.1)], [0.0, None, pytest.approx(0.1)]),
        # more than a second's worth waits, and is never impossible
        ([(15, 0.0, 1.0)], [0.5]),
        ([(15, 0.0, 0.4)], [None]),
        # at most one second's worth is saved
        ([(10, 0.0, 0.0), (10, 100.0, 0.0), (1, 100.0, 0.0)], [0.0, 0.0, None]),
        # a clock that goes back brings nothing
        (
            [(10, 5.0, 0.0), (1, 4.0, 0.0), (1, 5.125, 0.0), (1, 5.125, 0.0)],
            [0.0, None, 0.0, None],
        ),
    ],
)
def test_the_bucket_gives(
    steps: list[tuple[int, float, float]], answers: list[float | None]
) -> None:
    bucket = TokenBucket(10, 0.0)

    assert [bucket.reserve(*step) for step in steps] == answers
