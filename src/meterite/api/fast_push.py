"""What the fast door understands of a push: its head, its body, and what it is answered.

What this file guarantees: a head is taken only where HTTP's parser and our own ordinary way read it alike: a subset of
RFC 9112, one plain body of a known length, a token that is good, no header that changes what a push means. A body is
taken only where the ordinary way would commit the same. Nothing is refused here: what isn't taken is None, and the
ordinary way says what is wrong with it.

Heads of one client are alike, so what is known of a head is kept by its bytes; never of one that a cookie vouches for,
since cookies expire.
"""

from __future__ import annotations

import functools
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import parse_qsl, unquote

from meterite.api.pushgateway import decode_pushed
from meterite.api.request_id import new_id, sent_id, with_id
from meterite.model.columns import NO_TIME, Single
from meterite.model.errors import MeteriteError
from meterite.storage.interface import PushGroup
from meterite.wire.compiled import decode_line_protocol
from meterite.wire.formats import media_type
from meterite.wire.grouping import Grouping, decode_grouping
from meterite.wire.line_protocol import AUTO, decode_plain_line, plain_line_series, time_unit
from meterite.wire.push import decode_push, encode_meter

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from starlette.types import Scope

    from meterite.api.credentials import Credential
    from meterite.catalog import Known
    from meterite.recording.group import Done
    from meterite.recording.recorder import Recorder
    from meterite.storage.interface import Append

    Told: TypeAlias = Callable[[Scope, int, int, float], None]
    Meter: TypeAlias = tuple[Known, float]
    Headers: TypeAlias = list[tuple[bytes, bytes]]

HEAD_BYTES_MAX: Final = 2048
BODY_BYTES_MAX: Final = 16_384
HEADS_KEPT: Final = 1024
SERIES_KEPT: Final = 8192
SERIES_BYTES_MAX: Final = 256

_METRIC: Final = "/metric/"
_WRITES: Final = frozenset({"/write", "/api/v2/write"})
_GROUPS: Final = ("/metrics/job/", "/metrics/job@base64/")
_REPLACES: Final[dict[str, Literal["all", "metrics"]]] = {"PUT": "all", "POST": "metrics"}
_PARAMETERS: Final = frozenset({"db", "rp", "u", "p", "precision", "consistency", "bucket", "org"})

_PATH: Final = rb"[A-Za-z0-9._~!$&'()*+,;=:@/-]"
_NAME: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_VALUE: Final = rb"(?:[!-~]++(?: ++(?=[!-~]))?+)*+"
_HEAD: Final = re.compile(
    rb"(POST|PUT) (/(?:" + _PATH + rb"|%)++)(?:\?((?:" + _PATH + rb"|%)*+))?+ HTTP/1\.([01])"
    rb"((?:\r\n" + _NAME + rb":[ \t]*+" + _VALUE + rb")*+)"
)
_FIELDS: Final = re.compile(rb"\r\n(" + _NAME + rb"):[ \t]*+(" + _VALUE + rb")")
_LENGTH: Final = re.compile(rb"[0-9]{1,5}")
_OTHERWISE: Final = frozenset(
    {
        *(b"content-encoding", b"expect", b"idempotency-key", b"proxy-connection"),
        *(b"transfer-encoding", b"upgrade"),
    }
)
"""With one of these a request isn't a plain push."""
_CONNECTIONS: Final = frozenset({b"close", b"keep-alive"})
_LAST: Final = b"x-request-id: %b\r\n%b\r\n%b"
_EMPTY: Final = b"HTTP/1.1 200 OK\r\n%bcontent-length: 0\r\n" + _LAST
_NO_CONTENT: Final = b"HTTP/1.1 204 No Content\r\n%b" + _LAST
_FORWARDED: Final = (b"x-forwarded-for", b"x-forwarded-proto")
_OK: Final = b"HTTP/1.1 200 OK\r\n%bcontent-length: %d\r\ncontent-type: application/json\r\n" + _LAST


