"""Numbers as text."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterite.model.number import number_text, numbers_text, plain_number


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (1.0, "1"),
        (-17.0, "-17"),
        (0.1, "0.1"),
        (-2.5, "-2.5"),
        (1e18, "1000000000000000000"),
        (9223372036854774784.0, "9223372036854774784"),
        (-9223372036854774784.0, "-9223372036854774784"),
        (math.nan, "null"),
        (math.inf, '"+Inf"'),
        (-math.inf, '"-Inf"'),
    ],
)
def test_a_number_is_written_as_short_as_can_be(value, text):
    """Alone and among others."""
    assert number_text(value) == text
    assert numbers_text(np.array([value, 0.5, value])) == [text, "0.5", text]


def _digits(text):
    """The digits that count, whichever way the exponent is written: 1e-05 and 0.00001 have one."""
    mantissa = text.lower().partition("e")[0]
    return mantissa.lstrip("-").replace(".", "").strip("0")


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**70), 2**70).map(float)))
def test_every_float_reads_back(values):
    """The very float, and integers only below 2⁶³."""
    texts = numbers_text(np.array(values, np.float64))
    assert texts == [number_text(value) for value in values]
    assert [float(json.loads(text)) for text in texts] == values
    for value, text in zip(values, texts, strict=True):
        whole = abs(value) < 2**63 and value == int(value)
        assert text.lstrip("-").isdigit() == whole
        assert whole or _digits(text) == _digits(repr(value))


@given(st.lists(st.floats()))
def test_any_float_gives_json(values):
    """One text a number, whatever it is."""
    texts = numbers_text(np.array(values, np.float64))
    assert texts == [number_text(value) for value in values] if not any(map(math.isnan, values)) else True
    assert len(json.loads("[" + ",".join(texts) + "]")) == len(values)


@given(st.floats())
def test_a_plain_number_is_written_alike(value):
    """By whoever encodes it; what JSON lacks is null."""
    text = number_text(value) if math.isfinite(value) else "null"
    assert json.dumps(plain_number(np.float64(value))) == json.dumps(json.loads(text))


def test_integers_are_written_as_they_are():
    """Counts come as int64."""
    assert numbers_text(np.array([3, -(2**63)], np.int64)) == ["3", "-9223372036854775808"]
