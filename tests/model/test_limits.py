"""The state machine of limits, on columns, against one that takes a reading at a time and looks back each time."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import inf, isfinite, nan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meterite.model.columns import Batch
from meterite.model.limits import (
    ABOVE_MAX,
    BELOW_MIN,
    CLEARED,
    LATE,
    QUIET,
    TIME_NONE,
    Alarm,
    AlarmState,
    Rule,
)
from model.judged import judge

ABOVE, BELOW, OK = "above", "below", "ok"
KINDS = {ABOVE: ABOVE_MAX, BELOW: BELOW_MIN, OK: CLEARED}
SAYS = {kind: state for state, kind in KINDS.items()}
STATES = {OK: AlarmState.OK, ABOVE: AlarmState.ABOVE, BELOW: AlarmState.BELOW}
SERIES = (3 << 32, 3 << 32 | 7, 9 << 32)
NEVER = -(2**62)
FOREVER = 2**62


# --- The oracle: written from docs/events.md, one reading after the other, nothing remembered but what was read.


@dataclass
class Told:
    """What one reading says: outside and how, late or not, and whether by it ``state`` is what wasn't told before."""

    at: int
    value: float
    state: str
    late: bool = False
    crossed: bool = False


@dataclass
class Oracle:
    """One series. Its state, and what was told, are looked for in all that it has read, from the end."""

    on_time: list[tuple[int, str]] = field(default_factory=list)
    heard: list[tuple[str, bool]] = field(default_factory=list)
    """Behind each of them the state, and whether it was muted."""
    state: str = OK
    since: int | None = None

    @property
    def newest(self):
        return self.on_time[-1][0] if self.on_time else TIME_NONE

    @property
    def told(self):
        return next((state for state, muted in reversed(self.heard) if not muted), OK)

    def read(self, at, value, rule, *, muted=False):
        if not isfinite(value):
            return None
        side = ABOVE if value > rule.high else BELOW if value < rule.low else OK
        if at < self.newest:
            return None if side == OK else Told(at, value, side, late=True)
        self.on_time.append((at, side))
        before = self.told
        if side == OK:
            self.inside(value, rule)
        elif side != self.state and at - self.run_began() >= rule.for_us:
            self.state, self.since = side, self.run_began()
        self.heard.append((self.state, muted))
        if self.told != before:
            return Told(at, value, self.state, crossed=True)
        return Told(at, value, side) if side == self.state != OK else None

    def inside(self, value, rule):
        near = {
            ABOVE: value > rule.high - rule.hysteresis,
            BELOW: value < rule.low + rule.hysteresis,
            OK: True,
        }
        if not near[self.state]:
            self.state, self.since = OK, None

    def run_began(self):
        """Since when its readings have been on the side on which the newest one is."""
        newest = self.on_time[-1][1]
        began = None
        for at, side in reversed(self.on_time):
            if side != newest:
                break
            began = at
        return began

    def pending(self):
        """What it would become if its readings stayed where they are, and since when."""
        if not self.on_time or self.on_time[-1][1] in {OK, self.state}:
            return OK, None
        return self.on_time[-1][1], self.run_began()


def summed_up(told, every):
    """The events of a commit: (kind, late) with the readings that each sums up, by the last that raised it."""
    events, raised = {}, {}
    for n, one in enumerate(told):
        key = (KINDS[one.state], LATE if one.late else 0)
        if key[0] == CLEARED:
            events[key] = []
        events.setdefault(key, []).append((one.at, one.value))
        if one.late or one.crossed or every:
            raised[key] = n
    return [(key, events[key]) for key in sorted(raised, key=raised.get)]


def extreme_of(kind, readings):
    best = max if kind == ABOVE_MAX else min
    return best(readings, key=lambda reading: reading[1])


# --- The columns: a store's part of the work, as simply as can be.