@dataclass(frozen=True, slots=True)
class Place:
    """What is pushed to: the metric with a ``code``; or a ``group``; or else lines, whose times are in ``unit``."""

    code: str | None = None
    unit: str = ""
    group: Group | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """A Pushgateway's group, and what its metrics are written in."""

    grouping: Grouping
    changed: PushGroup
    content_type: str


@dataclass(frozen=True, slots=True)
class Asked:
    """What a head says; ``ends``: the connection ends with the answer."""

    org: str
    length: int
    place: Place
    scope: Scope
    request_id: str | None
    ends: bool


class Pushes:
    """``authenticate`` is the gate's, ``api_key_name`` what may carry a token in an address, too.

    ``told`` is the access log's, where there is one: of an answer the scope, status, body's bytes and when it began.
    """

    def __init__(
        self,
        recorder: Recorder,
        authenticate: Callable[[Scope], tuple[str, Credential]],
        *,
        api_key_name: str,
        body_bytes_max: int,
        readings_max: int,
        body_wait_s: float,
        told: Told | None = None,
    ) -> None:
        self._recorder = recorder
        self._authenticate = authenticate
        self._parameters = _PARAMETERS | {api_key_name}
        self._body_bytes_max = min(body_bytes_max, BODY_BYTES_MAX)
        self._readings_max = readings_max
        self.body_wait_s = body_wait_s
        self._told = told
        self.asked = functools.lru_cache(HEADS_KEPT)(self._asked)
        """What a head (without its empty line, at most ``HEAD_BYTES_MAX``) asks for; None: nothing for this door."""
        self._series = functools.lru_cache(SERIES_KEPT)(plain_line_series)

    def _asked(self, head: bytes) -> Asked | None:
        found = _HEAD.fullmatch(head)
        if found is None:
            return None
        method, target, query = found.group(1).decode(), found.group(2).decode(), found.group(3) or b""
        headers = [(name.lower(), value) for name, value in _FIELDS.findall(found.group(5))]
        length, ends = self._length(headers), _ends(found.group(4), headers)
        place = self._place(method, target, query, headers) if length else None
        if place is None or ends is None:
            return None
        scope = {
            "type": "http",
            "method": method,
            "path": unquote(target),
            "raw_path": target.encode("ascii"),
            "root_path": "",
            "query_string": query,
            "headers": headers,
        }
        try:
            org, credential = self._authenticate(scope)
        except MeteriteError:
            return None
        if credential.kind == "cookie":
            return None
        return Asked(org, length, place, scope, sent_id(scope), ends)

    def _place(self, method: str, target: str, query: bytes, headers: Headers) -> Place | None:
        """None where this isn't a place for pushes, or something more is asked."""
        if target.startswith(_GROUPS):
            return _group(method, target, headers)
        if method != "POST" or "%" in target:
            return None
        if target.startswith(_METRIC):
            code = target.removeprefix(_METRIC)
            return Place(code=code) if code and "/" not in code and not query else None
        unit = self._unit(target, query)
        return None if unit is None else Place(unit=unit)

    def _unit(self, target: str, query: bytes) -> str | None:
        """Of the times of lines; None as of a place."""
        if target not in _WRITES:
            return None
        parameters = parse_qsl(query.decode("ascii"), keep_blank_values=True)
        values = dict(parameters)
        if len(values) < len(parameters) or not values.keys() <= self._parameters:
            return None
        try:
            return time_unit(values.get("precision"))
        except MeteriteError:
            return None

    def _length(self, headers: Headers) -> int:
        """Of the body; 0 where a header makes this another request than a plain push."""
        lengths = [value for name, value in headers if name == b"content-length"]
        if len(lengths) != 1 or not _LENGTH.fullmatch(lengths[0]):
            return 0
        for name, _ in headers:
            if name in _OTHERWISE:
                return 0
            if self._told is not None and name in _FORWARDED:  # who asks is for the server to say
                return 0
        length = int(lengths[0])
        return length if length <= self._body_bytes_max else 0

    def begin(self, asked: Asked, body: bytes, done: Done) -> OnItsWay | None:
        """Hand the push in; ``done`` is told when it is on disk. None: it isn't for this door, and nothing was done."""
        place, meter = asked.place, None
        try:
            if place.code is not None:
                append, meter = self._meter(asked.org, place.code, body)
            elif place.group is not None:
                append = self._pushed(asked.org, place.group, body)
            else:
                append = self._lines(asked.org, place.unit, body)
            if append is None:
                return None
            self._recorder.submit(append, done)
        except MeteriteError:
            return None
        return OnItsWay(asked, append, meter, self._told)

    def _meter(self, org: str, code: str, body: bytes) -> tuple[Append | None, Meter | None]:
        recorder = self._recorder
        known = recorder.kept(org, code)
        if known is None:
            return None, None
        reading, at_us, labels = decode_push(body)
        series = recorder.series_kept(known, labels)
        if not series:
            return None, None
        return recorder.append_one(known, series, reading, at_us), (known, reading)

    def _pushed(self, org: str, group: Group, body: bytes) -> Append | None:
        decoded = decode_pushed(
            body, readings_max=self._readings_max, content_type=group.content_type, grouping=group.grouping
        )
        append = self._recorder.append_kept(org, decoded)
        if append is not None:
            append.group = group.changed
        return append

    def _lines(self, org: str, unit: str, body: bytes) -> Append | None:
        recorder = self._recorder
        line = None if unit == AUTO else decode_plain_line(body, unit)
        if line is None or len(line[0]) > SERIES_BYTES_MAX:
            decoded = decode_line_protocol(body, precision=unit, readings_max=self._readings_max)
            return recorder.append_kept(org, decoded)
        written, at_us, value = line
        key = self._series(written)
        known = None if key is None else recorder.kept(org, key.code)
        if key is None or known is None or not (at_us == NO_TIME or recorder.surely_in_time(at_us)):
            return None
        series = recorder.series_kept(known, key.labels)
        return (
            recorder.append_one(known, series, value, None if at_us == NO_TIME else at_us) if series else None
        )


