"""What comes from outside, made fit to be seen."""

from __future__ import annotations

import pytest

from meterite.api.redact import clip, escape, redact_url


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("/docs?x-auth-token=T", "/docs"),
        ("/a?limit=3&X-Auth-Token=T&b=1", "/a?limit=3&b=1"),
        ("/a?x%2Dauth%2dtoken=T&b=1", "/a?b=1"),
        ("/write?u=U&p=T&db=d", "/write?db=d"),
        ("/a?access_token=T;token=T;api_key=T;password=T&b", "/a?b"),
        ("http://user:T@host/a?b=T", "http://host/a?b=T"),
        ("/a#x-auth-token=T", "/a"),
        ("/a?b=1#part", "/a?b=1#part"),
        ("/a\x1b[31m\n?b=\u202e", "/a\\x1b[31m\\x0a?b=\\u202e"),
    ],
)
def test_addresses(url, expected):
    """Parameters that carry tokens are gone, however they are spelled, the others stay."""
    assert redact_url(url, "x-auth-token") == expected


def test_the_settings_name_counts():
    """The parameter is the one of api_key_name."""
    assert redact_url("/a?Meter-Key=T&b=1", "meter-key") == "/a?b=1"


def test_escape_and_clip():
    """Controls and surrogates become readable; a cut text says so; any other letter stays."""
    assert escape("ü😀\ud800\x00\u2028") == "ü😀\\ud800\\x00\\u2028"
    assert clip("abcdef", 4) == "abc…"
    assert clip("abcd", 4) == "abcd"
