"""What is kept of requests that may be sent again, damaged: each key answers for itself."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from meterite.model.errors import DamagedError, MalformedFileError
from meterite.model.metric import MetricSpec
from meterite.storage.interface import Append
from meterite.storage.once import Once
from storage.place import YEAR_2030, Clock, batch_of, read, version_of
from storage.sqlite_place import overwrite_page, sqlite_place

KEPT = 400
"""So many that they lie on several pages, and so do the entries of their index."""


class Kept:
    """A file with what was kept of many requests, which may be changed between two lives."""

    def __init__(self, place):
        self.place = place
        self.store = place.store(Clock())
        self.store.open()
        self.org_id = self.store.catalog.org_id("here")
        self.metric = self.store.catalog.create("here", MetricSpec(code="m", name="m"))
        appends = [self.append(self.key(n), n) for n in range(KEPT)]
        self.store.commit(appends)
        assert {append.error for append in appends} == {None}

    def key(self, n):
        return bytes([n * 250 // KEPT, n % 250]) * 16

    def append(self, key, n, **options):
        batch = batch_of([(self.metric.series_first, YEAR_2030 + n, float(n))])
        once = None if key is None else Once(key, b"b" * 32, b"d" * 200)
        return Append(self.org_id, version_of(self.store), batch, once=once, **options)

    def again(self, change):
        """After somebody had the file in hands."""
        self.store.close()
        change()
        self.store = self.place.store(Clock())
        self.store.open()

    def values(self):
        return sorted(value for _, _, value in read(self.store, self.org_id))


@pytest.fixture
def kept():
    with sqlite_place() as place:
        kept = Kept(place)
        yield kept
        kept.store.close()


@pytest.mark.parametrize("compare", [False, True])
def test_a_page_of_keys_that_is_malformed(kept, compare):
    """A key that may lie there can't be told to be new; in the same commit others can, and so can plain requests."""
    kept.again(lambda: overwrite_page(kept.place.path, "receipt", last=True))
    lost, first, new = (bytes([n]) * 32 for n in (255, 0, 1))
    appends = [kept.append(key, KEPT + n, compare=compare) for n, key in enumerate((lost, new, None))]
    again = kept.append(kept.key(0), 0)
    kept.store.commit([*appends, again])
    assert [type(append.error) for append in appends] == [MalformedFileError, type(None), type(None)]
    assert again.error.code == "repeated"
    assert kept.values() == sorted({*map(float, range(KEPT)), KEPT + 1, KEPT + 2})
    with pytest.raises(MalformedFileError):
        kept.store.receipt(kept.org_id, lost)
    assert kept.store.receipt(kept.org_id, first) is not None
    assert kept.store.receipt(kept.org_id, new).data == b"d" * 200


def test_an_index_in_which_none_can_be_kept(kept):
    """Requests with keys are told so, and nothing of them is written; all others of the same commit go on."""
    kept.again(lambda: overwrite_page(kept.place.path, "receipt_recorded", last=True))
    appends = [kept.append(bytes([n]) * 32 if n % 2 else None, KEPT + n, compare=n > 2) for n in range(6)]
    kept.store.commit(appends)
    assert [isinstance(append.error, DamagedError) for append in appends] == [False, True] * 3
    assert kept.values()[KEPT:] == [KEPT, KEPT + 2, KEPT + 4]
    assert kept.store.receipt(kept.org_id, b"\1" * 32) is None


@pytest.mark.parametrize("change", ["body = 'text'", "recorded_at = 'late'", "data = 7"])
def test_a_row_of_other_types(kept, change):
    """Is damaged, and no other's trouble."""

    def spoil():
        with closing(sqlite3.connect(kept.place.path)) as conn:
            assert conn.execute(f"UPDATE receipt SET {change} WHERE key = ?", (kept.key(3),)).rowcount == 1
            conn.commit()

    kept.again(spoil)
    lost, other = kept.append(kept.key(3), KEPT), kept.append(b"n" * 32, KEPT + 1)
    kept.store.commit([lost, other])
    assert (type(lost.error), other.error) == (DamagedError, None)
    with pytest.raises(DamagedError):
        kept.store.receipt(kept.org_id, kept.key(3))
