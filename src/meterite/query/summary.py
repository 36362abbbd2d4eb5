"""Summaries: what many readings come to, step by step.

What this file guarantees: the outcome doesn't depend on how readings are divided into chunks or on the
chunks' order (but for the rounding of sums); no Python step is taken per reading; memory grows with the
steps, and with the readings only where a percentile is asked for, up to a bound. NaN (no value) is left
out, infinities count.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from meterite.model.errors import InvalidInputError
from meterite.model.number import numbers_text
from meterite.model.time import Place, excerpt, format_many

if TYPE_CHECKING:
    from numpy.typing import NDArray

FUNCTIONS: Final = ("mean", "min", "max", "sum", "count", "first", "last")
"""And ``pNN`` or ``pNN.N``, from p0 to p100."""

PERCENTILE_READINGS_MAX: Final = 10_000_000
FUNCTIONS_MAX: Final = 32

_PERCENTILE: Final = re.compile(r"p([0-9]{1,3}(?:\.[0-9]{1,6})?)")
_RUNS_WORTH_SORTING: Final = 4


def percentile_of(fn: str) -> float | None:
    """The percentage of ``p95``; None for what is no percentile."""
    match = _PERCENTILE.fullmatch(fn)
    percent = float(match.group(1)) if match else 101.0
    return percent if percent <= 100 else None


def parse_functions(text: str, *, place: Place = ("query", "fn")) -> tuple[str, ...]:
    """The functions of a text like ``mean,max,p95``, each once, in their order."""
    fns = tuple(dict.fromkeys(fn.strip(" ") for fn in text.split(",")))
    for fn in fns:
        if fn not in FUNCTIONS and percentile_of(fn) is None:
            raise InvalidInputError(
                "function-unknown",
                f"{excerpt(fn)} is not a function: use {', '.join(FUNCTIONS)} or p0 to p100 (p95, p99.9).",
                place=place,
            )
    if len(fns) > FUNCTIONS_MAX:
        raise InvalidInputError(
            "function-unknown", f"At most {FUNCTIONS_MAX} functions can be asked for at once.", place=place
        )
    return fns


@dataclass(frozen=True, slots=True)
class Ends:
    """The best candidate for ``first`` (or ``last``) of each step so far; ``at_us`` of none is beyond all."""

    newest: bool
    at_us: NDArray[np.int64]
    series: NDArray[np.int64]
    values: NDArray[np.float64]

    @staticmethod
    def of(steps: int, *, newest: bool) -> Ends:
        edge = np.iinfo(np.int64).min if newest else np.iinfo(np.int64).max
        return Ends(newest, np.full(steps, edge), np.full(steps, edge), np.full(steps, np.nan))

    def offer(
        self,
        step: NDArray[np.int64],
        at_us: NDArray[np.int64],
        series: NDArray[np.int64],
        values: NDArray[np.float64],
    ) -> None:
        """Take what is earlier (or later) by time and then series than what each step has; few rows come
        here.
        """
        touched = np.unique(step)
        all_step = np.concatenate([touched, step])
        all_at = np.concatenate([self.at_us[touched], at_us])
        all_series = np.concatenate([self.series[touched], series])
        all_values = np.concatenate([self.values[touched], values])
        order = np.lexsort((all_series, all_at, all_step))
        ends = np.searchsorted(all_step[order], touched, side="right") - 1 if self.newest else None
        starts = np.searchsorted(all_step[order], touched, side="left")
        best = order[starts if ends is None else ends]
        self.at_us[touched] = all_at[best]
        self.series[touched] = all_series[best]
        self.values[touched] = all_values[best]


@dataclass(slots=True)
class Runs:
    """Readings cut into runs: run r is rows ``begins[r]`` up to the next, all of step ``step[r]``."""

    begins: NDArray[np.intp]
    length: NDArray[np.intp]
    step: NDArray[np.int64]


@dataclass(slots=True)
class Kept:
    """Values kept for percentiles: chunks of them, and the runs they are made of."""

    values: list[NDArray[np.float64]] = field(default_factory=list)
    step: list[NDArray[np.int64]] = field(default_factory=list)
    length: list[NDArray[np.intp]] = field(default_factory=list)
    count: int = 0


class Aggregate:
    """Takes readings in chunks and holds what the functions need of each step, no more.

    Step i is ``edges[i]`` (included) to ``edges[i + 1]`` (not); readings outside all of them are left out.
    """

    def __init__(
        self,
        edges: NDArray[np.int64],
        fns: tuple[str, ...],
        *,
        percentile_readings_max: int = PERCENTILE_READINGS_MAX,
    ) -> None:
        self.edges = edges
        self.fns = fns
        self.percentile_readings_max = percentile_readings_max
        steps = len(edges) - 1
        widths = np.diff(edges)
        self._width = int(widths[0]) if steps and (widths == widths[0]).all() else 0
        self._count = np.zeros(steps, np.int64)
        self._sum = np.zeros(steps) if {"mean", "sum"} & set(fns) else None
        self._min = np.full(steps, np.inf) if "min" in fns else None
        self._max = np.full(steps, -np.inf) if "max" in fns else None
        self._first = Ends.of(steps, newest=False) if "first" in fns else None
        self._last = Ends.of(steps, newest=True) if "last" in fns else None
        self._kept = Kept() if any(percentile_of(fn) is not None for fn in fns) else None

    @property
    def needs_time(self) -> bool:
        """Whether the time within a step matters: then :meth:`add_whole` can't be used."""
        return self._first is not None or self._last is not None

    def step_of(self, at_first_us: int, at_last_us: int) -> int | None:
        """The step that holds both times and so all between them, if there is one."""
        first, last = np.searchsorted(self.edges, [at_first_us, at_last_us], side="right").tolist()
        return first - 1 if first == last and 0 < first < len(self.edges) else None

    def add_whole(self, step: int, values: NDArray[np.float64]) -> None:
        """Readings that all lie in one step, whatever their order; their times aren't looked at."""
        assert not self.needs_time
        values = _without_nan(values)
        if not len(values):
            return
        self._count[step] += len(values)
        with np.errstate(over="ignore", invalid="ignore"):
            if self._sum is not None:
                self._sum[step] += np.add.reduce(values)
        if self._min is not None:
            self._min[step] = min(self._min[step], np.minimum.reduce(values))
        if self._max is not None:
            self._max[step] = max(self._max[step], np.maximum.reduce(values))
        self._keep(values, np.array([step], np.int64), np.array([len(values)], np.intp))

    def add(
        self, at_us: NDArray[np.int64], values: NDArray[np.float64], series: NDArray[np.int64] | int = 0
    ) -> None:
        """Readings in any order; those sorted by (series, time) or by time cost least."""
        if not self.needs_time and len(values) and self.edges.size > 1:
            step = self.step_of(int(at_us.min()), int(at_us.max()))
            if step is not None:
                self.add_whole(step, values)
                return
        within = (at_us >= self.edges[0]) & (at_us < self.edges[-1]) & ~np.isnan(values)
        if not within.all():
            at_us, values = at_us[within], values[within]
            series = series if isinstance(series, int) else series[within]
        if not len(values):
            return
        of_row = np.full(len(values), series) if isinstance(series, int) else series
        step_of_row = self._steps(at_us)
        runs = self._runs(step_of_row, at_us, of_row)
        if runs is None:
            keys = (at_us, of_row, step_of_row) if self.needs_time else (step_of_row,)
            order = np.lexsort(keys)
            at_us, values = at_us[order], values[order]
            of_row, step_of_row = of_row[order], step_of_row[order]
            runs = self._runs(step_of_row, at_us, of_row)
            assert runs is not None
        self._add_runs(runs, values)
        self._add_ends(runs, at_us, of_row, values)

    def _steps(self, at_us: NDArray[np.int64]) -> NDArray[np.int64]:
        if self._width:
            step: NDArray[np.int64] = (at_us - self.edges[0]) // self._width
            return step
        after: NDArray[np.int64] = np.searchsorted(self.edges, at_us, side="right")
        return after - 1

    def _runs(
        self, step: NDArray[np.int64], at_us: NDArray[np.int64], series: NDArray[np.int64]
    ) -> Runs | None:
        """The runs there are, or None where sorting first makes far fewer of them, or is needed."""
        change = step[1:] != step[:-1]
        if self.needs_time:
            change |= series[1:] != series[:-1]
            if not (change | (at_us[1:] >= at_us[:-1])).all():
                return None
        begins = np.concatenate([[0], np.flatnonzero(change) + 1])
        scattered = len(begins) * _RUNS_WORTH_SORTING > len(step)
        if scattered and not self.needs_time and (step[1:] < step[:-1]).any():
            return None
        return Runs(begins, np.diff(begins, append=len(step)), step[begins])

    def _add_runs(self, runs: Runs, values: NDArray[np.float64]) -> None:
        steps = len(self._count)
        if len(runs.step) * 8 < steps:
            np.add.at(self._count, runs.step, runs.length)
        else:
            self._count += np.bincount(runs.step, runs.length, steps).astype(np.int64)
        if self._sum is not None:
            with np.errstate(over="ignore", invalid="ignore"):
                np.add.at(self._sum, runs.step, np.add.reduceat(values, runs.begins))
        if self._min is not None:
            np.minimum.at(self._min, runs.step, np.minimum.reduceat(values, runs.begins))
        if self._max is not None:
            np.maximum.at(self._max, runs.step, np.maximum.reduceat(values, runs.begins))
        self._keep(values, runs.step, runs.length)

    def _add_ends(
        self, runs: Runs, at_us: NDArray[np.int64], series: NDArray[np.int64], values: NDArray[np.float64]
    ) -> None:
        for ends in (self._first, self._last):
            if ends is not None:
                rows = runs.begins + runs.length - 1 if ends.newest else runs.begins
                ends.offer(runs.step, at_us[rows], series[rows], values[rows])

    def _keep(self, values: NDArray[np.float64], step: NDArray[np.int64], length: NDArray[np.intp]) -> None:
        if self._kept is None:
            return
        self._kept.count += len(values)
        if self._kept.count > self.percentile_readings_max:
            raise InvalidInputError(
                "summary-too-large",
                f"Percentiles are computed of at most {self.percentile_readings_max} readings: ask for "
                "less time (start, end), for fewer series (labels), or for functions without such a bound.",
                place=("query", "fn"),
            )
        # A copy: what came may be a view of something larger, which would be held in memory with it.
        self._kept.values.append(values.copy())
        self._kept.step.append(step)
        self._kept.length.append(length)

    def rows(self) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]]:
        """Where each step that has readings begins, and a column for each function."""
        held = np.flatnonzero(self._count)
        if self._kept is not None:
            ordered = _by_step(self._kept)
            begins = np.cumsum(self._count) - self._count
            for step in held.tolist():
                ordered[begins[step] : begins[step] + self._count[step]].sort()
        columns: dict[str, NDArray[Any]] = {}
        for fn in self.fns:
            percent = percentile_of(fn)
            if percent is not None:
                columns[fn] = _percentile(ordered, begins[held], self._count[held], percent)
            else:
                columns[fn] = self._column(fn)[held]
        return self.edges[:-1][held], columns

    def _column(self, fn: str) -> NDArray[Any]:
        if fn == "count":
            return self._count
        if fn == "mean":
            assert self._sum is not None
            return self._sum / np.maximum(self._count, 1)
        if fn in {"first", "last"}:
            ends = self._first if fn == "first" else self._last
            assert ends is not None
            return ends.values
        column = {"sum": self._sum, "min": self._min, "max": self._max}[fn]
        assert column is not None
        return column


