"""The settings: a wrong one raises one line that says what is allowed, and never a secret."""

from __future__ import annotations

import re
from typing import Any, Literal, get_args, get_origin, get_type_hints
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.pretty import pretty_repr

from asyncsync.config import _CHOICES, _RANGES, Config, Server, parse_url
from asyncsync.errors import ConfigError, StoreUnavailable

URL = "redis://cache.internal:6380/2"
ENV = {"ASYNCSYNC_REDIS_URL": URL}
NAMES = list(Config.__struct_fields__)


def refusal(env: dict[str, str]) -> str:
    with pytest.raises(ConfigError) as refused:
        Config.from_env(env)
    message = str(refused.value)
    assert "\n" not in message
    return message


# --- what is right ------------------------------------------------------------------------------


def test_only_the_url_is_required_and_the_defaults_are_the_documented_ones() -> None:
    config = Config.from_env(ENV)

    assert {name: getattr(config, name) for name in NAMES} == {
        "redis_url": URL,
        "redis_password": None,
        "redis_ca_file": None,
        "redis_cluster": False,
        "redis_iam_cache": None,
        "key": "{@table}:{@key}",
        "value": "json",
        "fields": None,
        "mode": "mirror",
        "fence": "on",
        "fence_ttl_s": 90_000,
        "ttl_s": None,
        "ttl_attribute": None,
        "rejects": "report",
        "on_failure": "report",
        "timeout_ms": 2_000,
        "metrics": "summary",
        "raw_event": "auto",
        "log_keys": False,
    }


def test_every_setting_is_read_from_the_environment() -> None:
    env = {
        "ASYNCSYNC_REDIS_URL": "rediss://cache",
        "ASYNCSYNC_REDIS_PASSWORD": "secret",
        "ASYNCSYNC_REDIS_CA_FILE": "ca.pem",
        "ASYNCSYNC_REDIS_CLUSTER": "false",
        "ASYNCSYNC_KEY": "p:{Number}",
        "ASYNCSYNC_VALUE": "dynamodb-json",
        "ASYNCSYNC_FIELDS": "Name,Score",
        "ASYNCSYNC_MODE": "refresh",
        "ASYNCSYNC_FENCE": "off",
        "ASYNCSYNC_FENCE_TTL_S": "86400",
        "ASYNCSYNC_TTL_S": "60",
        "ASYNCSYNC_TTL_ATTRIBUTE": "Ends",
        "ASYNCSYNC_REJECTS": "skip",
        "ASYNCSYNC_ON_FAILURE": "raise",
        "ASYNCSYNC_TIMEOUT_MS": "500",
        "ASYNCSYNC_METRICS": "trouble",
        "ASYNCSYNC_RAW_EVENT": "false",
        "ASYNCSYNC_LOG_KEYS": "TRUE",
    }

    config = Config.from_env(env)

    for name, text in env.items():
        value = getattr(config, name.removeprefix("ASYNCSYNC_").lower())
        assert str(value).lower() == text.lower()
    assert (config.fence_ttl_s, config.ttl_s, config.log_keys) == (86_400, 60, True)
    assert (config.server.tls, config.server.password) == (True, "secret")
    assert config.server.ca_file == "ca.pem"


def test_other_names_and_the_tests_own_are_not_looked_at() -> None:
    others = {"PATH": "x", "asyncsync_mode": "x", "ASYNCSYNC_TEST_ANYTHING": "x"}

    assert Config.from_env({**ENV, **others}) == Config.from_env(ENV)


def test_an_empty_value_is_one_that_is_not_set() -> None:
    empty = {f"ASYNCSYNC_{name.upper()}": "" for name in NAMES if name != "redis_url"}

    assert Config.from_env({**empty, **ENV}) == Config.from_env(ENV)
    assert "ASYNCSYNC_REDIS_URL is not set" in refusal({"ASYNCSYNC_REDIS_URL": ""})


