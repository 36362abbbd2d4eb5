# Line protocol in one pass; see the C beside it.

from collections.abc import Callable
from typing import final

from meterite.model.columns import Labels, SeriesKey

@final
class Decoder:
    def __new__(
        cls,
        parse_key: Callable[[bytes], tuple[str, Labels] | None],
        name_series: Callable[[tuple[str, Labels], bytes], SeriesKey | None],
        seed: bytes,
        bytes_max: int,
        first_us: int,
        last_us: int,
    ) -> Decoder: ...

    # Keys, key_index, at_us, values, row, skipped; None where in doubt.
    def decode(
        self, body: bytes, unit: str, readings_max: int, /
    ) -> tuple[list[SeriesKey], bytearray, bytearray, bytearray, bytearray, int] | None: ...

    # How many series are kept, and what all costs in bytes.
    def kept(self) -> tuple[int, int]: ...
