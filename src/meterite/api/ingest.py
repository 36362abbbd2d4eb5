"""The one way from a body to the store, which all doors of readings share.

What this file guarantees: whatever the format, a body is decoded, resolved, truncated, committed and told of by the
same code; a door says only how its bytes are decoded and how its clients want to be answered. A large body is decoded
beside the event loop, so that no other request waits for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from meterite.api.once import once_of
from meterite.wire.names import Names

if TYPE_CHECKING:
    from fastapi import Request

    from meterite.api.caller import Caller
    from meterite.model.columns import Decoded
    from meterite.recording.receipts import Receipt
    from meterite.storage.interface import PushGroup
    from meterite.storage.once import Once

NAMES: Final = Names()
"""Shared by all requests of the process: it holds what names mean, and nothing of whose they are."""

READ_AT_ONCE_BYTES_MAX: Final = 256 * 1024
"""As much of the slowest format (CSV) takes 0.1 s on a busy machine, of most others a tenth of that."""


class Decode(Protocol):
    """A decoder with all that its door knows (precision, say) filled in; called by any thread, by several at a time."""

    def __call__(self, body: bytes, *, readings_max: int) -> Decoded: ...


async def ingest(
    called: Caller,
    request: Request,
    decode: Decode,
    *,
    partial: bool = False,
    full: bool = False,
    group: PushGroup | None = None,
) -> Receipt:
    """Record the readings of the request's body: all or nothing, unless ``partial`` asks for the good ones.

    ``group`` is changed by them (see the recorder). With an Idempotency-Key the receipt may be that of an earlier
    request. Refused whole, the receipt has ``accepted`` 0 and no time. MeteriteError.
    """
    readings_max: int = request.app.state.readings_max
    body = await request.body()

    def read() -> tuple[Once | None, Decoded]:
        return once_of(request, body), decode(body, readings_max=readings_max)

    large = len(body) > READ_AT_ONCE_BYTES_MAX
    once, decoded = await called.service.lanes.decode(called.org, len(body), read) if large else read()
    return await called.service.recorder.record(
        called.org, decoded, partial=partial, full=full, group=group, once=once
    )
