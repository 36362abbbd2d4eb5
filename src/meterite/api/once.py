"""``Idempotency-Key``: a request that may be sent again, and counts once.

What this file guarantees: a key belongs to its org, path and query; what is kept of it and of the body are digests.
After draft-ietf-httpapi-idempotency-key-header-07, but that a key needs no quotes (with them they are part of it).
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Final

from meterite.model.errors import InvalidInputError
from meterite.storage.once import Once

if TYPE_CHECKING:
    from fastapi import Request

HEADER: Final = "idempotency-key"
_KEY: Final = re.compile(r"[ -~]{1,255}")


def once_of(request: Request, body: bytes) -> Once | None:
    """None where the request has no key. InvalidInputError."""
    keys = request.headers.getlist(HEADER)
    if not keys:
        return None
    if len(keys) > 1 or _KEY.fullmatch(keys[0]) is None:
        raise InvalidInputError(
            "idempotency-key-invalid",
            "An Idempotency-Key is one header of 1 to 255 printable ASCII characters.",
            place=("header", HEADER),
        )
    scope = request.scope
    path: bytes = scope.get("raw_path") or scope["path"].encode()
    parts = (
        scope["method"].encode(),
        path.partition(b"?")[0],
        scope["query_string"],
        keys[0].encode("ascii"),
    )
    key = hashlib.blake2b(b"".join(b"%d:%b" % (len(part), part) for part in parts), digest_size=32)
    return Once(key.digest(), hashlib.blake2b(body, digest_size=32).digest())
