"""The request's id: the client's own, where it is harmless, else one made here.

Guaranteed: one id for a request whoever asks first, and it is made only where somebody asks.
"""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from starlette.types import Scope

HEADER: Final = b"x-request-id"
_KEY: Final = "meterite.request_id"
_SANE: Final = re.compile(rb"[A-Za-z0-9._:-]{1,64}")


def request_id_of(scope: Scope) -> str:
    """The id of this request."""
    known: str | None = scope.get(_KEY)
    if known is None:
        known = scope[_KEY] = sent_id(scope) or new_id()
    return known


def new_id() -> str:
    return f"{random.getrandbits(128):032x}"


def with_id(scope: Scope, request_id: str) -> Scope:
    """A copy of the scope, of the request with this id."""
    return {**scope, _KEY: request_id}


def sent_id(scope: Scope) -> str | None:
    """The client's own, where it is harmless."""
    for name, value in scope.get("headers", ()):
        if name == HEADER and _SANE.fullmatch(value):
            return bytes(value).decode("ascii")
    return None
