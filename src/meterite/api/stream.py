"""Readings on their way to a client, slice by slice.

What this file guarantees: memory is bounded by a slice; a selection is closed however the stream ends; and a
stream that can't go on is cut without its last chunk, so that no client takes a part for the whole. What is
wrong before the first byte is an ordinary error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import anyio
import numpy as np
import structlog
from starlette.responses import StreamingResponse

from meterite.model.check import canonical_labels
from meterite.model.errors import MeteriteError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from numpy.typing import NDArray
    from starlette.types import Send

    from meterite.model.columns import Labels
    from meterite.query.select import Rows, Selection
    from meterite.wire.rows import RowEncoder

WARNING_HEADER: Final = "Meterite-Warning"
WARNINGS_MAX: Final = 8
PIECE_ROWS: Final = 8192
"""So many rows are encoded at a time: other requests are answered in between."""
LABELS_KEPT: Final = 100_000

log = structlog.get_logger("meterite.stream")


async def stream_readings(selection: Selection, encoder: RowEncoder) -> Readings:
    """The answer to a selection. Begun here, so that it is closed even if no client waits any more."""
    slices = selection.slices()
    return Readings(selection, await anext(slices, None), slices, encoder)


class Readings(StreamingResponse):
    """The document that ``encoder`` makes of the selection's rows."""

    def __init__(
        self, selection: Selection, first: Rows | None, slices: AsyncIterator[Rows], encoder: RowEncoder
    ) -> None:
        super().__init__((), media_type=encoder.media_type, headers={"Vary": "Accept"})
        add_warnings(self, selection.warnings)
        self._first = first
        self._slices: Any = slices
        self._encoder = encoder
        self._texts = LabelTexts(selection.labels)

    async def stream_response(self, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            try:
                await self._send_rows(send)
            except MeteriteError as exc:
                # Headers are gone: all that is left to say is that this is not the end.
                log.warning("stream cut", reason=exc.code, detail=exc.message)
                return
            await send({"type": "http.response.body", "body": self._encoder.tail(), "more_body": False})
        finally:
            with anyio.CancelScope(shield=True):
                await self._slices.aclose()

    async def _send_rows(self, send: Send) -> None:
        body = self._encoder.head()
        rows = self._first
        self._first = None
        while rows is not None:
            for begin in range(0, len(rows.reading), PIECE_ROWS):
                body += self._encode(rows, slice(begin, begin + PIECE_ROWS))
                await send({"type": "http.response.body", "body": body, "more_body": True})
                body = b""
            rows = await anext(self._slices, None)
        await send({"type": "http.response.body", "body": body, "more_body": True})

    def _encode(self, rows: Rows, piece: slice) -> bytes:
        labels = self._texts.of(rows.series[piece])
        return self._encoder.rows(
            rows.reading[piece], rows.reading_at_us[piece], rows.recorded_at_us[piece], labels
        )


class LabelTexts:
    """Labels of series as JSON, each written once."""

    def __init__(self, labels: Callable[[int], Labels]) -> None:
        self._labels = labels
        self._texts: dict[int, str] = {}

    def of(self, series: NDArray[np.int64]) -> list[str] | None:
        """Each row's; None where no row has labels."""
        distinct, which = np.unique(series, return_inverse=True)
        texts = [self._text(one) for one in distinct.tolist()]
        if not any(texts):
            return None
        return [texts[i] for i in which.tolist()]

    def _text(self, series: int) -> str:
        text = self._texts.get(series)
        if text is None:
            if len(self._texts) >= LABELS_KEPT:
                self._texts.clear()
            labels = self._labels(series)
            text = self._texts[series] = canonical_labels(labels) if labels else ""
        return text


def add_warnings(response: Any, warnings: Sequence[str]) -> None:
    """A header each, as far as headers go; none of them can end the header it stands in."""
    shown = list(warnings[:WARNINGS_MAX])
    if len(warnings) > len(shown):
        shown.append(f"And {len(warnings) - len(shown)} more gaps.")
    for warning in shown:
        text = warning.encode("unicode_escape").decode("ascii")[:1000]
        response.headers.append(WARNING_HEADER, text)
