"""Stage 3, names: two items never share one, and every template can be read back."""

from __future__ import annotations

import re
from binascii import crc_hqx
from hashlib import sha256
from itertools import product
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from asyncsync.config import Config
from asyncsync.copy.names import parse_name
from asyncsync.errors import ConfigError, RecordError
from asyncsync.keys import (
    Placeholder,
    Template,
    bind,
    escape,
    from_function,
    hash_tag,
    parse_template,
    redis_names,
    render,
)
from asyncsync.limits import NAME_BYTES_MAX
from asyncsync.model import Key

TABLE = "Players"


def key(**texts: str) -> Key:
    return tuple((name, "S", text) for name, text in sorted(texts.items()))


def bound_of(template: str, *names: str) -> Template:
    return bind(parse_template(template), TABLE, names)


def name_of(template: str, **texts: str) -> bytes:
    return redis_names(render(bound_of(template, *sorted(texts)), key(**texts)))[0]


def slot(name: bytes) -> int:
    """Return the slot by Redis's own rule (cluster specification, hash tags)."""
    opening = name.find(b"{")
    if opening >= 0:
        closing = name.find(b"}", opening + 1)
        if closing > opening + 1:
            name = name[opening + 1 : closing]
    return crc_hqx(name, 0) % 16_384


def test_the_slot_oracle_gives_what_redis_gives() -> None:
    # The cluster specification's check value and its examples of hash tags.
    assert slot(b"123456789") == 0x31C3
    assert slot(b"{user1000}.following") == slot(b"{user1000}.followers") == slot(b"user1000")
    assert slot(b"foo{}{bar}") == crc_hqx(b"foo{}{bar}", 0) % 16_384
    assert slot(b"foo{{bar}}zap") == slot(b"{bar")
    assert slot(b"foo{bar}{zap}") == slot(b"bar")


# --- templates ----------------------------------------------------------------------------------

# Literals and values are made of the same few characters, so that they can be mistaken.
LITERALS = st.text(":{}%!25a", max_size=4)
PLACEHOLDERS = st.sampled_from(["{A}", "{B}", "{@table}", "{@key}"])


@st.composite
def templates(draw: st.DrawFn) -> str:
    """A template of the key attributes A and B, as a user would type it."""
    text = ""
    for placeholder in draw(st.permutations(["{A}", "{B}"])) + draw(
        st.lists(PLACEHOLDERS, max_size=2)
    ):
        literal = draw(LITERALS)
        text += literal.replace("{", "{{").replace("}", "}}") + placeholder
    return text + draw(LITERALS).replace("{", "{{").replace("}", "}}")


TRICKY = ["".join(text) for n in (1, 2) for text in product("%25:a", repeat=n)]
TRICKY += ["%25", "25%", "%3A", "3A", "7B", "!f", "{a}", "}{", "%%25"]


def accepted(text: str) -> Template:
    try:
        return bind(parse_template(text), TABLE, ("A", "B"))
    except ConfigError:
        assume(False)
        raise


@settings(deadline=None)
@given(templates())
@example("{@table}:{@key}")
@example("{A}%:{B}")
@example("{A}{{{B}")
@example("{A}%%{B}")
@example("{A}%a{B}")
@example("{A}5:{B}")
def test_no_accepted_template_gives_two_items_one_name(text: str) -> None:
    bound = accepted(text)

    names = {render(bound, key(A=a, B=b)) for a, b in product(TRICKY, repeat=2)}

    assert len(names) == len(TRICKY) ** 2


@settings(deadline=None)
@given(templates(), st.text(min_size=1), st.text(min_size=1))
@example("{@table}:{@key}", "%", "%25")
@example("{A}%a{B}%a{A}", "\n", "a")
def test_every_name_is_read_back_to_its_key(text: str, a: str, b: str) -> None:
    bound = accepted(text)
    name = render(bound, key(A=a, B=b))

    if redis_names(name)[0] == name:
        assert parse_name(bound, name) == {"A": a, "B": b}
    else:
        assert parse_name(bound, redis_names(name)[0]) is None


