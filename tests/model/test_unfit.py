"""What is wrong with a value, in words that the docs use, too."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

import pytest
from pydantic import Field, TypeAdapter, ValidationError

from meterite.model.unfit import why_unfit


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@pytest.mark.parametrize(
    ("shape", "value", "said"),
    [
        (int, "10MB", "must be a whole number"),
        (int, 1.5, "must be a whole number"),
        (int, [], "must be a whole number"),
        (int, "9" * 5000, "must be a whole number"),
        (float, "x", "must be a number"),
        (float, [], "must be a number"),
        (Annotated[float, Field(allow_inf_nan=False)], "inf", "must be a number"),
        (bool, "perhaps", "must be true or false"),
        (bool, [], "must be true or false"),
        (str, 5, "must be a string"),
        (tuple[str, ...], "ls", "must be a list"),
        (list[str], "ls", "must be a list"),
        (set[str], "ls", "must be a list"),
        (frozenset[str], "ls", "must be a list"),
        (dict[str, str], "ls", "must be an object"),
        (Annotated[int, Field(ge=1)], 0, "must be 1 or more"),
        (Annotated[int, Field(gt=1)], 0, "must be more than 1"),
        (Annotated[int, Field(le=1)], 2, "must be 1 at most"),
        (Annotated[int, Field(lt=1)], 2, "must be less than 1"),
        (Annotated[str, Field(min_length=1)], "", "must not be empty"),
        (Annotated[tuple[str, ...], Field(min_length=1)], [], "must not be empty"),
        (
            Annotated[str, Field(min_length=2)],
            "a",
            "can't be used: string should have at least 2 characters",
        ),
        (Literal["a", "b"], "c", "must be 'a' or 'b'"),
        (Colour, "green", "must be 'red' or 'blue'"),
    ],
)
def test_in_our_words(shape, value, said):
    """Of each type of error that settings and options know; what else comes is the library's, as a part of a line."""
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(shape).validate_python(value)
    first = caught.value.errors()[0]
    assert why_unfit(first["type"], first.get("ctx", {}), first["msg"]) == said
