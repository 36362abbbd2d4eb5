"""Which decoder reads which media type of ``POST /readings``.

What this file guarantees: JSON is taken under any Content-Type that isn't another format's (``curl -d``
sends a form's), and under none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from meterite.wire.readings_json import decode_json, decode_ndjson

if TYPE_CHECKING:
    from meterite.model.columns import Decoded

JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"


class ReadingsDecoder(Protocol):
    """Bytes to columns, pure."""

    def __call__(self, body: bytes, *, precision: str | None, readings_max: int) -> Decoded: ...


DECODERS: Final[dict[str, ReadingsDecoder]] = {JSON: decode_json, NDJSON: decode_ndjson}


def media_type(content_type: str | None) -> str:
    """The type without its parameters, in small letters."""
    return (content_type or "").partition(";")[0].strip().lower()


def readings_decoder(content_type: str | None) -> ReadingsDecoder:
    return DECODERS.get(media_type(content_type), decode_json)