@settings(deadline=None)
@given(templates(), st.text(":{}%!25Aab", max_size=12))
@example("{A}:{B}", "a%5:b")
@example("{A}:{B}:{A}", "a:b:a")
@example("{A}:{B}:{A}", "a:b:c")
@example("{A}:{B}", "a!:b")
def test_what_can_be_read_back_is_written_the_same_way(text: str, name: str) -> None:
    bound = accepted(text)

    read = parse_name(bound, name.encode())

    assert read is None or render(bound, key(**read)) == name.encode()


@pytest.mark.parametrize("name", [b"", b"a", b"a:", b":b", b"a:b:c", b"a:%5:", b"a:\xff", b"a:!"])
def test_what_is_no_name_of_a_template_is_not_read(name: bytes) -> None:
    assert parse_name(bound_of("{A}:{B}", "A", "B"), name) is None


@pytest.mark.parametrize(
    ("template", "texts", "name"),
    [
        ("{@table}:{@key}", {"Number": "7"}, b"Players:7"),
        ("{@table}:{@key}", {"b": "2", "a": "1"}, b"Players:1:2"),
        ("prod:{@table}:{@key}", {"Number": "7"}, b"prod:Players:7"),
        ("player:{Number}", {"Number": "7"}, b"player:7"),
        ("{{user:{U}}}:order:{O}", {"U": "1", "O": "9"}, b"{user:1}:order:9"),
        ("{{players}}:{Number}", {"Number": "7"}, b"{players}:7"),
        ("{A}:{B}", {"A": "a:b", "B": "c"}, b"a%3Ab:c"),
        ("{A}:{B}", {"A": "a", "B": "b:c"}, b"a:b%3Ac"),
        ("{A}", {"A": "%:{}!"}, b"%25%3A%7B%7D%21"),
        ("{A}", {"A": "25 3A é/+=\n"}, "25 3A é/+=\n".encode()),
        ("!{A}!", {"A": "x"}, b"!x!"),
    ],
)
def test_names_stay_readable(template: str, texts: dict[str, str], name: bytes) -> None:
    assert name_of(template, **texts) == name


@settings(deadline=None)
@given(st.text())
def test_only_the_five_reserved_characters_are_encoded(text: str) -> None:
    obvious = "".join(f"%{ord(c):02X}" if c in "%:{}!" else c for c in text)

    assert escape(text) == obvious