def test_the_choices_that_are_checked_are_those_that_are_typed() -> None:
    typed = {
        name: tuple(choice for choice in get_args(hint) if choice is not False)
        for name, hint in get_type_hints(Config).items()
        if get_origin(hint) is Literal
    }

    assert typed == _CHOICES


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in _CHOICES.items() for value in values]
)
def test_every_choice_is_taken(name: str, value: str) -> None:
    config = Config.from_env({**ENV, f"ASYNCSYNC_{name.upper()}": value})

    assert getattr(config, name) == value


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(AttributeError, match="immutable"):
        Config(redis_url=URL).mode = "refresh"  # type: ignore[misc]


# --- what is wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", _CHOICES)
def test_a_wrong_choice_is_refused_with_all_that_is_allowed(name: str) -> None:
    message = refusal({**ENV, f"ASYNCSYNC_{name.upper()}": "nonsense"})

    assert message == (
        f"ASYNCSYNC_{name.upper()}='nonsense' is not allowed; "
        f"allowed is {' or '.join(_CHOICES[name])}"
    )


@pytest.mark.parametrize(
    ("name", "value", "nearest"),
    [
        ("MODE", "Mirror", "mirror"),
        ("VALUE", "dynamo-json", "dynamodb-json"),
        ("ON_FAILURE", "rasie", "raise"),
    ],
)
def test_a_choice_that_is_nearly_right_is_corrected(name: str, value: str, nearest: str) -> None:
    assert refusal({**ENV, f"ASYNCSYNC_{name}": value}).endswith(f"; did you mean {nearest}?")


@pytest.mark.parametrize("value", ["hash", "redis-json"])
def test_what_the_fences_script_writes_needs_the_fence(value: str) -> None:
    message = refusal({**ENV, "ASYNCSYNC_VALUE": value, "ASYNCSYNC_FENCE": "off"})

    assert message == f"ASYNCSYNC_VALUE={value!r} needs fence=on: the fence's script writes it"


def test_fields_are_attribute_names_between_commas() -> None:
    config = Config.from_env({**ENV, "ASYNCSYNC_FIELDS": "Name, High Score,Name"})

    assert config.field_names == {"Name", "High Score"}
    assert Config(redis_url=URL).field_names == frozenset()


@pytest.mark.parametrize("text", [",", "Name,", ",Name", "Name,,Score", " ", "Name, ,Score"])
def test_an_empty_field_is_refused(text: str) -> None:
    assert refusal({**ENV, "ASYNCSYNC_FIELDS": text}) == (
        f"ASYNCSYNC_FIELDS={text!r} is not allowed; "
        "allowed is attribute names between commas: Name,Score"
    )


def test_fields_have_no_use_without_values() -> None:
    message = refusal({**ENV, "ASYNCSYNC_FIELDS": "Name", "ASYNCSYNC_MODE": "invalidate"})

    assert "has no use with mode=invalidate" in message


@pytest.mark.parametrize("name", _RANGES)
def test_a_number_is_allowed_up_to_its_edges_and_not_past_them(name: str) -> None:
    low, high = _RANGES[name]
    setting = f"ASYNCSYNC_{name.upper()}"

    for inside in (low, high):
        assert getattr(Config.from_env({**ENV, setting: str(inside)}), name) == inside
    for outside in (low - 1, high + 1):
        assert refusal({**ENV, setting: str(outside)}) == (
            f"{setting}={outside} is not allowed; "
            f"allowed is a whole number from {low:,} to {high:,}"
        )


def test_the_edges_are_the_documented_ones() -> None:
    assert _RANGES == {
        "fence_ttl_s": (86_400, 3_153_600_000),
        "ttl_s": (1, 3_153_600_000),
        "timeout_ms": (1, 900_000),
    }


@pytest.mark.parametrize("name", _RANGES)
@pytest.mark.parametrize("text", ["x", "1.5", "-1", "1_000", " 5", "1e5", "\u0665", "90000s"])
def test_what_is_no_whole_number_is_refused(name: str, text: str) -> None:
    low, high = _RANGES[name]
    setting = f"ASYNCSYNC_{name.upper()}"

    assert refusal({**ENV, setting: text}) == (
        f"{setting}={text!r} is not allowed; allowed is a whole number from {low:,} to {high:,}"
    )


