"""How series stand, as a column each, and what a commit's readings mean for all of them at once.

What this file guarantees: pure, and the same as :func:`meterite.model.limits.walk` says of each series by itself. That
is called for the few whose next state doesn't follow from their readings' sides alone (something held, pending, muted,
late or not finite). The others are judged by ``_standing.c`` in one pass over the readings; where no compiler built it,
each series with a reading outside, or an alarm, is walked.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from meterite.model.limits import TIME_NONE, TRANSITION, Alarm, kinds_of, walk
from meterite.model.metric import SERIES_ORDINAL_BITS

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

    type_rows = NDArray[np.intp]

EVERY: Final = 1
HELD: Final = 2
"""Flags of a rule: raises by every reading; has ``hysteresis`` or ``for``."""
_U32, _I64, _F64 = (np.dtype(name) for name in ("u4", "i8", "f8"))
TIME_UNKNOWN: Final = int(np.iinfo(np.int64).max)
"""Of a newest reading that is to be looked up. The greatest number there is, so that newer ones keep it."""

CALM: Final = np.dtype([("low", "<f8"), ("high", "<f8"), ("newest", "<i8")])
"""What a series' reading that says nothing new lies between, finite numbers, NaN where its alarm isn't at rest; and its
newest reading, :data:`TIME_NONE` for none. Apart from the rest, since each commit looks at these of all its series."""
WATCHED: Final = np.dtype(
    [
        ("series", "<i8"),
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
"""A series, its metric's rule, its alarm (``alarmed``: isn't at rest). Times are µs. ``_standing.c`` has both."""


@dataclass(slots=True)
class Standing:
    """How series stand, a slot each: ``calm`` of :data:`CALM`, ``rows`` of :data:`WATCHED`."""

    calm: NDArray[np.void] = field(default_factory=lambda: np.zeros(0, CALM))
    rows: NDArray[np.void] = field(default_factory=lambda: np.zeros(0, WATCHED))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, slots: slice) -> Standing:
        return Standing(self.calm[slots], self.rows[slots])

    def __setitem__(self, slots: slice | type_i64, others: Standing) -> None:
        self.calm[slots] = others.calm
        self.rows[slots] = others.rows

    def set_rules(
        self, slots: type_rows | slice, rules: list[Rule], rule_of: type_rows | None = None
    ) -> None:
        """One each, or of each the number of its rule."""
        rows, which = self.rows, slice(None) if rule_of is None else rule_of
        rows["low"][slots] = np.array([rule.low for rule in rules], np.float64)[which]
        rows["high"][slots] = np.array([rule.high for rule in rules], np.float64)[which]
        rows["mute_until"][slots] = np.array([rule.mute_until_us for rule in rules], np.int64)[which]
        held = (HELD * (rule.hysteresis != 0 or rule.for_us != 0) for rule in rules)
        flags = [EVERY * rule.every | flag for rule, flag in zip(rules, held, strict=True)]
        rows["flags"][slots] = np.array(flags, np.uint8)[which]
        self._set_calm(slots)

    def set_alarm(self, slot: int, alarm: Alarm) -> None:
        row: Any = self.rows[slot]
        row["state"], row["pending"], row["told"] = alarm.state, alarm.pending, alarm.told
        row["since"], row["pending_since"] = alarm.since_us, alarm.pending_since_us
        row["alarmed"] = not alarm.at_rest
        self._set_calm(slice(slot, slot + 1))

    def _set_calm(self, slots: NDArray[np.intp] | slice) -> None:
        rows, greatest = self.rows[slots], np.finfo(np.float64).max
        self.calm["low"][slots] = np.where(rows["alarmed"], np.nan, np.maximum(rows["low"], -greatest))
        self.calm["high"][slots] = np.where(rows["alarmed"], np.nan, np.minimum(rows["high"], greatest))


def at_rest(series: list[int], rules: list[Rule], rule_of: type_rows | None = None) -> Standing:
    """Without a reading; rules as those that are set."""
    made = Standing(np.zeros(len(series), CALM), np.zeros(len(series), WATCHED))
    made.rows["series"] = series
    made.rows["since"] = made.rows["pending_since"] = made.calm["newest"] = TIME_NONE
    made.set_rules(slice(None), rules, rule_of)
    return made


def alarm_of(row: np.void) -> Alarm:
    """Of a row of :data:`WATCHED`."""
    _, _, _, _, since_us, pending_since_us, state, pending, told, _, _ = row.item()
    return Alarm(state, since_us, pending, pending_since_us, told)


class Judged(NamedTuple):
    """What a commit's readings raise: ``transitions``, rows of TRANSITION by series, as bytes; the ids of the
    ``metrics`` that they are about, ascending; the sum of the bits of their ``types``.
    """

    transitions: bytes
    metrics: list[int]
    types: int

    @classmethod
    def of(cls, transitions: NDArray[np.void]) -> Judged:
        metrics: list[int] = np.unique(transitions["series"] >> SERIES_ORDINAL_BITS).tolist()
        return cls(transitions.tobytes(), metrics, int(np.bitwise_or.reduce(kinds_of(transitions))))

    def __len__(self) -> int:
        return len(self.transitions) // TRANSITION.itemsize

    def rows(self) -> NDArray[np.void]:
        found: NDArray[Any] = np.frombuffer(self.transitions, TRANSITION)
        return found


NOTHING: Final = Judged(b"", [], 0)


def judge(
    batch: Batch,
    slots: type_i64,
    standing: Standing,
    *,
    rule_of: Callable[[int], Rule],
    look_up: Callable[[type_i64], None],
    now_us: int,
    compiled: bool = COMPILED,
) -> Judged:
    """The batch's series stand at ``slots``, in their order, and move on.

    ``rule_of`` answers a series id's rule, and is asked for those alone that are walked. ``look_up`` finds out what the
    newest readings at some slots are, where that matters and is unknown.
    """
    assert batch.series_index.dtype == _U32  # C takes the bytes for what they should be
    assert batch.at_us.dtype == _I64
    assert batch.values.dtype == _F64
    screen = _standing.judge if compiled else _screen
    given = batch.series_index, batch.at_us, batch.values, slots, standing.calm, standing.rows, now_us
    judged = screen(*given)
    if judged is None:
        matter = slots[_cases(batch.series_index, batch.values, standing.rows[slots])]
        look_up(matter[standing.calm["newest"][matter] == TIME_UNKNOWN])
        judged = screen(*given)
        assert judged is not None
    found, metrics, types, odd = judged
    if not odd:
        return Judged(found, metrics, types)
    walked = _walked(batch, np.frombuffer(odd, np.uint32), slots, standing, rule_of, now_us)
    rows = np.concatenate([np.frombuffer(found, TRANSITION), walked])
    return Judged.of(rows[np.argsort(rows["series"], kind="stable")])


def _cases(index: type_u32, values: type_f64, rows: NDArray[np.void]) -> NDArray[np.bool_]:
    """By series: whether it has a reading outside, or any while its alarm isn't at rest; few have, most of the time."""
    found = np.zeros(len(rows), bool)
    outside = (values > rows["high"][index]) | (values < rows["low"][index])
    found[index[outside | rows["alarmed"][index]]] = True
    return found


