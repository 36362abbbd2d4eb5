"""The judge with what it keeps in dictionaries by series: for tests that look at alarms one by one."""

from __future__ import annotations

import numpy as np

from meterite.model import standing
from meterite.model.limits import TIME_NONE, TRANSITION, Alarm
from meterite.model.standing import ALARM, Readings, Standing, alarm_of, flags_of, row_of


def judge(batch, rows, rule_of, alarms, newest, now_us, *, many):
    """Both dictionaries are brought up to date; alarms that come to rest are taken out."""
    if not len(rows):
        return np.empty(0, TRANSITION)
    readings, places = Readings.of(batch, rows)
    series = batch.series[places].tolist()
    rules = [rule_of(one) for one in series]
    columns = Standing(
        batch.series[places],
        np.array([newest.get(one, TIME_NONE) for one in series], np.int64),
        *(np.array([getattr(rule, side) for rule in rules], float) for side in ("low", "high")),
        np.array([flags_of(rule) for rule in rules], np.uint8),
        np.array([row_of(alarms.get(one, Alarm())) for one in series], ALARM),
    )
    found = standing.judge(readings, columns, rule_of, now_us, few=many)
    for place, one in enumerate(series):
        newest[one] = int(columns.newest[place])
        alarm = alarm_of(columns.alarm[place])
        alarms.pop(one, None)
        if not alarm.at_rest:
            alarms[one] = alarm
    return found
