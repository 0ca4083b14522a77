"""Mirror.redis_key and redis_value: what they say is what the handler writes."""

from __future__ import annotations

import time
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asyncsync import Config, ConfigError, Mirror, RecordError
from asyncsync.copy.plain import dynamodb_json
from asyncsync.testing import insert, memory_copy, stream_event

NOW_S = 1_767_225_600.0


def mirror_of(function: Any = None, transform: Any = None, **config: Any) -> Mirror:
    return Mirror(
        Config(redis_url="redis://unused", **config),
        key=function,
        transform=transform,
        emit=lambda _: None,
    )


# --- they are the handler's ---------------------------------------------------------------------

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.text(max_size=6),
    st.binary(max_size=6),
    st.integers(-(10**37), 10**37),
    st.decimals(-(10**9), 10**9, places=4),
    st.frozensets(st.integers(-99, 99), min_size=1, max_size=3),
    st.frozensets(st.text(max_size=3), min_size=1, max_size=3),
)
ATTRIBUTES = st.dictionaries(
    st.text("abcHidden", min_size=1, max_size=6),
    st.recursive(
        SCALARS,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)
        ),
        max_leaves=5,
    ),
    max_size=4,
)
KEY_VALUES = st.one_of(
    st.text(min_size=1, max_size=8),
    st.text(":{}!%ab", min_size=1, max_size=6),
    st.just("x" * 2_040),
    st.binary(min_size=1, max_size=6),
    st.integers(-(10**20), 10**20),
    st.decimals(-99, 99, places=2),
)
KEYS = st.dictionaries(st.sampled_from(["Id", "Sort"]), KEY_VALUES, min_size=1, max_size=2)


def hashed(keys: Any) -> str:
    return "!".join(sorted(f"{name}{value}" for name, value in keys.items()))


def chosen(item: dict[str, object]) -> Any:
    if "a" in item:
        return None
    if "b" in item:
        return repr(sorted(item)).encode()
    return {name: value for name, value in item.items() if name not in ("c", "Id")}


MIRRORS = [
    {},
    {"value": "dynamodb-json"},
    {"mode": "invalidate"},
    {"key": "{{tag}}:{@table}:{@key}!f"},
    {"ttl_attribute": "Ends"},
    {"ttl_s": 1_000},
]


@pytest.mark.parametrize("options", [*MIRRORS, {"own": True}], ids=str)
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(
    keys=KEYS,
    attributes=ATTRIBUTES,
    ends=st.sampled_from([None, "text", 0, -1, 1, NOW_S - 10, NOW_S, NOW_S + 10, 4e9, 10**30]),
)
def test_they_are_what_a_handled_event_writes(
    options: Any, keys: Any, attributes: Any, ends: Any
) -> None:
    if options == {"own": True}:
        options = {"function": hashed, "transform": chosen}
    if ends is not None:
        # Beside the clock of the fake server, far enough that no second between matters.
        ends = ends if isinstance(ends, str) else Decimal(str(ends)) - int(NOW_S - time.time())
        attributes = {**attributes, "Ends": ends}
    attributes = {name: each for name, each in attributes.items() if name not in keys}
    mirror = mirror_of(**options)

    with memory_copy(mirror) as copy:
        answer = copy.mirror.lambda_handler(stream_event(insert(keys, attributes)))
        assert answer == {"batchItemFailures": []}
        stored: Any = copy.redis.keys()
        names = {name.decode() for name in stored}
        name = mirror.redis_key(keys, table="Players")
        fences = {each for each in names if each.endswith("!f") and each != name}

        value = mirror.redis_value({**keys, **attributes})
        assert names - fences == ({name} if value is not None else set())
        assert len(fences) == 1
        assert copy.redis.get(name) == value


@given(keys=KEYS, attributes=ATTRIBUTES)
def test_dynamodb_json_gives_the_same(keys: Any, attributes: Any) -> None:
    mirror = mirror_of()
    image = {**attributes, **keys}

    assert mirror.redis_key(dynamodb_json(keys), table="T") == mirror.redis_key(keys, table="T")
    assert mirror.redis_value(dynamodb_json(image)) == mirror.redis_value(image)


def test_an_item_with_maps_beside_its_key_is_plain() -> None:
    """Only attributes that are all maps are DynamoDB JSON: an item's key never is one."""
    mirror = mirror_of()

    assert mirror.redis_value({"Id": 1, "x": {"S": "y"}}) == b'{"Id":1,"x":{"S":"y"}}'
    assert mirror.redis_value({"Id": {"N": "1"}, "x": {"S": "y"}}) == b'{"Id":1,"x":"y"}'


# --- names --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "keys", "table", "name"),
    [
        ("{@table}:{@key}", {"Number": 10}, "Players", "Players:10"),
        ("{@table}:{@key}", {"Number": Decimal("10.0")}, "Players", "Players:10"),
        ("{@table}:{@key}", {"b": "x:y", "a": b"\1\2"}, "T", "T:AQI=:x%3Ay"),
        (
            "{@table}:{@key}",
            {"a": 1},
            "arn:aws:dynamodb:eu-central-1:123456789012:table/Players",
            "Players:1",
        ),
        ("player:{Number}", {"Number": -1.5}, None, "player:-1.5"),
        ("player:{Number}", {"Number": {"N": "7"}}, None, "player:7"),
        ("player:{Number}", {"Number": {"N": "7", "S": None}}, None, "player:7"),
    ],
)
def test_a_name(template: str, keys: Any, table: str | None, name: str) -> None:
    assert mirror_of(key=template).redis_key(keys, table=table) == name


