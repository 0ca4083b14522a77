"""What a command writes goes where it belongs: answers to one stream, the rest to another."""

from __future__ import annotations

import io

import pytest

from asyncsync.tools.output import (
    INTERVAL_S,
    TERMINAL_INTERVAL_S,
    Output,
    rate_and_left,
)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class Clock:
    """A clock that a test sets."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_answers_and_notes_go_to_their_own_streams() -> None:
    out, err = io.StringIO(), io.StringIO()
    output = Output(out, err)

    output.line("stale    Players:7")
    output.document({"keys": 7, "name": "zoë"})
    output.note("resume with the same arguments")

    assert out.getvalue() == 'stale    Players:7\n{"format":1,"keys":7,"name":"zoë"}\n'
    assert err.getvalue() == "resume with the same arguments\n"


@pytest.mark.parametrize(
    ("err", "interval_s"), [(io.StringIO(), INTERVAL_S), (Terminal(), TERMINAL_INTERVAL_S)]
)
def test_progress_is_at_most_one_line_in_an_interval_with_the_time_in_front(
    err: io.StringIO, interval_s: float
) -> None:
    out, clock = io.StringIO(), Clock()
    output = Output(out, err, clock=clock)

    assert not output.progress("begun")
    clock.now_s += interval_s
    assert output.progress("1 of 3")
    clock.now_s += interval_s - 0.1
    assert not output.progress("2 of 3")
    clock.now_s += 0.1
    assert output.progress("3 of 3")

    texts = [f"{interval_s:7.1f} s  1 of 3", f"{2 * interval_s:7.1f} s  3 of 3"]
    line = "\r\x1b[K{}" if err.isatty() else "{}\n"  # a terminal's line is updated
    assert err.getvalue() == "".join(line.format(text) for text in texts)
    assert out.getvalue() == ""


def test_the_interval_is_an_argument() -> None:
    err = Terminal()
    output = Output(io.StringIO(), err, interval_s=0)

    assert [output.progress(str(at)) for at in range(3)] == [True] * 3
    assert len(err.getvalue().splitlines()) == 3


@pytest.mark.parametrize(
    ("done", "expected", "took_s", "text"),
    [
        (0, 0, 0, "0/s"),
        (10, 0, 5, "2/s"),
        (10, 10, 5, "2/s"),
        (2_000, 3_000, 1, "2,000/s, about 0 s left"),
        (10, 1_000, 1, "10/s, about 1 min 39 s left"),
        (1, 10_000, 1, "1/s, about 2 h 46 min left"),
    ],
)
def test_a_rate_says_how_long_the_rest_takes_where_that_is_known(
    done: int, expected: int, took_s: float, text: str
) -> None:
    assert rate_and_left(done, expected, took_s) == text
