"""Numbers and binary values as DynamoDB writes them, for hypothesis to draw."""

from __future__ import annotations

from base64 import b64encode
from decimal import Decimal

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
