"""Errors as lines of text, for protocols whose programs answer so.

What this file guarantees: of the readings that were rejected :data:`SHOWN_MAX` at most are told, with places and codes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fastapi import Response

from meterite.api.describe import problems
from meterite.api.protocol import ProtocolRoute, protocol_status, retry_after

if TYPE_CHECKING:
    from fastapi import Request

    from meterite.model.errors import MeteriteError
    from meterite.recording.receipts import Receipt

TEXT: Final = "text/plain; charset=utf-8"
SHOWN_MAX: Final = 20
_CONTENT: Final = {"text/plain": {"schema": {"type": "string"}}}


class TextRoute(ProtocolRoute):
    """A door whose errors are a line of text."""

    @staticmethod
    def refusal(error: MeteriteError, request: Request) -> Response:  # noqa: ARG004 -- of any request alike
        return _told(f"{error.message} ({error.code})", protocol_status(error), retry_after(error))


def _told(text: str, status: int, headers: dict[str, str] | None = None) -> Response:
    return Response(text + "\n", status, headers, media_type=TEXT)


def refused(receipt: Receipt) -> Response:
    """400, with the first of what was rejected."""
    shown = [f"{receipt.counted} {r.index}: {r.reason} ({r.code})" for r in receipt.rejected[:SHOWN_MAX]]
    rest = len(receipt.rejected) + receipt.rejected_more - len(shown)
    return _told("\n".join(shown + ([f"and {rest} more"] if rest else [])), 400)


def texts(*, body: bool = False) -> dict[int | str, dict[str, Any]]:
    """What such a route answers beside its success; ``body`` as in ``describe.problems``."""
    described = problems(body=body)
    described.pop(422)
    described.setdefault(400, {"description": "The request can't be carried out; the text says why."})
    return {status: said | {"content": _CONTENT} for status, said in described.items()}
