"""Numbers, binary values and images as DynamoDB writes them, for hypothesis to draw."""

from __future__ import annotations

from base64 import b64encode
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st


def plain_notation(digits: int, exponent: int, sign: str) -> str:
    """Write a number as DynamoDB does: trimmed, never with an exponent."""
    number = Decimal(f"{sign}{digits}E{exponent}")
    text = format(number, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if not number else text


# 38 significant digits, 1E-130 to 9.99E+125 (DynamoDB's naming rules and data types).
LEGAL_NUMBERS = st.builds(
    lambda digits, top, sign: plain_notation(digits, top - len(str(digits)) + 1, sign),
    st.integers(0, 10**38 - 1),
    st.integers(-130 + 37, 125),
    st.sampled_from(["", "-"]),
)
SMALL_NUMBERS = st.one_of(
    st.integers(-(10**37), 10**37).map(str),
    st.builds(plain_notation, st.integers(0, 10**20), st.integers(-30, 10), st.just("-")),
)
BASE64 = st.binary(max_size=6).map(lambda raw: b64encode(raw).decode())

# --- images -----------------------------------------------------------------------------------

Image = dict[str, Any]

# What could be taken for the image's own punctuation, for a template's or for a pattern's.
ODD = [
    "S",
    "N",
    "M",
    "L",
    "%",
    "%b",
    "%%",
    "(.*)",
    "\\",
    '"',
    '{"S":"',
    '"}',
    "},{",
    "é",
    "東",
    "\n",
]
ODD += ["\x00", "\x7f", "\u2028", '","', "]", "a,b", "\\u0041", "/"]
TEXT = st.one_of(
    st.sampled_from(ODD), st.text(max_size=5), st.lists(st.sampled_from(ODD)).map("".join)
)
NUMBERS = st.one_of(
    LEGAL_NUMBERS,
    st.integers(-300, 300).map(str),
    st.builds(plain_notation, st.integers(0, 99), st.integers(-3, 3), st.just("-")),
    st.sampled_from(["1E5", "-0", "1e-999", "0.10", "9" * 5_000]),
)


def set_of(members: st.SearchStrategy[str]) -> st.SearchStrategy[list[str]]:
    return st.lists(members, min_size=1, max_size=4)


LEAVES: dict[str, st.SearchStrategy[Any]] = {
    "S": TEXT,
    "N": NUMBERS,
    "B": BASE64,
    "BOOL": st.booleans(),
    "NULL": st.just(True),
    "SS": set_of(TEXT),
    "NS": set_of(NUMBERS),
    "BS": set_of(BASE64),
}
ATTRIBUTES = st.recursive(
    st.one_of([st.fixed_dictionaries({tag: values}) for tag, values in LEAVES.items()]),
    lambda inner: st.one_of(
        st.fixed_dictionaries({"L": st.lists(inner, max_size=3)}),
        st.fixed_dictionaries({"M": st.dictionaries(TEXT, inner, max_size=3)}),
    ),
    max_leaves=8,
)
IMAGES = st.dictionaries(TEXT, ATTRIBUTES, max_size=5)


def alike(image: Image) -> st.SearchStrategy[Image]:
    """Draw images of the same shape: same names, same tags, other values."""

    def attribute(tagged: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
        ((tag, value),) = tagged.items()
        if tag == "M":
            return st.fixed_dictionaries({tag: alike(value)})
        if tag == "L":
            return st.fixed_dictionaries({tag: st.tuples(*map(attribute, value)).map(list)})
        return st.fixed_dictionaries({tag: LEAVES[tag]})

    drawn = st.fixed_dictionaries({name: attribute(tagged) for name, tagged in image.items()})
    return drawn.map(lambda other: {name: other[name] for name in image})  # the order is the shape


def plainly_escaped(raw: bytes) -> bool:
    return rb"\u" not in raw
