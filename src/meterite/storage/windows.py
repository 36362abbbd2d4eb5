"""Calendar months, UTC, as numbers: the windows within which runs are merged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from meterite.model.time import AT_FIRST_US, AT_LAST_US

if TYPE_CHECKING:
    from meterite.model.columns import type_i64


def window_of(at_us: int) -> int:
    """Months from January 1970 to the month of a time; times beyond all readings count as the outermost."""
    clipped = max(AT_FIRST_US, min(AT_LAST_US, at_us))
    return int(np.datetime64(clipped, "us").astype("datetime64[M]").astype(np.int64))


def window_starts(first: int, last: int) -> type_i64:
    """When each of the windows begins, µs; both ends included."""
    months = np.arange(first, last + 1).astype("datetime64[M]")
    starts: type_i64 = months.astype("datetime64[us]").astype(np.int64)
    return starts
