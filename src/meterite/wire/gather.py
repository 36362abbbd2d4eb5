"""What plain decoders gather, reading by reading, into columns.

What this file guarantees: what comes out is a :class:`Decoded` with distinct, checked keys, whatever went in; no more
than ``readings_max`` readings, good and bad, are ever held.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from meterite.model.check import check_code, check_labels
from meterite.model.columns import Decoded, Described, Rejected, SeriesKey
from meterite.model.errors import TooLargeError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


def too_many(readings_max: int) -> TooLargeError:
    return TooLargeError(
        "too-many-readings", f"A request may have at most {readings_max} readings; send several requests."
    )


class Gathered:
    """``counted``, ``unit`` and ``unit_asked`` are as in :class:`Decoded`; a ``row`` is a place in the request."""

    def __init__(
        self,
        readings_max: int,
        *,
        counted: Literal["index", "line"] = "index",
        unit: str | None = None,
        unit_asked: bool = False,
    ) -> None:
        self._readings_max = readings_max
        self._counted: Literal["index", "line"] = counted
        self._unit = unit
        self._unit_asked = unit_asked
        self._keys: list[SeriesKey] = []
        self._places: dict[SeriesKey | int, int] = {}
        self._key_index: list[int] = []
        self._at_us: list[int] = []
        self._values: list[float] = []
        self._rows: list[int] = []
        self._rejected: list[Rejected] = []
        self._skipped = 0
        self._described: dict[str, Described] = {}

    def key(self, code: object, labels: Mapping[str, object] | None = None) -> SeriesKey:
        """The name of a series, checked. InvalidInputError. Worth keeping by the bytes that it was written in."""
        return SeriesKey(check_code(code), check_labels(labels) if labels else ())

    def place(self, key: SeriesKey) -> int:
        """Where the key stands among all, for :meth:`add_many` and others; worth keeping, too."""
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = len(self._keys)
            self._keys.append(key)
        return place

    def place_one(self, key: SeriesKey) -> int:
        """The same where equal keys are one object, as ``names.py`` gives them; all must be placed like this, then."""
        place = self._places.get(id(key))
        if place is None:
            place = self._places[id(key)] = len(self._keys)
            self._keys.append(key)
        return place

    def codes(self) -> set[str]:
        """Of all keys so far."""
        return {key.code for key in self._keys}

    def add(self, key: SeriesKey, at_us: int, value: float, row: int) -> None:
        """A reading. TooLargeError beyond ``readings_max``."""
        self.append(self.place(key), at_us, value, row)

    def append(self, place: int, at_us: int, value: float, row: int) -> None:
        """A reading of the series at a place. TooLargeError beyond ``readings_max``."""
        self._check_room(1)
        self._key_index.append(place)
        self._at_us.append(at_us)
        self._values.append(value)
        self._rows.append(row)

    def add_many(self, places: list[int], at_us: list[int], values: list[float], rows: list[int]) -> None:
        """Readings in columns. TooLargeError beyond ``readings_max``."""
        self._check_room(len(values))
        self._key_index += places
        self._at_us += at_us
        self._values += values
        self._rows += rows

    def add_each(self, keys: list[SeriesKey], at_us: list[int], values: list[float], rows: list[int]) -> None:
        """Readings in columns, by keys as :meth:`place_one` takes them. TooLargeError beyond ``readings_max``."""
        self.add_many(list(map(self.place_one, keys)), at_us, values, rows)

    def extend(self, places: Sequence[int], at_us: int, values: Iterable[float], row: int) -> None:
        """Readings of one time and one place in the request. TooLargeError beyond ``readings_max``."""
        count = len(places)
        self._check_room(count)
        self._key_index.extend(places)
        self._at_us.extend([at_us] * count)
        self._values.extend(values)
        self._rows.extend([row] * count)

    def reject(self, row: int, code: str, reason: str) -> None:
        """A reading that can't be taken. TooLargeError beyond ``readings_max``."""
        self._check_room(1)
        self._rejected.append(Rejected(row, code, reason))

    def skip(self, count: int = 1) -> None:
        """Well-formed, and no reading."""
        self._skipped += count

    def describe(self, code: str, *, unit: str = "", description: str = "") -> None:
        """What the format tells of a metric. The first word of each counts."""
        known = self._described.get(code, Described())
        self._described[code] = Described(known.unit or unit, known.description or description)

    def _check_room(self, count: int) -> None:
        if len(self._values) + len(self._rejected) + count > self._readings_max:
            raise too_many(self._readings_max)

    def decoded(self) -> Decoded:
        """All of it, without the keys that no reading has."""
        keys, key_index = self._keys, np.array(self._key_index, np.uint32)
        if self._rejected:
            used = np.unique(key_index)
            place = np.zeros(len(keys), np.uint32)
            place[used] = np.arange(len(used), dtype=np.uint32)
            keys, key_index = [keys[n] for n in used.tolist()], place[key_index]
        return Decoded(
            keys,
            key_index,
            np.array(self._at_us, np.int64),
            np.array(self._values, np.float64),
            np.array(self._rows, np.int64),
            self._rejected,
            self._skipped,
            self._described,
            self._counted,
            self._unit,
            self._unit_asked,
        )
