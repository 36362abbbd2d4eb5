"""Values kept as decimals: bit for bit, small where they are decimals, and damage is never taken for data."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meterite.model.errors import DamagedError
from meterite.storage.decimals import DECIMAL, decode_values, encode_values

ODD = np.array(
    [0x7FF0 << 48, 0xFFF0 << 48, 0x7FF8 << 48, 0xFFF8000000000001, 0x7FF0000000000002, 1 << 63, 1, 0x7FE1CCF385EBC8A0],
    np.uint64,
).view(np.float64)  # fmt: skip
"""Infinities, NaN with payloads, -0.0, the smallest denormal, 1e308."""

bits = st.integers(0, 2**64 - 1).map(lambda n: struct.unpack("<d", struct.pack("<Q", n))[0])
mixed = st.tuples(
    st.integers(0, 12),
    st.lists(st.integers(-(10**9), 10**9), min_size=1, max_size=120),
    st.lists(
        st.tuples(st.integers(0, 119), st.one_of(bits, st.sampled_from(ODD.tolist()), st.floats(-9, 9)))
    ),
)


def round_trip(values: np.ndarray) -> np.ndarray:
    return decode_values(memoryview(encode_values(values)), len(values))


def walk(count: int, places: int = 2) -> np.ndarray:
    steps = np.random.default_rng(places).normal(0, 5, count)
    return (np.round(np.cumsum(steps)) + 0.0) / 10.0**places  # -0.0 is no integer


@given(mixed)
@settings(max_examples=150, deadline=None)
def test_any_floats_come_back_bit_for_bit(parts):
    """Decimals of any number of places, and any bits among them."""
    places, integers, others = parts
    values = np.array(integers) / 10.0**places
    for row, value in others:
        values[row % len(values)] = value
    assert round_trip(values).tobytes() == values.tobytes()


@pytest.mark.parametrize("places", range(10))
def test_decimals_of_each_number_of_places_are_integers(places):
    """Whole numbers as well; the section says how many places."""
    values = walk(1000, places)
    section = encode_values(values)
    assert section[:2] == bytes((DECIMAL, places))
    assert round_trip(values).tobytes() == values.tobytes()


def test_a_walk_in_hundredths_costs_what_its_steps_hold():
    """Steps of 5 hundredths (σ) hold log₂(5 √2πe) = 4.37 bits, 0.55 bytes."""
    assert len(encode_values(walk(65_536))) < 0.565 * 65_536


@pytest.mark.parametrize("share", [0.01, 0.2])
def test_what_is_no_decimal_lies_apart(share):
    """Stale markers and infinities among decimals cost little more than themselves."""
    values = walk(20_000)
    rows = np.random.default_rng(1).choice(20_000, int(20_000 * share), replace=False)
    values[rows] = np.resize(ODD, len(rows))
    section = encode_values(values)
    assert section[0] == DECIMAL
    assert round_trip(values).tobytes() == values.tobytes()
    assert len(section) < 0.6 * 20_000 + 4 * len(rows)


@pytest.mark.parametrize("of", ["noise", "odd", "far"])
def test_other_values_are_kept_as_floats(of):
    """Where few or none are decimals, or the integers would be too large to be exact."""
    rng = np.random.default_rng(2)
    values = {
        "noise": rng.standard_normal(1000),
        "odd": np.resize(ODD, 1000),
        "far": rng.standard_normal(1000) * 1e300,
    }[of]
    section = encode_values(values)
    assert section[0] != DECIMAL
    assert round_trip(values).tobytes() == values.tobytes()


def test_integers_up_to_the_last_exact_one():
    """Of 64 bits where 32 don't hold them; from 2^53 on they lie apart."""
    values = np.concatenate([walk(200, 0), 2.0**53 - np.arange(1.0, 100), [2.0**53, -(2.0**53), 2.0**60]])
    section = encode_values(values)
    assert section[:3] == bytes((DECIMAL, 0, 8))
    assert struct.unpack_from("<I", section, 3) == (3,)
    assert round_trip(values).tobytes() == values.tobytes()


@given(st.integers(0, 400), st.binary(min_size=1, max_size=40), st.booleans())
@settings(max_examples=200, deadline=None)
def test_wrong_bytes_are_damage_or_as_many_values(place, garbage, cut):
    """Whatever is written over a section, no other number of values comes out of it."""
    values = walk(300)
    values[[5, 7]] = ODD[:2]
    section = encode_values(values)
    assert section[0] == DECIMAL
    forged = section[:place] if cut else section[:place] + garbage + section[place + len(garbage) :]
    try:
        assert len(decode_values(memoryview(forged), 300)) == 300
    except DamagedError:
        return
