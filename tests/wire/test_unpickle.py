"""The part of pickle that carries plain data, and nothing else of it."""

from __future__ import annotations

import contextlib
import os
import pickle
import pickletools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterite.model.errors import MalformedError
from meterite.wire.unpickle import _INSTRUCTIONS, unpickle

TEXTS = st.text(st.characters(codec="utf-8"), max_size=30)
NUMBERS = st.one_of(st.integers(-(2**60), 2**60), st.floats(allow_nan=False))
POINTS = st.lists(st.tuples(TEXTS, st.tuples(NUMBERS, st.one_of(NUMBERS, TEXTS))), max_size=8)
ANY_PLAIN = st.recursive(
    st.one_of(st.none(), st.booleans(), TEXTS, NUMBERS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.tuples(inner), st.tuples(inner, inner, inner, inner)
    ),
)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@given(value=st.one_of(POINTS, ANY_PLAIN))
def test_round_trip(protocol, value):
    """What Python's own writer makes of plain data, in every protocol."""
    assert unpickle(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_shared_and_recursive(protocol):
    """One object that stands in several places is one object, also within itself."""
    shared = ["x"]
    loop = [shared, shared]
    loop.append(loop)
    found = unpickle(pickle.dumps(loop, protocol))
    assert found[0] is found[1]
    assert found[2] is found


def test_other_writers():
    """Byte strings of Python 2 in both forms, without memo, as StatsD writes them; long integers."""
    assert unpickle(b"(l(S'a.b'\n(L100L\nS'42'\nttaS'it\\'s'\na.") == [("a.b", (100, "42")), "it's"]
    binary = b"\x80\x02]q\x00(U\x03a.bq\x01J\x00\xf1\x53\x65G@E\x00\x00\x00\x00\x00\x00\x86q\x02\x86q\x03e."
    assert unpickle(binary) == [("a.b", (0x6553F100, 42.0))]


class Evil:
    def __reduce__(self):
        return os.system, ("touch /tmp/owned",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "value", [Evil(), [("a", (1, Evil()))], {"a": 1}, {1}, os.system, pytest, 1j, b"\xff"]
)
def test_anything_else_is_refused(protocol, value):
    """Calls, globals, dicts, sets, objects: none is looked at further than its first instruction."""
    with contextlib.suppress(TypeError, AttributeError):  # what no pickle can say isn't asked
        body = pickle.dumps(value, protocol)
        with pytest.raises(MalformedError) as caught:
            unpickle(body)
        assert caught.value.code == "pickle-invalid"


def test_no_instruction_makes_or_calls_anything():
    """The table holds none of those that import, build, reduce or fetch."""
    names = {opcode.code.encode("latin-1"): opcode.name for opcode in pickletools.opcodes}
    taken = {names[code] for code in _INSTRUCTIONS}
    words = ("GLOBAL", "REDUCE", "BUILD", "INST", "OBJ", "NEWOBJ", "PERSID", "EXT", "DICT", "SET", "BUFFER")
    assert not [name for name in taken for word in words if word in name.replace("BINSTRING", "")]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b".",
        b"]",
        b"(.",
        b"a.",
        b"(e.",
        b"]e.",
        b"K\x01a.",
        b"h\x00.",
        b"(q\x00.",
        b"t.",
        b"X\xff\xff\xff\xff.",
        b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff.",
        b"T\x01\x00\x00\x00\xff.",
        b"I" + b"9" * 65 + b"\n.",
        b"\x8a\xff" + b"\x01" * 255 + b".",
        b"\x80\x06N.",
        b"S'a\n.",
        b"S'\\u0061'\n.",
        b"K\x01",
    ],
)
def test_broken(body):
    """Cut, without its stack, with lengths that aren't there, with numbers that are too long."""
    with pytest.raises(MalformedError, match="at byte"):
        unpickle(body)


@given(
    st.one_of(
        st.binary(max_size=60), st.lists(st.sampled_from([*_INSTRUCTIONS, b"."]), max_size=40).map(b"".join)
    )
)
def test_any_bytes(body):
    """A value or an error of ours."""
    with contextlib.suppress(MalformedError):
        unpickle(body)


@pytest.mark.parametrize(
    "piece",
    [b"(K\x01K\x02t", b"](", b"K\x01q\x00h\x00", b"(", b"K\x01\x85", b"]q\x00(h\x00e", b"(l", b"S'a'\n"],
)
def test_time_is_linear(piece):
    """Ten times the bytes take about ten times as long."""

    def took(count):
        body = piece * count + b"."
        begun = time.process_time()
        with contextlib.suppress(MalformedError):
            unpickle(body)
        return time.process_time() - begun

    small = min(took(2000) for _ in range(3))
    assert min(took(20_000) for _ in range(2)) < 40 * small + 0.05