NO_SEPARATOR = "two key attributes need a literal between them"


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{Number", "a { is not closed; write {{ for a literal one"),
        ("a:{", "a { is not closed; write {{ for a literal one"),
        ("Number}", "a } has no {; write }} for a literal one"),
        ("{A}}", "a } has no {; write }} for a literal one"),
        ("{}", "{} names no attribute"),
        ("{a{b}", "{a{b} names no attribute"),
        ("{@nope}", "{@nope} is unknown; {@table} and {@key} are known"),
        ("", "it uses no key attribute: every item would have one name"),
        ("player", "it uses no key attribute: every item would have one name"),
        ("{@table}", "it uses no key attribute: every item would have one name"),
        ("{A}{B}", NO_SEPARATOR),
        ("{A}-{B}", NO_SEPARATOR),
        ("{A}!{B}", NO_SEPARATOR),
        ("{A}{@table}{B}", NO_SEPARATOR),
        ("{@key}{A}", NO_SEPARATOR),
        ("{A}:{B}{C}", NO_SEPARATOR),
        ("{A}%{B}", NO_SEPARATOR),
        ("{A}x%{B}", NO_SEPARATOR),
        ("{A}%2{B}", NO_SEPARATOR),
        ("{A}%3{B}", NO_SEPARATOR),
        ("{A}%7{B}", NO_SEPARATOR),
        ("{A}%{@table}{B}", NO_SEPARATOR),
    ],
)
def test_a_template_that_cannot_name_items_is_refused(template: str, reason: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_template(template)

    message = str(refused.value)
    assert message.startswith(f"ASYNCSYNC_KEY={template!r}: ")
    assert reason in message
    assert "\n" not in message


def test_a_lone_percent_sign_would_give_two_items_one_name() -> None:
    # Why "{A}%{B}" is refused: an escape may begin in the literal and end in the value.
    unchecked: Template = (Placeholder("A"), "%", Placeholder("B"))

    assert render(unchecked, key(A="x", B="25%")) == render(unchecked, key(A="x%", B="25"))


def test_templates_of_settings_are_checked_with_them() -> None:
    with pytest.raises(ConfigError, match=r"ASYNCSYNC_KEY='\{A\}\{B\}'"):
        Config(redis_url="redis://h", key="{A}{B}")


@pytest.mark.parametrize(
    ("template", "names"),
    [
        ("{A}", ("A", "B")),
        ("{A}:{B}", ("A",)),
        ("{Number}", ("number",)),
        ("{@key}:{Other}", ("Number",)),
    ],
)
def test_a_template_of_another_key_is_refused_by_name(
    template: str, names: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError) as refused:
        bind(parse_template(template), TABLE, names)

    assert f"the key of table 'Players' is {sorted(names)}" in str(refused.value)


# --- names of any function ----------------------------------------------------------------------

NAMES = st.one_of(
    st.text("{}!f:ab", min_size=1, max_size=8),
    st.text(min_size=1, max_size=8),
    st.builds(
        lambda text, at: text * at, st.text("{}!aé", min_size=1, max_size=3), st.just(2_001)
    ),
    st.builds(lambda text: f"{text}!{'0' * 64}", st.text("{}a", max_size=3)),
    st.builds(lambda text: f"{text}{'x' * 4_000}", st.text("{}a", max_size=3)),
    st.builds(lambda text: f"{{{'x' * 4_000}{text}", st.text("{}a", max_size=3)),
).map(str.encode)


@settings(deadline=None)
@given(NAMES)
@example(b"{player:1}!f")
@example(b"a}b")
@example(b"a{b")
@example(b"{}x")
@example(b"}{")
@example(b"{}{a}")
@example(b"{a}{b}")
@example(b"!f")
@example(b"{a!f")
@example(b"!" + b"0" * 64)
@example(b"{t}!" + b"0" * 64)
def test_a_fence_is_in_its_values_slot_and_within_the_limits(name: bytes) -> None:
    settled, fence = redis_names(name)

    assert slot(settled) == slot(fence)
    assert fence != settled
    assert len(settled) <= NAME_BYTES_MAX
    assert len(fence) <= NAME_BYTES_MAX + 4 <= 4_096
    settled.decode()  # both stay text that people can read
    fence.decode()


@settings(deadline=None)
@given(NAMES)
def test_no_name_ends_like_a_fence_and_every_fence_does(name: bytes) -> None:
    settled, fence = redis_names(name)

    assert not settled.endswith(b"!f")
    assert fence.endswith(b"!f")
    assert redis_names(fence)[0] != fence


@settings(deadline=None)
@given(NAMES)
def test_a_name_that_is_settled_again_is_never_taken_for_another(name: bytes) -> None:
    settled, _ = redis_names(name)

    # A function that returns what is a name already must not meet the name's own item.
    assert settled == name or redis_names(settled)[0] != settled


@settings(deadline=None)
@given(st.lists(NAMES, unique=True, max_size=8))
def test_two_names_stay_two(names: list[bytes]) -> None:
    assert len({redis_names(name)[0] for name in names}) == len(names)


@settings(deadline=None)
@given(st.lists(NAMES, unique=True, max_size=8))
@example([b"x", b"{x}"])
def test_two_names_never_share_a_fence(names: list[bytes]) -> None:
    assert len({redis_names(name)[1] for name in names}) == len(names)


@pytest.mark.parametrize(
    ("name", "fence"),
    [
        (b"player:1", b"{player:1}!f"),
        (b"{user:1}:order:9", b"{user:1}:order:9!f"),
        (b"a!b", b"{a!b}!f"),
        (b"a{b", b"{a{b}!f"),
        (b"a{b}c", b"a{b}c!f"),
    ],
)
def test_a_name_with_room_for_a_fence_stays_as_it_is(name: bytes, fence: bytes) -> None:
    assert redis_names(name) == (name, fence)


def hashed(readable: bytes, name: bytes) -> bytes:
    return readable + b"!" + sha256(name).hexdigest().encode()


@pytest.mark.parametrize(
    ("name", "readable"),
    [
        (b"{player:1}!f", b"{player:1}!f"),  # begins and ends like a fence, keeps its tag
        (b"x!f", b"x!f"),
        (b"a}b", b"a"),  # {a}b}!f would be in the slot of a
        (b"{}x", b""),
        (b"}{", b""),
        (b"a{}b{c}", b"a"),
        (b"x!" + b"0" * 64, b"x!" + b"0" * 64),  # looks hashed
        (b"{t}!" + b"f" * 64, b"{t}!" + b"f" * 64),
        (b"{t}" + b"x" * 3_998, b"{t}" + b"x" * 3_932),
        (b"x" * 4_001, b"x" * 3_935),
        (b"x{" + b"t" * 4_000 + b"}", b"x"),  # the tag itself is cut
        ("é".encode() * 2_001, "é".encode() * 1_967),  # 3 934 bytes: never half a character
    ],
)
def test_a_name_without_room_for_a_fence_ends_in_its_hash(name: bytes, readable: bytes) -> None:
    settled, fence = redis_names(name)

    assert settled == hashed(readable, name)
    assert slot(settled) == slot(fence)


def test_names_of_exactly_4000_bytes_stay_and_of_4001_are_hashed() -> None:
    assert redis_names(b"x" * 4_000)[0] == b"x" * 4_000
    assert redis_names(b"x" * 4_001)[0] == hashed(b"x" * 3_935, b"x" * 4_001)
    assert redis_names(b"{t}" + b"x" * 3_997)[0] == b"{t}" + b"x" * 3_997
    assert len(redis_names(b"{t}" + b"x" * 3_998)[0]) == 4_000


def test_keys_of_three_kilobytes_of_colons_are_two_names_of_4000_bytes() -> None:
    one = name_of("{@table}:{@key}", pk=":" * 2_048, sk=":" * 1_024)
    other = name_of("{@table}:{@key}", pk=":" * 2_047, sk=":" * 1_024)

    assert one != other
    assert len(one) <= 4_000
    assert one.startswith(b"Players:%3A%3A")
    assert re.fullmatch(rb"Players:[%3A]+![0-9a-f]{64}", one)


@pytest.mark.parametrize(
    ("name", "tag"),
    [(b"a", None), (b"{}a", None), (b"}a{b}", b"b"), (b"{{a}}", b"{a"), (b"{a", None)],
)
def test_a_hash_tag_is_what_a_cluster_takes(name: bytes, tag: bytes | None) -> None:
    assert hash_tag(name) == tag
    assert slot(name) == crc_hqx(name if tag is None else tag, 0) % 16_384


# --- the user's function ------------------------------------------------------------------------


def test_a_key_function_gets_the_key_attributes_as_dynamodb_json() -> None:
    def function(keys: Any) -> str:
        return f"{keys['A']['S']}/{keys['N']['N']}"

    assert from_function(function, (("A", "S", "x"), ("N", "N", "1.5"))) == b"x/1.5"


@pytest.mark.parametrize(
    ("returned", "reason"),
    [
        (None, "the key function returned NoneType; it must return a non-empty string"),
        (b"x", "the key function returned bytes; it must return a non-empty string"),
        ("", "the key function returned str; it must return a non-empty string"),
        ("\ud800", "the key function returned a string that is not UTF-8"),
    ],
)
def test_a_key_function_that_returns_no_string_is_a_reject(returned: Any, reason: str) -> None:
    with pytest.raises(RecordError) as rejected:
        from_function(lambda _: returned, key(A="x"))

    assert rejected.value.reason == reason


def test_a_key_function_that_raises_rejects_the_record_without_its_message() -> None:
    def function(keys: Any) -> str:
        raise LookupError("secret value")

    with pytest.raises(RecordError) as rejected:
        from_function(function, key(A="x"))

    assert rejected.value.reason == "the key function raised LookupError"