def test_a_number_of_any_length_is_refused_as_a_setting() -> None:
    assert "ASYNCSYNC_TTL_S=" in refusal({**ENV, "ASYNCSYNC_TTL_S": "9" * 5_000})


@pytest.mark.parametrize("name", ["redis_cluster", "log_keys"])
@pytest.mark.parametrize("text", ["yes", "1", "on", "tru"])
def test_what_is_neither_true_nor_false_is_refused(name: str, text: str) -> None:
    setting = f"ASYNCSYNC_{name.upper()}"

    assert refusal({**ENV, setting: text}) == (
        f"{setting}={text!r} is not allowed; allowed is true or false"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"log_keys": "true"}, "ASYNCSYNC_LOG_KEYS='true' is not allowed; allowed is true or"),
        ({"ttl_s": True}, "ASYNCSYNC_TTL_S=True is not allowed; allowed is a whole number"),
        ({"ttl_s": 1.0}, "ASYNCSYNC_TTL_S=1.0 is not allowed; allowed is a whole number"),
        ({"timeout_ms": None}, "ASYNCSYNC_TIMEOUT_MS=None is not allowed; allowed is a whole"),
        ({"fence_ttl_s": "90000"}, "ASYNCSYNC_FENCE_TTL_S='90000' is not allowed"),
        ({"mode": None}, "ASYNCSYNC_MODE=None is not allowed; allowed is mirror or refresh or"),
        ({"value": ["json"]}, "ASYNCSYNC_VALUE=['json'] is not allowed"),
        ({"key": None}, "ASYNCSYNC_KEY=None is not allowed; allowed is a non-empty string"),
        ({"key": ""}, "ASYNCSYNC_KEY='' is not allowed; allowed is a non-empty string"),
        ({"key": "{"}, "ASYNCSYNC_KEY='{': a { is not closed"),
        ({"ttl_attribute": ""}, "ASYNCSYNC_TTL_ATTRIBUTE='' is not allowed"),
        ({"ttl_attribute": 5}, "ASYNCSYNC_TTL_ATTRIBUTE=5 is not allowed"),
        ({"redis_ca_file": b"x"}, "ASYNCSYNC_REDIS_CA_FILE=b'x' is not allowed"),
        ({"redis_url": None}, "ASYNCSYNC_REDIS_URL='' is not allowed; allowed is a non-empty"),
        ({"redis_url": b"redis://:secret@h"}, "ASYNCSYNC_REDIS_URL='' is not allowed"),
        ({"redis_password": b"secret"}, "ASYNCSYNC_REDIS_PASSWORD='' is not allowed"),
    ],
)
def test_an_argument_of_a_wrong_type_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Config(**{"redis_url": URL, **arguments})

    assert str(refused.value).startswith(message)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (
            {"REDIS_IAM_CACHE": "c"},
            "ASYNCSYNC_REDIS_IAM_CACHE='c' needs a rediss:// URL",
        ),
        (
            {"REDIS_IAM_CACHE": "c", "REDIS_URL": "rediss://h"},
            "ASYNCSYNC_REDIS_IAM_CACHE='c' needs a user in the URL",
        ),
        (
            {"REDIS_IAM_CACHE": "c", "REDIS_URL": "rediss://u:secret@h"},
            "ASYNCSYNC_REDIS_IAM_CACHE='c' replaces the password",
        ),
        (
            {"REDIS_IAM_CACHE": "c", "REDIS_URL": "rediss://u@h", "REDIS_PASSWORD": "secret"},
            "ASYNCSYNC_REDIS_IAM_CACHE='c' replaces the password",
        ),
        (
            {"REDIS_IAM_CACHE": "c.abc.use1.cache.amazonaws.com", "REDIS_URL": "rediss://u@h"},
            "ASYNCSYNC_REDIS_IAM_CACHE='c.abc.use1.cache.amazonaws.com' is no cache's name",
        ),
        (
            {"REDIS_IAM_CACHE": "c", "REDIS_URL": "unix://u@/tmp/r.sock"},
            "ASYNCSYNC_REDIS_IAM_CACHE='c' needs a rediss:// URL",
        ),
        (
            {"REDIS_CLUSTER": "true", "REDIS_URL": "unix:///tmp/s"},
            "ASYNCSYNC_REDIS_CLUSTER=True needs a TCP URL, not unix://",
        ),
        (
            {"REDIS_CLUSTER": "true", "REDIS_URL": "redis://h/1"},
            "ASYNCSYNC_REDIS_CLUSTER=True needs database 0, not 1",
        ),
        (
            {"MODE": "invalidate", "TTL_S": "5"},
            "ASYNCSYNC_TTL_S=5 has no use with mode=invalidate",
        ),
        (
            {"MODE": "invalidate", "TTL_ATTRIBUTE": "E"},
            "ASYNCSYNC_TTL_ATTRIBUTE='E' has no use with mode=invalidate",
        ),
        (
            {"REDIS_CA_FILE": "ca.pem"},
            "ASYNCSYNC_REDIS_CA_FILE='ca.pem' needs a rediss:// URL",
        ),
    ],
)
def test_a_combination_that_makes_no_sense_is_refused(env: dict[str, str], message: str) -> None:
    prefixed = {f"ASYNCSYNC_{name}": text for name, text in env.items()}

    message_shown = refusal({**ENV, **prefixed})
    assert message_shown.startswith(message)
    assert "secret" not in message_shown


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("ASYNCSYNC_MOD", "ASYNCSYNC_MODE"),
        ("ASYNCSYNC_REDIS_PASWORD", "ASYNCSYNC_REDIS_PASSWORD"),
        ("ASYNCSYNC_TTL", "ASYNCSYNC_TTL_S"),
    ],
)
def test_an_unknown_name_is_refused_with_its_nearest(name: str, nearest: str) -> None:
    message = refusal({**ENV, name: "secret"})

    assert message == f"{name} is no setting; did you mean {nearest}?"