def _without_nan(values: NDArray[np.float64]) -> NDArray[np.float64]:
    missing = np.isnan(values)
    return values[~missing] if missing.any() else values


def _by_step(kept: Kept) -> NDArray[np.float64]:
    """All values kept, those of the first step first."""
    if not kept.values:
        return np.empty(0)
    values = np.concatenate(kept.values)
    step = np.repeat(np.concatenate(kept.step).astype(np.int32), np.concatenate(kept.length))
    if (step[1:] < step[:-1]).any():
        values = values[np.argsort(step, kind="stable")]
    return values


def _percentile(
    ordered: NDArray[np.float64], begins: NDArray[np.int64], count: NDArray[np.int64], percent: float
) -> NDArray[np.float64]:
    """By linear interpolation between the two nearest readings (numpy's default), infinities included."""
    place = (count - 1) * (percent / 100)
    below = np.floor(place).astype(np.int64)
    part = place - below
    low = ordered[begins + below]
    high = ordered[begins + np.minimum(below + 1, count - 1)]
    with np.errstate(over="ignore", invalid="ignore"):
        between = np.where(part < 0.5, low + (high - low) * part, high - (high - low) * (1 - part))
    found: NDArray[np.float64] = np.where((part == 0) | (low == high), low, between)
    return found


