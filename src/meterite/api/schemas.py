"""What the API takes and answers: the contract's schemas, and what is new beside it.

What this file guarantees: what :func:`parse_metric` lets through can be kept as it is; everything else is a
422 with its place. ``true``, ``null`` and ``NaN`` are no numbers, numeric strings are. Fields that nobody knows
are ignored, so that a metric can be sent back as it was got, but for a slip in a field's name. Answers write whole
numbers as integers and times as RFC 3339 with ``Z``.
"""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - pydantic reads the annotations
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias

import msgspec
from fastapi.exceptions import RequestValidationError
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
)

from meterite.model.check import (
    CODE_CHARACTERS_MAX,
    DESCRIPTION_CHARACTERS_MAX,
    NAME_CHARACTERS_MAX,
    UNIT_CHARACTERS_MAX,
    check_code,
    check_description,
    check_name,
    check_unit,
)
from meterite.model.duration import parse_duration
from meterite.model.errors import InvalidInputError
from meterite.model.metric import (
    DEFAULT_MAX_READING,
    DEFAULT_MIN_READING,
    ConflictPolicy,
    MetricSpec,
    Notify,
)
from meterite.model.near import refuse_slips
from meterite.model.number import number_text
from meterite.model.time import format_rfc3339, parse_rfc3339
from meterite.model.truncate import parse_truncation
from meterite.model.zone import check_timezone
from meterite.wire.json_exact import load_exact
from meterite.wire.push import encode_meters
from meterite.wire.readings_exact import exact_reading

if TYPE_CHECKING:
    from collections.abc import Callable

    from meterite.catalog import MetricView
    from meterite.model.metric import Point
    from meterite.query.select import Rows