def test_a_name_that_is_near_nothing_is_refused_alone() -> None:
    assert refusal({**ENV, "ASYNCSYNC_": "x", "OTHER": "y"}).startswith("ASYNCSYNC_ is no setting")
    assert refusal({**ENV, "ASYNCSYNC_XQZWKJVVVVVVVVVVVVVVVVVV": "x"}).endswith("is no setting")


def test_a_computed_field_is_no_setting() -> None:
    assert refusal({**ENV, "ASYNCSYNC_SERVER": "x"}).startswith("ASYNCSYNC_SERVER is no setting")


# --- URLs ---------------------------------------------------------------------------------------


def server(**parts: Any) -> Server:
    plain = {
        "host": "h",
        "port": 6379,
        "path": "",
        "tls": False,
        "database": 0,
        "username": "",
        "password": "",
    }
    return Server(**{**plain, **parts})


@pytest.mark.parametrize(
    ("url", "read"),
    [
        ("valkey://h:7000/3", server(port=7000, database=3)),
        ("valkeys://u:p@h", server(tls=True, username="u", password="p")),
        ("VALKEYS://h", server(tls=True)),
        ("redis://h", server()),
        ("redis://h/", server()),
        ("redis://h:7000/3", server(port=7000, database=3)),
        ("redis://h?db=4", server(database=4)),
        ("rediss://h", server(tls=True)),
        ("redis://:p@h", server(password="p")),
        ("redis://u@h", server(username="u")),
        ("redis://u:p%40s%2Fs%3A%25@h", server(username="u", password="p@s/s:%")),
        ("redis://u%40x:p@h", server(username="u@x", password="p")),
        ("redis://u:a:b@h", server(username="u", password="a:b")),
        ("redis://[::1]:7000", server(host="::1", port=7000)),
        ("unix:///tmp/r.sock", server(host="", path="/tmp/r.sock")),
        ("unix:///tmp/r.sock?db=5", server(host="", path="/tmp/r.sock", database=5)),
        ("unix:///tmp/a%20b", server(host="", path="/tmp/a b")),
        (
            "unix://u:p@/tmp/r.sock",
            server(host="", path="/tmp/r.sock", username="u", password="p"),
        ),
    ],
)
def test_a_url_is_read_as_any_redis_url(url: str, read: Server) -> None:
    assert parse_url(url) == read


