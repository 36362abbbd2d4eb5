"""How much of the journal is fetched at once."""

from __future__ import annotations

import numpy as np

from meterite.storage.journal_index import JOURNAL_BOUNDS
from meterite.storage.snapshot import _FETCH_READINGS, _FETCH_ROWS, pieces_of


def test_pieces_are_bounded_by_rows_and_by_readings():
    """200 rows of 65,536 readings each were 200 MB; one row may be as large as it is."""
    random = np.random.default_rng(1)
    for largest in (1, 3000, 65_536, 2 * _FETCH_READINGS):
        rows = np.zeros(3000, JOURNAL_BOUNDS)
        rows["id"] = np.arange(3000)
        rows["count"] = random.integers(1, largest + 1, 3000)
        pieces = list(pieces_of(rows))
        assert np.concatenate(pieces)["id"].tolist() == list(range(3000))
        for piece in pieces:
            assert len(piece) <= _FETCH_ROWS
            assert len(piece) == 1 or piece["count"].sum() <= _FETCH_READINGS
    assert list(pieces_of(rows[:0])) == []
