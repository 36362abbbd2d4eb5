"""StatsD's lines, with the additions that clients of today make.

    line   = name 1*(":" value) "|" type *("|" more)        page.views:1|c|@0.1
    type   = "c" / "g" / "ms" / "h" / "d" / "s"             h and d (histogram, distribution) are timers
    more   = "@" rate / "#" tag *("," tag) / any            tag = name [":" value]; what else there is, is passed over
    name   = text *(";" tag "=" value) / text *("," tag "=" value)

Specifications: github.com/statsd/statsd docs/metric_types.md; tags as DogStatsD's datagrams (docs.datadoghq.com), as
Graphite's names and as Telegraf's have them.

What this file guarantees: any bytes give samples and rejections by line; the name is the metric's code and tags are its
labels, as they are; a DogStatsD tag without a value has the value ``true``. Events and service checks (``_e``, ``_sc``)
are skipped. A gauge's value that begins with a sign is a step, not a value. No sample is infinite, none is NaN, but a
set's, which is a text; a rate is above 0 and at most 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from meterite.model.check import LABEL_VALUE_CHARACTERS_MAX, check_code, check_labels
from meterite.model.columns import Rejected, SeriesKey
from meterite.model.errors import InvalidInputError
from meterite.model.time import excerpt
from meterite.wire.graphite import tags_of
from meterite.wire.readings_exact import exact_reading

Kind = Literal["counter", "gauge", "step", "timer", "set"]

_KINDS: Final[dict[str, Kind]] = {
    "c": "counter",
    "g": "gauge",
    "ms": "timer",
    "h": "timer",
    "d": "timer",
    "s": "set",
}
_SKIPPED: Final = ("_e{", "_sc|")


@dataclass(frozen=True, slots=True)
class Sample:
    """``value`` is what was counted, measured or timed; of a set its ``text``. ``rate``: of so many one was sent."""

    key: SeriesKey
    kind: Kind
    value: float
    rate: float = 1.0
    text: str = ""


@dataclass(slots=True)
class Samples:
    """Of one datagram, or some lines; ``rejected`` by line, from 1."""

    samples: list[Sample] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    skipped: int = 0


def decode_statsd(body: bytes) -> Samples:
    """The samples in the order in which they stand."""
    found = Samples()
    for row, raw in enumerate(body.split(b"\n"), 1):
        line = raw.strip()
        if not line:
            continue
        try:
            text = line.decode("utf-8")
            if text.startswith(_SKIPPED):
                found.skipped += 1
            else:
                found.samples.extend(_samples(text))
        except UnicodeDecodeError:
            found.rejected.append(Rejected(row, "not-utf-8", "The line must be UTF-8."))
        except InvalidInputError as exc:
            found.rejected.append(Rejected(row, exc.code, exc.message))
    return found


def _samples(line: str) -> list[Sample]:
    """All of a line, or none."""
    head, *sections = line.split("|")
    if not sections:
        raise InvalidInputError("line-invalid", f"{excerpt(line)} has no type: write name:value|type.")
    name, *values = head.split(":")
    kind = _KINDS.get(sections[0].strip())
    if kind is None:
        raise InvalidInputError(
            "line-invalid", f"There is no type {excerpt(sections[0])}: c, g, ms, h, d or s."
        )
    if not values:
        raise InvalidInputError("line-invalid", f"{excerpt(line)} has no value: write name:value|type.")
    rate, tags = 1.0, {}
    for section in sections[1:]:
        if section.startswith("@"):
            rate = _rate(section[1:])
        elif section.startswith("#"):
            tags = _dog_tags(section[1:])
    key = _key(name, tags)
    return [_sample(key, kind, value.strip(), rate) for value in values]


def _sample(key: SeriesKey, kind: Kind, value: str, rate: float) -> Sample:
    if kind == "set":
        if len(value) > LABEL_VALUE_CHARACTERS_MAX:
            raise InvalidInputError(
                "line-invalid", f"A set's value has at most {LABEL_VALUE_CHARACTERS_MAX} characters."
            )
        return Sample(key, kind, 0.0, rate, value)
    if kind == "gauge" and value[:1] in {"+", "-"}:
        kind = "step"
    return Sample(key, kind, exact_reading(value), rate)


def _rate(text: str) -> float:
    rate = exact_reading(text)
    if not 0 < rate <= 1:
        raise InvalidInputError("line-invalid", f"{excerpt(text)} is no rate: above 0, and 1 at most.")
    return rate


def _dog_tags(text: str) -> dict[str, object]:
    pairs = (tag.partition(":") for tag in text.split(",") if tag)
    return {name: value if sign else "true" for name, sign, value in pairs}


def _key(name: str, tags: dict[str, object]) -> SeriesKey:
    divider = ";" if ";" in name else ","
    code, *own = name.split(divider)
    if own:
        tags = tags_of(own) | tags
    return SeriesKey(check_code(code), check_labels(tags) if tags else ())