@dataclass(frozen=True, slots=True)
class Summary:
    """A column of values for each function, a row for each step that has readings. ``every`` None is one
    step.
    """

    every: str | None
    tz: str
    fns: tuple[str, ...]
    starts: NDArray[np.int64]
    columns: dict[str, NDArray[Any]]

    @staticmethod
    def of(aggregate: Aggregate, *, every: str | None, tz: str) -> Summary:
        starts, columns = aggregate.rows()
        return Summary(every, tz, aggregate.fns, starts, columns)


def summary_json(summary: Summary) -> bytes:
    """``{"every": …, "tz": …, "rows": [{"start": …, "mean": …}]}``; infinities as ``"+Inf"`` and
    ``"-Inf"``.
    """
    starts = format_many(summary.starts)
    columns = [[f',"{fn}":{text}' for text in numbers_text(summary.columns[fn])] for fn in summary.fns]
    rows = (f'{{"start":"{start}"{"".join(cells)}}}' for start, *cells in zip(starts, *columns, strict=True))
    every = "null" if summary.every is None else f'"{summary.every}"'
    return f'{{"every":{every},"tz":"{summary.tz}","rows":[{",".join(rows)}]}}'.encode()


def summary_csv(summary: Summary) -> bytes:
    """A line of names and a line for each row; what JSON writes as null is empty here."""
    columns = [format_many(summary.starts)]
    columns += [_cells(numbers_text(summary.columns[fn])) for fn in summary.fns]
    lines = [",".join(("start", *summary.fns)), *map(",".join, zip(*columns, strict=True)), ""]
    return "\n".join(lines).encode()


def _cells(texts: list[str]) -> list[str]:
    return ["" if text == "null" else text.strip('"') for text in texts]
