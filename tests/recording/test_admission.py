"""Which readings may enter."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from meterite.model.columns import NO_TIME, Decoded, Rejected, SeriesKey
from meterite.model.errors import InvalidInputError, NotFoundError
from meterite.model.time import DAY_US, from_unit
from meterite.recording.admission import Admission, TimeRules

NOW_US = 1_795_000_000_000_000
RULES = TimeRules(future_us_max=DAY_US)


def decoded(*at_us, unit=None, row=None, keys=1):
    index = np.arange(len(at_us), dtype=np.uint32) % keys
    values = np.arange(len(at_us), dtype=np.float64)
    places = None if row is None else np.array(row)
    return Decoded(
        [SeriesKey(f"K{n}") for n in range(keys)], index, np.array(at_us), values, places, unit=unit
    )


def checked(one, rules=RULES):
    admission = Admission(one)
    admission.check_times(NOW_US, rules)
    return admission.good()


def test_nothing_refused_nothing_copied():
    """The past as far back as it likes, a time that the server gives, and a day ahead."""
    one = decoded(-(10**15), 0, NO_TIME, NOW_US + DAY_US)
    assert checked(one) is one
    assert checked(decoded()).rejected == []


def test_the_future():
    """Beyond max_future a reading is refused; without one it isn't."""
    one = decoded(NOW_US, NOW_US + DAY_US + 1, row=[3, 8])
    good = checked(one)
    assert (good.at_us.tolist(), good.row.tolist(), good.values.tolist()) == ([NOW_US], [3], [0.0])
    assert [(r.index, r.code) for r in good.rejected] == [(8, "time-in-future")]
    assert checked(one, TimeRules(future_us_max=None)) is one


PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
PAIRS = [(unit, looks) for unit in PER_SECOND for looks in PER_SECOND if unit != looks]


@pytest.mark.parametrize(
    ("unit", "looks"), [pair for pair in PAIRS if PER_SECOND[pair[1]] < PER_SECOND[pair[0]]]
)
def test_larger_units(unit, looks):
    """Seconds labelled as ms, and so on, lie in the first weeks of 1970, and are refused with what they look like."""
    times = np.array([1_795_000_000 * PER_SECOND[unit], 1_795_000_000 * PER_SECOND[looks]])
    one = decoded(*from_unit(times, unit).tolist(), unit=unit)
    (refused,) = checked(one).rejected
    assert (refused.index, refused.code) == (1, "time-unit")
    assert f"looks like {looks}: send " in refused.reason
    assert "precision" not in refused.reason
    (refused,) = checked(replace(one, unit_asked=True)).rejected
    assert refused.reason.endswith(f", or add ?precision={looks}.")
    assert checked(one, TimeRules(future_us_max=DAY_US, trusted=True)) is one


@pytest.mark.parametrize(
    ("unit", "looks"), [pair for pair in PAIRS if PER_SECOND[pair[1]] > PER_SECOND[pair[0]]]
)
def test_smaller_units(unit, looks):
    """Nanoseconds labelled as ms, and so on, are beyond all times: whoever decodes them is told what they look like."""
    wrong = 1_795_000_000 * PER_SECOND[looks]
    for times in (wrong, np.array([1, wrong])):
        with pytest.raises(InvalidInputError, match=f"looks like {looks}") as caught:
            from_unit(times, unit)
        assert caught.value.code == "time-unit"
        assert "precision" not in caught.value.message
        with pytest.raises(InvalidInputError, match=rf", or add \?precision={looks}\.$"):
            from_unit(times, unit, asked=True)


@pytest.mark.parametrize("unit", [None, "s"])
def test_texts_and_seconds_are_what_they_are(unit):
    """January 1970 is a time like others where no unit could have been mistaken."""
    one = decoded(0, 1_795_000_000, 1_795_000_000_000, unit=unit)
    assert checked(one) is one


def test_small_times_of_tests_and_examples():
    """A time of 1 ns is no mistaken unit: in none is it of this century."""
    one = decoded(0, 1, 1000, unit="ns")
    assert checked(one) is one


def test_keys_are_refused_with_all_their_rows():
    """By place, with what was rejected before, each row once even where its time is refused, too."""
    one = decoded(NOW_US, NOW_US, NOW_US + 2 * DAY_US, NOW_US, keys=2, row=[1, 2, 4, 5])
    one.rejected.append(Rejected(3, "early", "It was no number."))
    admission = Admission(one)
    admission.check_times(NOW_US, RULES)
    admission.refuse_keys({0: NotFoundError("metric-not-found", "There is none.")})
    good = admission.good()
    assert [(r.index, r.code) for r in good.rejected] == [
        (1, "metric-not-found"),
        (3, "early"),
        (4, "time-in-future"),
    ]
    assert good.row.tolist() == [2, 5]