class Store:
    """Alarms and newest readings, kept over commits."""

    def __init__(self):
        self.alarms = {}
        self.newest = {}
        self.folded = {}
        self.believed = {}

    def commit(self, readings, rules, now=0):
        """``readings`` are (series, at, value), ``rules`` by series; the rows of what happened."""
        series, index = np.unique(np.array([r[0] for r in readings], np.int64), return_inverse=True)
        at_us, values = (
            np.array([r[1] for r in readings], np.int64),
            np.array([r[2] for r in readings], float),
        )
        batch = Batch(series, index.astype(np.uint32), at_us, values)
        newest = dict(self.newest)
        walked = ({**self.alarms}, {**newest})
        rest = judge(batch, rules.get, *walked, now, compiled=False)
        found = judge(batch, rules.get, self.alarms, newest, now, compiled=True)
        assert found.tolist() == rest.tolist(), "in one pass, and one by one"
        assert (self.alarms, newest) == walked
        for one, at, value in readings:
            self.newest.setdefault(one, TIME_NONE)
            if isfinite(value):
                self.newest[one] = max(self.newest[one], at)
        assert newest == self.newest
        self.fold(found)
        return found

    def fold(self, found):
        """What is kept of alarms is no more than what their rows say; what was told, no more than events say."""
        for row in found:
            fields = ("state", "since", "pending", "pending_since", "told")
            self.folded[int(row["series"])] = Alarm(*(int(row[name]) for name in fields))
            if not row["flags"] & (QUIET | LATE):
                self.believed[int(row["series"])] = STATES[SAYS[int(row["kind"])]]
        for one, state in self.believed.items():
            assert self.folded.get(one, Alarm()).told == state
        self.folded = {one: alarm for one, alarm in self.folded.items() if not alarm.at_rest}
        assert self.folded == self.alarms


def time_of(us):
    return TIME_NONE if us is None else us


def compare(found, oracle, told, rule, now):
    """The rows of one series in one commit, against what the oracle told of its readings."""
    pending, pending_since = oracle.pending()
    expected = [] if now < rule.mute_until_us else summed_up(told, rule.every)
    if not expected:
        assert [(row["kind"], row["flags"], row["count"]) for row in found] in ([], [(0, QUIET, 0)])
    else:
        assert [(row["kind"], row["flags"]) for row in found] == [key for key, _ in expected]
    for row in found:
        assert (row["state"], row["since"]) == (STATES[oracle.state], time_of(oracle.since))
        assert (row["pending"], row["pending_since"]) == (STATES[pending], time_of(pending_since))
        assert row["told"] == STATES[oracle.told]
        assert (row["low"], row["high"]) == (rule.low, rule.high)
    for row, (key, readings) in zip(found, expected, strict=False):
        assert row["count"] == len(readings)
        assert (row["first_at"], row["first"]) == readings[0]
        assert (row["last_at"], row["last"]) == readings[-1]
        assert (row["extreme_at"], row["extreme"]) == extreme_of(key[0], readings)


def run(commits):
    """Through both; ``commits`` are (readings, rules, now). The oracles, and the store."""
    oracles, store = {one: Oracle() for one in SERIES}, Store()
    for readings, rules, now in commits:
        found = store.commit(readings, rules, now)
        assert found["series"].tolist() == sorted(found["series"].tolist())
        for one, oracle in oracles.items():
            state = oracle.state, oracle.since, oracle.pending(), oracle.told
            muted = now < rules[one].mute_until_us
            own = [(at, value) for series, at, value in readings if series == one]
            told = [oracle.read(at, value, rules[one], muted=muted) for at, value in own]
            rows = found[found["series"] == one]
            compare(rows, oracle, [t for t in told if t is not None], rules[one], now)
            assert len(rows) or state == (oracle.state, oracle.since, oracle.pending(), oracle.told)
        check_alarms(oracles, store)
    return oracles, store


