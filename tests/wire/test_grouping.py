"""Groups by paths."""

from __future__ import annotations

import base64
import contextlib
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterite.model.errors import InvalidInputError
from meterite.wire.grouping import decode_grouping


@pytest.mark.parametrize(
    ("path", "labels"),
    [
        (b"job/a", {"job": "a"}),
        (b"job/a/", {"job": "a"}),
        (b"job/a/x/1/y/2", {"job": "a", "x": "1", "y": "2"}),
        (b"job/a/x/1/", {"job": "a", "x": "1"}),
        (b"job/a+b/x/1%2B2", {"job": "a+b", "x": "1+2"}),
        (b"job/a%2Fb/x/%2f", {"job": "a/b", "x": "/"}),
        (b"job/%C3%A9%20", {"job": "é "}),
        (b"job@base64/L3Zhci90bXA", {"job": "/var/tmp"}),
        (b"job@base64/L3Zhci90bXA=/x@base64/Pz8_", {"job": "/var/tmp", "x": "???"}),
        (b"job%40base64/YQ%3D%3D", {"job": "a"}),
        (b"job/a/x@base64/=", {"job": "a", "x": ""}),
        (b"job/a/x/", {"job": "a", "x": ""}),
        (b"job/a/x/1/x/2", {"job": "a", "x": "2"}),
        (b"job/a/job/b", {"job": "a"}),
        (b"job/a/b.c/1", {"job": "a", "b.c": "1"}),
    ],
)
def test_labels(path, labels):
    """Plain, escaped and in base64; an empty one stands there for what it takes away."""
    assert decode_grouping(path).labels == labels


def test_names():
    """The order of labels makes no other group, nor do empty labels or ways to write them."""
    same = (b"job/a/x/1/y/2", b"job/a/y/2/x/1", b"job@base64/YQ/x/1/y/2/z@base64/=", b"job/%61/x/%31/y/2/")
    assert {decode_grouping(path).name for path in same} == {'{"job":"a","x":"1","y":"2"}'}
    assert decode_grouping(b"job/a/x/1").name != decode_grouping(b"job/a/x/2").name


@pytest.mark.parametrize(
    ("path", "what"),
    [
        (b"", "write it as"),
        (b"jobs/a", "write it as"),
        (b"job", "write it as"),
        (b"job/", "a job's name"),
        (b"job@base64/=", "a job's name"),
        (b"job/a/x", "write it as"),
        (b"job/a/x/1/y", "write it as"),
        (b"job/a//", "'' can't be"),
        (b"job/a//1", "'' can't be"),
        (b"job/a/@base64/YQ", "'' can't be"),
        (b"job/a/__x/1", "'__x' can't be"),
        (b"job/a/__x@base64/YQ", "'__x' can't be"),
        (b"job@base64/a", "no base64"),
        (b"job@base64/%C3%A9", "no base64"),
        (b"job@base64/a+8", "no base64"),
        (b"job@base64/a%2F8", "no base64"),
        (b"job@base64/_w", "no base64 of UTF-8"),
        (b"job/a/x@base64/YQ=b", "no base64"),
        (b"job/%FF", "percent-encoded UTF-8"),
    ],
)
def test_what_names_no_group(path, what):
    """A sentence says what is wrong."""
    with pytest.raises(InvalidInputError, match=what) as raised:
        decode_grouping(path)
    assert raised.value.code == "grouping-invalid"


@pytest.mark.parametrize(
    "path", [b"job/a/x/%00", b"job/a/x/" + b"y" * 1001, b"job/a" + b"".join(b"/l%d/1" % n for n in range(64))]
)
def test_labels_that_can_t_be_kept(path):
    """They are checked as a reading's are."""
    with pytest.raises(InvalidInputError):
        decode_grouping(path)


TEXTS = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=9)


@given(st.dictionaries(TEXTS.filter(bool), TEXTS, max_size=5), st.booleans())
def test_round_trip(labels, in_base64):
    """What a client's library escapes is what is read."""
    labels = {
        name: value
        for name, value in labels.items()
        if not name.startswith("__") and not name.endswith("@base64") and name != "job"
    }
    parts = ["job", "a"]
    for name, value in labels.items():
        if in_base64:
            parts += [
                quote(name, safe="") + "@base64",
                base64.urlsafe_b64encode(value.encode()).decode() or "=",
            ]
        else:
            parts += [quote(name, safe=""), quote(value, safe="")]
    path = "/".join(parts)
    assert decode_grouping(path.encode()).labels == labels | {"job": "a"}


@given(st.binary(max_size=40))
def test_any_bytes(path):
    """A group, or an error of ours."""
    for start in (b"job/a/", b"job@base64/", b""):
        with contextlib.suppress(InvalidInputError):
            assert decode_grouping(start + path).labels["job"]
