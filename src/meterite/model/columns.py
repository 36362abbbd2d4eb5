"""The shapes in which readings travel: columns, never rows.

:class:`Decoded` is what a decoder in ``wire`` returns (it knows no series ids), :class:`Batch` what the catalogue
makes of it, :class:`Columns` what the store keeps and gives back.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Mapping

type_i64 = NDArray[np.int64]
type_f64 = NDArray[np.float64]
type_u32 = NDArray[np.uint32]

NO_TIME: Final = int(np.iinfo(np.int64).min)
"""Stands in ``at_us`` where a row brought no time and the server gives one."""

STALE_BITS: Final = 0x7FF0000000000002
"""The NaN that ends a series: Prometheus' stale marker, which is kept to the bit."""

Labels = tuple[tuple[str, str], ...]
"""Pairs of label name and value, sorted by name; no labels is the empty tuple."""


@dataclass(frozen=True, slots=True)
class SeriesKey:
    """What names a series within an org: the metric's code and the labels."""

    code: str
    labels: Labels = ()


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that was not taken: its place in the request (as ``Decoded.counted``), a stable code, a sentence."""

    index: int
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Described:
    """What a format tells of a metric beside its readings; an empty text tells nothing."""

    unit: str = ""
    description: str = ""


@dataclass(frozen=True, slots=True)
class Decoded:
    """A request's readings. Row i is ``keys[key_index[i]]`` at ``at_us[i]`` with ``values[i]``.

    ``keys`` are distinct. ``row`` holds each row's place in the request, or is None where that is its number;
    ``counted`` says what places count: readings from 0 (``index``), or lines from 1 (``line``; one may hold several).
    ``at_us`` is µs since 1970 UTC, or :data:`NO_TIME`. ``skipped`` counts what was well-formed and is no reading (a
    text, an unknown value). ``described`` is by code. ``unit`` is that of integer times (``s``, ``ms``, ``us`` or
    ``ns``), which may be labelled wrong; None where times are texts. ``unit_asked`` says that ``?precision`` gave it.
    """

    keys: list[SeriesKey]
    key_index: type_u32
    at_us: type_i64
    values: type_f64
    row: type_i64 | None = None
    rejected: list[Rejected] = field(default_factory=list)
    skipped: int = 0
    described: Mapping[str, Described] = field(default_factory=dict)
    counted: Literal["index", "line"] = "index"
    unit: str | None = None
    unit_asked: bool = False

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True, slots=True)
class Batch:
    """Readings of one org, resolved: row i is ``series[series_index[i]]``.

    ``series`` int64[k], distinct, ascending; ``series_index`` uint32[n]; ``at_us`` int64[n]; ``values`` float64[n].
    Rows stand in the order of the request: of two with one key the policy takes the first as the older.
    """

    series: type_i64
    series_index: type_u32
    at_us: type_i64
    values: type_f64

    def __len__(self) -> int:
        return len(self.values)


@dataclass(slots=True)
class Single:
    """A batch of one reading, without arrays: most requests bring one, and four arrays cost more than its commit."""

    series: int
    at_us: int
    value: float

    def __len__(self) -> int:
        return 1


@dataclass(frozen=True, slots=True)
class Columns:
    """Readings as the store keeps them: four columns of one length.

    ``series`` and ``at_us`` int64, ``values`` float64, ``seq`` int64 (the commit that brought the reading).
    """

    series: type_i64
    at_us: type_i64
    values: type_f64
    seq: type_i64

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_] | slice) -> Columns:
        """The rows chosen by an index, a mask or a slice (a slice copies nothing)."""
        return Columns(self.series[rows], self.at_us[rows], self.values[rows], self.seq[rows])

    @staticmethod
    def empty() -> Columns:
        none = np.empty(0, np.int64)
        return Columns(none, none, np.empty(0, np.float64), none)

    @staticmethod
    def concat(parts: list[Columns]) -> Columns:
        """One after the other, in the order of the list."""
        if len(parts) == 1:
            return parts[0]
        if not parts:
            return Columns.empty()
        return Columns(
            np.concatenate([p.series for p in parts]),
            np.concatenate([p.at_us for p in parts]),
            np.concatenate([p.values for p in parts]),
            np.concatenate([p.seq for p in parts]),
        )
