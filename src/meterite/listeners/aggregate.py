"""StatsD's samples of an interval, made into readings. Pure but for what it holds.

    counter  NAME: the sum of value ÷ rate within the interval
    gauge    NAME: the last value; one with a sign is a step from the last, which is 0 where none is known
    set      NAME: how many different texts came within the interval
    timer    NAME.count (with the rate: how many there were), and of those that came: NAME.sum, .mean, .lower, .upper,
             .median, .upper_90 (the largest of the lower nine tenths, as StatsD rounds it)

What this file guarantees: what no sample came for has no reading, so a silent counter is no row of zeros. No more than
:data:`HELD_BYTES_MAX` are held for an interval, nor :data:`GAUGES_BYTES_MAX` for the last values of gauges, of which
those that are silent longest are forgotten first; :meth:`Aggregate.add` says of a sample whether it was taken.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from meterite.model.errors import InvalidInputError
from meterite.wire.gather import Gathered

if TYPE_CHECKING:
    from meterite.model.columns import Decoded, SeriesKey
    from meterite.wire.statsd import Sample

HELD_BYTES_MAX: Final = 32 * 1024 * 1024
GAUGES_BYTES_MAX: Final = 16 * 1024 * 1024
_SERIES_BYTES: Final = 400  # what an entry costs beside its texts, and a little more
_VALUE_BYTES: Final = 40
_TEXT_BYTES: Final = 100
_UPPER_SHARE: Final = 0.9


class Aggregate:
    """One interval after the other."""

    def __init__(
        self, *, held_bytes_max: int = HELD_BYTES_MAX, gauges_bytes_max: int = GAUGES_BYTES_MAX
    ) -> None:
        self._held_bytes_max = held_bytes_max
        self._gauges_bytes_max = gauges_bytes_max
        self._gauges: dict[SeriesKey, float] = {}
        self._gauges_bytes = 0
        self._begin()

    def _begin(self) -> None:
        self._held_bytes = 0
        self._counters: dict[SeriesKey, float] = {}
        self._moved: dict[SeriesKey, float] = {}
        self._sets: dict[SeriesKey, set[str]] = {}
        self._timers: dict[SeriesKey, list[float]] = {}
        self._timed: dict[SeriesKey, float] = {}

    def __len__(self) -> int:
        """How many series have samples."""
        return len(self._counters) + len(self._moved) + len(self._sets) + len(self._timers)

    def add(self, sample: Sample) -> bool:
        """Whether there was room for it."""
        if self._held_bytes > self._held_bytes_max:
            return False
        key = sample.key
        match sample.kind:
            case "counter":
                self._hold(key, key in self._counters, 0)
                self._counters[key] = self._counters.get(key, 0.0) + sample.value / sample.rate
            case "gauge" | "step":
                self._hold(key, key in self._moved, 0)
                base = self._gauges.get(key, 0.0) if sample.kind == "step" else 0.0
                self._moved[key] = base + sample.value
                self._remember(key, base + sample.value)
            case "set":
                texts: set[str] = self._sets.get(key, set())
                more = 0 if sample.text in texts else _TEXT_BYTES + len(sample.text)
                self._hold(key, key in self._sets, more)
                self._sets.setdefault(key, set()).add(sample.text)
            case "timer":
                self._hold(key, key in self._timers, _VALUE_BYTES)
                self._timers.setdefault(key, []).append(sample.value)
                self._timed[key] = self._timed.get(key, 0.0) + 1 / sample.rate
        return True

    def _hold(self, key: SeriesKey, known: bool, more: int) -> None:
        self._held_bytes += more if known else more + _cost(key)

    def _remember(self, key: SeriesKey, value: float) -> None:
        """The newest stand last."""
        if self._gauges.pop(key, None) is None:
            self._gauges_bytes += _cost(key)
        self._gauges[key] = value
        while self._gauges_bytes > self._gauges_bytes_max and len(self._gauges) > 1:
            oldest = next(iter(self._gauges))
            del self._gauges[oldest]
            self._gauges_bytes -= _cost(oldest)

    def take(self, at_us: int) -> Decoded:
        """The interval's readings, all at one time; the next interval begins."""
        gathered = Gathered(2**53)
        row = 0
        plain = [*self._counters.items(), *self._moved.items()]
        plain += [(key, float(len(texts))) for key, texts in self._sets.items()]
        for key, value in plain:
            _add(gathered, key, at_us, value, row)
            row += 1
        for key, values in self._timers.items():
            for suffix, value in _of_timer(values, self._timed[key]):
                try:
                    _add(gathered, gathered.key(key.code + suffix, dict(key.labels)), at_us, value, row)
                except InvalidInputError as exc:  # the name is too long with the suffix
                    gathered.reject(row, exc.code, exc.message)
                row += 1
        self._begin()
        return gathered.decoded()


def _add(gathered: Gathered, key: SeriesKey, at_us: int, value: float, row: int) -> None:
    if math.isfinite(value):
        gathered.add(key, at_us, value, row)
    else:
        gathered.reject(row, "reading-invalid", "The sum is beyond a float64.")


def _of_timer(values: list[float], count: float) -> list[tuple[str, float]]:
    values.sort()
    total, half = math.fsum(values) if math.isfinite(sum(values)) else math.inf, len(values) // 2
    median = values[half] if len(values) % 2 else (values[half - 1] + values[half]) / 2
    lower_share = max(1, math.floor(_UPPER_SHARE * len(values) + 0.5))
    return [
        (".count", count),
        (".sum", total),
        (".mean", total / len(values)),
        (".lower", values[0]),
        (".upper", values[-1]),
        (".median", median),
        (".upper_90", values[lower_share - 1]),
    ]


def _cost(key: SeriesKey) -> int:
    return (
        _SERIES_BYTES + len(key.code) + sum(_TEXT_BYTES + len(name) + len(text) for name, text in key.labels)
    )