def as_urllib_reads_it(url: str) -> Server | None:
    """Read a URL by urllib, the slow oracle, and refuse port 0 and fragments as we do."""
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname or ""
    except ValueError:
        return None
    query = parts.query
    database = query[3:] if query.startswith("db=") else parts.path.strip("/") or "0"
    if parts.scheme not in ("redis", "rediss") or not host or port == 0 or "#" in url:
        return None
    if not (database.isascii() and database.isdigit()) or query.removeprefix("db=") == "timeout=5":
        return None
    return server(
        host=host,
        port=port or 6379,
        tls=parts.scheme == "rediss",
        database=int(database),
        username=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
    )


PIECES = (
    ("redis", "rediss", "REDIS", "http", ""),
    ("://", ":/", ":"),
    ("", "u@", "u:p@", ":p@", "u:a:b@", "u%40:p%2F@", "u:x@p@", "@"),
    ("h", "Cache.internal", "10.0.0.1", "[::1]", "[fe80::1", ""),
    ("", ":", ":1", ":0", ":65535", ":65536", ":x", ":1:2", ":+1"),
    ("", "/", "/0", "/15", "/x", "/1/2", "//1", "/-1"),
    ("", "?", "?db=3", "?db=", "?db=x", "?timeout=5", "#1"),
)


@settings(deadline=None, max_examples=500)
@given(st.tuples(*[st.sampled_from(piece) for piece in PIECES]).map("".join))
def test_a_url_is_read_as_urllib_reads_it(url: str) -> None:
    try:
        read: Server | None = parse_url(url)
    except ConfigError:
        read = None

    assert read == as_urllib_reads_it(url)


def test_an_explicit_password_wins_over_the_urls() -> None:
    assert parse_url("redis://u:old@h", "new").password == "new"
    assert parse_url("redis://u:old@h", None).password == "old"


def test_a_server_names_itself_without_credentials() -> None:
    tcp, unix = parse_url("redis://u:secret@h:7/1"), parse_url("unix://:secret@/tmp/r.sock")

    assert (tcp.address, tcp.user) == ("h:7", "u")
    assert (unix.address, unix.user) == ("/tmp/r.sock", "default")


@pytest.mark.parametrize(
    "url",
    [
        "cache.internal:6379",
        "http://h",
        "h",
        "redis://",
        "redis:///0",
        "redis://h:port",
        "redis://h:99999",
        "redis://h/x",
        "redis://h/-1",
        "redis://h/\u0661",
        "redis://h/0/1",
        f"redis://h/{'9' * 5_000}",
        "redis://h?db=x",
        "redis://h?db=",
        "redis://h?timeout=5",
        "redis://[::1",
        "unix://",
        "unix:///tmp/r?db=x",
        "redis+tls://h",
        "redis://h:0",
        "redis://h ",
    ],
)
def test_a_url_that_is_no_redis_url_is_refused_showing_what_is(url: str) -> None:
    message = refusal({"ASYNCSYNC_REDIS_URL": url})

    # What follows a ? may be a password, so it need not be shown.
    assert message.startswith(f"ASYNCSYNC_REDIS_URL='{url.partition('?')[0]}'")
    assert "is not allowed; allowed is redis://" in message
    for scheme in ("redis://[user:password@]host", "rediss://", "unix://"):
        assert scheme in message


