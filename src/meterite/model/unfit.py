"""Why a value of a setting, or of a handler's option, can't be used: in the words of the docs, not of a library.

What this file guarantees: what is told comes from what is allowed, and never from the value, which may be a secret.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

WHOLE_NUMBER: Final = "must be a whole number"
_SHAPES: Final = (
    (("int_type", "int_parsing", "int_from_float", "int_parsing_size"), WHOLE_NUMBER),
    (("float_type", "float_parsing", "finite_number"), "must be a number"),
    (("bool_type", "bool_parsing"), "must be true or false"),
    (("string_type",), "must be a string"),
    (("tuple_type", "list_type", "set_type", "frozen_set_type"), "must be a list"),
    (("dict_type", "mapping_type"), "must be an object"),
)
_SHAPE: Final = {kind: said for kinds, said in _SHAPES for kind in kinds}
_BOUNDS: Final = {
    "greater_than_equal": "must be {ge} or more",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be {le} at most",
    "less_than": "must be less than {lt}",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
}
_TOO_SHORT: Final = frozenset({"too_short", "string_too_short"})


def why_unfit(kind: str, bounds: Mapping[str, object], otherwise: str) -> str:
    """Of an error of pydantic: its type and context; its own message is for what has no words here."""
    if kind in _SHAPE:
        return _SHAPE[kind]
    if kind in _BOUNDS:
        return _BOUNDS[kind].format_map(bounds)
    if kind in _TOO_SHORT and bounds.get("min_length") == 1:
        return "must not be empty"
    return f"can't be used: {otherwise[:1].lower()}{otherwise[1:]}"
