"""Every regular expression means the same on every Python that the project supports.

Python 3.11.2, which Debian 12 has, gets possessive repetitions and atomic groups wrong: there
`(?:[eE][0-9]++)?+` matches the "e" of "1e".
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from asyncsync import decode
from asyncsync.decode import HAS_POSSESSIVE, NUMBER, possessive
from asyncsync.shapes import shape_of
from asyncsync.values import parse_image
from tests.support.project.package import ROOT, label, modules, parse

# A repetition with a + behind it, or an atomic group, in a pattern's text.
WRONG_IN_3_11_2 = re.compile(r"(?<!\\)(?:[*+?]|(?<=[0-9,])\})\+|\(\?>")


def texts(path: Path) -> Iterator[str]:
    """Yield every string of a module, except docstrings and what `possessive` is called with."""
    tree = parse(path)
    apart = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "HAS_POSSESSIVE":
            apart |= {id(part) for part in ast.walk(node)}
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == possessive.__name__:
            apart |= {id(part) for part in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in apart:
            if isinstance(node.value, bytes):
                yield node.value.decode("latin-1")
            elif isinstance(node.value, str):
                yield node.value


@pytest.mark.parametrize("text", [r"a*+", r"a++", r"a?+", r"a{1,3}+", r"(?>a)", r"(?:ab)?+"])
def test_the_search_finds_what_is_wrong(text: str) -> None:
    assert WRONG_IN_3_11_2.search(text)


@pytest.mark.parametrize("path", [*modules(), *modules(ROOT / "scripts")], ids=label)
def test_a_pattern_is_possessive_only_through_the_function_that_knows_better(path: Path) -> None:
    assert not [text for text in texts(path) if WRONG_IN_3_11_2.search(text)]


@pytest.mark.skipif(HAS_POSSESSIVE, reason="this Python has them right")
def test_no_pattern_of_a_shape_is_possessive_or_atomic_on_python_3_11_2() -> None:
    image = parse_image(
        b'{"s":{"S":"x"},"n":{"N":"1"},"b":{"B":"AA=="},"t":{"BOOL":true},"z":{"NULL":true},'
        b'"ss":{"SS":["x"]},"ns":{"NS":["1"]},"bs":{"BS":["AA=="]},"l":{"L":[{"M":{}}]}}'
    )
    shape = shape_of(image)

    assert shape is not None
    assert not WRONG_IN_3_11_2.search(shape.pattern.decode())
    assert not WRONG_IN_3_11_2.search(NUMBER.pattern)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        (r"[a+]*+b++c?+d{2}+", r"[a+]*b+c?d{2}"),
        (r"[+-]?+x+[/*]{1,3}+", r"[+-]?x+[/*]{1,3}"),
    ],
)
def test_a_possessive_pattern_is_plain_on_python_3_11_2(
    text: str, plain: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for has_possessive, pattern in ((True, text), (False, plain)):
        monkeypatch.setattr(decode, "HAS_POSSESSIVE", has_possessive)

        assert possessive(text) == pattern


@pytest.mark.parametrize(
    "text",
    ["1e", "1E", "1e+", "1.5e", "1.", "-", "-e", "1e1000", "1e1e", "01", ".5", "1.5.", "--1"],
)
def test_half_a_number_is_no_number(text: str) -> None:
    assert NUMBER.fullmatch(text) is None
    assert re.fullmatch(rb'"(%b)"' % NUMBER.pattern.encode(), b'"%b"' % text.encode()) is None


@pytest.mark.parametrize("text", ["0", "-0", "1", "-1.50", "1e5", "1E+40", "9.9e-130", "1.5E125"])
def test_a_whole_number_is_one(text: str) -> None:
    assert NUMBER.fullmatch(text)
