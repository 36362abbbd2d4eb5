# Readings against limits, in one pass; see the C beside it.

from typing import Any

from numpy.typing import NDArray

# Rows of TRANSITION, the metrics that they are about, the sum of their types' bits; and uint32 places in `slots` that
# are to be walked. None, and nothing done, where the newest reading of one that matters is unknown. `slots` are int64,
# of `calm` (CALM) and `rows` (WATCHED), which move on.
def judge(
    series_index: NDArray[Any],
    at_us: NDArray[Any],
    values: NDArray[Any],
    slots: NDArray[Any],
    calm: NDArray[Any],
    rows: NDArray[Any],
    now_us: int,
    /,
) -> tuple[bytes, list[int], int, bytes] | None: ...
