"""What users may name and say: codes, labels, names, units, descriptions, readings.

What this file guarantees: what passes here can be kept, compared and given back unchanged (no surrogates,
which UTF-8 can't carry; no control characters, which terminals and logs would obey), and is bounded. What
doesn't raises :class:`InvalidInputError` with a stable code and repeats 60 characters of the input at most.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Final

import msgspec

from meterite.model.columns import Described
from meterite.model.errors import InvalidInputError
from meterite.model.time import Place, excerpt

if TYPE_CHECKING:
    from collections.abc import Mapping

    from meterite.model.columns import Labels

CODE_CHARACTERS_MAX: Final = 200
LABEL_NAME_CHARACTERS_MAX: Final = 200
LABEL_VALUE_CHARACTERS_MAX: Final = 1000
LABELS_MAX: Final = 64
NAME_CHARACTERS_MAX: Final = 1000
UNIT_CHARACTERS_MAX: Final = 200
DESCRIPTION_CHARACTERS_MAX: Final = 10_000

# Unicode's category Cc is exactly these two ranges, and will stay so.
_FORBIDDEN: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_FORBIDDEN_IN_LINES: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_CODE_PLACE: Final = ("body", "code")
_LABELS_PLACE: Final = ("body", "labels")


def _check_text(
    text: object, what: str, code: str, characters_max: int, place: Place, *, empty: bool, lines: bool = False
) -> str:
    if not isinstance(text, str):
        raise InvalidInputError(code, f"{what} must be a string.", place=place)
    if len(text) > characters_max or not (text or empty):
        least = "at most" if empty else "1 to"
        raise InvalidInputError(
            code, f"{what} must have {least} {characters_max} characters, not {len(text)}.", place=place
        )
    if (_FORBIDDEN_IN_LINES if lines else _FORBIDDEN).search(text):
        raise InvalidInputError(
            code, f"{what} must have no control characters and no surrogates: {excerpt(text)}.", place=place
        )
    return text


def check_code(text: object, *, place: Place = _CODE_PLACE) -> str:
    """A metric's code: 1 to 200 characters, not ``.`` or ``..``, which paths can't carry."""
    code = _check_text(text, "A code", "code-invalid", CODE_CHARACTERS_MAX, place, empty=False)
    if code in {".", ".."}:
        raise InvalidInputError("code-invalid", "A code can't be . or .. alone.", place=place)
    return code


def check_labels(labels: Mapping[str, object], *, place: Place = _LABELS_PLACE) -> Labels:
    """The labels, sorted by name. A label with an empty value is no label, as in Prometheus."""
    if len(labels) > LABELS_MAX:
        raise InvalidInputError(
            "labels-too-many", f"A reading has at most {LABELS_MAX} labels, not {len(labels)}.", place=place
        )
    pairs = []
    for name, value in labels.items():
        _check_text(name, "A label's name", "label-invalid", LABEL_NAME_CHARACTERS_MAX, place, empty=False)
        text = _check_text(
            value, "A label's value", "label-invalid", LABEL_VALUE_CHARACTERS_MAX, place, empty=True
        )
        if text:
            pairs.append((name, text))
    return tuple(sorted(pairs))


def check_name(text: object, *, place: Place = ("body", "name")) -> str:
    return _check_text(text, "A name", "name-invalid", NAME_CHARACTERS_MAX, place, empty=True)


def check_unit(text: object, *, place: Place = ("body", "unit")) -> str:
    return _check_text(text, "A unit", "unit-invalid", UNIT_CHARACTERS_MAX, place, empty=True)


def check_description(text: object, *, place: Place = ("body", "description")) -> str:
    """A description may have several lines."""
    return _check_text(
        text,
        "A description",
        "description-invalid",
        DESCRIPTION_CHARACTERS_MAX,
        place,
        empty=True,
        lines=True,
    )


def fitting(described: Described) -> Described:
    """What of it can be kept: what a format tells beside its readings refuses none of them."""
    unit, description = described.unit, described.description
    try:
        check_unit(unit)
    except InvalidInputError:
        unit = ""
    try:
        check_description(description)
    except InvalidInputError:
        description = ""
    return Described(unit, description)


def check_reading(value: float, *, place: Place = ("body", "reading")) -> float:
    if math.isfinite(value):
        return value
    raise InvalidInputError("reading-invalid", "A reading must be a finite number.", place=place)


def canonical_labels(labels: Labels) -> str:
    """Compact JSON, names sorted by code point: equal labels are equal texts."""
    return msgspec.json.encode(dict(sorted(labels))).decode("utf-8")


_LABELS: Final = msgspec.json.Decoder(dict[str, str])


def parse_labels(text: str) -> Labels:
    """The labels that :func:`canonical_labels` wrote."""
    return tuple(sorted(_LABELS.decode(text).items()))