NUMBER_OR_TEXT: Final[dict[str, Any]] = {
    "anyOf": [
        {"type": "number"},
        {"type": "string", "pattern": r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"},
    ]
}
KNOWN_FIELDS: Final = frozenset({"name", "min_reading", "max_reading", "truncate_reading_to"})
"""What the original's clients know; of all else they can't mean to change it by leaving it out."""
FIELD_CHARACTERS_COMPARED: Final = 4
"""A shorter name (``for``) is nearly everything."""
DURATION: Final[dict[str, Any]] = {
    "type": "string",
    "pattern": "^[0-9]{1,18}(us|ms|s|m|h|d|w)$",
    "examples": ["5m"],
}


def _number(field: str) -> Callable[[object], float]:
    def check(value: object) -> float:
        try:
            return exact_reading(value)
        except InvalidInputError as exc:
            raise InvalidInputError(
                "number-invalid", f"{field} must be a finite number.", place=("body", field)
            ) from exc

    return check


def _truncation(name: str) -> str:
    return parse_truncation(name).name


def _notify(value: object) -> object:
    return Notify.CHANGE if value is None else value


def _hysteresis(value: object) -> float:
    number = 0.0 if value is None else _number("hysteresis")(value)
    if number < 0:
        raise InvalidInputError(
            "hysteresis-invalid", "hysteresis must be 0 or more.", place=("body", "hysteresis")
        )
    return number


def _duration(field: str, *, zero: bool) -> Callable[[object], object]:
    """The text itself, where it is a duration."""
    place = ("body", field)

    def check(value: object) -> object:
        if value is not None and not parse_duration(value, place=place) and not zero:
            raise InvalidInputError("duration-invalid", f"{field} must be more than 0.", place=place)
        return value

    return check


def _mute_until(value: object) -> object:
    if value is None:
        return None
    place = ("body", "mute_until")
    if not isinstance(value, str):
        raise InvalidInputError(
            "time-invalid", "mute_until must be a time like 2026-01-31T12:00:00Z, or null.", place=place
        )
    return parse_rfc3339(value, place=place)


Number: TypeAlias = float | Literal["+Inf", "-Inf"]
"""As answers write it."""
LABELS: Final = Field(
    description="Tell apart the series of one metric; at most 64. "
    "A label whose value is empty is no label, as in Prometheus."
)
InNumber = WithJsonSchema(NUMBER_OR_TEXT, mode="validation")
_NULLABLE_NOTIFY: Final[dict[str, Any]] = {"enum": [*(one.value for one in Notify), None]}
_NULLABLE_NUMBER: Final[dict[str, Any]] = {"anyOf": [*NUMBER_OR_TEXT["anyOf"], {"type": "null"}]}


class MetricBase(BaseModel):
    """What a user says of a metric."""

    model_config = ConfigDict(extra="ignore", use_attribute_docstrings=True)

    code: Annotated[
        str,
        AfterValidator(check_code),
        Field(json_schema_extra={"minLength": 1, "maxLength": CODE_CHARACTERS_MAX}),
    ]
    """Names the metric within its org: any characters but control characters, not `.` or `..`."""
    name: Annotated[
        str, AfterValidator(check_name), Field(json_schema_extra={"maxLength": NAME_CHARACTERS_MAX})
    ]
    """For people."""
    min_reading: Annotated[float, BeforeValidator(_number("min_reading")), InNumber] = DEFAULT_MIN_READING
    """A reading below it is recorded, and raises an event."""
    max_reading: Annotated[float, BeforeValidator(_number("max_reading")), InNumber] = DEFAULT_MAX_READING
    """A reading above it is recorded, and raises an event."""
    truncate_reading_to: Annotated[str, AfterValidator(_truncation)] | None = None
    """`second`, `minute`, `hour`, `day`, `week`, `month`, `quarter`, `half_year`, `year`, or `N_second`,
    `N_minute`, `N_hour` with N dividing the next larger unit: there is one reading each."""
    unit: (
        Annotated[
            str, AfterValidator(check_unit), Field(json_schema_extra={"maxLength": UNIT_CHARACTERS_MAX})
        ]
        | None
    ) = None
    """What is counted, such as `kWh`."""
    description: (
        Annotated[
            str,
            AfterValidator(check_description),
            Field(json_schema_extra={"maxLength": DESCRIPTION_CHARACTERS_MAX}),
        ]
        | None
    ) = None
    timezone: Annotated[str, AfterValidator(check_timezone)] | None = None
    """An IANA name: the wall clock that is truncated; none is UTC."""
    on_conflict: ConflictPolicy = ConflictPolicy.LAST
    """Which of two readings at one time holds; fixed once there was a reading."""
    notify: Annotated[
        Notify, BeforeValidator(_notify), WithJsonSchema(_NULLABLE_NOTIFY, mode="validation")
    ] = Notify.CHANGE
    """Events: `change` when a limit is crossed and when all is well again, `every` for each commit with readings
    outside."""
    hysteresis: Annotated[
        float, BeforeValidator(_hysteresis), WithJsonSchema(_NULLABLE_NUMBER, mode="validation")
    ] = 0.0
    """So far inside the limit that was crossed a reading must lie to clear it; 0 or more."""
    outside_for: Annotated[
        Annotated[str, WithJsonSchema(DURATION)] | None, BeforeValidator(_duration("for", zero=True))
    ] = Field(default=None, alias="for")
    """A duration like `5m` (us ms s m h d w): readings must be outside for so long before there is an event."""
    expected_every: Annotated[
        Annotated[str, WithJsonSchema(DURATION)] | None,
        BeforeValidator(_duration("expected_every", zero=False)),
    ] = None
    """A duration: without a reading for so long the metric is silent, which is an event."""
    mute_until: Annotated[
        Annotated[int, WithJsonSchema({"type": "string", "format": "date-time"})] | None,
        BeforeValidator(_mute_until),
    ] = None
    """RFC 3339: until then there are no events of readings and of silence."""


class Meter(BaseModel):
    """A reading as it was taken."""

    reading: Number
    reading_at: datetime
    metric_id: int
    recorded_at: datetime | None = None


class Metric(MetricBase):
    """A metric with what became of it."""

    id: int
    org: str
    active: bool = True
    current_reading: float | None = None
    """The reading with the latest `reading_at`, over all series. What is no number (NaN, infinities, the stale marker
    of a series that ended) is none, so that the last number stays; nor is a sum that became infinite."""
    current_reading_at: datetime | None = None
    last_reading: float | None = None
    """The one before it."""
    last_reading_at: datetime | None = None
    meters: list[Meter] = []
    """The newest readings, newest first; only where one metric is asked for."""


class MeterBase(BaseModel):
    """One reading. Without `reading_at` it is now."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    reading: Annotated[float, InNumber]
    reading_at: datetime | None = None
    """RFC 3339; without an offset it is UTC."""
    labels: Annotated[dict[str, str] | None, LABELS] = None


class ReadingRow(BaseModel):
    """One reading among many."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    metric: str
    """The metric's code."""
    reading: Annotated[float, InNumber]
    reading_at: datetime | int | None = None
    """RFC 3339, or with `?precision` an integer. Without it the time is now."""
    labels: Annotated[dict[str, str] | None, LABELS] = None


class ReadingColumns(BaseModel):
    """Many readings of one series, as columns of one length."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    metric: str
    """The metric's code."""
    reading: list[Annotated[float, InNumber]]
    reading_at: list[datetime | int] | None = None
    """As many as readings."""
    labels: Annotated[dict[str, str] | None, LABELS] = None


class RejectedReading(BaseModel):
    """A reading that was not taken."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    index: int | None = None
    """Its number in the request, from 0: JSON, NDJSON."""
    line: int | None = None
    """Its line in the request, from 1: formats of lines."""
    code: str
    reason: str


class Receipt(BaseModel):
    """What became of a request's readings."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    accepted: int
    rejected: list[RejectedReading]
    """The first 1,000, with an `Idempotency-Key` as many of them as are kept. A fault of a whole block of columns is
    one of each of its readings.
    """
    rejected_more: int = 0
    """How many more there were."""
    committed_at: datetime | None
    """When they were on disk; null where nothing was written."""
    skipped: int = 0
    """How many values were none, and are no error: an empty field of CSV, for one."""
    replaced: int = 0
    """With `?receipt=full`: how many took the place of another value."""
    unchanged: int = 0
    """With `?receipt=full`: how many changed nothing."""
    events: list[str] = []
    """With `?receipt=full`: ids of the events that were raised about the request's series, the first 1,000."""
    events_more: int = 0
    """How many more there were."""


class Committed(BaseModel):
    """The change is on disk."""

    committed_at: datetime


class StoredReading(BaseModel):
    """A reading as it is kept."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    reading: Number
    """With `on_conflict` = `sum` it may become infinite, for which JSON has no number."""
    reading_at: datetime
    recorded_at: datetime | None
    """Null where damage to the store took it."""
    labels: dict[str, str] = {}
    """Only where there are any."""


class SummaryRow(BaseModel):
    """A step: its `start`, and a column for each function that was asked for, under its name (`mean`, `p99.9`).

    A mean or a sum beyond what a float64 holds is the text `"+Inf"` or `"-Inf"`, since JSON has no such number.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Number | None] = Field(init=False)

    start: datetime