def check_alarms(oracles, store):
    for one, oracle in oracles.items():
        alarm = store.alarms.get(one, Alarm())
        pending, pending_since = oracle.pending()
        assert (alarm.state, alarm.since_us) == (STATES[oracle.state], time_of(oracle.since))
        assert alarm.told == STATES[oracle.told]
        assert (alarm.pending, alarm.pending_since_us) == (STATES[pending], time_of(pending_since))


# --- What is tried. Few times and few values, so that equal ones, limits hit exactly and ways back are frequent.

values = st.sampled_from([-30.0, -12.0, -10.0, -9.0, -8.0, -7.5, 0.0, 7.5, 8.0, 9.0, 10.0, 11.0, 12.0, 30.0])
odd_values = st.sampled_from([nan, inf, -inf, 1e308, -1e308, -0.0])
readings = st.tuples(st.sampled_from(SERIES), st.integers(0, 12), values | values | values | odd_values)
in_order = st.lists(readings, min_size=1, max_size=12).map(lambda some: sorted(some, key=lambda r: r[1]))
in_any_order = st.lists(readings, min_size=1, max_size=12)
sides = {"low": st.sampled_from([-10.0, -8.0, 0.0]), "high": st.sampled_from([8.0, 10.0, 0.0])}
plain_rules = st.builds(Rule, **sides, every=st.booleans())
odd_rules = st.builds(
    Rule,
    **sides,
    hysteresis=st.sampled_from([0.0, 1.0, 2.5, 100.0, 1e308]),
    for_us=st.sampled_from([0, 0, 1, 3]),
    every=st.booleans(),
    mute_until_us=st.sampled_from([NEVER, 0, 1, 3, FOREVER]),
)
rules = plain_rules | odd_rules
rules_by_series = st.fixed_dictionaries(dict.fromkeys(SERIES, rules))


@st.composite
def commits(draw):
    """Rules that change now and then, and mutes; within each, readings in any order."""
    made = []
    for now in range(draw(st.integers(1, 6))):
        rules = draw(rules_by_series) if not made or draw(st.booleans()) else made[-1][1]
        some = draw(
            in_order.map(lambda some, now=now: [(s, at + 12 * now, v) for s, at, v in some]) | in_any_order
        )
        made.append((some, rules, now))
    return made


@given(commits())
@settings(max_examples=600, deadline=None)
def test_columns_say_what_one_reading_after_the_other_says(tried):
    """Any order of arrival, several series, hysteresis, ``for``, both ways to notify, mutes, NaN and infinities."""
    run(tried)


@given(st.lists(readings, min_size=1, max_size=30), rules_by_series, st.data())
@settings(max_examples=400, deadline=None)
def test_commits_may_be_cut_anywhere(sequence, rules, data):
    """State, since when, what is pending and what was told don't depend on which readings came in one commit."""
    ends = sorted(data.draw(st.sets(st.integers(1, len(sequence)))) | {len(sequence)})
    pieces = [sequence[a:b] for a, b in zip([0, *ends], ends, strict=False)]
    _, cut = run([(piece, rules, 0) for piece in pieces])
    _, whole = run([(sequence, rules, 0)])
    assert (cut.alarms, cut.newest) == (whole.alarms, whole.newest)


@given(st.lists(readings, min_size=1, max_size=30), rules_by_series)
@settings(max_examples=200, deadline=None)
def test_one_by_one_every_crossing_is_an_event(sequence, rules):
    """In commits of one reading each, events are the oracle's, one for one; a mute changes no state."""
    oracles, loud, mute = {one: Oracle() for one in SERIES}, Store(), Store()
    rules = {one: replace(rule, mute_until_us=NEVER) for one, rule in rules.items()}
    muted = {one: replace(rule, mute_until_us=FOREVER) for one, rule in rules.items()}
    for reading in sequence:
        one = reading[0]
        told = oracles[one].read(*reading[1:], rules[one])
        found = loud.commit([reading], rules)
        events = [(row["kind"], row["flags"]) for row in found if not row["flags"] & QUIET]
        heard = told is not None and (told.late or told.crossed or rules[one].every)
        assert events == ([(KINDS[told.state], LATE if told.late else 0)] if heard else [])
        assert (mute.commit([reading], muted)["flags"] == QUIET).all()
    assert mute.alarms == {one: replace(alarm, told=AlarmState.OK) for one, alarm in loud.alarms.items()}


