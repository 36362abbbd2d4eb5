"""Who calls, and what the routes share of a request.

What this file guarantees: a handler can reach the store only with the org that the gate found, and a code
comes to it decoded.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

from fastapi import Depends, Path, Query, Request, Response

from meterite.api.paths import decode_code
from meterite.model.check import check_labels
from meterite.model.errors import InvalidInputError
from meterite.model.time import excerpt, parse_bound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meterite.model.columns import Labels
    from meterite.service import Service

JSON: Final = "application/json"
ORG: Final = "meterite.org"


@dataclass(frozen=True, slots=True)
class Caller:
    """The org of the request's token, and the service that answers it."""

    service: Service
    org: str


async def _caller(request: Request) -> Caller:
    return Caller(request.app.state.service, request.scope[ORG])


async def _code(
    code: Annotated[
        str,
        Path(
            description="The metric's code, percent-encoded; `/` may stand as it is, but before a last part that is an "
            "action's word: the code `a/readings` is `/metric/a%2Freadings`."
        ),
    ],
) -> str:
    return decode_code(code)


Called = Annotated[Caller, Depends(_caller)]
Code = Annotated[str, Depends(_code)]

_BOUND = "RFC 3339, seconds since 1970, `now`, or relative like `-1d` (us ms s m h d w)"
Start = Annotated[str | None, Query(description=f"The first time, included: {_BOUND}.")]
End = Annotated[str | None, Query(description=f"Up to this time, not included: {_BOUND}.")]
LabelFilters = Annotated[
    list[str] | None, Query(alias="labels", description="`name=value`, repeatable: all must hold.")
]


def json_response(body: bytes, status: int = 200) -> Response:
    return Response(body, status, media_type=JSON)


def parse_bounds(start: str | None, end: str | None) -> tuple[int | None, int | None]:
    """µs since 1970 of both; what is missing is open."""
    now_us = time.time_ns() // 1000
    start_us = None if start is None else parse_bound(start, now_us, place=("query", "start"))
    end_us = None if end is None else parse_bound(end, now_us, place=("query", "end"))
    if start_us is not None and end_us is not None and start_us > end_us:
        raise InvalidInputError("bounds-crossed", "start must not be after end.", place=("query", "start"))
    return start_us, end_us


def parse_filters(texts: Sequence[str] | None) -> Labels:
    """``host=a``, divided at the first ``=``.

    An empty value is refused: labels are never empty, and a filter that falls away would delete too much.
    """
    found: dict[str, object] = {}
    for text in texts or ():
        name, sign, value = text.partition("=")
        if not sign or not value:
            raise _filter_error(f"{excerpt(text)} is no label: write labels=name=value.")
        if found.setdefault(name, value) != value:
            raise _filter_error(f"The label {excerpt(name)} can't have two values at once.")
    return check_labels(found, place=("query", "labels"))


def _filter_error(message: str) -> InvalidInputError:
    return InvalidInputError("label-invalid", message, place=("query", "labels"))
