"""The judge with what it keeps in dictionaries by series: for tests that look at alarms one by one."""

from __future__ import annotations

from meterite.model import standing
from meterite.model.limits import TIME_NONE, Alarm
from meterite.model.standing import alarm_of, set_alarm, watched


def judge(batch, rule_of, alarms, newest, now_us, *, compiled):
    """Both dictionaries are brought up to date; alarms that come to rest are taken out."""
    series = batch.series.tolist()
    rows = watched(series, [rule_of(one) for one in series])
    slots = rows["series"].argsort()
    for slot, one in enumerate(series):
        rows["newest"][slot] = newest.get(one, TIME_NONE)
        set_alarm(rows, slot, alarms.get(one, Alarm()))
    found = standing.judge(
        batch, slots, rows, rule_of=rule_of, look_up=nothing_is_unknown, now_us=now_us, compiled=compiled
    )
    for slot, one in enumerate(series):
        newest[one] = int(rows["newest"][slot])
        alarm = alarm_of(rows[slot])
        assert rows["alarmed"][slot] != alarm.at_rest
        alarms.pop(one, None)
        if not alarm.at_rest:
            alarms[one] = alarm
    return found


def nothing_is_unknown(slots):
    raise AssertionError(slots)