@given(commits(), rules_by_series)
@settings(max_examples=200, deadline=None)
def test_behind_every_mute_what_was_told_is_what_holds(tried, rules):
    """Whatever went before: one more reading of each series, and whoever heard all events knows every state."""
    _, store = run(tried)
    unmuted = {one: replace(rule, mute_until_us=NEVER) for one, rule in rules.items()}
    store.commit([(one, 1000, 5.0) for one in SERIES], unmuted)
    for one in SERIES:
        alarm = store.alarms.get(one, Alarm())
        assert store.believed.get(one, AlarmState.OK) == alarm.told == alarm.state


@given(st.lists(readings, min_size=1, max_size=30), rules_by_series)
def test_a_commit_raises_one_event_a_series_and_direction(sequence, rules):
    """At most: above, below, each on time and late, and cleared."""
    found = Store().commit(sequence, rules)
    keys = [(row["series"], row["kind"], row["flags"]) for row in found]
    assert len(keys) == len(set(keys))


def one(values, rule, store=None, first=0):
    """The rows of one commit of one series, a reading a µs."""
    store = store or Store()
    return store.commit([(SERIES[0], first + n, v) for n, v in enumerate(values)], {SERIES[0]: rule})


def kinds(found):
    return [(int(row["kind"]), int(row["flags"])) for row in found]


LIMITS = Rule(low=0.0, high=10.0)


def test_a_limit_itself_is_inside():
    """Outside is above the maximum or below the minimum."""
    assert kinds(one([0.0, 10.0, -0.0], LIMITS)) == []


def test_under_change_the_crossing_and_the_clearing():
    """Once each, however long it lasts."""
    store = Store()
    assert kinds(one([11, 12], LIMITS, store)) == [(ABOVE_MAX, 0)]
    assert kinds(one([13], LIMITS, store, 5)) == []
    assert kinds(one([5], LIMITS, store, 6)) == [(CLEARED, 0)]
    assert kinds(one([5], LIMITS, store, 7)) == []


def test_what_a_commit_saw_stands_in_the_order_in_which_it_ended():
    """The last that isn't late says what holds."""
    found = one([11, 5, -1, 12, 5, 14, 13], LIMITS)
    assert kinds(found) == [(BELOW_MIN, 0), (CLEARED, 0), (ABOVE_MAX, 0)]
    assert [(row["count"], row["first"], row["last"], row["extreme"]) for row in found] == [
        (1, -1, -1, -1),
        (1, 5, 5, 5),
        (4, 11, 13, 14),
    ]


def test_late_is_older_than_the_series_newest():
    """It raises its event, and leaves the state; the same time again is not late, it replaces."""
    store = Store()
    one([5], LIMITS, store, 10)
    found = one([99], LIMITS, store, 9)
    assert kinds(found) == [(ABOVE_MAX, LATE)]
    assert found["state"].tolist() == [AlarmState.OK]
    assert kinds(one([99], LIMITS, store, 10)) == [(ABOVE_MAX, 0)]
    assert kinds(one([5], LIMITS, store, 9)) == []
    assert kinds(one([5], LIMITS, store, 10)) == [(CLEARED, 0)]


def test_hysteresis_keeps_the_state_near_its_limit():
    """Cleared at the limit less the hysteresis, not before."""
    rule = Rule(low=0.0, high=10.0, hysteresis=2.0)
    store = Store()
    one([11], rule, store)
    assert kinds(one([9, 8.5], rule, store, 1)) == []
    assert kinds(one([8], rule, store, 5)) == [(CLEARED, 0)]