def test_a_template_that_uses_the_table_asks_for_it() -> None:
    with pytest.raises(TypeError, match=r"'\{@table\}:\{@key\}' uses the table's name: call"):
        mirror_of().redis_key({"Number": 10})
    assert Mirror(
        Config(redis_url="redis://unused"), key=lambda keys: "player-" + keys["Number"]["N"]
    ).redis_key({"Number": 10}) == ("player-10")


@pytest.mark.parametrize("table", ["", "a b", "a/b", "arn:aws:s3:::bucket", "Players\n"])
def test_a_table_that_is_none_is_refused(table: str) -> None:
    with pytest.raises(ValueError, match="is neither a table's name nor a table's ARN"):
        mirror_of().redis_key({"Number": 10}, table=table)


def test_a_template_that_does_not_fit_the_keys_is_refused() -> None:
    with pytest.raises(ConfigError, match="ASYNCSYNC_KEY uses the key attributes"):
        mirror_of(key="player:{Number}").redis_key({"Id": 10})


@pytest.mark.parametrize(
    ("keys", "path"),
    [
        ({}, ()),
        ({"a": 1, "b": 2, "c": 3}, ()),
        ({"a": ""}, ("a",)),
        ({"a": b""}, ("a",)),
        ({"a": {"N": "x"}}, ("a",)),
        ({"a": {"S": ""}}, ("a",)),
        ({"a": {"S": "x", "N": "1"}}, ("a",)),
        ({"a": True}, ()),
        ({"a": None}, ()),
        ({"a": [1]}, ()),
        ({"a": {1}}, ()),
        ({"a": 1, "b": {"S": "x"}}, ()),
    ],
)
def test_keys_that_are_none_are_refused_with_their_path(keys: Any, path: tuple[str, ...]) -> None:
    with pytest.raises(RecordError) as refused:
        mirror_of().redis_key(keys, table="T")

    assert refused.value.path == path
    assert str(refused.value) == ".".join(path) + (": " if path else "") + refused.value.reason


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda keys: keys["Nmuber"]["N"], "the key function raised KeyError"),
        (lambda keys: 7, "the key function returned int"),
        (lambda keys: "", "the key function returned str; it must return a non-empty string"),
        (lambda keys: "\ud800", "that is not UTF-8"),
    ],
)
def test_a_key_function_that_fails_is_a_record_error(function: Any, words: str) -> None:
    with pytest.raises(RecordError, match=words):
        mirror_of(function).redis_key({"Number": 7})


# --- values -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "value"),
    [
        ({}, b'{"Id":1,"n":1.5,"b":"AA==","s":[1,2,10]}'),
        ({"mode": "refresh"}, b'{"Id":1,"n":1.5,"b":"AA==","s":[1,2,10]}'),
        ({"mode": "invalidate"}, None),
        (
            {"value": "dynamodb-json"},
            b'{"Id":{"N":"1"},"n":{"N":"1.5"},"b":{"B":"AA=="},"s":{"NS":["1","10","2"]}}',
        ),
    ],
)
def test_a_value_in_each_mode_and_format(config: Any, value: bytes | None) -> None:
    image = {"Id": 1, "n": Decimal("1.50"), "b": b"\0", "s": {10, 1, 2}}

    assert mirror_of(**config).redis_value(image) == value


def test_an_expired_item_has_no_value_by_the_mirrors_clock() -> None:
    mirror = Mirror(
        Config(redis_url="redis://unused", ttl_attribute="Ends"), wall_clock=lambda: NOW_S
    )

    assert mirror.redis_value({"Id": 1, "Ends": int(NOW_S) + 1}) is not None
    assert mirror.redis_value({"Id": 1, "Ends": int(NOW_S)}) is None
    assert mirror.redis_value({"Id": 1, "Ends": "soon"}) == b'{"Id":1,"Ends":"soon"}'


def test_a_transform_that_fails_shows_its_own_exception() -> None:
    """The message is the log's, without values; the cause is the user's, to debug with."""

    def transform(item: dict[str, object]) -> dict[str, object]:
        return {"x": item["Nmae"]}

    with pytest.raises(RecordError, match="the transform raised KeyError") as refused:
        mirror_of(transform=transform).redis_value({"Id": 1})

    assert isinstance(refused.value.__cause__, KeyError)
    assert refused.traceback[-1].name != "transform"
    assert refused.value.__cause__.__traceback__ is not None


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ({"Id": {"N": "1"}, "x": {"L": [{"N": "1"}, {"N": "1e"}]}}, "x.1: N is not a number"),
        ({"Id": {"N": "1"}, "x": {"M": {"y": {"B": "?"}}}}, "x.y: B is not base64 text"),
        ({"Id": {"N": "1"}, "x": {"Q": "1"}}, "x: attribute type 'Q' is unknown"),
        ({"Id": {"N": "1"}, "x": {}}, "x: an attribute value has 0 types, not one"),
    ],
)
def test_an_image_that_cannot_be_encoded_names_the_attribute(image: Any, words: str) -> None:
    with pytest.raises(RecordError, match=words):
        mirror_of().redis_value(image)
    with pytest.raises(TypeError, match=r"y\.0: DynamoDB has no type for object"):
        mirror_of().redis_value({"Id": 1, "y": [object()]})
