"""The division of a metric's path: every code is reachable for every action."""

from __future__ import annotations

import asyncio
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterite.api.paths import ACTIONS, MetricPaths, decode_code, metric_path, split
from meterite.model.errors import InvalidInputError

codes = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=40) | st.lists(
    st.sampled_from([*(action.decode() for action in ACTIONS), "a", "", "%2F", "ä"]), min_size=2
).map("/".join)
actions = st.sampled_from(["", *sorted(action.decode() for action in ACTIONS)])


def routed(raw_path: bytes, **scope: str) -> str:
    seen: list[str] = []

    async def app(scope, receive, send):
        seen.append(scope["path"])

    asked = {"type": "http", "path": raw_path.decode("latin-1"), "raw_path": raw_path, **scope}
    asyncio.run(MetricPaths(app)(asked, None, None))
    return seen[0]


@given(codes, actions)
def test_every_code_is_reachable(code: str, action: str) -> None:
    """A code without control characters, quoted whole, comes back as it was with the action asked for."""
    assert split(metric_path(code, action).encode()) == (code, action)


@given(codes.filter(bool), actions.filter(bool))
def test_a_slash_works_as_it_is_before_an_action(code: str, action: str) -> None:
    """With an action behind it, a code may bring its slashes unquoted."""
    assert split(f"/metric/{quote(code, safe='/')}/{action}".encode()) == (code, action)


@given(codes, actions)
def test_the_framework_sees_one_segment(code: str, action: str) -> None:
    """What is routed has the code in one segment, and decodes to the same code."""
    path = routed(metric_path(code, action).encode())
    parts = path.split("/")
    assert len(parts) == (4 if action else 3)
    assert decode_code(parts[2]) == code


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"/metric", None),
        (b"/metric/", None),
        (b"/metrics/a", None),
        (b"/metric/readings", ("readings", "")),
        (b"/metric/a/readings", ("a", "readings")),
        (b"/metric/a%2Freadings", ("a/readings", "")),
        (b"/metric/a%2freadings/readings", ("a/readings", "readings")),
        (b"/metric/a/b", ("a/b", "")),
        (b"/metric/a/%72eadings", ("a/readings", "")),
        (b"/metric/readings/readings", ("readings", "readings")),
        (b"/metric/%C3%A4", ("ä", "")),
        (b"/metric/a+b", ("a+b", "")),
        (b"/metric/%252F", ("%2F", "")),
    ],
)
def test_examples(raw: bytes, expected: tuple[str, str] | None) -> None:
    """The cases that the contract names."""
    assert split(raw) == expected


def test_bytes_that_are_no_utf8_are_refused() -> None:
    """An undecodable code is the client's mistake, with its place."""
    with pytest.raises(InvalidInputError) as caught:
        split(b"/metric/%ff")
    assert caught.value.place == ("path", "code")


def test_the_collection_is_one_place() -> None:
    """``/metric`` and ``/metric/`` are routed alike, also below a root path."""
    assert routed(b"/metric") == routed(b"/metric/") == "/metric/"
    assert routed(b"/sub/metric", root_path="/sub") == "/sub/metric/"


def test_an_encoded_slash_never_divides() -> None:
    """``/metric%2Fa`` isn't the metric ``a``; other paths pass as they came."""
    assert routed(b"/metric%2Fa") == "/metric%2Fa"
    assert routed(b"/readings") == "/readings"
