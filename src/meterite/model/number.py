"""Readings as text: the shortest that reads back as the same float64, and whole numbers without ``.0``.

What this file guarantees: every text is a JSON value. Whole numbers below 2⁶³ are written as integers,
minus zero as ``0``, NaN as ``null``, infinities as ``"+Inf"`` and ``"-Inf"`` (JSON has no such numbers).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_WHOLE_BELOW: Final = 2.0**63


def number_text(value: float) -> str:
    """One number as a JSON value."""
    if math.isinf(value):
        return '"+Inf"' if value > 0 else '"-Inf"'
    whole = abs(value) < _WHOLE_BELOW and value == int(value)  # false for NaN before int() sees it
    return msgspec.json.encode(int(value) if whole else value).decode("ascii")


def plain_number(value: float) -> int | float | None:
    """The same for who encodes it himself: a whole one is an int, and what JSON lacks is None."""
    if not math.isfinite(value):
        return None
    return int(value) if abs(value) < _WHOLE_BELOW and value == int(value) else float(value)


def numbers_text(values: NDArray[Any]) -> list[str]:
    """:func:`number_text` of each, encoded in one call."""
    if not len(values):
        return []
    if values.dtype.kind in "iu":
        return _encode(values.tolist())
    with np.errstate(invalid="ignore"):  # A signalling NaN is a number like any other NaN here.
        whole = (np.abs(values) < _WHOLE_BELOW) & (np.trunc(values) == values)
    if whole.all():
        return _encode(values.astype(np.int64).tolist())
    numbers = values.tolist()
    for row, integer in zip(
        np.flatnonzero(whole).tolist(), values[whole].astype(np.int64).tolist(), strict=True
    ):
        numbers[row] = integer
    texts = _encode(numbers)
    for row in np.flatnonzero(np.isinf(values)).tolist():
        texts[row] = number_text(numbers[row])
    return texts


def _encode(numbers: list[Any]) -> list[str]:
    return msgspec.json.encode(numbers)[1:-1].decode("ascii").split(",")
