# Remote write 1.0 in one pass; see the C beside it.

from collections.abc import Callable
from typing import final

from meterite.model.columns import SeriesKey

@final
class Decoder:
    def __new__(
        cls,
        parse_labels: Callable[[bytes], SeriesKey | None],
        unused: None,
        seed: bytes,
        bytes_max: int,
        first_us: int,
        last_us: int,
    ) -> Decoder: ...

    # Keys, key_index, at_us, values; None where in doubt.
    def decode(
        self, body: bytes, readings_max: int, /
    ) -> tuple[list[SeriesKey], bytearray, bytearray, bytearray] | None: ...

    # How many series are kept, and what all costs in bytes.
    def kept(self) -> tuple[int, int]: ...
