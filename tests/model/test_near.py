"""Which known name was meant."""

from __future__ import annotations

import pytest

from meterite.model.near import HINT, SLIP, begun, near

METRIC = ("code", "name", "min_reading", "on_conflict", "timezone", "unit")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("on_conflct", "on_conflict"),
        ("OnConflict", "on_conflict"),
        ("on-conflict", "on_conflict"),
        ("time_zone", "timezone"),
        ("min_readin", "min_reading"),
        ("units", "unit"),
        ("mode", None),
        ("node", None),
        ("location", None),
        ("", None),
        ("x" * 100_000, None),
    ],
)
def test_slips(name, meant):
    """A letter more or less, another case, a dash; not another word."""
    assert near(name, METRIC, SLIP) == meant


def test_a_hint_is_freer():
    """Where the name is refused anyway, a worse likeness is worth asking for."""
    assert near("ned", ("start", "end"), HINT) == "end"
    assert near("zzz", ("start", "end"), HINT) is None


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("min", "min_reading"),
        ("MIN", "min_reading"),
        ("min_", None),
        ("mi", None),
        ("on", None),
        ("reading", None),
        ("minimal", None),
        ("name", None),
        ("", None),
        ("x" * 100_000, None),
    ],
)
def test_first_words(name, meant):
    """Whole words that a name begins with, of three letters at least."""
    assert begun(name, METRIC) == meant
