"""What users may name and say."""

from __future__ import annotations

import json
import math
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterite.model.check import (
    canonical_labels,
    check_code,
    check_description,
    check_labels,
    check_name,
    check_reading,
    check_unit,
    parse_labels,
)
from meterite.model.errors import InvalidInputError

plain = st.characters(exclude_categories=("Cc", "Cs"))


@given(st.text(st.characters(), max_size=210))
def test_a_code_is_any_unicode_but_controls_and_surrogates(text):
    """1 to 200 characters, and not the two names that paths give a meaning to."""
    good = 1 <= len(text) <= 200 and text not in {".", ".."}
    good = good and not any(unicodedata.category(c) in {"Cc", "Cs"} for c in text)
    if good:
        assert check_code(text) == text
    else:
        with pytest.raises(InvalidInputError) as caught:
            check_code(text)
        assert caught.value.code == "code-invalid"
        assert caught.value.place == ("body", "code")


@pytest.mark.parametrize("text", ["", ".", "..", "a" * 201, "a\nb", "\x7f", "\x85", "\ud800", 5, None])
def test_what_no_code_can_be(text):
    """Refused by one sentence that repeats little of it."""
    with pytest.raises(InvalidInputError) as caught:
        check_code(text)
    assert len(caught.value.message) < 200


@given(st.dictionaries(st.text(plain, min_size=1, max_size=8), st.text(plain, max_size=8), max_size=8))
def test_labels_are_sorted_and_read_back(mapping):
    """Empty values are no labels; the canonical text is compact JSON and gives the same labels."""
    labels = check_labels(mapping)
    kept = {name: value for name, value in mapping.items() if value}
    assert labels == tuple(sorted(kept.items()))
    text = canonical_labels(labels)
    assert text == json.dumps(kept, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    assert parse_labels(text) == labels


@pytest.mark.parametrize(
    ("labels", "code"),
    [
        ({"": "a"}, "label-invalid"),
        ({"a": 1}, "label-invalid"),
        ({"a": None}, "label-invalid"),
        ({"a": "x" * 1001}, "label-invalid"),
        ({"x" * 201: "a"}, "label-invalid"),
        ({"a": "\ud800"}, "label-invalid"),
        ({"a\0": "b"}, "label-invalid"),
        ({str(n): "a" for n in range(65)}, "labels-too-many"),
    ],
)
def test_what_no_labels_can_be(labels, code):
    """Each has its stable code, and leads to the labels."""
    with pytest.raises(InvalidInputError) as caught:
        check_labels(labels)
    assert caught.value.code == code
    assert caught.value.place == ("body", "labels")


def test_texts_are_bounded():
    """A name and a unit stand in one line, a description in several."""
    assert check_name("Überdruck") == "Überdruck"
    assert check_unit("") == ""
    assert check_description("one\ntwo\r\n\tthree") == "one\ntwo\r\n\tthree"
    for check, text in [
        (check_name, "a" * 1001),
        (check_name, "a\nb"),
        (check_unit, "a" * 201),
        (check_unit, 5),
        (check_description, "a" * 10_001),
        (check_description, "\0"),
    ]:
        with pytest.raises(InvalidInputError):
            check(text)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_reading_is_finite(value):
    """And nothing else is asked of it."""
    assert check_reading(1e308) == 1e308
    with pytest.raises(InvalidInputError, match="finite"):
        check_reading(value)