def test_for_waits_and_a_break_begins_anew():
    """The state begins with the first of the readings outside; the events sum up what came once it was entered."""
    rule = Rule(low=0.0, high=10.0, for_us=3)
    store = Store()
    assert kinds(one([11, 12, 5, 13, 14], rule, store)) == [(0, QUIET)]
    found = one([15, 16, 17], rule, store, 5)
    assert kinds(found) == [(ABOVE_MAX, 0)]
    assert (found["since"][0], found["first_at"][0], found["count"][0]) == (3, 6, 2)


def test_from_above_to_below_there_is_no_clearing():
    """The new event ends the old state."""
    store = Store()
    one([11], LIMITS, store)
    assert kinds(one([-1], LIMITS, store, 1)) == [(BELOW_MIN, 0)]


def test_limits_that_are_moved_hold_for_what_comes_after():
    """A series outside the old limits and inside the new ones is cleared by its next reading."""
    store = Store()
    one([11], LIMITS, store)
    assert kinds(one([11], Rule(low=0.0, high=20.0), store, 1)) == [(CLEARED, 0)]


@pytest.mark.parametrize("value", [nan, inf, -inf])
def test_what_is_not_finite_raises_nothing(value):
    """And isn't the newest either."""
    store = Store()
    assert kinds(one([value], LIMITS, store, 9)) == []
    assert kinds(one([11], LIMITS, store, 5)) == [(ABOVE_MAX, 0)]
    assert kinds(one([value], LIMITS, store, 9)) == []


MUTED = replace(LIMITS, mute_until_us=FOREVER)


def test_a_crossing_while_muted_is_told_behind_the_mute():
    """By the next reading that isn't late, with the time at which it began; once."""
    store = Store()
    assert kinds(one([11, 12], MUTED, store)) == [(0, QUIET)]
    assert kinds(one([99], LIMITS, store, 0)) == [(ABOVE_MAX, LATE)]
    found = one([13, 12], LIMITS, store, 5)
    assert kinds(found) == [(ABOVE_MAX, 0)]
    assert (found["since"][0], found["first"][0], found["count"][0]) == (0, 13, 2)
    assert kinds(one([14], LIMITS, store, 7)) == []


def test_a_clearing_while_muted_is_told_behind_the_mute():
    """Else who was told of the crossing would believe it for ever."""
    store = Store()
    one([11], LIMITS, store)
    assert kinds(one([5, 6], MUTED, store, 1)) == [(0, QUIET)]
    assert store.alarms
    found = one([7, 8], LIMITS, store, 5)
    assert kinds(found) == [(CLEARED, 0)]
    assert (found["first"][0], found["count"][0]) == (7, 1)
    assert not store.alarms


def test_what_came_and_went_while_muted_is_not_told():
    """Neither that it came nor that it went, also where it went by the first reading behind the mute."""
    store = Store()
    one([11, 5, 12], MUTED, store)
    assert kinds(one([5], LIMITS, store, 5)) == [(0, QUIET)]
    one([11], LIMITS, store, 6)
    assert kinds(one([5, 12], MUTED, store, 7)) == [(0, QUIET)]
    assert kinds(one([13], LIMITS, store, 9)) == []


def test_behind_a_mute_a_held_state_is_told_by_a_reading_inside():
    """It is the state that is told; ``hysteresis`` holds it, and nobody knows when a reading will be outside again."""
    store, rule = Store(), replace(LIMITS, hysteresis=2.0)
    one([11], replace(rule, mute_until_us=FOREVER), store)
    found = one([9, 12], rule, store, 1)
    assert kinds(found) == [(ABOVE_MAX, 0)]
    assert [found[name][0] for name in ("first", "last", "extreme", "count")] == [9, 12, 12, 2]