def _screen(
    index: type_u32,
    at_us: type_i64,
    values: type_f64,
    slots: type_i64,
    calm: NDArray[np.void],
    rows: NDArray[np.void],
    _now_us: int,
) -> tuple[bytes, list[int], int, bytes] | None:
    """What ``_standing.judge`` does, but that it judges nothing: all that may raise something is to be walked."""
    cases = _cases(index, values, rows[slots])
    before = calm["newest"][slots]
    if (before[cases] == TIME_UNKNOWN).any():
        return None
    newest, finite = before.copy(), np.isfinite(values)
    np.maximum.at(newest, index[finite], at_us[finite])
    calm["newest"][slots] = np.where(cases, before, newest)
    return b"", [], 0, np.flatnonzero(cases).astype(np.uint32).tobytes()


def _walked(
    batch: Batch,
    places: type_u32,
    slots: type_i64,
    standing: Standing,
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
        row, newest = standing.rows[slot], standing.calm["newest"]
        series, alarm = int(row["series"]), alarm_of(row)
        readings = zip(at_us[begin:end].tolist(), values[begin:end].tolist(), strict=True)
        made, newest[slot] = walk(series, rule_of(series), alarm, int(newest[slot]), readings, now_us)
        found += made
        standing.set_alarm(slot, alarm)
    return np.array(found, TRANSITION)
