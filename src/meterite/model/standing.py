"""How series stand, as a column each, and what a commit's readings mean for all of them at once.

What this file guarantees: pure, and the same as :func:`meterite.model.limits.walk` says of each series by itself. That
is called for the few whose next state doesn't follow from their readings' sides alone (something held, pending, muted,
late or not finite). The others are judged by ``_standing.c`` in one pass over the readings; where no compiler built it,
each series with a reading outside, or an alarm, is walked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from meterite.model.limits import TIME_NONE, TRANSITION, Alarm, walk

try:
    from meterite.model import _standing
except ImportError:  # no compiler was there
    COMPILED = False
else:
    COMPILED = True
"""Whether the extension is in use."""

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from meterite.model.columns import Batch, type_f64, type_i64, type_u32
    from meterite.model.limits import Rule

EVERY: Final = 1
HELD: Final = 2
"""Flags of a rule: raises by every reading; has ``hysteresis`` or ``for``."""
TIME_UNKNOWN: Final = int(np.iinfo(np.int64).max)
"""Of a newest reading that is to be looked up. The greatest number there is, so that newer ones keep it."""

WATCHED: Final = np.dtype(
    [
        ("series", "<i8"),
        ("newest", "<i8"),
        ("low", "<f8"),
        ("high", "<f8"),
        ("mute_until", "<i8"),
        ("since", "<i8"),
        ("pending_since", "<i8"),
        ("state", "u1"),
        ("pending", "u1"),
        ("told", "u1"),
        ("flags", "u1"),
        ("alarmed", "?"),
    ],
    align=True,
)
"""A series: its newest reading (:data:`TIME_NONE` for none), its metric's rule, its alarm (``alarmed``: isn't at rest).
Times are µs. ``_standing.c`` has the same."""


def watched(series: list[int], rules: list[Rule]) -> NDArray[np.void]:
    """Rows of :data:`WATCHED` at rest, without a reading."""
    rows: NDArray[Any] = np.zeros(len(series), WATCHED)
    rows["series"] = series
    rows["newest"] = rows["since"] = rows["pending_since"] = TIME_NONE
    set_rules(rows, slice(None), rules)
    return rows


def set_rules(rows: NDArray[np.void], slots: NDArray[np.intp] | slice, rules: list[Rule]) -> None:
    """Rules of the rows at ``slots``."""
    rows["low"][slots] = [rule.low for rule in rules]
    rows["high"][slots] = [rule.high for rule in rules]
    rows["mute_until"][slots] = [rule.mute_until_us for rule in rules]
    held = (HELD * (rule.hysteresis != 0 or rule.for_us != 0) for rule in rules)
    rows["flags"][slots] = [EVERY * rule.every | flag for rule, flag in zip(rules, held, strict=True)]


def alarm_of(row: np.void) -> Alarm:
    """Of a row of :data:`WATCHED`."""
    _, _, _, _, _, since_us, pending_since_us, state, pending, told, _, _ = row.item()
    return Alarm(state, since_us, pending, pending_since_us, told)


def set_alarm(rows: NDArray[np.void], slot: int, alarm: Alarm) -> None:
    row: Any = rows[slot]
    row["state"], row["pending"], row["told"] = alarm.state, alarm.pending, alarm.told
    row["since"], row["pending_since"] = alarm.since_us, alarm.pending_since_us
    row["alarmed"] = not alarm.at_rest


def judge(
    batch: Batch,
    slots: type_i64,
    rows: NDArray[np.void],
    *,
    rule_of: Callable[[int], Rule],
    look_up: Callable[[type_i64], None],
    now_us: int,
    compiled: bool = COMPILED,
) -> NDArray[np.void]:
    """Rows of :data:`TRANSITION`, by series; ``rows`` (of WATCHED, the batch's series at ``slots``) move on.

    ``rule_of`` answers a series id's rule, and is asked for those alone that are walked. ``look_up`` finds out what the
    newest readings at some slots are, where that matters and is unknown.
    """
    assert batch.series_index.dtype == np.uint32
    assert batch.values.dtype == np.float64  # C takes the bytes for what they should be
    assert batch.at_us.dtype == np.int64
    screen = _standing.judge if compiled else _screen
    columns = batch.series_index, batch.at_us, batch.values
    judged = screen(*columns, slots, rows, now_us)
    if judged is None:
        matter = slots[_cases(batch.series_index, batch.values, rows[slots])]
        look_up(matter[rows["newest"][matter] == TIME_UNKNOWN])
        judged = screen(*columns, slots, rows, now_us)
        assert judged is not None
    found: NDArray[Any] = np.frombuffer(judged[0], TRANSITION)
    if not judged[1]:
        return found
    walked = _walked(batch, np.frombuffer(judged[1], np.uint32), slots, rows, rule_of, now_us)
    if not len(found):
        return walked
    found = np.concatenate([found, walked])
    return found[np.argsort(found["series"], kind="stable")]


def _cases(index: type_u32, values: type_f64, rows: NDArray[np.void]) -> NDArray[np.bool_]:
    """By series: whether it has a reading outside, or an alarm that isn't at rest; few have, most of the time."""
    found: NDArray[np.bool_] = rows["alarmed"].copy()
    found[index[(values > rows["high"][index]) | (values < rows["low"][index])]] = True
    return found


def _screen(
    index: type_u32, at_us: type_i64, values: type_f64, slots: type_i64, rows: NDArray[np.void], _now_us: int
) -> tuple[bytes, bytes] | None:
    """What ``_standing.judge`` does, but that it judges nothing: all that may raise something is to be walked."""
    own = rows[slots]
    cases = _cases(index, values, own)
    if (own["newest"][cases] == TIME_UNKNOWN).any():
        return None
    newest, finite = own["newest"].copy(), np.isfinite(values)
    np.maximum.at(newest, index[finite], at_us[finite])
    rows["newest"][slots] = np.where(cases, own["newest"], newest)
    return b"", np.flatnonzero(cases).astype(np.uint32).tobytes()


def _walked(
    batch: Batch,
    places: type_u32,
    slots: type_i64,
    rows: NDArray[np.void],
    rule_of: Callable[[int], Rule],
    now_us: int,
) -> NDArray[np.void]:
    """One series after the other. A walk costs 10 µs a series and 1 a reading."""
    chosen = np.zeros(len(slots), bool)
    chosen[places] = True
    own = np.flatnonzero(chosen[batch.series_index])
    own = own[np.argsort(batch.series_index[own], kind="stable")]
    index, at_us, values = (column[own] for column in (batch.series_index, batch.at_us, batch.values))
    begins, ends = (index.searchsorted(places, side).tolist() for side in ("left", "right"))
    found: list[tuple[int | float, ...]] = []
    for slot, begin, end in zip(slots[places].tolist(), begins, ends, strict=True):
        row: Any = rows[slot]
        series, newest_us, alarm = int(row["series"]), int(row["newest"]), alarm_of(row)
        readings = zip(at_us[begin:end].tolist(), values[begin:end].tolist(), strict=True)
        made, row["newest"] = walk(series, rule_of(series), alarm, newest_us, readings, now_us)
        found += made
        set_alarm(rows, slot, alarm)
    return np.array(found, TRANSITION)