def _ends(minor: bytes, headers: Headers) -> bool | None:
    """Whether the connection ends with the answer; None where its header says something else.

    HTTP/1.0's always does: uvicorn keeps none, whatever they ask for.
    """
    asked = {value.lower() for name, value in headers if name == b"connection"}
    if len(asked) > 1 or not asked <= _CONNECTIONS:
        return None
    return minor == b"0" or b"close" in asked


def _group(method: str, target: str, headers: Headers) -> Place | None:
    try:
        grouping = decode_grouping(target.encode().split(b"/", 2)[2])
    except MeteriteError:
        return None
    if "\n" in unquote(target):  # no route's path has one
        return None
    content_type = next((value.decode("latin-1") for name, value in headers if name == b"content-type"), None)
    changed = PushGroup(grouping.name, _REPLACES[method])
    return Place(group=Group(grouping, changed, media_type(content_type)))


class OnItsWay:
    """A push that was handed in. With slots of its own: one is made for each."""

    __slots__ = ("_append", "_asked", "_meter", "_started_s", "_told")

    def __init__(self, asked: Asked, append: Append, meter: Meter | None, told: Told | None) -> None:
        self._asked = asked
        self._append = append
        self._meter = meter
        self._told = told
        self._started_s = 0.0 if told is None else time.perf_counter()

    def answer(self, defaults: bytes, last: bytes, client: tuple[str, int] | None) -> bytes:
        """What is sent once it is on disk: the server's own headers first, ``last`` behind all others."""
        id_ = self._asked.request_id or new_id()
        body, status = b"" if self._meter is None else self._body(self._meter), 200
        if body:
            answer = _OK % (defaults, len(body), id_.encode(), last, body)
        elif self._asked.place.group is not None:
            answer = _EMPTY % (defaults, id_.encode(), last, body)
        else:
            answer, status = _NO_CONTENT % (defaults, id_.encode(), last, body), 204
        if self._told is not None:
            scope = with_id({**self._asked.scope, "client": client}, id_)
            self._told(scope, status, len(body), self._started_s)
        return answer

    def _body(self, meter: Meter) -> bytes:
        known, reading = meter
        append = self._append
        assert isinstance(append.batch, Single)
        at_us = append.given_us or append.batch.at_us
        return encode_meter(reading, at_us, known.metric.id, append.recorded_at_us)
