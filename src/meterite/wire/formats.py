"""Which decoder reads which media type of ``POST /readings``.

What this file guarantees: JSON is taken under any Content-Type that isn't another format's (``curl -d``
sends a form's), and under none; CSV and NDJSON have to be named.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from meterite.model.errors import InvalidInputError
from meterite.wire.readings_csv import decode_csv
from meterite.wire.readings_json import decode_json, decode_ndjson

if TYPE_CHECKING:
    from meterite.model.columns import Decoded

JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"
CSV: Final = "text/csv"


class ReadingsDecoder(Protocol):
    """Bytes to columns, pure."""

    def __call__(self, body: bytes, *, precision: str | None, readings_max: int) -> Decoded: ...


DECODERS: Final[dict[str, ReadingsDecoder]] = {
    JSON: decode_json,
    NDJSON: decode_ndjson,
    CSV: decode_csv,
}


def media_type(content_type: str | None) -> str:
    """The type without its parameters, in small letters."""
    return (content_type or "").partition(";")[0].strip().lower()


def readings_decoder(content_type: str | None, metric: str | None = None) -> ReadingsDecoder:
    """``metric`` is that of all readings, for formats whose readings may lack it. InvalidInputError for others."""
    decoder = DECODERS.get(media_type(content_type), decode_json)
    if metric is None:
        return decoder
    if decoder is not decode_csv:
        raise InvalidInputError(
            "metric-twice",
            "JSON names the metric in each reading; ?metric= is for CSV (Content-Type: text/csv).",
            place=("query", "metric"),
        )
    return partial(decode_csv, metric=metric)
