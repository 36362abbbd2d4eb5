"""Times that a commit gives to readings without one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterite.model.columns import NO_TIME, Batch
from meterite.storage import journal
from meterite.storage.journal import give_times

FIRST_US = 1_000
ROWS = st.lists(st.tuples(st.integers(0, 4), st.sampled_from([NO_TIME, 7])), min_size=1, max_size=30)


@given(st.lists(ROWS, min_size=1, max_size=3), st.sampled_from([0, 10, 100]))
def test_one_after_the_other(batches, few):
    """In each series the first, the next µs and so on, from request to request; a time that was brought stays. Of few
    and of many the same.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "_FEW", few)
        check(batches)


def check(batches):
    given_so_far: dict[int, int] = {}
    counted: dict[int, int] = {}
    for rows in batches:
        if all(at != NO_TIME for _, at in rows):
            continue
        index, at_us = (np.array(column) for column in zip(*rows, strict=True))
        batch = Batch(np.arange(10, 15), index.astype(np.uint32), at_us, np.zeros(len(rows)))
        done, last = give_times(batch, FIRST_US, given_so_far)
        wanted = []
        for series, at in rows:
            wanted.append(at if at != NO_TIME else FIRST_US + counted.get(10 + series, 0))
            counted[10 + series] = counted.get(10 + series, 0) + (at == NO_TIME)
        assert done.at_us.tolist() == wanted
        assert last == max(time for time, (_, at) in zip(wanted, rows, strict=True) if at == NO_TIME)
        assert given_so_far == {series: count for series, count in counted.items() if count}
