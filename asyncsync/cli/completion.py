"""Shell completion: a bash script with every command and option, which zsh can use, too."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from asyncsync.cli.parser import CommandParser

_BASH = """\
_asyncsync() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} words=
    if ((COMP_CWORD == 1)); then
        words="{commands}"
    else
        case ${{COMP_WORDS[1]}} in
{cases}
        esac
    fi
    case $word in
        -*) COMPREPLY=($(compgen -W "$words" -- "$word")) ;;
        *) if ((COMP_CWORD == 1)); then
               COMPREPLY=($(compgen -W "$words" -- "$word"))
           else
               COMPREPLY=($(compgen -f -- "$word"))
           fi ;;
    esac
}}
complete -F _asyncsync asyncsync"""

_ZSH = "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n"


def script(parser: CommandParser, shell: str) -> str:
    """Return the script for bash or zsh."""
    commands = parser.commands()
    cases = "\n".join(
        f'            {name}) words="{" ".join(_options(command))}" ;;'
        for name, command in commands.items()
    )
    top = " ".join([*commands, *_options(parser)])
    return (_ZSH if shell == "zsh" else "") + _BASH.format(commands=top, cases=cases)


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:  # noqa: SLF001 (argparse has no public list)
        yield from (option for option in action.option_strings if option.startswith("--"))