@pytest.mark.parametrize(
    ("url", "shown", "part"),
    [
        ("rediss://h?ssl_cert_reqs=none", "rediss://h", "its option ssl_cert_reqs"),
        ("rediss://u:secret@h/0?ssl_cert_reqs=none", "h/0", "its option ssl_cert_reqs"),
        ("redis://h?db=1&timeout=5", "redis://h", "its option timeout"),
        ("redis://h?timeout=5&db=1", "redis://h", "its option timeout"),
        ("redis://h?password=secret", "redis://h", "its option password"),
        ("unix:///tmp/r?password=secret", "unix:///tmp/r", "its option password"),
        ("redis://h?secret", "redis://h", "what follows its ?"),
        ("redis://h?=secret", "redis://h", "what follows its ?"),
        ("redis://h?db=secret", "redis://h", "its database"),
        ("redis://u:secret@h/x", "h/x", "its database"),
        ("redis://h:99999", "redis://h:99999", "its port"),
        ("redis://h:0", "redis://h:0", "its port"),
        ("http://h", "http://h", "its scheme 'http'"),
        ("valkeyss://h", "valkeyss://h", "its scheme 'valkeyss'"),
        ("redis+tls://u:secret@h", "h", "its scheme 'redis+tls'"),
        ("h:6379", "h:6379", "its scheme"),
        ("redis://", "redis://", "without a host, its address"),
        ("redis://:secret@", "", "without a host, its address"),
        ("unix://", "unix://", "without a path, a unix:// URL"),
        ("unix://var/run/redis.sock", "unix://var/run/redis.sock", "a host beside a path"),
        ("redis://[::1", "redis://[::1", "a [ or ] that is not an IPv6 address's"),
        ("redis://h h", "redis://h h", "a blank, a # or a control character in it"),
        ("redis://u:secret#x@h", "h", "a blank, a # or a control character in it"),
        ("redis://u:sec/ret@h", "h", "an @ behind a / or a ?"),
        ("redis://u:sec?ret@h", "h", "an @ behind a / or a ?"),
        # Who forgot the host wrote a password where the port belongs.
        ("redis://user:secret-word", "redis://user:...", "its port"),
        ("redis://:secret", "redis://:...", "without a host, its address"),
        ("redis://:s", "redis://:...", "without a host, its address"),
        ("user:secret-word", "user:...", "its scheme"),
    ],
)
def test_the_part_of_a_url_that_is_wrong_is_named_and_no_secret(
    url: str, shown: str, part: str
) -> None:
    message = refusal({"ASYNCSYNC_REDIS_URL": url})

    assert message.startswith(f"ASYNCSYNC_REDIS_URL={shown!r}: {part}")
    assert re.search("secret|sec/ret|sec[?]ret", message) is None


@pytest.mark.parametrize("never", [False, "false"])
def test_a_boolean_is_a_boolean(never: Any) -> None:
    assert Config(redis_url=URL, raw_event=never).raw_event != "auto"
    assert Config(redis_url=URL, log_keys=True, redis_cluster=False).log_keys is True


@pytest.mark.parametrize("value", [True, 0, 1, None, "no", ""])
def test_raw_events_are_auto_or_never(value: Any) -> None:
    with pytest.raises(ConfigError, match=f"ASYNCSYNC_RAW_EVENT={value!r} is not allowed"):
        Config(redis_url=URL, raw_event=value)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("redis_ulr", "redis_url"),
        ("redis_paswword", "redis_password"),
        ("fence_ttl", "fence_ttl_s"),
        ("MODE", "mode"),
        ("ASYNCSYNC_MODE", "mode"),
    ],
)
def test_a_misspelt_argument_is_refused_with_its_nearest(name: str, nearest: str) -> None:
    arguments: dict[str, Any] = {"redis_url": URL, name: "secret"}
    with pytest.raises(ConfigError) as refused:
        Config(**arguments)

    assert str(refused.value) == f"{name} is no setting; did you mean {nearest}?"


