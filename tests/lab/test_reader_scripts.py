"""The model server's lease and load do what the scripts' text does, on one clock."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from asyncsync.lab.simulation.model_server import ModelServer
from asyncsync.lab.simulation.model_values import StoredValue
from asyncsync.reader.protocol import LEASE_SCRIPT, LOAD_SCRIPT
from asyncsync.store import digest_of
from tests.support.lua_server import LuaServer

NOW_MS = 1_767_225_600_000
CLAIM_MS = 60_000
VALUE, FENCE = b"a", b"{a}!f"
VERSION = b"1176722560000003" + b"123"
NONCE, OTHER = b"000000000007", b"000000000008"

HEADS = st.sampled_from([b"0", VERSION + b"0", VERSION + b"1", VERSION + b"2"])
TAILS = st.one_of(
    st.sampled_from([b"", NONCE]),
    st.builds(
        lambda kind, left_ms, nonce: b"%b%013d%b" % (kind, NOW_MS + left_ms, nonce),
        st.sampled_from([b"1", b"2"]),
        st.sampled_from([-1, 0, 1, 3_000, CLAIM_MS, CLAIM_MS + 1]),
        st.sampled_from([NONCE, OTHER]),
    ),
)
FENCES = st.one_of(st.none(), st.builds(lambda head, tail: head + tail, HEADS, TAILS))
LIVES_MS = st.sampled_from([1, CLAIM_MS - 1, CLAIM_MS, 90_000_000])
LEASES = st.sampled_from([100, 3_000, CLAIM_MS])


def servers(fence: bytes | None, life_ms: int, value: bytes | None) -> list[ModelServer]:
    both: list[ModelServer] = [ModelServer(), LuaServer()]
    for server in both:
        if fence is not None:
            server.keys[FENCE] = StoredValue(fence, NOW_MS + life_ms)
        if value is not None:
            server.keys[VALUE] = StoredValue(value)
        server.scripts |= {digest_of(LEASE_SCRIPT), digest_of(LOAD_SCRIPT)}
    return both


def run(servers: list[ModelServer], script: bytes, *arguments: bytes) -> bytes:
    command = (b"EVALSHA", digest_of(script), b"2", VALUE, FENCE, *arguments)
    model, lua = (server.execute(command, NOW_MS) for server in servers)

    assert model == lua
    assert servers[0].keys == servers[1].keys
    return model


@settings(deadline=None, max_examples=400)
@given(FENCES, LIVES_MS, st.sampled_from([None, b"x"]), LEASES)
def test_a_lease(fence: bytes | None, life_ms: int, value: bytes | None, lease_ms: int) -> None:
    both = servers(fence, life_ms, value)

    run(both, LEASE_SCRIPT, NONCE, b"%d" % lease_ms, b"%d" % CLAIM_MS)

    if fence is not None:
        assert both[0].keys[FENCE].expires_at_ms >= NOW_MS + life_ms


@settings(deadline=None, max_examples=400)
@given(
    FENCES,
    LIVES_MS,
    st.sampled_from([None, b"x"]),
    st.booleans(),
    st.sampled_from([b"-", b"", b"%d" % (NOW_MS + 5_000)]),
)
def test_a_load(
    fence: bytes | None, life_ms: int, value: bytes | None, is_leased: bool, expiry: bytes
) -> None:
    both = servers(fence, life_ms, value)
    lease = fence if is_leased and fence is not None else VERSION + b"1" + OTHER

    run(both, LOAD_SCRIPT, lease, VERSION + b"2" + NONCE, expiry, b"new")

    if value is not None:
        assert both[0].keys[VALUE].value == value
    if not is_leased or fence is None:
        assert VALUE not in both[0].keys or value is not None
