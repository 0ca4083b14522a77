"""Help, hints and completion: what a stranger sees."""

from __future__ import annotations

import argparse
import os
import pty
import re
import select
import subprocess
import time
from pathlib import Path
from shutil import which

import pytest

from asyncsync.cli.arguments import build_parser
from asyncsync.cli.completion import script
from asyncsync.cli.exit_codes import EXIT_CODES
from asyncsync.cli.main import COMMANDS, main
from tests.support.project.command_line import ended
from tests.support.servers import lacking

PARSER = build_parser()
WORDS_MAX = 12
OPTIONS = [
    (name, action)
    for name, parser in PARSER.commands().items()
    for action in parser._actions
    if not isinstance(action, argparse._HelpAction)
]


def test_every_command_of_the_parser_runs() -> None:
    assert {*PARSER.commands()} == {*COMMANDS}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_commands_help_has_groups_and_examples_that_parse(name: str) -> None:
    text = PARSER.commands()[name].format_help()
    examples = re.findall(rf"^  asyncsync {name} ?(.*)$", text.split("examples:\n")[1], re.M)

    assert text.startswith(f"usage: asyncsync {name} ")
    assert EXIT_CODES in text
    assert 1 <= len(examples) <= 4
    for example in examples:
        words = example.split(" > ")[0].split(" >> ")[0].replace("'", "").split()
        assert PARSER.parse_args([name, *words]).command == name
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    ("command", "action"), OPTIONS, ids=[f"{name} {each.dest}" for name, each in OPTIONS]
)
def test_a_help_text_is_short_and_names_the_default(command: str, action: argparse.Action) -> None:
    assert action.help
    assert len(action.help.split()) <= WORDS_MAX
    default = action.default
    if action.option_strings and default is not None and not isinstance(default, bool):
        assert re.search(rf"\(default: {default:,g}\)", action.help)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["adit"], "asyncsync: error: there is no command adit; did you mean audit?"),
        (["bakcfill", "--table", "T"], "there is no command bakcfill; did you mean backfill?"),
        (["xyzzy"], "asyncsync: error: there is no command xyzzy."),
        (["--verison"], "there is no option --verison; did you mean --version?"),
        (["audit", "--tabel", "T"], "asyncsync audit: error: there is no option --tabel; did you"),
        (["audit", "--tabel=T"], "did you mean --table?"),
        (["get", "--jsno"], "there is no option --jsno; did you mean --json?"),  # and no KEY
        (["retire", "{A}", "--repair"], "asyncsync retire: error: there is no option --repair."),
        (["audit", "--table", "T", "extra"], "unexpected argument extra."),
        (["audit"], "asyncsync audit: error: give --table or --function."),
        (["get"], "asyncsync get: error: the following arguments are required: KEY."),
        (["completion", "fish"], "SHELL: invalid choice: 'fish'"),
    ],
)
def test_a_mistyped_word_is_one_line_with_a_hint(
    capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    code, out, err = ended(capsys, *words)

    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert re.search(r" See asyncsync (\w+ )?--help\n$", err)


BOUNDS = {
    "demo": {"--items": 10_000, "--changes": 1_000_000, "--seed": 10**12},
    "run": {"--batch-size": 10_000, "--exit-when-idle": 86_400},
    "backfill": {
        "--segments": 1_000,
        "--page-items": 100_000,
        "--max-rcu": 10_000_000,
    },
    "audit": {"--sample": 10**9, "--recheck-after": 3_600, "--max-rcu": 10_000_000},
    "estimate": {
        "--items": 10**12,
        "--item-bytes": 409_600,
        "--writes-per-s": 10_000_000,
        "--name-bytes": 4_000,
        "--fence-ttl-s": 31_536_000,
        "--ttl-s": 31_536_000,
        "--window-s": 300,
        "--batch-size": 10_000,
        "--shards": 100_000,
    },
    "index": {"--sample": 100_000},
    "simulate": {
        "--seeds": 10**9,
        "--first": 10**12,
        "--seed": 10**12,
        "--scope": 4,
        "--violations": 10_000,
        "--jobs": 256,
    },
}
WRONG_NUMBERS = ["-1", "1e99", "nan", "inf", "many", "", "1.5.1", "\u0661"]


@pytest.mark.parametrize(
    ("command", "option", "most"),
    [(command, *each) for command, options in BOUNDS.items() for each in options.items()],
)
def test_a_number_has_bounds_and_the_error_names_them(
    capsys: pytest.CaptureFixture[str], command: str, option: str, most: int
) -> None:
    for wrong in (str(most + 1), *WRONG_NUMBERS):
        code, out, err = ended(capsys, command, "--table", "T", f"{option}={wrong}")
        if command in ("demo", "simulate"):
            code, out, err = ended(capsys, command, f"{option}={wrong}")
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert f"{option}: must be a" in err
        assert f"{most:,}, not {wrong}" in err
    table = [] if command in ("demo", "simulate") else ["--table", "T"]
    table += ["name:text"] if command == "index" else []
    assert PARSER.parse_args([command, *table, f"{option}={most}"]).command == command


def test_every_number_has_its_bound_here() -> None:
    numbers = {
        (command, action.option_strings[-1])
        for command, action in OPTIONS
        if action.type is not None and action.option_strings
    }

    bounded = {(command, each) for command, options in BOUNDS.items() for each in options}
    assert numbers - bounded == {("backfill", "--only-segments")}


@pytest.mark.parametrize("wrong", ["7-3", "-1", "all", "0-1000", "1000", "1-2-3", ""])
def test_segments_have_bounds_too(capsys: pytest.CaptureFixture[str], wrong: str) -> None:
    words = ["backfill", "--table", "T", "--segments", "9", f"--only-segments={wrong}"]

    assert ended(capsys, *words)[0] == 2


def test_no_arguments_show_the_help_on_stderr_and_are_exit_2(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, err = ended(capsys)

    assert (code, out) == (2, "")
    assert err == PARSER.format_help()


# --- completion -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("asyncsync aud", ["audit"]),
        ("asyncsync re", ["redrive", "retire"]),
        ("asyncsync --v", ["--version"]),
        ("asyncsync audit --rep", ["--repair"]),
        (
            "asyncsync audit --table T --re",
            ["--recheck-after", "--redis-url", "--region", "--repair"],
        ),
        ("asyncsync retire --rep", []),
        ("asyncsync redrive par", ["parts/"]),
        ("asyncsync get --state pa", ["parts/"]),
    ],
)
def test_bash_completes_commands_options_and_files(
    tmp_path: Path, line: str, words: list[str]
) -> None:
    (tmp_path / "parts").mkdir()
    parts = line.split()
    program = f"""{script(PARSER, "bash")}
COMP_WORDS=({line}); COMP_CWORD={len(parts) - 1}
_asyncsync
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    ran = subprocess.run(
        ["bash", "--norc", "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )

    assert ran.stderr == ""
    assert sorted(ran.stdout.split()) == sorted(word.rstrip("/") for word in words)


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("asyncsync bac", "asyncsync backfill "),
        ("asyncsync audit --sam", "asyncsync audit --sample "),
        ("asyncsync audit --s", "--show-values"),
        ("asyncsync re", "retire"),
    ],
)
def test_zsh_completes_commands_and_options(tmp_path: Path, line: str, shown: str) -> None:
    if not which("zsh"):
        pytest.skip(lacking("zsh"))
    (tmp_path / ".zshrc").write_text(f"PS1='ready> '\n{script(PARSER, 'zsh')}\n")
    ours, theirs = pty.openpty()
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "ZDOTDIR": str(tmp_path)}
    with subprocess.Popen(
        ["zsh", "-i"], stdin=theirs, stdout=theirs, stderr=theirs, env={**env, "TERM": "dumb"}
    ) as process:
        os.close(theirs)
        try:
            read_until(ours, "ready> ")
            os.write(ours, f"{line}\t".encode())
            read_until(ours, shown)
        finally:
            process.kill()
    os.close(ours)


def read_until(terminal: int, text: str) -> None:
    """Read a terminal until a text comes."""
    read = b""
    ends_s = time.monotonic() + 20
    while text.encode() not in read:
        assert time.monotonic() < ends_s, read
        if select.select([terminal], [], [], 1)[0]:
            read += os.read(terminal, 65_536)


def test_the_completion_of_each_shell_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    bash = capsys.readouterr().out
    assert main(["completion", "zsh"]) == 0
    zsh = capsys.readouterr().out

    assert zsh.startswith("autoload")
    assert zsh.endswith(bash)