def test_an_argument_near_nothing_is_refused_alone() -> None:
    arguments: dict[str, Any] = {"redis_url": URL, "xqzwkjvvvvv": "secret"}
    with pytest.raises(ConfigError, match=r"^xqzwkjvvvvv is no setting$"):
        Config(**arguments)


def test_settings_without_their_names_are_refused() -> None:
    make: Any = Config
    with pytest.raises(
        ConfigError, match=r"^give every setting by its name, such as Config"
    ) as one:
        make("redis://:secret@h")
    with pytest.raises(ConfigError, match="ASYNCSYNC_REDIS_URL is not set"):
        make()

    assert "secret" not in str(one.value)


def test_the_one_required_setting_is_asked_for() -> None:
    assert refusal({}) == (
        "ASYNCSYNC_REDIS_URL is not set; it is required: redis://, rediss:// or unix://"
    )


def test_a_url_with_a_fragment_is_refused() -> None:
    assert "ASYNCSYNC_REDIS_URL=" in refusal({"ASYNCSYNC_REDIS_URL": "redis://u:1#secret@h:6379"})


def test_a_socket_path_that_is_not_absolute_is_refused() -> None:
    assert "ASYNCSYNC_REDIS_URL=" in refusal({"ASYNCSYNC_REDIS_URL": "unix://var/run/redis.sock"})


# --- secrets ------------------------------------------------------------------------------------

# As people write them: some of it unescaped, which is what goes wrong.
SECRETS = st.text("abcXYZ019!$&*()_=~", min_size=12, max_size=20)
BROKEN_URLS = [
    "redis://u:{}@h:port",
    "redis://u:{}@h/x",
    "redis://:{}@h?timeout=5",
    "http://u:{}@h",
    "u:{}@h",
    "redis://u:{}/@h",
    "redis://u:{}@@h:port",
    "redis://u:x@{}@h:port",
    "redis://u:{}@h#x",
    "redis://h?password={}",
    "redis://u:[{}@h",
    "rediss://u:{}@",
    "unix://u:{}@",
]


@settings(deadline=None)
@given(SECRETS, st.sampled_from(BROKEN_URLS))
def test_no_refusal_shows_a_password(secret: str, broken: str) -> None:
    assert secret not in refusal({"ASYNCSYNC_REDIS_URL": broken.format(secret)})


@pytest.mark.parametrize(
    "url",
    ["redis://h?password=secret", "unix:///tmp/r.sock?db=0&password=secret", "redis://h?x=secret"],
)
def test_no_refusal_shows_a_password_among_the_options(url: str) -> None:
    # unix://...?password= is how redis-py documents a socket's password.
    assert "secret" not in refusal({"ASYNCSYNC_REDIS_URL": url})


@settings(deadline=None)
@given(SECRETS, SECRETS)
def test_no_text_of_a_config_or_its_server_shows_a_password(secret: str, other: str) -> None:
    config = Config(redis_url=f"redis://u:{secret}@h", redis_password=other)

    shown = [repr(config), str(config), repr(config.server), config.server.address]
    for text in (*shown, pretty_repr(config), pretty_repr(config.server)):
        assert secret not in text
        assert other not in text
    assert config.server.password == other


@settings(deadline=None)
@given(SECRETS, st.sampled_from(NAMES))
def test_no_refusal_of_another_setting_shows_a_password(secret: str, name: str) -> None:
    env = {
        "ASYNCSYNC_REDIS_URL": f"redis://u:{secret}@h",
        "ASYNCSYNC_REDIS_PASSWORD": secret,
        f"ASYNCSYNC_{name.upper()}X": "x",
    }

    assert secret not in refusal(env)


def test_an_unavailable_store_says_error_and_reason() -> None:
    error = StoreUnavailable("ConnectionRefusedError", "connecting to h:6379", timed_out=True)

    assert str(error) == "ConnectionRefusedError: connecting to h:6379"
    assert re.fullmatch("[A-Za-z]+", error.error)
    assert error.timed_out
