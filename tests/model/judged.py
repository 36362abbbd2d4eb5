"""The judge with what it keeps in dictionaries by series: for tests that look at alarms one by one."""

from __future__ import annotations

import numpy as np

from meterite.model import standing
from meterite.model.limits import TIME_NONE, Alarm
from meterite.model.standing import alarm_of


def judge(batch, rule_of, alarms, newest, now_us, *, compiled):
    """Both dictionaries are brought up to date; alarms that come to rest are taken out."""
    series = batch.series.tolist()
    stand = standing.at_rest(series, [rule_of(one) for one in series])
    slots = stand.rows["series"].argsort()
    for slot, one in enumerate(series):
        stand.calm["newest"][slot] = newest.get(one, TIME_NONE)
        stand.set_alarm(slot, alarms.get(one, Alarm()))
    found = standing.judge(
        batch, slots, stand, rule_of=rule_of, look_up=nothing_is_unknown, now_us=now_us, compiled=compiled
    )
    for slot, one in enumerate(series):
        newest[one] = int(stand.calm["newest"][slot])
        alarm = alarm_of(stand.rows[slot])
        assert stand.rows["alarmed"][slot] != alarm.at_rest
        assert np.isnan(stand.calm["low"][slot]) != alarm.at_rest
        alarms.pop(one, None)
        if not alarm.at_rest:
            alarms[one] = alarm
    assert found == standing.Judged.of(found.rows())
    return found.rows()


def nothing_is_unknown(slots):
    raise AssertionError(slots)