class SummaryAnswer(BaseModel):
    """Readings by steps; steps without readings are left out."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    every: str | None
    """As it was asked for; null where all readings are one step."""
    tz: str
    """The zone of calendar steps; `UTC` for fixed ones, which are counted from 1970-01-01T00:00Z in every zone."""
    rows: list[SummaryRow]


class Health(BaseModel):
    """The process answers."""

    name: Literal["meterite"]
    status: Literal["pass"]
    version: str


class Readiness(BaseModel):
    """Whether the store takes and gives."""

    status: Literal["ready", "not ready"]
    problems: list[str]


class Mistake(BaseModel):
    """One thing that is wrong, and where."""

    model_config = ConfigDict(extra="allow")

    loc: list[str | int]
    msg: str
    type: str


class Problem(BaseModel):
    """RFC 9457. `type` is stable; `detail` is a sentence, for 422 a list of places."""

    type: str
    title: str
    status: int
    detail: str | list[Mistake]
    instance: str = ""
    request_id: str = ""


FIELDS: Final = tuple(
    name
    for field, info in MetricBase.model_fields.items()
    if len(name := info.alias or field) >= FIELD_CHARACTERS_COMPARED
)
KEPT_FIELDS: Final = frozenset(info.alias or field for field, info in Metric.model_fields.items())
"""What a metric that was got has: it can be sent back."""
REQUESTS: Final = (MetricBase, MeterBase, ReadingRow, ReadingColumns)
"""Named by request bodies that are described by hand, since bodies are read raw."""
ANSWERS: Final = (Problem, StoredReading, SummaryAnswer)
"""Named by answers that are described by hand: they are streamed, or have several media types."""


def parse_metric(body: bytes) -> MetricBase:
    """The metric in a body of any content type."""
    document = load_exact(body)
    if not isinstance(document, dict):
        raise InvalidInputError("shape-invalid", 'Send a JSON object like {"code": "M1", "name": "Meter 1"}.')
    refuse_slips(document, FIELDS, KEPT_FIELDS)
    try:
        metric = MetricBase.model_validate(document)
    except ValidationError as exc:
        mistakes = exc.errors(include_url=False, include_context=False, include_input=False)
        raise RequestValidationError([{**one, "loc": ("body", *one["loc"])} for one in mistakes]) from None
    if metric.min_reading > metric.max_reading:
        raise InvalidInputError(
            "limits-crossed", "min_reading must not be above max_reading.", place=("body", "min_reading")
        )
    return metric


def spec_of(metric: MetricBase) -> MetricSpec:
    return MetricSpec(**{_attribute(name): getattr(metric, name) for name in MetricBase.model_fields})


def changes_of(metric: MetricBase) -> dict[str, object]:
    """What a ``PUT`` changes: all the original knew, and of the rest what the body names."""
    named = (KNOWN_FIELDS | metric.model_fields_set) - {"code"}
    return {_attribute(name): getattr(metric, name) for name in MetricBase.model_fields if name in named}


def _attribute(name: str) -> str:
    """Of the spec; but for this one they are called as they are here."""
    return "mute_until_us" if name == "mute_until" else name


def metric_json(view: MetricView, meters: Rows | None = None) -> bytes:
    """The contract's ``Metric``."""
    document = metric_document(view)
    if meters is not None:
        columns = meters.reading, meters.reading_at_us, view.metric.id, meters.recorded_at_us
        document["meters"] = msgspec.Raw(encode_meters(*columns))
    return msgspec.json.encode(document)


def metric_document(view: MetricView) -> dict[str, Any]:
    spec, state = view.metric.spec, view.state
    return {
        "code": spec.code,
        "name": spec.name,
        "min_reading": _written(spec.min_reading),
        "max_reading": _written(spec.max_reading),
        "truncate_reading_to": spec.truncate_reading_to,
        "unit": spec.unit,
        "description": spec.description,
        "timezone": spec.timezone,
        "on_conflict": spec.on_conflict,
        "notify": spec.notify,
        "hysteresis": _written(spec.hysteresis),
        "for": spec.outside_for,
        "expected_every": spec.expected_every,
        "mute_until": None if spec.mute_until_us is None else format_rfc3339(spec.mute_until_us),
        "id": view.metric.id,
        "org": view.metric.org,
        "active": view.metric.active,
        **_point("current_reading", state.current),
        **_point("last_reading", state.last),
    }


def _point(name: str, point: Point | None) -> dict[str, Any]:
    if point is None:
        return {name: None, f"{name}_at": None}
    return {name: _written(point.value), f"{name}_at": format_rfc3339(point.at_us)}


def _written(value: float) -> msgspec.Raw:
    return msgspec.Raw(number_text(value).encode("ascii"))
