"""What a command writes goes where it belongs: answers to one stream, the rest to another."""

from __future__ import annotations

import io
import time

import pytest

from asyncsync.tools.output import (
    INTERVAL_S,
    TERMINAL_INTERVAL_S,
    Output,
    plural,
    rate_and_left,
    share_of,
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


def test_progress_is_cleared_before_anything_else_is_written_to_the_terminal() -> None:
    out, err = io.StringIO(), Terminal()
    clock = Clock()
    output = Output(out, err, clock=clock)
    clock.now_s += 1
    output.progress("1 of 3")

    output.line("answer")
    output.note("note")

    assert err.getvalue() == "\r\x1b[K    1.0 s  1 of 3\r\x1b[Knote\n"
    assert out.getvalue() == "answer\n"


def test_a_quiet_output_has_answers_and_warnings_only() -> None:
    out, err = io.StringIO(), io.StringIO()
    output = Output(out, err, interval_s=0, is_quiet=True)

    output.progress("1 of 3")
    output.note("note")
    output.warn("warning")
    output.line("answer")

    assert (out.getvalue(), err.getvalue()) == ("answer\n", "warning\n")


@pytest.mark.parametrize("is_quiet", [False, True])
def test_the_ticker_says_what_a_silent_command_waits_for(is_quiet: bool) -> None:
    err = io.StringIO()
    output = Output(io.StringIO(), err, interval_s=0.02, is_quiet=is_quiet)

    with output.ticking():
        output.waits_for("Redis at cache:6379")
        time.sleep(0.2)
        output.progress("5 of 9")
        time.sleep(0.2)

    lines = err.getvalue().splitlines()
    waits = [line for line in lines if line.endswith(" s  waiting for Redis at cache:6379")]
    assert (len(waits) > 1) == (not is_quiet)
    assert any(line.endswith(" s  5 of 9") for line in lines) == (not is_quiet)


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        (80, "[########------------]     1.0 s  41 %  5 of 12"),
        (48, "[########------------]     1.0 s  41 %  5 of 12"),
        (47, "    1.0 s  41 %  5 of 12"),  # no room for the bar
        (20, "    1.0 s  41 %  5 "),
    ],
)
def test_a_terminal_has_a_bar_where_there_is_room(
    monkeypatch: pytest.MonkeyPatch, columns: int, shown: str
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    err, clock = Terminal(), Clock()
    output = Output(io.StringIO(), err, clock=clock)
    clock.now_s += 1

    output.progress("5 of 12", share_of(5, 12))

    assert err.getvalue() == f"\r\x1b[K{shown}"


@pytest.mark.parametrize(
    ("done", "expected", "share"),
    [(0, 4, 0.0), (1, 4, 0.25), (4, 4, None), (5, 4, None), (0, 0, None), (3, 0, None)],
)
def test_a_share_is_known_only_below_what_is_expected(
    done: int, expected: int, share: float | None
) -> None:
    """DynamoDB counts a table's items every six hours: more may come than it says."""
    assert share_of(done, expected) == share


@pytest.mark.parametrize(
    ("out", "has_colour", "text"),
    [
        (Terminal(), True, "\x1b[31mfix\x1b[0m"),
        (Terminal(), False, "fix"),
        (io.StringIO(), True, "fix"),  # a file wants no colour
    ],
)
def test_colour_is_for_a_terminal_that_wants_it(
    out: io.StringIO, has_colour: bool, text: str
) -> None:
    assert Output(out, io.StringIO(), has_colour=has_colour).painted("fix", "red") == text


def test_a_paragraph_is_wrapped_only_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    text = "   12.1 s  Redis is back after 3.0 s, and the handler goes on where it was"
    terminal, file = Terminal(), io.StringIO()

    Output(file, io.StringIO()).paragraph(text, 11)
    Output(terminal, io.StringIO()).paragraph(text, 11)

    assert file.getvalue() == f"{text}\n"
    lines = terminal.getvalue().splitlines()
    assert max(map(len, lines)) <= 40
    assert all(line.startswith(" " * 11) for line in lines[1:])


@pytest.mark.parametrize(
    ("count", "noun", "nouns", "text"),
    [
        (0, "orphan", "", "0 orphans"),
        (1, "orphan", "", "1 orphan"),
        (2_000, "orphan", "", "2,000 orphans"),
        (1, "batch", "batches", "1 batch"),
        (3, "batch", "batches", "3 batches"),
    ],
)
def test_a_count_agrees_with_its_noun(count: int, noun: str, nouns: str, text: str) -> None:
    assert plural(count, noun, nouns) == text
